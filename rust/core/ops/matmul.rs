//! MatMul and Gemm in float32: sums run over `k` ascending by fused multiply-add.

use super::broadcast::{Broadcast, broadcast_shape};
use super::closure::{kernel, optional, shaped};
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::{Error, Result};
use crate::kernels::float::{FloatWeights, gemm_f32};
use crate::tensor::View;
use crate::tensor::{Tensor, element_count};

/// Which matrices of two batches meet, and their sizes.
#[derive(Debug, Clone)]
pub struct MatMulShape {
    /// Rows of the left matrix.
    pub m: usize,
    /// Columns of the left matrix, rows of the right one.
    pub k: usize,
    /// Columns of the right matrix.
    pub n: usize,
    /// How left (input 0) and right matrices (input 1) meet.
    pub batches: Broadcast,
    /// Shape of the result.
    pub output: Vec<usize>,
}

impl MatMulShape {
    /// numpy's rules: a list on the left is a row, on the right a column, and that dimension is dropped from the
    /// result; the dimensions before the last two broadcast.
    pub fn new(facts: &Facts<'_>, a: &[usize], b: &[usize]) -> Result<Self> {
        if a.is_empty() || b.is_empty() {
            return Err(facts.invalid(format!("scalars cannot be multiplied as matrices: {a:?} and {b:?}")));
        }
        let (row, column) = (a.len() == 1, b.len() == 1);
        let a2 = if row { vec![1, a[0]] } else { a.to_vec() };
        let b2 = if column { vec![b[0], 1] } else { b.to_vec() };
        let (a_batch, [m, k]) = split(&a2);
        let (b_batch, [k_b, n]) = split(&b2);
        if k != k_b {
            return Err(facts.invalid(format!("matrices of {a:?} and {b:?} do not fit")));
        }
        let batches = Broadcast::new(&[a_batch, b_batch])?;
        let mut output = batches.shape().to_vec();
        if !row {
            output.push(m);
        }
        if !column {
            output.push(n);
        }
        element_count(&output)?;
        Ok(MatMulShape { m, k, n, batches, output })
    }
}

/// The batch dimensions and the last two; the shape has at least two.
fn split(shape: &[usize]) -> (&[usize], [usize; 2]) {
    let (batch, matrix) = shape.split_at(shape.len() - 2);
    (batch, [matrix[0], matrix[1]])
}

/// MatMul.
pub struct MatMul;

