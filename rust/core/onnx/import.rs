//! From the messages of a file to a graph, node by node; quantization is folded afterwards.

use super::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use super::{attributes, tensor};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Dim, Graph, Node, Port, TensorId, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::Path;

/// Versions of ONNX's own operators that are understood.
const OPSETS: RangeInclusive<i64> = 7..=28;

/// Domains besides ONNX's whose operators stay nodes.
const MICROSOFT: &str = "com.microsoft";
const OWN: &str = "nputwin";

/// A graph whose nodes are those of the file in topological order, `Constant` nodes and copies of constants resolved.
pub fn import(model: ModelProto, base_dir: Option<&Path>) -> Result<Graph> {
    let opsets = opsets(&model)?;
    if let Some(function) = model.functions.first() {
        let name = function.name.as_deref().unwrap_or_default();
        return Err(Error::unsupported("local_function", format!("the model defines the function '{name}'"))
            .help("inline local functions (onnx.inliner.inline_local_functions)"));
    }
    if !model.training_info.is_empty() {
        return Err(Error::unsupported("training_info", "the model has training graphs"));
    }
    let graph = model.graph.ok_or_else(|| {
        Error::invalid("model_graph", "the model has no graph").help("is this file really an ONNX model?")
    })?;
    let mut import = Import { graph: Graph { opsets, ..Graph::default() }, ids: HashMap::new(), base_dir };
    import.run(graph)?;
    Ok(import.graph)
}

fn opsets(model: &ModelProto) -> Result<BTreeMap<String, i64>> {
    let mut opsets = BTreeMap::new();
    for import in &model.opset_import {
        let domain = canonical(import.domain.as_deref().unwrap_or_default());
        let version = import.version.unwrap_or_default();
        if opsets.insert(domain.to_string(), version).is_some_and(|earlier| earlier != version) {
            return Err(Error::invalid("opset_twice", format!("two versions of operator domain '{domain}'")));
        }
    }
    match opsets.get("") {
        None if model.graph.is_none() => {}
        None => return Err(Error::invalid("opset_missing", "the model names no opset version of ONNX's operators")),
        Some(v) if !OPSETS.contains(v) => {
            let (first, last) = OPSETS.into_inner();
            return Err(Error::unsupported("opset_version", format!("opset {v}; {first} to {last} are understood"))
                .help("convert the model (onnx.version_converter.convert_version)"));
        }
        Some(_) => {}
    }
    Ok(opsets)
}

fn canonical(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

struct Import<'a> {
    graph: Graph,
    ids: HashMap<String, TensorId>,
    base_dir: Option<&'a Path>,
}

