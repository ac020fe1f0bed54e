//! Einsum: sums of products over named dimensions. Reals are summed in row-major order of the summed dimensions in f64
//! and rounded once; integers wrap.

use super::closure::{kernel, shaped};
use super::element::{Integer, Real, by_class};
use super::parallel::fill;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor, element_count, strides};

/// Einsum.
pub struct Einsum;

/// A dimension: a letter, or one that the ellipsis stands for (counted from the back).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// Sizes of all dimensions: those of the output, then those that are summed, and each input's step along them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    output: Vec<usize>,
    summed: Vec<usize>,
    steps: Vec<Vec<usize>>,
}

/// The labels of a term for a tensor of `rank` dimensions.
fn term(facts: &Facts<'_>, text: &str, rank: Option<usize>, ellipsis: usize) -> Result<Vec<Label>> {
    let wrong = || facts.invalid(format!("the term '{text}' of the equation does not fit its tensor"));
    let letters = text.chars().filter(|c| *c != '.').count();
    let (mut labels, mut rest) = (Vec::new(), text);
    let width = rank.map_or(Some(ellipsis), |r| r.checked_sub(letters)).ok_or_else(wrong)?;
    let mut dots = false;
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("...") {
            if std::mem::replace(&mut dots, true) {
                return Err(wrong());
            }
            labels.extend((0..width).rev().map(Label::Ellipsis));
            rest = behind;
        } else if c.is_ascii_alphabetic() {
            labels.push(Label::Letter(c));
            rest = &rest[1..];
        } else {
            return Err(wrong());
        }
    }
    if rank.is_some_and(|r| r != labels.len()) {
        return Err(wrong());
    }
    Ok(labels)
}

impl Plan {
    fn new(facts: &Facts<'_>) -> Result<Self> {
        let equation: String = facts.node.string("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (equation.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != facts.inputs.len() {
            return Err(facts.invalid(format!(
                "{} terms for {} inputs in '{equation}'",
                terms.len(),
                facts.inputs.len()
            )));
        }
        let mut inputs = Vec::with_capacity(terms.len());
        let mut sizes: Vec<(Label, usize)> = Vec::new();
        for (i, text) in terms.iter().enumerate() {
            let shape = &facts.input(i)?.shape;
            let labels = term(facts, text, Some(shape.len()), 0)?;
            for (d, (label, &size)) in labels.iter().zip(shape).enumerate() {
                // A diagonal has one length; only dimensions of different inputs are repeated.
                if let Some(first) = labels[..d].iter().position(|l| l == label)
                    && shape[first] != size
                {
                    let message = format!("{label:?} of '{equation}' is {} and {size} in input {i}", shape[first]);
                    return Err(facts.invalid(message));
                }
                match sizes.iter_mut().find(|s| s.0 == *label) {
                    None => sizes.push((*label, size)),
                    Some((_, known)) if *known == size || size == 1 => {}
                    Some((_, known)) if *known == 1 => *known = size,
                    Some((_, known)) => {
                        return Err(facts.invalid(format!("{label:?} of '{equation}' is {known} and {size}")));
                    }
                }
            }
            inputs.push(labels);
        }
        let ellipsis = sizes.iter().filter(|s| matches!(s.0, Label::Ellipsis(_))).count();
        let output = match right {
            Some(text) => term(facts, text, None, ellipsis)?,
            None => {
                let mut once: Vec<Label> = sizes.iter().map(|s| s.0).collect();
                let occurs = |l: &Label| inputs.iter().flatten().filter(|i| *i == l).count();
                once.retain(|l| matches!(l, Label::Ellipsis(_)) || occurs(l) == 1);
                // The ellipsis first, its outermost dimension leading; then letters in their order.
                once.sort_by_key(|l| match l {
                    Label::Ellipsis(i) => (0, usize::MAX - i, ' '),
                    Label::Letter(c) => (1, 0, *c),
                });
                once
            }
        };
        let size = |label: &Label| sizes.iter().find(|s| s.0 == *label).map(|s| s.1);
        let mut out = Vec::with_capacity(output.len());
        for (i, label) in output.iter().enumerate() {
            let known = size(label).filter(|_| !output[..i].contains(label));
            out.push(known.ok_or_else(|| facts.invalid(format!("the output of '{equation}' is not possible")))?);
        }
        let summed: Vec<Label> = sizes.iter().map(|s| s.0).filter(|l| !output.contains(l)).collect();
        let all: Vec<Label> = output.iter().chain(&summed).copied().collect();
        let mut steps = Vec::with_capacity(inputs.len());
        for (i, labels) in inputs.iter().enumerate() {
            let shape = &facts.input(i)?.shape;
            let own = strides(shape);
            // A label that occurs twice walks a diagonal; a dimension of 1 is repeated.
            let step = |label: &Label| {
                let mine = (0..labels.len()).filter(|&d| labels[d] == *label && shape[d] != 1);
                mine.map(|d| own[d]).sum()
            };
            steps.push(all.iter().map(step).collect());
        }
        let summed: Vec<usize> = summed.iter().filter_map(size).collect();
        element_count(&out)?;
        element_count(&summed)?;
        Ok(Plan { output: out, summed, steps })
    }

