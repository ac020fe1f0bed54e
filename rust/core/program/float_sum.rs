//! The sum of two codes in float32, as a shape that a fast kernel may implement.

use super::graph::Op;
use super::normal_form::Matcher;
use super::types::Type;
use super::{Compiled, Evaluator};
use crate::num::{FloatType, Rounding};

/// `sat(int(fma(f32(outer), outer_factor, fma(f32(inner), inner_factor, constant)), half_even) + zero_point)` of two integer
/// inputs. `qmin..=qmax` is the range of the result.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatSum {
    /// Which input is multiplied last.
    pub outer: usize,
    /// Its factor.
    pub outer_factor: f32,
    /// Factor of the other input.
    pub inner_factor: f32,
    /// Added to the product of the other input.
    pub constant: f32,
    /// Added after rounding.
    pub zero_point: i64,
    /// Least result.
    pub qmin: i64,
    /// Greatest result.
    pub qmax: i64,
}

impl Compiled {
    /// The sum that the program is, where it is one.
    pub fn float_sum(&self) -> Option<FloatSum> {
        if self.inputs.len() != 2 || self.evaluator() != Evaluator::Fast {
            return None;
        }
        let matcher = Matcher::new(self);
        let (inner, zero_point, qmin, qmax) = matcher.saturated_sum()?;
        if matcher.node(inner).op != Op::ToInt(Rounding::HalfEven) {
            return None;
        }
        let (outer, outer_factor, rest) = matcher.multiply_add(matcher.arg(inner, 0))?;
        let (other, inner_factor, constant) = matcher.multiply_add(rest)?;
        let constant = matcher.float(constant)?;
        (outer + other == 1).then_some(FloatSum { outer, outer_factor, inner_factor, constant, zero_point, qmin, qmax })
    }
}

impl Matcher<'_> {
    /// `fma(f32(input), factor, rest)`: number of the input, the factor, and the rest.
    fn multiply_add(&self, id: usize) -> Option<(usize, f32, usize)> {
        if self.node(id).op != Op::Fma || self.node(id).ty != Type::Float(FloatType::F32) {
            return None;
        }
        let (cast, factor) = self.with_constant(id)?;
        let source = self.arg_of_cast(cast)?;
        match self.node(source).op {
            Op::Input(i) if self.node(source).ty == Type::Int => Some((i, self.float(factor)?, self.arg(id, 2))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::of_two_codes as compile;
    use super::*;

    #[test]
    fn a_sum_is_found_whichever_operand_comes_last() {
        let sum = compile("sat(int(fma(f32(b), f32(0.5), fma(f32(a), f32(0.25), f32(3.0))), half_even), y)");
        let expected = FloatSum {
            outer: 1,
            outer_factor: 0.5,
            inner_factor: 0.25,
            constant: 3.0,
            zero_point: 0,
            qmin: 0,
            qmax: 255,
        };
        assert_eq!(sum.float_sum(), Some(expected));
        for other in [
            "sat(int(fma(f32(a), f32(0.5), fma(f32(a), f32(0.25), f32(3.0))), half_even), y)",
            "sat(int(fma(f32(b), f32(0.5), fma(f32(a), f32(0.25), f32(3.0))), half_away), y)",
            "sat(int(f32(b) * f32(0.5) + f32(a) * f32(0.25), half_even), y)",
        ] {
            assert_eq!(compile(other).float_sum(), None, "{other}");
        }
    }
}
