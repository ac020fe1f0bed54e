//! Operators that move codes without computing: the ONNX kernel itself, run on codes.

use super::environment::{add_code_input, add_encoding, add_output, encoding_of};
use super::{Arrangement, Context, IntegerOp, Layout, Prepared, channels_last, quantizers};
use crate::encoding::{Encoding, Granularity};
use crate::error::Result;
use crate::ops::explanation::result;
use crate::ops::pad::{AxisOrder, PadValue, pad_kernel};
use crate::ops::{Explained, Explanation, Facts, Kernel, Outputs, Place, RunContext, registry};
use crate::program::{Env, Value};
use crate::spec::{Spec, names};
use crate::tensor::{Data, Tensor};
use std::sync::Arc;

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
            | "GatherND"
            | "Scatter"
            | "ScatterElements"
            | "ScatterND"
            | "TensorScatter"
            | "TopK"
            | "Compress"
            | "ReverseSequence"
    )
}

/// The inputs whose elements are moved; the others say where to.
pub fn data_inputs(facts: &Facts<'_>) -> Vec<usize> {
    match facts.node.op_type.as_str() {
        "Concat" => (0..facts.inputs.len()).collect(),
        "Where" => vec![1, 2],
        "Scatter" | "ScatterElements" | "ScatterND" => vec![0, 2],
        "TensorScatter" => vec![0, 1],
        _ => vec![0],
    }
}

/// The encodings in which the data inputs are moved, one per input of the node.
fn moved_in(facts: &Facts<'_>, data: &[usize]) -> Vec<Option<Arc<Encoding>>> {
    let target = match facts.outputs {
        [Some(y)] => y.encoding.clone(),
        _ => None,
    };
    let own = |i: usize| facts.optional(i).and_then(|f| f.encoding.clone());
    (0..facts.inputs.len()).map(|i| own(i).filter(|_| data.contains(&i)).map(|e| target.clone().unwrap_or(e))).collect()
}

/// Operators that move or select elements.
pub struct Movement;

impl IntegerOp for Movement {
    fn data_inputs(&self, facts: &Facts<'_>) -> Vec<usize> {
        data_inputs(facts)
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        let mut env = super::row::Row.environment(facts, clamp)?;
        if matches!(facts.node.op_type.as_str(), "Resize" | "Upsample") {
            let nearest = facts.node.string("mode", "nearest")? == "nearest";
            env.constant("attr.nearest", crate::program::Value::Bool(nearest));
        }
        Ok(env)
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, _env: Env) -> Result<Prepared> {
        if let Some(prepared) = super::max_pool::prepare(facts, context)? {
            return Ok(prepared);
        }
        let op = registry::find(&facts.node.domain, &facts.node.op_type)
            .ok_or_else(|| facts.unsupported("no such operator"))?;
        let data = self.data_inputs(facts);
        let code_facts = code_facts(facts, &data)?;
        let code_facts = Facts { inputs: &code_facts, ..*facts };
        if facts.node.string("reduction", "none").is_ok_and(|r| matches!(r, "add" | "mul")) {
            return Err(facts.unsupported("updates that are added or multiplied are no movement of codes"));
        }
        let pads = facts.node.op_type == "Pad" && facts.node.string("mode", "constant")? == "constant";
        let padding = if pads { Some(pad_code(facts, context.spec)?) } else { None };
        if let Some(prepared) = channels_last::prepare(&code_facts, context, op, &data, padding)? {
            let kernel = Explained::new(prepared.kernel, facts);
            let kernel = Box::new(kernel.on_codes(moved_in(facts, &data), Layout::ChannelsLast));
            return Ok(Prepared { kernel, ..prepared });
        }
        let mut kernel = match padding {
            Some(code) => pad_kernel(&code_facts, PadValue::Integer(code), AxisOrder::Onnx)?,
            None => op.float(&code_facts)?,
        };
        kernel = Box::new(Explained::new(kernel, facts).on_codes(moved_in(facts, &data), Layout::RowMajor));
        if let Some((lo, hi)) = context.clamp {
            kernel = Box::new(Clamped { kernel, lo, hi });
        }
        Ok(Prepared { kernel, arrangement: Arrangement::alike(facts.inputs.len(), Layout::RowMajor) })
    }
}

/// A movement whose result a fused activation clamps.
struct Clamped {
    kernel: Box<dyn Kernel>,
    lo: i64,
    hi: i64,
}

impl Kernel for Clamped {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
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

    fn explain(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let mut explanation = self.kernel.explain(context, inputs, place)?;
        if place.output == 0 {
            let clamped = result(&self.run(context, inputs)?, place)?;
            explanation.trace.add("step", format!("clamp to {}..={}", self.lo, self.hi), &clamped);
            explanation.trace = explanation.trace.end(clamped);
        }
        Ok(explanation)
    }
}

/// The code of a padding value: in the encoding of the input first, then, like the input's codes, in that of the output.
fn pad_code(facts: &Facts<'_>, spec: &Spec) -> Result<i64> {
    let value = match facts.optional(2) {
        None => facts.node.float("value", 0.0)?,
        Some(_) => match facts.constant(2)?.to_f64().as_slice() {
            [value] => *value as f32,
            other => return Err(facts.invalid(format!("{} padding values", other.len()))),
        },
    };
    let from = encoding_of(facts, facts.input(0)?)?;
    let y = facts.outputs.first().and_then(Option::as_ref).ok_or_else(|| facts.invalid("no output"))?;
    let to = encoding_of(facts, y)?;
    if [from, to].iter().any(|e| e.granularity != Granularity::PerTensor) {
        return Err(facts.unsupported("padding of codes that have several scales"));
    }
    if value.is_nan() {
        return Err(facts.invalid("a padding of NaN has no code"));
    }
    let code = quantizers::compile_quantize(spec, spec.constant_rule(), from)?.eval(0, &[Value::F32(value)])?;
    let code = if from.same_grid(to) {
        code
    } else {
        let mut env = Env::new();
        add_code_input(&mut env, "x", from);
        add_encoding(&mut env, "x", from);
        env.constant("x.count", Value::Int(facts.input(0)?.shape.iter().product::<usize>() as i128));
        add_output(&mut env, to, None);
        quantizers::compile(spec, names::REQUANTIZE, &env)?.eval(0, &[code])?
    };
    code.as_int().and_then(|v| i64::try_from(v).ok()).ok_or_else(|| facts.invalid("the padding has no code"))
}

/// The facts with the data inputs in the types of their codes.
fn code_facts(facts: &Facts<'_>, data: &[usize]) -> Result<Vec<Option<crate::ops::Fact>>> {
    let mut out = facts.inputs.to_vec();
    // With one output the planner hands over codes of the output's encoding.
    let target = match facts.outputs {
        [Some(y)] => y.encoding.as_deref(),
        _ => None,
    };
    for &i in data {
        if let Some(fact) = out[i].as_mut()
            && let Some(encoding) = fact.encoding.clone()
        {
            fact.dtype = target.unwrap_or(&encoding).storage_dtype();
            let codes = fact.codes.clone().filter(|_| target.is_none_or(|t| t.same_grid(&encoding)));
            fact.constant = codes;
        }
    }
    Ok(out)
}
