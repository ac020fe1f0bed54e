//! QLinear operators (QOperator format): each becomes the float operator that it stands for, between quantized tensors.

use super::parameters::{self, Layout, rank};
use super::qdq::Fold;
use super::{Attribute, Node, TensorId, TensorInfo};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Positions of a tensor of codes, its scale and its zero point among the inputs of a node.
#[derive(Debug, Clone, Copy)]
struct Operand {
    codes: usize,
    scale: usize,
    zero_point: usize,
}

/// How a QLinear operator lays out its inputs.
pub(super) struct Form {
    op_type: &'static str,
    operands: Vec<Operand>,
    /// Scale and zero point of the output.
    result: (usize, usize),
    bias: Option<usize>,
    attributes: &'static [&'static str],
}

fn triples(starts: impl IntoIterator<Item = usize>) -> Vec<Operand> {
    starts.into_iter().map(|i| Operand { codes: i, scale: i + 1, zero_point: i + 2 }).collect()
}

/// The form of a node, where it is a QLinear operator that has a float twin.
pub(super) fn form(node: &Node) -> Option<Form> {
    const CONV: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides", "channels_last"];
    const POOL: &[&str] =
        &["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides", "channels_last"];
    let unary =
        |op_type, attributes| Some(Form { op_type, operands: triples([0]), result: (3, 4), bias: None, attributes });
    let binary =
        |op_type, bias, result, attributes| Some(Form { op_type, operands: triples([0, 3]), result, bias, attributes });
    match (node.domain.as_str(), node.op_type.as_str()) {
        ("" | "com.microsoft", "QLinearConv") => binary("Conv", Some(8), (6, 7), CONV),
        ("", "QLinearMatMul") => binary("MatMul", None, (6, 7), &[]),
        ("com.microsoft", "QLinearAdd") => binary("Add", None, (6, 7), &[]),
        ("com.microsoft", "QLinearMul") => binary("Mul", None, (6, 7), &[]),
        ("com.microsoft", "QGemm") => binary("Gemm", Some(6), (7, 8), &["alpha", "transA", "transB"]),
        ("com.microsoft", "QLinearSigmoid") => unary("Sigmoid", &[]),
        ("com.microsoft", "QLinearLeakyRelu") => unary("LeakyRelu", &["alpha"]),
        ("com.microsoft", "QLinearAveragePool") => unary("AveragePool", POOL),
        ("com.microsoft", "QLinearGlobalAveragePool") => unary("GlobalAveragePool", &["channels_last"]),
        ("com.microsoft", "QLinearSoftmax") => unary("Softmax", &["axis", "opset"]),
        ("com.microsoft", "QLinearReduceMean") => unary("ReduceMean", &["axes", "keepdims"]),
        ("com.microsoft", "QLinearConcat") => Some(Form {
            op_type: "Concat",
            operands: triples((2..node.inputs.len()).step_by(3)),
            result: (0, 1),
            bias: None,
            attributes: &["axis"],
        }),
        _ => None,
    }
}

/// Fails for QLinear operators that have no form.
pub(super) fn refuse_unknown(node: &Node) -> Result<()> {
    if node.op_type.starts_with("QLinear") {
        let message = format!("quantized operator {} of domain '{}'", node.op_type, node.domain);
        return Err(Error::unsupported("qlinear_operator", message).help("export the model in QDQ format"));
    }
    Ok(())
}

impl Form {
    /// Whether input `slot` takes codes.
    pub(super) fn reads_codes(&self, slot: usize) -> bool {
        self.bias == Some(slot) || self.operands.iter().any(|o| o.codes == slot)
    }

    /// The encoding that a node gives to the codes in `slot`.
    pub(super) fn operand_encoding(&self, fold: &Fold<'_>, node: &Node, slot: usize) -> Result<Arc<Encoding>> {
        let i = self.operands.iter().position(|o| o.codes == slot).ok_or_else(|| {
            Error::unsupported("quantized_operand", format!("input {slot} of the node is not a quantized tensor"))
        })?;
        let Operand { codes, scale, zero_point } = self.operands[i];
        let t = required(node, codes)?;
        let rank = rank(&fold.graph.tensors[t]);
        let axis = match (self.op_type, i) {
            ("Conv", 1) => Some(0),
            ("MatMul", 1) => Some(-1),
            ("Gemm", 1) => Some(if node.int("transB", 0)? == 0 { 1 } else { 0 }),
            _ => None,
        };
        parameters_of(fold, node, (scale, zero_point), fold.codes_type(t), axis, rank)
    }

