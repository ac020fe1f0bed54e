//! From the tables of a file to checked plain values: every index, shape, length and scale that the importer uses.

use super::schema;
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::graph::parameters::code_type;
use crate::tensor::{DType, Data, Tensor as Values, element_count};
use half::{bf16, f16};
use std::collections::HashSet;
use std::sync::Arc;

/// A graph as the file has it.
#[derive(Debug)]
pub struct File<'a> {
    /// Name of the graph.
    pub name: String,
    /// All tensors.
    pub tensors: Vec<Tensor<'a>>,
    /// Operators in the order in which they run.
    pub operators: Vec<Operator<'a>>,
    /// Tensors that are fed.
    pub inputs: Vec<usize>,
    /// Tensors that are wanted.
    pub outputs: Vec<usize>,
}

/// A tensor as the file has it.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// Unique name.
    pub name: String,
    /// Shape in the file's order, with 1 for open dimensions.
    pub shape: Vec<usize>,
    /// Whether each dimension is open.
    pub open: Vec<bool>,
    /// Type of the elements.
    pub dtype: DType,
    /// Bytes of a constant.
    pub bytes: Option<&'a [u8]>,
    /// How the elements stand for reals, where they do.
    pub encoding: Option<Arc<Encoding>>,
}

/// An operator as the file has it.
#[derive(Debug)]
pub struct Operator<'a> {
    /// Name of the built-in operator.
    pub kind: &'static str,
    /// Name of the first output.
    pub name: String,
    /// Operands; `None` where an optional one is left out.
    pub inputs: Vec<Option<usize>>,
    /// Results.
    pub outputs: Vec<usize>,
    /// The table, for its options.
    pub table: schema::Operator<'a>,
}

impl<'a> Operator<'a> {
    /// An operand that must be there.
    pub fn input(&self, i: usize) -> Result<usize> {
        self.optional(i).ok_or_else(|| Error::invalid("node_inputs", format!("operand {i} is missing")))
    }

    /// An operand that may be left out.
    pub fn optional(&self, i: usize) -> Option<usize> {
        self.inputs.get(i).copied().flatten()
    }

    /// The only result.
    pub fn output(&self) -> Result<usize> {
        match self.outputs.as_slice() {
            [output] => Ok(*output),
            other => Err(Error::invalid("node_outputs", format!("{} results instead of one", other.len()))),
        }
    }

    /// Fails where the number of operands is outside `range`.
    pub fn operands(&self, range: std::ops::RangeInclusive<usize>) -> Result<()> {
        match range.contains(&self.inputs.len()) {
            true => Ok(()),
            false => Err(Error::invalid("node_inputs", format!("{} operands", self.inputs.len()))),
        }
    }

    /// The options, which must be there.
    pub fn options<T: schema::Options<'a>>(&self) -> Result<T> {
        self.table.options::<T>().ok_or_else(|| {
            let message = format!("the operator has no {} (options of type {})", T::NAME, self.table.options_type());
            Error::invalid("node_options", message)
        })
    }

    /// The options, where the file has them; another type of options is an error.
    pub fn optional_options<T: schema::Options<'a>>(&self) -> Result<Option<T>> {
        if self.table.options_type() == 0 { Ok(None) } else { self.options::<T>().map(Some) }
    }
}

