//! The quantization of a float32 real, as a shape that a fast kernel may implement.

use super::graph::Op;
use super::normal_form::Matcher;
use super::types::Type;
use super::{Compiled, Evaluator};
use crate::num::{FloatType, Rounding};

/// `sat(int(clamp(x ∘ scale), rounding) + zero_point)` of one float32 input; `∘` is `·` or `/`, in float32, and the clamp is
/// that to the range of the result less the zero point. `qmin..=qmax` is the range of the result.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatQuantize {
    /// Whether the input is divided.
    pub divide: bool,
    /// Factor or divisor.
    pub scale: f32,
    /// Float to int.
    pub rounding: Rounding,
    /// Added after rounding.
    pub zero_point: i64,
    /// Least result.
    pub qmin: i64,
    /// Greatest result.
    pub qmax: i64,
}

impl Compiled {
    /// The quantization that the program is, where it is one.
    pub fn float_quantize(&self) -> Option<FloatQuantize> {
        if self.inputs.len() != 1 || self.evaluator() != Evaluator::Fast {
            return None;
        }
        let matcher = Matcher::new(self);
        let (inner, zero_point, mut qmin, mut qmax) = matcher.saturated_sum()?;
        let Op::ToInt(rounding) = matcher.node(inner).op else { return None };
        let mut value = matcher.arg(inner, 0);
        if matcher.node(value).op == Op::Clamp {
            // Bounds that are integers may be applied before rounding or after it.
            let bound = |i: usize| {
                let v = matcher.float(matcher.arg(value, i)).filter(|v| v.fract() == 0.0 && v.abs() < 16_777_216.0)?;
                Some(v as i64 + zero_point)
            };
            (qmin, qmax) = (qmin.max(bound(1)?), qmax.min(bound(2)?));
            value = matcher.arg(value, 0);
        }
        let node = matcher.node(value);
        if node.ty != Type::Float(FloatType::F32) || !matches!(node.op, Op::Mul | Op::Div) {
            return None;
        }
        let (input, scale) = match node.op {
            Op::Mul => matcher.with_constant(value)?,
            _ => (matcher.arg(value, 0), matcher.arg(value, 1)),
        };
        let scale = matcher.float(scale).filter(|s| s.is_finite() && *s != 0.0)?;
        let is_input = matches!(matcher.node(input).op, Op::Input(0)) && matcher.node(input).ty == node.ty;
        let divide = node.op == Op::Div;
        (is_input && qmin <= qmax).then_some(FloatQuantize { divide, scale, rounding, zero_point, qmin, qmax })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Env, Functions, Program, Text};
    use super::*;

    fn form(y: &str) -> Option<FloatQuantize> {
        let mut env = Env::new();
        env.input_float("x", FloatType::F32).output(0, 255);
        let program = Program::parse(&[], &Text::new(y, "y"), &Functions::new()).unwrap();
        program.compile(&env).unwrap().float_quantize()
    }

    #[test]
    fn products_and_quotients_are_found() {
        let expected =
            FloatQuantize { divide: true, scale: 0.5, rounding: Rounding::HalfAway, zero_point: 7, qmin: 0, qmax: 255 };
        assert_eq!(form("sat(int(x / f32(0.5), half_away) + 7, y)"), Some(expected.clone()));
        let product = FloatQuantize { divide: false, rounding: Rounding::HalfEven, qmin: 2, qmax: 107, ..expected };
        assert_eq!(form("int(clamp(x * f32(0.5), f32(-5), f32(100)), half_even) + 7"), Some(product));
        for other in [
            "sat(int(f32(0.5) / x, half_even), y)",
            "sat(int(x + f32(0.5), half_even), y)",
            "sat(int(f64(x) / 0.5, half_even), y)",
            "sat(int(clamp(x * f32(0.5), f32(-0.5), f32(100)), half_even) + 7, y)",
        ] {
            assert_eq!(form(other), None, "{other}");
        }
    }
}
