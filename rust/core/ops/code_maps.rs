//! Operators of the domain `nputwin` that map codes to codes: what a quantized file says outside ONNX's float operators.

use super::closure::{input, kernel};
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::Result;

/// `Requantize`: the same reals in the output's encoding. In float it is the identity.
pub struct Requantize;

impl Op for Requantize {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &[])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        kernel(|_, inputs| Ok([input(inputs, 0)?.clone()].into()))
    }
}

/// `LookUp`: a function given by a constant table of codes (input 1), which the target's rule indexes and may interpolate.
pub struct LookUp;

impl Op for LookUp {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &[])?;
        let (x, table) = (facts.input(0)?, facts.input(1)?);
        signature::float(facts, x)?;
        if table.dtype.is_float() || table.shape.len() != 1 || table.shape[0] == 0 {
            return Err(facts.invalid(format!(
                "the table '{}' is {} of shape {:?}, a list of integers is expected",
                table.name, table.dtype, table.shape
            )));
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        Err(facts.unsupported("a table of codes has no meaning in float"))
    }
}
