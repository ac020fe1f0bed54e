//! Folding of quantization that a file spells out in nodes (QDQ pairs, QLinear operators) into encodings of tensors.
//!
//! A `QuantizeLinear` that is followed by readers of codes disappears: the tensor it reads gets the encoding, and the
//! readers of the dequantized twin read that tensor. Where others read the tensor unquantized, or where it is quantized in
//! two ways, the quantized form is a tensor of its own, written by the node [`QUANTIZE`] of domain [`DOMAIN`]: an identity
//! whose output has an encoding. A quantizer whose codes something else reads (`ConvInteger`, …) stays a node.

use super::movement::Movement;
use super::parameters::{self, Layout, code_type, rank};
use super::{Constant, Graph, Node, TensorId, TensorInfo, qlinear};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Domain of nodes that no file has.
pub const DOMAIN: &str = "nputwin";

/// Operator of a node that only quantizes: its output is its input, on the grid of the output's encoding.
pub const QUANTIZE: &str = "Identity";

/// Whether a node is a [`QUANTIZE`] of [`DOMAIN`]. Without an encoding of its output it dequantizes.
pub fn only_quantizes(node: &Node) -> bool {
    (node.domain.as_str(), node.op_type.as_str()) == (DOMAIN, QUANTIZE)
}

/// Folds all quantization of a sorted graph into encodings.
pub fn fold(graph: &mut Graph) -> Result<()> {
    let mut fold = Fold::new(graph)?;
    fold.quantized_inputs()?;
    for n in 0..fold.source.len() {
        let node = fold.source[n].clone();
        fold.node(n, &node).map_err(|e| e.at_node(&node.name, &node.op_type))?;
    }
    fold.finish();
    graph.remove_unused_tensors();
    Ok(())
}

/// Whether a node quantizes or dequantizes, in ONNX's domain or in com.microsoft's.
fn is_quantizer(node: &Node, op_type: &str) -> bool {
    node.op_type == op_type && matches!(node.domain.as_str(), "" | "com.microsoft")
}

/// ONNX's number of a float type, as attributes give it.
fn float_number(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 1,
        DType::F16 => 10,
        DType::BF16 => 16,
        _ => 0,
    }
}

/// State of the pass.
pub(super) struct Fold<'g> {
    pub(super) graph: &'g mut Graph,
    /// Nodes as they were.
    source: Vec<Node>,
    /// For each tensor, the one that its readers read instead.
    float: Vec<TensorId>,
    /// For each tensor of codes, the tensor of reals that has the encoding.
    pub(super) reals: HashMap<TensorId, TensorId>,
    /// Tensors whose codes only quantized operators read.
    folds: Vec<bool>,
    /// Encodings of quantizers that disappear, by node.
    quantizers: Vec<Option<Arc<Encoding>>>,
    /// For each tensor, the nodes that read it.
    consumers: Vec<Vec<usize>>,
    is_output: Vec<bool>,
    names: HashSet<String>,
    /// Quantized forms of tensors, made in addition to them.
    forms: Vec<(TensorId, Arc<Encoding>, TensorId)>,
}

impl<'g> Fold<'g> {
    fn new(graph: &'g mut Graph) -> Result<Self> {
        let consumers = graph.consumers();
        let mut is_output = vec![false; graph.tensors.len()];
        for port in &graph.outputs {
            is_output[port.tensor] = true;
        }
        let mut fold = Fold {
            source: std::mem::take(&mut graph.nodes),
            float: (0..graph.tensors.len()).collect(),
            reals: HashMap::new(),
            folds: vec![false; graph.tensors.len()],
            quantizers: Vec::new(),
            consumers,
            is_output,
            names: graph.tensors.iter().map(|t| t.name.clone()).collect(),
            forms: Vec::new(),
            graph,
        };
        let inputs: Vec<_> = fold.graph.inputs.iter().map(|p| p.tensor).collect();
        for n in (0..fold.source.len()).rev() {
            let outputs: Vec<_> = fold.source[n].outputs.iter().flatten().copied().collect();
            for t in outputs {
                fold.folds[t] = fold.only_codes_are_read(t);
            }
        }
        for t in inputs {
            fold.folds[t] = fold.only_codes_are_read(t);
        }
        for n in 0..fold.source.len() {
            let node = &fold.source[n];
            let folds =
                is_quantizer(node, "QuantizeLinear") && matches!(node.outputs.as_slice(), [Some(q)] if fold.folds[*q]);
            let encoding = if folds { Some(fold.encoding_of(node, None)?) } else { None };
            fold.quantizers.push(encoding);
        }
        Ok(fold)
    }

