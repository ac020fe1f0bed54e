//! Operators that speak of shapes: Shape, Size, ConstantOfShape and Range.

use super::closure::kernel;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::Result;
use crate::graph::Attribute;
use crate::map_data;
use crate::tensor::{DType, Data, MAX_ELEMENTS, Tensor, element_count};

/// A kernel that gives a value fixed when the node is prepared.
fn constant(value: Tensor) -> Result<Box<dyn Kernel>> {
    kernel(move |_, _| Ok([value.clone()].into()))
}

/// Shape and Size. Their kernels need no inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The dimensions from `start` to `end`.
    Shape,
    /// The number of elements.
    Size,
}

impl Extent {
    fn value(self, facts: &Facts<'_>) -> Result<Tensor> {
        let shape = &facts.input(0)?.shape;
        if self == Extent::Size {
            return Tensor::new(Vec::new(), Data::I64(vec![element_count(shape)? as i64].into()));
        }
        let rank = shape.len() as i64;
        let (start, end) = (facts.node.int("start", 0)?, facts.node.int("end", rank)?);
        let (first, count) = super::slice::range(rank, start, end, 1).unwrap_or_default();
        let dims: Vec<i64> = shape[first..first + count].iter().map(|&d| d as i64).collect();
        Tensor::new(vec![dims.len()], Data::I64(dims.into()))
    }
}

impl Op for Extent {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] = if *self == Extent::Shape && facts.opset >= 15 { &["start", "end"] } else { &[] };
        signature::check(facts, 1..=1, 1..=1, attributes)?;
        Ok(vec![(DType::I64, self.value(facts)?.shape().to_vec())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        constant(self.value(facts)?)
    }

    fn depends_on_shapes_alone(&self) -> bool {
        true
    }
}

/// ConstantOfShape: a tensor of one value.
pub struct ConstantOfShape;

impl ConstantOfShape {
    fn value(facts: &Facts<'_>) -> Result<(Data, Vec<usize>)> {
        let wanted = signature::constant_ints(facts, 0)?;
        let shape: Vec<usize> = wanted
            .iter()
            .map(|&d| usize::try_from(d).map_err(|_| facts.invalid(format!("shape {wanted:?} is not possible"))))
            .collect::<Result<_>>()?;
        element_count(&shape)?;
        let value = match facts.node.attributes.get("value") {
            None => Data::F32(vec![0.0].into()),
            Some(Attribute::Tensor(value)) if value.len() == 1 => value.data().clone(),
            Some(_) => return Err(facts.invalid("attribute 'value' is no tensor of one element")),
        };
        Ok((value, shape))
    }
}

impl Op for ConstantOfShape {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["value"])?;
        let (value, shape) = Self::value(facts)?;
        Ok(vec![(value.dtype(), shape)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (value, shape) = Self::value(facts)?;
        kernel(move |_, _| {
            let count = element_count(&shape)?;
            Ok([Tensor::new(shape.clone(), map_data!(&value, v => vec![v[0]; count].into()))?].into())
        })
    }
}

/// Range: `start + i · delta` below `limit`, all three constant.
pub struct Range;

/// First value, step and length.
enum Progression {
    Integers(i128, i128, usize),
    Reals(f64, f64, usize),
}

impl Range {
    fn plan(facts: &Facts<'_>) -> Result<Progression> {
        let dtype = facts.input(0)?.dtype;
        for i in 0..3 {
            signature::same_dtype(facts, facts.input(0)?, facts.input(i)?)?;
            if facts.constant(i)?.len() != 1 {
                return Err(facts.invalid(format!("input {i} is no scalar")));
            }
        }
        let too_long = || facts.invalid("the range is endless or too long");
        if matches!(dtype, DType::I64 | DType::I32 | DType::I16) {
            let mut numbers = [0i128; 3];
            for (i, n) in numbers.iter_mut().enumerate() {
                *n = facts.constant(i)?.to_i64()?.first().copied().unwrap_or(0).into();
            }
            let [start, limit, delta] = numbers;
            if delta == 0 {
                return Err(too_long());
            }
            let span = if delta > 0 { limit - start } else { start - limit };
            let count = span.max(0).unsigned_abs().div_ceil(delta.unsigned_abs());
            let count = usize::try_from(count).ok().filter(|&c| c <= MAX_ELEMENTS).ok_or_else(too_long)?;
            return Ok(Progression::Integers(start, delta, count));
        }
        if !dtype.is_float() {
            return Err(facts.unsupported(format!("a range of {dtype} is not supported")));
        }
        let mut numbers = [0f64; 3];
        for (i, n) in numbers.iter_mut().enumerate() {
            *n = facts.constant(i)?.to_f64().first().copied().unwrap_or(0.0);
        }
        let [start, limit, delta] = numbers;
        let count = ((limit - start) / delta).ceil().max(0.0);
        if numbers.iter().any(|n| !n.is_finite()) || delta == 0.0 || count > MAX_ELEMENTS as f64 {
            return Err(too_long());
        }
        Ok(Progression::Reals(start, delta, count as usize))
    }
}

impl Op for Range {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 3..=3, 1..=1, &[])?;
        let (Progression::Integers(_, _, count) | Progression::Reals(_, _, count)) = Self::plan(facts)?;
        Ok(vec![(facts.input(0)?.dtype, vec![count])])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let dtype = facts.input(0)?.dtype;
        let data = match Self::plan(facts)? {
            Progression::Integers(start, delta, count) => {
                let values = (0..count as i128).map(|i| start + i * delta);
                match dtype {
                    DType::I64 => Data::I64(values.map(|v| v as i64).collect()),
                    DType::I32 => Data::I32(values.map(|v| v as i32).collect()),
                    _ => Data::I16(values.map(|v| v as i16).collect()),
                }
            }
            Progression::Reals(start, delta, count) => {
                let values = (0..count).map(|i| start + i as f64 * delta).collect();
                return constant(super::floats::write_f64(&[count], values, dtype)?);
            }
        };
        constant(Tensor::new(vec![data.len()], data)?)
    }
}