impl Tensor<'_> {
    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Whether the file holds its value.
    pub fn is_constant(&self) -> bool {
        self.bytes.is_some()
    }

    /// The elements of a constant; codes where it is quantized.
    pub fn values(&self) -> Result<Values> {
        let Some(bytes) = self.bytes else {
            return Err(Error::unsupported("input_not_constant", "the operand must be constant").at_tensor(&self.name));
        };
        macro_rules! numbers {
            ($t:ty) => {
                bytes
                    .chunks_exact(size_of::<$t>())
                    .map(|b| <$t>::from_le_bytes(b.try_into().expect("chunks have the size of the type")))
            };
        }
        let data = match self.dtype {
            DType::F64 => Data::F64(numbers!(f64).collect()),
            DType::F32 => Data::F32(numbers!(f32).collect()),
            DType::F16 => Data::F16(numbers!(u16).map(f16::from_bits).collect()),
            DType::BF16 => Data::BF16(numbers!(u16).map(bf16::from_bits).collect()),
            DType::I64 => Data::I64(numbers!(i64).collect()),
            DType::I32 => Data::I32(numbers!(i32).collect()),
            DType::I16 => Data::I16(numbers!(i16).collect()),
            DType::I8 => Data::I8(bytes.iter().map(|&b| b as i8).collect()),
            DType::U64 => Data::U64(numbers!(u64).collect()),
            DType::U32 => Data::U32(numbers!(u32).collect()),
            DType::U16 => Data::U16(numbers!(u16).collect()),
            DType::U8 => Data::U8(bytes.to_vec().into()),
            DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
            // Several codes per byte, the first one in the low bits.
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
                let bits = self.dtype.packed_bits().unwrap_or(8);
                let in_byte = move |&b: &u8| (0..8 / bits).map(move |i| b << (8 - bits * (i + 1)));
                let high = bytes.iter().flat_map(in_byte).take(element_count(&self.shape)?);
                match self.dtype.in_memory() {
                    DType::U8 => Data::U8(high.map(|h| h >> (8 - bits)).collect()),
                    _ => Data::I8(high.map(|h| (h as i8) >> (8 - bits)).collect()),
                }
            }
        };
        Values::new(self.shape.clone(), data).map_err(|e| e.at_tensor(&self.name))
    }

    /// The elements of a constant that holds indices or sizes.
    pub fn integers(&self) -> Result<Vec<i64>> {
        if self.encoding.is_some() {
            return Err(Error::invalid("node_operand", "codes where indices are expected").at_tensor(&self.name));
        }
        self.values()?.to_i64().map_err(|e| e.at_tensor(&self.name))
    }
}

/// Reads and checks a file.
pub fn read(bytes: &[u8]) -> Result<File<'_>> {
    if bytes.get(4..8) != Some(schema::IDENTIFIER) {
        return Err(Error::invalid("model_identifier", "the identifier 'TFL3' is missing")
            .help("is this file really a model of this format?"));
    }
    let model = schema::model(bytes)
        .map_err(|e| Error::invalid("model_flatbuffer", format!("the file is damaged or cut short: {e}")))?;
    if model.version() != 3 {
        return Err(Error::unsupported(
            "model_version",
            format!("schema version {}; 3 is understood", model.version()),
        ));
    }
    let subgraphs = model.subgraphs().map(|s| (s.len(), s.iter().next()));
    let graph = match subgraphs {
        Some((1, Some(graph))) => graph,
        None | Some((0, _)) => return Err(Error::invalid("model_graph", "the model has no graph")),
        Some((count, _)) => {
            return Err(Error::unsupported("subgraphs", format!("the model has {count} subgraphs"))
                .help("convert one signature without control flow to a file of its own"));
        }
    };
    let tensors = tensors(bytes, &model, &graph)?;
    let count = tensors.len();
    let ports = |indices: Option<flatbuffers::Vector<'_, i32>>, what: &str| -> Result<Vec<usize>> {
        let place = |i: i32| usize::try_from(i).ok().filter(|&i| i < count);
        let fault = |i| Error::invalid("tensor_index", format!("{what} names tensor {i} of {count}"));
        indices.iter().flatten().map(|i| place(i).ok_or_else(|| fault(i))).collect()
    };
    let inputs = ports(graph.inputs(), "an input")?;
    let outputs = ports(graph.outputs(), "an output")?;
    if outputs.is_empty() {
        return Err(Error::invalid("graph_outputs", "the graph has no outputs"));
    }
    let operators = operators(&model, &graph, &tensors)?;
    Ok(File { name: graph.name().unwrap_or_default().to_string(), tensors, operators, inputs, outputs })
}

fn tensors<'a>(bytes: &'a [u8], model: &schema::Model<'a>, graph: &schema::SubGraph<'a>) -> Result<Vec<Tensor<'a>>> {
    // As many as the verifier has seen.
    let count = graph.tensors().map_or(0, |tensors| tensors.len());
    let (mut names, mut out) = (HashSet::with_capacity(count), Vec::with_capacity(count));
    for (i, table) in graph.tensors().iter().flatten().enumerate() {
        let given = table.name().filter(|n| !n.is_empty());
        let mut name = given.map_or_else(|| format!("tensor_{i}"), String::from);
        while !names.insert(name.clone()) {
            name = format!("{name}_{i}");
        }
        out.push(tensor(bytes, model, &table, name.clone()).map_err(|e| e.at_tensor(&name))?);
    }
    Ok(out)
}

