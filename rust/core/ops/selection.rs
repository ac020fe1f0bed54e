//! NonZero, Compress and Unique: their outputs' shapes follow from values, so those must be known before the run.

use super::closure::kernel;
use super::element::Element;
use super::{Facts, Inferred, Kernel, Op, Outputs, axis, signature};
use crate::error::Result;
use crate::tensor::{DType, Data, Tensor, strides};
use crate::{map_data, with_data};
use std::cmp::Ordering;

/// A kernel that gives values fixed when the node is prepared.
fn fixed(values: Outputs) -> Result<Box<dyn Kernel>> {
    kernel(move |_, _| Ok(values.clone()))
}

fn described(values: &[Tensor]) -> Vec<Inferred> {
    values.iter().map(|v| (v.dtype(), v.shape().to_vec())).collect()
}

/// NonZero: the coordinates of all elements but zeros, one column each, in row-major order.
pub struct NonZero;

impl NonZero {
    fn value(facts: &Facts<'_>) -> Result<Tensor> {
        fn places<T: Element>(v: &[T]) -> Vec<usize> {
            (0..v.len()).filter(|&i| v[i] != T::default()).collect()
        }
        let x = facts.constant(0)?;
        let places = with_data!(x.data(), v => places(v));
        let steps = strides(x.shape());
        let rows = x.shape().iter().zip(&steps);
        let coordinates = rows.flat_map(|(&d, &s)| places.iter().map(move |p| (p / s % d) as i64)).collect();
        Tensor::new(vec![x.shape().len(), places.len()], Data::I64(coordinates))
    }
}

impl Op for NonZero {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &[])?;
        Ok(described(&[Self::value(facts)?]))
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fixed([Self::value(facts)?].into())
    }
}

/// Compress: the slices along `axis` whose condition holds, or the elements of the flattened tensor without an axis.
/// The condition may be shorter than the axis. The condition must be known before the run; the data may not be.
pub struct Compress;

impl Compress {
    /// The kept indices, `(outer, size, inner)` of the axis, and the output's shape.
    #[allow(clippy::type_complexity)]
    fn plan(facts: &Facts<'_>) -> Result<(Vec<usize>, (usize, usize, usize), Vec<usize>)> {
        let (shape, condition) = (&facts.input(0)?.shape, facts.constant(1)?);
        let Data::Bool(condition) = condition.data() else { return Err(facts.invalid("the condition is not bool")) };
        let kept: Vec<usize> = (0..condition.len()).filter(|&i| condition[i]).collect();
        let (around, out) = match facts.node.attributes.contains_key("axis") {
            false => ((1, shape.iter().product(), 1), vec![kept.len()]),
            true => {
                let at = axis::normalize(facts, facts.node.int("axis", 0)?, shape.len())?;
                let mut out = shape.clone();
                out[at] = kept.len();
                (axis::around(shape, at), out)
            }
        };
        if facts.input(1)?.shape.len() != 1 || kept.last().is_some_and(|&k| k >= around.1) {
            return Err(facts.invalid(format!("the condition is no list for {} elements", around.1)));
        }
        Ok((kept, around, out))
    }
}

impl Op for Compress {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["axis"])?;
        Ok(vec![(facts.input(0)?.dtype, Self::plan(facts)?.2)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (kept, (outer, size, inner), out) = Self::plan(facts)?;
        let shape = facts.input(0)?.shape.clone();
        kernel(move |_, inputs| {
            let x = super::closure::shaped(inputs, 0, &shape)?;
            let data = map_data!(x.data(), v => {
                let mut y = Vec::with_capacity(outer * kept.len() * inner);
                for o in 0..outer {
                    for &i in &kept {
                        y.extend_from_slice(&v[(o * size + i) * inner..][..inner]);
                    }
                }
                y.into()
            });
            Ok([Tensor::new(out.clone(), data)?].into())
        })
    }
}

