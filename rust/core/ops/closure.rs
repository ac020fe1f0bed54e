//! Kernels made from closures, and checked access to their inputs.

use super::{Kernel, Outputs, RunContext};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

struct Closure<F>(F);

impl<F> Kernel for Closure<F>
where
    F: Fn(&RunContext<'_>, &[Option<&Tensor>]) -> Result<Outputs> + Send + Sync,
{
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        (self.0)(context, inputs)
    }
}

/// A kernel that calls `f`.
pub fn kernel<F>(f: F) -> Result<Box<dyn Kernel>>
where
    F: Fn(&RunContext<'_>, &[Option<&Tensor>]) -> Result<Outputs> + Send + Sync + 'static,
{
    Ok(Box::new(Closure(f)))
}

/// Input `i` of a run, which must be present.
pub fn input<'a>(inputs: &[Option<&'a Tensor>], i: usize) -> Result<&'a Tensor> {
    optional(inputs, i).ok_or_else(|| Error::invalid("run_input", format!("input {i} was not given")))
}

/// Input `i` of a run, where present.
pub fn optional<'a>(inputs: &[Option<&'a Tensor>], i: usize) -> Option<&'a Tensor> {
    inputs.get(i).copied().flatten()
}

/// Input `i` of a run, which must have the shape that the kernel was prepared for.
pub fn shaped<'a>(inputs: &[Option<&'a Tensor>], i: usize, shape: &[usize]) -> Result<&'a Tensor> {
    let tensor = input(inputs, i)?;
    if tensor.shape() != shape {
        return Err(Error::invalid(
            "run_shape",
            format!("input {i} has shape {:?}, the node was prepared for {shape:?}", tensor.shape()),
        ));
    }
    Ok(tensor)
}
