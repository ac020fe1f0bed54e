//! Model files of any format that is read.

use crate::arrays::Contents;
use crate::error::{Error, Location, Result};
use crate::graph::Graph;
use crate::{onnx, tflite};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Extension of files whose format has no other mark that a damaged file would still have.
const FLATBUFFER: &str = "tflite";

/// Most bytes of a flatbuffer, whose offsets are signed and have 32 bits.
const LARGEST: u64 = (1 << 31) - 1;

/// Reads a model from a file: a flatbuffer by its name's ending or its identifier, otherwise ONNX.
pub fn read(path: impl AsRef<Path>) -> Result<Graph> {
    let path = path.as_ref();
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case(FLATBUFFER)) && !begins_as_flatbuffer(path) {
        return onnx::read(path);
    }
    let origin = path.display().to_string();
    let metadata = path.metadata().map_err(|e| Error::io(&origin, &e))?;
    if !metadata.is_file() {
        return Err(Error::invalid("model_file", "the model is not a regular file").at(Location::File(origin)));
    }
    if metadata.len() > LARGEST {
        let message = format!("{} bytes: a flatbuffer has at most {LARGEST}", metadata.len());
        return Err(Error::invalid("model_size", message).at(Location::File(origin)));
    }
    let contents = Contents::copy_of(path).map_err(|e| Error::io(&origin, &e))?;
    tflite::decode_shared(&Arc::new(contents), &origin)
}

/// Reads a model from bytes. `origin` names them in errors; external data of an ONNX model is looked for in `base_dir`, and
/// refused where that is `None`.
pub fn decode(bytes: &[u8], origin: &str, base_dir: Option<&Path>) -> Result<Graph> {
    if tflite::is_model(bytes) { tflite::decode(bytes, origin) } else { onnx::decode(bytes, origin, base_dir) }
}

/// Whether a file can be read and its first bytes are those of a flatbuffer model.
fn begins_as_flatbuffer(path: &Path) -> bool {
    // A pipe would lose what is read here.
    let is_file = path.metadata().is_ok_and(|m| m.is_file());
    let mut first = [0; 8];
    let mut read = || File::open(path)?.read_exact(&mut first);
    is_file && read().is_ok() && tflite::is_model(&first)
}
