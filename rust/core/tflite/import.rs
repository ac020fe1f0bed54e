//! From a checked file to a graph: tensors, constants in the order that the graph has, and Transposes between orders.

use super::layout::{self, Demand};
use super::operators;
use super::reader::{File, Operator, Tensor as FileTensor};
use crate::arrays::{Contents, Part};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Clamp, Constant, Dim, Graph, Node, Port, TensorId, TensorInfo};
use crate::tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Opset whose operators the graph has.
const OPSET: i64 = 21;

/// Order of the axes `N C H W` in terms of `N H W C`.
pub const TO_FRONT: [usize; 4] = [0, 3, 1, 2];

/// Order of the axes `N H W C` in terms of `N C H W`.
const TO_BACK: [usize; 4] = [0, 2, 3, 1];

/// The graph of a file, not yet checked.
pub fn import(contents: &Arc<Contents>, file: &File<'_>) -> Result<Graph> {
    check_writers(file)?;
    let mut builder = Builder::new(contents, file);
    builder.ports()?;
    for op in &file.operators {
        let site = Site { op, turned: layout::demand(file, op) != Demand::File };
        operators::import(&mut builder, site)
            .and_then(|()| builder.flush())
            .map_err(|e| e.at_node(&op.name, op.kind))?;
    }
    Ok(builder.finish())
}

/// Refuses files where two operators write a tensor, or one writes what is given. Tensors that are one in the graph, such as
/// the codes and the reals of an output, would hide it.
fn check_writers(file: &File<'_>) -> Result<()> {
    let mut given = vec![false; file.tensors.len()];
    file.inputs.iter().for_each(|&t| given[t] = true);
    for op in &file.operators {
        for &t in &op.outputs {
            if std::mem::replace(&mut given[t], true) {
                let message = "the tensor is written twice, or is an input and written";
                let error = Error::invalid("tensor_twice", format!("{message}, in the end by '{}'", op.name));
                return Err(error.at_tensor(&file.tensors[t].name));
            }
        }
    }
    Ok(())
}

/// An operator, and whether it takes turned images as the graph has them.
#[derive(Clone, Copy)]
pub struct Site<'s, 'f> {
    /// The operator.
    pub op: &'s Operator<'f>,
    /// Whether it takes them turned; otherwise in the file's order.
    pub turned: bool,
}

/// Bytes of codes from which on a constant refers to the file.
const STORED: usize = 1 << 10;

/// A graph that grows operator by operator.
pub struct Builder<'s, 'f> {
    /// The file.
    pub file: &'s File<'f>,
    /// Its bytes.
    contents: &'s Arc<Contents>,
    graph: Graph,
    /// For each tensor, whether its channels are in front in the graph.
    front: Vec<bool>,
    /// For each tensor, the one that holds it in the graph.
    ids: Vec<Option<TensorId>>,
    /// Turned tensors in the file's order, made where an operator reads them so.
    turned_back: HashMap<usize, TensorId>,
    /// Constants by tensor, leading dimensions that were added, and order of axes.
    constants: HashMap<(usize, usize, Vec<usize>), TensorId>,
    /// Results in the file's order that have yet to be turned.
    pending: Vec<(TensorId, TensorId)>,
    names: HashSet<String>,
    /// Constants of the file whose names the graph has.
    named: HashSet<usize>,
    /// How many operators read each tensor.
    readers: Vec<usize>,
}

impl<'s, 'f> Builder<'s, 'f> {
    fn new(contents: &'s Arc<Contents>, file: &'s File<'f>) -> Self {
        let mut graph = Graph { name: file.name.clone(), ..Graph::default() };
        graph.opsets.insert(String::new(), OPSET);
        let mut readers = vec![0; file.tensors.len()];
        file.operators.iter().flat_map(|o| o.inputs.iter().flatten()).for_each(|&t| readers[t] += 1);
        Builder {
            file,
            contents,
            graph,
            front: layout::channels_in_front(file),
            ids: vec![None; file.tensors.len()],
            turned_back: HashMap::new(),
            constants: HashMap::new(),
            pending: Vec::new(),
            names: file.tensors.iter().map(|t| t.name.clone()).collect(),
            named: HashSet::new(),
            readers,
        }
    }

