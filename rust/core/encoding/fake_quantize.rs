//! Quantize and dequantize in one pass: the forward function of simulation and of training.

use super::quantize::{Grid, ScaleIndex};
use super::{Encoding, QuantizeRule, Rounding, Scaling, ZeroPointOrder};
use crate::error::{Error, Result};
use crate::tensor::element_count;

/// Result of [`fake_quantize`]; both have as many elements as the input.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeQuantized {
    /// Reals on the grid.
    pub values: Vec<f32>,
    /// Whether the rounded code lay in the grid before it was saturated: where the straight-through gradient passes.
    pub inside: Vec<bool>,
}

/// `dequantize(quantize(x))` of `data`, a tensor of `shape` in row-major order, equal to [`super::quantize()`] followed by
/// [`super::dequantize()`] in every bit. NaN stays NaN and counts as outside: training code looks for it downstream.
///
/// # Errors
/// `encoding_*` where the encoding is wrong, does not fit the shape, or has a scale without a usable 32-bit form.
pub fn fake_quantize(data: &[f32], shape: &[usize], encoding: &Encoding, rule: QuantizeRule) -> Result<FakeQuantized> {
    encoding.validate()?;
    let expected = element_count(shape)?;
    if expected != data.len() {
        return Err(Error::invalid(
            "tensor_shape",
            format!("shape {shape:?} needs {expected} elements, the data has {}", data.len()),
        ));
    }
    let index = ScaleIndex::new(encoding, shape)?;
    let grids = (0..encoding.scale.len()).map(|i| Grid::new(rule, encoding, i)).collect::<Result<Vec<_>>>()?;
    let narrow = encoding.bitwidth <= 16
        && rule.scaling == Scaling::ReciprocalF32
        && rule.rounding == Rounding::HalfEven
        && rule.zero_point == ZeroPointOrder::AfterRounding;
    let mut out = FakeQuantized { values: vec![0.0; data.len()], inside: vec![false; data.len()] };
    index.for_each_run(data.len(), |range, scale| {
        let (values, inside) = (&mut out.values[range.clone()], &mut out.inside[range.clone()]);
        match narrow {
            true => narrow_run(&data[range], &grids[scale], values, inside),
            false => any_run(&data[range], &grids[scale], values, inside),
        }
    });
    Ok(out)
}

fn any_run(data: &[f32], grid: &Grid, values: &mut [f32], inside: &mut [bool]) {
    for ((&x, value), inside) in data.iter().zip(values).zip(inside) {
        let code = grid.unsaturated(x);
        *inside = code >= grid.lowest && code <= grid.highest;
        *value = (code.clamp(grid.lowest, grid.highest) - grid.zero_point) as f32 * grid.scale_f32;
    }
}

