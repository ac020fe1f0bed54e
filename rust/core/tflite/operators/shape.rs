//! Operators that move elements or change shapes.

use super::super::import::{Attributes, Builder, Site};
use super::super::schema as s;
use super::quantize::onnx_type;
use super::{fused, uniform};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// CONCATENATION.
pub fn concat(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let o = site.op.options::<s::ConcatenationOptions<'_>>()?;
    let y = site.op.output()?;
    let axis = b.axis(site, y, o.axis().into())?;
    let parts = (0..site.op.inputs.len()).map(|i| site.op.input(i)).collect::<Result<Vec<_>>>()?;
    uniform(b, &[parts.as_slice(), &[y]].concat())?;
    let inputs = parts.into_iter().map(|t| b.read(site, t).map(Some)).collect::<Result<Vec<_>>>()?;
    let y = b.write(site, y);
    b.node(site, "Concat", &inputs, &[y]).set_int("axis", axis).set_clamp(fused(o.fused_activation_function())?);
    Ok(())
}

/// PAD (with zero), PADV2 (with a given value) and MIRROR_PAD.
pub fn pad(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=3)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let rank = b.tensor(x).rank();
    let amounts = b.tensor(site.op.input(1)?).integers()?;
    if amounts.len() != 2 * rank {
        return Err(Error::invalid("node_operand", format!("{} paddings for {rank} axes", amounts.len())));
    }
    let mut pads = vec![0; 2 * rank];
    for (axis, pair) in amounts.chunks_exact(2).enumerate() {
        let place = b.axis(site, x, axis as i64)? as usize;
        (pads[place], pads[rank + place]) = (pair[0], pair[1]);
    }
    let mode = match site.op.kind {
        "MIRROR_PAD" => match site.op.options::<s::MirrorPadOptions<'_>>()?.mode() {
            0 => "reflect",
            1 => return Err(Error::unsupported("pad_mode", "MIRROR_PAD in mode SYMMETRIC")),
            other => return Err(Error::invalid("node_options", format!("mode {other}"))),
        },
        _ => "constant",
    };
    let pads = b.integers("pads", site, pads);
    let mut inputs = vec![None, Some(pads)];
    if let Some(value) = site.op.optional(2) {
        inputs.push(Some(pad_value(b, site, x, value)?));
    }
    inputs[0] = Some(b.read(site, x)?);
    let y = b.write(site, y);
    b.node(site, "Pad", &inputs, &[y]).set_text("mode", mode);
    Ok(())
}

/// The scalar that pads: a real where the image holds codes.
fn pad_value(b: &mut Builder<'_, '_>, site: Site<'_, '_>, x: usize, value: usize) -> Result<crate::graph::TensorId> {
    let tensor = b.tensor(value);
    let values = tensor.values()?;
    if values.len() != 1 {
        return Err(Error::invalid("node_operand", format!("{} padding values", values.len())).at_tensor(&tensor.name));
    }
    if b.tensor(x).encoding.is_none() {
        let name = format!("{}_value", site.op.name);
        return b.add_constant(name, values.reshaped(Vec::new())?, None);
    }
    let (image, padding) = (b.tensor(x).encoding.as_ref(), tensor.encoding.as_ref());
    match (image, padding) {
        (Some(image), Some(padding)) if image.same_grid(padding) => {
            let code = values.to_i64()?[0];
            Ok(b.real("value", site, ((code - padding.zero_point[0]) as f64 * padding.scale[0]) as f32))
        }
        _ => Err(Error::unsupported("pad_value", "a padding on another grid than the image").at_tensor(&tensor.name)),
    }
}

/// A list of sizes: operand `i` where it is a constant, otherwise what the file says of the result.
fn wanted_shape(b: &Builder<'_, '_>, site: Site<'_, '_>, i: usize) -> Result<Option<Vec<i64>>> {
    match site.op.optional(i) {
        Some(t) if b.tensor(t).is_constant() => b.tensor(t).integers().map(Some),
        _ => Ok(None),
    }
}

/// RESHAPE to operand 1, or to the shape in the options. One that is computed is read by the node.
pub fn reshape(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(1..=2)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let options = site.op.optional_options::<s::ReshapeOptions<'_>>()?;
    let by_options = || options.and_then(|o| o.new_shape()).map(|v| v.iter().map(i64::from).collect::<Vec<_>>());
    let wanted = match (wanted_shape(b, site, 1)?, site.op.optional(1)) {
        (Some(wanted), _) => Some(wanted),
        (None, Some(_)) => None,
        (None, None) => Some(by_options().ok_or_else(|| Error::invalid("node_operand", "no shape is given"))?),
    };
    let zero = wanted.as_ref().is_some_and(|w| w.contains(&0));
    let shape = match wanted {
        Some(wanted) => b.integers("shape", site, wanted),
        None => wide_integers(b, site, site.op.input(1)?)?,
    };
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    let node = b.node(site, "Reshape", &[Some(x), Some(shape)], &[y]);
    if zero {
        node.set_int("allowzero", 1);
    }
    Ok(())
}

