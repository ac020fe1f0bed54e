//! The graph: float operators in ONNX terms, and encodings on their tensors.
//!
//! Whatever a file used (a float model with an `.encodings` file, QDQ pairs, QLinear operators), the graph holds float
//! operators; quantization is an attribute of tensors. A tensor whose integers are in the file keeps them in `codes`.

mod constant;
pub mod encodings;
pub(crate) mod movement;
mod order;
pub mod parameters;
pub mod qdq;
pub mod qlinear;
mod spell_out;

pub use constant::Constant;

use crate::encoding::Encoding;
use crate::num::FloatType;
use crate::tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Attributes of any node whose names begin with this state a parameter of the target: `nputwin.rounding_mode`.
pub const PARAMETER_PREFIX: &str = "nputwin.";

/// Index of a tensor in [`Graph::tensors`].
pub type TensorId = usize;

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(usize),
    /// A name, or the empty string where the file gives neither.
    Symbol(String),
}

/// A tensor of the graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TensorInfo {
    /// Its name in the file (of the float tensor, where the file quantizes it).
    pub name: String,
    /// Element type of the float or index value, where declared.
    pub dtype: Option<DType>,
    /// Declared shape.
    pub shape: Option<Vec<Dim>>,
    /// Value of an initializer: floats for quantized weights, computed from `codes` on demand where the file had integers.
    pub constant: Option<Constant>,
    /// Integers of a quantized initializer as the file has them.
    pub codes: Option<Constant>,
    /// How the tensor is quantized.
    pub encoding: Option<Arc<Encoding>>,
    /// Float format in which the tensor is held instead of integers, where an encodings file says so.
    pub float: Option<FloatType>,
    /// Names that the file gives the quantized form (`…_QuantizeLinear_Output`) and its dequantized twin.
    pub aliases: Vec<String>,
    /// Whether the file holds a tensor of rank 4 as `N H W C` that the graph has as `N C H W`: ports and captures have the
    /// file's order.
    pub channels_last: bool,
}

impl TensorInfo {
    /// The declared shape in the order that the outside sees.
    pub fn outer_shape(&self) -> Option<Vec<Dim>> {
        let dims = self.shape.as_ref()?;
        Some(match dims.as_slice() {
            [n, c, h, w] if self.channels_last => [n, h, w, c].map(Dim::clone).to_vec(),
            dims => dims.to_vec(),
        })
    }
}

/// Real bounds that a fused activation puts on a node's output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clamp {
    /// Smallest real, or minus infinity.
    pub lo: f32,
    /// Largest real, or infinity.
    pub hi: f32,
}

/// Value of a node's attribute.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Attribute {
    Int(i64),
    Float(f32),
    String(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
    Tensor(Arc<Tensor>),
}

/// An operator and what it reads and writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Name in the file; the first output's name where it has none.
    pub name: String,
    /// ONNX operator.
    pub op_type: String,
    /// Empty for ONNX's own operators.
    pub domain: String,
    /// Inputs; `None` where an optional input is left out.
    pub inputs: Vec<Option<TensorId>>,
    /// Outputs; `None` where an optional output is left out.
    pub outputs: Vec<Option<TensorId>>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
    /// Bounds of a fused activation in codes of the first output, where the file gives them as codes.
    pub code_clamp: Option<(i64, i64)>,
    /// Bounds of a fused activation in reals, where the file gives them so.
    pub clamp: Option<Clamp>,
}

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name at the outside.
    pub name: String,
    /// The tensor.
    pub tensor: TensorId,
    /// Whether the outside sees the integers of the tensor's encoding instead of reals.
    pub quantized: bool,
}

/// A model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// Name in the file.
    pub name: String,
    /// Version of each operator domain; the key of ONNX's own is the empty string.
    pub opsets: BTreeMap<String, i64>,
    /// All tensors.
    pub tensors: Vec<TensorInfo>,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Inputs without initializers.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
}

impl Graph {
    /// Adds a tensor.
    pub fn add_tensor(&mut self, info: TensorInfo) -> TensorId {
        self.tensors.push(info);
        self.tensors.len() - 1
    }

    /// The tensor of a name or alias.
    pub fn find(&self, name: &str) -> Option<TensorId> {
        self.tensors
            .iter()
            .position(|t| t.name == name)
            .or_else(|| self.tensors.iter().position(|t| t.aliases.iter().any(|a| a == name)))
    }

    /// For each tensor, the nodes that read it.
    pub fn consumers(&self) -> Vec<Vec<usize>> {
        let mut out = vec![Vec::new(); self.tensors.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            for &t in node.inputs.iter().flatten() {
                if out[t].last() != Some(&n) {
                    out[t].push(n);
                }
            }
        }
        out
    }

    /// For each tensor, the node that writes it.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut out = vec![None; self.tensors.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            for &t in node.outputs.iter().flatten() {
                out[t] = Some(n);
            }
        }
        out
    }

    /// Opset of a domain, 1 where the file names none.
    pub fn opset(&self, domain: &str) -> i64 {
        let key = if domain == "ai.onnx" { "" } else { domain };
        self.opsets.get(key).copied().unwrap_or(1)
    }
}

impl Node {
    /// An integer attribute or its default.
    pub fn int(&self, name: &str, default: i64) -> crate::Result<i64> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Int(v)) => Ok(*v),
            Some(_) => Err(self.wrong_type(name, "an int")),
        }
    }

    /// A float attribute or its default.
    pub fn float(&self, name: &str, default: f32) -> crate::Result<f32> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Float(v)) => Ok(*v),
            Some(_) => Err(self.wrong_type(name, "a float")),
        }
    }

    /// A string attribute or its default.
    pub fn string<'a>(&'a self, name: &str, default: &'a str) -> crate::Result<&'a str> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::String(v)) => Ok(v),
            Some(_) => Err(self.wrong_type(name, "a string")),
        }
    }

    /// A list of integers, where present.
    pub fn ints(&self, name: &str) -> crate::Result<Option<&[i64]>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(v)) => Ok(Some(v)),
            Some(_) => Err(self.wrong_type(name, "a list of ints")),
        }
    }

    fn wrong_type(&self, name: &str, expected: &str) -> crate::Error {
        crate::Error::invalid("attribute_type", format!("attribute '{name}' is not {expected}"))
            .at_node(&self.name, &self.op_type)
    }

    /// Fails where the node has an attribute that is not in `known`: nothing is silently ignored.
    pub fn check_attributes(&self, known: &[&str]) -> crate::Result<()> {
        let known = |k: &str| known.contains(&k) || k.starts_with(PARAMETER_PREFIX);
        match self.attributes.keys().find(|k| !known(k)) {
            None => Ok(()),
            Some(k) => Err(crate::Error::unsupported("attribute_unknown", format!("attribute '{k}' is not known"))
                .at_node(&self.name, &self.op_type)),
        }
    }
}

/// The wanted name, with a number behind it where it is taken; it is taken from then on.
pub fn fresh_name(names: &mut HashSet<String>, wanted: String) -> String {
    let mut name = wanted.clone();
    let mut i = 1;
    while !names.insert(name.clone()) {
        name = format!("{wanted}_{i}");
        i += 1;
    }
    name
}
