//! Where scales lie in a tensor: versions 0.6.1 and 1.0.0 leave the axis to the operator that uses the tensor.

use super::super::{Encoding, Granularity, Lpbq};
use crate::error::{Error, Result};
use crate::tensor::{element_count, strides};

/// How a graph uses a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamUse {
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Axis of the output channels.
    pub axis: usize,
    /// Axis along which blocks of weights lie (input channels).
    pub block_axis: Option<usize>,
}

impl ParamUse {
    /// The axes of input number `input` of an ONNX operator: Conv weights have their output channels on axis 0,
    /// ConvTranspose on axis 1, Gemm by `transB`, MatMul last; biases, slopes and norm parameters on axis 0. `None` for
    /// an operator without channel axis, and where `shape` has too few dimensions.
    pub fn of_operator(op_type: &str, input: usize, shape: &[usize], trans_b: bool) -> Option<ParamUse> {
        let rank = shape.len();
        let (axis, block_axis) = match (op_type, input) {
            ("Conv", 1) => (0, Some(1)),
            ("ConvTranspose", 1) => (1, Some(0)),
            ("Gemm", 1) if trans_b => (0, Some(1)),
            ("Gemm", 1) => (1, Some(0)),
            ("MatMul", 1) => (rank.checked_sub(1)?, rank.checked_sub(2)),
            ("Conv" | "ConvTranspose" | "Gemm", 2) | ("PRelu", 1) => (0, None),
            ("BatchNormalization" | "InstanceNormalization" | "LayerNormalization" | "GroupNormalization", 1..=4) => {
                (0, None)
            }
            _ => return None,
        };
        let block_axis = block_axis.filter(|&b| b < rank);
        (axis < rank).then(|| ParamUse { shape: shape.to_vec(), axis, block_axis })
    }
}

/// What a file says about the place of its scales.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// A list without further words: channels, or blocks channel by channel (0.6.1).
    List,
    /// One per channel (1.0.0).
    Channels,
    /// Blocks, channel by channel (1.0.0).
    ChannelBlocks {
        /// Elements per block.
        block_size: usize,
    },
    /// An array of scales that a dimension of 1 lets stretch over the tensor (2.x).
    Shaped {
        /// Dimensions of the array.
        dims: Vec<usize>,
        /// The divided axis.
        axis: usize,
        /// Elements per block.
        block_size: usize,
    },
}

/// Scales whose axes are not known before the graph is. It cannot be used as an [`Encoding`].
#[derive(Debug, Clone, PartialEq)]
pub struct Unplaced {
    /// Grid and scales in the file's order; granularity (and the LPBQ channel axis) carry no meaning here.
    pub(super) values: Encoding,
    pub(super) layout: Layout,
}

impl Unplaced {
    /// Scales in the order of the file.
    pub fn scale(&self) -> &[f64] {
        &self.values.scale
    }

    /// Zero points in the order of the file.
    pub fn zero_point(&self) -> &[i64] {
        &self.values.zero_point
    }

    /// Bits of a code.
    pub fn bitwidth(&self) -> u32 {
        self.values.bitwidth
    }

    /// Whether codes are signed.
    pub fn signed(&self) -> bool {
        self.values.signed
    }