    fn ports(&mut self) -> Result<()> {
        for &t in &self.file.inputs {
            let tensor = &self.file.tensors[t];
            if tensor.is_constant() {
                return Err(
                    Error::invalid("input_constant", "an input of the graph is constant").at_tensor(&tensor.name)
                );
            }
            let id = self.activation(t);
            let port = Port { name: tensor.name.clone(), tensor: id, quantized: tensor.encoding.is_some() };
            self.graph.inputs.push(port);
        }
        for &t in &self.file.outputs {
            let tensor = &self.file.tensors[t];
            let id = if tensor.is_constant() { self.constant(t, 0, &[])? } else { self.activation(t) };
            let port = Port { name: tensor.name.clone(), tensor: id, quantized: tensor.encoding.is_some() };
            self.graph.outputs.push(port);
        }
        Ok(())
    }

    fn finish(mut self) -> Graph {
        self.graph.remove_unused_tensors();
        self.graph
    }

    /// A tensor of the file.
    pub fn tensor(&self, t: usize) -> &'s FileTensor<'f> {
        &self.file.tensors[t]
    }

    /// Whether only one operator reads the tensor and the outside does not.
    pub fn is_read_once(&self, t: usize) -> bool {
        self.readers[t] == 1 && !self.file.outputs.contains(&t)
    }

    /// How many operators read a tensor.
    pub fn readers_of(&self, t: usize) -> usize {
        self.readers[t]
    }

    /// A name that no other tensor has.
    fn fresh(&mut self, wanted: String) -> String {
        crate::graph::fresh_name(&mut self.names, wanted)
    }

    /// The type in the float graph.
    fn real_type(tensor: &FileTensor<'_>) -> DType {
        if tensor.encoding.is_some() { DType::F32 } else { tensor.dtype }
    }

    /// The tensor of the graph that holds an activation.
    pub fn activation(&mut self, t: usize) -> TensorId {
        if let Some(id) = self.ids[t] {
            return id;
        }
        let tensor = &self.file.tensors[t];
        let dims = tensor.shape.iter().zip(&tensor.open);
        let mut shape: Vec<Dim> =
            dims.map(|(&d, &open)| if open { Dim::Symbol(String::new()) } else { Dim::Fixed(d) }).collect();
        if self.front[t] {
            shape = TO_FRONT.map(|a| shape[a].clone()).to_vec();
        }
        let id = self.graph.add_tensor(TensorInfo {
            name: tensor.name.clone(),
            dtype: Some(Self::real_type(tensor)),
            shape: Some(shape),
            encoding: tensor.encoding.clone(),
            channels_last: self.front[t],
            ..TensorInfo::default()
        });
        self.ids[t] = Some(id);
        id
    }

    /// Gives the input `real` the encoding of the codes `t`, which are the same tensor from now on.
    pub fn quantize_input(&mut self, real: usize, t: usize) {
        let id = self.activation(real);
        self.graph.tensors[id].encoding = self.file.tensors[t].encoding.clone();
        if let Some(earlier) = self.ids[t] {
            self.graph.outputs.iter_mut().filter(|p| p.tensor == earlier).for_each(|p| p.tensor = id);
        }
        self.ids[t] = Some(id);
        self.graph.tensors[id].aliases.push(self.file.tensors[t].name.clone());
    }

    /// Makes the output `real` the reals of the codes `t`.
    pub fn dequantize_output(&mut self, real: usize, t: usize) {
        let id = self.activation(t);
        if let Some(earlier) = self.ids[real] {
            self.graph.outputs.iter_mut().filter(|p| p.tensor == earlier).for_each(|p| p.tensor = id);
        }
        self.ids[real] = Some(id);
        self.graph.tensors[id].aliases.push(self.file.tensors[real].name.clone());
    }

    /// A constant with `lead` dimensions of 1 in front and its axes in another order (all of them, or none).
    pub fn constant(&mut self, t: usize, lead: usize, order: &[usize]) -> Result<TensorId> {
        let key = (t, lead, order.to_vec());
        if let Some(&id) = self.constants.get(&key) {
            return Ok(id);
        }
        let tensor = &self.file.tensors[t];
        let mut encoding = tensor.encoding.clone();
        let all: Vec<usize> = (0..lead + tensor.rank()).collect();
        let axes = if order.is_empty() { &all } else { order };
        let stored = tensor.bytes.and_then(|bytes| Part::of(self.contents, bytes));
        let values = match stored.filter(|part| lead == 0 && encoding.is_some() && part.len() >= STORED) {
            Some(part) if matches!(tensor.dtype, DType::I8 | DType::U8) => {
                Constant::stored(part, tensor.dtype, &tensor.shape, axes)?
            }
            _ => {
                let values = tensor.values()?;
                let shape = [&vec![1; lead][..], values.shape()].concat();
                let values = values.reshaped(shape)?;
                if order.is_empty() { values.into() } else { Constant::turned(values, order)? }
            }
        };
        if let Some(encoding) = &mut encoding
            && let Granularity::PerChannel { axis } = encoding.granularity
        {
            let moved = axis + lead;
            let now = if order.is_empty() { moved } else { order.iter().position(|&a| a == moved).unwrap_or(moved) };
            if now != axis {
                Arc::make_mut(encoding).granularity = Granularity::PerChannel { axis: now };
            }
        }
        let name = self.name_of(t);
        let id = self.add_constant(name, values, encoding)?;
        self.constants.insert(key, id);
        Ok(id)
    }