/// Unique: the different slices along `axis` (elements of the flattened tensor without one), ascending or in order of
/// their first occurrence; where each first occurs, which one each slice is, and how often each occurs. NaN equals only
/// itself and comes last.
pub struct Unique;

/// Slices as an index into the unique ones, and for each of those its first slice.
struct Classes {
    first: Vec<usize>,
    class: Vec<usize>,
}

fn classes<T: Element>(v: &[T], count: usize, places: &[usize], steps: usize, sorted: bool) -> Classes {
    let order = |a: &T, b: &T| {
        // NaN is not equal to itself.
        #[allow(clippy::eq_op)]
        a.partial_cmp(b).unwrap_or_else(|| (a != a).cmp(&(b != b)))
    };
    let compare = |&a: &usize, &b: &usize| {
        let pairs = places.iter().map(|&p| order(&v[a * steps + p], &v[b * steps + p]));
        pairs.fold(Ordering::Equal, Ordering::then)
    };
    let mut slices: Vec<usize> = (0..count).collect();
    // A stable sort: the first of equal slices stays the first.
    slices.sort_by(compare);
    let (mut first, mut class) = (Vec::new(), vec![0; count]);
    for &s in &slices {
        if first.last().is_none_or(|f| compare(f, &s) != Ordering::Equal) {
            first.push(s);
        }
        class[s] = first.len() - 1;
    }
    if !sorted {
        let mut by_occurrence: Vec<usize> = (0..first.len()).collect();
        by_occurrence.sort_by_key(|&c| first[c]);
        let mut rank = vec![0; first.len()];
        by_occurrence.iter().enumerate().for_each(|(r, &c)| rank[c] = r);
        first.sort_unstable();
        class.iter_mut().for_each(|c| *c = rank[*c]);
    }
    Classes { first, class }
}

impl Unique {
    fn values(facts: &Facts<'_>) -> Result<Outputs> {
        let (x, sorted) = (facts.constant(0)?, signature::flag(facts, "sorted", true)?);
        let at = match facts.node.attributes.contains_key("axis") {
            true => Some(axis::normalize(facts, facts.node.int("axis", 0)?, x.shape().len())?),
            false => None,
        };
        let (outer, size, inner) = at.map_or((1, x.len(), 1), |at| axis::around(x.shape(), at));
        // The places of one slice's elements, relative to its first.
        let places: Vec<usize> = (0..outer).flat_map(|o| (0..inner).map(move |i| o * size * inner + i)).collect();
        let Classes { first, class } = with_data!(x.data(), v => classes(v, size, &places, inner, sorted));
        let kept = map_data!(x.data(), v => {
            let slices = (0..outer).flat_map(|o| first.iter().map(move |f| (o * size + f) * inner));
            slices.flat_map(|start| v[start..start + inner].iter().copied()).collect()
        });
        let mut shape = vec![first.len()];
        if let Some(at) = at {
            shape = x.shape().to_vec();
            shape[at] = first.len();
        }
        let mut counts = vec![0i64; first.len()];
        class.iter().for_each(|&c| counts[c] += 1);
        let list = |v: Vec<i64>| Tensor::i64(&[v.len()], v);
        let all = [
            Tensor::new(shape, kept)?,
            list(first.iter().map(|&f| f as i64).collect()),
            list(class.iter().map(|&c| c as i64).collect()),
            list(counts),
        ];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }
}

impl Op for Unique {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=4, &["axis", "sorted"])?;
        Ok(described(&Self::values(facts)?))
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fixed(Self::values(facts)?)
    }
}

/// TopK: the `k` largest or smallest elements along an axis in order, and their indices; of equal elements the first
/// comes first. NaN counts as the largest.
pub struct TopK;

