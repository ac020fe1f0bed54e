//! Add, Sub, Mul, Div, Pow, Mod and the variadic Min, Max, Sum and Mean, with broadcasting.

use super::broadcast::{Broadcast, broadcast_shape};
use super::closure::{input, kernel};
use super::element::{Integer, Real, by_class};
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor};

/// An operator on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `a + b`; integers wrap.
    Add,
    /// `a - b`; integers wrap.
    Sub,
    /// `a · b`; integers wrap.
    Mul,
    /// `a / b`; integers truncate, and a zero divisor is an error.
    Div,
    /// The smaller; NaN wins.
    Min,
    /// The larger; NaN wins.
    Max,
}

impl Arithmetic {
    /// On reals.
    #[inline(always)]
    fn real(self, a: f64, b: f64) -> f64 {
        match self {
            Arithmetic::Add => a + b,
            Arithmetic::Sub => a - b,
            Arithmetic::Mul => a * b,
            Arithmetic::Div => a / b,
            Arithmetic::Min if a.is_nan() || a < b => a,
            Arithmetic::Max if a.is_nan() || a > b => a,
            Arithmetic::Min | Arithmetic::Max => b,
        }
    }

    /// On integers; the divisor must not be zero.
    #[inline(always)]
    fn integer(self, a: i128, b: i128) -> i128 {
        match self {
            Arithmetic::Add => a + b,
            Arithmetic::Sub => a - b,
            Arithmetic::Mul => a.wrapping_mul(b),
            Arithmetic::Div => a / b,
            Arithmetic::Min => a.min(b),
            Arithmetic::Max => a.max(b),
        }
    }
}

fn apply(engine: Engine<'_>, op: Arithmetic, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    fn real<T: Real>(engine: Engine<'_>, op: Arithmetic, plan: &Broadcast, a: &[T], b: &[T]) -> Vec<T> {
        use Arithmetic::{Add, Div, Max, Min, Mul, Sub};
        // One loop per operator, so that each is compiled for its own.
        macro_rules! each {
            ($($op:ident),*) => { match op {
                $($op => plan.zip(engine, a, b, |x: T, y: T| T::from_f64($op.real(x.to_f64(), y.to_f64()))),)*
            } };
        }
        each!(Add, Sub, Mul, Div, Min, Max)
    }
    fn reals<T: Real>(engine: Engine<'_>, op: Arithmetic, plan: &Broadcast, a: &[T], b: &Data) -> Option<Data> {
        Some(T::wrap(real(engine, op, plan, a, T::view(b)?)))
    }
    fn integers<T: Integer>(
        engine: Engine<'_>,
        op: Arithmetic,
        plan: &Broadcast,
        a: &[T],
        b: &Data,
    ) -> Option<Result<Data>> {
        let b = T::view(b)?;
        if op == Arithmetic::Div && !plan.is_empty() && b.iter().any(|y| y.to_i128() == 0) {
            return Some(Err(Error::invalid("division_by_zero", "an integer is divided by zero")));
        }
        let f = |x: T, y: T| T::wrapping_from(op.integer(x.to_i128(), y.to_i128()));
        Some(Ok(T::wrap(plan.zip(engine, a, b, f))))
    }
    let plan = Broadcast::new(&[a.shape(), b.shape()])?;
    let data = by_class!(a.data(), v =>
        real reals(engine, op, &plan, v, b.data()).map(Ok),
        integer integers(engine, op, &plan, v, b.data()),
        boolean v.first().and(None),
    );
    let data = data
        .ok_or_else(|| Error::invalid("tensor_dtype", format!("no arithmetic of {} and {}", a.dtype(), b.dtype())))??;
    Tensor::new(plan.shape(), data)
}

/// Add, Sub, Mul and Div.
pub struct Binary(pub Arithmetic);

