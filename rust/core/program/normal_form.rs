//! Shapes of programs that hand-written kernels exist for.

use super::graph::{Node, NodeId, Op};
use super::simplify::aliases;
use super::types::{Type, Value};
use super::{Compiled, Evaluator};
use crate::num::{FloatType, Rounding};

/// A program of one integer input `acc`, brought to a shape that a fast kernel may implement. Vectors have one
/// element or one per channel. `qmin..=qmax` is the range of the result; where the program does not saturate, it is
/// the proven range, and saturating there changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum NormalForm {
    /// `sat(round(clamp(f32(acc) · scale)) + zero_point)`, the product and the clamp in f32.
    FloatScale {
        /// Factor per channel.
        scale: Vec<f32>,
        /// Bounds applied before rounding; None where the program only saturates after it.
        clamp: Option<(f32, f32)>,
        /// Float to int.
        rounding: Rounding,
        /// Added after rounding.
        zero_point: i64,
        /// Least result.
        qmin: i64,
        /// Greatest result.
        qmax: i64,
    },
    /// `sat(round(f32(acc) · scale + offset) + zero_point)`, the product and the sum in f32, each rounded.
    FloatAffine {
        /// Factor per channel.
        scale: Vec<f32>,
        /// Added to the product, per channel.
        offset: Vec<f32>,
        /// Float to int.
        rounding: Rounding,
        /// Added after rounding.
        zero_point: i64,
        /// Least result.
        qmin: i64,
        /// Greatest result.
        qmax: i64,
    },
    /// `sat(shr(sat32(shr(wrap32(acc · 2^left) · mantissa, 31, mid)), right, last) + zero_point)`.
    DoubleRounding {
        /// Left shift; the result wraps to 32 bits.
        left: Vec<u32>,
        /// Multiplier.
        mantissa: Vec<i32>,
        /// Rounding of the shift by 31.
        mid: Rounding,
        /// Last right shift.
        right: Vec<u32>,
        /// Rounding of the last shift.
        last: Rounding,
        /// Added after rounding.
        zero_point: i64,
        /// Least result.
        qmin: i64,
        /// Greatest result.
        qmax: i64,
    },
    /// `sat(shr(shr(acc, drop) · mantissa + offset, shift, rounding) + zero_point)`, intermediates within 64 bits.
    MulShift {
        /// Bits of the accumulator that are dropped first, and how.
        drop: (u32, Rounding),
        /// Multiplier.
        mantissa: Vec<i64>,
        /// Added to the product.
        offset: Vec<i64>,
        /// Right shift.
        shift: Vec<u32>,
        /// Rounding of the shift.
        rounding: Rounding,
        /// Added after rounding.
        zero_point: i64,
        /// Least result.
        qmin: i64,
        /// Greatest result.
        qmax: i64,
    },
}

impl Compiled {
    /// The shape that the program has after constants are folded and operations without effect are left out. None where
    /// the program is not to be computed by vector code.
    pub fn normal_form(&self) -> Option<NormalForm> {
        if self.inputs.len() != 1 || self.evaluator() != Evaluator::Fast {
            return None;
        }
        Matcher::new(self).program()
    }
}

pub(super) struct Matcher<'a> {
    compiled: &'a Compiled,
    alias: Vec<NodeId>,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(compiled: &'a Compiled) -> Self {
        Matcher { compiled, alias: aliases(&compiled.graph) }
    }
}

