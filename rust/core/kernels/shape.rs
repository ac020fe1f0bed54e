//! Geometry of sliding windows. One-dimensional operators use a height of one.

use crate::error::{Error, Result};

/// Geometry of a convolution over NHWC tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Input channels, of all groups.
    pub in_channels: usize,
    /// Output channels, of all groups.
    pub out_channels: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride along height and width.
    pub stride: [usize; 2],
    /// Dilation along height and width.
    pub dilation: [usize; 2],
    /// Padding: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Groups.
    pub groups: usize,
}

/// Output size of a window along one axis, or `None` where the window exceeds the padded input.
fn output_size(
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
) -> Option<usize> {
    let extent = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    let room = input.checked_add(before)?.checked_add(after)?.checked_sub(extent)?;
    Some(room.checked_div(stride)? + 1)
}

impl ConvShape {
    /// A convolution with unit stride and dilation, no padding and one group.
    pub fn new(batch: usize, input: [usize; 2], in_channels: usize, out_channels: usize, kernel: [usize; 2]) -> Self {
        ConvShape {
            batch,
            input,
            in_channels,
            out_channels,
            kernel,
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0; 4],
            groups: 1,
        }
    }

    /// Checks that the geometry is one that the kernels take; they assume it.
    pub fn validate(&self) -> Result<()> {
        let fault = |message: String| Err(Error::invalid("conv_shape", message));
        if self.kernel.contains(&0) || self.stride.contains(&0) || self.dilation.contains(&0) {
            return fault(format!(
                "kernel {:?}, stride {:?} and dilation {:?} must be above zero",
                self.kernel, self.stride, self.dilation
            ));
        }
        if self.groups == 0
            || !self.in_channels.is_multiple_of(self.groups)
            || !self.out_channels.is_multiple_of(self.groups)
        {
            return fault(format!(
                "{} groups do not divide {} input and {} output channels",
                self.groups, self.in_channels, self.out_channels
            ));
        }
        if self.in_channels == 0 || self.out_channels == 0 {
            return fault("a convolution needs channels".into());
        }
        for axis in 0..2 {
            if self.try_output(axis).is_none() {
                return fault(format!(
                    "kernel {:?} with dilation {:?} exceeds the padded input {:?} (pads {:?})",
                    self.kernel, self.dilation, self.input, self.pads
                ));
            }
        }
        Ok(())
    }

    fn try_output(&self, axis: usize) -> Option<usize> {
        output_size(
            self.input[axis],
            self.kernel[axis],
            self.stride[axis],
            self.dilation[axis],
            self.pads[axis],
            self.pads[axis + 2],
        )
    }

    /// Output height and width. Panics where [`ConvShape::validate`] fails.
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.try_output(axis).expect("a validated shape"))
    }

    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Kernel positions.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Products per output element, padding included.
    pub fn depth(&self) -> usize {
        self.taps() * self.group_in()
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input[0] * self.input[1] * self.in_channels
    }

    /// Output pixels of all images.
    pub fn output_pixels(&self) -> usize {
        let [h, w] = self.output();
        self.batch * h * w
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.output_pixels() * self.out_channels
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.depth()
    }

    /// Flat input pixel that tap `(ky, kx)` of output pixel `(image, oy, ox)` meets; `None` in the padding.
    #[inline]
    pub fn source(&self, image: usize, out: [usize; 2], tap: [usize; 2]) -> Option<usize> {
        let y = (out[0] * self.stride[0] + tap[0] * self.dilation[0]).checked_sub(self.pads[0])?;
        let x = (out[1] * self.stride[1] + tap[1] * self.dilation[1]).checked_sub(self.pads[1])?;
        (y < self.input[0] && x < self.input[1]).then(|| (image * self.input[0] + y) * self.input[1] + x)
    }

    /// Image, row and column of a flat output pixel.
    #[inline]
    pub(crate) fn locate(&self, output: [usize; 2], pixel: usize) -> (usize, [usize; 2]) {
        let (row, x) = (pixel / output[1], pixel % output[1]);
        (row / output[0], [row % output[0], x])
    }
}

/// Geometry of a transposed convolution over NHWC tensors. The output size is explicit, so that output padding and
/// automatic pads are the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransposeShape {
    /// Images.
    pub batch: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    /// Input channels, of all groups.
    pub in_channels: usize,
    /// Output channels, of all groups.
    pub out_channels: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride along height and width.
    pub stride: [usize; 2],
    /// Dilation along height and width.
    pub dilation: [usize; 2],
    /// Rows and columns cut from the top and the left of the full result.
    pub pads: [usize; 2],
    /// Groups.
    pub groups: usize,
}

