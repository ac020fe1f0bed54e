//! Writing a graph as a QDQ model.

use super::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::{MAX_BYTES, attributes, tensor};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Location, Result};
use crate::graph::{Attribute, Dim, Graph, Node, TensorId, parameters, qdq};
use crate::tensor::{DType, Data, Tensor};
use prost::Message;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

/// A model that is ready to be stored.
#[derive(Debug, Clone)]
pub struct Written {
    /// The model.
    pub model: ModelProto,
    /// Tensors whose scales were rounded to f32, the only precision that ONNX has for scales of f32 tensors.
    pub rounded_scales: Vec<String>,
}

/// Writes `graph` to `path` as a QDQ model: to a file beside it first, which then takes its name. Gives the tensors whose
/// scales were rounded to f32.
///
/// # Errors
/// `write_*` for what ONNX cannot hold, at the tensor or node; `io` where the file cannot be written.
pub fn write(graph: &Graph, path: impl AsRef<Path>) -> Result<Vec<String>> {
    store(qdq_model(graph)?, path.as_ref())
}

/// As [`write`], in QOperator form.
///
/// # Errors
/// Those of [`super::qlinear_model`]; `io` where the file cannot be written.
pub fn write_qlinear(graph: &Graph, path: impl AsRef<Path>) -> Result<Vec<String>> {
    store(super::qlinear_model(graph)?, path.as_ref())
}

fn store(written: Written, path: &Path) -> Result<Vec<String>> {
    let Written { model, rounded_scales } = written;
    let in_file = |e: Error| e.at(Location::File(path.display().to_string()));
    if model.encoded_len() as u64 > MAX_BYTES {
        return Err(in_file(Error::unsupported("write_size", "the model exceeds protobuf's limit of 2 GiB")));
    }
    let name = path.file_name().ok_or_else(|| in_file(Error::invalid("write_path", "the path names no file")))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let stored = std::fs::write(&temporary, model.encode_to_vec()).and_then(|()| std::fs::rename(&temporary, path));
    stored.map_err(|e| {
        // The failure to report is the first one; the part may not even exist.
        let _ = std::fs::remove_file(&temporary);
        Error::io(path.display(), &e)
    })?;
    Ok(rounded_scales)
}

/// The QDQ model of a graph.
///
/// A tensor with an encoding becomes a pair of `QuantizeLinear` and `DequantizeLinear` behind the tensor, a constant
/// whose integers are known a `DequantizeLinear` of those. Names are the tensor's aliases where it has them. Types and
/// layouts that the model's opset has not in ONNX's own quantizers use those of `com.microsoft`.
pub fn qdq_model(graph: &Graph) -> Result<Written> {
    graph.validate()?;
    let graph = &graph.spelled_out()?;
    let mut writer = Writer::new(graph);
    writer.run()?;
    Ok(writer.finish())
}

pub(super) const MICROSOFT: &str = "com.microsoft";

pub(super) struct Writer<'g> {
    graph: &'g Graph,
    pub(super) proto: GraphProto,
    names: HashSet<String>,
    /// For each tensor, the name under which nodes read it; empty until it is written.
    read_as: Vec<String>,
    /// For each tensor, the name that its producer writes.
    written_as: Vec<String>,
    /// Names of the scales and zero points that have been written, by tensor.
    parameters: HashMap<TensorId, (String, String)>,
    rounded_scales: Vec<String>,
    /// Whether an operator of `com.microsoft` has been written.
    pub(super) microsoft: bool,
}

impl<'g> Writer<'g> {
    pub(super) fn new(graph: &'g Graph) -> Self {
        let mut names: HashSet<String> = HashSet::new();
        for info in &graph.tensors {
            names.insert(info.name.clone());
            names.extend(info.aliases.iter().cloned());
        }
        names.extend(graph.inputs.iter().chain(&graph.outputs).map(|p| p.name.clone()));
        let written_as = graph.tensors.iter().map(|t| t.name.clone()).collect();
        let proto = GraphProto { name: Some(graph.name.clone()), ..GraphProto::default() };
        let read_as = vec![String::new(); graph.tensors.len()];
        Writer {
            graph,
            proto,
            names,
            read_as,
            written_as,
            parameters: HashMap::new(),
            rounded_scales: Vec::new(),
            microsoft: false,
        }
    }