impl Matcher<'_> {
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.compiled.graph.nodes[id]
    }

    pub(super) fn arg(&self, id: NodeId, i: usize) -> NodeId {
        self.alias[self.node(id).args[i]]
    }

    fn ints<T: TryFrom<i128>>(&self, id: NodeId) -> Option<Vec<T>> {
        self.node(id).frozen.as_ref()?.try_map(|value| T::try_from(value.as_int()?).ok())
    }

    fn int<T: TryFrom<i128>>(&self, id: NodeId) -> Option<T> {
        T::try_from(self.node(id).uniform()?.as_int()?).ok()
    }

    fn floats(&self, id: NodeId) -> Option<Vec<f32>> {
        self.node(id).frozen.as_ref()?.try_map(|value| if let Value::F32(v) = value { Some(v) } else { None })
    }

    pub(super) fn float(&self, id: NodeId) -> Option<f32> {
        if let Value::F32(v) = self.node(id).uniform()? { Some(v) } else { None }
    }

    /// An operation of two operands of which one is frozen: the other, and the frozen one.
    pub(super) fn with_constant(&self, id: NodeId) -> Option<(NodeId, NodeId)> {
        let (a, b) = (self.arg(id, 0), self.arg(id, 1));
        match (self.node(a).frozen.is_some(), self.node(b).frozen.is_some()) {
            (false, true) => Some((a, b)),
            (true, false) => Some((b, a)),
            _ => None,
        }
    }

    /// Takes `v + constant` apart; the constant is None where there is none.
    fn sum(&self, id: NodeId) -> (NodeId, Option<(NodeId, bool)>) {
        match self.node(id).op {
            Op::Add => self.with_constant(id).map_or((id, None), |(v, c)| (v, Some((c, false)))),
            Op::Sub if self.node(self.arg(id, 1)).frozen.is_some() => (self.arg(id, 0), Some((self.arg(id, 1), true))),
            _ => (id, None),
        }
    }

    /// Takes the saturation off.
    fn saturated(&self, id: NodeId) -> (NodeId, Option<(i64, i64)>) {
        if self.node(id).op == Op::Clamp
            && let (Some(lo), Some(hi)) = (self.int(self.arg(id, 1)), self.int(self.arg(id, 2)))
        {
            return (self.arg(id, 0), Some((lo, hi)));
        }
        (id, None)
    }

    /// Takes `sat(v + zero_point)` apart: `v`, the zero point and the range of the result.
    pub(super) fn saturated_sum(&self) -> Option<(NodeId, i64, i64, i64)> {
        let result = self.alias[self.compiled.result];
        if self.node(result).ty != Type::Int || self.node(result).frozen.is_some() {
            return None;
        }
        let (inner, bounds) = self.saturated(result);
        let (lo, hi) = self.node(result).range().int();
        let (qmin, qmax) = bounds.or(Some((i64::try_from(lo).ok()?, i64::try_from(hi).ok()?)))?;
        let (inner, added) = self.sum(inner);
        let zero_point = match added {
            None => 0,
            Some((id, minus)) => {
                let v: i64 = self.int(id)?;
                if minus { v.checked_neg()? } else { v }
            }
        };
        Some((inner, zero_point, qmin, qmax))
    }

    fn program(&self) -> Option<NormalForm> {
        let (inner, zero_point, qmin, qmax) = self.saturated_sum()?;
        match self.node(inner).op {
            Op::ToInt(rounding) => self
                .float_scale(inner, rounding, zero_point, qmin, qmax)
                .or_else(|| self.float_affine(inner, rounding, zero_point, qmin, qmax)),
            Op::Shr(rounding) => self
                .double_rounding(inner, rounding, zero_point, qmin, qmax)
                .or_else(|| self.mul_shift(inner, rounding, zero_point, qmin, qmax)),
            Op::Clamp => self.double_rounding(inner, Rounding::HalfAway, zero_point, qmin, qmax),
            _ => None,
        }
    }

    fn float_scale(&self, id: NodeId, rounding: Rounding, zero_point: i64, qmin: i64, qmax: i64) -> Option<NormalForm> {
        let mut inner = self.arg(id, 0);
        let mut clamp = None;
        if self.node(inner).op == Op::Clamp {
            clamp = Some((self.float(self.arg(inner, 1))?, self.float(self.arg(inner, 2))?));
            inner = self.arg(inner, 0);
        }
        let scale = self.scaled_input(inner)?;
        Some(NormalForm::FloatScale { scale, clamp, rounding, zero_point, qmin, qmax })
    }

    fn float_affine(
        &self,
        id: NodeId,
        rounding: Rounding,
        zero_point: i64,
        qmin: i64,
        qmax: i64,
    ) -> Option<NormalForm> {
        let sum = self.arg(id, 0);
        if self.node(sum).op != Op::Add || self.node(sum).ty != Type::Float(FloatType::F32) {
            return None;
        }
        let (product, offset) = self.with_constant(sum)?;
        let (scale, offset) = (self.scaled_input(product)?, self.floats(offset)?);
        let finite = offset.iter().all(|o| o.is_finite());
        finite.then_some(NormalForm::FloatAffine { scale, offset, rounding, zero_point, qmin, qmax })
    }

    /// The factors of `f32(acc) · scale`.
    fn scaled_input(&self, id: NodeId) -> Option<Vec<f32>> {
        if self.node(id).op != Op::Mul || self.node(id).ty != Type::Float(FloatType::F32) {
            return None;
        }
        let (cast, scale) = self.with_constant(id)?;
        let scale = self.floats(scale)?;
        // NaN and infinite factors are left to the executors that define them.
        if scale.iter().any(|s| !s.is_finite()) {
            return None;
        }
        let input = self.arg_of_cast(cast)?;
        self.input(input)?;
        Some(scale)
    }

    pub(super) fn arg_of_cast(&self, id: NodeId) -> Option<NodeId> {
        (self.node(id).op == Op::ToFloat(FloatType::F32)).then(|| self.arg(id, 0))
    }

    fn input(&self, id: NodeId) -> Option<()> {
        (matches!(self.node(id).op, Op::Input(0)) && self.node(id).ty == Type::Int).then_some(())
    }

    fn double_rounding(&self, id: NodeId, last: Rounding, zero_point: i64, qmin: i64, qmax: i64) -> Option<NormalForm> {
        // Without a last shift the node is the saturation to 32 bits, or the shift by 31 itself.
        let (mut inner, mut right) = (id, vec![0]);
        if self.node(id).op == Op::Shr(last) {
            let count: Vec<u32> = self.ints(self.arg(id, 1))?;
            let below = self.arg(id, 0);
            let is_mid = |n: NodeId| matches!(self.node(n).op, Op::Shr(_)) || self.is_sat32(n);
            if is_mid(below) {
                (inner, right) = (below, count);
            }
        }
        if self.is_sat32(inner) {
            inner = self.arg(inner, 0);
        } else if !self.node(inner).range().fits_i32() {
            return None;
        }
        let Op::Shr(mid) = self.node(inner).op else { return None };
        if self.int::<u32>(self.arg(inner, 1))? != 31 {
            return None;
        }
        let product = self.arg(inner, 0);
        if self.node(product).op != Op::Mul {
            return None;
        }
        let (value, mantissa) = self.with_constant(product)?;
        let mantissa: Vec<i32> = self.ints(mantissa)?;
        let (value, left) = self.left_shift(value)?;
        self.input(value)?;
        if !self.node(value).range().fits_i32() || left.iter().chain(&right).any(|n| *n > 31) {
            return None;
        }
        Some(NormalForm::DoubleRounding { left, mantissa, mid, right, last, zero_point, qmin, qmax })
    }

    fn is_sat32(&self, id: NodeId) -> bool {
        self.saturated(id).1 == Some((i32::MIN.into(), i32::MAX.into()))
    }

    /// `wrap(shl(v, n), i32)`, or a left shift that is proven to fit.
    fn left_shift(&self, id: NodeId) -> Option<(NodeId, Vec<u32>)> {
        let inner = match self.node(id).op {
            Op::Wrap { bits: 32, signed: true } => self.arg(id, 0),
            _ if self.node(id).range().fits_i32() => id,
            _ => return None,
        };
        match self.node(inner).op {
            Op::Shl => Some((self.arg(inner, 0), self.ints(self.arg(inner, 1))?)),
            _ => Some((inner, vec![0])),
        }
    }

    fn mul_shift(&self, id: NodeId, rounding: Rounding, zero_point: i64, qmin: i64, qmax: i64) -> Option<NormalForm> {
        let shift: Vec<u32> = self.ints(self.arg(id, 1))?;
        let whole = self.arg(id, 0);
        let (product, added) = self.sum(whole);
        let offset = match added {
            None => vec![0],
            Some((id, false)) => self.ints(id)?,
            Some((id, true)) => {
                self.ints::<i64>(id)?.into_iter().map(i64::checked_neg).collect::<Option<Vec<i64>>>()?
            }
        };
        let (value, mantissa) = match self.node(product).op {
            Op::Mul => {
                let (value, constant) = self.with_constant(product)?;
                (value, self.ints(constant)?)
            }
            _ => (product, vec![1]),
        };
        let (value, drop) = match self.node(value).op {
            Op::Shr(mode) => (self.arg(value, 0), (self.int::<u32>(self.arg(value, 1))?, mode)),
            _ => (value, (0, Rounding::Floor)),
        };
        self.input(value)?;
        if !self.node(whole).range().fits_i64()
            || !self.node(product).range().fits_i64()
            || shift.iter().any(|n| *n > 62)
            || drop.0 > 62
        {
            return None;
        }
        Some(NormalForm::MulShift { drop, mantissa, offset, shift, rounding, zero_point, qmin, qmax })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::SAMPLES;
    use super::*;
    use crate::num::{sat, shr_round, wrap};

    fn form(name: &str) -> (Compiled, Option<NormalForm>) {
        let sample = SAMPLES.iter().find(|s| s.name == name).unwrap();
        let compiled = sample.program().compile(&(sample.env)()).unwrap();
        let form = compiled.normal_form();
        (compiled, form)
    }

    fn pick<T: Copy>(values: &[T], channel: usize) -> T {
        values[if values.len() == 1 { 0 } else { channel }]
    }

    /// What the documentation of the forms says.
    fn meaning(form: &NormalForm, channel: usize, acc: i128) -> i128 {
        match form {
            NormalForm::FloatScale { scale, clamp, rounding, zero_point, qmin, qmax } => {
                let mut v = acc as f32 * pick(scale, channel);
                if let Some((lo, hi)) = clamp {
                    v = v.max(*lo).min(*hi);
                }
                let int = crate::num::float::f32_to_int(v, *rounding).unwrap();
                sat(int + i128::from(*zero_point), (*qmin).into(), (*qmax).into())
            }
            NormalForm::FloatAffine { scale, offset, rounding, zero_point, qmin, qmax } => {
                let v = acc as f32 * pick(scale, channel) + pick(offset, channel);
                let int = crate::num::float::f32_to_int(v, *rounding).unwrap();
                sat(int + i128::from(*zero_point), (*qmin).into(), (*qmax).into())
            }
            NormalForm::DoubleRounding { left, mantissa, mid, right, last, zero_point, qmin, qmax } => {
                let t = wrap(acc << pick(left, channel), 32, true);
                let t = shr_round(t * i128::from(pick(mantissa, channel)), 31, *mid);
                let t = sat(t, i32::MIN.into(), i32::MAX.into());
                let t = shr_round(t, pick(right, channel), *last);
                sat(t + i128::from(*zero_point), (*qmin).into(), (*qmax).into())
            }
            NormalForm::MulShift { drop, mantissa, offset, shift, rounding, zero_point, qmin, qmax } => {
                let t = shr_round(acc, drop.0, drop.1) * i128::from(pick(mantissa, channel));
                let t = shr_round(t + i128::from(pick(offset, channel)), pick(shift, channel), *rounding);
                sat(t + i128::from(*zero_point), (*qmin).into(), (*qmax).into())
            }
        }
    }

    #[test]
    fn samples_match_their_forms() {
        for (name, expected) in [
            ("q31_double", "DoubleRounding"),
            ("q31_double_ties", "DoubleRounding"),
            ("q31_single", "MulShift"),
            ("q15_wide", "MulShift"),
            ("f32_scale", "FloatScale"),
            ("f32_scale_clamped_after", "FloatScale"),
            ("f32_affine", "FloatAffine"),
            ("dropped_bits", "MulShift"),
            ("rescale_double", ""),
            ("kpu_carry", ""),
            ("common_shift", ""),
        ] {
            let (compiled, form) = form(name);
            let found = format!("{form:?}");
            assert!(if expected.is_empty() { form.is_none() } else { found.contains(expected) }, "{name}: {found}");
            let Some(form) = form else { continue };
            let (lo, hi) = match compiled.inputs[0].kind {
                super::super::env::InputKind::Int(lo, hi) => (lo, hi),
                kind => panic!("{kind:?}"),
            };
            for channel in 0..compiled.channels() {
                for i in 0..4000i128 {
                    let acc = match i % 4 {
                        0 => i - 2000,
                        1 => (i - 2000) * 64 + 32,
                        2 => (1i128 << (i % 31)) * (i % 7 - 3) + (i % 3 - 1),
                        _ => lo + (hi - lo) / 4000 * i,
                    };
                    let acc = acc.clamp(lo, hi);
                    let expected = compiled.eval(channel, &[Value::Int(acc)]).unwrap();
                    assert_eq!(Value::Int(meaning(&form, channel, acc)), expected, "{name} {channel} {acc}");
                }
            }
        }
    }
}