impl Op for Binary {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        if facts.opset < 7 {
            return Err(facts.unsupported("broadcasting before opset 7 is not supported"));
        }
        signature::check(facts, 2..=2, 1..=1, &[])?;
        infer_same(facts)
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let op = self.0;
        kernel(move |context, inputs| Ok([apply(context.engine(), op, input(inputs, 0)?, input(inputs, 1)?)?].into()))
    }
}

/// All inputs have one numeric type and broadcast together.
fn infer_same(facts: &Facts<'_>) -> Result<Vec<Inferred>> {
    let first = facts.input(0)?;
    if first.dtype == DType::Bool {
        return Err(facts.invalid("booleans have no arithmetic"));
    }
    let mut shapes: Vec<&[usize]> = Vec::with_capacity(facts.inputs.len());
    for i in 0..facts.inputs.len() {
        let fact = facts.input(i)?;
        signature::same_dtype(facts, first, fact)?;
        shapes.push(&fact.shape);
    }
    let shape = broadcast_shape(&shapes).map_err(|e| e.at_node(&facts.node.name, &facts.node.op_type))?;
    Ok(vec![(first.dtype, shape)])
}

/// Min, Max, Sum and Mean of any number of inputs, folded from the left; Mean divides the sum at the end.
pub struct Variadic {
    /// How two inputs meet.
    pub op: Arithmetic,
    /// Whether the result is divided by the number of inputs.
    pub mean: bool,
}

impl Op for Variadic {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        if facts.opset < 8 {
            return Err(facts.unsupported("broadcasting before opset 8 is not supported"));
        }
        signature::check(facts, 1..=usize::MAX, 1..=1, &[])?;
        infer_same(facts)
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (op, mean) = (self.op, self.mean);
        kernel(move |context, inputs| {
            let mut out = input(inputs, 0)?.clone();
            for i in 1..inputs.len() {
                out = apply(context.engine(), op, &out, input(inputs, i)?)?;
            }
            if mean {
                let count = inputs.len() as f64;
                let data = super::elementwise::map_reals(context.engine(), out.data(), |x| x / count)?;
                out = Tensor::new(out.shape(), data)?;
            }
            Ok([out].into())
        })
    }
}

/// Pow: the type of the base is the type of the result.
pub struct Pow;

/// `base^exponent` in integers; wraps. A negative exponent gives the reciprocal truncated to an integer.
fn integer_power(base: i128, exponent: i128) -> Option<i128> {
    if exponent < 0 {
        return match base {
            0 => None,
            1 => Some(1),
            -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
            _ => Some(0),
        };
    }
    let (mut result, mut square, mut rest) = (1i128, base, exponent);
    while rest > 0 {
        if rest % 2 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest /= 2;
    }
    Some(result)
}

impl Op for Pow {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &[])?;
        let (base, exponent) = (facts.input(0)?, facts.input(1)?);
        if base.dtype == DType::Bool || exponent.dtype == DType::Bool {
            return Err(facts.invalid("booleans have no arithmetic"));
        }
        let shape = broadcast_shape(&[&base.shape, &exponent.shape])
            .map_err(|e| e.at_node(&facts.node.name, &facts.node.op_type))?;
        Ok(vec![(base.dtype, shape)])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn reals<T: Real>(engine: Engine<'_>, plan: &Broadcast, base: &[T], exponent: &[f64]) -> Data {
            T::wrap(plan.zip(engine, base, exponent, |b: T, e| T::from_f64(libm::pow(b.to_f64(), e))))
        }
        fn integers<T: Integer>(engine: Engine<'_>, plan: &Broadcast, base: &[T], exponent: &Tensor) -> Result<Data> {
            if exponent.dtype().is_float() {
                let power = |b: T, e| T::wrapping_from(libm::pow(b.to_i128() as f64, e) as i128);
                return Ok(T::wrap(plan.zip(engine, base, &exponent.to_f64(), power)));
            }
            let exponent = exponent.to_i64()?;
            if exponent.iter().any(|&e| e < 0) && base.iter().any(|b| b.to_i128() == 0) {
                return Err(Error::invalid("division_by_zero", "the integer 0 has no negative power"));
            }
            let power = |b: T, e: i64| T::wrapping_from(integer_power(b.to_i128(), e.into()).unwrap_or(0));
            Ok(T::wrap(plan.zip(engine, base, &exponent, power)))
        }
        kernel(|context, inputs| {
            let (base, exponent) = (input(inputs, 0)?, input(inputs, 1)?);
            let plan = Broadcast::new(&[base.shape(), exponent.shape()])?;
            let data = by_class!(base.data(), v =>
                real reals(context.engine(), &plan, v, &exponent.to_f64()),
                integer integers(context.engine(), &plan, v, exponent)?,
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans have no powers", v.len()))),
            );
            Ok([Tensor::new(plan.shape(), data)?].into())
        })
    }
}

