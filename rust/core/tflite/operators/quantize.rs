//! QUANTIZE, DEQUANTIZE and CAST.

use super::super::import::{Attributes, Builder, Site};
use crate::error::{Error, Result};
use crate::graph::qdq;
use crate::tensor::DType;

/// QUANTIZE: of reals, or of codes to another grid. The quantizer of an input is the input's encoding.
pub fn quantize(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(1..=1)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    if b.tensor(y).encoding.is_none() {
        return Err(
            Error::invalid("node_operand", "the result of a quantizer has no scale").at_tensor(&b.tensor(y).name)
        );
    }
    let from_reals = b.tensor(x).encoding.is_none();
    if from_reals && b.tensor(x).dtype != DType::F32 {
        let message = format!("quantization of {} values", b.tensor(x).dtype);
        return Err(Error::unsupported("quantize_type", message));
    }
    if from_reals && b.file.inputs.contains(&x) && b.is_read_once(x) {
        b.quantize_input(x, y);
        return Ok(());
    }
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    let node = b.node(site, "Identity", &[Some(x)], &[y]);
    if from_reals {
        (node.domain, node.op_type) = (qdq::DOMAIN.into(), qdq::QUANTIZE.into());
    }
    Ok(())
}

/// DEQUANTIZE. The reals of a constant are a constant, those of an output are how the outside sees it.
pub fn dequantize(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    site.op.operands(1..=1)?;
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    let reals = b.tensor(y).dtype;
    if reals != DType::F32 || b.tensor(y).encoding.is_some() {
        return Err(Error::unsupported("dequantize_type", format!("dequantization to {reals} values")));
    }
    match (b.tensor(x).encoding.is_some(), b.tensor(x).dtype) {
        (true, _) => {}
        (false, DType::F16 | DType::BF16) => {
            let (x, y) = (b.read(site, x)?, b.write(site, y));
            b.node(site, "Cast", &[Some(x)], &[y]).set_int("to", onnx_type(DType::F32)?);
            return Ok(());
        }
        (false, other) => {
            let message = format!("dequantization of {other} values without a scale");
            return Err(Error::invalid("node_operand", message).at_tensor(&b.tensor(x).name));
        }
    }
    let unread = b.readers_of(y) == 0;
    if unread && b.file.outputs.contains(&y) && !b.tensor(x).is_constant() {
        b.dequantize_output(y, x);
        return Ok(());
    }
    let (x, y) = (b.read(site, x)?, b.write(site, y));
    let node = b.node(site, qdq::QUANTIZE, &[Some(x)], &[y]);
    node.domain = qdq::DOMAIN.into();
    Ok(())
}

/// CAST between plain numbers.
pub fn cast(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let (x, y) = (site.op.input(0)?, site.op.output()?);
    if let Some(coded) = [x, y].into_iter().find(|&t| b.tensor(t).encoding.is_some()) {
        return Err(Error::unsupported("op_quantized", "CAST of codes").at_tensor(&b.tensor(coded).name));
    }
    let to = onnx_type(b.tensor(y).dtype)?;
    super::elementwise::single(b, site, "Cast")?.set_int("to", to);
    Ok(())
}

/// ONNX's number of a type.
pub fn onnx_type(dtype: DType) -> Result<i64> {
    Ok(match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::BF16 => 16,
        other => return Err(Error::unsupported("cast_type", format!("values of type {other}"))),
    })
}
