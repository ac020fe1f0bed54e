//! Writing a graph as a QOperator model: operators on codes, and quantizers where reals begin and end.

mod bias;
mod forms;

use super::proto::{NodeProto, TensorProto};
use super::write::{MICROSOFT, Writer, Written, value_info};
use super::{attributes, tensor};
use crate::encoding::{Encoding, QuantizeRule, quantize};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, TensorId, qdq};
use crate::tensor::{DType, Data, Tensor};
use std::collections::HashSet;

/// The QOperator model of a graph.
///
/// An operator that has a QLinear form, and whose operands and result have 8-bit encodings, becomes that form; one that
/// moves codes of one encoding moves integers; every other operator runs in float between `DequantizeLinear` and
/// `QuantizeLinear`. A Relu or Clip behind an operator whose own result has no encoding disappears where saturation does
/// the same. Integers of constants are those of the graph, or its reals rounded half to even.
///
/// # Errors
/// `write_qlinear` at the node whose encodings its QLinear form cannot have: other widths than 8 bits, scales per block;
/// `write_*` as for [`super::qdq_model`].
pub fn qlinear_model(graph: &Graph) -> Result<Written> {
    graph.validate()?;
    let graph = &graph.spelled_out()?;
    let mut writer = QlinearWriter::new(graph);
    writer.run()?;
    Ok(writer.base.finish())
}

struct QlinearWriter<'g> {
    base: Writer<'g>,
    graph: &'g Graph,
    /// For each tensor, the name of its integers once they are written.
    codes: Vec<Option<String>>,
    /// For each tensor, the name of its reals once they are written.
    reals: Vec<Option<String>>,
    /// For each tensor, the nodes that read it.
    consumers: Vec<Vec<usize>>,
    /// Nodes whose work an operator before them does.
    absorbed: HashSet<usize>,
}

impl<'g> QlinearWriter<'g> {
    fn new(graph: &'g Graph) -> Self {
        QlinearWriter {
            base: Writer::new(graph),
            graph,
            codes: vec![None; graph.tensors.len()],
            reals: vec![None; graph.tensors.len()],
            consumers: graph.consumers(),
            absorbed: HashSet::new(),
        }
    }

