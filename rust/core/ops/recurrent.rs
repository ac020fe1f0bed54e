//! RNN, GRU and LSTM. Sums run in f64, input before state before bias; the states are rounded to the tensor's type after
//! each step.

use super::closure::{kernel, optional, shaped};
use super::recurrent_cell::{Activation, Cell, Direction, activations};
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};

/// One of the three operators, with as many gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recurrent {
    /// `H = f(X·W + H·R + b)`.
    Rnn,
    /// Gates z, r and h.
    Gru,
    /// Gates i, o, f and c, with peepholes.
    Lstm,
}

/// What a node says.
#[derive(Debug, Clone)]
struct Plan {
    kind: Recurrent,
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    /// Whether each direction runs backwards.
    reverse: Vec<bool>,
    /// Functions of each direction.
    functions: Vec<Vec<Activation>>,
    /// Whether the batch comes first in sequences and states.
    batch_first: bool,
    clip: f64,
    /// LSTM: the forget gate is `1 - i`. GRU: the reset gate applies behind the multiplication.
    variant: bool,
}

impl Recurrent {
    fn gates(self) -> usize {
        match self {
            Recurrent::Rnn => 1,
            Recurrent::Gru => 3,
            Recurrent::Lstm => 4,
        }
    }

    fn plan(self, facts: &Facts<'_>) -> Result<Plan> {
        let (x, w) = (facts.input(0)?, facts.input(1)?);
        signature::float(facts, x)?;
        let batch_first = signature::flag(facts, "layout", false)?;
        let &[first, second, input] = x.shape.as_slice() else {
            return Err(facts.invalid(format!("'{}' has shape {:?}, three dimensions are expected", x.name, x.shape)));
        };
        let (steps, batch) = if batch_first { (second, first) } else { (first, second) };
        let reverse = match facts.node.string("direction", "forward")? {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(facts.invalid(format!("direction '{other}' is not known"))),
        };
        let directions = reverse.len();
        let hidden = match w.shape.as_slice() {
            &[d, rows, columns] if d == directions && columns == input && rows % self.gates() == 0 => {
                rows / self.gates()
            }
            other => return Err(facts.invalid(format!("weights of {other:?} do not fit '{}' {:?}", x.name, x.shape))),
        };
        if facts.node.attributes.contains_key("hidden_size")
            && usize::try_from(facts.node.int("hidden_size", 0)?) != Ok(hidden)
        {
            return Err(facts.invalid(format!("hidden_size contradicts weights of {:?}", w.shape)));
        }
        let clip = match facts.node.attributes.contains_key("clip") {
            true => f64::from(facts.node.float("clip", 0.0)?),
            false => f64::INFINITY,
        };
        if clip.is_nan() || clip < 0.0 {
            return Err(facts.invalid(format!("clip is {clip}")));
        }
        let rows = self.gates() * hidden;
        let state = if batch_first { [batch, directions, hidden] } else { [directions, batch, hidden] };
        let expected: [&[usize]; 7] = [
            &[directions, rows, input],
            &[directions, rows, hidden],
            &[directions, 2 * rows],
            &[batch],
            &state,
            &state,
            &[directions, 3 * hidden],
        ];
        for (i, shape) in expected.into_iter().enumerate() {
            let Some(fact) = facts.optional(i + 1) else { continue };
            signature::shape(facts, fact, shape)?;
            match i {
                3 => signature::indices(facts, fact)?,
                _ => signature::same_dtype(facts, x, fact)?,
            }
        }
        facts.input(2)?;
        let functions = activations(facts, self.gates(), directions)?;
        let variant = match self {
            Recurrent::Rnn => false,
            Recurrent::Gru => signature::flag(facts, "linear_before_reset", false)?,
            Recurrent::Lstm => signature::flag(facts, "input_forget", false)?,
        };
        Ok(Plan { kind: self, steps, batch, input, hidden, reverse, functions, batch_first, clip, variant })
    }
}

impl Plan {
    /// Shapes of the sequence of states and of the last state.
    fn shapes(&self) -> [Vec<usize>; 2] {
        let (t, d, b, h) = (self.steps, self.reverse.len(), self.batch, self.hidden);
        match self.batch_first {
            false => [vec![t, d, b, h], vec![d, b, h]],
            true => [vec![b, t, d, h], vec![b, d, h]],
        }
    }

    /// Index of the first element of a state, in a tensor of states.
    fn state_at(&self, direction: usize, batch: usize) -> usize {
        let row =
            if self.batch_first { batch * self.reverse.len() + direction } else { direction * self.batch + batch };
        row * self.hidden
    }

