//! A case as a graph of one node.

use super::case::{Activation, Case, Operand};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Constant, Graph, Node, PARAMETER_PREFIX, Port, TensorInfo};
use crate::spec::Spec;
use crate::tensor::{DType, Data, Tensor, element_count};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Roles of operands that say how the runtime's multipliers came out, or repeat ratios of scales: a target derives its own
/// from the encodings.
const DERIVED: [&str; 3] = ["multiplier", "shift", "chan_scale"];

/// The graph and the values of its inputs. Of what the case says about the runtime's decisions, the spec's parameters are kept.
pub fn build(case: &Case, arrays: &BTreeMap<String, Tensor>, spec: &Spec) -> Result<(Graph, Vec<(String, Tensor)>)> {
    let mut graph = Graph { name: case.id.clone(), ..Graph::default() };
    graph.opsets.insert(String::new(), 17);
    graph.opsets.insert("nputwin".into(), 1);
    let fault = |text: &str| Error::invalid("vector_operand", text);
    let mut feeds = Vec::new();
    let mut inputs = Vec::new();
    let read = |o: &&Operand| !o.role.starts_with("lut") && !DERIVED.contains(&o.role.as_str());
    for operand in case.inputs.iter().filter(read) {
        let value = &arrays[&operand.array];
        if operand.role == "table" {
            let constant = Some(value.clone().into());
            let info = TensorInfo { name: operand.role.clone(), constant, ..TensorInfo::default() };
            inputs.push(Some(graph.add_tensor(info)));
            continue;
        }
        if case.op == "PRelu" && operand.role == "in1" && operand.scale.is_none() {
            inputs.push(Some(graph.add_tensor(float_parameter(&operand.role, value)?)));
            continue;
        }
        let encoding = encoding(operand)?.or(bare_codes(case, operand)?);
        let is_constant = matches!(operand.role.as_str(), "w" | "b");
        let info = TensorInfo {
            name: operand.role.clone(),
            dtype: Some(DType::F32),
            constant: is_constant.then(|| reals(value, encoding.as_ref())).transpose()?.map(Constant::from),
            codes: is_constant.then(|| Arc::new(value.clone())),
            encoding: encoding.clone().map(Arc::new),
            ..TensorInfo::default()
        };
        let id = graph.add_tensor(info);
        inputs.push(Some(id));
        if !is_constant {
            graph.inputs.push(Port { name: operand.role.clone(), tensor: id, quantized: encoding.is_some() });
            feeds.push((operand.role.clone(), value.clone()));
        }
    }
    if case.kernel_variant.as_deref().is_some_and(|v| v.contains("int32 bias")) && !has_bias(case) {
        // The runtime's type of bias decides the kernel even where there is none: a bias of zeros states it.
        let channels = case.outputs.first().and_then(|o| o.shape.get(1)).copied().unwrap_or_default();
        element_count(&[channels])?;
        let zeros = Tensor::new(vec![channels], Data::I32(vec![0; channels]))?;
        inputs.push(Some(graph.add_tensor(TensorInfo {
            name: "b".into(),
            constant: Some(Tensor::f32(&[channels], vec![0.0; channels]).into()),
            codes: Some(Arc::new(zeros)),
            ..TensorInfo::default()
        })));
    }
    let first = inputs.first().copied().flatten().ok_or_else(|| fault("the case has no input"))?;
    let result = case.output()?;
    let y_encoding = encoding(result)?.or(bare_codes(case, result)?);
    match case.op.as_str() {
        "QuantizeLinear" => {
            graph.tensors[first].encoding = y_encoding.map(Arc::new);
            graph.outputs.push(Port { name: "out".into(), tensor: first, quantized: true });
            return Ok((graph, feeds));
        }
        "DequantizeLinear" => {
            graph.outputs.push(Port { name: "out".into(), tensor: first, quantized: false });
            return Ok((graph, feeds));
        }
        _ => {}
    }
    let y = graph.add_tensor(TensorInfo {
        name: "out".into(),
        dtype: Some(DType::F32),
        encoding: y_encoding.clone().map(Arc::new),
        ..TensorInfo::default()
    });
    let mut node = Node {
        name: case.id.clone(),
        op_type: case.op.clone(),
        inputs,
        outputs: vec![Some(y)],
        attributes: attributes(case)?,
        ..Node::default()
    };
    for (name, parameter) in &spec.parameters {
        let decided = case.kernel_params.as_ref().and_then(|p| p.get(name));
        let Some(value) = decided.or_else(|| case.attributes.get(name)) else { continue };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let known = parameter.one_of.iter().find(|v| v.eq_ignore_ascii_case(&value));
        let stated = Attribute::String(known.cloned().unwrap_or(value));
        node.attributes.insert(format!("{PARAMETER_PREFIX}{name}"), stated);
    }
    match case.op.as_str() {
        // A target with parameters has an operator to state them on.
        "Requantize" if !spec.parameters.is_empty() => node.domain = "nputwin".into(),
        "Requantize" => node.op_type = "Identity".into(),
        "LUT" => (node.op_type, node.domain) = ("LookUp".into(), "nputwin".into()),
        _ => {}
    }
    if case.op == "Clip" {
        // Bounds became inputs in opset 11.
        for bound in ["min", "max"] {
            let value = match node.attributes.remove(bound) {
                Some(Attribute::Float(v)) => Some(v),
                Some(Attribute::Int(v)) => Some(v as f32),
                Some(_) => return Err(fault(&format!("attribute {bound} is no number"))),
                None => None,
            };
            let id = value.map(|v| {
                let constant = Some(Tensor::f32(&[], vec![v]).into());
                graph.add_tensor(TensorInfo { name: bound.into(), constant, ..TensorInfo::default() })
            });
            node.inputs.push(id);
        }
    }
    if case.op == "Resize" {
        // Sizes of the spatial axes become the input that ONNX has for them.
        if let Some(sizes) = node.attributes.remove("sizes") {
            let Attribute::Ints(spatial) = sizes else { return Err(fault("attribute sizes is no list of integers")) };
            let outer = case.inputs[0].shape.get(..2).ok_or_else(|| fault("the input has no spatial axes"))?;
            let mut sizes: Vec<i64> = outer.iter().map(|&d| d as i64).collect();
            sizes.extend(spatial);
            let tensor = Tensor::i64(&[sizes.len()], sizes).into();
            let id =
                graph.add_tensor(TensorInfo { name: "sizes".into(), constant: Some(tensor), ..TensorInfo::default() });
            node.inputs.extend([None, None, Some(id)]);
        }
    }
    if let Some(activation) = &case.activation {
        node.code_clamp = code_clamp(activation, y_encoding.as_ref())?;
    }
    graph.nodes.push(node);
    graph.outputs.push(Port { name: "out".into(), tensor: y, quantized: y_encoding.is_some() });
    Ok((graph, feeds))
}