impl TopK {
    /// The axis and the output's shape.
    fn plan(facts: &Facts<'_>) -> Result<(usize, Vec<usize>)> {
        let shape = &facts.input(0)?.shape;
        let at = axis::normalize(facts, facts.node.int("axis", -1)?, shape.len())?;
        let k = match facts.opset < 10 {
            true => facts.node.int("k", -1)?,
            false => match signature::constant_ints(facts, 1)?[..] {
                [k] => k,
                _ => return Err(facts.invalid("k is no scalar")),
            },
        };
        let mut out = shape.clone();
        out[at] = usize::try_from(k)
            .ok()
            .filter(|&k| k <= shape[at])
            .ok_or_else(|| facts.invalid(format!("k is {k}, axis {at} of {shape:?} cannot give as many")))?;
        Ok((at, out))
    }
}

impl Op for TopK {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let (inputs, attributes): (_, &[&str]) = match facts.opset {
            ..10 => (1..=1, &["axis", "k"]),
            10 => (2..=2, &["axis"]),
            _ => (2..=2, &["axis", "largest", "sorted"]),
        };
        signature::check(facts, inputs, 1..=2, attributes)?;
        signature::flag(facts, "largest", true)?;
        // An order that is not asked for may still be given.
        signature::flag(facts, "sorted", true)?;
        let x = facts.input(0)?;
        if x.dtype == DType::Bool {
            return Err(facts.invalid("booleans have no order"));
        }
        let (_, out) = Self::plan(facts)?;
        let all = [(x.dtype, out.clone()), (DType::I64, out)];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn best<T: Element>(
            v: &[T],
            (outer, size, inner): (usize, usize, usize),
            k: usize,
            largest: bool,
        ) -> Vec<usize> {
            let order = |a: &T, b: &T| {
                // NaN is not equal to itself.
                #[allow(clippy::eq_op)]
                a.partial_cmp(b).unwrap_or_else(|| (a != a).cmp(&(b != b)))
            };
            let mut places = vec![0; outer * k * inner];
            let mut row: Vec<usize> = Vec::with_capacity(size);
            for line in 0..outer * inner {
                let at = |i: usize| line / inner * size * inner + i * inner + line % inner;
                row.clear();
                row.extend(0..size);
                row.sort_by(|&a, &b| if largest { order(&v[at(b)], &v[at(a)]) } else { order(&v[at(a)], &v[at(b)]) });
                for (i, &source) in row[..k].iter().enumerate() {
                    places[(line / inner * k + i) * inner + line % inner] = source;
                }
            }
            places
        }
        let (at, out) = Self::plan(facts)?;
        let (largest, outputs) = (signature::flag(facts, "largest", true)?, facts.node.outputs.len());
        let shape = facts.input(0)?.shape.clone();
        let (around, k) = (axis::around(&shape, at), out[at]);
        kernel(move |_, inputs| {
            let x = super::closure::shaped(inputs, 0, &shape)?;
            let indices = with_data!(x.data(), v => best(v, around, k, largest));
            let (_, size, inner) = around;
            let source = |(i, &index): (usize, &usize)| (i / (k * inner) * size + index) * inner + i % inner;
            let values = map_data!(x.data(), v => indices.iter().enumerate().map(|p| v[source(p)]).collect());
            let indices = Data::I64(indices.iter().map(|&i| i as i64).collect());
            let all = [Tensor::new(out.clone(), values)?, Tensor::new(out.clone(), indices)?];
            Ok(all.into_iter().take(outputs).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_keep_the_first_occurrence() {
        let v = [2f32, 1.0, f32::NAN, 1.0, f32::NAN, 2.0];
        let sorted = classes(&v, 6, &[0], 1, true);
        assert_eq!((sorted.first, sorted.class), (vec![1, 0, 2], vec![1, 0, 2, 0, 2, 1]));
        let unsorted = classes(&v, 6, &[0], 1, false);
        assert_eq!((unsorted.first, unsorted.class), (vec![0, 1, 2], vec![0, 1, 2, 1, 2, 0]));
    }
}
