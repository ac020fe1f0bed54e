//! The reference of quantize and dequantize: reals ↔ codes under an [`Encoding`].
//!
//! Runtimes divide in another precision, multiply by a reciprocal, or add the zero point before they round: their codes
//! differ at ties and beside them. A [`QuantizeRule`] names each of these choices.

use super::{Encoding, Granularity, Rounding};
use crate::error::{Error, Result};
use crate::num::float::round_integral;
use crate::tensor::element_count;
use std::ops::Range;

/// How a real is divided by the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scaling {
    /// `x / scale` in f32, with the scale rounded to f32.
    DivideF32,
    /// `x · (1 / scale)` in f32: the scale and its reciprocal are both rounded to f32.
    ReciprocalF32,
    /// `x / scale` in f64, with the scale as the file has it.
    DivideF64,
}

/// Where the zero point is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZeroPointOrder {
    /// `round(x/s) + zp`.
    AfterRounding,
    /// `round(x/s + zp)`: the sum is rounded to the precision of the division first. Differs at ties where zp is odd.
    BeforeRounding,
    /// `round(x/s + (zp - qmin)) + qmin`: the rounded number counts steps from the lowest code, so it is not negative
    /// for reals in range. Differs at ties for modes that treat the signs differently.
    BeforeRoundingFromLowest,
}

/// Which arithmetic turns a real into a code. Codes saturate at the ends of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuantizeRule {
    /// Division by the scale.
    pub scaling: Scaling,
    /// Rounding to an integer.
    pub rounding: Rounding,
    /// Addition of the zero point.
    pub zero_point: ZeroPointOrder,
}

impl Default for QuantizeRule {
    /// ONNX QuantizeLinear: `half_even(x / scale) + zero_point` in f32.
    fn default() -> Self {
        QuantizeRule {
            scaling: Scaling::DivideF32,
            rounding: Rounding::HalfEven,
            zero_point: ZeroPointOrder::AfterRounding,
        }
    }
}

