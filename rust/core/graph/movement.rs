//! Operators that move codes without changing them, as they occur between QLinear operators and behind quantizers.
//!
//! On codes and on the reals that they stand for these operators do the same, so the node stays and its output inherits
//! the encoding of its input.

use super::qdq::Fold;
use super::{Attribute, Node, TensorId, TensorInfo};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Which inputs of an operator hold the elements that it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    /// The first; others are shapes and indices.
    First,
    /// All.
    All,
    /// All but the first, a condition.
    Selected,
    /// All but the second, indices.
    Updated,
}

impl Movement {
    /// The movement that a node is; `None` for operators that compute.
    pub fn of(node: &Node) -> Option<Movement> {
        if !node.domain.is_empty() {
            return None;
        }
        match node.op_type.as_str() {
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice" | "Gather" | "GatherElements"
            | "GatherND" | "Split" | "Expand" | "Tile" | "DepthToSpace" | "SpaceToDepth" | "Identity" | "MaxPool"
            | "GlobalMaxPool" | "ReduceMax" | "ReduceMin" | "Pad" | "TopK" | "Compress" | "ReverseSequence" => {
                Some(Movement::First)
            }
            "Resize" => {
                let nearest = node.string("mode", "nearest").is_ok_and(|mode| mode == "nearest");
                nearest.then_some(Movement::First)
            }
            "Concat" | "Max" | "Min" => Some(Movement::All),
            "Where" => Some(Movement::Selected),
            "Scatter" | "ScatterElements" | "ScatterND" => {
                let replaces = node.string("reduction", "none").is_ok_and(|r| matches!(r, "none" | "min" | "max"));
                replaces.then_some(Movement::Updated)
            }
            _ => None,
        }
    }

    /// Whether input `slot` holds elements.
    pub fn moves(self, slot: usize) -> bool {
        match self {
            Movement::First => slot == 0,
            Movement::All => true,
            Movement::Selected => slot > 0,
            Movement::Updated => slot != 1,
        }
    }

    /// Whether the node moves codes that have been folded.
    pub fn reads_any(self, node: &Node, reals: &HashMap<TensorId, TensorId>) -> bool {
        let mut elements = node.inputs.iter().enumerate().filter(|(slot, _)| self.moves(*slot));
        elements.any(|(_, input)| input.is_some_and(|t| reals.contains_key(&t)))
    }

    /// The node on reals.
    pub(super) fn convert(self, fold: &mut Fold<'_>, node: &Node) -> Result<Node> {
        let mut elements = node.inputs.iter().enumerate().filter(|(slot, _)| self.moves(*slot));
        let encoding = elements
            .find_map(|(_, input)| fold.graph.tensors[*fold.reals.get(&(*input)?)?].encoding.clone())
            .ok_or_else(|| Error::invalid("codes_missing", "the codes that are moved have no encoding"))?;
        if encoding.granularity != Granularity::PerTensor {
            return Err(Error::unsupported("codes_per_channel", "moving codes that have several scales"));
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (slot, &input) in node.inputs.iter().enumerate() {
            inputs.push(match input {
                Some(t) if self.moves(slot) => Some(fold.read_codes(t, &encoding)?),
                other => fold.reader_input(other),
            });
        }
        if node.op_type == "Pad" && node.string("mode", "constant")? == "constant" {
            pad_value(fold, node, &encoding, &mut inputs)?;
        }
        for (i, output) in node.outputs.iter().enumerate() {
            if let Some(t) = output.filter(|_| i == 0 || node.op_type == "Split") {
                fold.become_reals(t, encoding.clone());
            }
        }
        Ok(Node { inputs, ..node.clone() })
    }
}

/// Replaces the padding code (0 where the node gives none) by the real that it stands for.
fn pad_value(
    fold: &mut Fold<'_>,
    node: &Node,
    encoding: &Arc<Encoding>,
    inputs: &mut Vec<Option<TensorId>>,
) -> Result<()> {
    let code = match inputs.get(2).copied().flatten() {
        None => 0,
        Some(t) => {
            let constant = fold.graph.tensors[t].constant.as_ref();
            let values = constant.map(|c| c.to_i64()).transpose()?;
            values.and_then(|v| v.first().copied()).ok_or_else(|| {
                Error::unsupported("pad_value_dynamic", "the padding code of a quantized tensor is not constant")
            })?
        }
    };
    let value = (code.saturating_sub(encoding.zero_point[0])) as f32 * encoding.scale[0] as f32;
    let name = fold.fresh(format!("{}_pad_value", node.name));
    let constant = Some(Tensor::f32(&[], vec![value]).into());
    let t = fold.new_tensor(TensorInfo { name, dtype: Some(DType::F32), constant, ..TensorInfo::default() });
    if inputs.len() < 3 {
        inputs.resize(3, None);
    }
    inputs[2] = Some(t);
    Ok(())
}

/// An attribute list without `name`.
pub(super) fn without(node: &Node, name: &str) -> std::collections::BTreeMap<String, Attribute> {
    let mut attributes = node.attributes.clone();
    attributes.remove(name);
    attributes
}
