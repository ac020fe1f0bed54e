//! How one element of a tensor came about, for people and as JSON.

use super::broadcast::{broadcast_shape, broadcast_strides};
use crate::error::{Error, Result};
use crate::program::Trace;
use crate::tensor::{Data, Tensor, strides};
use crate::with_data;
use std::fmt;

/// Values of a row, a window or a sum that are shown; of longer ones the first.
const SHOWN: usize = 16;

/// An element of one of a kernel's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the output.
    pub output: usize,
    /// Index in memory order.
    pub index: usize,
}

impl Place {
    /// An element of the first output.
    pub fn first(index: usize) -> Place {
        Place { output: 0, index }
    }
}

/// How one element came about.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Explanation {
    /// Target.
    pub target: String,
    /// Tensor.
    pub tensor: String,
    /// Flat index, in the order of the file's shape.
    pub index: usize,
    /// Name and operator of the node.
    pub node: Option<(String, String)>,
    /// What went in: operands, sums, counts.
    pub operands: Vec<(String, String)>,
    /// The steps to the result.
    pub trace: Trace,
    /// The argument of the kernel and the element of it (in memory order) that was moved here.
    #[serde(skip)]
    pub source: Option<(usize, usize)>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} element {} under {}", self.tensor, self.index, self.target)?;
        if let Some((name, op_type)) = &self.node {
            writeln!(f, "computed by {op_type} '{name}'")?;
        }
        let width = self.operands.iter().map(|(k, _)| k.chars().count()).max().unwrap_or(0);
        for (key, value) in &self.operands {
            let pad = " ".repeat(width - key.chars().count());
            writeln!(f, "  {key}{pad} = {value}")?;
        }
        writeln!(f, "{}", self.trace)
    }
}

impl Explanation {
    /// Adds an operand.
    pub fn add(&mut self, name: impl Into<String>, value: impl fmt::Display) {
        self.operands.push((name.into(), value.to_string()));
    }

    /// Lets the explanation of a kernel follow that reads this one's result; `label` names this one.
    pub fn then(self, label: &str, next: Explanation) -> Explanation {
        Explanation { trace: self.trace.then(label, next.trace), ..self }
    }
}

/// The first values of a list, and how many there are where that is not all.
pub fn elided<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let mut shown = Vec::new();
    let mut count = 0;
    for value in values {
        if count < SHOWN {
            shown.push(value.to_string());
        }
        count += 1;
    }
    match count > SHOWN {
        true => format!("{}, … ({count} in all)", shown.join(", ")),
        false => shown.join(", "),
    }
}

/// Index per axis of a flat row-major index.
pub fn coordinates(shape: &[usize], index: usize) -> Vec<usize> {
    strides(shape).iter().zip(shape).map(|(s, d)| index / s.max(&1) % d.max(&1)).collect()
}

/// An element as the language of traces writes it.
pub fn shown(tensor: &Tensor, index: usize) -> Result<String> {
    if index >= tensor.len() {
        return Err(Error::invalid("explain_index", format!("element {index} of {}", tensor.len())));
    }
    Ok(match tensor.data() {
        Data::F16(v) => format!("{:?}", v[index]),
        Data::BF16(v) => format!("{:?}", v[index]),
        Data::F32(v) => format!("{:?}", v[index]),
        Data::F64(v) => format!("{:?}", v[index]),
        data => with_data!(data, v => v[index].to_string()),
    })
}

/// The element of an argument that an element of the output meets where shapes broadcast; `None` where they do not.
pub fn met(argument: &[usize], output: &[usize], index: usize) -> Option<usize> {
    if broadcast_shape(&[argument, output]).ok()? != output {
        return None;
    }
    let steps = broadcast_strides(argument, output);
    Some(coordinates(output, index).iter().zip(steps).map(|(at, step)| at * step).sum())
}

/// The element of an output that is asked for.
pub fn result(outputs: &[Tensor], place: Place) -> Result<String> {
    let y = outputs
        .get(place.output)
        .ok_or_else(|| Error::invalid("explain_output", format!("output {} of {}", place.output, outputs.len())))?;
    shown(y, place.index)
}

/// What can be said of every kernel: of each argument the element that meets the output's, or the first ones; and the
/// result. `name` gives the names of the arguments.
pub fn of_arguments(
    outputs: &[Tensor],
    inputs: &[Option<&Tensor>],
    place: Place,
    name: &dyn Fn(usize) -> String,
) -> Result<Explanation> {
    let mut explanation = Explanation::default();
    let end = result(outputs, place)?;
    let shape = outputs[place.output].shape();
    for (i, x) in inputs.iter().enumerate() {
        let Some(x) = x else { continue };
        explanation.add(name(i), format!("{} of shape {:?}", x.dtype(), x.shape()));
        match met(x.shape(), shape, place.index).filter(|&at| at < x.len()) {
            Some(at) => {
                let text = format!("{}{:?}", name(i), coordinates(x.shape(), at));
                explanation.trace.add("input", text, shown(x, at)?);
            }
            None => {
                let first: Vec<String> = (0..x.len().min(SHOWN + 1)).map(|at| shown(x, at)).collect::<Result<_>>()?;
                let rest = if x.len() > SHOWN { ", …" } else { "" };
                let text = format!("[{}{rest}]", first[..first.len().min(SHOWN)].join(", "));
                explanation.trace.add("input", name(i), text);
            }
        }
    }
    explanation.trace = explanation.trace.end(end);
    Ok(explanation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_and_counted() {
        assert_eq!(elided([1, 2, 3]), "1, 2, 3");
        assert!(elided(0..100).ends_with("15, … (100 in all)"));
        assert_eq!(elided(0..16).matches(',').count(), 15);
    }

    #[test]
    fn elements_meet_as_shapes_broadcast() {
        assert_eq!(coordinates(&[2, 3, 4], 23), [1, 2, 3]);
        assert_eq!(met(&[3, 1], &[2, 3, 4], 23), Some(2));
        assert_eq!(met(&[], &[2], 1), Some(0));
        assert_eq!(met(&[5], &[2, 3], 1), None);
    }
}