    pub(super) fn fresh(&mut self, wanted: String) -> String {
        let mut name = wanted.clone();
        let mut i = 1;
        while !self.names.insert(name.clone()) {
            name = format!("{wanted}_{i}");
            i += 1;
        }
        name
    }

    /// The model of what has been written.
    pub(super) fn finish(self) -> Written {
        let mut opsets = self.graph.opsets.clone();
        if self.microsoft {
            opsets.entry(MICROSOFT.to_string()).or_insert(1);
        }
        let opset_import = opsets
            .iter()
            .map(|(domain, version)| OperatorSetIdProto { domain: Some(domain.clone()), version: Some(*version) })
            .collect();
        let ir_version = match self.graph.opset("") {
            ..=18 => 8,
            19..=20 => 9,
            21..=22 => 10,
            _ => 11,
        };
        let model = ModelProto {
            ir_version: Some(ir_version),
            producer_name: Some("nputwin".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            graph: Some(self.proto),
            opset_import,
            ..ModelProto::default()
        };
        Written { model, rounded_scales: self.rounded_scales }
    }

    fn run(&mut self) -> Result<()> {
        let graph = self.graph;
        let produced: BTreeSet<TensorId> =
            graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        // A port that carries a quantized tensor's own name is the dequantized twin: the raw tensor makes room.
        for port in graph.outputs.iter().filter(|p| produced.contains(&p.tensor)) {
            let info = &graph.tensors[port.tensor];
            if info.encoding.is_some() && port.name == info.name {
                self.written_as[port.tensor] = self.fresh(format!("{}_unquantized", info.name));
            }
        }
        for port in &graph.inputs {
            let info = &graph.tensors[port.tensor];
            let dtype = match (&info.encoding, port.quantized) {
                (Some(encoding), true) => Some(self.codes_type(port.tensor, encoding)?),
                _ => info.dtype,
            };
            self.proto.input.push(value_info(&port.name, dtype, info.shape.as_deref()));
            if port.quantized {
                let twin = info.aliases.first().cloned();
                let twin = twin.unwrap_or_else(|| self.fresh(format!("{}_dequantized", info.name)));
                self.dequantizer(port.tensor, &port.name, &twin)?;
                self.read_as[port.tensor] = twin;
            } else {
                self.written_as[port.tensor] = port.name.clone();
                self.finish_tensor(port.tensor)?;
            }
        }
        for t in 0..graph.tensors.len() {
            if graph.tensors[t].constant.is_some() {
                self.constant(t)?;
            }
        }
        for node in &graph.nodes {
            self.node(node).map_err(|e| e.at_node(&node.name, &node.op_type))?;
        }
        self.outputs()
    }

    pub(super) fn codes_type(&self, t: TensorId, encoding: &Encoding) -> Result<DType> {
        let info = &self.graph.tensors[t];
        if info.codes.as_ref().is_some_and(|codes| codes.dtype() == DType::I64) {
            let message = "ONNX's quantizers have no codes of 64 bits";
            return Err(Error::unsupported("write_bitwidth", message).at_tensor(&info.name));
        }
        parameters::type_of_codes(encoding).ok_or_else(|| {
            let sign = if encoding.signed { "signed" } else { "unsigned" };
            let message = format!("ONNX has no type for {sign} codes of {} bits", encoding.bitwidth);
            Error::unsupported("write_bitwidth", message).at_tensor(&info.name)
        })
    }

    fn constant(&mut self, t: TensorId) -> Result<()> {
        let info = &self.graph.tensors[t];
        if let (Some(codes), Some(encoding)) = (&info.codes, &info.encoding) {
            let dtype = self.codes_type(t, encoding)?;
            let stored = info.aliases.first().cloned();
            let stored = stored.unwrap_or_else(|| self.fresh(format!("{}_quantized", info.name)));
            self.proto.initializer.push(tensor::encode(&stored, dtype, codes)?);
            self.dequantizer(t, &stored, &info.name)?;
            self.read_as[t] = info.name.clone();
            return Ok(());
        }
        let Some(constant) = &info.constant else { return Ok(()) };
        // Codes of two and four bits are bytes in memory; the declared type says so.
        let dtype = info.dtype.filter(|d| d.packed_bits().is_some()).unwrap_or(constant.dtype());
        self.proto.initializer.push(tensor::encode(&info.name, dtype, constant)?);
        self.finish_tensor(t)
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let quantizes = node.domain == qdq::DOMAIN && node.op_type == qdq::QUANTIZE;
        if let (true, [Some(from)], [Some(to)]) = (quantizes, node.inputs.as_slice(), node.outputs.as_slice()) {
            let info = &self.graph.tensors[*to];
            let codes = info.aliases.first().cloned();
            let codes = codes.unwrap_or_else(|| self.fresh(format!("{}_quantized", info.name)));
            let from = self.read_as[*from].clone();
            self.quantizer(*to, &from, &codes)?;
            self.dequantizer(*to, &codes, &info.name)?;
            self.read_as[*to] = info.name.clone();
            return Ok(());
        }
        if !node.domain.is_empty() && node.domain != MICROSOFT {
            let message = format!("the operator of domain '{}' has no form in a file", node.domain);
            return Err(Error::unsupported("write_operator", message));
        }
        let name = |names: &[String], t: &Option<TensorId>| t.map(|t| names[t].clone()).unwrap_or_default();
        self.proto.node.push(NodeProto {
            name: Some(node.name.clone()),
            op_type: Some(node.op_type.clone()),
            domain: (!node.domain.is_empty()).then(|| node.domain.clone()),
            input: node.inputs.iter().map(|t| name(&self.read_as, t)).collect(),
            output: node.outputs.iter().map(|t| name(&self.written_as, t)).collect(),
            attribute: node.attributes.iter().map(|(k, v)| attributes::encode(k, v)).collect::<Result<_>>()?,
            ..NodeProto::default()
        });
        for &t in node.outputs.iter().flatten() {
            self.finish_tensor(t)?;
        }
        Ok(())
    }

    /// Declares a tensor of reals that has been written, and appends its quantizers.
    fn finish_tensor(&mut self, t: TensorId) -> Result<()> {
        let info = &self.graph.tensors[t];
        let raw = self.written_as[t].clone();
        self.read_as[t] = raw.clone();
        let declared = self.graph.inputs.iter().chain(&self.graph.outputs).any(|p| p.name == raw);
        if info.constant.is_none() && !declared && (info.dtype.is_some() || info.shape.is_some()) {
            self.proto.value_info.push(value_info(&raw, info.dtype, info.shape.as_deref()));
        }
        if info.encoding.is_none() {
            return Ok(());
        }
        let ports: Vec<_> = self.graph.outputs.iter().filter(|p| p.tensor == t).collect();
        let quantized = ports.iter().find(|p| p.quantized).map(|p| p.name.clone());
        // Two names that the file gave, codes first; the tensor of an operator on codes has only that of its reals.
        let is_port = |name: &String| self.graph.outputs.iter().any(|p| p.name == *name);
        let names = match info.aliases.as_slice() {
            [codes, ..] if info.aliases.len() > 1 && !is_port(codes) => Some(codes.clone()),
            _ => None,
        };
        let codes = quantized.or(names);
        let codes = codes.unwrap_or_else(|| self.fresh(format!("{}_quantized", info.name)));
        self.quantizer(t, &raw, &codes)?;
        let reads = self.graph.nodes.iter().any(|n| n.inputs.contains(&Some(t)));
        let port = ports.iter().find(|p| !p.quantized).map(|p| p.name.clone());
        if reads || port.is_some() {
            let twin = port.or_else(|| info.aliases.iter().find(|a| **a != codes && !is_port(a)).cloned());
            let twin = twin.unwrap_or_else(|| self.fresh(format!("{}_dequantized", info.name)));
            self.dequantizer(t, &codes, &twin)?;
            self.read_as[t] = twin;
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<()> {
        let graph = self.graph;
        for port in &graph.outputs {
            let info = &graph.tensors[port.tensor];
            let dtype = match (&info.encoding, port.quantized) {
                (Some(encoding), true) => Some(self.codes_type(port.tensor, encoding)?),
                _ => info.dtype,
            };
            self.proto.output.push(value_info(&port.name, dtype, info.shape.as_deref()));
            let there = self.proto.node.iter().any(|n| n.output.contains(&port.name))
                || self.proto.input.iter().any(|i| i.name.as_ref() == Some(&port.name))
                || self.proto.initializer.iter().any(|i| i.name.as_ref() == Some(&port.name));
            if !there {
                if port.quantized {
                    let from = self.read_as[port.tensor].clone();
                    self.quantizer(port.tensor, &from, &port.name)?;
                } else {
                    self.copy(port.tensor, &port.name);
                }
            }
        }
        Ok(())
    }

    /// A second output of the same tensor.
    fn copy(&mut self, t: TensorId, name: &str) {
        self.proto.node.push(NodeProto {
            name: Some(name.to_string()),
            op_type: Some("Identity".into()),
            input: vec![self.read_as[t].clone()],
            output: vec![name.to_string()],
            ..NodeProto::default()
        });
    }

    pub(super) fn quantizer(&mut self, t: TensorId, from: &str, to: &str) -> Result<()> {
        let info = &self.graph.tensors[t];
        let Some(encoding) = &info.encoding else { return Ok(()) };
        if encoding.narrow_range {
            let message = "ONNX's quantizers cannot leave out the lowest code";
            return Err(Error::unsupported("write_narrow_range", message).at_tensor(&info.name));
        }
        if encoding.bitwidth == 32 {
            return Err(Error::unsupported("write_bitwidth", "ONNX has no quantizer to 32 bits").at_tensor(&info.name));
        }
        self.pair("QuantizeLinear", t, from, to)
    }

    fn dequantizer(&mut self, t: TensorId, from: &str, to: &str) -> Result<()> {
        self.pair("DequantizeLinear", t, from, to)
    }

    pub(super) fn pair(&mut self, op_type: &str, t: TensorId, from: &str, to: &str) -> Result<()> {
        let info = &self.graph.tensors[t];
        let Some(encoding) = &info.encoding else { return Ok(()) };
        let dtype = self.codes_type(t, encoding)?;
        let opset = self.graph.opset("");
        let per_block = matches!(encoding.granularity, Granularity::PerBlock { .. });
        let per_channel = matches!(encoding.granularity, Granularity::PerChannel { .. });
        let wide = matches!(dtype, DType::I16 | DType::U16) || dtype.packed_bits().is_some();
        if per_block && opset < 21 {
            let message = format!("block scales need opset 21, the model has {opset}");
            return Err(Error::unsupported("write_block", message).at_tensor(&info.name));
        }
        let microsoft = (wide && opset < 21) || (per_channel && opset < 13);
        self.microsoft |= microsoft;
        let (scale, zero_point) = self.parameters(t, encoding, dtype)?;
        let int = |name: &str, v: usize| attributes::encode(name, &Attribute::Int(v as i64));
        let attribute: Vec<AttributeProto> = match encoding.granularity {
            Granularity::PerTensor => Vec::new(),
            Granularity::PerChannel { axis } => vec![int("axis", axis)?],
            Granularity::PerBlock { axis, block_size } => vec![int("axis", axis)?, int("block_size", block_size)?],
        };
        self.proto.node.push(NodeProto {
            name: Some(to.to_string()),
            op_type: Some(op_type.into()),
            domain: microsoft.then(|| MICROSOFT.to_string()),
            input: vec![from.to_string(), scale, zero_point],
            output: vec![to.to_string()],
            attribute,
            ..NodeProto::default()
        });
        Ok(())
    }

    /// The names of the initializers that hold a tensor's scales and zero points, added where they are new.
    pub(super) fn parameters(&mut self, t: TensorId, encoding: &Encoding, dtype: DType) -> Result<(String, String)> {
        let info = &self.graph.tensors[t];
        if let Some(known) = self.parameters.get(&t) {
            return Ok(known.clone());
        }
        let scale = self.fresh(format!("{}_scale", info.name));
        let zero_point = self.fresh(format!("{}_zero_point", info.name));
        self.parameters.insert(t, (scale.clone(), zero_point.clone()));
        let shape = match encoding.granularity {
            Granularity::PerTensor => Vec::new(),
            Granularity::PerChannel { .. } => vec![encoding.scale.len()],
            Granularity::PerBlock { axis, block_size } => {
                let dims = match (&info.constant, &info.shape) {
                    (Some(constant), _) => Some(constant.shape().to_vec()),
                    (None, Some(dims)) => dims
                        .iter()
                        .map(|d| match d {
                            Dim::Fixed(v) => Some(*v),
                            Dim::Symbol(_) => None,
                        })
                        .collect(),
                    (None, None) => None,
                };
                let blocks = dims.and_then(|mut dims| {
                    let along = dims.get_mut(axis)?;
                    *along /= block_size;
                    Some(dims)
                });
                blocks.ok_or_else(|| {
                    let message = "block scales of a tensor whose shape the graph does not declare";
                    Error::unsupported("write_block", message).at_tensor(&info.name)
                })?
            }
        };
        let scales = self.scales(t, encoding, &shape)?;
        self.proto.initializer.push(TensorProto { name: Some(scale.clone()), ..scales });
        let out_of_type =
            |_| Error::invalid("encoding_zero_point", "zero point outside its type").at_tensor(&info.name);
        macro_rules! codes {
            ($variant:ident, $type:ty) => {
                Data::$variant(
                    encoding
                        .zero_point
                        .iter()
                        .map(|&z| <$type>::try_from(z).map_err(out_of_type))
                        .collect::<Result<_>>()?,
                )
            };
        }
        let data = match dtype {
            DType::I2 | DType::I4 | DType::I8 => codes!(I8, i8),
            DType::U2 | DType::U4 | DType::U8 => codes!(U8, u8),
            DType::I16 => codes!(I16, i16),
            DType::U16 => codes!(U16, u16),
            _ => codes!(I32, i32),
        };
        self.proto.initializer.push(tensor::encode(&zero_point, dtype, &Tensor::new(shape, data)?)?);
        Ok((scale, zero_point))
    }

    fn scales(&mut self, t: TensorId, encoding: &Encoding, shape: &[usize]) -> Result<TensorProto> {
        let info = &self.graph.tensors[t];
        let single: Vec<f32> = encoding.scale.iter().map(|&s| s as f32).collect();
        if single.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::invalid("write_scale", "a scale has no f32 number").at_tensor(&info.name));
        }
        let exact = single.iter().zip(&encoding.scale).all(|(s, e)| f64::from(*s) == *e);
        if !exact {
            self.rounded_scales.push(info.name.clone());
        }
        let data = match info.dtype {
            Some(DType::F16) => Data::F16(single.iter().map(|&s| half::f16::from_f32(s)).collect()),
            Some(DType::BF16) => Data::BF16(single.iter().map(|&s| half::bf16::from_f32(s)).collect()),
            _ => Data::F32(single.into()),
        };
        tensor::encode("", data.dtype(), &Tensor::new(shape, data)?)
    }
}

pub(super) fn value_info(name: &str, dtype: Option<DType>, shape: Option<&[Dim]>) -> ValueInfoProto {
    let dim = |d: &Dim| match d {
        Dim::Fixed(v) => DimensionProto { dim_value: i64::try_from(*v).ok(), dim_param: None },
        Dim::Symbol(name) => DimensionProto { dim_value: None, dim_param: (!name.is_empty()).then(|| name.clone()) },
    };
    let tensor_type = TensorTypeProto {
        elem_type: Some(dtype.map_or(super::proto::data_type::FLOAT, tensor::number)),
        shape: shape.map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    ValueInfoProto { name: Some(name.to_string()), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
