//! Parameters: what a target's own compiler decides for a node, beyond ONNX's attributes and the encodings.
//!
//! A spec declares them with the values that they may have; a node states one as the string attribute `nputwin.NAME`, and a
//! program sees the Booleans `attr.NAME.VALUE`.

use super::nearest_help;
use crate::error::{Error, Location, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A choice that a node may state.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// The values, each a name.
    pub one_of: Vec<String>,
    /// What a node without a statement has.
    pub default: String,
}

impl Parameter {
    /// Checks that names are names and the default is a value.
    pub(super) fn check(&self, name: &str, file: &str) -> Result<()> {
        let is_name = |s: &str| {
            s.starts_with(|c: char| c.is_ascii_alphabetic()) && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let place = || Location::File(format!("{file} [parameters.{name}]"));
        if let Some(bad) = self.one_of.iter().map(String::as_str).chain([name]).find(|s| !is_name(s)) {
            return Err(Error::invalid("spec_parameter", format!("'{bad}' is not a name")).at(place()));
        }
        if !self.one_of.contains(&self.default) {
            return Err(Error::invalid("spec_parameter", format!("default '{}' is not in one_of", self.default))
                .at(place())
                .help(nearest_help(&self.default, self.one_of.iter().map(String::as_str))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_names_and_the_default_is_one_of_them() {
        let parameter = |values: &[&str], default: &str| Parameter {
            one_of: values.iter().map(|v| v.to_string()).collect(),
            default: default.into(),
        };
        parameter(&["a", "b"], "b").check("p", "f").unwrap();
        for (bad, name) in
            [(parameter(&["a"], "b"), "p"), (parameter(&["a b"], "a b"), "p"), (parameter(&["a"], "a"), "")]
        {
            assert_eq!(bad.check(name, "f").unwrap_err().code(), "spec_parameter");
        }
    }
}
