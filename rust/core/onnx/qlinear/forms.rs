//! Which operators run on codes, and how their QLinear forms lay out operands, scales and zero points.

use super::super::attributes;
use super::super::proto::AttributeProto;
use super::super::write::MICROSOFT;
use super::QlinearWriter;
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::graph::movement::Movement;
use crate::graph::{Attribute, Node, TensorId, parameters};
use crate::tensor::{DType, Data, Tensor};
use std::collections::BTreeMap;

/// A QLinear operator.
struct Form {
    op_type: &'static str,
    domain: &'static str,
    /// Inputs of the float operator that hold codes.
    operands: std::ops::Range<usize>,
    /// Input of the float operator that is a bias.
    bias: Option<usize>,
    /// Attributes of the float operator that the form has too.
    attributes: &'static [&'static str],
    /// Whether all operands and the result have one type.
    one_type: bool,
}

fn form(node: &Node) -> Option<Form> {
    if !node.domain.is_empty() {
        return None;
    }
    const CONV: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    const POOL: &[&str] = &["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"];
    let of = |op_type, domain, operands, bias, attributes| {
        Some(Form { op_type, domain, operands, bias, attributes, one_type: domain == MICROSOFT })
    };
    match node.op_type.as_str() {
        "Conv" => of("QLinearConv", "", 0..2, Some(2), CONV),
        "MatMul" => of("QLinearMatMul", "", 0..2, None, &[]),
        "Gemm" => {
            let form = of("QGemm", MICROSOFT, 0..2, Some(2), &["alpha", "beta", "transA", "transB"])?;
            Some(Form { one_type: false, ..form })
        }
        "Add" => of("QLinearAdd", MICROSOFT, 0..2, None, &[]),
        "Mul" => of("QLinearMul", MICROSOFT, 0..2, None, &[]),
        "Sigmoid" => of("QLinearSigmoid", MICROSOFT, 0..1, None, &[]),
        "LeakyRelu" => of("QLinearLeakyRelu", MICROSOFT, 0..1, None, &["alpha"]),
        "Softmax" => of("QLinearSoftmax", MICROSOFT, 0..1, None, &["axis"]),
        "AveragePool" if !node.attributes.contains_key("dilations") => {
            of("QLinearAveragePool", MICROSOFT, 0..1, None, POOL)
        }
        "GlobalAveragePool" => of("QLinearGlobalAveragePool", MICROSOFT, 0..1, None, &[]),
        "Concat" => of("QLinearConcat", MICROSOFT, 0..node.inputs.len(), None, &["axis"]),
        _ => None,
    }
}

