//! TFLite files: reading them into a [`Graph`].
//!
//! The graph has ONNX's operators in ONNX's order (`N C H W`); images that the file holds as `N H W C` are marked
//! (`TensorInfo::channels_last`), so that ports and captures have the file's shapes. Tensors keep their names. Codes of
//! weights and biases are those of the file; fused activations are real bounds ([`crate::graph::Clamp`]), which each target
//! quantizes by its own rule.

mod check;
mod import;
mod layout;
mod operators;
mod reader;
mod schema;

use crate::arrays::Contents;
use crate::error::{Location, Result};
use crate::graph::Graph;
use std::sync::Arc;

/// Whether bytes begin like a file of this format.
pub fn is_model(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(schema::IDENTIFIER)
}

/// Reads a model from the bytes of a file. `origin` names them in errors.
///
/// # Errors
/// `model_*` for bytes that are no model, `subgraphs`, `op_*`, `variable_tensor` and others for what is not understood, at the
/// tensor or operator; those of [`Graph::validate`].
pub fn decode(bytes: &[u8], origin: &str) -> Result<Graph> {
    decode_shared(&Arc::new(bytes.to_vec().into()), origin)
}

/// As [`decode`], for bytes that the graph may keep for its weights.
pub fn decode_shared(bytes: &Arc<Contents>, origin: &str) -> Result<Graph> {
    decode_unplaced(bytes).map_err(|e| e.at(Location::File(origin.to_string())))
}

fn decode_unplaced(bytes: &Arc<Contents>) -> Result<Graph> {
    let file = reader::read((**bytes).as_ref())?;
    let graph = import::import(bytes, &file)?;
    graph.validate()?;
    check::shapes(&graph)?;
    Ok(graph)
}
