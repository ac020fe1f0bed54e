//! Placement rules in words, one line each.

use nputwin::spec::placement::{Combination, OpRule, ParameterRule, Pattern, Tie};
use nputwin::spec::{Evidence, MissingEncoding, Placement};

/// How a file's placement table is known.
pub fn evidence_line(file: &str, evidence: Option<&Evidence>) -> String {
    match evidence {
        None => format!("[no evidence] {file}"),
        Some(e) if e.note.is_empty() => format!("[{}] {} ({file})", e.status, e.source),
        Some(e) => format!("[{}] {}; {} ({file})", e.status, e.source, e.note),
    }
}

/// Everything that the table says.
pub fn placement_lines(placement: &Placement) -> Vec<String> {
    let mut lines = Vec::new();
    if !placement.supergroups().is_empty() {
        let chains: Vec<String> = placement.supergroups().iter().map(|g| g.join(" + ")).collect();
        lines.push(format!("one quantizer, at the end, of {}", chains.join(", ")));
    }
    if let Some(breaks) = &placement.supergroup_breaks {
        let words: Vec<String> = breaks.iter().map(|b| format!("{b:?}").to_lowercase()).collect();
        lines.push(format!("chains broken by: {}", words.join(", ")));
    }
    if !placement.patterns().is_empty() {
        let words: Vec<&str> = placement
            .patterns()
            .iter()
            .map(|p| match p {
                Pattern::MatmulAdd => "MatMul + Add of constants",
                Pattern::LayerNormalization => "layer normalization in parts",
                Pattern::RmsNormalization => "RMS normalization in parts",
                Pattern::MaskedSoftmax => "Softmax of masked scores",
            })
            .collect();
        lines.push(format!("one operator: {}", words.join(", ")));
    }
    if placement.fuse_only_redundant() {
        lines.push("activations fuse only where they clamp nothing".into());
    }
    if let Some(ops) = &placement.grid_preserving {
        lines.push(format!("output in the encoding of the input: {}", ops.join(", ")));
    }
    if let Some(ops) = &placement.grid_scaling {
        lines.push(format!("codes of the input, times a positive constant scalar: {}", ops.join(", ")));
    }
    let missing = match placement.missing_encoding() {
        MissingEncoding::Float => "its producer and consumers run in float",
        MissingEncoding::Error => "the model is refused",
    };
    lines.push(format!("a tensor without encoding: {missing}"));
    if let Some(list) = &placement.supported {
        lines.push(format!("formats: {}", formats(list)));
    }
    for (what, quantized) in [
        ("inputs of the graph", placement.model_input.quantized),
        ("outputs of the graph", placement.model_output.quantized),
    ] {
        if let Some(quantized) = quantized {
            lines.push(format!("{what}: {}", quantizer(quantized)));
        }
    }
    let defaults = &placement.defaults;
    let mut words = Vec::new();
    let activations = defaults.activations;
    words.extend(activations.quantized.map(|q| quantizer(q).to_string()));
    words.extend(activations.bitwidth.map(|b| format!("{b} bits")));
    words.extend(activations.symmetric.map(|s| symmetry(s).to_string()));
    words.extend(activations.signed.map(|s| sign(s).to_string()));
    if !words.is_empty() {
        lines.push(format!("activations: {}", words.join(", ")));
    }
    let words = parameter_words(&defaults.parameters);
    if !words.is_empty() {
        lines.push(format!("parameters: {words}"));
    }
    if defaults.strict_symmetric == Some(true) {
        lines.push("symmetric grids leave the lowest code out".into());
    }
    if defaults.unsigned_symmetric == Some(true) {
        lines.push("symmetric grids of values without negatives are unsigned".into());
    }
    lines.extend(placement.params.iter().map(|(role, rule)| format!("{role}: {}", parameter_words(rule))));
    lines.extend(placement.ops.iter().map(|(op_type, rule)| format!("{op_type}: {}", op_words(rule))));
    lines
}

fn op_words(op: &OpRule) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(op.input_quantized.map(|q| format!("inputs {}", quantizer(q))));
    words.extend(op.output_quantized.map(|q| quantizer(q).to_string()));
    if op.high_precision_output == Some(true) {
        words.push("at the end of the graph the accumulator leaves".into());
    }
    words.extend(op.bitwidth.map(|b| format!("{b} bits")));
    words.extend(op.input_bitwidth.map(|b| format!("inputs of {b} bits")));
    words.extend(op.symmetric.map(|s| symmetry(s).to_string()));
    words.extend(op.signed.map(|s| sign(s).to_string()));
    words.extend(op.per_channel.map(|p| granularity(p).to_string()));
    words.extend(op.per_channel_grouped.map(|p| format!("weights in groups {}", granularity(p))));
    words.extend(op.axis.map(|a| format!("channel axis {a}")));
    words.extend(op.constraint.map(|c| match (c.min, c.max) {
        (Some(min), Some(max)) => format!("grid from {min} to {max}"),
        (Some(min), None) => format!("grid from {min}"),
        (_, max) => format!("grid to {}", max.unwrap_or_default()),
    }));
    words.extend(op.tied.map(|t| match t {
        Tie::OutputFollowsInput => "output in the encoding of the input".to_string(),
        Tie::InputsFollowOutput => "inputs in the encoding of the output".to_string(),
    }));
    words.extend(op.supported.as_ref().map(|list| format!("formats {}", formats(list))));
    words.extend(op.second_operand.as_ref().map(|pairs| {
        let pair = |p: &nputwin::spec::placement::OperandPair| {
            format!("{} by {}{}", p.first, p.second, if p.symmetric { " symmetric" } else { "" })
        };
        format!("products of computed tensors {}", pairs.iter().map(pair).collect::<Vec<_>>().join(" or "))
    }));
    words.extend(op.params.iter().map(|(role, rule)| format!("{role} {}", parameter_words(rule))));
    words.join("; ")
}

fn parameter_words(rule: &ParameterRule) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(rule.quantized.map(|q| quantizer(q).to_string()));
    words.extend(rule.bitwidth.map(|b| format!("{b} bits")));
    words.extend(rule.min_bitwidth.map(|b| format!("{b} bits or more")));
    words.extend(rule.symmetric.map(|s| symmetry(s).to_string()));
    words.extend(rule.symmetric_from_bits.map(|b| format!("symmetric from {b} bits on")));
    if rule.follows_output == Some(true) {
        words.push("bits and symmetry of the output".into());
    }
    words.extend(rule.signed.map(|s| sign(s).to_string()));
    words.extend(rule.per_channel.map(|p| granularity(p).to_string()));
    words.join(", ")
}

fn formats(list: &[Combination]) -> String {
    let word = |c: &Combination| match c.weight {
        Some(weight) => format!("{} with {weight} weights", c.activation),
        None => c.activation.to_string(),
    };
    list.iter().map(word).collect::<Vec<_>>().join(" or ")
}

fn quantizer(quantized: bool) -> &'static str {
    if quantized { "quantized" } else { "not quantized" }
}

fn symmetry(symmetric: bool) -> &'static str {
    if symmetric { "symmetric" } else { "asymmetric" }
}

fn sign(signed: bool) -> &'static str {
    if signed { "signed" } else { "unsigned" }
}

fn granularity(per_channel: bool) -> &'static str {
    if per_channel { "per channel" } else { "per tensor" }
}