/// One scale and zero point, made ready for a rule.
pub(super) struct Grid {
    rule: QuantizeRule,
    scale: f64,
    pub(super) scale_f32: f32,
    pub(super) reciprocal: f32,
    pub(super) zero_point: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Grid {
    pub(super) fn new(rule: QuantizeRule, encoding: &Encoding, index: usize) -> Result<Self> {
        let scale = encoding.scale[index];
        let scale_f32 = scale as f32;
        let reciprocal = 1.0 / scale_f32;
        let usable = match rule.scaling {
            Scaling::DivideF64 => true,
            Scaling::DivideF32 => scale_f32.is_finite() && scale_f32 > 0.0,
            Scaling::ReciprocalF32 => scale_f32.is_finite() && reciprocal.is_finite(),
        };
        if !usable {
            return Err(Error::invalid("encoding_scale", format!("scale {scale} cannot be used in 32-bit floats"))
                .help("scales of 32-bit arithmetic lie between 1e-38 and 3e38"));
        }
        Ok(Grid {
            rule,
            scale,
            scale_f32,
            reciprocal,
            zero_point: encoding.zero_point[index] as f64,
            lowest: encoding.qmin() as f64,
            highest: encoding.qmax() as f64,
        })
    }

    /// `x` is not NaN.
    fn code(&self, x: f32) -> f64 {
        self.unsaturated(x).clamp(self.lowest, self.highest)
    }

    /// The code before it is brought into the grid; NaN for NaN.
    pub(super) fn unsaturated(&self, x: f32) -> f64 {
        let f32_steps = match self.rule.scaling {
            Scaling::DivideF32 => Some(x / self.scale_f32),
            Scaling::ReciprocalF32 => Some(x * self.reciprocal),
            Scaling::DivideF64 => None,
        };
        let shifted = |offset: f64| match f32_steps {
            Some(steps) => f64::from(steps + offset as f32),
            None => f64::from(x) / self.scale + offset,
        };
        let rounding = self.rule.rounding;
        match self.rule.zero_point {
            ZeroPointOrder::AfterRounding => round_integral(shifted(0.0), rounding) + self.zero_point,
            ZeroPointOrder::BeforeRounding => round_integral(shifted(self.zero_point), rounding),
            ZeroPointOrder::BeforeRoundingFromLowest => {
                round_integral(shifted(self.zero_point - self.lowest), rounding) + self.lowest
            }
        }
    }
}

/// Codes of `data`, a tensor of `shape` in row-major order.
///
/// # Errors
/// * `quantize_nan` names the first NaN; ±∞ saturate.
/// * `encoding_*` where the encoding is wrong or does not fit the shape.
/// * `encoding_codes` for unsigned 32-bit grids, whose codes do not fit `i32`.
pub fn quantize(data: &[f32], shape: &[usize], encoding: &Encoding, rule: QuantizeRule) -> Result<Vec<i32>> {
    let index = prepare(data.len(), shape, encoding)?;
    if let Some(i) = data.iter().position(|x| x.is_nan()) {
        return Err(Error::invalid("quantize_nan", format!("element {i} of the tensor is NaN"))
            .help("NaN has no integer code; look for the operator that made it"));
    }
    let grids = (0..encoding.scale.len()).map(|i| Grid::new(rule, encoding, i)).collect::<Result<Vec<_>>>()?;
    let mut codes = Vec::with_capacity(data.len());
    index.for_each_run(data.len(), |range, scale| {
        codes.extend(data[range].iter().map(|&x| grids[scale].code(x) as i32));
    });
    Ok(codes)
}

/// Reals of `codes`, a tensor of `shape` in row-major order: `f32(scale) · f32(code - zero_point)`, each conversion and
/// the product rounded to nearest even.
///
/// # Errors
/// `encoding_*` where the encoding is wrong or does not fit the shape.
pub fn dequantize(codes: &[i32], shape: &[usize], encoding: &Encoding) -> Result<Vec<f32>> {
    let index = prepare(codes.len(), shape, encoding)?;
    let mut reals = Vec::with_capacity(codes.len());
    index.for_each_run(codes.len(), |range, i| {
        let (scale, zero_point) = (encoding.scale[i] as f32, encoding.zero_point[i]);
        reals.extend(codes[range].iter().map(|&q| scale * (i64::from(q) - zero_point) as f32));
    });
    Ok(reals)
}

fn prepare(count: usize, shape: &[usize], encoding: &Encoding) -> Result<ScaleIndex> {
    encoding.validate()?;
    if !encoding.signed && encoding.bitwidth == 32 {
        return Err(Error::unsupported("encoding_codes", "codes of an unsigned 32-bit grid do not fit int32"));
    }
    let expected = element_count(shape)?;
    if expected != count {
        return Err(Error::invalid(
            "tensor_shape",
            format!("shape {shape:?} needs {expected} elements, the data has {count}"),
        ));
    }
    ScaleIndex::new(encoding, shape)
}

/// Which scale an element of a tensor uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleIndex {
    /// Consecutive elements along the divided axis and behind it.
    inner: usize,
    /// Elements of the axis that share one scale.
    block: usize,
    /// Scales along the axis.
    along: usize,
    /// Whether every position in front of and behind the axis has its own scales.
    dense: bool,
    per_tensor: bool,
}

impl ScaleIndex {
    /// The scales of `encoding` over a tensor of `shape`; an error where they do not fit.
    pub fn new(encoding: &Encoding, shape: &[usize]) -> Result<Self> {
        encoding.validate_shape(shape)?;
        Ok(match encoding.granularity {
            Granularity::PerTensor => ScaleIndex { inner: 1, block: 1, along: 1, dense: false, per_tensor: true },
            Granularity::PerChannel { axis } => Self::per_channel(shape, axis)?,
            Granularity::PerBlock { axis, block_size } => ScaleIndex {
                inner: shape[axis + 1..].iter().product(),
                block: block_size,
                along: shape[axis] / block_size,
                dense: true,
                per_tensor: false,
            },
        })
    }

    /// One scale per index of `axis`.
    pub fn per_channel(shape: &[usize], axis: usize) -> Result<Self> {
        let &along = shape.get(axis).ok_or_else(|| {
            Error::invalid("encoding_axis", format!("axis {axis} does not exist in a tensor of shape {shape:?}"))
        })?;
        let inner = shape[axis + 1..].iter().product();
        Ok(ScaleIndex { inner, block: 1, along, dense: false, per_tensor: false })
    }

    /// Index of the scale of the element at `flat` (row-major).
    pub fn of(&self, flat: usize) -> usize {
        if self.per_tensor {
            return 0;
        }
        let row = flat / self.inner;
        if self.dense { row / self.block * self.inner + flat % self.inner } else { row % self.along }
    }

