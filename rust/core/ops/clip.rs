//! Clip: limits are attributes before opset 11 and optional inputs from then on.

use super::closure::{input, kernel, optional};
use super::element::{Element, Integer, Real, by_class};
use super::parallel::map;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor};

/// `min(max, max(min, x))`: where the limits cross, the upper one holds. NaN stays NaN.
pub struct Clip;

/// Limits that are known before the run, as reals; infinite where left out.
pub fn constant_limits(facts: &Facts<'_>) -> Result<(f64, f64)> {
    if facts.opset < 11 {
        let (lo, hi) = (facts.node.float("min", f32::NEG_INFINITY)?, facts.node.float("max", f32::INFINITY)?);
        return Ok((lo.into(), hi.into()));
    }
    let limit = |i: usize, open: f64| -> Result<f64> {
        match facts.optional(i) {
            None => Ok(open),
            Some(_) => facts.constant(i)?.to_f64().first().copied().ok_or_else(|| facts.invalid("a limit is empty")),
        }
    };
    Ok((limit(1, f64::NEG_INFINITY)?, limit(2, f64::INFINITY)?))
}

impl Op for Clip {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let by_attribute = facts.opset < 11;
        let (inputs, attributes): (_, &[&str]) = if by_attribute { (1..=1, &["min", "max"]) } else { (1..=3, &[]) };
        signature::check(facts, inputs, 1..=1, attributes)?;
        let x = facts.input(0)?;
        if x.dtype == DType::Bool || (by_attribute && !x.dtype.is_float()) {
            return Err(facts.invalid(format!("{} cannot be clipped here", x.dtype)));
        }
        if by_attribute {
            constant_limits(facts)?;
        }
        for limit in [1, 2].into_iter().filter_map(|i| facts.optional(i)) {
            signature::same_dtype(facts, x, limit)?;
            if limit.shape.iter().product::<usize>() != 1 {
                return Err(facts.invalid(format!("limit '{}' of shape {:?} is no scalar", limit.name, limit.shape)));
            }
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        type Limits<'a> = [Option<&'a Tensor>; 2];
        fn limit<T: Element>(limits: Limits<'_>, i: usize) -> Result<Option<T>> {
            let Some(tensor) = limits[i] else { return Ok(None) };
            match T::view(tensor.data()) {
                Some([one]) => Ok(Some(*one)),
                _ => Err(Error::invalid("tensor_dtype", "a limit is no scalar of the input's type")),
            }
        }
        fn typed<T: Element>(engine: Engine<'_>, v: &[T], lo: Option<T>, hi: Option<T>) -> Data {
            let f = |x: T| {
                let x = match lo {
                    Some(lo) if x < lo => lo,
                    _ => x,
                };
                match hi {
                    Some(hi) if x > hi => hi,
                    _ => x,
                }
            };
            T::wrap(map(engine, v, f))
        }
        fn reals<T: Real>(engine: Engine<'_>, v: &[T], limits: Limits<'_>, fixed: Option<(f64, f64)>) -> Result<Data> {
            Ok(match fixed {
                Some((lo, hi)) => typed(engine, v, Some(T::from_f64(lo)), Some(T::from_f64(hi))),
                None => typed(engine, v, limit(limits, 0)?, limit(limits, 1)?),
            })
        }
        fn integers<T: Integer>(engine: Engine<'_>, v: &[T], limits: Limits<'_>) -> Result<Data> {
            Ok(typed(engine, v, limit(limits, 0)?, limit(limits, 1)?))
        }
        let fixed = if facts.opset < 11 { Some(constant_limits(facts)?) } else { None };
        kernel(move |context, inputs| {
            let x = input(inputs, 0)?;
            let limits = [optional(inputs, 1), optional(inputs, 2)];
            let data = by_class!(x.data(), v =>
                real reals(context.engine(), v, limits, fixed)?,
                integer integers(context.engine(), v, limits)?,
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans cannot be clipped", v.len()))),
            );
            Ok([Tensor::new(x.shape(), data)?].into())
        })
    }
}
