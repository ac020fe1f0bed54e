//! Kernels of ONNX's own operators, and how their elements come about: moved from an input, a sum of products, a window, a
//! row, or one element of each operand.

use super::explanation::{coordinates, elided, met, of_arguments, result, shown};
use super::integer::Layout;
use super::integer::channels_last::channel_axes;
use super::integer::movement::{data_inputs, is_movement};
use super::integer::window::{PoolGeometry, geometry};
use super::products::Products;
use super::{Explanation, Fact, Facts, Kernel, Outputs, Place, RunContext, axis};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::tensor::{Data, Tensor};
use std::sync::Arc;

/// Bits of a tag that say which element it stands for; those above order the tags.
const ELEMENT_BITS: u32 = 31;

/// Above the code of any fill value.
const POSITION_KEY: i64 = 1 << 9;

/// Which of several elements a kernel picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pick {
    /// The one at a place.
    Place,
    /// The largest, of equal ones the first.
    Largest,
    /// The smallest, of equal ones the first.
    Smallest,
}

/// A kernel's outputs on tags, and each tagged input with the number of its first element.
type Tagged = (Outputs, Vec<(usize, usize)>);

/// Where a moved element comes from.
enum Origin {
    /// Input and element.
    Element(usize, usize),
    /// No input.
    Fill,
}

