//! Operators that apply one function to each element.
//!
//! Functions of reals are evaluated in f64 by the `libm` crate, or by exact operations, and rounded once to the
//! tensor's type: the same bits on every platform, within half a unit in the last place of the true value.

use super::closure::{input, kernel};
use super::element::{Integer, Real, by_class};
use super::parallel::map;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{Data, Tensor};

/// A function of reals without attributes.
pub struct Function(pub fn(f64) -> f64);

impl Op for Function {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &[])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        reals(self.0)
    }
}

/// A function of reals and integers without attributes. Integers wrap.
pub struct NumberFunction {
    /// On reals.
    pub real: fn(f64) -> f64,
    /// On integers.
    pub integer: fn(i128) -> i128,
}

impl Op for NumberFunction {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &[])?;
        let x = facts.input(0)?;
        if x.dtype == crate::tensor::DType::Bool {
            return Err(facts.invalid("booleans have no arithmetic"));
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (real, integer) = (self.real, self.integer);
        kernel(move |context, inputs| {
            fn real_map<T: Real>(engine: Engine<'_>, v: &[T], f: fn(f64) -> f64) -> Data {
                T::wrap(map(engine, v, |x| T::from_f64(f(x.to_f64()))))
            }
            fn integer_map<T: Integer>(engine: Engine<'_>, v: &[T], f: fn(i128) -> i128) -> Data {
                T::wrap(map(engine, v, |x| T::wrapping_from(f(x.to_i128()))))
            }
            let x = input(inputs, 0)?;
            let data = by_class!(x.data(), v =>
                real real_map(context.engine(), v, real),
                integer integer_map(context.engine(), v, integer),
                boolean return Err(Error::invalid("tensor_dtype", format!("{} elements have no arithmetic", v.len()))),
            );
            Ok([Tensor::new(x.shape(), data)?].into())
        })
    }
}

/// A property of reals without attributes, as booleans.
pub struct Test(pub fn(f64) -> bool);

impl Op for Test {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &[])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        Ok(vec![(crate::tensor::DType::Bool, x.shape.clone())])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        test(self.0)
    }
}

/// IsInf: infinity of the signs that its attributes name.
pub struct IsInf;

impl Op for IsInf {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["detect_negative", "detect_positive"])?;
        signature::flag(facts, "detect_negative", true)?;
        signature::flag(facts, "detect_positive", true)?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        Ok(vec![(crate::tensor::DType::Bool, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let negative = signature::flag(facts, "detect_negative", true)?;
        let positive = signature::flag(facts, "detect_positive", true)?;
        test(move |x| (positive && x == f64::INFINITY) || (negative && x == f64::NEG_INFINITY))
    }
}

/// A kernel that gives `f` of each element of a tensor of reals.
fn test(f: impl Fn(f64) -> bool + Send + Sync + 'static) -> Result<Box<dyn Kernel>> {
    kernel(move |context, inputs| {
        let x = input(inputs, 0)?;
        let out = by_class!(x.data(), v =>
            real map(context.engine(), v, |x| f(Real::to_f64(x))),
            integer return Err(Error::invalid("tensor_dtype", format!("{} integers, not floats", v.len()))),
            boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans, not floats", v.len()))),
        );
        Ok([Tensor::new(x.shape(), Data::Bool(out.into()))?].into())
    })
}

/// A kernel that applies `f` to each element of a tensor of reals.
pub fn reals(f: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Result<Box<dyn Kernel>> {
    kernel(move |context, inputs| {
        let x = input(inputs, 0)?;
        let data = map_reals(context.engine(), x.data(), &f)?;
        Ok([Tensor::new(x.shape(), data)?].into())
    })
}

/// `f` of each element, which must be real.
pub fn map_reals(engine: Engine<'_>, data: &Data, f: impl Fn(f64) -> f64 + Sync) -> Result<Data> {
    fn typed<T: Real>(engine: Engine<'_>, v: &[T], f: impl Fn(f64) -> f64 + Sync) -> Data {
        T::wrap(map(engine, v, |x| T::from_f64(f(x.to_f64()))))
    }
    Ok(by_class!(data, v =>
        real typed(engine, v, f),
        integer return Err(Error::invalid("tensor_dtype", format!("{} integers, not floats", v.len()))),
        boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans, not floats", v.len()))),
    ))
}

/// `1 / (1 + e^-x)`, without overflow on either side.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + libm::exp(-x))
    } else {
        let e = libm::exp(x);
        e / (1.0 + e)
    }
}

/// `ln(1 + e^x)`, without overflow.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// The larger of `x` and 0; NaN stays NaN.
pub fn relu(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// `x · max(0, min(1, x / 6 + 1/2))`.
pub fn hard_swish(x: f64) -> f64 {
    x * (x / 6.0 + 0.5).clamp(0.0, 1.0)
}

/// `x · tanh(softplus(x))`.
pub fn mish(x: f64) -> f64 {
    x * libm::tanh(softplus(x))
}

/// `x / (1 + |x|)`.
pub fn softsign(x: f64) -> f64 {
    x / (1.0 + x.abs())
}

/// -1, 0 or 1; NaN stays NaN.
pub fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else if x == 0.0 {
        0.0
    } else {
        x
    }
}

/// To the nearest integer, ties to even.
pub fn round(x: f64) -> f64 {
    x.round_ties_even()
}

/// The reciprocal.
pub fn reciprocal(x: f64) -> f64 {
    1.0 / x
}

/// The square root.
pub fn sqrt(x: f64) -> f64 {
    x.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_hold_at_the_ends() {
        assert_eq!(sigmoid(-1000.0), 0.0);
        assert_eq!(sigmoid(1000.0), 1.0);
        assert_eq!(softplus(1000.0), 1000.0);
        assert_eq!(softplus(0.0), std::f64::consts::LN_2);
        assert!(relu(f64::NAN).is_nan());
        assert_eq!((hard_swish(-3.0), hard_swish(3.0), hard_swish(0.0)), (0.0, 3.0, 0.0));
        assert_eq!((round(0.5), round(1.5), round(-2.5)), (0.0, 2.0, -2.0));
    }
}
