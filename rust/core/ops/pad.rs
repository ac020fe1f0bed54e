//! Pad: constant, reflect, edge and wrap. Moves any type.

use super::closure::{kernel, optional, shaped};
use super::element::{Element, Integer, Real, by_class};
use super::grid::{Picks, Sources};
use super::{Facts, Inferred, Kernel, Op, RunContext, axis, signature};
use crate::error::{Error, Result};
use crate::tensor::{Data, MAX_ELEMENTS, Tensor, element_count};

/// Pad.
pub struct Pad;

/// What constant padding holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PadValue {
    /// A real.
    Real(f64),
    /// An integer: a code, where the tensor holds codes.
    Integer(i64),
    /// Input 2 of the run, or zero where it is left out.
    FromInput,
}

struct Plan {
    shape: Vec<usize>,
    out: Vec<usize>,
    /// Padded axes with the padding before them.
    begins: Vec<(usize, i64)>,
}

fn plan(facts: &Facts<'_>) -> Result<Plan> {
    let shape = facts.input(0)?.shape.clone();
    let rank = shape.len();
    let name = if facts.opset < 2 { "paddings" } else { "pads" };
    let pads = signature::ints_by_opset(facts, name, 1, 11)?.ok_or_else(|| facts.invalid("'pads' is missing"))?;
    let axes = match facts.optional(3) {
        None => (0..rank).collect(),
        Some(_) => axis::normalize_all(facts, &signature::constant_ints(facts, 3)?, rank)?,
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|p| p.unsigned_abs() > MAX_ELEMENTS as u64) {
        return Err(facts.invalid(format!("pads {pads:?} do not fit {} axes of {shape:?}", axes.len())));
    }
    let mode = facts.node.string("mode", "constant")?;
    let mut out = shape.clone();
    let dimension = |a: usize, begin: i64, end: i64| {
        usize::try_from(shape[a] as i64 + begin + end)
            .map_err(|_| facts.invalid(format!("pads {pads:?} take more than {shape:?} has")))
    };
    for (i, &a) in axes.iter().enumerate() {
        out[a] = dimension(a, pads[i], pads[axes.len() + i])?;
    }
    element_count(&out)?;
    if let Some(&a) = axes.iter().find(|&&a| shape[a] == 0 && out[a] > 0 && mode != "constant") {
        return Err(facts.invalid(format!("mode '{mode}' has nothing to repeat along axis {a} of {shape:?}")));
    }
    let begins = axes.iter().copied().zip(pads).collect();
    Ok(Plan { shape, out, begins })
}

/// For each dimension, where the elements of the output come from.
fn sources(facts: &Facts<'_>, plan: &Plan) -> Result<Sources> {
    let mode = facts.node.string("mode", "constant")?;
    let mut sources: Sources = plan.shape.iter().map(|&d| (0..d).map(Some).collect()).collect();
    for &(a, begin) in &plan.begins {
        let size = plan.shape[a] as i64;
        let source = |position: i64| -> Result<Option<usize>> {
            let inside = (0..size).contains(&position);
            Ok(Some(match mode {
                _ if inside => position as usize,
                "constant" => return Ok(None),
                "edge" => position.clamp(0, size - 1) as usize,
                "wrap" => position.rem_euclid(size) as usize,
                "reflect" if size == 1 => 0,
                "reflect" => {
                    let folded = position.rem_euclid(2 * (size - 1));
                    folded.min(2 * (size - 1) - folded) as usize
                }
                other => return Err(facts.invalid(format!("mode '{other}' is not known"))),
            }))
        };
        sources[a] = (0..plan.out[a] as i64).map(|p| source(p - begin)).collect::<Result<_>>()?;
    }
    Ok(sources)
}

/// Order of the axes in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AxisOrder {
    /// That of the operator.
    Onnx,
    /// Axis 1 behind all others.
    ChannelsLast,
}

impl Plan {
    /// The same padding of a tensor whose axes lie in memory in another order.
    fn in_order(mut self, order: AxisOrder) -> Plan {
        if order == AxisOrder::ChannelsLast {
            let last = self.shape.len() - 1;
            self.shape[1..].rotate_left(1);
            self.out[1..].rotate_left(1);
            for (axis, _) in &mut self.begins {
                *axis = match *axis {
                    0 => 0,
                    1 => last,
                    other => other - 1,
                };
            }
        }
        self
    }
}

