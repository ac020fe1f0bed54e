//! Checks that every operator begins with: counts of inputs and outputs, names of attributes, types.

use super::{Fact, Facts};
use crate::error::Result;
use crate::tensor::DType;
use std::ops::RangeInclusive;

/// Fails where the node has too few or too many inputs or outputs, or an attribute that is not named here.
pub fn check(
    facts: &Facts<'_>,
    inputs: RangeInclusive<usize>,
    outputs: RangeInclusive<usize>,
    attributes: &[&str],
) -> Result<()> {
    facts.node.check_attributes(attributes)?;
    let used = |list: &[Option<usize>]| list.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
    let given = facts.inputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
    if !inputs.contains(&given) {
        return Err(facts.invalid(format!(
            "{given} inputs are given, {} to {} are expected",
            inputs.start(),
            inputs.end()
        )));
    }
    for i in 0..*inputs.start() {
        facts.input(i)?;
    }
    let count = used(&facts.node.outputs);
    if !outputs.contains(&count) {
        return Err(facts.invalid(format!("{count} outputs are read, {} to {} exist", outputs.start(), outputs.end())));
    }
    Ok(())
}

/// Fails where the types of two inputs differ.
pub fn same_dtype(facts: &Facts<'_>, a: &Fact, b: &Fact) -> Result<()> {
    if a.dtype == b.dtype {
        return Ok(());
    }
    Err(facts.invalid(format!("'{}' is {} and '{}' is {}: types must agree", a.name, a.dtype, b.name, b.dtype)))
}

/// Fails where an input is not of a float type.
pub fn float(facts: &Facts<'_>, fact: &Fact) -> Result<()> {
    if fact.dtype.is_float() {
        return Ok(());
    }
    Err(facts.invalid(format!("'{}' is {}, a float type is expected", fact.name, fact.dtype)))
}

/// Fails where an input is not of a type that the float32 kernels serve: float32, float16 or bfloat16.
pub fn float32(facts: &Facts<'_>, fact: &Fact) -> Result<()> {
    match fact.dtype {
        DType::F32 | DType::F16 | DType::BF16 => Ok(()),
        other => Err(facts.unsupported(format!("'{}' is {other}: only floats up to 32 bits are supported", fact.name))),
    }
}

/// Fails where an input is not of a type that indices have: int32 or int64.
pub fn indices(facts: &Facts<'_>, fact: &Fact) -> Result<()> {
    match fact.dtype {
        DType::I32 | DType::I64 => Ok(()),
        other => Err(facts.invalid(format!("'{}' is {other}, int32 or int64 is expected", fact.name))),
    }
}

/// Fails where the shape of an input is not `shape`.
pub fn shape(facts: &Facts<'_>, fact: &Fact, shape: &[usize]) -> Result<()> {
    if fact.shape == shape {
        return Ok(());
    }
    Err(facts.invalid(format!("'{}' has shape {:?}, expected {shape:?}", fact.name, fact.shape)))
}

/// An attribute that is 0 or 1.
pub fn flag(facts: &Facts<'_>, name: &str, default: bool) -> Result<bool> {
    match facts.node.int(name, default.into())? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(facts.invalid(format!("attribute '{name}' is {other}, expected 0 or 1"))),
    }
}

/// A constant input of integers as a list; it must have rank 0 or 1.
pub fn constant_ints(facts: &Facts<'_>, i: usize) -> Result<Vec<i64>> {
    let tensor = facts.constant(i)?;
    if tensor.shape().len() > 1 {
        return Err(facts.invalid(format!("input {i} has rank {}, a list is expected", tensor.shape().len())));
    }
    tensor.to_i64().map_err(|e| e.at_node(&facts.node.name, &facts.node.op_type))
}

/// A list that is an attribute (`name`) before `opset` and input `i` from then on; `None` where left out.
pub fn ints_by_opset(facts: &Facts<'_>, name: &str, i: usize, opset: i64) -> Result<Option<Vec<i64>>> {
    if facts.opset < opset {
        if facts.optional(i).is_some() {
            return Err(facts.invalid(format!("input {i} ('{name}') exists from opset {opset} on")));
        }
        return Ok(facts.node.ints(name)?.map(<[i64]>::to_vec));
    }
    if facts.node.attributes.contains_key(name) {
        return Err(facts.invalid(format!("attribute '{name}' is input {i} from opset {opset} on")));
    }
    facts.optional(i).map(|_| constant_ints(facts, i)).transpose()
}
