//! Subgraphs that have one quantizer, at their end.

use crate::graph::{Attribute, Graph, Node, TensorId};
use crate::spec::Placement;
use crate::spec::placement::{Break, Pattern};
use std::collections::BTreeSet;

/// A chain of nodes that matches a supergroup.
pub(super) struct Chain {
    /// In order.
    pub nodes: Vec<usize>,
    /// What keeps it from being a supergroup.
    pub broken: Option<Break>,
}

/// The chains of `graph` that match a supergroup: longer ones first, none sharing a node with another unless it is broken.
/// `inside` says whether a tensor may lie between two nodes of a chain, and `usable` whether the nodes may be one. A tensor
/// with several readers may lie inside where `branches` allows it.
pub(super) fn chains(
    graph: &Graph,
    placement: &Placement,
    branches: bool,
    inside: impl Fn(TensorId) -> bool,
    mut usable: impl FnMut(&[usize]) -> bool,
) -> Vec<Chain> {
    let consumers = graph.consumers();
    let mut groups: Vec<&Vec<String>> = placement.supergroups().iter().collect();
    groups.sort_by_key(|g| std::cmp::Reverse(g.len()));
    let mut taken = vec![false; graph.nodes.len()];
    let mut broken = BTreeSet::new();
    let mut out = Vec::new();
    for group in groups {
        for (n, node) in graph.nodes.iter().enumerate() {
            let Some(nodes) = match_chain(graph, &consumers, n, group, branches, &inside) else { continue };
            if nodes.iter().any(|&m| taken[m]) || !usable(&nodes) {
                continue;
            }
            let reason = match () {
                _ if placement.breaks(Break::Depthwise) && is_depthwise(graph, node) => Some(Break::Depthwise),
                _ if placement.breaks(Break::Conv3d) && is_conv3d(graph, node) => Some(Break::Conv3d),
                _ => None,
            };
            match reason {
                Some(_) if !broken.insert(n) => continue,
                Some(_) => {}
                None => nodes.iter().for_each(|&m| taken[m] = true),
            }
            out.push(Chain { nodes, broken: reason });
        }
    }
    out
}

/// The nodes of a supergroup that begins at `first`: each reads the one before it with its first input.
fn match_chain(
    graph: &Graph,
    consumers: &[Vec<usize>],
    first: usize,
    pattern: &[String],
    branches: bool,
    inside: &impl Fn(TensorId) -> bool,
) -> Option<Vec<usize>> {
    if pattern.len() < 2 || graph.nodes[first].op_type != pattern[0] {
        return None;
    }
    let mut chain = vec![first];
    for op_type in &pattern[1..] {
        let node = &graph.nodes[*chain.last()?];
        let [Some(output)] = node.outputs[..] else { return None };
        let leaves = graph.outputs.iter().any(|p| p.tensor == output);
        if !inside(output) || (!branches && (leaves || consumers[output].len() != 1)) {
            return None;
        }
        let fits =
            |&&n: &&usize| graph.nodes[n].op_type == *op_type && graph.nodes[n].inputs.first() == Some(&Some(output));
        chain.push(*consumers[output].iter().find(fits)?);
    }
    Some(chain)
}

/// Whether a convolution has one input channel per group.
fn is_depthwise(graph: &Graph, node: &Node) -> bool {
    let group = match node.attributes.get("group") {
        Some(Attribute::Int(g)) => *g,
        _ => 1,
    };
    let weight = node.inputs.get(1).copied().flatten().and_then(|t| graph.tensors[t].constant.as_ref());
    let Some(shape) = weight.map(|w| w.shape()) else { return false };
    let inputs = match node.op_type.as_str() {
        "Conv" => shape.get(1).copied(),
        "ConvTranspose" => shape.first().map(|&c| c / usize::try_from(group).unwrap_or(1).max(1)),
        _ => None,
    };
    group > 1 && inputs == Some(1)
}

/// Whether a convolution has three spatial axes.
fn is_conv3d(graph: &Graph, node: &Node) -> bool {
    let weight = node.inputs.get(1).copied().flatten().and_then(|t| graph.tensors[t].constant.as_ref());
    matches!(node.op_type.as_str(), "Conv" | "ConvTranspose") && weight.is_some_and(|w| w.shape().len() == 5)
}

