//! What nodes state for the target's parameters, checked and spread into the constants that programs see.

use crate::error::{Error, Result, nearest};
use crate::graph::{Attribute, Node, PARAMETER_PREFIX};
use crate::spec::Parameter;
use std::collections::BTreeMap;

/// Checks what a node states against what the target declares.
///
/// # Errors
/// `parameter_unknown` for a parameter that the target lacks, `parameter_value` for a value that it has not.
fn check_node(parameters: &BTreeMap<String, Parameter>, node: &Node) -> Result<()> {
    for (key, value) in &node.attributes {
        let Some(name) = key.strip_prefix(PARAMETER_PREFIX) else { continue };
        let Some(parameter) = parameters.get(name) else {
            return Err(Error::invalid("parameter_unknown", format!("the target has no parameter '{name}'"))
                .at_node(&node.name, &node.op_type)
                .help(match parameters.is_empty() {
                    true => "it declares none".into(),
                    false => declared(name, parameters),
                }));
        };
        match value {
            Attribute::String(v) if parameter.one_of.contains(v) => {}
            other => {
                let given = if let Attribute::String(v) = other { format!("'{v}'") } else { "not a string".into() };
                return Err(Error::invalid("parameter_value", format!("parameter '{name}' is {given}"))
                    .at_node(&node.name, &node.op_type)
                    .help(format!("one of: {}", parameter.one_of.join(", "))));
            }
        }
    }
    Ok(())
}

fn declared(name: &str, parameters: &BTreeMap<String, Parameter>) -> String {
    match nearest(name, parameters.keys().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("it declares: {}", parameters.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// Writes what holds at a node as integer attributes `nputwin.NAME.VALUE`, 1 for the value that it has and 0 for the others.
///
/// # Errors
/// Those of [`check_node`].
pub fn settle(parameters: &BTreeMap<String, Parameter>, node: &mut Node) -> Result<()> {
    check_node(parameters, node)?;
    for (name, parameter) in parameters {
        let key = format!("{PARAMETER_PREFIX}{name}");
        let chosen = match node.attributes.get(&key) {
            Some(Attribute::String(v)) => v.clone(),
            _ => parameter.default.clone(),
        };
        for value in &parameter.one_of {
            node.attributes.insert(format!("{key}.{value}"), Attribute::Int((*value == chosen).into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> BTreeMap<String, Parameter> {
        let one_of = vec!["single".to_string(), "double".to_string()];
        BTreeMap::from([("rounding".to_string(), Parameter { one_of, default: "double".into() })])
    }

    fn node(value: Option<Attribute>) -> Node {
        let attributes = value.map(|v| (format!("{PARAMETER_PREFIX}rounding"), v)).into_iter().collect();
        Node { attributes, ..Node::default() }
    }

    #[test]
    fn the_default_holds_where_a_node_states_nothing() {
        for (stated, single, double) in [(None, 0, 1), (Some("single"), 1, 0), (Some("double"), 0, 1)] {
            let mut node = node(stated.map(|s| Attribute::String(s.into())));
            settle(&declared(), &mut node).unwrap();
            assert_eq!(node.attributes["nputwin.rounding.single"], Attribute::Int(single));
            assert_eq!(node.attributes["nputwin.rounding.double"], Attribute::Int(double));
        }
    }

    #[test]
    fn undeclared_names_and_values_are_errors() {
        let code = |parameters: &_, value| check_node(parameters, &node(Some(value))).unwrap_err().code().to_string();
        assert_eq!(code(&declared(), Attribute::String("triple".into())), "parameter_value");
        assert_eq!(code(&declared(), Attribute::Int(1)), "parameter_value");
        assert_eq!(code(&BTreeMap::new(), Attribute::String("single".into())), "parameter_unknown");
    }
}