/// A kernel that pads with `value`, whatever the node says of the value: for tensors of codes, whose axes lie in `order`.
pub fn pad_kernel(facts: &Facts<'_>, value: PadValue, order: AxisOrder) -> Result<Box<dyn Kernel>> {
    fn scalar<T: Element>(given: Option<&Tensor>) -> Result<T> {
        match given.map(|t| T::view(t.data())) {
            None => Ok(T::default()),
            Some(Some([one])) => Ok(*one),
            Some(_) => Err(Error::invalid("tensor_dtype", "the padding is no scalar of the input's type")),
        }
    }
    fn real<T: Real>(value: PadValue, given: Option<&Tensor>) -> Result<T> {
        match value {
            PadValue::Real(v) => Ok(T::from_f64(v)),
            PadValue::Integer(v) => Ok(T::from_f64(v as f64)),
            PadValue::FromInput => scalar(given),
        }
    }
    fn integer<T: Integer>(value: PadValue, given: Option<&Tensor>) -> Result<T> {
        let out_of_range = || Error::invalid("tensor_range", format!("{value:?} is no {}", T::DTYPE));
        match value {
            PadValue::Integer(v) => {
                let value = T::wrapping_from(v.into());
                if value.to_i128() == v.into() { Ok(value) } else { Err(out_of_range()) }
            }
            PadValue::Real(_) => Err(out_of_range()),
            PadValue::FromInput => scalar(given),
        }
    }
    fn reals<T: Real>(
        context: &RunContext<'_>,
        picks: &Picks,
        x: &[T],
        value: PadValue,
        given: Option<&Tensor>,
    ) -> Result<Data> {
        Ok(T::wrap(picks.of(context, x, real(value, given)?)))
    }
    fn integers<T: Integer>(
        context: &RunContext<'_>,
        picks: &Picks,
        x: &[T],
        value: PadValue,
        given: Option<&Tensor>,
    ) -> Result<Data> {
        Ok(T::wrap(picks.of(context, x, integer(value, given)?)))
    }
    let plan = plan(facts)?.in_order(order);
    let sources = sources(facts, &plan)?;
    let picks = Picks::new(plan.shape, sources);
    kernel(move |context, inputs| {
        let x = shaped(inputs, 0, picks.shape())?;
        let given = optional(inputs, 2);
        let data = by_class!(x.data(), v =>
            real reals(context, &picks, v, value, given)?,
            integer integers(context, &picks, v, value, given)?,
            boolean Data::Bool(picks.of(context, v, scalar(given)?)),
        );
        Ok([Tensor::new(picks.output(), data)?].into())
    })
}

impl Op for Pad {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let (inputs, attributes): (_, &[&str]) = match facts.opset {
            ..2 => (1..=1, &["paddings", "mode", "value"]),
            2..11 => (1..=1, &["pads", "mode", "value"]),
            11..18 => (2..=3, &["mode"]),
            _ => (2..=4, &["mode"]),
        };
        signature::check(facts, inputs, 1..=1, attributes)?;
        let x = facts.input(0)?;
        facts.node.float("value", 0.0)?;
        if facts.opset < 11 && !x.dtype.is_float() {
            return Err(facts.invalid("only floats are padded before opset 11"));
        }
        if let Some(value) = facts.optional(2) {
            signature::same_dtype(facts, x, value)?;
            if element_count(&value.shape)? != 1 {
                return Err(facts.invalid(format!("'{}' of shape {:?} is no scalar", value.name, value.shape)));
            }
        }
        let mode = facts.node.string("mode", "constant")?;
        if !["constant", "reflect", "edge", "wrap"].contains(&mode) || (mode == "wrap" && facts.opset < 19) {
            return Err(facts.invalid(format!("mode '{mode}' is not known")));
        }
        Ok(vec![(x.dtype, plan(facts)?.out)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let value = match facts.opset {
            ..11 => PadValue::Real(facts.node.float("value", 0.0)?.into()),
            _ => PadValue::FromInput,
        };
        pad_kernel(facts, value, AxisOrder::Onnx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Node};
    use crate::kernels::Team;
    use crate::ops::{Fact, RunContext};

    fn run(mode: &str, pads: Vec<i64>, x: Tensor, value: PadValue) -> Result<Tensor> {
        let node = Node {
            attributes: [("mode".to_string(), Attribute::String(mode.into()))].into(),
            outputs: vec![Some(0)],
            ..Node::default()
        };
        let fact = |t: &Tensor| {
            Some(Fact {
                name: "x".into(),
                dtype: t.dtype(),
                shape: t.shape().to_vec(),
                constant: Some(t.clone().into()),
                codes: None,
                encoding: None,
            })
        };
        let inputs = [fact(&x), fact(&Tensor::i64(&[pads.len()], pads))];
        let facts = Facts { node: &node, opset: 19, inputs: &inputs, outputs: &[] };
        Pad.infer(&facts)?;
        let team = Team::new(1);
        Ok(pad_kernel(&facts, value, AxisOrder::Onnx)?.run(&RunContext::new(&team), &[Some(&x)])?.into_first())
    }

    #[test]
    fn codes_are_padded_with_the_given_code() {
        let x = Tensor::new(vec![2], Data::U8(vec![1, 2].into())).unwrap();
        let y = run("constant", vec![1, 2], x.clone(), PadValue::Integer(128)).unwrap();
        assert_eq!(y.data(), &Data::U8(vec![128, 1, 2, 128, 128].into()));
        assert!(run("constant", vec![1, 2], x, PadValue::Integer(256)).is_err());
    }

    #[test]
    fn modes_fold_as_numpy_does() {
        let x = || Tensor::i64(&[3], vec![1, 2, 3]);
        let modes = [
            ("reflect", vec![3, 2, 1, 2, 3, 2, 1, 2]),
            ("edge", vec![1, 1, 1, 2, 3, 3, 3, 3]),
            ("wrap", vec![2, 3, 1, 2, 3, 1, 2, 3]),
        ];
        for (mode, expected) in modes {
            let y = run(mode, vec![2, 3], x(), PadValue::FromInput).unwrap();
            assert_eq!(y.as_i64().unwrap(), expected, "{mode}");
        }
        let cropped = run("constant", vec![-1, 1], x(), PadValue::FromInput).unwrap();
        assert_eq!(cropped.as_i64().unwrap(), [2, 3, 0]);
        assert!(run("constant", vec![-2, -2], x(), PadValue::FromInput).is_err());
        assert!(run("circular", vec![0, 0], x(), PadValue::FromInput).is_err());
    }
}
