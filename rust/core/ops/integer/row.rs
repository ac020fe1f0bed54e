//! Operators over whole rows: only intrinsics can say what a target does.

use super::environment::{add_attributes, add_code_input, add_encoding, add_output};
use super::{Context, IntegerOp, Prepared};
use crate::error::Result;
use crate::ops::Facts;
use crate::program::Env;

pub struct Row;

impl IntegerOp for Row {
    fn data_inputs(&self, _facts: &Facts<'_>) -> Vec<usize> {
        vec![0]
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        let mut env = Env::new();
        if let (Some(x), Some(y)) = (&facts.input(0)?.encoding, facts.outputs.first().and_then(Option::as_ref)) {
            add_code_input(&mut env, "x", x);
            add_encoding(&mut env, "x", x);
            if let Some(y) = &y.encoding {
                add_output(&mut env, y, clamp);
            }
        }
        add_attributes(&mut env, facts.node, &[]);
        Ok(env)
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, _env: Env) -> Result<Prepared> {
        Err(facts
            .unsupported(format!("action '{}' of an operator over rows", context.body.action.label()))
            .help("use intrinsic = \"…\" or float = true"))
    }
}
