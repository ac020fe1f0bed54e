//! Which tensors of a float graph have a quantizer under a target's placement rules, and which grid it has.
//!
//! The importer, the calibrator, the checker and simulators ask here, so that they agree.

use crate::encoding::file::ParamUse;
use crate::exec::scaling::Scaling;
use crate::exec::supergroups::{chains, patterns};
use crate::graph::{Attribute, Constant, Graph, Node, TensorId};
use crate::ops::{Fact, Facts, integer};
use crate::spec::placement::{Break, Constraint, OpRule, OperandPair, Placement, Precision, Tie};
use crate::tensor::DType;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// A grid to be found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantizer {
    /// Bits of a code.
    pub bitwidth: u32,
    /// Signed codes.
    pub signed: bool,
    /// Whether the rules say what the sign is; else it follows from `symmetric`.
    pub sign_is_given: bool,
    /// Zero in the middle of the grid.
    pub symmetric: bool,
    /// The lowest code is left out.
    pub narrow_range: bool,
    /// The whole unsigned grid where there is nothing negative.
    pub unsigned_symmetric: bool,
    /// Axis with one scale per index.
    pub axis: Option<usize>,
    /// Ends that are given.
    pub constraint: Option<Constraint>,
}

/// What a tensor is to the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It comes from outside.
    Input,
    /// An operator computes it.
    Activation,
    /// A constant that an operator reads like an activation.
    Constant,
    /// A constant of an operator.
    Parameter {
        /// The operator.
        op_type: String,
        /// `weight`, `bias` …
        name: String,
    },
}

/// Why a tensor has a quantizer, or has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The rules give it one.
    Rule,
    /// It holds values of another tensor, whose encoding it has.
    Preserved(String),
    /// It is another tensor times a constant, with that tensor's codes.
    Scaled(String),
    /// It lies inside operators that run as one.
    Inside(String),
    /// The rule of its operator gives it none.
    Unquantized(String),
    /// It is an output of the graph that leaves as the accumulator.
    HighPrecision,
    /// The rules for ends of the graph give it none.
    Port,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Rule => f.write_str("by rule"),
            Reason::Preserved(name) => write!(f, "holds values of '{name}'"),
            Reason::Scaled(name) => write!(f, "has the codes of '{name}' in another scale"),
            Reason::Inside(chain) => write!(f, "inside {chain}"),
            Reason::Unquantized(what) => write!(f, "{what} has none"),
            Reason::HighPrecision => f.write_str("leaves as the accumulator"),
            Reason::Port => f.write_str("the ends of the graph have none"),
        }
    }
}

/// What the rules say of one float tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The tensor.
    pub tensor: TensorId,
    /// What it is.
    pub role: Role,
    /// Its quantizer, also where it is another tensor's.
    pub quantizer: Option<Quantizer>,
    /// The tensor that stands for all that have this encoding.
    pub group: TensorId,
    /// Why.
    pub reason: Reason,
}

/// What the rules say of all float tensors of a graph.
#[derive(Debug, Clone)]
pub struct Decisions {
    /// Inputs first, then in the order of the nodes that read or write them.
    pub tensors: Vec<Decision>,
    index: HashMap<TensorId, usize>,
    values: Vec<Option<Constant>>,
}

impl Decisions {
    /// The decision about a tensor; `None` for integers and for what only settles shapes.
    pub fn of(&self, tensor: TensorId) -> Option<&Decision> {
        self.index.get(&tensor).map(|&i| &self.tensors[i])
    }

    /// The value of a tensor that does not depend on inputs.
    pub(super) fn value(&self, tensor: TensorId) -> Option<&Constant> {
        self.values[tensor].as_ref()
    }
}

/// The name of a constant input of an operator in placement rules.
pub fn parameter_name(op_type: &str, input: usize) -> Option<&'static str> {
    Some(match (op_type, input) {
        ("Conv" | "ConvTranspose" | "Gemm", 1) | ("MatMul" | "PRelu", 1) | ("Gather", 0) => "weight",
        ("Conv" | "ConvTranspose" | "Gemm", 2) => "bias",
        (
            "BatchNormalization"
            | "InstanceNormalization"
            | "LayerNormalization"
            | "GroupNormalization"
            | "RMSNormalization",
            1,
        ) => "weight",
        ("BatchNormalization" | "InstanceNormalization" | "LayerNormalization" | "GroupNormalization", 2) => "bias",
        ("BatchNormalization", 3) => "running_mean",
        ("BatchNormalization", 4) => "running_var",
        ("LSTM" | "GRU" | "RNN", 1) => "weight_x",
        ("LSTM" | "GRU" | "RNN", 2) => "weight_r",
        ("LSTM" | "GRU" | "RNN", 3) => "bias",
        _ => return None,
    })
}

