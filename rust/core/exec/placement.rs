//! Where quantizers stand: the spec's rules applied to a graph's encodings before it is planned.

use super::parameters;
use super::quantizers::{data_inputs, reals};
use super::scaling::Scaling;
use super::supergroups::chains;
use crate::error::Result;
use crate::graph::{Attribute, Clamp, Graph, Node, TensorId};
use crate::spec::Spec;
use crate::spec::placement::{Break, Tie};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Something that the rules changed or could not do; shown to the user.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Node or tensor name.
    pub place: String,
    /// One sentence.
    pub text: String,
}

/// A graph after placement.
pub struct Placed {
    /// The graph; fused activations are gone from it.
    pub graph: Graph,
    /// For each node, the bounds of its fused activation.
    pub clamps: Vec<Option<Clamp>>,
    /// What was done.
    pub notes: Vec<Note>,
}

/// Applies the spec's placement rules.
///
/// # Errors
/// Where a node states a parameter that the target lacks.
pub fn place(mut graph: Graph, spec: &Spec) -> Result<Placed> {
    let mut notes = Vec::new();
    let mut clamps: Vec<Option<Clamp>> = graph.nodes.iter().map(|n| n.clamp).collect();
    if spec.execution == crate::spec::Execution::Integer {
        for node in &mut graph.nodes {
            parameters::settle(&spec.parameters, node)?;
        }
        // Until chains are fused, a tensor before an activation may be one that has no encoding at all.
        let fusing: BTreeSet<&str> =
            spec.placement.supergroups().iter().flat_map(|chain| chain[1..].iter().map(String::as_str)).collect();
        inherit_encodings(&mut graph, spec, &fusing, &mut notes);
        fuse(&mut graph, spec, &mut clamps, &mut notes);
        inherit_encodings(&mut graph, spec, &BTreeSet::new(), &mut notes);
    }
    Ok(Placed { graph, clamps, notes })
}

/// Gives the outputs of operators that preserve or tie encodings that of their input, and the other way round where a
/// producer's only reader is such an operator and not one of `fusing`.
fn inherit_encodings(graph: &mut Graph, spec: &Spec, fusing: &BTreeSet<&str>, notes: &mut Vec<Note>) {
    let tie = |node: &Node| spec.placement.tie(&node.op_type);
    let preserves = |node: &Node| spec.placement.preserves_grid(&node.op_type) || tie(node).is_some();
    // Concat ties several inputs, whether a spec calls it tied or grid-preserving.
    let many = |node: &Node| node.op_type == "Concat" || tie(node) == Some(Tie::InputsFollowOutput);
    let constants: Vec<_> = graph.tensors.iter().map(|info| info.constant.clone()).collect();
    let holds_reals = reals(graph, &constants);
    for n in 0..graph.nodes.len() {
        let node = &graph.nodes[n];
        // A product may be the head of a chain: only what is left of it then scales.
        let value = |t: TensorId| graph.tensors[t].constant.as_deref();
        let scaling = Scaling::of(graph, &spec.placement, node, value).filter(|_| fusing.is_empty());
        if let (Some(scaling), Some(Some(y))) = (scaling, node.outputs.first())
            && let (Some(from), None) = (&graph.tensors[scaling.from].encoding, &graph.tensors[*y].encoding)
            && let Some(encoding) = scaling.encoding(from)
        {
            let (y, whose) = (*y, graph.tensors[scaling.from].name.clone());
            let text = format!("has no encoding; takes the codes of '{whose}', whose scale is multiplied");
            notes.push(Note { place: graph.tensors[y].name.clone(), text });
            graph.tensors[y].encoding = Some(Arc::new(encoding));
            continue;
        }
        if !preserves(node) || fusing.contains(node.op_type.as_str()) {
            continue;
        }
        let Some(Some(input)) = node.inputs.first().copied() else { continue };
        let Some(encoding) = graph.tensors[input].encoding.clone() else { continue };
        if encoding.scale.len() != 1 {
            continue;
        }
        let sources = if many(node) { data_inputs(graph, node) } else { vec![input] };
        if sources.iter().any(|&t| graph.tensors[t].encoding.as_ref() != Some(&encoding)) {
            continue;
        }
        for t in node.outputs.clone().into_iter().flatten() {
            if graph.tensors[t].encoding.is_none() && holds_reals[t] {
                notes.push(Note {
                    place: graph.tensors[t].name.clone(),
                    text: format!(
                        "has no encoding; takes that of '{}', whose values it holds",
                        graph.tensors[input].name
                    ),
                });
                graph.tensors[t].encoding = Some(encoding.clone());
            }
        }
    }
    let consumers = graph.consumers();
    let producers = graph.producers();
    for n in (0..graph.nodes.len()).rev() {
        let node = &graph.nodes[n];
        if !preserves(node) || many(node) || fusing.contains(node.op_type.as_str()) {
            continue;
        }
        let (Some(Some(input)), Some(Some(output))) = (node.inputs.first().copied(), node.outputs.first().copied())
        else {
            continue;
        };
        let inside = graph.outputs.iter().all(|p| p.tensor != input);
        let sole = inside && consumers[input].len() == 1 && producers[input].is_some();
        let open = graph.tensors[input].encoding.is_none() && graph.tensors[input].constant.is_none();
        if let (true, true, Some(encoding)) = (sole, open, graph.tensors[output].encoding.clone()) {
            let whose = &graph.tensors[output].name;
            notes.push(Note {
                place: graph.tensors[input].name.clone(),
                text: format!("has no encoding; takes that of '{whose}', which is all that reads it"),
            });
            graph.tensors[input].encoding = Some(encoding);
        }
    }
}