    /// The float node. Operands become reals, the output gets its encoding.
    pub(super) fn convert(&self, fold: &mut Fold<'_>, node: &Node) -> Result<Node> {
        node.check_attributes(self.attributes)?;
        if node.int("channels_last", 0)? != 0 {
            return Err(Error::unsupported("channels_last", "tensors with channels last"));
        }
        if self.operands.is_empty() || (self.op_type == "Concat" && !(node.inputs.len() + 1).is_multiple_of(3)) {
            return Err(Error::invalid("node_inputs", format!("{} inputs", node.inputs.len())));
        }
        let mut inputs = Vec::new();
        let mut encodings = Vec::new();
        for operand in &self.operands {
            let encoding = self.operand_encoding(fold, node, operand.codes)?;
            inputs.push(Some(fold.read_codes(required(node, operand.codes)?, &encoding)?));
            encodings.push(encoding);
        }
        if let Some(bias) = self.bias.and_then(|slot| node.inputs.get(slot).copied().flatten()) {
            let alpha = if self.op_type == "Gemm" { f64::from(node.float("alpha", 1.0)?) } else { 1.0 };
            let encoding = bias_encoding(&encodings[0], &encodings[1], alpha)?;
            inputs.push(Some(fold.read_codes(bias, &encoding)?));
        }
        let [Some(y)] = node.outputs.as_slice() else {
            return Err(Error::invalid("node_outputs", "a quantized operator has one output"));
        };
        let (scale, _) = self.result;
        if self.op_type == "Gemm" && node.inputs.get(scale).copied().flatten().is_none() {
            fold.graph.tensors[*y].dtype = Some(DType::F32);
        } else {
            let codes = fold.graph.tensors[*y].dtype.or(parameters::type_of_codes(&encodings[0]));
            let encoding = parameters_of(fold, node, self.result, codes, None, None)?;
            if !fold.folds(*y) {
                let message = format!(
                    "the codes '{}' are read by an operator that computes with them",
                    fold.graph.tensors[*y].name
                );
                return Err(Error::unsupported("quantized_result", message));
            }
            fold.become_reals(*y, encoding);
        }
        let mut out = Node {
            op_type: self.op_type.to_string(),
            domain: String::new(),
            inputs,
            attributes: super::movement::without(node, "channels_last"),
            ..node.clone()
        };
        match self.op_type {
            "Softmax" => softmax_axis(fold, &mut out)?,
            "ReduceMean" => reduce_axes(fold, &mut out)?,
            _ => {}
        }
        Ok(out)
    }
}

fn required(node: &Node, slot: usize) -> Result<TensorId> {
    let input = node.inputs.get(slot).copied().flatten();
    input.ok_or_else(|| Error::invalid("node_inputs", format!("the node has no input {slot}")))
}

/// The encoding from the inputs at `(scale, zero_point)`. Without `axis` a list of scales is refused.
fn parameters_of(
    fold: &Fold<'_>,
    node: &Node,
    (scale, zero_point): (usize, usize),
    codes: Option<DType>,
    axis: Option<i64>,
    rank: Option<usize>,
) -> Result<Arc<Encoding>> {
    let scale = &fold.graph.tensors[required(node, scale)?];
    let zero_point = node.inputs.get(zero_point).copied().flatten().map(|t| &fold.graph.tensors[t]);
    let codes = codes.or(zero_point.and_then(|z| z.dtype)).ok_or_else(|| {
        Error::unsupported("quantized_type_unknown", "neither the zero point nor the codes have a declared type")
    })?;
    if axis.is_none() && scale.constant.as_ref().is_some_and(|c| c.len() != 1) {
        return Err(Error::unsupported("scale_shape", format!("several scales in '{}'", scale.name)));
    }
    let layout = Layout { axis: axis.unwrap_or(0), block_size: 0, rank };
    parameters::encoding(scale, zero_point, codes, layout)
}

/// The encoding of a 32-bit bias: scales are the exact products of the operands' scales (and `alpha`).
fn bias_encoding(x: &Encoding, w: &Encoding, alpha: f64) -> Result<Arc<Encoding>> {
    let scale: Vec<f64> = w.scale.iter().map(|s| alpha * x.scale[0] * s).collect();
    let granularity = if scale.len() == 1 { Granularity::PerTensor } else { Granularity::PerChannel { axis: 0 } };
    let encoding = Encoding {
        zero_point: vec![0; scale.len()],
        scale,
        bitwidth: 32,
        signed: true,
        symmetric: true,
        narrow_range: false,
        granularity,
        lpbq: None,
    };
    encoding.validate()?;
    Ok(Arc::new(encoding))
}

/// Gives the float Softmax its axis. Before opset 13 it works on a matrix, which is the same only along the last axis.
fn softmax_axis(fold: &Fold<'_>, node: &mut Node) -> Result<()> {
    let legacy = node.int("opset", fold.graph.opset(""))? < 13;
    node.attributes.remove("opset");
    let rank = node.inputs[0].and_then(|t| rank(&fold.graph.tensors[t])).map(|r| r as i64);
    let axis = node.int("axis", if legacy { 1 } else { -1 })?;
    let last = axis == -1 || rank == Some(axis + 1);
    if legacy != (fold.graph.opset("") < 13) && !last {
        let message = format!("axis {axis} by the rule of another opset than the model's");
        return Err(Error::unsupported("softmax_axis", message));
    }
    node.attributes.insert("axis".into(), Attribute::Int(axis));
    Ok(())
}

/// Moves `axes` to an input, where the model's opset has them there.
fn reduce_axes(fold: &mut Fold<'_>, node: &mut Node) -> Result<()> {
    if fold.graph.opset("") < 18 {
        return Ok(());
    }
    let Some(axes) = node.ints("axes")?.map(<[i64]>::to_vec) else { return Ok(()) };
    node.attributes.remove("axes");
    let name = fold.fresh(format!("{}_axes", node.name));
    let constant = Some(Tensor::i64(&[axes.len()], axes).into());
    let t = fold.new_tensor(TensorInfo { name, dtype: Some(DType::I64), constant, ..TensorInfo::default() });
    node.inputs.push(Some(t));
    Ok(())
}
