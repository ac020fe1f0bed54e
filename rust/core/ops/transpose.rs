//! Transpose, DepthToSpace and SpaceToDepth: permutations of dimensions. They move any type.

use super::closure::{kernel, shaped};
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::Result;
use crate::tensor::{Shape, Tensor, View, element_count};

/// A kernel that copies `view` of an input of `shape` into a tensor of shape `out`.
pub fn move_kernel(shape: Vec<usize>, view: View, out: impl Into<Shape>) -> Result<Box<dyn Kernel>> {
    let out = out.into();
    kernel(move |context, inputs| {
        let x = shaped(inputs, 0, &shape)?;
        let data = view.output(context, 0, x.data());
        Ok([Tensor::new(out.clone(), data)?].into())
    })
}

/// Transpose.
pub struct Transpose;

/// The permutation of a Transpose node: reversed where it names none.
pub fn permutation(facts: &Facts<'_>, rank: usize) -> Result<Vec<usize>> {
    let Some(list) = facts.node.ints("perm")? else { return Ok((0..rank).rev().collect()) };
    let out: Vec<usize> = list.iter().filter_map(|&p| usize::try_from(p).ok()).filter(|&p| p < rank).collect();
    if list.len() != rank || out.len() != rank || (0..rank).any(|i| !out.contains(&i)) {
        return Err(facts.invalid(format!("perm {list:?} is no permutation of {rank} dimensions")));
    }
    Ok(out)
}

impl Op for Transpose {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["perm"])?;
        let x = facts.input(0)?;
        let permutation = permutation(facts, x.shape.len())?;
        Ok(vec![(x.dtype, permutation.iter().map(|&p| x.shape[p]).collect())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let x = &facts.input(0)?.shape;
        let view = View::permuted(x, &permutation(facts, x.len())?);
        let out = view.dims.clone();
        move_kernel(x.clone(), view, out)
    }
}

/// DepthToSpace and SpaceToDepth over `[N, C, H, W]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Channels to blocks of `blocksize²` pixels; in mode `DCR` the block is the outer part of the channel, in `CRD`
    /// the inner one.
    DepthToSpace,
    /// Blocks of pixels to channels; the block is the outer part of the channel, in mode `CRD` (opset 28) the inner one.
    SpaceToDepth,
}

impl Blocks {
    /// The input as six dimensions, their permutation, and the shape of the output.
    fn plan(self, facts: &Facts<'_>) -> Result<([usize; 6], [usize; 6], Vec<usize>)> {
        let x = facts.input(0)?;
        let &[n, c, h, w] = x.shape.as_slice() else {
            return Err(facts.invalid(format!("'{}' has shape {:?}, four dimensions are expected", x.name, x.shape)));
        };
        let size = facts.node.int("blocksize", 0)?;
        let b = usize::try_from(size)
            .ok()
            .filter(|b| (1..=1 << 15).contains(b))
            .ok_or_else(|| facts.invalid(format!("blocksize {size} is not possible")))?;
        let uneven = || facts.invalid(format!("a blocksize of {b} does not divide {:?}", x.shape));
        match self {
            Blocks::DepthToSpace => {
                if c % (b * b) != 0 {
                    return Err(uneven());
                }
                let out = vec![n, c / (b * b), h * b, w * b];
                match facts.node.string("mode", "DCR")? {
                    "DCR" => Ok(([n, b, b, c / (b * b), h, w], [0, 3, 4, 1, 5, 2], out)),
                    "CRD" => Ok(([n, c / (b * b), b, b, h, w], [0, 1, 4, 2, 5, 3], out)),
                    other => Err(facts.invalid(format!("mode '{other}' is neither 'DCR' nor 'CRD'"))),
                }
            }
            Blocks::SpaceToDepth => {
                if h % b != 0 || w % b != 0 {
                    return Err(uneven());
                }
                let channels = element_count(&[c, b, b])?;
                let permutation = match facts.node.string("mode", "DCR")? {
                    "DCR" => [0, 3, 5, 1, 2, 4],
                    "CRD" => [0, 1, 3, 5, 2, 4],
                    other => return Err(facts.invalid(format!("mode '{other}' is neither 'DCR' nor 'CRD'"))),
                };
                Ok(([n, c, h / b, b, w / b, b], permutation, vec![n, channels, h / b, w / b]))
            }
        }
    }
}

impl Op for Blocks {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let attributes: &[&str] = match self {
            Blocks::DepthToSpace if facts.opset >= 11 => &["blocksize", "mode"],
            Blocks::SpaceToDepth if facts.opset >= 28 => &["blocksize", "mode"],
            _ => &["blocksize"],
        };
        signature::check(facts, 1..=1, 1..=1, attributes)?;
        Ok(vec![(facts.input(0)?.dtype, self.plan(facts)?.2)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (dims, permutation, out) = self.plan(facts)?;
        move_kernel(facts.input(0)?.shape.clone(), View::permuted(&dims, &permutation), out)
    }
}