/// Bounds of an activation that only clamps.
fn clamp_of(graph: &Graph, node: &Node) -> Option<Clamp> {
    let bound = |i: usize, name: &str, default: f32| -> Option<f32> {
        match node.inputs.get(i).copied().flatten() {
            Some(t) => graph.tensors[t].constant.as_ref()?.to_f64().first().map(|&v| v as f32),
            None => match node.attributes.get(name) {
                None => Some(default),
                Some(Attribute::Float(v)) => Some(*v),
                Some(_) => None,
            },
        }
    };
    match node.op_type.as_str() {
        "Relu" => Some(Clamp { lo: 0.0, hi: f32::INFINITY }),
        "Clip" => Some(Clamp { lo: bound(1, "min", f32::NEG_INFINITY)?, hi: bound(2, "max", f32::INFINITY)? }),
        _ => None,
    }
}

fn fuse(graph: &mut Graph, spec: &Spec, clamps: &mut Vec<Option<Clamp>>, notes: &mut Vec<Note>) {
    let mut removed = vec![false; graph.nodes.len()];
    let mut unclamped = BTreeMap::new();
    let open = |t: TensorId| graph.tensors[t].encoding.is_none();
    let found = chains(graph, &spec.placement, false, open, |nodes| {
        let clamps = nodes[1..].iter().all(|&m| clamp_of(graph, &graph.nodes[m]).is_some());
        if !clamps {
            let names: Vec<&str> = nodes[1..].iter().map(|&m| graph.nodes[m].op_type.as_str()).collect();
            unclamped.entry(nodes[0]).or_insert_with(|| names.join(" and "));
        }
        clamps
    });
    for (n, activation) in unclamped.into_iter().filter(|(n, _)| found.iter().all(|chain| chain.nodes[0] != *n)) {
        let text = format!(
            "the target runs it as one kernel with {activation}, whose arithmetic on the accumulator nobody documented: \
             both run in float between the quantizers"
        );
        notes.push(Note { place: graph.nodes[n].name.clone(), text });
    }
    for chain in found {
        let n = chain.nodes[0];
        let head = graph.nodes[n].name.clone();
        if let Some(reason) = chain.broken {
            let what = match reason {
                Break::Depthwise => "a depthwise convolution",
                Break::Conv3d => "a convolution over three axes",
                Break::Branching => "an operator with several readers",
            };
            notes.push(Note { place: head, text: format!("{what} does not fuse with its activation") });
            continue;
        }
        let chain = chain.nodes;
        let bounds: Vec<Clamp> = chain[1..].iter().filter_map(|&m| clamp_of(graph, &graph.nodes[m])).collect();
        if spec.placement.fuse_only_redundant() && !bounds.iter().all(|b| cannot_leave(graph, &chain, *b)) {
            continue;
        }
        let last = *chain.last().expect("a chain has two nodes or more");
        let names: Vec<&str> = chain[1..].iter().map(|&m| graph.nodes[m].op_type.as_str()).collect();
        notes.push(Note { place: head, text: format!("runs as one kernel with {}", names.join(" and ")) });
        let all = Clamp { lo: f32::NEG_INFINITY, hi: f32::INFINITY };
        clamps[n] = Some(bounds.iter().fold(clamps[n].unwrap_or(all), |a, b| Clamp {
            lo: a.lo.max(b.lo).min(b.hi),
            hi: a.hi.min(b.hi).max(b.lo),
        }));
        graph.nodes[n].outputs = graph.nodes[last].outputs.clone();
        chain[1..].iter().for_each(|&m| removed[m] = true);
    }
    let mut keep = removed.iter().map(|r| !r);
    graph.nodes.retain(|_| keep.next().unwrap_or(true));
    let mut keep = removed.iter().map(|r| !r);
    clamps.retain(|_| keep.next().unwrap_or(true));
}