    /// The name of a constant of the file; further ones for its further forms in the graph.
    pub fn name_of(&mut self, t: usize) -> String {
        let name = self.file.tensors[t].name.clone();
        if self.named.insert(t) { name } else { self.fresh(name) }
    }

    /// A constant of the graph; `values` are codes where there is an encoding.
    pub fn add_constant(
        &mut self,
        name: String,
        values: impl Into<Constant>,
        encoding: Option<Arc<Encoding>>,
    ) -> Result<TensorId> {
        let values = values.into();
        let (constant, codes) = match &encoding {
            None => (values, None),
            Some(encoding) => {
                let reals = Constant::dequantized(values.clone(), encoding.clone(), DType::F32);
                (reals.map_err(|e| e.at_tensor(&name))?, Some(values))
            }
        };
        Ok(self.graph.add_tensor(TensorInfo {
            name,
            dtype: Some(constant.dtype()),
            constant: Some(constant),
            codes,
            encoding,
            ..TensorInfo::default()
        }))
    }

    /// A constant list of integers.
    pub fn integers(&mut self, what: &str, site: Site<'_, '_>, values: Vec<i64>) -> TensorId {
        let name = self.fresh(format!("{}_{what}", site.op.name));
        let constant = Tensor::i64(&[values.len()], values);
        self.graph.add_tensor(TensorInfo {
            name,
            dtype: Some(DType::I64),
            constant: Some(constant.into()),
            ..TensorInfo::default()
        })
    }

    /// A constant real.
    pub fn real(&mut self, what: &str, site: Site<'_, '_>, value: f32) -> TensorId {
        let name = self.fresh(format!("{}_{what}", site.op.name));
        self.graph.add_tensor(TensorInfo {
            name,
            dtype: Some(DType::F32),
            constant: Some(Tensor::f32(&[], vec![value]).into()),
            ..TensorInfo::default()
        })
    }

    /// What an operator reads of a tensor, in the order that it takes.
    pub fn read(&mut self, site: Site<'_, '_>, t: usize) -> Result<TensorId> {
        if self.file.tensors[t].is_constant() {
            let order: &[usize] = if self.reads_front(site, t) { &TO_FRONT } else { &[] };
            return self.constant(t, 0, order);
        }
        if site.turned || !self.front[t] {
            return Ok(self.activation(t));
        }
        if let Some(&id) = self.turned_back.get(&t) {
            return Ok(id);
        }
        let from = self.activation(t);
        let to = self.in_file_order(t);
        self.transpose(from, to, &TO_BACK);
        self.turned_back.insert(t, to);
        Ok(to)
    }

    /// A new tensor like `t`, in the file's order.
    fn in_file_order(&mut self, t: usize) -> TensorId {
        let shape = self.file.tensors[t].shape.clone();
        self.like(t, "channels_last", shape)
    }

    /// A new tensor with the type and encoding of `t`. Without scales of channels it may have any shape.
    pub fn like(&mut self, t: usize, what: &str, shape: Vec<usize>) -> TensorId {
        let tensor = &self.file.tensors[t];
        let name = self.fresh(format!("{}_{what}", tensor.name));
        self.graph.add_tensor(TensorInfo {
            name,
            dtype: Some(Self::real_type(tensor)),
            shape: Some(shape.into_iter().map(|_| Dim::Symbol(String::new())).collect()),
            encoding: tensor.encoding.clone(),
            ..TensorInfo::default()
        })
    }

    /// A new tensor of a type, without encoding.
    pub fn scratch(&mut self, site: Site<'_, '_>, what: &str, dtype: DType) -> TensorId {
        let name = self.fresh(format!("{}_{what}", site.op.name));
        self.graph.add_tensor(TensorInfo { name, dtype: Some(dtype), ..TensorInfo::default() })
    }

