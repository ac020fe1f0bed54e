//! Which encodings a target takes at all: its rule `activations`, asked once for every quantized activation.

use crate::error::{Error, Kind, Location, Result};
use crate::graph::Graph;
use crate::ops::integer::environment::add_encoding;
use crate::program::Env;
use crate::spec::{Action, Execution, Spec, names};

/// Refuses a graph with an activation whose encoding the target does not take. Constants are left to the rule `weights`.
pub fn admit(graph: &Graph, spec: &Spec) -> Result<()> {
    let Some(rule) = spec.rule(names::ACTIVATIONS).filter(|_| spec.execution == Execution::Integer) else {
        return Ok(());
    };
    for tensor in graph.tensors.iter().filter(|t| t.constant.is_none() && t.codes.is_none()) {
        let Some(encoding) = &tensor.encoding else { continue };
        let mut env = Env::new();
        add_encoding(&mut env, "x", encoding);
        match &rule.resolve(&env).map_err(|e| e.at_tensor(&tensor.name))?.action {
            Action::Move => {}
            Action::Unsupported(reason) => {
                return Err(Error::new(Kind::UnsupportedByTarget, "activation_encoding", reason.clone())
                    .at_tensor(&tensor.name)
                    .help(format!("'{}' takes other encodings: calibrate for it", spec.name)));
            }
            other => {
                return Err(Error::invalid(
                    "rule_action",
                    "rule 'activations' accepts (move) or refuses (unsupported)",
                )
                .at(Location::File(rule.origin.clone()))
                .help(format!("found: {}", other.label())));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Encoding;
    use crate::graph::TensorInfo;
    use std::sync::Arc;

    fn verdict(zero_point: i64, signed: bool) -> Result<()> {
        let text = "schema_version = 1\nname = \"t\"\n[rules.activations]\nmove = true\n\
            evidence = { status = \"documented\", source = \"\" }\n\
            [[rules.activations.cases]]\nwhen = \"x.zp != 0\"\nunsupported = \"asymmetric\"\n\
            [[rules.activations.cases]]\nwhen = \"!x.signed\"\nunsupported = \"unsigned\"\n";
        let spec = Spec::parse(text, "t.toml").unwrap();
        let mut graph = Graph::default();
        let encoding = Encoding::per_tensor(0.5, zero_point, 8, signed).unwrap();
        graph.add_tensor(TensorInfo { name: "a".into(), encoding: Some(Arc::new(encoding)), ..TensorInfo::default() });
        admit(&graph, &spec)
    }

    #[test]
    fn encodings_that_the_target_does_not_take_are_refused_with_their_tensor() {
        verdict(0, true).unwrap();
        let error = verdict(3, true).unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::UnsupportedByTarget, "activation_encoding"));
        assert!(error.to_string().contains("asymmetric") && error.to_string().contains("'a'"), "{error}");
        assert!(verdict(0, false).unwrap_err().to_string().contains("unsigned"));
    }
}