fn tensor<'a>(
    file: &'a [u8],
    model: &schema::Model<'a>,
    table: &schema::Tensor<'a>,
    name: String,
) -> Result<Tensor<'a>> {
    if table.is_variable() {
        return Err(Error::unsupported("variable_tensor", "the tensor is a variable: it keeps its value between runs"));
    }
    if table.sparsity().is_some() {
        return Err(Error::unsupported("sparse_tensor", "the tensor is stored sparse"));
    }
    if table.external_buffer() != 0 {
        return Err(Error::unsupported("external_buffer", "the tensor lies in another file"));
    }
    let dtype = dtype(table.r#type())?;
    let shape: Vec<usize> = table
        .shape()
        .iter()
        .flatten()
        .map(|d| usize::try_from(d).map_err(|_| Error::invalid("shape_negative", format!("dimension {d} is negative"))))
        .collect::<Result<_>>()?;
    let count = element_count(&shape)?;
    let signature: Vec<i32> = table.shape_signature().iter().flatten().collect();
    let open = match signature.len() {
        0 => vec![false; shape.len()],
        n if n == shape.len() => signature.iter().map(|&d| d < 0).collect(),
        n => return Err(Error::invalid("shape_signature", format!("{n} dimensions beside the shape {shape:?}"))),
    };
    let bytes = buffer(file, model, table.buffer())?;
    if let Some(bytes) = bytes {
        let needed = match dtype.packed_bits() {
            Some(bits) => count.div_ceil(8 / bits as usize),
            None => count * dtype.size(),
        };
        if bytes.len() != needed {
            let message = format!("{} bytes for a {dtype} tensor of shape {shape:?}, which has {needed}", bytes.len());
            return Err(Error::invalid("tensor_bytes", message));
        }
    }
    let encoding = table.quantization().map(|q| encoding(&q, dtype, &shape)).transpose()?.flatten().map(Arc::new);
    Ok(Tensor { name, shape, open, dtype, bytes, encoding })
}

/// The type of an element by the schema's `TensorType`.
pub fn dtype(number: i8) -> Result<DType> {
    Ok(match number {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::I32,
        3 => DType::U8,
        4 => DType::I64,
        6 => DType::Bool,
        7 => DType::I16,
        9 => DType::I8,
        10 => DType::F64,
        12 => DType::U64,
        15 => DType::U32,
        16 => DType::U16,
        17 => DType::I4,
        18 => DType::BF16,
        20 => DType::U4,
        other => return Err(Error::unsupported("tensor_type", format!("elements of TensorType {other}"))),
    })
}

/// The bytes of a buffer; an empty one holds no constant.
fn buffer<'a>(file: &'a [u8], model: &schema::Model<'a>, index: u32) -> Result<Option<&'a [u8]>> {
    let buffers = model.buffers();
    let count = buffers.map_or(0, |b| b.len());
    let Some(buffer) = buffers.filter(|_| (index as usize) < count).map(|b| b.get(index as usize)) else {
        // Buffer 0 is the empty one by convention, even where the file has none.
        return match index {
            0 => Ok(None),
            _ => Err(Error::invalid("buffer_index", format!("the tensor's buffer is {index} of {count}"))),
        };
    };
    // Offsets 0 and 1 are placeholders: the data is in the flatbuffer.
    if buffer.offset() > 1 {
        let outside = || Error::invalid("buffer_range", format!("buffer {index} lies outside the file"));
        let start = usize::try_from(buffer.offset()).map_err(|_| outside())?;
        let size = usize::try_from(buffer.size()).map_err(|_| outside())?;
        let bytes = start.checked_add(size).and_then(|end| file.get(start..end)).ok_or_else(outside)?;
        return Ok(Some(bytes).filter(|b| !b.is_empty()));
    }
    Ok(buffer.data().map(|d| d.bytes()).filter(|b| !b.is_empty()))
}