/// Applies `placement` to `graph`. Encodings that the graph has play no part.
pub fn quantizers(graph: &Graph, placement: &Placement) -> Decisions {
    let mut builder = Builder::new(graph, placement);
    builder.inside();
    builder.ports_and_outputs();
    builder.constants();
    builder.ties();
    builder.finish()
}

/// What is known of a group of tensors with one encoding.
#[derive(Debug, Clone, Copy, Default)]
struct Draft {
    bitwidth: u32,
    symmetric: bool,
    signed: Option<bool>,
    constraint: Option<Constraint>,
}

struct Builder<'a> {
    graph: &'a Graph,
    placement: &'a Placement,
    values: Vec<Option<Constant>>,
    real: Vec<bool>,
    /// What each node is; a pattern's last node is the pattern's operator.
    op_types: Vec<String>,
    inside: HashMap<TensorId, String>,
    /// Those of `inside` that lie in a pattern.
    parts: HashSet<TensorId>,
    biases: HashMap<TensorId, (String, &'static str)>,
    roles: HashMap<TensorId, (Role, Reason)>,
    order: Vec<TensorId>,
    drafts: HashMap<TensorId, Draft>,
    parents: Vec<TensorId>,
    parameters: Vec<(TensorId, usize, String, String)>,
    /// For each node that scales a grid, its constant.
    scalars: HashMap<usize, TensorId>,
}