    /// What is known of the place of the scales.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The encoding of a tensor that a graph uses as `usage` says.
    ///
    /// # Errors
    /// `encodings_shape` where the numbers of scales and of channels or blocks disagree.
    pub fn place(&self, usage: &ParamUse) -> Result<Encoding> {
        let count = self.values.scale.len();
        let shape = &usage.shape;
        let mismatch = |what: String| {
            Error::invalid("encodings_shape", format!("{count} scales, but the tensor of shape {shape:?} {what}"))
                .help("the encodings belong to another version of the model, or the tensor was transposed since")
        };
        let &channels = shape.get(usage.axis).ok_or_else(|| mismatch(format!("has no axis {}", usage.axis)))?;
        match &self.layout {
            Layout::List | Layout::Channels if count == channels => {
                let granularity = Granularity::PerChannel { axis: usage.axis };
                let encoding = Encoding { granularity, ..self.values.clone() };
                encoding.validate()?;
                Ok(encoding)
            }
            Layout::Channels => Err(mismatch(format!("has {channels} channels on axis {}", usage.axis))),
            Layout::List => {
                let axis = usage.block_axis.filter(|&a| a < shape.len() && a != usage.axis);
                let along = if channels > 0 && count.is_multiple_of(channels) { count / channels } else { 0 };
                match axis {
                    Some(axis) if along > 0 && shape[axis].is_multiple_of(along) && shape[axis] > 0 => {
                        self.channel_blocks(usage, axis, shape[axis] / along)
                    }
                    _ => Err(mismatch(format!("has {channels} channels on axis {}", usage.axis))),
                }
            }
            Layout::ChannelBlocks { block_size } => {
                let axis = usage
                    .block_axis
                    .filter(|&a| a < shape.len() && a != usage.axis)
                    .ok_or_else(|| mismatch("has no axis that blocks could divide".into()))?;
                if *block_size == 0 || !shape[axis].is_multiple_of(*block_size) {
                    return Err(mismatch(format!("cannot be divided into blocks of {block_size} on axis {axis}")));
                }
                let needed = channels.saturating_mul(shape[axis] / block_size);
                if needed != count {
                    return Err(mismatch(format!("has {needed} blocks")));
                }
                self.channel_blocks(usage, axis, *block_size)
            }
            Layout::Shaped { dims, axis, block_size } => {
                let mut target = shape.clone();
                let fits =
                    target.len() == dims.len() && *axis < dims.len() && target[*axis].is_multiple_of(*block_size);
                if fits {
                    target[*axis] /= block_size;
                }
                if !fits || dims.iter().zip(&target).any(|(d, t)| *d != 1 && d != t) {
                    return Err(mismatch(format!("does not take scales of shape {dims:?} in blocks of {block_size}")));
                }
                let steps: Vec<usize> =
                    strides(dims).iter().zip(dims).map(|(&s, &d)| if d == 1 { 0 } else { s }).collect();
                self.gather(&target, &steps, *axis, *block_size, self.channel_axis().unwrap_or(usage.axis))
            }
        }
    }

    /// The channel axis that the file states.
    fn channel_axis(&self) -> Option<usize> {
        match (&self.layout, &self.values.lpbq) {
            (Layout::Shaped { .. }, Some(lpbq)) => Some(lpbq.channel_axis),
            _ => None,
        }
    }

    fn channel_blocks(&self, usage: &ParamUse, axis: usize, block_size: usize) -> Result<Encoding> {
        let mut target = usage.shape.clone();
        target[axis] /= block_size;
        let mut steps = vec![0; target.len()];
        steps[usage.axis] = target[axis];
        steps[axis] = 1;
        self.gather(&target, &steps, axis, block_size, usage.axis)
    }

    /// Puts the scales into the row-major order of `target`; `steps` are the strides of the file's order.
    fn gather(
        &self,
        target: &[usize],
        steps: &[usize],
        axis: usize,
        block_size: usize,
        channel_axis: usize,
    ) -> Result<Encoding> {
        let from = source_indices(target, steps)?;
        let values = &self.values;
        let encoding = Encoding {
            scale: from.iter().map(|&i| values.scale[i]).collect(),
            zero_point: from.iter().map(|&i| values.zero_point[i]).collect(),
            granularity: Granularity::PerBlock { axis, block_size },
            lpbq: values.lpbq.as_ref().map(|lpbq| Lpbq {
                per_block_int_scale: from.iter().map(|&i| lpbq.per_block_int_scale[i]).collect(),
                channel_axis,
                ..lpbq.clone()
            }),
            ..values.clone()
        };
        if let Some(lpbq) =
            encoding.lpbq.as_ref().filter(|l| target.get(channel_axis) != Some(&l.per_channel_scale.len()))
        {
            return Err(Error::invalid(
                "encodings_shape",
                format!("{} channel scales on axis {channel_axis} of blocks {target:?}", lpbq.per_channel_scale.len()),
            ));
        }
        encoding.validate()?;
        Ok(encoding)
    }
}

