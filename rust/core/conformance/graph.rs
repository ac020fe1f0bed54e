//! A case as a graph of one node.

use super::case::{Activation, Case, Operand};
use crate::encoding::{Encoding, Granularity, ScaleIndex};
use crate::error::{Error, Result};
use crate::graph::parameters::code_type;
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
            codes: is_constant.then(|| value.clone().into()),
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
        let zeros = Tensor::new(vec![channels], Data::I32(vec![0; channels].into()))?;
        inputs.push(Some(graph.add_tensor(TensorInfo {
            name: "b".into(),
            constant: Some(Tensor::f32(&[channels], vec![0.0; channels]).into()),
            codes: Some(zeros.into()),
            ..TensorInfo::default()
        })));
    }
    let is_ours = matches!(case.op.as_str(), "QuantizeLinear" | "DequantizeLinear" | "Requantize" | "LUT");
    if is_ours && !case.domain.is_empty() {
        return Err(Error::unsupported("vector_domain", format!("{} of domain '{}'", case.op, case.domain)));
    }
    let first = inputs.first().copied().flatten().ok_or_else(|| fault("the case has no input"))?;
    let result = case.output()?;
    let y_encoding = encoding(result)?.or(bare_codes(case, result)?);
    match case.op.as_str() {
        "QuantizeLinear" => {
            check_axis(case, result)?;
            graph.tensors[first].encoding = y_encoding.map(Arc::new);
            graph.outputs.push(Port { name: "out".into(), tensor: first, quantized: true });
            return Ok((graph, feeds));
        }
        "DequantizeLinear" => {
            check_axis(case, &case.inputs[0])?;
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
        domain: case.domain.clone(),
        inputs,
        outputs: vec![Some(y)],
        attributes: attributes(case, spec)?,
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
        codes: Some(Tensor::new(values.shape(), Data::I8(codes))?.into()),
        encoding: Some(Arc::new(encoding)),
        ..TensorInfo::default()
    })
}

fn has_bias(case: &Case) -> bool {
    case.inputs.iter().any(|o| o.role == "b")
}

fn encoding(operand: &Operand) -> Result<Option<Encoding>> {
    let unsupported = |text: String| Err(Error::unsupported("vector_dtype", text).at_tensor(&operand.role));
    let (held, signed) = match DType::from_name(&operand.dtype) {
        Some(DType::F32) => return Ok(None),
        // Biases of 64 bits hold sums of 32.
        Some(DType::I64) if operand.accumulator_bits.is_some() || operand.role == "b" => (64, true),
        Some(DType::I64) => return unsupported("codes of type int64 without accumulator_bits".into()),
        dtype => match dtype.and_then(code_type) {
            Some(code) => code,
            None => return unsupported(format!("operand of type {}", operand.dtype)),
        },
    };
    let bitwidth = operand.accumulator_bits.unwrap_or(if held == 64 { 32 } else { held });
    if bitwidth == 0 || bitwidth > held {
        let message = format!("accumulator_bits = {bitwidth} of {} codes", operand.dtype);
        return Err(Error::invalid("vector_operand", message).at_tensor(&operand.role));
    }
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
    let mut counted = operand.clone();
    counted.scale = Some(vec!["1".into()]);
    encoding(&counted)
}

/// Attributes in ONNX's terms. Those that are parameters of the target stand apart; an encoding change and a table have none
/// besides what their operands say too.
fn attributes(case: &Case, spec: &Spec) -> Result<BTreeMap<String, Attribute>> {
    let mut out = BTreeMap::new();
    for (key, value) in case.attributes.iter().filter(|(key, _)| !spec.parameters.contains_key(*key)) {
        let refuse = |text: &str| {
            let text = format!("attribute {key} = {value} of {}: {text}", case.op);
            Error::unsupported("vector_attribute", text)
        };
        let is_repeated = match (case.op.as_str(), key.as_str()) {
            ("Requantize", "per_channel") => {
                let scales = case.inputs.first().and_then(|o| o.scale.as_ref()).map_or(0, Vec::len);
                value.as_bool().ok_or_else(|| refuse("it is true or false"))? == (scales > 1)
            }
            ("LUT", "interpolation") => {
                let table = case.inputs.iter().find(|o| o.role == "table");
                let samples = table.map_or(0, |t| t.shape.iter().product::<usize>());
                // A table of 2^k + 1 samples has segments between them; one of 2^k has an entry for each code.
                let is_linear = value.as_str().is_some_and(|text| text.starts_with("linear"));
                is_linear && samples.checked_sub(1).is_some_and(usize::is_power_of_two)
            }
            ("Requantize" | "LUT", _) => return Err(refuse("the target has no parameter of that name")),
            _ => {
                out.insert(key.clone(), attribute(key, value)?);
                true
            }
        };
        if !is_repeated {
            return Err(refuse("the operands say something else"));
        }
    }
    Ok(out)
}

/// A quantizing operator's attributes repeat the axis of the encoding.
fn check_axis(case: &Case, quantized: &Operand) -> Result<()> {
    for (key, value) in &case.attributes {
        let rank = i64::try_from(quantized.shape.len()).unwrap_or(i64::MAX);
        let axis = value.as_i64().filter(|_| key == "axis").map(|axis| if axis < 0 { axis + rank } else { axis });
        let is_repeated = match (axis, quantized.axis) {
            (Some(axis), Some(own)) => usize::try_from(axis) == Ok(own),
            // ONNX ignores the axis of a single scale.
            (axis, None) => axis.is_some() && quantized.scale.as_ref().is_none_or(|s| s.len() < 2),
            (None, _) => false,
        };
        if !is_repeated {
            let text = format!("attribute {key} = {value} of {}: the encoding says something else", case.op);
            return Err(Error::unsupported("vector_attribute", text).at_tensor(&quantized.role));
        }
    }
    Ok(())
}