    /// Folds the products of each element of the output; `term(indices into the inputs)` is one product.
    fn fold<A: Copy>(&self, position: usize, start: A, mut add: impl FnMut(A, &[usize]) -> A) -> A {
        let mut base = vec![0; self.steps.len()];
        let mut rest = position;
        for (d, &size) in self.output.iter().enumerate().rev() {
            let coordinate = rest % size;
            base.iter_mut().zip(&self.steps).for_each(|(b, s)| *b += coordinate * s[d]);
            rest /= size;
        }
        if self.summed.contains(&0) {
            return start;
        }
        let mut coordinates = vec![0; self.summed.len()];
        let mut total = start;
        loop {
            total = add(total, &base);
            // The next coordinates, the last one fastest.
            let mut d = self.summed.len();
            loop {
                if d == 0 {
                    return total;
                }
                d -= 1;
                let axis = self.output.len() + d;
                coordinates[d] += 1;
                if coordinates[d] < self.summed[d] {
                    base.iter_mut().zip(&self.steps).for_each(|(b, s)| *b += s[axis]);
                    break;
                }
                let back = coordinates[d] - 1;
                coordinates[d] = 0;
                base.iter_mut().zip(&self.steps).for_each(|(b, s)| *b -= back * s[axis]);
            }
        }
    }
}