/// For every index of `dims` in row-major order, the sum of coordinate times step.
pub(super) fn source_indices(dims: &[usize], steps: &[usize]) -> Result<Vec<usize>> {
    let count = element_count(dims)?;
    let own = strides(dims);
    Ok((0..count)
        .map(|flat| dims.iter().zip(&own).zip(steps).map(|((d, s), step)| flat / s % d * step).sum())
        .collect())
}

/// How well the axis of an encoding is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AxisEvidence {
    /// The file or the caller states it; no graph was asked.
    Stated,
    /// The operator that uses the tensor implies the same.
    Implied,
    /// The operator that uses the tensor implies another.
    Contradicted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unplaced(scale: Vec<f64>, layout: Layout) -> Unplaced {
        let values =
            Encoding { zero_point: vec![0; scale.len()], scale, ..Encoding::per_tensor(1.0, 0, 4, true).unwrap() };
        Unplaced { values, layout }
    }

    fn usage(op: &str, shape: &[usize]) -> ParamUse {
        ParamUse::of_operator(op, 1, shape, false).unwrap()
    }

    #[test]
    fn operators_imply_their_channel_axis() {
        assert_eq!(usage("Conv", &[8, 4, 3, 3]).axis, 0);
        assert_eq!(usage("ConvTranspose", &[8, 4, 3, 3]).axis, 1);
        assert_eq!(usage("MatMul", &[2, 8, 4]).axis, 2);
        assert_eq!(usage("Gemm", &[8, 4]).axis, 1);
        assert_eq!(ParamUse::of_operator("Gemm", 1, &[8, 4], true).unwrap().axis, 0);
        assert_eq!(ParamUse::of_operator("Relu", 1, &[8, 4], true), None);
        assert_eq!(ParamUse::of_operator("ConvTranspose", 1, &[8], true), None);
    }

    #[test]
    fn blocks_of_a_matmul_are_transposed_from_channel_major_order() {
        // Weight [K=4, N=2], blocks of 2 along K; the file lists channel 0's blocks, then channel 1's.
        let placed = unplaced(vec![1.0, 2.0, 3.0, 4.0], Layout::ChannelBlocks { block_size: 2 })
            .place(&usage("MatMul", &[4, 2]));
        let placed = placed.unwrap();
        assert_eq!(placed.scale, [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(placed.granularity, Granularity::PerBlock { axis: 0, block_size: 2 });
        placed.validate_shape(&[4, 2]).unwrap();
    }

    #[test]
    fn blocks_of_a_convolution_are_repeated_over_the_kernel() {
        let placed = unplaced(vec![1.0, 2.0, 3.0, 4.0], Layout::ChannelBlocks { block_size: 2 })
            .place(&usage("Conv", &[2, 4, 1, 2]))
            .unwrap();
        assert_eq!(placed.scale, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        let shaped = Layout::Shaped { dims: vec![2, 2, 1, 1], axis: 1, block_size: 2 };
        let from_shape = unplaced(vec![1.0, 2.0, 3.0, 4.0], shaped).place(&usage("Conv", &[2, 4, 1, 2])).unwrap();
        assert_eq!(from_shape, placed);
    }

    #[test]
    fn a_list_is_channels_or_blocks_by_its_length() {
        let list = unplaced(vec![1.0, 2.0, 3.0, 4.0], Layout::List);
        assert_eq!(list.place(&usage("Conv", &[4, 4, 1, 1])).unwrap().granularity, Granularity::PerChannel { axis: 0 });
        assert_eq!(
            list.place(&usage("Conv", &[2, 4, 1, 1])).unwrap().granularity,
            Granularity::PerBlock { axis: 1, block_size: 2 }
        );
        assert_eq!(list.place(&usage("Conv", &[3, 4, 1, 1])).unwrap_err().code(), "encodings_shape");
        let channels = unplaced(vec![1.0, 2.0, 3.0, 4.0], Layout::Channels);
        assert_eq!(channels.place(&usage("Conv", &[2, 4, 1, 1])).unwrap_err().code(), "encodings_shape");
    }
}
