//! Elementwise functions that follow a kernel while its output is in the cache.

use super::{Source, Step};
use crate::error::Result;
use crate::kernels::Then;
use crate::ops::{InPlace, Kernel, Outputs, RunContext};
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;

/// A kernel that hands its output on, and the function that takes it as operand `own`. Plans whose values are captured or
/// explained, and those of sessions that ask for it, keep the two apart.
struct Followed {
    producer: Box<dyn Kernel>,
    /// Arguments of the producer; those of the function follow.
    arguments: usize,
    function: Box<dyn Kernel>,
    own: usize,
}

impl Followed {
    fn function(&self) -> &dyn InPlace {
        self.function.in_place().expect("planning has asked")
    }

    fn compute(
        &self,
        context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        next: Option<Then<'_, u8>>,
    ) -> Result<Outputs> {
        let (arguments, others) = inputs.split_at(self.arguments);
        let function = self.function();
        function.check(self.own, others)?;
        self.producer.run_then(context, arguments, &|start, codes| {
            function.replace(context.simd, self.own, others, start, codes);
            if let Some(next) = next {
                next(start, codes);
            }
        })
    }
}

impl Kernel for Followed {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        self.compute(context, inputs, None)
    }

    fn hands_on(&self) -> Option<DType> {
        self.function().takes(self.own)
    }

    fn run_then(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], then: Then<'_, u8>) -> Result<Outputs> {
        self.compute(context, inputs, Some(then))
    }
}

/// Puts each function that can work in place into the step of the kernel before it, where that kernel hands its output on and
/// nothing else reads the output. `lasting` are the values that stay after the run.
pub fn follow(steps: Vec<Step>, lasting: &[Source]) -> Vec<Step> {
    let mut reads: HashMap<usize, usize> = HashMap::new();
    let sources = steps.iter().flat_map(|step| step.inputs.iter().flatten()).chain(lasting);
    sources.filter_map(Source::slot).for_each(|slot| *reads.entry(slot).or_default() += 1);
    let mut out: Vec<Step> = Vec::with_capacity(steps.len());
    let mut written: HashMap<usize, usize> = HashMap::new();
    for step in steps {
        let place = match operand(&step, &out, &written, &reads) {
            Some((own, place)) => {
                let producer = out.remove(place);
                out.insert(place, joined(producer, step, own));
                place
            }
            None => {
                out.push(step);
                out.len() - 1
            }
        };
        written.extend(out[place].outputs.iter().flatten().map(|&slot| (slot, place)));
    }
    out
}

/// The operand of a step that its results may replace, and the step that gives it: the last one that the function needs.
fn operand(
    step: &Step,
    before: &[Step],
    written: &HashMap<usize, usize>,
    reads: &HashMap<usize, usize>,
) -> Option<(usize, usize)> {
    let ([Some(_)], Some(function)) = (&step.outputs[..], step.kernel.in_place()) else { return None };
    let places = step.inputs.iter().enumerate().filter_map(|(i, source)| match source {
        Some(Source::Slot(slot)) => written.get(slot).map(|&place| (i, *slot, place)),
        _ => None,
    });
    let (own, slot, place) = places.max_by_key(|&(_, _, place)| place)?;
    let producer = &before[place];
    let dtype = function.takes(own)?;
    let alone = producer.outputs[..] == [Some(slot)] && reads.get(&slot) == Some(&1);
    (alone && producer.kernel.hands_on() == Some(dtype)).then_some((own, place))
}

fn joined(producer: Step, function: Step, own: usize) -> Step {
    let mut inputs = producer.inputs;
    let arguments = inputs.len();
    inputs.extend(function.inputs.into_iter().enumerate().map(|(i, source)| source.filter(|_| i != own)));
    Step {
        node: producer.node,
        label: format!("{} + {}", producer.label, function.label),
        conversion: None,
        kernel: Box::new(Followed { producer: producer.kernel, arguments, function: function.kernel, own }),
        inputs,
        outputs: function.outputs,
        frees: Vec::new(),
        places: Vec::new(),
    }
}