    fn only_codes_are_read(&self, t: TensorId) -> bool {
        self.consumers[t].iter().all(|&n| {
            let node = &self.source[n];
            let slots = || node.inputs.iter().enumerate().filter(|(_, i)| **i == Some(t)).map(|(slot, _)| slot);
            if is_quantizer(node, "DequantizeLinear") {
                return slots().all(|slot| slot == 0);
            }
            if let Some(form) = qlinear::form(node) {
                return slots().all(|slot| form.reads_codes(slot));
            }
            match Movement::of(node) {
                Some(movement) => slots().all(|slot| movement.moves(slot)) && self.moves_to_codes(node),
                None => false,
            }
        })
    }

    fn moves_to_codes(&self, node: &Node) -> bool {
        node.outputs.iter().enumerate().all(|(i, output)| match output {
            Some(t) if i == 0 || node.op_type == "Split" => self.folds[*t],
            Some(t) => self.consumers[*t].is_empty() && !self.is_output[*t],
            None => true,
        })
    }

    /// The encoding that a `QuantizeLinear` or `DequantizeLinear` node writes; `codes` is the type where it is known.
    fn encoding_of(&self, node: &Node, codes: Option<DType>) -> Result<Arc<Encoding>> {
        let at = |e: Error| e.at_node(&node.name, &node.op_type);
        node.check_attributes(&["axis", "block_size", "saturate", "output_dtype", "precision"])?;
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let missing = |what: &str| at(Error::invalid("node_inputs", format!("the node has no {what}")));
        let x = input(0).ok_or_else(|| missing("input"))?;
        let scale = input(1).ok_or_else(|| missing("scale"))?;
        let zero_point = input(2).map(|z| &self.graph.tensors[z]);
        let quantizes = node.op_type == "QuantizeLinear";
        let declared = node.int("output_dtype", 0)?;
        let by_zero_point = zero_point.and_then(|z| z.dtype.or(z.constant.as_ref().map(|c| c.dtype())));
        let codes = match codes.or(by_zero_point) {
            Some(known) => known,
            None if quantizes => match declared {
                0 | 2 => DType::U8,
                3 => DType::I8,
                4 => DType::U16,
                5 => DType::I16,
                21 => DType::U4,
                22 => DType::I4,
                25 => DType::U2,
                26 => DType::I2,
                other => {
                    let message = format!("output_dtype {other}");
                    return Err(at(Error::unsupported("quantized_type", message)));
                }
            },
            None => {
                let message = "neither the zero point nor the codes have a declared type";
                return Err(at(Error::unsupported("quantized_type_unknown", message)));
            }
        };
        let scale = &self.graph.tensors[scale];
        if !quantizes && declared != 0 && scale.dtype.is_some_and(|d| declared != float_number(d)) {
            let message = format!("output_dtype {declared} differs from the type of the scale");
            return Err(at(Error::unsupported("dequantized_type", message)));
        }
        if quantizes && self.graph.tensors[x].dtype.is_some_and(|d| !d.is_float()) {
            return Err(at(Error::unsupported("quantize_integers", "quantization of a tensor of integers")));
        }
        let layout = Layout {
            axis: node.int("axis", 1)?,
            block_size: node.int("block_size", 0)?,
            rank: rank(&self.graph.tensors[x]),
        };
        let encoding = parameters::encoding(scale, zero_point, codes, layout).map_err(at)?;
        if let Some(constant) = &self.graph.tensors[x].constant {
            parameters::check_shape(&encoding, constant.shape()).map_err(at)?;
        }
        Ok(encoding)
    }

    /// Marks graph inputs that are codes, with the encoding that their first reader gives.
    fn quantized_inputs(&mut self) -> Result<()> {
        for i in 0..self.graph.inputs.len() {
            let t = self.graph.inputs[i].tensor;
            if !self.folds[t] || self.graph.tensors[t].dtype.and_then(code_type).is_none() {
                continue;
            }
            if let Some(encoding) = self.encoding_by_readers(t)? {
                self.graph.inputs[i].quantized = true;
                self.become_reals(t, encoding);
            }
        }
        Ok(())
    }

    fn encoding_by_readers(&self, t: TensorId) -> Result<Option<Arc<Encoding>>> {
        let codes = self.graph.tensors[t].dtype;
        let mut pending = vec![t];
        let mut seen = BTreeSet::new();
        while let Some(t) = pending.pop() {
            for &n in self.consumers[t].iter().filter(|&&n| seen.insert(n)) {
                let node = &self.source[n];
                if is_quantizer(node, "DequantizeLinear") {
                    return self.encoding_of(node, codes).map(Some);
                }
                if let Some(form) = qlinear::form(node) {
                    let slot = node.inputs.iter().position(|i| *i == Some(t)).unwrap_or_default();
                    return form.operand_encoding(self, node, slot).map(Some);
                }
                pending.extend(node.outputs.iter().flatten().filter(|&&o| self.folds[o]));
            }
        }
        Ok(None)
    }