/// A subgraph that is one operator.
#[derive(Debug, PartialEq)]
pub(super) struct Fused {
    /// The operator that it is.
    pub op_type: &'static str,
    /// Tensors inside.
    pub internal: Vec<TensorId>,
    /// The node at its end.
    pub last: usize,
    /// Constants with a role.
    pub parameters: Vec<(TensorId, &'static str)>,
}

/// All matches of the placement's patterns.
pub(super) fn patterns(graph: &Graph, placement: &Placement) -> Vec<Fused> {
    let view = View { graph, consumers: graph.consumers() };
    let mut out: Vec<Fused> = Vec::new();
    for &pattern in placement.patterns() {
        for n in 0..graph.nodes.len() {
            let found = match pattern {
                Pattern::MatmulAdd => view.matmul_add(n),
                Pattern::LayerNormalization => view.layer_normalization(n),
                Pattern::RmsNormalization => view.rms_normalization(n),
                Pattern::MaskedSoftmax => view.masked_softmax(n),
            };
            if let Some(found) = found
                && !out.iter().any(|o| o.internal.iter().any(|t| found.internal.contains(t)))
            {
                out.push(found);
            }
        }
    }
    out
}

struct View<'a> {
    graph: &'a Graph,
    consumers: Vec<Vec<usize>>,
}

