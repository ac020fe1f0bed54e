//! Det: determinants of square matrices, by elimination with the largest pivot of each column, in f64.

use super::closure::{kernel, shaped};
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::Result;

/// Det.
pub struct Det;

fn determinant(m: &mut [f64], n: usize) -> f64 {
    let mut product = 1.0;
    for c in 0..n {
        let pivot = (c + 1..n).fold(c, |p, r| if m[r * n + c].abs() > m[p * n + c].abs() { r } else { p });
        if pivot != c {
            (0..n).for_each(|i| m.swap(pivot * n + i, c * n + i));
            product = -product;
        }
        let diagonal = m[c * n + c];
        product *= diagonal;
        if diagonal == 0.0 {
            return 0.0;
        }
        for r in c + 1..n {
            let factor = m[r * n + c] / diagonal;
            (c..n).for_each(|i| m[r * n + i] -= factor * m[c * n + i]);
        }
    }
    product
}

impl Op for Det {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &[])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        match x.shape.as_slice() {
            [batch @ .., a, b] if a == b => Ok(vec![(x.dtype, batch.to_vec())]),
            other => Err(facts.invalid(format!("'{}' has shape {other:?}: no square matrices", x.name))),
        }
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let shape = facts.input(0)?.shape.clone();
        let (n, out) = (shape[shape.len() - 1], shape[..shape.len() - 2].to_vec());
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &shape)?;
            let y = match n {
                0 => vec![1.0; out.iter().product()],
                _ => x.to_f64().chunks_exact_mut(n * n).map(|m| determinant(m, n)).collect(),
            };
            Ok([floats::write_f64(&out, y, x.dtype())?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pivots_change_the_sign() {
        assert_eq!(determinant(&mut [0.0, 1.0, 1.0, 0.0], 2), -1.0);
        assert_eq!(determinant(&mut [2.0, 1.0, 4.0, 2.0], 2), 0.0);
        assert_eq!(determinant(&mut [2.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 4.0], 3), 24.0);
    }
}
