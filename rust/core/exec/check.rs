//! Where a model's encodings break the target's placement rules.

use super::quantizers::{Decision, Decisions, Quantizer, Reason, Role, data_inputs, quantizers};
use super::scaling::Scaling;
use crate::encoding::{Encoding, Granularity};
use crate::graph::{Graph, TensorId};
use crate::spec::Spec;
use crate::spec::placement::{MissingEncoding, Precision};
use std::collections::HashMap;

/// One thing that the target would do differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable slug.
    pub code: &'static str,
    /// Name of the tensor or node.
    pub place: String,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Compares the encodings of `graph` with the placement rules of `spec`. The graph is as read, with its encodings applied.
pub fn check(graph: &Graph, spec: &Spec) -> Vec<Finding> {
    let decisions = quantizers(graph, &spec.placement);
    let mut checker = Checker { graph, spec, decisions: &decisions, out: Vec::new() };
    for decision in &decisions.tensors {
        checker.tensor(decision);
    }
    checker.groups();
    checker.formats();
    checker.out
}

struct Checker<'a> {
    graph: &'a Graph,
    spec: &'a Spec,
    decisions: &'a Decisions,
    out: Vec<Finding>,
}

impl Checker<'_> {
    fn finding(&mut self, code: &'static str, place: &str, message: String, help: &str) {
        self.out.push(Finding { code, place: place.into(), message, help: help.into() });
    }

    /// The encoding of a tensor; that of its group's where it only holds another tensor's values.
    fn encoding(&self, t: TensorId) -> Option<&Encoding> {
        let own = self.graph.tensors[t].encoding.as_deref();
        own.or_else(|| {
            let decision = self.decisions.of(t)?;
            match decision.reason {
                Reason::Preserved(_) => self.graph.tensors[decision.group].encoding.as_deref(),
                _ => None,
            }
        })
    }

    /// The encoding at the end of the operators that a tensor lies inside.
    fn end(&self, mut t: TensorId) -> Option<&Encoding> {
        while matches!(self.decisions.of(t)?.reason, Reason::Inside(_)) {
            let reader = self.graph.nodes.iter().find(|n| n.inputs.first() == Some(&Some(t)))?;
            t = reader.outputs.first().copied().flatten()?;
        }
        self.graph.tensors[t].encoding.as_deref()
    }

    /// Whether an encoding is the one that follows from what the tensor is a multiple of.
    fn is_scaled(&self, t: TensorId, encoding: &Encoding) -> bool {
        let Some(node) = self.graph.nodes.iter().find(|n| n.outputs.first() == Some(&Some(t))) else { return false };
        let value = |t: TensorId| self.decisions.value(t).map(|v| &**v);
        let scaling = Scaling::of(self.graph, &self.spec.placement, node, value);
        scaling.is_some_and(|s| self.encoding(s.from).is_some_and(|from| s.keeps_codes(from, encoding)))
    }

    fn tensor(&mut self, decision: &Decision) {
        let info = &self.graph.tensors[decision.tensor];
        let name = &info.name;
        match (&info.encoding, decision.quantizer) {
            (Some(encoding), Some(quantizer)) => self.grid(name, encoding, &quantizer, decision),
            (Some(encoding), None) => {
                let (message, help) = match &decision.reason {
                    // The encoding of the chain's end, said twice.
                    Reason::Inside(_) if self.end(decision.tensor).is_some_and(|end| end.same_grid(encoding)) => return,
                    Reason::Inside(chain) => (
                        format!("it has an encoding, but lies inside {chain}, which the target runs as one"),
                        "remove the encoding: with it, the operators do not fuse",
                    ),
                    // An integer bias has the scale of the accumulator, and is no quantizer by range.
                    Reason::Unquantized(_) if matches!(&decision.role, Role::Parameter { name, .. } if name == "bias") =>
                    {
                        return;
                    }
                    Reason::Preserved(_) => return,
                    Reason::Scaled(_) if self.is_scaled(decision.tensor, encoding) => return,
                    Reason::Scaled(from) => (
                        format!("it has a grid of its own, but the target leaves it the codes of '{from}'"),
                        "remove the encoding: it follows from that tensor's and the constant",
                    ),
                    reason => (format!("it has an encoding, but the target gives it none ({reason})"), "remove it"),
                };
                self.finding("placement_extra", name, message, help);
            }
            (None, Some(_)) if decision.reason == Reason::Rule => {
                let consequence = match self.spec.placement.missing_encoding() {
                    MissingEncoding::Float => "what reads and writes it runs in float",
                    MissingEncoding::Error => "the target refuses the model",
                };
                let message = format!("it has no encoding, but the target quantizes it; without one {consequence}");
                self.finding("placement_missing", name, message, "calibrate the model for this target");
            }
            (None, _) => {}
        }
    }

    fn grid(&mut self, name: &str, encoding: &Encoding, quantizer: &Quantizer, decision: &Decision) {
        if quantizer.symmetric && !is_symmetric(encoding) && !(quantizer.unsigned_symmetric && is_unsigned(encoding)) {
            let message = "its grid is asymmetric, but the target's is symmetric";
            self.finding("placement_symmetric", name, message.into(), "put zero in the middle of the grid");
        }
        if quantizer.sign_is_given && encoding.signed != quantizer.signed {
            let (has, wants) = if quantizer.signed { ("unsigned", "signed") } else { ("signed", "unsigned") };
            let message = format!("its codes are {has}, but the target's are {wants}");
            self.finding("placement_sign", name, message, "shift codes and zero point by half the grid");
        }
        let parameter = matches!(decision.role, Role::Parameter { .. });
        match (&encoding.granularity, quantizer.axis) {
            (Granularity::PerChannel { axis }, Some(wanted)) if *axis != wanted => {
                let message = format!("its scales lie along axis {axis}, but the target's along axis {wanted}");
                self.finding("placement_granularity", name, message, "quantize along the output channels");
            }
            (Granularity::PerChannel { .. }, None) if encoding.scale.len() > 1 => {
                let message = "it has one scale per channel, but the target has one per tensor";
                self.finding("placement_granularity", name, message.into(), "quantize it per tensor");
            }
            _ => {}
        }
        if parameter && quantizer.narrow_range && !encoding.narrow_range && self.uses_lowest(decision.tensor, encoding)
        {
            let message = format!("it uses the code {}, which the target leaves out", encoding.qmin());
            self.finding("placement_strict", name, message, "divide the range by one code less");
        }
        let Some(constraint) = quantizer.constraint else { return };
        let scale = encoding.scale[0];
        let off = |has: f64, wanted: f64| (has - wanted).abs() > scale * (1.0 + 1e-9);
        let wrong = match (constraint.min, constraint.max) {
            // The narrowest symmetric grid around both ends; one side of it may be a step short.
            (Some(lo), Some(hi)) if quantizer.symmetric => {
                let end = hi.max(-lo);
                (off(encoding.max(), end) || off(encoding.min(), -end)).then_some(("reaches", encoding.max(), end))
            }
            _ if quantizer.symmetric => None,
            (Some(lo), _) if off(encoding.min(), lo) => Some(("begins at", encoding.min(), lo)),
            (_, Some(hi)) if off(encoding.max(), hi) => Some(("ends at", encoding.max(), hi)),
            _ => None,
        };
        if let Some((verb, has, wanted)) = wrong {
            let message = format!("its grid {verb} {has}, but the target's {wanted}");
            self.finding("placement_constraint", name, message, "set the range of this output, do not observe it");
        }
    }

    /// Whether a constant has the lowest code of its grid.
    fn uses_lowest(&self, t: TensorId, encoding: &Encoding) -> bool {
        let info = &self.graph.tensors[t];
        if let Some(codes) = &info.codes {
            return codes.to_f64().iter().any(|&q| q == encoding.qmin() as f64);
        }
        let Some(value) = &info.constant else { return false };
        let smallest = value.to_f64().into_iter().fold(0.0, f64::min);
        encoding.scale.len() == 1 && smallest / encoding.scale[0] < encoding.qmin() as f64 + 0.5
    }

    /// Tensors with one encoding on the target that have several in the model.
    fn groups(&mut self) {
        let mut groups: HashMap<TensorId, Vec<TensorId>> = HashMap::new();
        for decision in self.decisions.tensors.iter().filter(|d| d.quantizer.is_some()) {
            if self.graph.tensors[decision.tensor].encoding.is_some() {
                groups.entry(decision.group).or_default().push(decision.tensor);
            }
        }
        let mut groups: Vec<Vec<TensorId>> = groups.into_values().filter(|g| g.len() > 1).collect();
        groups.sort();
        for group in groups {
            let name = |t: TensorId| self.graph.tensors[t].name.clone();
            let first = group[0];
            let differs = |t: &&TensorId| match (&self.graph.tensors[first].encoding, &self.graph.tensors[**t].encoding)
            {
                (Some(a), Some(b)) => !a.same_grid(b),
                _ => false,
            };
            let others: Vec<TensorId> = group[1..].iter().filter(differs).copied().collect();
            for t in others {
                let message = format!("its encoding is not that of '{}', which it shares on the target", name(first));
                let help = "give both one encoding, over the range of both";
                self.finding("placement_tied", &name(t), message, help);
            }
        }
    }

    /// Formats that kernels do not take.
    fn formats(&mut self) {
        for node in &self.graph.nodes {
            let data = data_inputs(self.graph, node);
            let input = |i: usize| node.inputs.get(i).copied().flatten();
            let format = |t: TensorId| self.encoding(t).map(|e| Precision::int(e.bitwidth));
            let activation = data.first().and_then(|&t| format(t));
            let weight = input(1).filter(|t| {
                matches!(self.decisions.of(*t).map(|d| &d.role), Some(Role::Parameter { name, .. }) if name == "weight")
            });
            let rule = self.spec.placement.ops.get(&node.op_type);
            if let (Some(list), Some(activation)) = (self.spec.placement.supported(&node.op_type), activation) {
                let weight = weight.and_then(format);
                let fits = |w: Option<Precision>| weight.is_none() || w.is_none() || w == weight;
                if !list.iter().any(|c| c.activation == activation && fits(c.weight)) {
                    let with = weight.map_or(String::new(), |w| format!(" with {w} weights"));
                    let known: Vec<String> = list.iter().map(combination).collect();
                    let message = format!("{} has no kernel for {activation} activations{with}", node.op_type);
                    self.finding("placement_format", &node.name, message, &format!("it takes {}", known.join(", ")));
                }
            }
            let computed = input(1).filter(|t| self.decisions.value(*t).is_none());
            if let (Some(pairs), Some(first), Some(b)) =
                (rule.and_then(|r| r.second_operand.as_ref()), activation, computed)
                && let Some(encoding) = self.encoding(b)
            {
                let second = Precision::int(encoding.bitwidth);
                let fitting: Vec<_> = pairs.iter().filter(|p| p.first == first && p.second == second).collect();
                let second_symmetric = is_symmetric(encoding);
                if fitting.is_empty() {
                    let known: Vec<String> = pairs.iter().map(|p| format!("{} by {}", p.first, p.second)).collect();
                    let message = format!("{} has no kernel for {first} by {second}", node.op_type);
                    self.finding("placement_format", &node.name, message, &format!("it takes {}", known.join(", ")));
                } else if fitting.iter().all(|p| p.symmetric) && !second_symmetric {
                    let name = self.graph.tensors[b].name.clone();
                    let message = format!("it is the second operand of {}, whose grid must be symmetric", node.op_type);
                    self.finding("placement_symmetric", &name, message, "put zero in the middle of the grid");
                }
            }
        }
        // A second operand whose quantizer the rules make symmetric is found with the tensor as well.
        let mut seen = std::collections::HashSet::new();
        self.out.retain(|f| seen.insert((f.code, f.place.clone())));
    }
}

