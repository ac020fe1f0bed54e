//! Gathers the windows of output pixels into rows: tiled im2col.

use super::shape::ConvShape;

/// The input of a convolution, seen as one row per output pixel in the order (ky, kx, input channel of the group).
pub(crate) struct Gather<'a, T> {
    shape: &'a ConvShape,
    output: [usize; 2],
    x: &'a [T],
    pad: T,
}

impl<'a, T: Copy + Default> Gather<'a, T> {
    /// `x` is NHWC; taps outside of the image read `pad`.
    pub(crate) fn new(shape: &'a ConvShape, x: &'a [T], pad: T) -> Self {
        assert_eq!(x.len(), shape.input_len(), "activations and their shape");
        Gather { shape, output: shape.output(), x, pad }
    }

    /// Whether the rows are the input's own pixels.
    pub(crate) fn is_plain(&self) -> bool {
        let shape = self.shape;
        shape.kernel == [1, 1] && shape.stride == [1, 1] && shape.pads == [0; 4] && shape.groups == 1
    }

    /// Fills `rows` with `count` windows from output pixel `first` on, for the channels of `group`. Rows are `stride`
    /// apart; what lies between them is not written, and new elements are default.
    pub(crate) fn rows(&self, group: usize, first: usize, count: usize, stride: usize, rows: &mut Vec<T>) {
        let shape = self.shape;
        assert!(stride >= shape.depth(), "rows may not overlap");
        rows.resize(count * stride, T::default());
        let [_, kernel_w] = shape.kernel;
        let group_in = shape.group_in();
        let dense = shape.groups == 1 && shape.dilation[1] == 1;
        for (r, row) in rows.chunks_exact_mut(stride).enumerate() {
            let (image, at) = shape.locate(self.output, first + r);
            for (ky, line) in row[..shape.depth()].chunks_exact_mut(kernel_w * group_in).enumerate() {
                // Positions before the image wrap around to huge numbers, beyond every size.
                let y = (at[0] * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.pads[0]);
                if y >= shape.input[0] {
                    line.fill(self.pad);
                    continue;
                }
                let pixel = (image * shape.input[0] + y) * shape.input[1];
                if dense {
                    self.dense_line(pixel, at[1], line);
                    continue;
                }
                for (kx, tap) in line.chunks_exact_mut(group_in).enumerate() {
                    let x = (at[1] * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.pads[1]);
                    if x < shape.input[1] {
                        let source = (pixel + x) * shape.in_channels + group * group_in;
                        tap.copy_from_slice(&self.x[source..source + group_in]);
                    } else {
                        tap.fill(self.pad);
                    }
                }
            }
        }
    }

    /// One line of a kernel whose taps are neighbours, of the output column `x`; `pixel` starts the input's row.
    fn dense_line(&self, pixel: usize, x: usize, line: &mut [T]) {
        let shape = self.shape;
        let channels = shape.in_channels;
        let taps = shape.kernel[1];
        let start = x * shape.stride[1];
        let lead = shape.pads[1].saturating_sub(start).min(taps);
        let from = (start + lead).saturating_sub(shape.pads[1]).min(shape.input[1]);
        let body = (taps - lead).min(shape.input[1] - from);
        let (head, rest) = line.split_at_mut(lead * channels);
        let (middle, tail) = rest.split_at_mut(body * channels);
        head.fill(self.pad);
        middle.copy_from_slice(&self.x[(pixel + from) * channels..][..body * channels]);
        tail.fill(self.pad);
    }
}
