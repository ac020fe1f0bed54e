//! numpy's broadcasting: walking several tensors along one output shape.

use super::parallel::{CHUNK, fill};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{View, element_count};

/// The shape that `shapes` broadcast to. Fails where two dimensions differ and neither is 1.
pub fn broadcast_shape(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        let skip = rank - shape.len();
        for (o, &d) in out[skip..].iter_mut().zip(*shape) {
            if *o == 1 {
                *o = d;
            } else if d != 1 && d != *o {
                return Err(Error::invalid("broadcast", format!("shapes {shapes:?} do not broadcast")));
            }
        }
    }
    element_count(&out)?;
    Ok(out)
}

/// Row-major strides of `shape` within `out`: 0 along dimensions that repeat. `shape` must broadcast to `out`.
pub fn broadcast_strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    View::broadcast(shape, out).strides.into_iter().map(|s| s as usize).collect()
}

/// How the elements of several inputs meet. Adjacent dimensions along which all inputs step alike are merged, so that
/// along the innermost one each input steps by 1 or by 0.
#[derive(Debug, Clone)]
pub struct Broadcast {
    shape: Vec<usize>,
    count: usize,
    dims: Vec<usize>,
    strides: Vec<Vec<usize>>,
}

impl Broadcast {
    /// A plan for inputs of these shapes.
    pub fn new(inputs: &[&[usize]]) -> Result<Self> {
        let shape = broadcast_shape(inputs)?;
        let count = element_count(&shape)?;
        let full: Vec<Vec<usize>> = inputs.iter().map(|s| broadcast_strides(s, &shape)).collect();
        let mut dims: Vec<usize> = Vec::new();
        let mut strides: Vec<Vec<usize>> = vec![Vec::new(); inputs.len()];
        for i in (0..shape.len()).rev() {
            if shape[i] == 1 {
                continue;
            }
            let merges = dims.first().is_some_and(|&d| full.iter().zip(&strides).all(|(f, s)| f[i] == s[0] * d));
            if merges {
                dims[0] *= shape[i];
            } else {
                dims.insert(0, shape[i]);
                for (s, f) in strides.iter_mut().zip(&full) {
                    s.insert(0, f[i]);
                }
            }
        }
        if dims.is_empty() {
            dims.push(1);
            strides.iter_mut().for_each(|s| s.push(0));
        }
        Ok(Broadcast { shape, count, dims, strides })
    }

    /// The shape of the output.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements of the output.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the output has no elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Index into `input` of the output's element `position`.
    pub fn index(&self, input: usize, position: usize) -> usize {
        let mut rest = position;
        let mut index = 0;
        for (&d, &s) in self.dims.iter().zip(&self.strides[input]).rev() {
            index += rest % d * s;
            rest /= d;
        }
        index
    }

    /// Cuts the range `start..start + len` of the output into runs within which every input steps by a fixed stride:
    /// calls `f(offset in the range, length, index of the first element)`.
    fn runs(&self, start: usize, len: usize, mut f: impl FnMut(usize, usize, usize)) {
        let row = *self.dims.last().unwrap_or(&1);
        let mut at = 0;
        while at < len {
            let n = (row - (start + at) % row).min(len - at);
            f(at, n, start + at);
            at += n;
        }
    }

    fn step(&self, input: usize) -> usize {
        self.strides[input].last().copied().unwrap_or(0)
    }

    /// `f` of each pair of elements of inputs 0 and 1.
    pub fn zip<A: Copy + Sync, B: Copy + Sync, O: Copy + Default + Send>(
        &self,
        engine: Engine<'_>,
        a: &[A],
        b: &[B],
        f: impl Fn(A, B) -> O + Sync,
    ) -> Vec<O> {
        let mut out = vec![O::default(); self.count];
        fill(engine, &mut out, CHUNK, |start, part| {
            self.runs(start, part.len(), |at, n, position| {
                let (i, j) = (self.index(0, position), self.index(1, position));
                let part = &mut part[at..at + n];
                match (self.step(0), self.step(1)) {
                    (0, 0) => part.fill(f(a[i], b[j])),
                    (0, _) => part.iter_mut().zip(&b[j..]).for_each(|(o, &y)| *o = f(a[i], y)),
                    (_, 0) => part.iter_mut().zip(&a[i..]).for_each(|(o, &x)| *o = f(x, b[j])),
                    _ => part.iter_mut().zip(&a[i..]).zip(&b[j..]).for_each(|((o, &x), &y)| *o = f(x, y)),
                }
            });
        });
        out
    }

    /// `f` of each triple of elements of inputs 0, 1 and 2.
    pub fn zip3<A: Copy + Sync, B: Copy + Sync, C: Copy + Sync, O: Copy + Default + Send>(
        &self,
        engine: Engine<'_>,
        (a, b, c): (&[A], &[B], &[C]),
        f: impl Fn(A, B, C) -> O + Sync,
    ) -> Vec<O> {
        let steps = [self.step(0), self.step(1), self.step(2)];
        let mut out = vec![O::default(); self.count];
        fill(engine, &mut out, CHUNK, |start, part| {
            self.runs(start, part.len(), |at, n, position| {
                let [i, j, k] = [0, 1, 2].map(|input| self.index(input, position));
                for (t, o) in part[at..at + n].iter_mut().enumerate() {
                    *o = f(a[i + t * steps[0]], b[j + t * steps[1]], c[k + t * steps[2]]);
                }
            });
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Team;

    #[test]
    fn shapes_follow_numpy() {
        assert_eq!(broadcast_shape(&[&[2, 1, 4], &[3, 1]]).unwrap(), [2, 3, 4]);
        assert_eq!(broadcast_shape(&[&[0], &[1]]).unwrap(), [0]);
        assert!(broadcast_shape(&[&[2], &[3]]).is_err());
        assert!(broadcast_shape(&[&[1 << 20, 1], &[1, 1 << 20]]).is_err());
    }

    #[test]
    fn every_pair_meets_at_its_index() {
        let team = Team::new(2);
        for (a, b) in [
            (vec![2, 3, 4, 5], vec![1, 3, 1, 1]),
            (vec![4, 1, 5], vec![7, 1, 3, 1]),
            (vec![], vec![3]),
            (vec![200, 300], vec![300]),
        ] {
            let plan = Broadcast::new(&[&a, &b]).unwrap();
            let (na, nb) = (a.iter().product::<usize>(), b.iter().product::<usize>());
            let (xs, ys): (Vec<usize>, Vec<usize>) = ((0..na).collect(), (0..nb).collect());
            let out = plan.zip(Engine::of_team(&team), &xs, &ys, |x, y| (x, y));
            let (sa, sb) = (broadcast_strides(&a, plan.shape()), broadcast_strides(&b, plan.shape()));
            let strides = crate::tensor::strides(plan.shape());
            for (p, &(x, y)) in out.iter().enumerate() {
                let index =
                    |s: &[usize]| -> usize { (0..s.len()).map(|d| p / strides[d] % plan.shape()[d] * s[d]).sum() };
                assert_eq!((x, y), (index(&sa), index(&sb)), "{a:?} {b:?} at {p}");
            }
        }
    }
}