enum How {
    Moved { data: Vec<usize>, pick: Pick, fills: bool, window: Option<PoolGeometry> },
    Products { products: Products, factors: Vec<(&'static str, f32)> },
    Window(PoolGeometry),
    Row { axes: std::ops::Range<usize> },
    Elements,
}

/// A kernel that an operator prepared, with what its node says of its elements.
pub struct Explained {
    kernel: Box<dyn Kernel>,
    node: Node,
    opset: i64,
    inputs: Vec<Option<Fact>>,
    outputs: Vec<Option<Fact>>,
    encodings: Vec<Option<Arc<Encoding>>>,
    layout: Layout,
}

impl How {
    fn of(facts: &Facts<'_>) -> Result<How> {
        let op_type = facts.node.op_type.as_str();
        if let Some(products) = Products::of(facts)? {
            let mut factors = Vec::new();
            if op_type == "Gemm" {
                for name in ["alpha", "beta"] {
                    factors.push((name, facts.node.float(name, 1.0)?));
                }
            }
            return Ok(How::Products { products, factors });
        }
        let rank = facts.optional(0).map_or(0, |x| x.shape.len());
        Ok(match op_type {
            "ArgMax" | "ArgMin" | "AveragePool" | "GlobalAveragePool" | "LpPool" | "GlobalLpPool" | "ReduceL1"
            | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMean" | "ReduceProd" | "ReduceSum"
            | "ReduceSumSquare" => How::Window(geometry(facts)?),
            _ if is_movement(op_type) || matches!(op_type, "CenterCropPad" | "Trilu") => {
                let pick = match op_type {
                    "MaxPool" | "GlobalMaxPool" | "ReduceMax" => Pick::Largest,
                    "ReduceMin" => Pick::Smallest,
                    "TopK" if facts.node.int("largest", 1)? != 0 => Pick::Largest,
                    "TopK" => Pick::Smallest,
                    _ => match facts.node.string("reduction", "none") {
                        Ok("max") => Pick::Largest,
                        Ok("min") => Pick::Smallest,
                        _ => Pick::Place,
                    },
                };
                let windowed = matches!(op_type, "MaxPool" | "GlobalMaxPool" | "ReduceMax" | "ReduceMin");
                let window = if windowed { geometry(facts).ok() } else { None };
                let computes = match op_type {
                    "Resize" | "Upsample" => facts.node.string("mode", "nearest")? != "nearest",
                    _ => matches!(facts.node.string("reduction", "none"), Ok("add" | "mul")),
                };
                if computes {
                    return Ok(How::Elements);
                }
                let fills = matches!(op_type, "Pad" | "CenterCropPad" | "Trilu");
                How::Moved { data: data_inputs(facts), pick, fills, window }
            }
            "Softmax" | "LogSoftmax" | "Hardmax" => {
                let modern = facts.opset >= 13;
                let at = axis::normalize(facts, facts.node.int("axis", if modern { -1 } else { 1 })?, rank)?;
                How::Row { axes: at..if modern { at + 1 } else { rank } }
            }
            "LayerNormalization" | "RMSNormalization" => {
                How::Row { axes: axis::normalize(facts, facts.node.int("axis", -1)?, rank)?..rank }
            }
            "LpNormalization" => {
                let at = axis::normalize(facts, facts.node.int("axis", -1)?, rank)?;
                How::Row { axes: at..at + 1 }
            }
            "CumSum" | "CumProd" => {
                let at = facts.constant(1)?.to_i64()?.first().copied().unwrap_or(0);
                let at = axis::normalize(facts, at, rank)?;
                How::Row { axes: at..at + 1 }
            }
            "InstanceNormalization" => How::Row { axes: 2.min(rank)..rank },
            _ => How::Elements,
        })
    }
}

impl Explained {
    /// Explains `kernel`, which was prepared for these facts.
    pub fn new(kernel: Box<dyn Kernel>, facts: &Facts<'_>) -> Explained {
        Explained {
            kernel,
            node: facts.node.clone(),
            opset: facts.opset,
            inputs: facts.inputs.to_vec(),
            outputs: facts.outputs.to_vec(),
            encodings: vec![None; facts.inputs.len()],
            layout: Layout::RowMajor,
        }
    }

    /// How the node's elements come about. Where its geometry does not say, the elements of the arguments remain.
    fn how(&self) -> How {
        let facts = Facts { node: &self.node, opset: self.opset, inputs: &self.inputs, outputs: &self.outputs };
        How::of(&facts).unwrap_or(How::Elements)
    }

    /// The same kernel on codes of these encodings, one per input, in a layout.
    pub fn on_codes(self, encodings: Vec<Option<Arc<Encoding>>>, layout: Layout) -> Explained {
        Explained { encodings, layout, ..self }
    }

    fn name(&self, input: usize) -> String {
        self.inputs.get(input).and_then(Option::as_ref).map_or(format!("input {input}"), |f| f.name.clone())
    }

    /// Name and index per axis of an element of an argument, in ONNX's order.
    fn element(&self, input: usize, x: &Tensor, at: usize) -> String {
        let mut shape = x.shape().to_vec();
        let mut at = at;
        if self.layout == Layout::ChannelsLast && shape.len() > 2 {
            let axes = channel_axes(shape.len());
            shape[1..].rotate_right(axes);
            at = self.layout.element(&shape, at);
        }
        format!("{}{:?}", self.name(input), coordinates(&shape, at))
    }

    /// What a code of an argument stands for.
    fn real(&self, input: usize, code: &str) -> Option<(String, f64)> {
        let encoding = self.encodings.get(input)?.as_deref().filter(|e| e.scale.len() == 1)?;
        let (zero, scale) = (encoding.zero_point[0], encoding.scale[0]);
        let code: i64 = code.parse().ok()?;
        Some((format!("({code} - {zero}) · {scale}"), (code - zero) as f64 * scale))
    }

    /// The kernel's outputs where every element of the data inputs is a tag. Tags are ordered as the elements are where the
    /// kernel compares them.
    fn tagged(
        &self,
        context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        (data, pick, fills): (&[usize], Pick, bool),
    ) -> Result<Tagged> {
        let mut first = 0usize;
        let (mut tags, mut starts) = (Vec::new(), Vec::new());
        for &i in data {
            let Some(x) = inputs.get(i).copied().flatten() else { continue };
            let keys = match pick {
                Pick::Place => vec![POSITION_KEY; x.len()],
                _ => keys(x)?,
            };
            let tag = |(at, key): (usize, i64)| {
                let low = first + at;
                (key << ELEMENT_BITS) + if pick == Pick::Largest { (1 << ELEMENT_BITS) - 1 - low } else { low } as i64
            };
            tags.push((i, Tensor::i64(x.shape(), keys.into_iter().enumerate().map(tag).collect())));
            starts.push((i, first));
            first += x.len();
        }
        if first >= 1 << ELEMENT_BITS {
            return Err(Error::unsupported("explain_size", format!("{first} elements to choose from")));
        }
        let given = |(i, x): (usize, &Option<&Tensor>)| match tags.iter().find(|(t, _)| *t == i) {
            Some((_, tag)) => Some(tag.clone()),
            // A fill value in the type of the data.
            None if i == 2 && fills => Some(Tensor::i64(&[], vec![0])),
            None => x.cloned(),
        };
        let replaced: Vec<Option<Tensor>> = inputs.iter().enumerate().map(given).collect();
        let arguments: Vec<Option<&Tensor>> = replaced.iter().map(Option::as_ref).collect();
        Ok((self.kernel.run(context, &arguments)?, starts))
    }

    /// What output element `place` is a copy of; `None` where a tag does not say.
    fn origin(
        &self,
        context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        (data, pick, fills): (&[usize], Pick, bool),
        place: Place,
    ) -> Option<Origin> {
        let (outputs, starts) = self.tagged(context, inputs, (data, pick, fills)).ok()?;
        let tag = *outputs.get(place.output)?.as_i64().ok()?.get(place.index)?;
        if pick == Pick::Place && tag >> ELEMENT_BITS != POSITION_KEY {
            return fills.then_some(Origin::Fill);
        }
        let mask = (1i64 << ELEMENT_BITS) - 1;
        let low = (if pick == Pick::Largest { mask - (tag & mask) } else { tag & mask }) as usize;
        let &(input, first) = starts.iter().rev().find(|(_, first)| *first <= low)?;
        let at = low - first;
        (at < inputs.get(input).copied().flatten()?.len()).then_some(Origin::Element(input, at))
    }

    fn moved(
        &self,
        context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        outputs: &[Tensor],
        place: Place,
        how: &How,
    ) -> Result<Explanation> {
        let How::Moved { data, pick, fills, window } = how else { return self.elements(inputs, outputs, place) };
        let mut explanation = Explanation::default();
        if let (Some(window), Some(x)) = (window, inputs.first().copied().flatten()) {
            self.list_window(window, x, place.index, &mut explanation)?;
        }
        // Where elements are compared, a second output gives the places of the elements of the first.
        let values = if *pick == Pick::Place { place } else { Place::first(place.index) };
        let value = result(outputs, values)?;
        match self.origin(context, inputs, (data, *pick, *fills), values) {
            Some(Origin::Element(input, at)) => {
                let x = super::closure::input(inputs, input)?;
                if shown(x, at)? != value {
                    // The kernel does more than to move.
                    return self.elements(inputs, outputs, place);
                }
                let element = self.element(input, x, at);
                explanation.add("from", format!("input {input}, {element}"));
                explanation.trace.add("input", element, &value);
                if values == place {
                    explanation.source = Some((input, at));
                }
            }
            Some(Origin::Fill) => {
                explanation.add("from", "no input: a fill value");
                explanation.trace.add("constant", "fill value", &value);
            }
            None => return self.elements(inputs, outputs, place),
        }
        if let Some((text, real)) = data.first().and_then(|&i| self.real(i, &value)) {
            explanation.trace.add("step", text, real);
        }
        explanation.trace = explanation.trace.end(result(outputs, place)?);
        Ok(explanation)
    }

    fn elements(&self, inputs: &[Option<&Tensor>], outputs: &[Tensor], place: Place) -> Result<Explanation> {
        of_arguments(outputs, inputs, place, &|i| self.name(i))
    }

    fn list_window(&self, window: &PoolGeometry, x: &Tensor, index: usize, to: &mut Explanation) -> Result<()> {
        let mut taps = Vec::new();
        let count = window.for_each_tap(index, |tap| taps.push(tap));
        let values: Vec<String> = taps.iter().map(|&tap| shown(x, tap)).collect::<Result<_>>()?;
        to.add("elements of the window", values.len());
        if count != values.len() {
            to.add("divisor", count);
        }
        to.trace.add("input", format!("{} in the window", self.name(0)), elided(values));
        Ok(())
    }

    fn products(
        &self,
        (products, factors): (&Products, &[(&'static str, f32)]),
        inputs: &[Option<&Tensor>],
        end: String,
        index: usize,
    ) -> Result<Explanation> {
        let (x, w) = (super::closure::input(inputs, 0)?, super::closure::input(inputs, 1)?);
        let mut explanation = Explanation::default();
        let terms = products.at(index);
        let (a, b) = (x.to_f64(), w.to_f64());
        let text = |&(i, j): &(usize, usize)| Ok(format!("{}·{}", shown(x, i)?, shown(w, j)?));
        explanation.add("products", terms.len());
        let written: Vec<String> = terms.iter().map(text).collect::<Result<_>>()?;
        explanation.trace.add("input", format!("{} · {}", self.name(0), self.name(1)), elided(written));
        let sum: f64 = terms.iter().map(|&(i, j)| a[i] * b[j]).sum();
        explanation.trace.add("step", "sum of the products, in float64", sum);
        for (name, value) in factors.iter().filter(|f| f.1 != 1.0) {
            explanation.trace.add("constant", *name, value);
        }
        if let Some(bias) = inputs.get(2).copied().flatten() {
            let at = match products.channel_axis() {
                Some(axis) => Some(coordinates(products.output(), index)[axis] % bias.len().max(1)),
                None => met(bias.shape(), products.output(), index),
            };
            if let Some(at) = at {
                explanation.trace.add("input", self.element(2, bias, at), shown(bias, at)?);
            }
        }
        explanation.trace = explanation.trace.end(end);
        Ok(explanation)
    }

    fn row(
        &self,
        axes: &std::ops::Range<usize>,
        inputs: &[Option<&Tensor>],
        end: String,
        index: usize,
    ) -> Result<Explanation> {
        let x = super::closure::input(inputs, 0)?;
        let depth: usize = x.shape()[axes.clone()].iter().product();
        let inner: usize = x.shape()[axes.end..].iter().product();
        let start = index / (depth * inner).max(1) * depth * inner + index % inner.max(1);
        let mut explanation = Explanation::default();
        explanation.add("elements of the row", depth);
        let row: Vec<String> = (0..depth).map(|i| shown(x, start + i * inner)).collect::<Result<_>>()?;
        explanation.trace.add("input", format!("{} in the row", self.name(0)), elided(row));
        explanation.trace.add("input", self.element(0, x, index), shown(x, index)?);
        for (i, x) in inputs.iter().enumerate().skip(1) {
            let Some(x) = x.filter(|x| x.len() == depth) else { continue };
            let at = index / inner.max(1) % depth;
            explanation.trace.add("input", self.element(i, x, at), shown(x, at)?);
        }
        explanation.trace = explanation.trace.end(end);
        Ok(explanation)
    }
}

/// Numbers in the order of the elements, each within 32 bits.
fn keys(x: &Tensor) -> Result<Vec<i64>> {
    Ok(match x.data() {
        Data::F32(v) => v
            .iter()
            .map(|v| {
                let bits = v.to_bits() as i32;
                i64::from(bits ^ ((bits >> 31) as u32 >> 1) as i32)
            })
            .collect(),
        _ => {
            let values = x.to_i64()?;
            if values.iter().any(|&v| i32::try_from(v).is_err()) {
                return Err(Error::unsupported("explain_range", "elements beyond 32 bits"));
            }
            values
        }
    })
}

impl Kernel for Explained {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        self.kernel.run(context, inputs)
    }

    fn explain(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let outputs = self.kernel.run(context, inputs)?;
        let end = result(&outputs, place)?;
        let how = self.how();
        match &how {
            How::Moved { .. } => self.moved(context, inputs, &outputs, place, &how),
            How::Products { products, factors } => self.products((products, factors), inputs, end, place.index),
            How::Window(window) => {
                let mut explanation = Explanation::default();
                let x = super::closure::input(inputs, 0)?;
                self.list_window(window, x, place.index, &mut explanation)?;
                explanation.trace = explanation.trace.end(end);
                Ok(explanation)
            }
            How::Row { axes } if place.output == 0 => self.row(axes, inputs, end, place.index),
            How::Row { .. } | How::Elements => self.elements(inputs, &outputs, place),
        }
    }
}