/// The bounds of a fused activation, where they are narrower than the output's grid.
fn code_clamp(activation: &Activation, output: Option<&Encoding>) -> Result<Option<(i64, i64)>> {
    let fault = |text: &str| Err(Error::invalid("vector_activation", text));
    let is_fused = activation.kind.as_deref().is_some_and(|kind| kind != "none");
    match (activation.qmin, activation.qmax, output) {
        (None, None, _) => match activation.by.as_deref() {
            Some("output_range") => Ok(None),
            Some(other) => fault(&format!("the activation is applied by '{other}': 'output_range' is understood")),
            None if is_fused => fault("the activation has neither qmin nor qmax"),
            None => Ok(None),
        },
        (_, _, None) => fault("the activation has bounds in codes, and the output holds reals"),
        (lo, hi, Some(encoding)) => {
            let whole = (encoding.qmin(), encoding.qmax());
            let bounds = (lo.unwrap_or(whole.0), hi.unwrap_or(whole.1));
            Ok(Some(bounds).filter(|b| *b != whole))
        }
    }
}

/// Float32 values as codes -1, 0 and 1 whose scales are their magnitudes: an encoding that stands for exactly them.
fn float_parameter(name: &str, values: &Tensor) -> Result<TensorInfo> {
    let reals = values.as_f32()?;
    let axis = values.shape().iter().position(|&d| d == reals.len()).unwrap_or(0);
    let codes = reals.iter().map(|&v| if v > 0.0 { 1 } else { -i8::from(v < 0.0) }).collect();
    let encoding = Encoding {
        scale: reals.iter().map(|&v| if v == 0.0 { 1.0 } else { f64::from(v.abs()) }).collect(),
        zero_point: vec![0; reals.len()],
        bitwidth: 8,
        signed: true,
        symmetric: true,
        narrow_range: false,
        granularity: if reals.len() == 1 { Granularity::PerTensor } else { Granularity::PerChannel { axis } },
        lpbq: None,
    };
    encoding.validate().map_err(|e| e.at_tensor(name))?;
    Ok(TensorInfo {
        name: name.into(),
        dtype: Some(DType::F32),
        constant: Some(values.clone().into()),
        codes: Some(Arc::new(Tensor::new(values.shape().to_vec(), Data::I8(codes))?)),
        encoding: Some(Arc::new(encoding)),
        ..TensorInfo::default()
    })
}

