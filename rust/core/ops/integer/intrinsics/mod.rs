//! Named arithmetic for what a program cannot say: several passes over a row, float sums in a stated order.
//!
//! A spec names an intrinsic with `intrinsic = "name"`. Each one is defined by its documentation and computes the same
//! bits for every thread count.

mod average_pool_f32;
mod average_pool_window_sums;
mod fixed_point;
mod l2_normalize_inverse_sqrt;
mod planes;
mod record;
mod resize_bilinear;
mod resize_bilinear_f32;
mod resize_bilinear_q7;
mod rows;
mod softmax_exp_table_f32;
mod softmax_power2_q15;
mod softmax_q5_26;
mod softmax_table_513;

use super::{Arrangement, Context, Layout, Prepared, window};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::ops::{Explanation, Facts, Kernel, Outputs, Place, RunContext};
use crate::tensor::Tensor;

type Prepare = fn(&Facts<'_>, &Context<'_>) -> Result<Box<dyn Kernel>>;

/// Every intrinsic: its name and how it is prepared. All read input 0 and write output 0, in ONNX's order but for those of
/// [`arrangement`].
const INTRINSICS: &[(&str, Prepare)] = &[
    ("average_pool_f32", average_pool_f32::prepare),
    ("average_pool_window_sums", average_pool_window_sums::prepare),
    ("l2_normalize_inverse_sqrt", l2_normalize_inverse_sqrt::prepare_twice),
    ("l2_normalize_inverse_sqrt_single_rounding", l2_normalize_inverse_sqrt::prepare_once),
    ("resize_bilinear_f32", resize_bilinear_f32::prepare_plain),
    ("resize_bilinear_f32_weighted", resize_bilinear_f32::prepare_weighted),
    ("resize_bilinear_q10", resize_bilinear::prepare_q10),
    ("resize_bilinear_q10_half_up", resize_bilinear::prepare_q10_half_up),
    ("resize_bilinear_q11", resize_bilinear::prepare_q11),
    ("resize_bilinear_q7", resize_bilinear_q7::prepare),
    ("softmax_exp_table_f32", softmax_exp_table_f32::prepare_shifted),
    ("softmax_exp_table_f32_reciprocal", softmax_exp_table_f32::prepare_reciprocal),
    ("softmax_power2_q15", softmax_power2_q15::prepare),
    ("softmax_power2_q15_table_16", softmax_power2_q15::prepare_sixteen),
    ("softmax_q5_26", softmax_q5_26::prepare),
    ("softmax_q5_26_below_2_30", softmax_q5_26::prepare_below_2_30),
    ("softmax_table_513", softmax_table_513::prepare),
    ("softmax_table_513_single_rounding", softmax_table_513::prepare_once),
    ("softmax_table_513_wrapped", softmax_table_513::prepare_wrapped),
];

/// Names of all intrinsics.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    INTRINSICS.iter().map(|(name, _)| *name)
}

/// Prepares an intrinsic for a node.
pub fn prepare(name: &str, facts: &Facts<'_>, context: &Context<'_>) -> Result<Prepared> {
    let Some((_, prepare)) = INTRINSICS.iter().find(|(n, _)| *n == name) else {
        return Err(Error::invalid("intrinsic_unknown", format!("there is no intrinsic '{name}'"))
            .help(crate::spec::nearest_help(name, names())));
    };
    if context.clamp.is_some() && name != "average_pool_f32" {
        return Err(facts.unsupported(format!("a fused activation behind the intrinsic '{name}'")));
    }
    let encodings = unary_encodings(facts).map(|(x, y)| [("x", x.clone()), ("y", y.clone())]).ok();
    Ok(Prepared {
        kernel: Box::new(Named { name: name.to_string(), encodings, kernel: prepare(facts, context)? }),
        arrangement: arrangement(name, facts)?,
    })
}

/// The layouts of an intrinsic.
fn arrangement(name: &str, facts: &Facts<'_>) -> Result<Arrangement> {
    match (name, facts.outputs.first()) {
        ("average_pool_f32", Some(Some(y))) => Ok(window::arrangement(window::planar(facts)?.is_some(), y)),
        _ => Ok(Arrangement::first(Layout::RowMajor)),
    }
}

/// An intrinsic that says its name and encodings before it explains an element.
struct Named {
    name: String,
    encodings: Option<[(&'static str, Encoding); 2]>,
    kernel: Box<dyn Kernel>,
}

impl Kernel for Named {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        self.kernel.run(context, inputs)
    }

    fn explain(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let mut named = Explanation::default();
        named.add("intrinsic", &self.name);
        for (role, encoding) in self.encodings.iter().flatten() {
            named.add(format!("{role}.scale"), encoding.scale[0]);
            named.add(format!("{role}.zp"), encoding.zero_point[0]);
        }
        let explanation = self.kernel.explain(context, inputs, place)?;
        named.operands.extend(explanation.operands);
        Ok(Explanation { operands: named.operands, ..explanation })
    }
}

/// Per-tensor encodings of input 0 and output 0.
fn unary_encodings<'a>(facts: &Facts<'a>) -> Result<(&'a Encoding, &'a Encoding)> {
    let x = super::environment::encoding_of(facts, facts.input(0)?)?;
    let y = facts.outputs.first().and_then(Option::as_ref).ok_or_else(|| facts.invalid("no output"))?;
    let y = super::environment::encoding_of(facts, y)?;
    match x.scale.len() == 1 && y.scale.len() == 1 {
        true => Ok((x, y)),
        false => Err(facts.unsupported("per-channel activations")),
    }
}

/// Refuses encodings of other than 8 bits.
fn require_8_bits(facts: &Facts<'_>, encodings: [&Encoding; 2]) -> Result<()> {
    match encodings.iter().all(|e| e.bitwidth == 8) {
        true => Ok(()),
        false => Err(facts.unsupported("this intrinsic is defined for 8 bits")),
    }
}