impl<'a> Builder<'a> {
    fn new(graph: &'a Graph, placement: &'a Placement) -> Builder<'a> {
        let mut values: Vec<Option<Constant>> = graph.tensors.iter().map(|t| t.constant.clone()).collect();
        for node in &graph.nodes {
            if let ("Identity", [Some(from)], [Some(to)]) = (node.op_type.as_str(), &node.inputs[..], &node.outputs[..])
            {
                values[*to] = values[*from].clone();
            }
        }
        let real = reals(graph, &values);
        Builder {
            graph,
            placement,
            values,
            real,
            op_types: graph.nodes.iter().map(|n| n.op_type.clone()).collect(),
            inside: HashMap::new(),
            parts: HashSet::new(),
            biases: HashMap::new(),
            roles: HashMap::new(),
            order: Vec::new(),
            drafts: HashMap::new(),
            parents: (0..graph.tensors.len()).collect(),
            parameters: Vec::new(),
            scalars: HashMap::new(),
        }
    }

    /// What a node scales, where that is quantized.
    fn scaled(&self, n: usize) -> Option<Scaling> {
        let node = &self.graph.nodes[n];
        let scaling = Scaling::of(self.graph, self.placement, node, |t| self.values[t].as_deref())?;
        let is_scaled = matches!(self.roles.get(&scaling.from), Some((_, Reason::Scaled(_))));
        let is_quantized = is_scaled || self.drafts.contains_key(&self.root(scaling.from));
        is_quantized.then_some(scaling)
    }

    fn rule(&self, op_type: &str) -> Option<&'a OpRule> {
        self.placement.ops.get(op_type)
    }

    /// Finds what runs as one.
    fn inside(&mut self) {
        for fused in patterns(self.graph, self.placement) {
            for t in fused.internal {
                self.inside.insert(t, fused.op_type.into());
                self.parts.insert(t);
            }
            for (t, name) in fused.parameters {
                self.biases.insert(t, (fused.op_type.into(), name));
            }
            self.op_types[fused.last] = fused.op_type.into();
        }
        let branches = !self.placement.breaks(Break::Branching);
        for chain in chains(self.graph, self.placement, branches, |t| !self.parts.contains(&t), |_| true) {
            if chain.broken.is_some() {
                continue;
            }
            let names: Vec<&str> = chain.nodes.iter().map(|&n| self.graph.nodes[n].op_type.as_str()).collect();
            for &n in &chain.nodes[..chain.nodes.len() - 1] {
                for &t in self.graph.nodes[n].outputs.iter().flatten() {
                    self.inside.insert(t, names.join(" + "));
                }
            }
        }
    }

    fn decide(&mut self, t: TensorId, role: Role, reason: Reason) {
        if self.real[t] && !self.roles.contains_key(&t) {
            self.roles.insert(t, (role, reason));
            self.order.push(t);
        }
    }

    fn activation(&self, op: Option<&OpRule>) -> Draft {
        let defaults = self.placement.defaults.activations;
        let constraint = op.and_then(|op| op.constraint);
        let symmetric = op.and_then(|op| op.symmetric).or(defaults.symmetric).unwrap_or(false);
        Draft {
            bitwidth: op.and_then(|op| op.bitwidth).or(defaults.bitwidth).unwrap_or(8),
            symmetric: symmetric || constraint.is_some_and(|c| c.is_symmetric()),
            signed: op.and_then(|op| op.signed).or(defaults.signed),
            constraint,
        }
    }

    fn ports_and_outputs(&mut self) {
        let graph = self.graph;
        let activations = self.placement.defaults.activations.quantized.unwrap_or(true);
        for port in &graph.inputs {
            let t = port.tensor;
            let readers: Vec<&Node> = graph.nodes.iter().filter(|n| n.inputs.contains(&Some(t))).collect();
            let refused = |n: &&Node| self.rule(&n.op_type).is_some_and(|op| op.input_quantized == Some(false));
            let wanted = self.placement.model_input.quantized.unwrap_or(activations)
                && (readers.is_empty() || !readers.iter().all(refused));
            self.decide(t, Role::Input, if wanted { Reason::Rule } else { Reason::Port });
            if wanted {
                self.drafts.insert(t, self.activation(None));
            }
        }
        for (n, node) in graph.nodes.iter().enumerate() {
            let op = self.rule(&self.op_types[n]);
            let preserves = self.placement.preserves_grid(&node.op_type);
            let source = node.inputs.first().copied().flatten();
            let scaled = self.scaled(n);
            for t in node.outputs.iter().flatten().copied() {
                if self.values[t].is_some() {
                    continue;
                }
                let leaves = graph.outputs.iter().any(|p| p.tensor == t);
                let by_rule = op.and_then(|op| op.output_quantized);
                let reason = match (self.inside.get(&t), source) {
                    (Some(chain), _) => Reason::Inside(chain.clone()),
                    (None, Some(from)) if preserves && by_rule != Some(true) => {
                        self.join(t, from);
                        Reason::Preserved(graph.tensors[from].name.clone())
                    }
                    (None, _) if let Some(scaling) = scaled => {
                        self.scalars.insert(n, scaling.constant);
                        Reason::Scaled(graph.tensors[scaling.from].name.clone())
                    }
                    _ if leaves && op.is_some_and(|op| op.high_precision_output == Some(true)) => Reason::HighPrecision,
                    _ if leaves && self.placement.model_output.quantized.is_some() => {
                        match self.placement.model_output.quantized {
                            Some(true) => Reason::Rule,
                            _ => Reason::Port,
                        }
                    }
                    _ if by_rule.unwrap_or(activations) => Reason::Rule,
                    _ => Reason::Unquantized(self.op_types[n].clone()),
                };
                if reason == Reason::Rule && self.real[t] {
                    self.drafts.insert(t, self.activation(op));
                }
                self.decide(t, Role::Activation, reason);
            }
        }
        for (n, node) in graph.nodes.iter().enumerate() {
            if self.rule(&self.op_types[n]).is_some_and(|op| op.input_quantized == Some(true)) {
                for t in data_inputs(graph, node) {
                    let root = self.root(t);
                    if self.real[t] && self.values[t].is_none() && !self.drafts.contains_key(&root) {
                        self.drafts.insert(root, self.activation(None));
                        self.roles.insert(t, (Role::Activation, Reason::Rule));
                    }
                }
            }
        }
    }

    fn constants(&mut self) {
        let graph = self.graph;
        let ports = self.placement.model_input.quantized;
        let as_input = ports.unwrap_or(self.placement.defaults.activations.quantized.unwrap_or(true));
        for (n, node) in graph.nodes.iter().enumerate() {
            let op = self.rule(&node.op_type);
            let data = data_inputs(graph, node);
            for (i, t) in node.inputs.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?))) {
                if self.values[t].is_none() || self.roles.contains_key(&t) || self.scalars.get(&n) == Some(&t) {
                    continue;
                }
                let (op_type, name) = match (self.biases.get(&t), parameter_name(&node.op_type, i)) {
                    (Some((op_type, name)), _) => (op_type.clone(), *name),
                    (None, Some(name)) => (node.op_type.clone(), name),
                    // Numbers such as an epsilon within a pattern are part of its operator.
                    (None, None) if node.outputs.iter().flatten().any(|o| self.parts.contains(o)) => continue,
                    (None, None) if data.contains(&t) && node.op_type != "Identity" => {
                        let wanted = as_input && op.is_none_or(|op| op.input_quantized != Some(false));
                        if wanted && self.real[t] {
                            self.drafts.insert(t, self.activation(None));
                        }
                        self.decide(t, Role::Constant, if wanted { Reason::Rule } else { Reason::Port });
                        continue;
                    }
                    (None, None) => continue,
                };
                let quantized = self.placement.parameter(&op_type, name).quantized.unwrap_or(true);
                let reason = if quantized { Reason::Rule } else { Reason::Unquantized(format!("{op_type} {name}")) };
                self.decide(t, Role::Parameter { op_type: op_type.clone(), name: name.into() }, reason);
                if quantized && self.real[t] {
                    self.parameters.push((t, n, op_type, name.into()));
                }
            }
        }
    }

    fn root(&self, mut t: TensorId) -> TensorId {
        while self.parents[t] != t {
            t = self.parents[t];
        }
        t
    }

    /// Gives two tensors one encoding.
    fn join(&mut self, a: TensorId, b: TensorId) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let draft = match (self.drafts.remove(&a), self.drafts.remove(&b)) {
            (Some(a), Some(b)) => Some(merged(a, b)),
            (a, b) => a.or(b),
        };
        let (root, other) = (a.min(b), a.max(b));
        self.parents[other] = root;
        if let Some(draft) = draft {
            self.drafts.insert(root, draft);
        }
    }

    fn ties(&mut self) {
        let graph = self.graph;
        for n in (0..graph.nodes.len()).rev() {
            if self.placement.tie(&self.op_types[n]) != Some(Tie::InputsFollowOutput) {
                continue;
            }
            let Some(output) = graph.nodes[n].outputs.first().copied().flatten() else { continue };
            if !self.drafts.contains_key(&self.root(output)) {
                continue;
            }
            let inputs: Vec<TensorId> = data_inputs(graph, &graph.nodes[n])
                .into_iter()
                .filter(|t| self.real[*t] && self.drafts.contains_key(&self.root(*t)))
                .collect();
            // Inputs with other given ends keep an encoding of their own.
            let ends = |t: &TensorId| self.drafts.get(&self.root(*t)).and_then(|d| d.constraint);
            let agree = inputs.windows(2).all(|pair| ends(&pair[0]) == ends(&pair[1]));
            let tied: Vec<TensorId> = inputs.iter().copied().filter(|t| agree || ends(t).is_none()).collect();
            tied.into_iter().for_each(|t| self.join(t, output));
        }
        for n in 0..graph.nodes.len() {
            let node = &graph.nodes[n];
            if self.placement.tie(&self.op_types[n]) == Some(Tie::OutputFollowsInput)
                && let (Some(Some(input)), Some(Some(output))) = (node.inputs.first(), node.outputs.first())
                && self.drafts.contains_key(&self.root(*input))
                && self.drafts.contains_key(&self.root(*output))
            {
                self.join(*input, *output);
            }
        }
        for n in 0..graph.nodes.len() {
            let Some(op) = self.rule(&self.op_types[n]) else { continue };
            let input = |i: usize| graph.nodes[n].inputs.get(i).copied().flatten();
            if let (Some(bits), Some(t)) = (op.input_bitwidth, input(0)) {
                let root = self.root(t);
                if let Some(draft) = self.drafts.get_mut(&root) {
                    draft.bitwidth = bits;
                }
            }
            if let (Some(pairs), Some(a), Some(b)) = (&op.second_operand, input(0), input(1))
                && self.values[b].is_none()
            {
                self.second_operand(pairs, a, b);
            }
        }
    }

    /// Makes the formats of two computed operands one of the pairs: by the first operand where the second's format
    /// exists, else by the second.
    fn second_operand(&mut self, pairs: &[OperandPair], a: TensorId, b: TensorId) {
        let (a, b) = (self.root(a), self.root(b));
        let (Some(&first), Some(&second)) = (self.drafts.get(&a), self.drafts.get(&b)) else { return };
        let bits = (Precision::int(first.bitwidth), Precision::int(second.bitwidth));
        let exact = pairs.iter().find(|p| (p.first, p.second) == bits);
        let wider = pairs.iter().filter(|p| p.second == bits.1 && p.first > bits.0).min_by_key(|p| p.first);
        let other = pairs.iter().filter(|p| p.first == bits.0 && !p.second.float).max_by_key(|p| p.second);
        let Some(pair) = exact.or(wider).or(other) else { return };
        if let Some(draft) = self.drafts.get_mut(&a) {
            draft.bitwidth = pair.first.bits;
        }
        if let Some(draft) = self.drafts.get_mut(&b) {
            draft.bitwidth = pair.second.bits;
            draft.symmetric |= pair.symmetric;
        }
    }

    fn parameter(&self, t: TensorId, n: usize, op_type: &str, name: &str) -> Quantizer {
        let node = &self.graph.nodes[n];
        let rule = self.placement.parameter(op_type, name);
        let mut bitwidth = rule.bitwidth.unwrap_or(8);
        let mut symmetric = rule.symmetric.unwrap_or(true);
        let output = node.outputs.first().copied().flatten().and_then(|o| self.drafts.get(&self.root(o)));
        if let (Some(true), Some(output)) = (rule.follows_output, output) {
            (bitwidth, symmetric) = (output.bitwidth, output.symmetric);
        }
        bitwidth = bitwidth.max(rule.min_bitwidth.unwrap_or(0));
        symmetric |= rule.symmetric_from_bits.is_some_and(|from| bitwidth >= from);
        let grouped = matches!(node.attributes.get("group"), Some(Attribute::Int(g)) if *g > 1);
        let op = self.rule(op_type);
        let per_channel =
            rule.per_channel.unwrap_or(false) && (!grouped || op.and_then(|op| op.per_channel_grouped).unwrap_or(true));
        let shape = self.values[t].as_ref().map(|v| v.shape().to_vec()).unwrap_or_default();
        let slot = node.inputs.iter().position(|i| *i == Some(t)).unwrap_or(0);
        let trans_b = matches!(node.int("transB", 0), Ok(1));
        let axis = op.and_then(|op| op.axis).filter(|_| name == "weight");
        let axis = axis.or_else(|| Some(ParamUse::of_operator(&node.op_type, slot, &shape, trans_b)?.axis));
        self.quantizer(
            Draft { bitwidth, symmetric, signed: rule.signed, constraint: None },
            axis.filter(|a| per_channel && *a < shape.len()),
        )
    }

    fn quantizer(&self, draft: Draft, axis: Option<usize>) -> Quantizer {
        let defaults = &self.placement.defaults;
        Quantizer {
            bitwidth: draft.bitwidth,
            signed: draft.signed.unwrap_or(draft.symmetric),
            sign_is_given: draft.signed.is_some(),
            symmetric: draft.symmetric,
            narrow_range: draft.symmetric && defaults.strict_symmetric.unwrap_or(false),
            unsigned_symmetric: draft.symmetric && defaults.unsigned_symmetric.unwrap_or(false),
            axis,
            constraint: draft.constraint,
        }
    }

    fn finish(self) -> Decisions {
        let parameters: HashMap<TensorId, Quantizer> =
            self.parameters.iter().map(|(t, n, op_type, name)| (*t, self.parameter(*t, *n, op_type, name))).collect();
        // A table that is looked up gives its encoding to what is found in it.
        let tables: HashMap<TensorId, Quantizer> =
            parameters.iter().filter(|(_, q)| q.axis.is_none()).map(|(t, q)| (self.root(*t), *q)).collect();
        let tensors: Vec<Decision> = self
            .order
            .iter()
            .map(|&t| {
                let (role, reason) = self.roles[&t].clone();
                let group = self.root(t);
                let shared = || match self.drafts.get(&group) {
                    Some(draft) => Some(self.quantizer(*draft, None)),
                    None => tables.get(&group).copied(),
                };
                let quantizer = match reason {
                    Reason::Rule | Reason::Preserved(_) => parameters.get(&t).copied().or_else(shared),
                    _ => None,
                };
                Decision { tensor: t, role, quantizer, group, reason }
            })
            .collect();
        let index = tensors.iter().enumerate().map(|(i, d)| (d.tensor, i)).collect();
        Decisions { tensors, index, values: self.values }
    }
}