impl View<'_> {
    fn is(&self, n: usize, op_type: &str) -> bool {
        self.graph.nodes[n].op_type == op_type
    }

    fn input(&self, n: usize, i: usize) -> Option<TensorId> {
        self.graph.nodes[n].inputs.get(i).copied().flatten()
    }

    fn output(&self, n: usize) -> Option<TensorId> {
        match self.graph.nodes[n].outputs[..] {
            [Some(t)] if self.graph.outputs.iter().all(|p| p.tensor != t) => Some(t),
            _ => None,
        }
    }

    /// The only reader of a node's output, where it is such an operator.
    fn next(&self, n: usize, op_type: &str) -> Option<usize> {
        match self.consumers[self.output(n)?][..] {
            [m] if self.is(m, op_type) => Some(m),
            _ => None,
        }
    }

    /// The constant among the two operands of a node whose other operand is the output of `n`.
    fn constant_operand(&self, m: usize, n: usize) -> Option<TensorId> {
        let (a, b) = (self.input(m, 0)?, self.input(m, 1)?);
        let other = if Some(a) == self.output(n) { b } else { a };
        self.graph.tensors[other].constant.is_some().then_some(other)
    }

    fn matmul_add(&self, n: usize) -> Option<Fused> {
        if !self.is(n, "MatMul") || self.graph.tensors[self.input(n, 1)?].constant.is_none() {
            return None;
        }
        let last = self.next(n, "Add")?;
        let bias = self.constant_operand(last, n)?;
        Some(Fused { op_type: "MatMul", internal: vec![self.output(n)?], last, parameters: vec![(bias, "bias")] })
    }

    /// `x²` as a power or a product.
    fn is_square(&self, n: usize, x: TensorId) -> bool {
        let two = |t: TensorId| {
            let constant = self.graph.tensors[t].constant.as_ref();
            constant.is_some_and(|c| c.len() == 1 && c.to_f64() == [2.0])
        };
        self.input(n, 0) == Some(x)
            && match self.graph.nodes[n].op_type.as_str() {
                "Pow" => self.input(n, 1).is_some_and(two),
                "Mul" => self.input(n, 1) == Some(x),
                _ => false,
            }
    }

    /// From the square on: mean, epsilon, square root; the nodes.
    fn root_of_mean(&self, square: usize) -> Option<[usize; 3]> {
        let mean = self.next(square, "ReduceMean")?;
        let shifted = self.next(mean, "Add")?;
        self.constant_operand(shifted, mean)?;
        Some([mean, shifted, self.next(shifted, "Sqrt")?])
    }

    /// Scale and shift by constants behind a normalized value.
    fn affine(&self, op_type: &'static str, mut nodes: Vec<usize>, with_bias: bool) -> Option<Fused> {
        let mut parameters = Vec::new();
        let mut last = *nodes.last()?;
        if let Some(mul) = self.next(last, "Mul")
            && let Some(weight) = self.constant_operand(mul, last)
        {
            parameters.push((weight, "weight"));
            nodes.push(mul);
            last = mul;
            if let Some(add) = self.next(last, "Add").filter(|_| with_bias)
                && let Some(bias) = self.constant_operand(add, last)
            {
                parameters.push((bias, "bias"));
                nodes.push(add);
                last = add;
            }
        }
        let internal = nodes.iter().filter(|&&n| n != last).map(|&n| self.output(n)).collect::<Option<_>>()?;
        Some(Fused { op_type, internal, last, parameters })
    }

    fn layer_normalization(&self, n: usize) -> Option<Fused> {
        if !self.is(n, "ReduceMean") {
            return None;
        }
        let x = self.input(n, 0)?;
        let centred = self.next(n, "Sub")?;
        let d = self.output(centred)?;
        if self.input(centred, 0) != Some(x) {
            return None;
        }
        let [a, b] = self.consumers[d][..] else { return None };
        let (square, div) = if self.is_square(a, d) { (a, b) } else { (b, a) };
        let [mean, shifted, root] = self.root_of_mean(square).filter(|_| self.is_square(square, d))?;
        if self.next(root, "Div")? != div || self.input(div, 0) != Some(d) {
            return None;
        }
        self.affine("LayerNormalization", vec![n, centred, square, mean, shifted, root, div], true)
    }

    /// `Softmax(Where(mask, x, ReduceMin(x) + b))` over the last of four axes with `b` of -20 or less: what is masked has no
    /// weight that a code could hold.
    fn masked_softmax(&self, n: usize) -> Option<Fused> {
        if !self.is(n, "ReduceMin") {
            return None;
        }
        let x = self.input(n, 0)?;
        let shifted = self.next(n, "Add")?;
        let below = self.graph.tensors[self.constant_operand(shifted, n)?].constant.as_ref()?;
        let chosen = self.next(shifted, "Where")?;
        let last = self.next(chosen, "Softmax")?;
        let four = self.graph.tensors[x].shape.as_ref().is_none_or(|shape| shape.len() == 4);
        let fits = four
            && below.to_f64().iter().all(|&b| b <= -20.0)
            && self.input(chosen, 1) == Some(x)
            && self.input(chosen, 2) == self.output(shifted)
            && self.is_over_the_last_axis(n)
            && matches!(self.graph.nodes[last].int("axis", -1), Ok(-1 | 3));
        let internal = vec![self.output(n)?, self.output(shifted)?, self.output(chosen)?];
        fits.then_some(Fused { op_type: "Softmax", internal, last, parameters: Vec::new() })
    }

    /// Whether a reduction of four axes keeps the others and goes over the last.
    fn is_over_the_last_axis(&self, n: usize) -> bool {
        let node = &self.graph.nodes[n];
        let axes = match (node.attributes.get("axes"), self.input(n, 1)) {
            (Some(Attribute::Ints(axes)), None) => axes.clone(),
            (None, Some(t)) => {
                let constant = self.graph.tensors[t].constant.as_ref();
                constant.and_then(|axes| axes.to_i64().ok()).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        matches!(axes[..], [-1 | 3]) && matches!(node.int("keepdims", 1), Ok(1))
    }

    fn rms_normalization(&self, n: usize) -> Option<Fused> {
        let x = self.input(n, 0)?;
        if !self.is_square(n, x) {
            return None;
        }
        let [mean, shifted, root] = self.root_of_mean(n)?;
        let mut nodes = vec![n, mean, shifted, root];
        let normalized = match self.next(root, "Div") {
            Some(div) if self.input(div, 0) == Some(x) => div,
            Some(div) if self.constant_operand(div, root).is_some() => {
                nodes.push(div);
                self.next(div, "Mul")?
            }
            _ => {
                let reciprocal = self.next(root, "Reciprocal")?;
                nodes.push(reciprocal);
                self.next(reciprocal, "Mul")?
            }
        };
        if ![self.input(normalized, 0), self.input(normalized, 1)].contains(&Some(x)) {
            return None;
        }
        nodes.push(normalized);
        self.affine("RMSNormalization", nodes, false)
    }
}