fn combination(c: &crate::spec::placement::Combination) -> String {
    match c.weight {
        Some(weight) => format!("{} with {weight} weights", c.activation),
        None => c.activation.to_string(),
    }
}

fn middle(encoding: &Encoding) -> i64 {
    if encoding.signed { 0 } else { 1i64 << (encoding.bitwidth - 1) }
}

fn is_symmetric(encoding: &Encoding) -> bool {
    encoding.zero_point.iter().all(|&z| z == middle(encoding))
}

/// Whether the grid begins at zero.
fn is_unsigned(encoding: &Encoding) -> bool {
    encoding.zero_point.iter().all(|&z| z == encoding.qmin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::Builder;
    use std::sync::Arc;

    const RULES: &str = r#"
        schema_version = 1
        name = "t"
        [placement]
        supergroups = [["Conv", "Relu"]]
        defaults = { activations = { signed = false }, strict_symmetric = true }
        ops.Conv.supported = [{ activation = "int8", weight = "int8" }]
        ops.Softmax.constraint = { min = 0.0, max = 1.0 }
        ops.Concat.tied = "inputs_follow_output"
        ops.MatMul.second_operand = [{ first = "int8", second = "int8", symmetric = true }]
    "#;

    fn graph() -> Graph {
        let mut b = Builder::new();
        b.constant("w", &[2, 1, 1, 1]).node("Conv", &["x", "w"], "conv").node("Relu", &["conv"], "relu");
        b.node("Concat", &["relu", "x"], "cat").attribute("axis", 1).node("Softmax", &["cat"], "soft");
        b.node("MatMul", &["soft", "m"], "y").graph(&["x", "m"], &["y"])
    }

    fn encoded(edit: impl Fn(&str) -> Option<Encoding>) -> Vec<(&'static str, String)> {
        let mut graph = graph();
        for info in &mut graph.tensors {
            let usual = match info.name.as_str() {
                "w" => Some(Encoding { narrow_range: true, ..per_tensor(1.0 / 127.0, 0, 8, true) }),
                "conv" => None,
                "soft" => Some(per_tensor(1.0 / 255.0, 0, 8, false)),
                "m" | "y" => Some(per_tensor(0.5, 128, 8, false)),
                _ => Some(per_tensor(0.5, 3, 8, false)),
            };
            let changed = edit(&info.name);
            info.encoding = match changed {
                Some(encoding) if encoding.scale[0] == 1e9 => None,
                other => other.or(usual).map(Arc::new),
            };
        }
        let spec = Spec::parse(RULES, "t.toml").unwrap();
        check(&graph, &spec).into_iter().map(|f| (f.code, f.place)).collect()
    }

    fn per_tensor(scale: f64, zero_point: i64, bits: u32, signed: bool) -> Encoding {
        Encoding::per_tensor(scale, zero_point, bits, signed).unwrap()
    }

    #[test]
    fn what_keeps_the_rules_has_no_findings() {
        assert_eq!(encoded(|_| None), []);
    }

    #[test]
    fn each_breach_is_found_where_it_is() {
        let two = Encoding {
            scale: vec![0.5, 0.5],
            zero_point: vec![3, 3],
            granularity: Granularity::PerChannel { axis: 1 },
            ..per_tensor(0.5, 3, 8, false)
        };
        // A scale of 1e9 takes the encoding away.
        let none = || per_tensor(1e9, 0, 8, false);
        let cases: [(&str, Encoding, &str, &str); 12] = [
            ("w", per_tensor(0.1, 5, 8, true), "placement_symmetric", "w"),
            ("w", per_tensor(1.0 / 127.0, 0, 4, true), "placement_format", "conv"),
            ("conv", per_tensor(0.25, 3, 8, false), "placement_extra", "conv"),
            ("relu", none(), "placement_missing", "relu"),
            ("relu", per_tensor(0.25, 3, 8, false), "placement_tied", "relu"),
            ("soft", per_tensor(0.5, 0, 8, false), "placement_constraint", "soft"),
            ("soft", per_tensor(1.0 / 65535.0, 0, 16, false), "placement_format", "y"),
            ("m", per_tensor(0.5, 7, 8, false), "placement_symmetric", "m"),
            ("y", per_tensor(0.5, 0, 8, true), "placement_sign", "y"),
            ("y", two, "placement_granularity", "y"),
            ("w", per_tensor(1.0, 0, 8, true), "", ""),
            ("conv", per_tensor(0.5, 3, 8, false), "", ""),
        ];
        for (name, encoding, code, place) in cases {
            let found = encoded(|n| (n == name).then(|| encoding.clone()));
            match code {
                "" => assert_eq!(found, []),
                _ => assert!(found.contains(&(code, place.to_string())), "{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_lowest_code_of_a_strict_grid_is_found_in_the_values() {
        let mut graph = graph();
        let w = graph.find("w").unwrap();
        graph.tensors[w].constant = Some(crate::tensor::Tensor::f32(&[2, 1, 1, 1], vec![-128.0, 127.0]).into());
        graph.tensors[w].encoding = Some(Arc::new(per_tensor(1.0, 0, 8, true)));
        let spec = Spec::parse(RULES, "t.toml").unwrap();
        assert!(check(&graph, &spec).iter().any(|f| f.code == "placement_strict" && f.place == "w"));
    }
}