fn encoding(q: &schema::QuantizationParameters<'_>, dtype: DType, shape: &[usize]) -> Result<Option<Encoding>> {
    if q.details_type() != 0 {
        return Err(Error::unsupported("quantization_details", format!("quantization details {}", q.details_type()))
            .help("scales per tensor and per channel are understood"));
    }
    // As bytes: one by one takes as long as the rest of the tensor.
    let (scale, zero_point) = (q.scale().map(|v| v.bytes()), q.zero_point().map(|v| v.bytes()));
    let scale: Vec<f64> =
        scale.unwrap_or_default().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect();
    let mut zero_point: Vec<i64> =
        zero_point.unwrap_or_default().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
    if scale.is_empty() {
        return Ok(None);
    }
    // Biases may have codes of 64 bits; the grid is that of 32.
    let grid = if dtype == DType::I64 { DType::I32 } else { dtype };
    // Ranges that a converter left on reals say nothing.
    let Some((bitwidth, signed)) = code_type(grid) else { return Ok(None) };
    match zero_point.len() {
        0 => zero_point = vec![0; scale.len()],
        1 => zero_point = vec![zero_point[0]; scale.len()],
        n if n == scale.len() => {}
        n => {
            return Err(Error::invalid("encoding_length", format!("{} scales and {n} zero points", scale.len())));
        }
    }
    let granularity = if scale.len() == 1 {
        Granularity::PerTensor
    } else {
        let axis = usize::try_from(q.quantized_dimension()).ok().filter(|&a| a < shape.len()).ok_or_else(|| {
            let message = format!("quantized dimension {} of shape {shape:?}", q.quantized_dimension());
            Error::invalid("encoding_axis", message)
        })?;
        if shape[axis] != scale.len() {
            let message = format!("{} scales along axis {axis} of shape {shape:?}", scale.len());
            return Err(Error::invalid("encoding_length", message));
        }
        Granularity::PerChannel { axis }
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
    encoding.validate()?;
    Ok(Some(encoding))
}

fn operators<'a>(
    model: &schema::Model<'a>,
    graph: &schema::SubGraph<'a>,
    tensors: &[Tensor<'_>],
) -> Result<Vec<Operator<'a>>> {
    let codes: Vec<schema::OperatorCode<'_>> = model.operator_codes().iter().flatten().collect();
    let mut out = Vec::new();
    for (i, table) in graph.operators().iter().flatten().enumerate() {
        let unnamed = |e: Error| e.at_node(&format!("operator {i}"), "?");
        let code = codes.get(table.opcode_index() as usize).ok_or_else(|| {
            let message = format!("operator code {} of {}", table.opcode_index(), codes.len());
            unnamed(Error::invalid("opcode_index", message))
        })?;
        let kind = kind(code).map_err(unnamed)?;
        let here = |e: Error| e.at_node(&format!("operator {i}"), kind);
        let place = |t: i32| match usize::try_from(t) {
            Ok(t) if t < tensors.len() => Ok(t),
            _ => Err(here(Error::invalid("tensor_index", format!("tensor {t} of {}", tensors.len())))),
        };
        let operand = |t: i32| if t == -1 { Ok(None) } else { place(t).map(Some) };
        let inputs = table.inputs().iter().flatten().map(operand).collect::<Result<Vec<_>>>()?;
        let outputs = table.outputs().iter().flatten().map(place).collect::<Result<Vec<_>>>()?;
        let Some(first) = outputs.first() else {
            return Err(here(Error::invalid("node_outputs", "the operator has no result")));
        };
        let name = tensors[*first].name.clone();
        if let Some(constant) = outputs.iter().find(|&&t| tensors[t].is_constant()) {
            let message = format!("the operator writes the constant '{}'", tensors[*constant].name);
            return Err(Error::invalid("node_outputs", message).at_node(&name, kind));
        }
        out.push(Operator { kind, name, inputs, outputs, table });
    }
    Ok(out)
}

/// The name of an operator. Files of older writers have it in the narrow field alone, which then is the larger one.
fn kind(code: &schema::OperatorCode<'_>) -> Result<&'static str> {
    let number = code.builtin_code().max(code.deprecated_builtin_code().into());
    let name = usize::try_from(number).ok().and_then(|n| schema::OPERATORS.get(n)).copied();
    match name {
        None => Err(Error::unsupported("op_unknown", format!("built-in operator {number}"))),
        Some("CUSTOM") => {
            let custom = code.custom_code().unwrap_or_default();
            Err(Error::unsupported("op_custom", format!("the custom operator '{custom}'")))
        }
        Some(name) => Ok(name),
    }
}
