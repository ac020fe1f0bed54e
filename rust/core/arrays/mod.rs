//! Tensors in files: npy, npz and raw; and whole files as bytes.

mod contents;
mod npy;
mod npz;
mod raw;

pub use contents::{Contents, Part};
pub use npy::{decode as decode_npy, encode as encode_npy};
pub use npz::{Npz, NpzWriter};
pub use raw::{decode as decode_raw, element_from_le, encode as encode_raw};

use crate::{Error, Result};
use std::path::Path;

/// A file format for tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One numpy array.
    Npy,
    /// Several numpy arrays.
    Npz,
    /// Elements without a header, little endian.
    Raw,
}

impl Format {
    /// The format of a name.
    pub fn from_name(name: &str) -> Option<Format> {
        [Format::Npy, Format::Npz, Format::Raw].into_iter().find(|f| f.extension() == name)
    }

    /// By the ending of a file name; anything but `.npy` and `.npz` is raw.
    pub fn of(path: &Path) -> Format {
        match path.extension().and_then(|e| e.to_str()) {
            Some(e) if e.eq_ignore_ascii_case("npy") => Format::Npy,
            Some(e) if e.eq_ignore_ascii_case("npz") => Format::Npz,
            _ => Format::Raw,
        }
    }

    /// Ending of file names.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Npy => "npy",
            Format::Npz => "npz",
            Format::Raw => "raw",
        }
    }
}

/// The bytes of a file.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path.display(), &e))
}