/// Whether every code of the chain's last output stands for a real within the bounds.
fn cannot_leave(graph: &Graph, chain: &[usize], bounds: Clamp) -> bool {
    let output = chain.last().and_then(|&m| graph.nodes[m].outputs.first().copied().flatten());
    let Some(encoding) = output.and_then(|t| graph.tensors[t].encoding.as_deref()) else { return false };
    let (lo, hi) = (encoding.min(), encoding.max());
    lo >= f64::from(bounds.lo) && hi <= f64::from(bounds.hi) * (1.0 + 1e-6)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Builder;
    use super::*;
    use crate::encoding::Encoding;

    #[test]
    fn indices_inherit_no_encoding() {
        let mut builder = Builder::new();
        builder.constant("k", &[1]).node("TopK", &["x", "k"], "values");
        let indices = builder.tensor("indices", None);
        builder.node("Identity", &["indices"], "same");
        let mut graph = builder.graph(&["x"], &["values", "same"]);
        graph.nodes[0].outputs.push(Some(indices));
        for name in ["indices", "same"] {
            let t = graph.find(name).unwrap();
            graph.tensors[t].dtype = None;
        }
        let x = graph.find("x").unwrap();
        graph.tensors[x].encoding = Some(Arc::new(Encoding::per_tensor(0.5, 0, 8, true).unwrap()));
        let placed = place(graph, &Spec::load("htp_v75").unwrap()).unwrap().graph;
        let encoding = |name: &str| placed.tensors[placed.find(name).unwrap()].encoding.clone();
        assert_eq!(encoding("values"), encoding("x"));
        assert_eq!((encoding("indices"), encoding("same")), (None, None));
    }

    #[test]
    fn a_product_that_fuses_with_its_activation_does_not_scale() {
        let mut builder = Builder::new();
        builder.tensor("c", Some(crate::tensor::Tensor::f32(&[], vec![0.5])));
        builder.node("Mul", &["x", "c"], "m").node("Relu", &["m"], "y");
        let mut graph = builder.graph(&["x"], &["y"]);
        for name in ["x", "y"] {
            let t = graph.find(name).unwrap();
            graph.tensors[t].encoding = Some(Arc::new(Encoding::per_tensor(0.5, 0, 8, true).unwrap()));
        }
        let text = "schema_version = 1\nname = \"t\"\n[placement]\ngrid_scaling = [\"Mul\"]\n";
        let alone = Spec::parse(text, "t.toml").unwrap();
        let fused = Spec::parse(&format!("{text}supergroups = [[\"Mul\", \"Relu\"]]"), "t.toml").unwrap();
        let nodes = |spec: &Spec| place(graph.clone(), spec).unwrap().graph.nodes.len();
        assert_eq!((nodes(&alone), nodes(&fused)), (2, 1));
    }
}