    fn encoding(&self, t: TensorId) -> Option<&'g Encoding> {
        self.graph.tensors[t].encoding.as_deref()
    }

    fn run(&mut self) -> Result<()> {
        let graph = self.graph;
        for port in &graph.inputs {
            let info = &graph.tensors[port.tensor];
            let codes = match (&info.encoding, port.quantized) {
                (Some(encoding), true) => Some(self.base.codes_type(port.tensor, encoding)?),
                _ => None,
            };
            self.base.proto.input.push(value_info(&port.name, codes.or(info.dtype), info.shape.as_deref()));
            if codes.is_some() {
                self.codes[port.tensor] = Some(port.name.clone());
            } else {
                self.reals_written(port.tensor, &port.name)?;
            }
        }
        for (n, node) in graph.nodes.iter().enumerate() {
            if !self.absorbed.contains(&n) {
                self.node(node).map_err(|e| e.at_node(&node.name, &node.op_type))?;
            }
        }
        for port in &graph.outputs {
            let info = &graph.tensors[port.tensor];
            let (name, dtype) = match (&info.encoding, port.quantized) {
                (Some(encoding), true) => {
                    (self.codes(port.tensor)?, Some(self.base.codes_type(port.tensor, encoding)?))
                }
                _ => (self.reals(port.tensor)?, info.dtype),
            };
            self.base.proto.output.push(value_info(&port.name, dtype, info.shape.as_deref()));
            if name != port.name {
                self.push("Identity", "", port.name.clone(), vec![name], vec![port.name.clone()], Vec::new());
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        op_type: &str,
        domain: &str,
        name: String,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<super::proto::AttributeProto>,
    ) {
        self.base.microsoft |= domain == MICROSOFT;
        self.base.proto.node.push(NodeProto {
            name: Some(name),
            op_type: Some(op_type.into()),
            domain: (!domain.is_empty()).then(|| domain.to_string()),
            input,
            output,
            attribute,
            ..NodeProto::default()
        });
    }

    fn is_port(&self, name: &str) -> bool {
        self.graph.inputs.iter().chain(&self.graph.outputs).any(|p| p.name == name)
    }

    /// The name of an output that sees the integers, or the reals, of a tensor.
    fn port_of(&self, t: TensorId, quantized: bool) -> Option<String> {
        self.graph.outputs.iter().find(|p| p.tensor == t && p.quantized == quantized).map(|p| p.name.clone())
    }

    /// A name for the integers of a tensor.
    fn name_codes(&mut self, t: TensorId) -> String {
        let info = &self.graph.tensors[t];
        // Two names that the file gave, codes first; a constant has but that of its codes.
        let known = match info.aliases.as_slice() {
            [codes, rest @ ..] if (!rest.is_empty() || info.constant.is_some()) && !self.is_port(codes) => {
                Some(codes.clone())
            }
            _ => None,
        };
        let port = if info.constant.is_none() { self.port_of(t, true) } else { None };
        port.or(known).unwrap_or_else(|| self.base.fresh(format!("{}_quantized", info.name)))
    }

    /// Declares the integers of a tensor under `name`, which a node or port has written.
    fn codes_written(&mut self, t: TensorId, name: String) -> Result<()> {
        let info = &self.graph.tensors[t];
        if let Some(encoding) = &info.encoding {
            let dtype = self.base.codes_type(t, encoding)?;
            if !self.is_port(&name) {
                self.base.proto.value_info.push(value_info(&name, Some(dtype), info.shape.as_deref()));
            }
        }
        self.codes[t] = Some(name);
        Ok(())
    }

    /// Declares the reals of a tensor under `name`, which a node or port has written, and quantizes them where the tensor
    /// has an encoding.
    fn reals_written(&mut self, t: TensorId, name: &str) -> Result<()> {
        let info = &self.graph.tensors[t];
        if !self.is_port(name) && (info.dtype.is_some() || info.shape.is_some()) {
            self.base.proto.value_info.push(value_info(name, info.dtype, info.shape.as_deref()));
        }
        if info.encoding.is_none() {
            self.reals[t] = Some(name.to_string());
            return Ok(());
        }
        let codes = self.name_codes(t);
        self.base.quantizer(t, name, &codes)?;
        self.codes_written(t, codes)
    }

    /// The name under which the integers of a tensor can be read.
    fn codes(&mut self, t: TensorId) -> Result<String> {
        if let Some(name) = &self.codes[t] {
            return Ok(name.clone());
        }
        let info = &self.graph.tensors[t];
        let (Some(constant), Some(encoding)) = (&info.constant, &info.encoding) else {
            return Err(Error::invalid("tensor_undefined", "nothing computes this tensor").at_tensor(&info.name));
        };
        let dtype = self.base.codes_type(t, encoding)?;
        let name = self.name_codes(t);
        let stored = match &info.codes {
            Some(codes) => tensor::encode(&name, dtype, codes)?,
            None => {
                tensor::encode(&name, dtype, &round(constant, encoding, dtype).map_err(|e| e.at_tensor(&info.name))?)?
            }
        };
        self.base.proto.initializer.push(stored);
        self.codes[t] = Some(name.clone());
        Ok(name)
    }

    /// The name under which the reals of a tensor can be read.
    fn reals(&mut self, t: TensorId) -> Result<String> {
        if let Some(name) = &self.reals[t] {
            return Ok(name.clone());
        }
        let info = &self.graph.tensors[t];
        let name = match (&info.constant, &info.encoding) {
            (Some(constant), None) => {
                // Codes of two and four bits are bytes in memory; the declared type says so.
                let dtype = info.dtype.filter(|d| d.packed_bits().is_some()).unwrap_or(constant.dtype());
                self.base.proto.initializer.push(tensor::encode(&info.name, dtype, constant)?);
                info.name.clone()
            }
            _ => {
                let codes = self.codes(t)?;
                let name = self.port_of(t, false).filter(|n| !self.graph.inputs.iter().any(|p| p.name == *n));
                let name = name.unwrap_or_else(|| self.base.fresh(format!("{}_dequantized", info.name)));
                self.base.pair("DequantizeLinear", t, &codes, &name)?;
                name
            }
        };
        self.reals[t] = Some(name.clone());
        Ok(name)
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let quantizes = node.domain == qdq::DOMAIN && node.op_type == qdq::QUANTIZE;
        if let (true, [Some(from)], [Some(to)]) = (quantizes, node.inputs.as_slice(), node.outputs.as_slice()) {
            let (from, codes) = (self.reals(*from)?, self.name_codes(*to));
            self.base.quantizer(*to, &from, &codes)?;
            return self.codes_written(*to, codes);
        }
        if !node.domain.is_empty() && node.domain != MICROSOFT {
            let message = format!("the operator of domain '{}' has no form in a file", node.domain);
            return Err(Error::unsupported("write_operator", message));
        }
        if self.on_codes(node)? || self.move_codes(node)? {
            return Ok(());
        }
        self.in_float(node)
    }

    /// The operator itself, between reals.
    fn in_float(&mut self, node: &Node) -> Result<()> {
        let optional = |t: &Option<TensorId>, writer: &mut Self| match t {
            Some(t) => writer.reals(*t),
            None => Ok(String::new()),
        };
        let input = node.inputs.iter().map(|t| optional(t, self)).collect::<Result<_>>()?;
        let mut output = Vec::new();
        for t in &node.outputs {
            output.push(match t {
                None => String::new(),
                Some(t) => {
                    let name = &self.graph.tensors[*t].name;
                    // The name of an output is that of the tensor on its grid.
                    let taken = self.encoding(*t).is_some() && self.is_port(name);
                    if taken { self.base.fresh(format!("{name}_unquantized")) } else { name.clone() }
                }
            });
        }
        let attribute = node.attributes.iter().map(|(k, v)| attributes::encode(k, v)).collect::<Result<_>>()?;
        self.push(&node.op_type, &node.domain, node.name.clone(), input, output.clone(), attribute);
        for (t, name) in node.outputs.iter().zip(output) {
            if let Some(t) = t {
                self.reals_written(*t, &name)?;
            }
        }
        Ok(())
    }

    fn initializer(&mut self, wanted: String, dtype: DType, value: &Tensor) -> Result<String> {
        let name = self.base.fresh(wanted);
        let stored: TensorProto = tensor::encode(&name, dtype, value)?;
        self.base.proto.initializer.push(stored);
        Ok(name)
    }
}

/// Integers of a constant's reals, half to even.
fn round(constant: &Tensor, encoding: &Encoding, dtype: DType) -> Result<Tensor> {
    let codes = quantize(constant.as_f32()?, constant.shape(), encoding, QuantizeRule::default())?;
    let data = match dtype {
        DType::I2 | DType::I4 | DType::I8 => Data::I8(codes.into_iter().map(|c| c as i8).collect()),
        DType::U2 | DType::U4 | DType::U8 => Data::U8(codes.into_iter().map(|c| c as u8).collect()),
        DType::I16 => Data::I16(codes.into_iter().map(|c| c as i16).collect()),
        DType::U16 => Data::U16(codes.into_iter().map(|c| c as u16).collect()),
        _ => Data::I32(codes.into()),
    };
    Tensor::new(constant.shape(), data)
}