    /// Turns a tensor of codes into the tensor of the reals that they stand for.
    pub(super) fn become_reals(&mut self, t: TensorId, encoding: Arc<Encoding>) {
        let info = &mut self.graph.tensors[t];
        info.dtype = Some(DType::F32);
        info.encoding = Some(encoding);
        self.reals.insert(t, t);
    }

    pub(super) fn fresh(&mut self, wanted: String) -> String {
        super::fresh_name(&mut self.names, wanted)
    }

    pub(super) fn new_tensor(&mut self, info: TensorInfo) -> TensorId {
        self.float.push(self.graph.tensors.len());
        self.graph.add_tensor(info)
    }

    /// What the readers of `input` read instead.
    pub(super) fn reader_input(&self, input: Option<TensorId>) -> Option<TensorId> {
        input.map(|t| self.float[t])
    }

    fn node(&mut self, n: usize, node: &Node) -> Result<()> {
        if let Some(encoding) = self.quantizers[n].clone() {
            return self.quantize(node, &encoding);
        }
        if is_quantizer(node, "DequantizeLinear") && self.dequantize(node)? {
            return Ok(());
        }
        let converted = if let Some(form) = qlinear::form(node) {
            form.convert(self, node)?
        } else if let Some(movement) = Movement::of(node).filter(|m| m.reads_any(node, &self.reals)) {
            movement.convert(self, node)?
        } else {
            qlinear::refuse_unknown(node)?;
            let inputs = node.inputs.iter().map(|&i| self.reader_input(i)).collect();
            Node { inputs, ..node.clone() }
        };
        self.graph.nodes.push(converted);
        Ok(())
    }

    /// The type of the codes of a tensor, where it is known.
    pub(super) fn codes_type(&self, t: TensorId) -> Option<DType> {
        let info = &self.graph.tensors[self.reals.get(&t).copied().unwrap_or(t)];
        match &info.encoding {
            Some(encoding) => parameters::type_of_codes(encoding),
            None => info.dtype.filter(|&d| code_type(d).is_some()),
        }
    }

    /// Whether quantized operators alone read the codes in `t`.
    pub(super) fn folds(&self, t: TensorId) -> bool {
        self.folds[t]
    }

    /// The tensor of reals behind codes that are read with `encoding`.
    pub(super) fn read_codes(&mut self, t: TensorId, encoding: &Arc<Encoding>) -> Result<TensorId> {
        if let Some(&reals) = self.reals.get(&t) {
            let info = &self.graph.tensors[reals];
            if !info.encoding.as_ref().is_some_and(|e| e.same_grid(encoding)) {
                let message =
                    format!("'{}' is read with another scale, zero point or type than it is written with", info.name);
                return Err(Error::unsupported("quantization_reinterpreted", message));
            }
            return Ok(reals);
        }
        let info = &self.graph.tensors[t];
        if info.constant.is_none() {
            let message = format!("'{}' is neither constant nor written by a quantized operator", info.name);
            return Err(Error::unsupported("quantized_operand", message));
        }
        let base = info.name.clone();
        self.constant_codes(t, encoding, None, base)
    }

    /// The constant of reals behind the integer initializer `t`.
    pub(super) fn constant_codes(
        &mut self,
        t: TensorId,
        encoding: &Arc<Encoding>,
        dtype: Option<DType>,
        name: String,
    ) -> Result<TensorId> {
        if let Some((_, _, form)) = self.forms.iter().find(|(from, e, _)| *from == t && e == encoding) {
            return Ok(*form);
        }
        let info = &self.graph.tensors[t];
        let Some(codes) = info.constant.clone() else {
            return Err(Error::invalid("codes_missing", "the codes are not constant").at_tensor(&info.name));
        };
        let dtype = dtype.unwrap_or(DType::F32);
        let reals = Constant::dequantized(codes.clone(), encoding.clone(), dtype);
        let constant = Some(reals.map_err(|e| e.at_tensor(&info.name))?);
        let mut aliases = Vec::new();
        let first = !self.forms.iter().any(|(from, ..)| *from == t);
        let name = if name == info.name {
            // The integers keep the name where something still reads them.
            let read = self.is_output[t] || !self.only_codes_are_read(t);
            if first && !read { name } else { self.fresh(format!("{name}_dequantized")) }
        } else {
            if first && !self.is_output[t] && self.only_codes_are_read(t) {
                aliases.push(info.name.clone());
            }
            name
        };
        let encoding = encoding.clone();
        let (dtype, codes) = (Some(dtype), Some(codes));
        let form = self.new_tensor(TensorInfo {
            name,
            dtype,
            shape: None,
            constant,
            codes,
            encoding: Some(encoding.clone()),
            float: None,
            aliases,
            channels_last: false,
        });
        self.forms.push((t, encoding, form));
        Ok(form)
    }