    /// What an operator writes for a result.
    pub fn write(&mut self, site: Site<'_, '_>, t: usize) -> TensorId {
        let id = self.activation(t);
        if site.turned || !self.front[t] {
            return id;
        }
        let written = self.in_file_order(t);
        self.pending.push((written, id));
        self.turned_back.insert(t, written);
        written
    }

    /// Where an axis of the file's tensor lies in what the operator reads of it.
    pub fn axis(&self, site: Site<'_, '_>, t: usize, axis: i64) -> Result<i64> {
        let rank = self.file.tensors[t].rank();
        let place = if axis < 0 { axis + rank as i64 } else { axis };
        let place = usize::try_from(place)
            .ok()
            .filter(|&a| a < rank)
            .ok_or_else(|| Error::invalid("node_axis", format!("axis {axis} of a tensor of rank {rank}")))?;
        Ok(if self.reads_front(site, t) { [0, 2, 3, 1][place] } else { place as i64 })
    }

    /// Whether the operator has the tensor with its channels in front: a constant image is as the results are.
    pub fn reads_front(&self, site: Site<'_, '_>, t: usize) -> bool {
        let tensor = &self.file.tensors[t];
        let is_image = tensor.is_constant() && tensor.rank() == 4;
        site.turned && (self.front[t] || (is_image && site.op.outputs.iter().any(|&y| self.front[y])))
    }

    /// Adds a node that has the operator's name.
    pub fn node(
        &mut self,
        site: Site<'_, '_>,
        op_type: &str,
        inputs: &[Option<TensorId>],
        outputs: &[TensorId],
    ) -> &mut Node {
        let name = site.op.name.clone();
        self.add_node(name, op_type, inputs.to_vec(), outputs.to_vec())
    }

    /// Adds a node that has the name of what it writes.
    pub fn step(&mut self, op_type: &str, inputs: &[TensorId], output: TensorId) -> &mut Node {
        let name = self.graph.tensors[output].name.clone();
        let inputs = inputs.iter().copied().map(Some).collect();
        self.add_node(name, op_type, inputs, vec![output])
    }

    fn add_node(
        &mut self,
        name: String,
        op_type: &str,
        inputs: Vec<Option<TensorId>>,
        outputs: Vec<TensorId>,
    ) -> &mut Node {
        self.graph.nodes.push(Node {
            name,
            op_type: op_type.to_string(),
            inputs,
            outputs: outputs.into_iter().map(Some).collect(),
            attributes: BTreeMap::new(),
            ..Node::default()
        });
        self.graph.nodes.last_mut().expect("a node was pushed")
    }

    fn transpose(&mut self, from: TensorId, to: TensorId, order: &[usize]) {
        self.step("Transpose", &[from], to).set_axes("perm", order);
    }

    /// Turns the results that were written in the file's order.
    fn flush(&mut self) -> Result<()> {
        for (from, to) in std::mem::take(&mut self.pending) {
            self.transpose(from, to, &TO_FRONT);
        }
        Ok(())
    }
}

/// Setting attributes while a node is made.
pub trait Attributes {
    /// An integer.
    fn set_int(&mut self, name: &str, value: i64) -> &mut Self;
    /// Integers.
    fn set_ints(&mut self, name: &str, values: Vec<i64>) -> &mut Self;
    /// Axes.
    fn set_axes(&mut self, name: &str, values: &[usize]) -> &mut Self;
    /// A real.
    fn set_float(&mut self, name: &str, value: f32) -> &mut Self;
    /// A text.
    fn set_text(&mut self, name: &str, value: &str) -> &mut Self;
    /// A fused activation.
    fn set_clamp(&mut self, clamp: Option<Clamp>) -> &mut Self;
}

impl Attributes for Node {
    fn set_int(&mut self, name: &str, value: i64) -> &mut Self {
        self.attributes.insert(name.into(), Attribute::Int(value));
        self
    }

    fn set_ints(&mut self, name: &str, values: Vec<i64>) -> &mut Self {
        self.attributes.insert(name.into(), Attribute::Ints(values));
        self
    }

    fn set_axes(&mut self, name: &str, values: &[usize]) -> &mut Self {
        self.set_ints(name, values.iter().map(|&v| v as i64).collect())
    }

    fn set_float(&mut self, name: &str, value: f32) -> &mut Self {
        self.attributes.insert(name.into(), Attribute::Float(value));
        self
    }

    fn set_text(&mut self, name: &str, value: &str) -> &mut Self {
        self.attributes.insert(name.into(), Attribute::String(value.into()));
        self
    }

    fn set_clamp(&mut self, clamp: Option<Clamp>) -> &mut Self {
        self.clamp = clamp;
        self
    }
}
