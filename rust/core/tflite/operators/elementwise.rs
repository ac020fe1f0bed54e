//! Operators that compute each element by itself.

use super::super::import::{Attributes, Builder, Site, TO_FRONT};
use super::super::schema as s;
use super::{fused, uniform};
use crate::error::{Error, Result};
use crate::graph::{Node, TensorId};
use crate::tensor::DType;

/// Adds a node with one operand.
pub fn single<'b>(b: &'b mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str) -> Result<&'b mut Node> {
    site.op.operands(1..=1)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    Ok(b.node(site, op_type, &[Some(x)], &[y]))
}

/// An operator that is ONNX's.
pub fn unary(b: &mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str) -> Result<()> {
    single(b, site, op_type).map(|_| ())
}

/// RELU6 and its kin.
pub fn clip(b: &mut Builder<'_, '_>, site: Site<'_, '_>, lo: f32, hi: f32) -> Result<()> {
    let (lo, hi) = (b.real("min", site, lo), b.real("max", site, hi));
    single(b, site, "Clip")?.inputs.extend([Some(lo), Some(hi)]);
    Ok(())
}

/// LEAKY_RELU.
pub fn leaky(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let alpha = site.op.options::<s::LeakyReluOptions<'_>>()?.alpha();
    single(b, site, "LeakyRelu")?.set_float("alpha", alpha);
    Ok(())
}

/// GELU, exact or with tanh.
pub fn gelu(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let approximate = site.op.optional_options::<s::GeluOptions<'_>>()?.is_some_and(|o| o.approximate());
    single(b, site, "Gelu")?.set_text("approximate", if approximate { "tanh" } else { "none" });
    Ok(())
}

/// An operand that is broadcast: where the result has its channels in front, so has a constant, with dimensions of 1 added.
fn operand(b: &mut Builder<'_, '_>, site: Site<'_, '_>, t: usize, y: usize) -> Result<TensorId> {
    let tensor = b.tensor(t);
    let rank = tensor.rank();
    match tensor.is_constant() && b.reads_front(site, y) && (1..=4).contains(&rank) {
        true => b.constant(t, 4 - rank, &TO_FRONT),
        false => b.read(site, t),
    }
}

/// An operator with two operands.
pub fn binary(b: &mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str, activation: Option<i8>) -> Result<()> {
    site.op.operands(2..=2)?;
    let (p, q, y) = (site.op.input(0)?, site.op.input(1)?, site.op.output()?);
    uniform(b, &[p, q, y])?;
    let clamp = activation.map_or(Ok(None), fused)?;
    let inputs = [Some(operand(b, site, p, y)?), Some(operand(b, site, q, y)?)];
    let y = b.write(site, y);
    b.node(site, op_type, &inputs, &[y]).set_clamp(clamp);
    Ok(())
}

/// Fails for sums of int16 codes whose scales are powers of two, where the options leave them to a kernel of shifts.
pub fn shifted_scales(b: &Builder<'_, '_>, site: Site<'_, '_>, shifts: bool) -> Result<()> {
    let power = |t: &usize| {
        let encoding = b.tensor(*t).encoding.as_ref();
        encoding.is_some_and(|e| e.bitwidth == 16 && e.scale.iter().all(|s| libm::frexp(*s).0 == 0.5))
    };
    let mut tensors = site.op.inputs.iter().flatten().chain(&site.op.outputs);
    match shifts && tensors.all(power) {
        true => Err(Error::unsupported("pot_scale_int16", "sums of int16 codes by shifts (pot_scale_int16)")),
        false => Ok(()),
    }
}

/// SQUARE: a product with itself.
pub fn square(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let x = {
        let t = site.op.input(0)?;
        in_reals(b, site, t)?;
        b.read(site, t)?
    };
    single(b, site, "Mul")?.inputs.push(Some(x));
    Ok(())
}

/// SQUARED_DIFFERENCE of reals: a difference, and a product with itself.
pub fn squared_difference(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=2)?;
    let (p, q, y) = (site.op.input(0)?, site.op.input(1)?, site.op.output()?);
    in_reals(b, site, p)?;
    uniform(b, &[p, q, y])?;
    let dtype = b.tensor(y).dtype;
    let inputs = [operand(b, site, p, y)?, operand(b, site, q, y)?];
    let difference = b.scratch(site, "difference", dtype);
    b.step("Sub", &inputs, difference);
    let y = b.write(site, y);
    b.node(site, "Mul", &[Some(difference), Some(difference)], &[y]);
    Ok(())
}

/// RSQRT of reals: the reciprocal of a root.
pub fn inverse_root(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(1..=1)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    in_reals(b, site, x)?;
    uniform(b, &[x, y])?;
    let x = b.read(site, x)?;
    let root = b.scratch(site, "root", DType::F32);
    b.step("Sqrt", &[x], root);
    let y = b.write(site, y);
    b.node(site, "Reciprocal", &[Some(root)], &[y]);
    Ok(())
}

/// Fails for codes: one kernel of the runtime cannot be told from two nodes.
fn in_reals(b: &Builder<'_, '_>, site: Site<'_, '_>, t: usize) -> Result<()> {
    match b.tensor(t).encoding {
        Some(_) => Err(Error::unsupported("op_quantized", format!("{} on codes has no ONNX operator", site.op.kind))),
        None => Ok(()),
    }
}