impl Import<'_> {
    fn run(&mut self, proto: GraphProto) -> Result<()> {
        if let Some(sparse) = proto.sparse_initializer.first() {
            let name = sparse.values.as_ref().and_then(|v| v.name.as_deref()).unwrap_or_default();
            return Err(Error::unsupported("sparse_initializer", "sparse tensors").at_tensor(name));
        }
        self.graph.name = proto.name.unwrap_or_default();
        for initializer in proto.initializer {
            let name = initializer.name.clone().unwrap_or_default();
            let (dtype, tensor) = tensor::decode(initializer, self.base_dir)?;
            let constant = Some(tensor.into());
            self.add(TensorInfo { name, dtype: Some(dtype), constant, ..TensorInfo::default() })?;
        }
        self.inputs(proto.input)?;
        let mut operators = Vec::new();
        for node in proto.node {
            let (name, op_type) = (node_name(&node), node.op_type.clone().unwrap_or_default());
            self.node(node, &mut operators).map_err(|e| e.at_node(&name, &op_type))?;
        }
        for (inputs, mut node) in operators {
            node.inputs = inputs
                .iter()
                .map(|name| self.read_by(name))
                .collect::<Result<_>>()
                .map_err(|e| e.at_node(&node.name, &node.op_type))?;
            self.spell_out_cast(&mut node);
            self.graph.nodes.push(node);
        }
        for value in proto.value_info {
            if let Some(&id) = self.ids.get(value.name.as_deref().unwrap_or_default()) {
                self.declare(id, &value)?;
            }
        }
        self.outputs(proto.output)?;
        self.graph.sort()?;
        self.resolve_copies();
        self.graph.remove_unused_tensors();
        Ok(())
    }

    /// Makes a CastLike to a packed type a Cast: the tensor that states the type has bytes in memory, and so does not.
    fn spell_out_cast(&self, node: &mut Node) {
        let like = node.inputs.get(1).copied().flatten().and_then(|t| self.graph.tensors[t].dtype);
        let packed = like.filter(|dtype| dtype.packed_bits().is_some());
        if let ("CastLike", "", Some(dtype)) = (node.op_type.as_str(), node.domain.as_str(), packed) {
            node.op_type = "Cast".into();
            node.inputs.truncate(1);
            node.attributes.insert("to".into(), Attribute::Int(tensor::number(dtype).into()));
        }
    }

    fn add(&mut self, info: TensorInfo) -> Result<TensorId> {
        if info.name.is_empty() {
            return Err(Error::invalid("tensor_name", "a tensor has no name"));
        }
        let name = info.name.clone();
        let id = self.graph.add_tensor(info);
        if self.ids.insert(name.clone(), id).is_some() {
            return Err(Error::invalid("tensor_twice", format!("two tensors are called '{name}'")).at_tensor(&name));
        }
        Ok(id)
    }

    fn inputs(&mut self, inputs: Vec<ValueInfoProto>) -> Result<()> {
        let constants = self.graph.tensors.len();
        for input in inputs {
            let name = input.name.clone().unwrap_or_default();
            if let Some(&id) = self.ids.get(&name).filter(|&&id| id < constants) {
                self.declare(id, &input)?;
                continue;
            }
            let id = self.add(TensorInfo { name: name.clone(), ..TensorInfo::default() })?;
            self.declare(id, &input)?;
            if self.graph.tensors[id].dtype.is_none() {
                return Err(Error::unsupported("value_type", "the input is not a dense tensor").at_tensor(&name));
            }
            self.graph.inputs.push(Port { name, tensor: id, quantized: false });
        }
        Ok(())
    }

    fn outputs(&mut self, outputs: Vec<ValueInfoProto>) -> Result<()> {
        if outputs.is_empty() {
            return Err(Error::invalid("graph_outputs", "the graph has no outputs"));
        }
        for output in outputs {
            let name = output.name.clone().unwrap_or_default();
            let Some(&id) = self.ids.get(&name) else {
                let message = format!("nothing computes the output '{name}'");
                return Err(Error::invalid("output_missing", message).at_tensor(&name));
            };
            if self.graph.outputs.iter().any(|p| p.name == name) {
                return Err(Error::invalid("output_twice", format!("two outputs are called '{name}'")));
            }
            self.declare(id, &output)?;
            self.graph.outputs.push(Port { name, tensor: id, quantized: false });
        }
        Ok(())
    }

    /// Takes over the declared type and shape, and checks them against what is known.
    fn declare(&mut self, id: TensorId, value: &ValueInfoProto) -> Result<()> {
        let info = &mut self.graph.tensors[id];
        let Some(declared) = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else { return Ok(()) };
        let at = |e: Error| e.at_tensor(value.name.as_deref().unwrap_or_default());
        if let Some(number) = declared.elem_type.filter(|&n| n != 0) {
            let dtype = tensor::dtype(number).map_err(at)?;
            if info.dtype.is_some_and(|known| known != dtype) {
                let known = info.dtype.unwrap_or(dtype);
                return Err(at(Error::invalid("tensor_type_conflict", format!("declared {dtype}, but it is {known}"))));
            }
            info.dtype = Some(dtype);
        }
        if let Some(shape) = &declared.shape {
            let dims = shape
                .dim
                .iter()
                .map(|d| match (d.dim_value, &d.dim_param) {
                    (Some(v), _) => usize::try_from(v)
                        .map(Dim::Fixed)
                        .map_err(|_| at(Error::invalid("shape_negative", format!("dimension {v} is negative")))),
                    (None, name) => Ok(Dim::Symbol(name.clone().unwrap_or_default())),
                })
                .collect::<Result<Vec<_>>>()?;
            if let Some(constant) = &info.constant {
                let fits = |(d, &n): (&Dim, &usize)| !matches!(d, Dim::Fixed(v) if *v != n);
                if dims.len() != constant.shape().len() || !dims.iter().zip(constant.shape()).all(fits) {
                    let message = format!("declared {dims:?}, its data has shape {:?}", constant.shape());
                    return Err(at(Error::invalid("tensor_shape_conflict", message)));
                }
            } else {
                info.shape = Some(dims);
            }
        }
        Ok(())
    }

    fn node(&mut self, proto: NodeProto, operators: &mut Vec<(Vec<String>, Node)>) -> Result<()> {
        let op_type = proto.op_type.clone().unwrap_or_default();
        if op_type.is_empty() {
            return Err(Error::invalid("node_operator", "the node names no operator"));
        }
        let domain = canonical(proto.domain.as_deref().unwrap_or_default()).to_string();
        if !["", MICROSOFT, OWN].contains(&domain.as_str()) {
            return Err(Error::unsupported("operator_domain", format!("operators of domain '{domain}'")));
        }
        if !self.graph.opsets.contains_key(&domain) {
            return Err(Error::invalid("opset_domain", format!("the model imports no version of domain '{domain}'")));
        }
        let name = node_name(&proto);
        if domain.is_empty() && op_type == "Constant" {
            let [output] = proto.output.as_slice() else {
                return Err(Error::invalid("constant_value", "a constant must have one output"));
            };
            let output = output.clone();
            let (dtype, tensor) = attributes::constant(proto, self.base_dir)?;
            let constant = Some(tensor.into());
            self.add(TensorInfo { name: output, dtype: Some(dtype), constant, ..TensorInfo::default() })?;
            return Ok(());
        }
        let attributes = attributes::decode(proto.attribute, self.base_dir)?;
        let mut outputs = Vec::with_capacity(proto.output.len());
        for output in proto.output {
            outputs.push(match output.as_str() {
                "" => None,
                _ => Some(self.add(TensorInfo { name: output, ..TensorInfo::default() })?),
            });
        }
        if outputs.iter().all(Option::is_none) {
            return Err(Error::invalid("node_outputs", "the node has no output"));
        }
        operators.push((
            proto.input,
            Node { name, op_type, domain, inputs: Vec::new(), outputs, attributes, code_clamp: None, clamp: None },
        ));
        Ok(())
    }

    fn read_by(&self, name: &str) -> Result<Option<TensorId>> {
        if name.is_empty() {
            return Ok(None);
        }
        self.ids.get(name).copied().map(Some).ok_or_else(|| {
            Error::invalid("producer_missing", format!("reads '{name}', which no input, initializer or node provides"))
        })
    }

    /// Replaces each `Identity` of a constant by a constant of its own. The first copy of a constant that nothing else
    /// reads takes over its name as an alias.
    fn resolve_copies(&mut self) {
        let mut copies: Vec<(TensorId, TensorId)> = Vec::new();
        let tensors = &mut self.graph.tensors;
        self.graph.nodes.retain(|node| {
            let (true, [Some(from)], [Some(to)]) =
                (node.domain.is_empty() && node.op_type == "Identity", node.inputs.as_slice(), node.outputs.as_slice())
            else {
                return true;
            };
            let Some(constant) = tensors[*from].constant.clone() else { return true };
            tensors[*to].dtype = tensors[*from].dtype;
            tensors[*to].constant = Some(constant);
            copies.push((*from, *to));
            false
        });
        let consumers = self.graph.consumers();
        let mut inherited = vec![false; self.graph.tensors.len()];
        for (from, to) in copies {
            let read = !consumers[from].is_empty() || self.graph.outputs.iter().any(|p| p.tensor == from);
            if !read && !std::mem::replace(&mut inherited[from], true) {
                let mut names = std::mem::take(&mut self.graph.tensors[from].aliases);
                names.insert(0, self.graph.tensors[from].name.clone());
                self.graph.tensors[to].aliases = names;
            }
        }
    }
}

fn node_name(node: &NodeProto) -> String {
    let named = node.name.as_deref().filter(|n| !n.is_empty());
    named.or(node.output.iter().map(String::as_str).find(|o| !o.is_empty())).unwrap_or_default().to_string()
}