impl QlinearWriter<'_> {
    /// Writes the QLinear form of a node; false where it has none, or where an operand or the result is not quantized.
    pub(super) fn on_codes(&mut self, node: &Node) -> Result<bool> {
        let Some(form) = form(node) else { return Ok(false) };
        let operands: Option<Vec<TensorId>> =
            form.operands.clone().map(|i| node.inputs.get(i).copied().flatten()).collect();
        let (Some(operands), [Some(y)]) = (operands, node.outputs.as_slice()) else { return Ok(false) };
        let absorbed = self.redundant_clamp(*y);
        let result = absorbed.map_or(*y, |(_, result)| result);
        let encodings: Option<Vec<&Encoding>> =
            operands.iter().chain([&result]).map(|&t| self.encoding(t).filter(|_| self.is_f32(t))).collect();
        let Some(encodings) = encodings else { return Ok(false) };
        let bias = form.bias.and_then(|slot| node.inputs.get(slot).copied().flatten());
        if bias.is_some_and(|t| self.graph.tensors[t].constant.is_none()) {
            return Ok(false);
        }
        node.check_attributes(form.attributes)?;
        for (i, (&t, encoding)) in operands.iter().chain([&result]).zip(&encodings).enumerate() {
            let axis = if i == 1 { self.channel_axis(node, t)? } else { None };
            expressible(form.op_type, &self.graph.tensors[t].name, encoding, axis)?;
            let narrow = encoding.narrow_range && self.graph.tensors[t].constant.is_none();
            if narrow {
                let message = "QLinear operators cannot leave out the lowest code";
                return Err(Error::unsupported("write_narrow_range", message).at_tensor(&self.graph.tensors[t].name));
            }
        }
        if form.one_type && encodings.iter().any(|e| e.signed != encodings[0].signed) {
            return Ok(false);
        }
        if form.op_type == "QLinearConcat" && encodings.iter().all(|e| e.same_grid(encodings[0])) {
            return Ok(false);
        }
        let attribute = self.attributes(node)?;
        let mut groups = Vec::new();
        for &t in &operands {
            groups.push(self.triple(t)?);
        }
        let [scale, zero_point] = self.grid(result)?;
        let name = self.name_codes(result);
        let mut input: Vec<String> = groups.into_iter().flatten().collect();
        match form.op_type {
            "QLinearConcat" => input = [scale, zero_point].into_iter().chain(input).collect(),
            "QGemm" => {
                let alpha = f64::from(node.float("alpha", 1.0)?);
                if bias.is_some() && node.float("beta", 1.0)? != 1.0 {
                    return Err(Error::unsupported("write_qlinear", "QGemm has no beta"));
                }
                input.push(match bias {
                    Some(bias) => self.bias(bias, &unit(encodings[0], encodings[1], alpha))?,
                    None => String::new(),
                });
                input.extend([scale, zero_point]);
            }
            _ => {
                input.extend([scale, zero_point]);
                if let Some(bias) = bias {
                    input.push(self.bias(bias, &unit(encodings[0], encodings[1], 1.0))?);
                }
            }
        }
        self.push(form.op_type, form.domain, node.name.clone(), input, vec![name.clone()], attribute);
        if let Some((clamp, _)) = absorbed {
            self.absorbed.insert(clamp);
        }
        self.codes_written(result, name)?;
        Ok(true)
    }

    fn is_f32(&self, t: TensorId) -> bool {
        self.graph.tensors[t].dtype.is_none_or(|d| d == DType::F32)
    }

    /// The axis along which the weights of a multiply-accumulate may have several scales.
    fn channel_axis(&self, node: &Node, w: TensorId) -> Result<Option<usize>> {
        Ok(match node.op_type.as_str() {
            "Conv" => Some(0),
            "Gemm" => Some(usize::from(node.int("transB", 0)? == 0)),
            "MatMul" => parameters::rank(&self.graph.tensors[w]).and_then(|rank| rank.checked_sub(1)),
            _ => None,
        })
    }

    /// Attributes of the QLinear form.
    fn attributes(&self, node: &Node) -> Result<Vec<AttributeProto>> {
        let mut attributes: BTreeMap<String, Attribute> = node.attributes.clone();
        attributes.remove("beta");
        if node.op_type == "Softmax" {
            let opset = self.graph.opset("");
            attributes.insert("opset".into(), Attribute::Int(opset));
            attributes.entry("axis".into()).or_insert(Attribute::Int(if opset < 13 { 1 } else { -1 }));
        }
        attributes.iter().map(|(k, v)| attributes::encode(k, v)).collect()
    }

    /// Names of the scale and the zero point of a tensor.
    fn grid(&mut self, t: TensorId) -> Result<[String; 2]> {
        let Some(encoding) = self.encoding(t) else {
            return Err(
                Error::invalid("encoding_missing", "the tensor has no encoding").at_tensor(&self.graph.tensors[t].name)
            );
        };
        let dtype = self.base.codes_type(t, encoding)?;
        let (scale, zero_point) = self.base.parameters(t, encoding, dtype)?;
        Ok([scale, zero_point])
    }

    /// Names of the integers, the scale and the zero point of a tensor.
    fn triple(&mut self, t: TensorId) -> Result<[String; 3]> {
        let codes = self.codes(t)?;
        let [scale, zero_point] = self.grid(t)?;
        Ok([codes, scale, zero_point])
    }

    /// A Relu or Clip that is all that reads the unquantized tensor `y`, and whose bounds lie outside of the codes of its
    /// result: saturation does its work. Gives the node and its result.
    fn redundant_clamp(&self, y: TensorId) -> Option<(usize, TensorId)> {
        let [reader] = self.consumers[y].as_slice() else { return None };
        if self.encoding(y).is_some() || self.graph.outputs.iter().any(|p| p.tensor == y) {
            return None;
        }
        let node = &self.graph.nodes[*reader];
        let bound = |slot: usize, name: &str, open: f64| match (node.inputs.get(slot).copied().flatten(), node) {
            (Some(t), _) if t == y => None,
            (Some(t), _) => self.graph.tensors[t].constant.as_ref()?.to_f64().first().copied(),
            (None, node) => match node.attributes.get(name) {
                None => Some(open),
                Some(Attribute::Float(v)) => Some(f64::from(*v)),
                Some(_) => None,
            },
        };
        let (lo, hi) = match (node.domain.as_str(), node.op_type.as_str()) {
            ("", "Relu") => (0.0, f64::INFINITY),
            ("", "Clip") => (bound(1, "min", f64::NEG_INFINITY)?, bound(2, "max", f64::INFINITY)?),
            _ => return None,
        };
        let &[Some(result)] = node.outputs.as_slice() else { return None };
        let encoding = self.encoding(result).filter(|e| e.granularity == Granularity::PerTensor)?;
        let real = |code: i64| (code - encoding.zero_point[0]) as f64 * encoding.scale[0];
        (real(encoding.qmin()) >= lo && real(encoding.qmax()) <= hi).then_some((*reader, result))
    }

    /// Writes a node that moves the integers of one encoding; false where it is none.
    pub(super) fn move_codes(&mut self, node: &Node) -> Result<bool> {
        let Some(movement) = Movement::of(node) else { return Ok(false) };
        let compares =
            matches!(node.op_type.as_str(), "MaxPool" | "ReduceMax" | "ReduceMin" | "Resize" | "Pad" | "Where");
        if matches!(node.op_type.as_str(), "GlobalMaxPool" | "Max" | "Min") {
            return Ok(false);
        }
        let moved = |slot: usize| movement.moves(slot);
        let elements = node.inputs.iter().enumerate().filter(|(slot, _)| moved(*slot)).filter_map(|(_, t)| *t);
        let several = node.op_type == "Split";
        if !several && node.outputs.iter().skip(1).any(Option::is_some) {
            return Ok(false);
        }
        let all: Vec<TensorId> = elements.chain(node.outputs.iter().flatten().copied()).collect();
        let Some(grid) = all.first().and_then(|&t| self.encoding(t)) else { return Ok(false) };
        let width = if compares { grid.bitwidth == 8 } else { matches!(grid.bitwidth, 8 | 16) };
        let same = all.iter().all(|&t| self.is_f32(t) && self.encoding(t).is_some_and(|e| e.same_grid(grid)));
        if !width || !same || grid.granularity != Granularity::PerTensor || grid.narrow_range {
            return Ok(false);
        }
        let pads = node.op_type == "Pad" && node.string("mode", "constant")? == "constant";
        let value = if pads { self.pad_code(node, grid)? } else { None };
        if pads && value.is_none() {
            return Ok(false);
        }
        let mut input = Vec::new();
        for (slot, t) in node.inputs.iter().enumerate() {
            input.push(match t {
                None => String::new(),
                Some(t) if moved(slot) => self.codes(*t)?,
                Some(_) if pads && slot == 2 => String::new(),
                Some(t) => self.reals(*t)?,
            });
        }
        if let Some(value) = value {
            let dtype = value.dtype();
            input.resize(input.len().max(3), String::new());
            input[2] = self.initializer(format!("{}_pad_code", node.name), dtype, &value)?;
        }
        let mut output = Vec::new();
        for t in &node.outputs {
            output.push(t.map(|t| self.name_codes(t)).unwrap_or_default());
        }
        let attribute = node.attributes.iter().map(|(k, v)| attributes::encode(k, v)).collect::<Result<_>>()?;
        self.push(&node.op_type, "", node.name.clone(), input, output.clone(), attribute);
        for (t, name) in node.outputs.iter().zip(output) {
            if let Some(t) = t {
                self.codes_written(*t, name)?;
            }
        }
        Ok(true)
    }

    /// The code of a padding value; `None` where the value is not a constant input.
    fn pad_code(&self, node: &Node, grid: &Encoding) -> Result<Option<Tensor>> {
        if self.graph.opset("") < 11 {
            return Ok(None);
        }
        let code = match node.inputs.get(2).copied().flatten() {
            None => grid.zero_point[0],
            Some(t) => {
                let Some(constant) = &self.graph.tensors[t].constant else { return Ok(None) };
                let Some(value) = constant.to_f64().first().copied().filter(|v| !v.is_nan()) else { return Ok(None) };
                let exact = (value as f32 / grid.scale[0] as f32).round_ties_even();
                (exact as i64).saturating_add(grid.zero_point[0]).clamp(grid.qmin(), grid.qmax())
            }
        };
        let data = match (grid.bitwidth, grid.signed) {
            (8, true) => Data::I8(vec![code as i8].into()),
            (8, false) => Data::U8(vec![code as u8].into()),
            _ => return Ok(None),
        };
        Tensor::new(Vec::new(), data).map(Some)
    }
}

/// Units of a bias: the products of the operands' scales.
fn unit(x: &Encoding, w: &Encoding, alpha: f64) -> Vec<f64> {
    w.scale.iter().map(|s| alpha * x.scale[0] * s).collect()
}

/// Fails where a QLinear operator cannot have an operand or result of this encoding.
fn expressible(op_type: &str, tensor: &str, encoding: &Encoding, channel_axis: Option<usize>) -> Result<()> {
    let what = match encoding.granularity {
        _ if encoding.bitwidth != 8 => format!("codes of {} bits", encoding.bitwidth),
        Granularity::PerTensor => return Ok(()),
        Granularity::PerChannel { axis } if Some(axis) == channel_axis => return Ok(()),
        Granularity::PerChannel { axis } => format!("scales along axis {axis}"),
        Granularity::PerBlock { .. } => "scales per block".to_string(),
    };
    let message = format!("{op_type} cannot have {what} for '{tensor}'");
    Err(Error::unsupported("write_qlinear", message).help("write the model in QDQ form"))
}
