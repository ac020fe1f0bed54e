//! Expand and Tile: repetition. They move any type.

use super::broadcast::broadcast_shape;
use super::transpose::move_kernel;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::Result;
use crate::tensor::View;
use crate::tensor::{element_count, strides};

/// Expand: broadcasting with a shape.
pub struct Expand;

fn expanded(facts: &Facts<'_>) -> Result<Vec<usize>> {
    let wanted = signature::constant_ints(facts, 1)?;
    let wanted: Vec<usize> = wanted
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| facts.invalid(format!("shape {wanted:?} is not possible"))))
        .collect::<Result<_>>()?;
    broadcast_shape(&[&facts.input(0)?.shape, &wanted])
}

impl Op for Expand {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &[])?;
        Ok(vec![(facts.input(0)?.dtype, expanded(facts)?)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (shape, out) = (&facts.input(0)?.shape, expanded(facts)?);
        move_kernel(shape.clone(), View::broadcast(shape, &out), out)
    }
}

/// Tile: each dimension is repeated as a whole.
pub struct Tile;

fn repeats(facts: &Facts<'_>) -> Result<(Vec<usize>, Vec<usize>)> {
    let shape = &facts.input(0)?.shape;
    let list = signature::constant_ints(facts, 1)?;
    let repeats: Vec<usize> = list.iter().filter_map(|&r| usize::try_from(r).ok()).collect();
    if list.len() != shape.len() || repeats.len() != shape.len() {
        return Err(facts.invalid(format!("repeats {list:?} do not fit {shape:?}")));
    }
    let out: Vec<usize> = shape.iter().zip(&repeats).map(|(&d, &r)| d.saturating_mul(r)).collect();
    element_count(&out)?;
    Ok((repeats, out))
}

impl Op for Tile {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        if facts.opset < 6 {
            return Err(facts.unsupported("Tile before opset 6 is not supported"));
        }
        signature::check(facts, 2..=2, 1..=1, &[])?;
        Ok(vec![(facts.input(0)?.dtype, repeats(facts)?.1)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let shape = &facts.input(0)?.shape;
        let (repeats, out) = repeats(facts)?;
        let mut view = View::new(&[], &[], 0);
        for ((&d, &r), &s) in shape.iter().zip(&repeats).zip(&strides(shape)) {
            view.dims.extend([r, d]);
            view.strides.extend([0, s as isize]);
        }
        move_kernel(shape.clone(), view, out)
    }
}
