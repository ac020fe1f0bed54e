//! ONNX files: reading them into a [`Graph`] and writing one.
//!
//! A file may be a float model, a QDQ model, a QOperator model or a mix: [`read`] gives float operators with encodings in
//! all cases. Opset 11 to 23 of ONNX's own operators; operators of `com.microsoft` stay nodes of that domain, but for the
//! quantized ones that [`crate::graph::qlinear`] turns into float operators.

mod attributes;
mod external;
mod import;
pub mod proto;
mod qlinear;
mod tensor;
mod write;

pub use qlinear::qlinear_model;
pub use write::{Written, qdq_model, write, write_qlinear};

use crate::arrays::Contents;
use crate::error::{Error, Location, Result};
use crate::graph::{Graph, qdq};
use prost::Message;
use prost::bytes::{Buf, Bytes};
use std::path::Path;

/// Largest file that is read: protobuf's own limit.
pub const MAX_BYTES: u64 = 1 << 31;

/// Reads a model from a file. External data is looked for in the folder of the file.
pub fn read(path: impl AsRef<Path>) -> Result<Graph> {
    let path = path.as_ref();
    let origin = path.display().to_string();
    let metadata = path.metadata().map_err(|e| Error::io(&origin, &e))?;
    if !metadata.is_file() {
        return Err(Error::invalid("model_file", "the model is not a regular file").at(Location::File(origin)));
    }
    if metadata.len() > MAX_BYTES {
        return Err(Error::invalid("model_size", "the model exceeds protobuf's limit of 2 GiB")
            .at(Location::File(origin))
            .help("store its tensors as external data"));
    }
    let contents = Contents::of(path).map_err(|e| Error::io(&origin, &e))?;
    decode_unplaced(Bytes::from_owner(contents), path.parent()).map_err(|e| e.at(Location::File(origin)))
}

/// Reads a model from bytes. `origin` names them in errors; external data is looked for in `base_dir`, and refused where
/// that is `None`.
pub fn decode(bytes: &[u8], origin: &str, base_dir: Option<&Path>) -> Result<Graph> {
    decode_unplaced(bytes, base_dir).map_err(|e| e.at(Location::File(origin.to_string())))
}

fn decode_unplaced(bytes: impl Buf, base_dir: Option<&Path>) -> Result<Graph> {
    if !bytes.has_remaining() {
        return Err(Error::invalid("model_empty", "the model has no bytes"));
    }
    let model = proto::ModelProto::decode(bytes)
        .map_err(|e| Error::invalid("model_protobuf", format!("not an ONNX model, or cut short: {e}")))?;
    let mut graph = import::import(model, base_dir)?;
    qdq::fold(&mut graph)?;
    graph.validate()?;
    Ok(graph)
}
