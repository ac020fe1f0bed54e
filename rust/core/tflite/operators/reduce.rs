//! Reductions and operators on rows.

use super::super::import::{Attributes, Builder, Site};
use super::super::schema as s;
use super::elementwise::single;
use super::quantize::onnx_type;
use super::{fused, uniform};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// MEAN, SUM, REDUCE_MAX and REDUCE_MIN over the axes of operand 1.
pub fn reduce(b: &mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str) -> Result<()> {
    site.op.operands(2..=2)?;
    let keep = site.op.optional_options::<s::ReducerOptions<'_>>()?.is_some_and(|o| o.keep_dims());
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let given = b.tensor(site.op.input(1)?).integers()?;
    let mut axes = given.iter().map(|&a| b.axis(site, x, a)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    axes.dedup();
    if axes.is_empty() {
        return Err(Error::unsupported("reduce_axes", "a reduction over no axis"));
    }
    let axes = b.integers("axes", site, axes);
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    b.node(site, op_type, &[Some(x), Some(axes)], &[y]).set_int("keepdims", keep.into());
    Ok(())
}

/// SOFTMAX over the last axis.
pub fn softmax(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let beta = site.op.options::<s::SoftmaxOptions<'_>>()?.beta();
    if beta != 1.0 {
        return Err(Error::unsupported("softmax_beta", format!("a factor beta of {beta} before the exponential")));
    }
    rows(b, site, "Softmax")
}

/// An operator over the last axis.
pub fn rows(b: &mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str) -> Result<()> {
    single(b, site, op_type)?.set_int("axis", -1);
    Ok(())
}

/// L2_NORMALIZATION over the channels.
pub fn l2_normalization(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let activation = site.op.optional_options::<s::L2NormOptions<'_>>()?.map_or(0, |o| o.fused_activation_function());
    let axis = b.axis(site, site.op.input(0)?, -1)?;
    let clamp = fused(activation)?;
    single(b, site, "LpNormalization")?.set_int("axis", axis).set_int("p", 2).set_clamp(clamp);
    Ok(())
}

/// ARG_MAX and ARG_MIN: the first of equals, as int32 or int64.
pub fn arg(b: &mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str) -> Result<()> {
    site.op.operands(2..=2)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    let axis = match b.tensor(site.op.input(1)?).integers()?.as_slice() {
        [axis] => b.axis(site, x, *axis)?,
        other => return Err(Error::invalid("node_operand", format!("axes {other:?} instead of one"))),
    };
    let dtype = b.tensor(y).dtype;
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    let index = if dtype == DType::I64 { y } else { b.scratch(site, "int64", DType::I64) };
    b.node(site, op_type, &[Some(x)], &[index]).set_int("axis", axis).set_int("keepdims", 0);
    if index != y {
        let to = onnx_type(dtype)?;
        b.step("Cast", &[index], y).set_int("to", to);
    }
    Ok(())
}
