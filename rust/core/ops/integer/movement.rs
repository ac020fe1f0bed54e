//! Operators that move codes without computing: the ONNX kernel itself, run on codes.

use super::{Argument, Context, IntegerOp, Layout, Prepared};
use crate::error::Result;
use crate::ops::{Facts, Kernel, RunContext, registry};
use crate::program::Env;
use crate::tensor::{Data, Tensor};

/// Whether an operator moves or selects elements, so that it commutes with every increasing code-to-real map.
pub fn is_movement(op_type: &str) -> bool {
    matches!(
        op_type,
        "Reshape"
            | "Flatten"
            | "Transpose"
            | "Squeeze"
            | "Unsqueeze"
            | "Concat"
            | "Split"
            | "Slice"
            | "Gather"
            | "GatherElements"
            | "Expand"
            | "Tile"
            | "Pad"
            | "DepthToSpace"
            | "SpaceToDepth"
            | "MaxPool"
            | "GlobalMaxPool"
            | "ReduceMax"
            | "ReduceMin"
            | "ArgMax"
            | "ArgMin"
            | "Identity"
            | "Dropout"
            | "Resize"
            | "Upsample"
            | "Where"
    )
}

pub struct Movement;

impl IntegerOp for Movement {
    fn data_inputs(&self, facts: &Facts<'_>) -> Vec<usize> {
        match facts.node.op_type.as_str() {
            "Concat" => (0..facts.inputs.len()).collect(),
            "Where" => vec![1, 2],
            _ => vec![0],
        }
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        let mut env = super::row::Row.environment(facts, clamp)?;
        if matches!(facts.node.op_type.as_str(), "Resize" | "Upsample") {
            let nearest = facts.node.string("mode", "nearest")? == "nearest";
            env.constant("attr.nearest", crate::program::Value::Bool(nearest));
        }
        Ok(env)
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>) -> Result<Prepared> {
        let op = registry::find(&facts.node.domain, &facts.node.op_type)
            .ok_or_else(|| facts.unsupported("no such operator"))?;
        let code_facts = code_facts(facts, &self.data_inputs(facts))?;
        let mut kernel = op.float(&Facts { inputs: &code_facts, ..*facts })?;
        if let Some((lo, hi)) = context.clamp {
            kernel = Box::new(Clamped { kernel, lo, hi });
        }
        let arguments = (0..facts.inputs.len()).map(|input| Argument { input, layout: Layout::RowMajor }).collect();
        Ok(Prepared { kernel, arguments, layout: Layout::RowMajor })
    }
}

/// A movement whose result a fused activation clamps.
struct Clamped {
    kernel: Box<dyn Kernel>,
    lo: i64,
    hi: i64,
}

impl Kernel for Clamped {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let mut outputs = self.kernel.run(context, inputs)?;
        macro_rules! clamp {
            ($v:expr, $t:ty) => {
                $v.iter_mut().for_each(|c| *c = (*c).clamp(self.lo as $t, self.hi as $t))
            };
        }
        match outputs[0].data_mut() {
            Data::U8(v) => clamp!(v, u8),
            Data::I8(v) => clamp!(v, i8),
            Data::U16(v) => clamp!(v, u16),
            Data::I16(v) => clamp!(v, i16),
            Data::I32(v) => clamp!(v, i32),
            other => return Err(super::mac::wrong_codes(other)),
        }
        Ok(outputs)
    }
}

/// The facts with the data inputs in the types of their codes, and a pad value in codes.
fn code_facts(facts: &Facts<'_>, data: &[usize]) -> Result<Vec<Option<crate::ops::Fact>>> {
    let mut out = facts.inputs.to_vec();
    for &i in data {
        if let Some(fact) = out[i].as_mut()
            && let Some(encoding) = &fact.encoding
        {
            fact.dtype = super::lanes::storage(encoding);
            fact.constant = fact.codes.clone();
        }
    }
    Ok(out)
}
