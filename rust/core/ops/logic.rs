//! Comparisons, operators on booleans, and Where.

use super::broadcast::{Broadcast, broadcast_shape};
use super::closure::{input, kernel};
use super::element::Element;
use super::parallel::map;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor};
use crate::{map_data, with_data};
use std::cmp::Ordering;

fn wrong_types() -> Error {
    Error::invalid("tensor_dtype", "the types of the inputs do not fit")
}

/// A comparison of two tensors of one type; the function sees `None` where one of them is NaN.
pub struct Compare(pub fn(Option<Ordering>) -> bool);

impl Op for Compare {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &[])?;
        let (a, b) = (facts.input(0)?, facts.input(1)?);
        signature::same_dtype(facts, a, b)?;
        Ok(vec![(DType::Bool, broadcast_shape(&[&a.shape, &b.shape])?)])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Element>(
            engine: Engine<'_>,
            plan: &Broadcast,
            a: &[T],
            b: &Data,
            f: fn(Option<Ordering>) -> bool,
        ) -> Option<Vec<bool>> {
            Some(plan.zip(engine, a, T::view(b)?, |x, y| f(x.partial_cmp(&y))))
        }
        let f = self.0;
        kernel(move |context, inputs| {
            let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
            let plan = Broadcast::new(&[a.shape(), b.shape()])?;
            let out =
                with_data!(a.data(), v => typed(context.engine(), &plan, v, b.data(), f)).ok_or_else(wrong_types)?;
            Ok([Tensor::new(plan.shape(), Data::Bool(out.into()))?].into())
        })
    }
}

/// An operator on two booleans.
pub struct Logical(pub fn(bool, bool) -> bool);

impl Op for Logical {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &[])?;
        let (a, b) = (facts.input(0)?, facts.input(1)?);
        for fact in [a, b] {
            boolean(facts, fact)?;
        }
        Ok(vec![(DType::Bool, broadcast_shape(&[&a.shape, &b.shape])?)])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let f = self.0;
        kernel(move |context, inputs| {
            let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
            let plan = Broadcast::new(&[a.shape(), b.shape()])?;
            let (Data::Bool(x), Data::Bool(y)) = (a.data(), b.data()) else { return Err(wrong_types()) };
            Ok([Tensor::new(plan.shape(), Data::Bool(plan.zip(context.engine(), x, y, f).into()))?].into())
        })
    }
}

fn boolean(facts: &Facts<'_>, fact: &super::Fact) -> Result<()> {
    match fact.dtype {
        DType::Bool => Ok(()),
        other => Err(facts.invalid(format!("'{}' is {other}, bool is expected", fact.name))),
    }
}

/// Not.
pub struct Not;

impl Op for Not {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &[])?;
        let x = facts.input(0)?;
        boolean(facts, x)?;
        Ok(vec![(DType::Bool, x.shape.clone())])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        kernel(|context, inputs| {
            let x = input(inputs, 0)?;
            let Data::Bool(v) = x.data() else { return Err(wrong_types()) };
            Ok([Tensor::new(x.shape(), Data::Bool(map(context.engine(), v, |b: bool| !b).into()))?].into())
        })
    }
}

/// Where: elements of the second input where the first holds, of the third elsewhere. Moves any type.
pub struct Where;

impl Op for Where {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 3..=3, 1..=1, &[])?;
        let (condition, a, b) = (facts.input(0)?, facts.input(1)?, facts.input(2)?);
        boolean(facts, condition)?;
        signature::same_dtype(facts, a, b)?;
        Ok(vec![(a.dtype, broadcast_shape(&[&condition.shape, &a.shape, &b.shape])?)])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Element>(
            engine: Engine<'_>,
            plan: &Broadcast,
            condition: &[bool],
            a: &[T],
            b: &Data,
        ) -> Result<Vec<T>> {
            let b = T::view(b).ok_or_else(wrong_types)?;
            Ok(plan.zip3(engine, (condition, a, b), |c, x, y| if c { x } else { y }))
        }
        kernel(|context, inputs| {
            let (condition, a, b) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
            let plan = Broadcast::new(&[condition.shape(), a.shape(), b.shape()])?;
            let Data::Bool(c) = condition.data() else { return Err(wrong_types()) };
            let data = map_data!(a.data(), v => typed(context.engine(), &plan, c, v, b.data())?.into());
            Ok([Tensor::new(plan.shape(), data)?].into())
        })
    }
}