impl Op for MatMul {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &[])?;
        let (a, b) = (facts.input(0)?, facts.input(1)?);
        signature::float32(facts, a)?;
        signature::same_dtype(facts, a, b)?;
        Ok(vec![(a.dtype, MatMulShape::new(facts, &a.shape, &b.shape)?.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (a_shape, b_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        let plan = MatMulShape::new(facts, &a_shape, &b_shape)?;
        let MatMulShape { m, k, n, .. } = plan;
        let right_batch = b_shape[..b_shape.len().max(2) - 2].to_vec();
        let pack = move |w: &Tensor| -> Result<Vec<FloatWeights>> {
            let w = floats::read(w)?;
            if k * n == 0 {
                return Ok(vec![FloatWeights::from_kn(k, n, &[]); element_count(&right_batch)?]);
            }
            Ok(w.chunks_exact(k * n).map(|w| FloatWeights::from_kn(k, n, w)).collect())
        };
        let packed = facts.input(1)?.constant.as_deref().map(&pack).transpose()?;
        kernel(move |context, inputs| {
            let a = shaped(inputs, 0, &a_shape)?;
            let fresh = match &packed {
                Some(_) => Vec::new(),
                None => pack(shaped(inputs, 1, &b_shape)?)?,
            };
            let weights = packed.as_ref().unwrap_or(&fresh);
            let x = floats::read(a)?;
            let mut y = vec![0f32; element_count(&plan.output)?];
            if m * n > 0 {
                let engine = context.engine();
                for (i, part) in y.chunks_exact_mut(m * n).enumerate() {
                    let (left, right) = (plan.batches.index(0, i), plan.batches.index(1, i));
                    gemm_f32(engine, &x[left * m * k..][..m * k], m, &weights[right], &[], part);
                }
            }
            Ok([floats::write(&plan.output, y, a.dtype())?].into())
        })
    }
}

/// Gemm: `alpha · A' · B' + beta · C`.
pub struct Gemm;

/// Attributes and sizes of a Gemm node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GemmShape {
    /// Rows of the result.
    pub m: usize,
    /// Length of the sums.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// Whether A is stored transposed.
    pub trans_a: bool,
    /// Whether B is stored transposed.
    pub trans_b: bool,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of C.
    pub beta: f32,
}

impl GemmShape {
    /// Reads and checks a node.
    pub fn from_node(facts: &Facts<'_>) -> Result<Self> {
        let attributes: &[&str] = match facts.opset {
            ..7 => &["alpha", "beta", "transA", "transB", "broadcast"],
            _ => &["alpha", "beta", "transA", "transB"],
        };
        signature::check(facts, if facts.opset < 11 { 3..=3 } else { 2..=3 }, 1..=1, attributes)?;
        signature::flag(facts, "broadcast", false)?;
        let (a, b) = (facts.input(0)?, facts.input(1)?);
        let (trans_a, trans_b) = (signature::flag(facts, "transA", false)?, signature::flag(facts, "transB", false)?);
        let (&[a0, a1], &[b0, b1]) = (a.shape.as_slice(), b.shape.as_slice()) else {
            return Err(facts.invalid(format!("{:?} and {:?} are no matrices", a.shape, b.shape)));
        };
        let (m, k) = if trans_a { (a1, a0) } else { (a0, a1) };
        let (k_b, n) = if trans_b { (b1, b0) } else { (b0, b1) };
        if k != k_b {
            return Err(facts.invalid(format!("matrices of {:?} and {:?} do not fit", a.shape, b.shape)));
        }
        element_count(&[m, n])?;
        if let Some(c) = facts.optional(2) {
            signature::same_dtype(facts, a, c)?;
            if broadcast_shape(&[&c.shape, &[m, n]])? != [m, n] {
                return Err(facts.invalid(format!("C of {:?} does not broadcast to [{m}, {n}]", c.shape)));
            }
        }
        let (alpha, beta) = (facts.node.float("alpha", 1.0)?, facts.node.float("beta", 1.0)?);
        Ok(GemmShape { m, k, n, trans_a, trans_b, alpha, beta })
    }
}

impl Op for Gemm {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let shape = GemmShape::from_node(facts)?;
        let (a, b) = (facts.input(0)?, facts.input(1)?);
        signature::float32(facts, a)?;
        signature::same_dtype(facts, a, b)?;
        Ok(vec![(a.dtype, vec![shape.m, shape.n])])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let g = GemmShape::from_node(facts)?;
        let (a_shape, b_shape) = (facts.input(0)?.shape.clone(), facts.input(1)?.shape.clone());
        let pack = move |w: &Tensor| -> Result<FloatWeights> {
            let w = floats::read(w)?;
            Ok(if g.trans_b { FloatWeights::from_nk(g.k, g.n, &w) } else { FloatWeights::from_kn(g.k, g.n, &w) })
        };
        let packed = facts.input(1)?.constant.as_deref().map(pack).transpose()?;
        kernel(move |context, inputs| {
            let a = shaped(inputs, 0, &a_shape)?;
            let fresh = match &packed {
                Some(_) => None,
                None => Some(pack(shaped(inputs, 1, &b_shape)?)?),
            };
            let Some(weights) = packed.as_ref().or(fresh.as_ref()) else {
                return Err(Error::invalid("run_input", "input 1 was not given"));
            };
            let mut x = floats::read(a)?;
            if g.trans_a {
                x = View::permuted(&a_shape, &[1, 0]).copy(context.engine(), &x).into();
            }
            let out = [g.m, g.n];
            let mut y = vec![0f32; g.m * g.n];
            gemm_f32(context.engine(), &x, g.m, weights, &[], &mut y);
            if let Some(c) = optional(inputs, 2) {
                let plan = Broadcast::new(&[c.shape(), &out])?;
                if plan.shape() != out {
                    return Err(Error::invalid("run_shape", format!("C of {:?} does not fit {out:?}", c.shape())));
                }
                y = plan.zip(context.engine(), &floats::read(c)?, &y, |c, sum| g.alpha * sum + g.beta * c);
            } else if g.alpha != 1.0 {
                y.iter_mut().for_each(|v| *v *= g.alpha);
            }
            Ok([floats::write(&out, y, a.dtype())?].into())
        })
    }
}