/// Computed integers as the int64 that ONNX's operators read.
fn wide_integers(b: &mut Builder<'_, '_>, site: Site<'_, '_>, t: usize) -> Result<crate::graph::TensorId> {
    let from = b.read(site, t)?;
    if b.tensor(t).dtype == DType::I64 {
        return Ok(from);
    }
    let to = b.scratch(site, "int64", DType::I64);
    let number = onnx_type(DType::I64)?;
    b.step("Cast", &[from], to).set_int("to", number);
    Ok(to)
}

/// SQUEEZE of the axes in the options; of all axes of size 1 where they name none.
pub fn squeeze(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(1..=1)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let given = site.op.optional_options::<s::SqueezeOptions<'_>>()?.and_then(|o| o.squeeze_dims());
    let given: Vec<i64> = given.iter().flatten().map(i64::from).collect();
    let axes = given.iter().map(|&a| b.axis(site, x, a)).collect::<Result<Vec<_>>>()?;
    let mut inputs = vec![Some(b.read(site, x)?)];
    if !axes.is_empty() {
        inputs.push(Some(b.integers("axes", site, axes)));
    }
    let y = b.write(site, y);
    b.node(site, "Squeeze", &inputs, &[y]);
    Ok(())
}

/// EXPAND_DIMS at the axis of operand 1.
pub fn expand_dims(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=2)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let axis = match b.tensor(site.op.input(1)?).integers()?.as_slice() {
        [axis] => b.axis(site, y, *axis)?,
        other => return Err(Error::invalid("node_operand", format!("axes {other:?} instead of one"))),
    };
    let axes = b.integers("axes", site, vec![axis]);
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    b.node(site, "Unsqueeze", &[Some(x), Some(axes)], &[y]);
    Ok(())
}

/// TRANSPOSE by operand 1.
pub fn transpose(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(2..=2)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let order = b.tensor(site.op.input(1)?).integers()?;
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    b.node(site, "Transpose", &[Some(x)], &[y]).set_ints("perm", order);
    Ok(())
}

/// PACK: each operand gets a dimension of 1, along which they are joined.
pub fn pack(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let o = site.op.options::<s::PackOptions<'_>>()?;
    let y = site.op.output()?;
    let axis = b.axis(site, y, o.axis().into())?;
    let axes = b.integers("axes", site, vec![axis]);
    let mut parts = Vec::new();
    for i in 0..site.op.inputs.len() {
        let t = site.op.input(i)?;
        uniform(b, &[t, y])?;
        let part = b.read(site, t)?;
        let raised = b.like(t, "unsqueezed", b.tensor(y).shape.clone());
        b.step("Unsqueeze", &[part, axes], raised);
        parts.push(Some(raised));
    }
    let y = b.write(site, y);
    b.node(site, "Concat", &parts, &[y]).set_int("axis", axis);
    Ok(())
}

/// UNPACK: parts of size 1 along an axis, without that axis.
pub fn unpack(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(1..=1)?;
    let o = site.op.options::<s::UnpackOptions<'_>>()?;
    let x = site.op.input(0)?;
    let axis = b.axis(site, x, o.axis().into())?;
    if usize::try_from(o.num()).ok() != Some(site.op.outputs.len()) {
        let message = format!("{} parts and {} results", o.num(), site.op.outputs.len());
        return Err(Error::invalid("node_outputs", message));
    }
    let axes = b.integers("axes", site, vec![axis]);
    let from = b.read(site, x)?;
    let shape = b.tensor(x).shape.clone();
    let parts: Vec<_> = site.op.outputs.iter().map(|&t| b.like(t, "unsqueezed", shape.clone())).collect();
    b.node(site, "Split", &[Some(from)], &parts).set_int("axis", axis).set_int("num_outputs", o.num().into());
    for (&t, part) in site.op.outputs.iter().zip(parts) {
        uniform(b, &[x, t])?;
        let y = b.write(site, t);
        b.step("Squeeze", &[part, axes], y);
    }
    Ok(())
}

/// TILE and BROADCAST_TO by operand 1.
pub fn repeat(b: &mut Builder<'_, '_>, site: Site<'_, '_>, op_type: &str) -> Result<()> {
    site.op.operands(2..=2)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    uniform(b, &[x, y])?;
    let sizes = b.tensor(site.op.input(1)?).integers()?;
    let sizes = b.integers("sizes", site, sizes);
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    b.node(site, op_type, &[Some(x), Some(sizes)], &[y]);
    Ok(())
}

/// SHAPE as int32 or int64.
pub fn shape(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(1..=1)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    let dtype = b.tensor(y).dtype;
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    let sizes = if dtype == DType::I64 { y } else { b.scratch(site, "int64", DType::I64) };
    b.node(site, "Shape", &[Some(x)], &[sizes]);
    if sizes != y {
        let to = onnx_type(dtype)?;
        b.step("Cast", &[sizes], y).set_int("to", to);
    }
    Ok(())
}