impl TransposeShape {
    /// Checks that the geometry is one that the kernels take; they assume it.
    pub fn validate(&self) -> Result<()> {
        let fault = |message: String| Err(Error::invalid("conv_transpose_shape", message));
        if self.kernel.contains(&0) || self.stride.contains(&0) || self.dilation.contains(&0) {
            return fault(format!(
                "kernel {:?}, stride {:?} and dilation {:?} must be above zero",
                self.kernel, self.stride, self.dilation
            ));
        }
        let divides = |channels: usize| channels > 0 && channels.is_multiple_of(self.groups);
        if self.groups == 0 || !divides(self.in_channels) || !divides(self.out_channels) {
            return fault(format!(
                "{} groups do not divide {} input and {} output channels",
                self.groups, self.in_channels, self.out_channels
            ));
        }
        Ok(())
    }

    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input[0] * self.input[1] * self.in_channels
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.output[0] * self.output[1] * self.out_channels
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.in_channels * self.group_out() * self.kernel[0] * self.kernel[1]
    }

    /// Index along `axis` of the input element that meets tap `tap` at output index `at`, if there is one.
    #[inline]
    pub fn source(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let offset = (at + self.pads[axis]).checked_sub(tap * self.dilation[axis])?;
        let index = offset / self.stride[axis];
        (offset.is_multiple_of(self.stride[axis]) && index < self.input[axis]).then_some(index)
    }
}

/// Geometry of a pooling window over NHWC tensors. The output size is explicit, so that the rounding of `ceil_mode` is
/// the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolShape {
    /// Images.
    pub batch: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Channels.
    pub channels: usize,
    /// Output height and width.
    pub output: [usize; 2],
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Stride along height and width.
    pub stride: [usize; 2],
    /// Dilation along height and width.
    pub dilation: [usize; 2],
    /// Padding: top, left, bottom, right.
    pub pads: [usize; 4],
}

impl PoolShape {
    /// One window over the whole of each image.
    pub fn global(batch: usize, input: [usize; 2], channels: usize) -> Self {
        PoolShape {
            batch,
            input,
            channels,
            output: [1, 1],
            kernel: input,
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0; 4],
        }
    }

    /// Checks the geometry; every window must meet at least one element of the input.
    pub fn validate(&self) -> Result<()> {
        if self.kernel.contains(&0) || self.stride.contains(&0) || self.dilation.contains(&0) || self.channels == 0 {
            return Err(Error::invalid(
                "pool_shape",
                format!(
                    "window {:?}, stride {:?} and dilation {:?} must be above zero",
                    self.kernel, self.stride, self.dilation
                ),
            ));
        }
        for axis in 0..2 {
            for at in 0..self.output[axis] {
                if self.span(axis, at).is_empty() {
                    return Err(Error::invalid(
                        "pool_shape",
                        format!("window {at} along axis {axis} lies in the padding alone ({self:?})"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Kernel positions of window `at` along `axis` that meet the input.
    pub(crate) fn span(&self, axis: usize, at: usize) -> std::ops::Range<usize> {
        let start = at * self.stride[axis];
        let (pad, d) = (self.pads[axis], self.dilation[axis]);
        let first = pad.saturating_sub(start).div_ceil(d);
        let end = (self.input[axis] + pad).saturating_sub(start).div_ceil(d).min(self.kernel[axis]);
        first..end.max(first)
    }

    /// Kernel positions of window `at` along `axis` that meet the input or its declared padding.
    pub(crate) fn padded_count(&self, axis: usize, at: usize) -> usize {
        let limit = self.input[axis] + self.pads[axis] + self.pads[axis + 2];
        limit.saturating_sub(at * self.stride[axis]).div_ceil(self.dilation[axis]).min(self.kernel[axis])
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input[0] * self.input[1] * self.channels
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.output[0] * self.output[1] * self.channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_shapes_are_errors() {
        let good = ConvShape::new(1, [5, 5], 4, 8, [3, 3]);
        assert!(good.validate().is_ok());
        assert_eq!(good.output(), [3, 3]);
        for bad in [
            ConvShape { groups: 3, ..good },
            ConvShape { stride: [0, 1], ..good },
            ConvShape { kernel: [6, 1], ..good },
            ConvShape { dilation: [1, usize::MAX], ..good },
            ConvShape { in_channels: 0, ..good },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pool_windows_are_clipped() {
        let pool = PoolShape {
            batch: 1,
            input: [5, 5],
            channels: 1,
            output: [3, 3],
            kernel: [3, 3],
            stride: [2, 2],
            dilation: [1, 1],
            pads: [1, 1, 1, 1],
        };
        assert!(pool.validate().is_ok());
        assert_eq!(pool.span(0, 0), 1..3);
        assert_eq!(pool.span(0, 2), 0..2);
        assert_eq!(pool.padded_count(0, 2), 3);
        assert!(PoolShape { output: [9, 1], ..pool }.validate().is_err());
    }
}