    /// Calls `f` with each longest stretch of elements that share one scale, in order, for `count` elements.
    pub fn for_each_run(&self, count: usize, mut f: impl FnMut(Range<usize>, usize)) {
        let run = match (self.per_tensor, self.dense, self.inner) {
            (true, ..) => count,
            (false, false, inner) => inner,
            (false, true, 1) => self.block,
            (false, true, _) => 1,
        };
        let mut start = 0;
        while start < count {
            let end = (start + run).min(count);
            f(start..end, self.of(start));
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIES: [f32; 8] = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, -0.75, 0.25];

    fn codes(encoding: &Encoding, rounding: Rounding, zero_point: ZeroPointOrder) -> Vec<i32> {
        let rule = QuantizeRule { rounding, zero_point, ..Default::default() };
        quantize(&TIES, &[8], encoding, rule).unwrap()
    }

    #[test]
    fn every_mode_rounds_every_tie_as_named() {
        let encoding = Encoding::per_tensor(1.0, 0, 8, true).unwrap();
        let expected: [(Rounding, [i32; 8]); 9] = [
            (Rounding::Floor, [-3, -2, -1, 0, 1, 2, -1, 0]),
            (Rounding::Ceil, [-2, -1, 0, 1, 2, 3, 0, 1]),
            (Rounding::Trunc, [-2, -1, 0, 0, 1, 2, 0, 0]),
            (Rounding::HalfUp, [-2, -1, 0, 1, 2, 3, -1, 0]),
            (Rounding::HalfDown, [-3, -2, -1, 0, 1, 2, -1, 0]),
            (Rounding::HalfAway, [-3, -2, -1, 1, 2, 3, -1, 0]),
            (Rounding::HalfToZero, [-2, -1, 0, 0, 1, 2, -1, 0]),
            (Rounding::HalfEven, [-2, -2, 0, 0, 2, 2, -1, 0]),
            (Rounding::HalfOdd, [-3, -1, -1, 1, 1, 3, -1, 0]),
        ];
        for (rounding, expected) in expected {
            assert_eq!(codes(&encoding, rounding, ZeroPointOrder::AfterRounding), expected, "{rounding:?}");
        }
    }

    #[test]
    fn an_odd_zero_point_before_rounding_moves_half_even_ties() {
        let encoding = Encoding::per_tensor(1.0, 3, 8, true).unwrap();
        let after = codes(&encoding, Rounding::HalfEven, ZeroPointOrder::AfterRounding);
        let before = codes(&encoding, Rounding::HalfEven, ZeroPointOrder::BeforeRounding);
        assert_eq!(after, [1, 1, 3, 3, 5, 5, 2, 3]);
        assert_eq!(before, [0, 2, 2, 4, 4, 6, 2, 3]);
    }

    #[test]
    fn half_away_on_counted_steps_is_half_up() {
        for zero_point in [-128, -3, 0, 5, 127] {
            let encoding = Encoding::per_tensor(1.0, zero_point, 8, true).unwrap();
            assert_eq!(
                codes(&encoding, Rounding::HalfAway, ZeroPointOrder::BeforeRoundingFromLowest),
                codes(&encoding, Rounding::HalfUp, ZeroPointOrder::AfterRounding),
            );
        }
    }

    #[test]
    fn division_reciprocal_and_f64_differ_beside_ties() {
        // The f32 nearest to 0.3 is not 0.3, and neither is its f32 reciprocal exact.
        let encoding = Encoding::per_tensor(0.3, 0, 8, true).unwrap();
        let with = |scaling, x: f32| {
            quantize(&[x], &[1], &encoding, QuantizeRule { scaling, ..Default::default() }).unwrap()[0]
        };
        let mut seen = [0; 2];
        for k in -127..127 {
            let x = (k as f32 + 0.5) * 0.3;
            let (a, b, c) = (with(Scaling::DivideF32, x), with(Scaling::ReciprocalF32, x), with(Scaling::DivideF64, x));
            seen[0] += usize::from(a != b);
            seen[1] += usize::from(a != c);
            assert!((a - b).abs() <= 1 && (a - c).abs() <= 1);
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }

    #[test]
    fn codes_saturate_and_nan_is_an_error() {
        let encoding = Encoding::per_tensor(1.0, 10, 8, false).unwrap();
        let data = [f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 245.0, 246.0];
        assert_eq!(quantize(&data, &[6], &encoding, QuantizeRule::default()).unwrap(), [255, 0, 255, 0, 255, 255]);
        let error = quantize(&[0.0, f32::NAN], &[2], &encoding, QuantizeRule::default()).unwrap_err();
        assert_eq!(error.code(), "quantize_nan");
        assert!(error.message().contains("element 1"));
        let wide = Encoding::per_tensor(1.0, 0, 32, true).unwrap();
        assert_eq!(quantize(&[3e9, -3e9], &[2], &wide, QuantizeRule::default()).unwrap(), [i32::MAX, i32::MIN]);
        let unsigned = Encoding::per_tensor(1.0, 0, 32, false).unwrap();
        assert_eq!(quantize(&[1.0], &[1], &unsigned, QuantizeRule::default()).unwrap_err().code(), "encoding_codes");
        let tiny = Encoding::per_tensor(1e-60, 0, 8, true).unwrap();
        assert_eq!(quantize(&[1.0], &[1], &tiny, QuantizeRule::default()).unwrap_err().code(), "encoding_scale");
        assert_eq!(quantize(&[1.0], &[2], &encoding, QuantizeRule::default()).unwrap_err().code(), "tensor_shape");
    }

    #[test]
    fn every_code_survives_dequantize_and_quantize() {
        for (bits, signed) in [(2, true), (4, false), (8, true), (8, false), (16, false), (16, true)] {
            let zero_point = if signed { -1 } else { 2 };
            let encoding = Encoding::per_tensor(0.0123, zero_point, bits, signed).unwrap();
            let all: Vec<i32> = (encoding.qmin()..=encoding.qmax()).map(|q| q as i32).collect();
            let reals = dequantize(&all, &[all.len()], &encoding).unwrap();
            assert_eq!(reals[0], 0.0123f32 * (encoding.qmin() - zero_point) as f32);
            for scaling in [Scaling::DivideF32, Scaling::ReciprocalF32, Scaling::DivideF64] {
                let rule = QuantizeRule { scaling, ..Default::default() };
                assert_eq!(quantize(&reals, &[all.len()], &encoding, rule).unwrap(), all);
            }
        }
    }

    /// The definition of the scale of an element, from its coordinates.
    fn scale_by_coordinates(encoding: &Encoding, shape: &[usize], flat: usize) -> usize {
        let mut rest = flat;
        let mut coordinates = vec![0; shape.len()];
        for (c, &d) in coordinates.iter_mut().zip(shape).rev() {
            *c = rest % d;
            rest /= d;
        }
        match encoding.granularity {
            Granularity::PerTensor => 0,
            Granularity::PerChannel { axis } => coordinates[axis],
            Granularity::PerBlock { axis, block_size } => {
                let mut dims = shape.to_vec();
                dims[axis] /= block_size;
                coordinates[axis] /= block_size;
                coordinates.iter().zip(&dims).fold(0, |index, (c, d)| index * d + c)
            }
        }
    }

    #[test]
    fn each_element_finds_its_scale() {
        let shape = [2, 4, 6];
        let mut granularities = vec![Granularity::PerTensor];
        granularities.extend((0..3).map(|axis| Granularity::PerChannel { axis }));
        granularities.extend(
            [(0, 2), (1, 2), (1, 4), (2, 3), (2, 1)]
                .map(|(axis, block_size)| Granularity::PerBlock { axis, block_size }),
        );
        for granularity in granularities {
            let count = match granularity {
                Granularity::PerTensor => 1,
                Granularity::PerChannel { axis } => shape[axis],
                Granularity::PerBlock { block_size, .. } => 48 / block_size,
            };
            let encoding = Encoding {
                scale: (1..=count).map(|s| s as f64).collect(),
                zero_point: vec![0; count],
                granularity,
                ..Encoding::per_tensor(1.0, 0, 8, true).unwrap()
            };
            let index = ScaleIndex::new(&encoding, &shape).unwrap();
            let reals = dequantize(&[1; 48], &shape, &encoding).unwrap();
            for (flat, real) in reals.iter().enumerate() {
                let expected = scale_by_coordinates(&encoding, &shape, flat);
                assert_eq!(index.of(flat), expected, "{:?}", encoding.granularity);
                assert_eq!(*real, (expected + 1) as f32);
            }
            assert_eq!(quantize(&reals, &shape, &encoding, QuantizeRule::default()).unwrap(), [1; 48]);
        }
    }

    #[test]
    fn tensors_without_elements_are_fine() {
        let encoding = Encoding::per_tensor(1.0, 0, 8, true).unwrap();
        assert!(quantize(&[], &[0, 3], &encoding, QuantizeRule::default()).unwrap().is_empty());
    }
}