/// Reals that the codes of a constant stand for, which count themselves without an encoding.
fn reals(codes: &Tensor, encoding: Option<&Encoding>) -> Result<Tensor> {
    let mut reals = codes.to_f64();
    if let Some(encoding) = encoding {
        ScaleIndex::new(encoding, codes.shape())?.for_each_run(codes.len(), |range, i| {
            let (scale, zero_point) = (encoding.scale[i], encoding.zero_point[i] as f64);
            reals[range].iter_mut().for_each(|q| *q = (*q - zero_point) * scale);
        });
    }
    Ok(Tensor::f32(codes.shape(), reals.into_iter().map(|v| v as f32).collect()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn case(op: &str, attributes: &Value) -> Case {
        let operand = |role: &str, scale: Value| {
            json!({
                "role": role, "array": role, "dtype": "int8", "shape": [2, 2],
                "scale": scale, "zero_point": [0], "axis": null,
            })
        };
        let mut table = operand("table", Value::Null);
        table["shape"] = json!([3]);
        let case = json!({
            "id": "mine/0", "file": "mine.npz", "op": op, "attributes": attributes,
            "inputs": [operand("in0", json!(["0.5"])), table], "outputs": [operand("out", json!(["0.5"]))],
        });
        serde_json::from_value(case).unwrap()
    }

    fn build_under(target: &str, case: &Case) -> Result<Node> {
        let arrays = [("in0", 2), ("table", 3)].map(|(name, count)| {
            let shape = if name == "in0" { vec![2, count] } else { vec![count] };
            let data = vec![0; shape.iter().product()];
            (name.to_string(), Tensor::new(shape, Data::I8(data.into())).unwrap())
        });
        let (graph, _) = build(case, &BTreeMap::from(arrays), &Spec::load(target)?)?;
        Ok(graph.nodes[0].clone())
    }

    #[test]
    fn each_channel_of_a_constant_has_its_own_scale_and_zero_point() {
        let codes = Tensor::new(vec![2, 2], Data::U8(vec![1, 2, 3, 4].into())).unwrap();
        let mut encoding = Encoding::per_tensor(0.5, 1, 8, false).unwrap();
        (encoding.scale, encoding.zero_point) = (vec![0.5, 0.25], vec![1, 2]);
        for (axis, expected) in [(0, [0.0, 0.5, 0.25, 0.5]), (1, [0.0, 0.0, 1.0, 0.5])] {
            encoding.granularity = Granularity::PerChannel { axis };
            assert_eq!(reals(&codes, Some(&encoding)).unwrap(), Tensor::f32(&[2, 2], expected.to_vec()));
        }
    }

    #[test]
    fn an_encoding_change_states_parameters_of_the_target_only() {
        let stated = json!({ "rounding_mode": "SINGLE", "per_channel": false });
        let node = build_under("tosa", &case("Requantize", &stated)).unwrap();
        let key = format!("{PARAMETER_PREFIX}rounding_mode");
        assert_eq!(node.attributes.get(&key), Some(&Attribute::String("SINGLE".into())));
        assert_eq!(node.attributes.len(), 1, "{:?}", node.attributes);
        for (target, attributes, part) in [
            ("tflite_micro", &stated, "rounding_mode"),
            ("tosa", &json!({ "speed": 1 }), "speed"),
            ("tosa", &json!({ "per_channel": true }), "per_channel"),
            ("tosa", &json!({ "per_channel": 0 }), "true or false"),
        ] {
            let error = build_under(target, &case("Requantize", attributes)).unwrap_err();
            assert!(error.code() == "vector_attribute" && error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn a_table_is_interpolated_where_it_has_segments() {
        assert!(build_under("tosa", &case("LUT", &json!({ "interpolation": "linear" }))).is_ok());
        let whole = |shape: Value| {
            let mut case = case("LUT", &json!({ "interpolation": "linear" }));
            case.inputs[1].shape = serde_json::from_value(shape).unwrap();
            build_under("tosa", &case).unwrap_err()
        };
        assert_eq!(whole(json!([256])).code(), "vector_attribute");
        let cubic = build_under("tosa", &case("LUT", &json!({ "interpolation": "cubic" }))).unwrap_err();
        assert_eq!(cubic.code(), "vector_attribute");
    }

    #[test]
    fn the_axis_of_a_quantizing_operator_is_that_of_the_encoding() {
        let axes = |attribute: i64, own: Option<usize>| {
            let mut case = case("QuantizeLinear", &json!({ "axis": attribute }));
            case.outputs[0].axis = own;
            case.outputs[0].scale = Some(vec!["0.5".into(); own.map_or(1, |_| 2)]);
            check_axis(&case, &case.outputs[0])
        };
        assert!(axes(1, Some(1)).is_ok() && axes(-1, Some(1)).is_ok() && axes(1, None).is_ok());
        assert!(axes(0, Some(1)).is_err());
        let blocks = case("QuantizeLinear", &json!({ "block_size": 2 }));
        assert!(check_axis(&blocks, &blocks.outputs[0]).is_err());
    }
}