    /// Index of the first element of a state in the sequence.
    fn sequence_at(&self, step: usize, direction: usize, batch: usize) -> usize {
        match self.batch_first {
            false => step * self.reverse.len() * self.batch * self.hidden + self.state_at(direction, batch),
            true => ((batch * self.steps + step) * self.reverse.len() + direction) * self.hidden,
        }
    }
}

impl Op for Recurrent {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        if facts.opset < 7 {
            return Err(facts.unsupported(format!("{} before opset 7 is not supported", facts.node.op_type)));
        }
        let mut attributes =
            vec!["activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size"];
        if facts.opset >= 14 {
            attributes.push("layout");
        }
        let (inputs, outputs) = match self {
            Recurrent::Rnn => (6, 2),
            Recurrent::Gru => {
                attributes.push("linear_before_reset");
                (6, 2)
            }
            Recurrent::Lstm => {
                attributes.push("input_forget");
                (8, 3)
            }
        };
        signature::check(facts, 3..=inputs, 0..=outputs, &attributes)?;
        let dtype = facts.input(0)?.dtype;
        let [sequence, last] = self.plan(facts)?.shapes();
        element_count(&sequence)?;
        let all = [(dtype, sequence), (dtype, last.clone()), (dtype, last)];
        Ok(all.into_iter().take(facts.node.outputs.len()).collect())
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (plan, outputs) = (self.plan(facts)?, facts.node.outputs.len());
        let x_shape = facts.input(0)?.shape.clone();
        kernel(move |_, inputs| {
            let x = shaped(inputs, 0, &x_shape)?;
            let read = |i: usize| optional(inputs, i).map(Tensor::to_f64);
            let round = |values: Vec<f64>| -> Result<Vec<f64>> {
                Ok(floats::write_f64(&[values.len()], values, x.dtype())?.to_f64())
            };
            let lengths = lengths(optional(inputs, 4), plan.steps, plan.batch)?;
            let (values, w, r, bias, peepholes) = (x.to_f64(), read(1), read(2), read(3), read(7));
            let (Some(w), Some(r)) = (w, r) else { return Err(Error::invalid("run_input", "weights are missing")) };
            let [sequence_shape, last_shape] = plan.shapes();
            let (rows, hidden) = (plan.kind.gates() * plan.hidden, plan.hidden);
            let mut sequence = vec![0.0; element_count(&sequence_shape)?];
            let mut states = read(5).unwrap_or_else(|| vec![0.0; plan.reverse.len() * plan.batch * hidden]);
            let mut cells = read(6).unwrap_or_else(|| vec![0.0; states.len()]);
            for (d, &reverse) in plan.reverse.iter().enumerate() {
                let part = |all: &Option<Vec<f64>>, size: usize| all.as_ref().map(|v| v[d * size..][..size].to_vec());
                let cell = Cell {
                    kind: plan.kind,
                    direction: Direction {
                        w: &w[d * rows * plan.input..][..rows * plan.input],
                        r: &r[d * rows * hidden..][..rows * hidden],
                        bias: part(&bias, 2 * rows).unwrap_or_else(|| vec![0.0; 2 * rows]),
                        peepholes: part(&peepholes, 3 * hidden),
                    },
                    functions: &plan.functions[d],
                    clip: plan.clip,
                    variant: plan.variant,
                };
                for b in 0..plan.batch {
                    let at = plan.state_at(d, b);
                    for i in 0..lengths[b] {
                        let t = if reverse { lengths[b] - 1 - i } else { i };
                        let row = if plan.batch_first { b * plan.steps + t } else { t * plan.batch + b };
                        let x = &values[row * plan.input..][..plan.input];
                        let (state, memory) = cell.step(x, &states[at..at + hidden], &cells[at..at + hidden]);
                        let state = round(state)?;
                        sequence[plan.sequence_at(t, d, b)..][..hidden].copy_from_slice(&state);
                        states[at..at + hidden].copy_from_slice(&state);
                        cells[at..at + hidden].copy_from_slice(&round(memory)?);
                    }
                }
            }
            let all = [(&sequence_shape, sequence), (&last_shape, states), (&last_shape, cells)];
            all.into_iter().take(outputs).map(|(shape, v)| floats::write_f64(shape, v, x.dtype())).collect()
        })
    }
}

/// Steps of each sequence: all of them where no lengths are given.
fn lengths(given: Option<&Tensor>, steps: usize, batch: usize) -> Result<Vec<usize>> {
    let Some(given) = given else { return Ok(vec![steps; batch]) };
    let lengths = given.to_i64()?;
    let valid = lengths.iter().map(|&l| usize::try_from(l).ok().filter(|&l| l <= steps)).collect::<Option<Vec<_>>>();
    valid.ok_or_else(|| {
        Error::invalid("index_range", format!("a sequence length of {lengths:?} is outside 0..={steps}"))
    })
}