/// What two tensors with one encoding ask for together.
fn merged(a: Draft, b: Draft) -> Draft {
    let tighter = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| match (a, b) {
        (Some(a), Some(b)) => Some(pick(a, b)),
        (a, b) => a.or(b),
    };
    let constraint = match (a.constraint, b.constraint) {
        (Some(a), Some(b)) => {
            Some(Constraint { min: tighter(a.min, b.min, f64::max), max: tighter(a.max, b.max, f64::min) })
        }
        (a, b) => a.or(b),
    };
    Draft {
        bitwidth: a.bitwidth.max(b.bitwidth),
        symmetric: a.symmetric || b.symmetric,
        signed: a.signed.or(b.signed),
        constraint,
    }
}

/// Which tensors hold reals: all whose type is float or, undeclared, follows from no integer.
pub(super) fn reals(graph: &Graph, values: &[Option<Constant>]) -> Vec<bool> {
    let mut real: Vec<bool> = (0..values.len())
        .map(|t| graph.tensors[t].dtype.or(values[t].as_ref().map(|v| v.dtype())).is_none_or(|d| d.is_float()))
        .collect();
    for node in &graph.nodes {
        let first = node.inputs.first().copied().flatten();
        for (i, t) in node.outputs.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?))) {
            if graph.tensors[t].dtype.is_some() {
                continue;
            }
            let integer = match node.op_type.as_str() {
                "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" | "NonMaxSuppression" | "Equal" | "Greater"
                | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN" | "IsInf" => true,
                "TopK" | "MaxPool" | "Dropout" if i == 1 => true,
                "Unique" if i > 0 => true,
                // Float types of ONNX: FLOAT 1, FLOAT16 10, DOUBLE 11, BFLOAT16 16.
                "Cast" => !matches!(node.attributes.get("to"), Some(Attribute::Int(1 | 10 | 11 | 16))),
                "Where" => node.inputs.get(1).copied().flatten().is_some_and(|t| !real[t]),
                "ConstantOfShape" | "Range" | "OneHot" => false,
                _ => first.is_some_and(|t| !real[t]),
            };
            real[t] = !integer;
        }
    }
    real
}