impl Op for Einsum {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=usize::MAX, 1..=1, &["equation"])?;
        let first = facts.input(0)?;
        if first.dtype == DType::Bool {
            return Err(facts.invalid("booleans have no arithmetic"));
        }
        for i in 1..facts.inputs.len() {
            signature::same_dtype(facts, first, facts.input(i)?)?;
        }
        Ok(vec![(first.dtype, Plan::new(facts)?.output)])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn views<'a, T: super::element::Element>(_: &[T], inputs: &[&'a Tensor]) -> Result<Vec<&'a [T]>> {
            let views: Option<Vec<&[T]>> = inputs.iter().map(|t| T::view(t.data())).collect();
            views.ok_or_else(|| Error::invalid("tensor_dtype", "Einsum needs inputs of one type"))
        }
        fn reals<T: Real>(engine: Engine<'_>, plan: &Plan, inputs: &[&[T]], count: usize) -> Data {
            let mut y = vec![T::default(); count];
            fill(engine, &mut y, 256, |start, part| {
                for (i, y) in part.iter_mut().enumerate() {
                    *y = T::from_f64(plan.fold(start + i, 0.0, |sum, at| {
                        sum + inputs.iter().zip(at).map(|(v, &p)| v[p].to_f64()).product::<f64>()
                    }));
                }
            });
            T::wrap(y)
        }
        fn integers<T: Integer>(engine: Engine<'_>, plan: &Plan, inputs: &[&[T]], count: usize) -> Data {
            let mut y = vec![T::default(); count];
            fill(engine, &mut y, 256, |start, part| {
                for (i, y) in part.iter_mut().enumerate() {
                    *y = T::wrapping_from(plan.fold(start + i, 0i128, |sum, at| {
                        let product = inputs.iter().zip(at).fold(1i128, |p, (v, &i)| p.wrapping_mul(v[i].to_i128()));
                        sum.wrapping_add(product)
                    }));
                }
            });
            T::wrap(y)
        }
        let plan = Plan::new(facts)?;
        let shapes: Vec<Vec<usize>> =
            (0..facts.inputs.len()).map(|i| Ok(facts.input(i)?.shape.clone())).collect::<Result<_>>()?;
        kernel(move |context, inputs| {
            let tensors: Vec<&Tensor> =
                shapes.iter().enumerate().map(|(i, s)| shaped(inputs, i, s)).collect::<Result<_>>()?;
            let count = element_count(&plan.output)?;
            let data = by_class!(tensors[0].data(), v =>
                real reals(context.engine(), &plan, &views(v, &tensors)?, count),
                integer integers(context.engine(), &plan, &views(v, &tensors)?, count),
                boolean return Err(Error::invalid("tensor_dtype", format!("{} booleans have no sum", v.len()))),
            );
            Ok([Tensor::new(plan.output.clone(), data)?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Node};
    use crate::kernels::Team;
    use crate::ops::{Fact, RunContext};

    fn run(equation: &str, inputs: &[Tensor]) -> Result<Tensor> {
        let node = Node {
            attributes: [("equation".to_string(), Attribute::String(equation.into()))].into(),
            outputs: vec![Some(0)],
            ..Node::default()
        };
        let fact = |t: &Tensor| {
            Some(Fact {
                name: "x".into(),
                dtype: t.dtype(),
                shape: t.shape().to_vec(),
                constant: None,
                codes: None,
                encoding: None,
            })
        };
        let facts: Vec<Option<Fact>> = inputs.iter().map(fact).collect();
        let facts = Facts { node: &node, opset: 17, inputs: &facts, outputs: &[] };
        let team = Team::new(1);
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
        let inferred = Einsum.infer(&facts)?;
        let y = Einsum.float(&facts)?.run(&RunContext::new(&team), &inputs)?.into_first();
        assert_eq!(inferred, [(y.dtype(), y.shape().to_vec())]);
        Ok(y)
    }

    fn counted(shape: &[usize]) -> Tensor {
        Tensor::i64(shape, (1..=shape.iter().product::<usize>() as i64).collect())
    }

    #[test]
    fn equations() {
        let m = counted(&[2, 2]);
        assert_eq!(run("ij,jk->ik", &[m.clone(), m.clone()]).unwrap().as_i64().unwrap(), [7, 10, 15, 22]);
        assert_eq!(run("ij,jk", &[m.clone(), m.clone()]).unwrap().as_i64().unwrap(), [7, 10, 15, 22]);
        assert_eq!(run("ba", std::slice::from_ref(&m)).unwrap().as_i64().unwrap(), [1, 3, 2, 4]);
        assert_eq!(run("ii->", std::slice::from_ref(&m)).unwrap().as_i64().unwrap(), [5]);
        assert_eq!(run("ii", std::slice::from_ref(&m)).unwrap().as_i64().unwrap(), [5]);
        assert_eq!(run("... i -> i ...", std::slice::from_ref(&m)).unwrap().as_i64().unwrap(), [1, 3, 2, 4]);
        let batch = run("...ij,...jk->...ik", &[counted(&[3, 2, 2]), counted(&[1, 2, 1])]).unwrap();
        assert_eq!(batch.as_i64().unwrap(), [5, 11, 17, 23, 29, 35]);
    }

    #[test]
    fn wrong_equations_are_errors() {
        let m = || counted(&[2, 2]);
        for equation in ["", "i", "ij->k", "ij->ii", "i.j", "ij,jk", "......", "i?->i", "é", "ijé"] {
            assert!(run(equation, &[m()]).is_err(), "{equation}");
        }
        assert!(run("ij,jk->ik", &[m(), counted(&[3, 2])]).is_err());
        // A diagonal of dimensions of 1 and 3; 1 and 3 of two inputs are one of 3.
        for shape in [[1, 3], [3, 1], [2, 3]] {
            assert!(run("ii", &[counted(&shape)]).is_err() && run("ii->i", &[counted(&shape)]).is_err(), "{shape:?}");
        }
        let repeated = run("ii,i->i", &[counted(&[1, 1]), counted(&[3])]).unwrap();
        assert_eq!(repeated.as_i64().unwrap(), [1, 2, 3]);
    }
}