    fn quantize(&mut self, node: &Node, encoding: &Arc<Encoding>) -> Result<()> {
        let ([Some(x), ..], [Some(q)]) = (node.inputs.as_slice(), node.outputs.as_slice()) else {
            return Err(Error::invalid("node_inputs", "a quantizer has an input and an output"));
        };
        let (x, q) = (self.float[*x], *q);
        let reals = self.quantized_form(x, q, node, encoding);
        let declared = self.graph.tensors[q].shape.clone();
        let name = self.graph.tensors[q].name.clone();
        let info = &mut self.graph.tensors[reals];
        info.dtype.get_or_insert(DType::F32);
        if info.shape.is_none() && info.constant.is_none() {
            info.shape = declared;
        }
        if info.name != name && !info.aliases.contains(&name) {
            info.aliases.push(name);
        }
        self.reals.insert(q, reals);
        Ok(())
    }

    /// The tensor that holds `x` on the grid of `encoding`.
    fn quantized_form(&mut self, x: TensorId, q: TensorId, node: &Node, encoding: &Arc<Encoding>) -> TensorId {
        if let Some(known) = &self.graph.tensors[x].encoding {
            if known.same_grid(encoding) {
                return x;
            }
        } else {
            if !self.is_output[x] && self.consumers[x].iter().all(|&n| self.quantizes_to(n, encoding)) {
                self.graph.tensors[x].encoding = Some(encoding.clone());
                return x;
            }
        }
        if let Some((_, _, form)) = self.forms.iter().find(|(from, e, _)| *from == x && e.same_grid(encoding)) {
            return *form;
        }
        let twin = self.consumers[q]
            .iter()
            .map(|&n| &self.source[n])
            .find(|n| is_quantizer(n, "DequantizeLinear"))
            .and_then(|n| n.outputs.first().copied().flatten())
            .map(|t| self.graph.tensors[t].name.clone());
        let name = match twin {
            Some(name) => name,
            None => self.fresh(format!("{}_dequantized", self.graph.tensors[q].name)),
        };
        let info = TensorInfo {
            name,
            codes: None,
            encoding: Some(encoding.clone()),
            aliases: Vec::new(),
            ..self.graph.tensors[x].clone()
        };
        let constant = info.constant.is_some();
        let form = self.new_tensor(info);
        if !constant {
            self.graph.nodes.push(Node {
                code_clamp: None,
                clamp: None,
                name: node.name.clone(),
                op_type: QUANTIZE.into(),
                domain: DOMAIN.into(),
                inputs: vec![Some(x)],
                outputs: vec![Some(form)],
                attributes: Default::default(),
            });
        }
        self.forms.push((x, encoding.clone(), form));
        form
    }

    /// Whether node `n` is a quantizer to the grid of `encoding`.
    fn quantizes_to(&self, n: usize, encoding: &Encoding) -> bool {
        self.quantizers[n].as_ref().is_some_and(|other| other.same_grid(encoding))
    }

    /// Folds a `DequantizeLinear`; false where its codes come from a node that stays.
    fn dequantize(&mut self, node: &Node) -> Result<bool> {
        let (Some(&Some(q)), [Some(y)]) = (node.inputs.first(), node.outputs.as_slice()) else {
            return Err(Error::invalid("node_inputs", "a dequantizer has an input and an output"));
        };
        let constant = self.graph.tensors[q].constant.is_some();
        if !constant && !self.reals.contains_key(&q) {
            return Ok(false);
        }
        let encoding = self.encoding_of(node, self.codes_type(q))?;
        let name = self.graph.tensors[*y].name.clone();
        let reals = if constant {
            let dtype = node.inputs.get(1).copied().flatten().and_then(|s| self.graph.tensors[s].dtype);
            self.constant_codes(q, &encoding, dtype, name.clone())?
        } else {
            self.read_codes(q, &encoding)?
        };
        let shape = self.graph.tensors[*y].shape.clone();
        let info = &mut self.graph.tensors[reals];
        if info.name != name {
            info.aliases.push(name);
        }
        if info.shape.is_none() && info.constant.is_none() {
            info.shape = shape;
        }
        self.float[*y] = reals;
        Ok(true)
    }

    fn finish(&mut self) {
        for port in &mut self.graph.outputs {
            match self.reals.get(&port.tensor) {
                Some(&reals) => {
                    port.tensor = reals;
                    port.quantized = true;
                }
                None => port.tensor = self.float[port.tensor],
            }
        }
    }
}