/// The tensors whose codes the node's integer form reads.
pub(super) fn data_inputs(graph: &Graph, node: &Node) -> Vec<TensorId> {
    if matches!(node.op_type.as_str(), "Scatter" | "ScatterElements" | "ScatterND") {
        return [0, 2].iter().filter_map(|&i| node.inputs.get(i).copied().flatten()).collect();
    }
    let Some(integer) = integer::find(&node.domain, &node.op_type) else {
        return node.inputs.first().copied().flatten().into_iter().collect();
    };
    // Which inputs are data follows from the operator and the number of inputs alone.
    let fact = |t: TensorId| Fact {
        name: graph.tensors[t].name.clone(),
        dtype: graph.tensors[t].dtype.unwrap_or(DType::F32),
        shape: Vec::new(),
        constant: graph.tensors[t].constant.clone(),
        codes: None,
        encoding: None,
    };
    let inputs: Vec<Option<Fact>> = node.inputs.iter().map(|t| t.map(fact)).collect();
    let facts = Facts { node, opset: graph.opset(&node.domain), inputs: &inputs, outputs: &[] };
    let data = integer.data_inputs(&facts);
    data.into_iter().filter_map(|i| node.inputs.get(i).copied().flatten()).collect()
}

#[cfg(test)]
mod tests;