/// Mod: the sign of the divisor (`fmod = 0`; for floats from opset 28 on), or of the dividend (`fmod = 1`).
pub struct Mod;

impl Op for Mod {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["fmod"])?;
        if !signature::flag(facts, "fmod", false)? && facts.opset < 28 && facts.input(0)?.dtype.is_float() {
            return Err(facts.invalid("floats need fmod = 1"));
        }
        infer_same(facts)
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn reals<T: Real>(engine: Engine<'_>, plan: &Broadcast, a: &[T], b: &Data, fmod: bool) -> Option<Result<Data>> {
            let f = |x: T, y: T| {
                let (rest, y) = (libm::fmod(x.to_f64(), y.to_f64()), y.to_f64());
                T::from_f64(match rest {
                    _ if fmod || rest.is_nan() => rest,
                    0.0 => 0f64.copysign(y),
                    _ if (rest < 0.0) != (y < 0.0) => rest + y,
                    _ => rest,
                })
            };
            Some(Ok(T::wrap(plan.zip(engine, a, T::view(b)?, f))))
        }
        fn integers<T: Integer>(
            engine: Engine<'_>,
            plan: &Broadcast,
            a: &[T],
            b: &Data,
            fmod: bool,
        ) -> Option<Result<Data>> {
            let b = T::view(b)?;
            if !plan.is_empty() && b.iter().any(|y| y.to_i128() == 0) {
                return Some(Err(Error::invalid("division_by_zero", "an integer is divided by zero")));
            }
            let f = |x: T, y: T| {
                let (x, y) = (x.to_i128(), y.to_i128());
                T::wrapping_from(if fmod || x % y == 0 || (x < 0) == (y < 0) { x % y } else { x % y + y })
            };
            Some(Ok(T::wrap(plan.zip(engine, a, b, f))))
        }
        let fmod = signature::flag(facts, "fmod", false)?;
        kernel(move |context, inputs| {
            let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
            let plan = Broadcast::new(&[a.shape(), b.shape()])?;
            let data = by_class!(a.data(), v =>
                real reals(context.engine(), &plan, v, b.data(), fmod),
                integer integers(context.engine(), &plan, v, b.data(), fmod),
                boolean v.first().and(None),
            );
            let data = data.ok_or_else(|| Error::invalid("tensor_dtype", "Mod needs two inputs of one type"))??;
            Ok([Tensor::new(plan.shape(), data)?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_integers() {
        assert_eq!(integer_power(-3, 3), Some(-27));
        assert_eq!(integer_power(2, -1), Some(0));
        assert_eq!(integer_power(-1, -3), Some(-1));
        assert_eq!(integer_power(0, -1), None);
        assert_eq!(integer_power(7, 0), Some(1));
    }

    #[test]
    fn nan_wins() {
        for op in [Arithmetic::Min, Arithmetic::Max] {
            assert!(op.real(f64::NAN, 1.0).is_nan());
            assert!(op.real(1.0, f64::NAN).is_nan());
        }
    }
}
