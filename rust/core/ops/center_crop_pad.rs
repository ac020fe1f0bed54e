//! CenterCropPad: dimensions are cropped or padded with zeros on both sides. Moves any type.

use super::closure::{kernel, shaped};
use super::element::Element;
use super::grid::{Picks, Sources};
use super::{Facts, Inferred, Kernel, Op, RunContext, axis, signature};
use crate::error::Result;
use crate::map_data;
use crate::tensor::{Elements, Tensor, element_count};

/// CenterCropPad: of an odd element, the end loses or gets one more.
pub struct CenterCropPad;

fn plan(facts: &Facts<'_>) -> Result<Vec<usize>> {
    let mut out = facts.input(0)?.shape.clone();
    let wanted = signature::constant_ints(facts, 1)?;
    let axes = match facts.node.ints("axes")? {
        None => (0..out.len()).collect(),
        Some(axes) => axis::normalize_all(facts, axes, out.len())?,
    };
    if axes.len() != wanted.len() {
        return Err(facts.invalid(format!("{} axes of {out:?} cannot take the shape {wanted:?}", axes.len())));
    }
    for (&a, &d) in axes.iter().zip(&wanted) {
        out[a] = usize::try_from(d).map_err(|_| facts.invalid(format!("shape {wanted:?} is not possible")))?;
    }
    element_count(&out)?;
    Ok(out)
}

/// Where the elements of a dimension come from.
fn sources(from: usize, to: usize) -> Vec<Option<usize>> {
    let (crop, pad) = (from.saturating_sub(to) / 2, to.saturating_sub(from) / 2);
    (0..to).map(|i| (i + crop).checked_sub(pad).filter(|&s| s < from)).collect()
}

impl Op for CenterCropPad {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["axes"])?;
        signature::indices(facts, facts.input(1)?)?;
        Ok(vec![(facts.input(0)?.dtype, plan(facts)?)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Element>(context: &RunContext<'_>, picks: &Picks, x: &[T]) -> Elements<T> {
            picks.of(context, x, T::default())
        }
        let (shape, out) = (facts.input(0)?.shape.clone(), plan(facts)?);
        let sources: Sources = match out.contains(&0) {
            true => vec![Vec::new(); shape.len()],
            false => shape.iter().zip(&out).map(|(&from, &to)| sources(from, to)).collect(),
        };
        let picks = Picks::new(shape, sources);
        kernel(move |context, inputs| {
            let x = shaped(inputs, 0, picks.shape())?;
            let data = map_data!(x.data(), v => typed(context, &picks, v));
            Ok([Tensor::new(&out[..], data)?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_element_is_at_the_end() {
        assert_eq!(sources(5, 2), [Some(1), Some(2)]);
        assert_eq!(sources(1, 4), [None, Some(0), None, None]);
        assert_eq!(sources(0, 1), [None]);
    }
}
