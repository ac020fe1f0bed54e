//! Sums by the naive twins and codes by the reference evaluator: what every other path must equal.

use super::super::lanes::{compute_codes, read_codes};
use super::arithmetic::Arithmetic;
use crate::error::Result;
use crate::kernels::{ConvShape, reference};
use crate::ops::RunContext;
use crate::program::{Channels, Lanes};
use crate::spec::Overflow;
use crate::tensor::{DType, Data};

/// A convolution of codes in the order N, H, W, C by weights in the order (output channel, input channel of the group, ky, kx).
pub struct Convolution<'a> {
    /// Geometry.
    pub shape: &'a ConvShape,
    /// Codes of the activation.
    pub x: &'a [i32],
    /// Zero point of the activation, which padding holds.
    pub x_zero: i64,
    /// Codes of the weights.
    pub weights: &'a [i32],
    /// Zero points of the weights, one or one per channel.
    pub w_zero: &'a [i32],
}

impl Convolution<'_> {
    /// Codes of the output.
    pub fn run(&self, context: &RunContext<'_>, arithmetic: &Arithmetic, dtype: DType) -> Result<Data> {
        let channels = self.shape.out_channels;
        let sums = match arithmetic.accumulator.overflow {
            Overflow::Wrap => {
                let centred: Vec<i32> = self.x.iter().map(|&x| x - self.x_zero as i32).collect();
                let w_zero: Vec<i32> = (0..channels).map(|c| self.w_zero[c % self.w_zero.len()]).collect();
                reference::conv2d(self.shape, &centred, 0, self.weights, &w_zero, &arithmetic.bias)
            }
            // Saturation acts on products of raw activations.
            Overflow::PairSat16 => {
                let x: Vec<u8> = self.x.iter().map(|&x| x as u8).collect();
                let weights: Vec<i8> = self.weights.iter().map(|&w| w as i8).collect();
                let depth = weights.len() / channels.max(1);
                let init = |c: usize| {
                    let sum: i64 = weights[c * depth..(c + 1) * depth].iter().map(|&w| i64::from(w)).sum();
                    (arithmetic.bias.get(c).copied().unwrap_or(0) - self.x_zero * sum) as i32
                };
                let init: Vec<i32> = (0..channels).map(init).collect();
                let sums = reference::conv2d_pair_saturating(self.shape, &x, self.x_zero as u8, &weights, &init);
                sums.into_iter().map(i64::from).collect()
            }
        };
        let wraps = arithmetic.accumulator.width == 32;
        let sums: Vec<i64> = sums.into_iter().map(|v| if wraps { i64::from(v as i32) } else { v }).collect();
        let tile = arithmetic.compiled.tile();
        compute_codes(context, dtype, sums.len(), |start, out| {
            let lanes = [Lanes::I64(&sums[start..start + out.len()])];
            tile.run(&lanes, Channels::Cyclic { start: start % channels }, out)
        })
    }
}

/// All codes of a tensor as integers of one type.
pub fn codes(data: &Data) -> Result<Vec<i32>> {
    let mut out = vec![0; data.len()];
    read_codes(data, 0, &mut out)?;
    Ok(out)
}