/// The same for grids of at most 16 bits in f32 alone, without branches.
///
/// Steps are clamped to one beyond the grid, so their magnitude stays below 2^18, where adding and subtracting 1.5·2^23
/// rounds to the nearest integer, ties to even.
fn narrow_run(data: &[f32], grid: &Grid, values: &mut [f32], inside: &mut [bool]) {
    const ROUNDER: f32 = 12_582_912.0;
    let (lowest, highest) = ((grid.lowest - grid.zero_point) as f32, (grid.highest - grid.zero_point) as f32);
    for ((&x, value), inside) in data.iter().zip(values).zip(inside) {
        let steps = (x * grid.reciprocal).clamp(lowest - 1.0, highest + 1.0);
        let steps = (steps + ROUNDER) - ROUNDER;
        *inside = steps >= lowest && steps <= highest;
        *value = steps.clamp(lowest, highest) * grid.scale_f32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Granularity, dequantize, quantize};
    use super::*;

    const SIMULATION: QuantizeRule = QuantizeRule {
        scaling: Scaling::ReciprocalF32,
        rounding: Rounding::HalfEven,
        zero_point: ZeroPointOrder::AfterRounding,
    };

    /// Every tie of the grid and two beyond each end, each with both neighbours in f32.
    fn ties(encoding: &Encoding) -> Vec<f32> {
        let scale = encoding.scale[0] as f32;
        let first = encoding.qmin() - encoding.zero_point[0] - 2;
        let last = encoding.qmax() - encoding.zero_point[0] + 2;
        (first..=last)
            .flat_map(|k| {
                let tie = (k as f32 + 0.5) * scale;
                [tie.next_down(), tie, tie.next_up()]
            })
            .chain([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE])
            .collect()
    }

    #[test]
    fn one_pass_equals_two_on_every_tie() {
        let mut reciprocal_matters = 0;
        for scale in [1.0, 0.5, 0.1, 0.3, 0.007_843_138, 1.0 / 255.0, 3.7e-5, 812.3] {
            for (bits, signed, zero_point) in [
                (2, true, 0),
                (4, true, 0),
                (4, false, 7),
                (8, true, -3),
                (8, false, 128),
                (8, false, 0),
                (16, true, 0),
            ] {
                let encoding = Encoding::per_tensor(scale, zero_point, bits, signed).unwrap();
                let data = ties(&encoding);
                for rule in [SIMULATION, QuantizeRule::default()] {
                    let codes = quantize(&data, &[data.len()], &encoding, rule).unwrap();
                    let expected = dequantize(&codes, &[data.len()], &encoding).unwrap();
                    let got = fake_quantize(&data, &[data.len()], &encoding, rule).unwrap();
                    for (i, (a, b)) in expected.iter().zip(&got.values).enumerate() {
                        assert_eq!(a.to_bits(), b.to_bits(), "{} with scale {scale}, {bits} bits", data[i]);
                    }
                }
                let division = quantize(&data, &[data.len()], &encoding, QuantizeRule::default()).unwrap();
                let reciprocal = quantize(&data, &[data.len()], &encoding, SIMULATION).unwrap();
                reciprocal_matters += division.iter().zip(&reciprocal).filter(|(a, b)| a != b).count();
            }
        }
        assert!(reciprocal_matters > 100, "the inputs must tell division from reciprocal: {reciprocal_matters}");
    }

    #[test]
    fn the_mask_is_that_of_the_rounded_code() {
        let encoding = Encoding::per_tensor(1.0, 0, 8, true).unwrap();
        let data = [127.49, 127.5, 127.0, 128.0, -128.5, -128.51, -129.0, f32::NAN, f32::INFINITY];
        for rule in [SIMULATION, QuantizeRule::default()] {
            let got = fake_quantize(&data, &[data.len()], &encoding, rule).unwrap();
            assert_eq!(got.inside, [true, false, true, false, true, false, false, false, false]);
            assert!(got.values[7].is_nan());
        }
    }

    #[test]
    fn channels_use_their_own_scales() {
        let encoding = Encoding {
            scale: vec![1.0, 10.0],
            zero_point: vec![0, 1],
            granularity: Granularity::PerChannel { axis: 1 },
            ..Encoding::per_tensor(1.0, 0, 8, true).unwrap()
        };
        let got = fake_quantize(&[1.4, 14.0, 2.6, 26.0], &[2, 2], &encoding, SIMULATION).unwrap();
        assert_eq!(got.values, [1.0, 10.0, 3.0, 30.0]);
        assert_eq!(fake_quantize(&[0.0; 3], &[1, 3], &encoding, SIMULATION).unwrap_err().code(), "encoding_shape");
    }

    #[test]
    fn wide_grids_round_beyond_the_digits_of_f32() {
        let encoding = Encoding::per_tensor(1.0, 5, 32, true).unwrap();
        let data = [16_777_216.0, -2_147_483_648.0, 3e9, 2.5];
        let got = fake_quantize(&data, &[4], &encoding, SIMULATION).unwrap();
        let codes = quantize(&data, &[4], &encoding, SIMULATION).unwrap();
        assert_eq!(got.values, dequantize(&codes, &[4], &encoding).unwrap());
    }
}