fn has_bias(case: &Case) -> bool {
    case.inputs.iter().any(|o| o.role == "b")
}

fn encoding(operand: &Operand) -> Result<Option<Encoding>> {
    let (signed, bitwidth) = match operand.dtype.as_str() {
        "float32" => return Ok(None),
        "int4" => (true, 4),
        "int8" => (true, 8),
        "uint8" => (false, 8),
        "int16" => (true, 16),
        "uint16" => (false, 16),
        "int32" => (true, 32),
        "int64" => (true, if operand.role.starts_with("in") { 48 } else { 32 }),
        other => return Err(Error::unsupported("vector_dtype", format!("operand of type {other}"))),
    };
    if let Some(axis) = operand.axis.filter(|&axis| axis >= operand.shape.len()) {
        let message = format!("axis {axis} of shape {:?}", operand.shape);
        return Err(Error::invalid("vector_operand", message).at_tensor(&operand.role));
    }
    let Some(scales) = operand.scale.as_ref().filter(|s| !s.is_empty()) else { return Ok(None) };
    let scale: Vec<f64> = scales
        .iter()
        .map(|s| s.parse().map_err(|_| Error::invalid("vector_scale", format!("scale '{s}'"))))
        .collect::<Result<_>>()?;
    let zero_point = operand.zero_point.clone().unwrap_or_default();
    let zero_point = match zero_point.len() {
        0 => vec![0; scale.len()],
        1 => vec![zero_point[0]; scale.len()],
        _ => zero_point,
    };
    let granularity = match (scale.len(), operand.axis) {
        (1, None) => Granularity::PerTensor,
        (_, axis) => Granularity::PerChannel { axis: axis.unwrap_or(0) },
    };
    let encoding = Encoding {
        scale,
        zero_point,
        bitwidth,
        signed,
        symmetric: false,
        narrow_range: false,
        granularity,
        lpbq: None,
    };
    encoding.validate().map_err(|e| e.at_tensor(&operand.role))?;
    Ok(Some(encoding))
}

/// The encoding of codes that a table maps, for which a case names no scale: they count themselves.
fn bare_codes(case: &Case, operand: &Operand) -> Result<Option<Encoding>> {
    if case.op != "LUT" {
        return Ok(None);
    }
    encoding(&Operand { scale: Some(vec!["1".into()]), ..operand.clone() })
}

/// Attributes in ONNX's terms; an encoding change and a table have none.
fn attributes(case: &Case) -> Result<BTreeMap<String, Attribute>> {
    if matches!(case.op.as_str(), "Requantize" | "LUT") {
        return Ok(BTreeMap::new());
    }
    case.attributes.iter().map(|(k, v)| Ok((k.clone(), attribute(k, v)?))).collect()
}

/// Reals that the codes of a constant stand for; kernels on codes never read them.
fn reals(codes: &Tensor, encoding: Option<&Encoding>) -> Result<Tensor> {
    let scale = encoding.map_or(1.0, |e| e.scale[0]);
    Ok(Tensor::f32(codes.shape(), codes.to_f64().iter().map(|q| (q * scale) as f32).collect()))
}

fn attribute(key: &str, value: &serde_json::Value) -> Result<Attribute> {
    let fault = || Error::unsupported("vector_attribute", format!("attribute {key} = {value}"));
    Ok(match value {
        serde_json::Value::Number(n) if n.is_i64() => Attribute::Int(n.as_i64().ok_or_else(fault)?),
        serde_json::Value::Number(n) if n.is_u64() => return Err(fault()),
        serde_json::Value::Number(n) => Attribute::Float(n.as_f64().ok_or_else(fault)? as f32),
        serde_json::Value::String(s) => Attribute::String(s.clone()),
        serde_json::Value::Array(v) => {
            Attribute::Ints(v.iter().map(|v| v.as_i64().ok_or_else(fault)).collect::<Result<_>>()?)
        }
        _ => return Err(fault()),
    })
}
