//! AIMET's `.encodings` files, versions 0.6.1, 1.0.0, 2.0.0 and 2.1.0.
//!
//! A file is read into [`EncodingsFile`], whose entries have the same form for every version. Two facts that a version
//! may leave out stay visible: the axis of per-channel scales ([`Entry::Unplaced`] until
//! [`EncodingsFile::resolve_axes`]) and whether a tensor is an activation or a parameter ([`Section::Unknown`]).
//!
//! Versions 0.6.1 and 1.0.0 store `offset = -zero_point` on the unsigned grid; 2.x stores ONNX's zero point.

mod json;
mod legacy;
mod placement;
mod v0_6_1;
mod v1_0_0;
mod v2;
mod write;

pub(crate) use json::parse_strict;
pub use placement::{AxisEvidence, Layout, ParamUse, Unplaced};
pub use write::{Note, WriteOptions, Written};

use super::{Encoding, Granularity};
use crate::error::{Error, Location, Result};
use crate::num::FloatType;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// Version of the file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Version {
    V0_6_1,
    V1_0_0,
    V2_0_0,
    V2_1_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Version; 4] = [Version::V0_6_1, Version::V1_0_0, Version::V2_0_0, Version::V2_1_0];

    /// As the file writes it.
    pub fn text(self) -> &'static str {
        match self {
            Version::V0_6_1 => "0.6.1",
            Version::V1_0_0 => "1.0.0",
            Version::V2_0_0 => "2.0.0",
            Version::V2_1_0 => "2.1.0",
        }
    }

    /// The version that `text` names.
    pub fn parse(text: &str) -> Result<Version> {
        Version::ALL.into_iter().find(|v| v.text() == text).ok_or_else(|| {
            Error::invalid("encodings_version", format!("unknown version '{text}' of the encodings format"))
                .help("known versions: 0.6.1, 1.0.0, 2.0.0, 2.1.0")
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What kind of tensor an entry describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// Graph input or output of an operator.
    Activation,
    /// Weight, bias or another constant.
    Param,
    /// The file (2.x) does not say.
    Unknown,
}

/// Float type of a tensor that is not quantized to integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum FloatKind {
    F16,
    BF16,
    F32,
}

impl FloatKind {
    /// Bits of one element.
    pub fn bitwidth(self) -> u32 {
        if self == FloatKind::F32 { 32 } else { 16 }
    }

    /// The format.
    pub fn format(self) -> FloatType {
        match self {
            FloatKind::F16 => FloatType::F16,
            FloatKind::BF16 => FloatType::Bf16,
            FloatKind::F32 => FloatType::F32,
        }
    }
}

/// What a file says about one tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Quantized to integers.
    Int(Encoding),
    /// Quantized to integers, but the axes of its scales are not known yet.
    Unplaced(Unplaced),
    /// Kept in a float type.
    Float(FloatKind),
}

/// One tensor's entry.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedEntry {
    /// Name of the tensor.
    pub name: String,
    /// Activation or parameter.
    pub section: Section,
    /// What the file says about it.
    pub entry: Entry,
    place: Place,
}

/// Where the axes of an entry come from.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    evidence: AxisEvidence,
    channel_axis: Option<usize>,
    /// Dimensions of the array of block scales.
    block_dims: Option<Vec<usize>>,
}

impl Place {
    const STATED: Place = Place { evidence: AxisEvidence::Stated, channel_axis: None, block_dims: None };
}

impl NamedEntry {
    /// An entry whose axes, if any, the caller states.
    pub fn new(name: impl Into<String>, section: Section, entry: Entry) -> Self {
        NamedEntry { name: name.into(), section, entry, place: Place::STATED }
    }

    /// The encoding, where the tensor is quantized to integers and its axes are known.
    pub fn encoding(&self) -> Option<&Encoding> {
        match &self.entry {
            Entry::Int(encoding) => Some(encoding),
            _ => None,
        }
    }

    /// How well the axis of the scales is known.
    pub fn axis_evidence(&self) -> AxisEvidence {
        self.place.evidence
    }

    /// Places the scales along the axes of the tensor, or checks the axes that are known.
    ///
    /// # Errors
    /// `encodings_shape` and `encoding_shape` where the scales do not fit the tensor.
    pub fn resolve(&mut self, usage: &ParamUse) -> Result<()> {
        let named = |e: Error| e.at_tensor(&self.name);
        let encoding = match &self.entry {
            Entry::Float(_) => return Ok(()),
            Entry::Unplaced(unplaced) => unplaced.place(usage).map_err(named)?,
            Entry::Int(encoding) => encoding.clone(),
        };
        encoding.validate_shape(&usage.shape).map_err(named)?;
        let agrees = match encoding.granularity {
            Granularity::PerTensor => true,
            Granularity::PerChannel { axis } => axis == usage.axis,
            Granularity::PerBlock { axis, .. } => {
                Some(axis) == usage.block_axis && encoding.lpbq.as_ref().is_none_or(|l| l.channel_axis == usage.axis)
            }
        };
        let block_dims = match encoding.granularity {
            Granularity::PerBlock { axis, block_size } => {
                let mut dims = usage.shape.clone();
                dims[axis] /= block_size;
                Some(dims)
            }
            _ => None,
        };
        self.place = Place {
            evidence: if agrees { AxisEvidence::Implied } else { AxisEvidence::Contradicted },
            channel_axis: Some(encoding.lpbq.as_ref().map_or(usage.axis, |l| l.channel_axis)),
            block_dims,
        };
        self.entry = Entry::Int(encoding);
        Ok(())
    }
}

/// The contents of an encodings file.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodingsFile {
    /// Version that was read.
    pub version: Version,
    /// Which package made the file; null where it does not say.
    pub producer: Value,
    /// Arguments of the producer's quantizer; null where absent.
    pub quantizer_args: Value,
    /// Layers left out by the producer; null where absent.
    pub excluded_layers: Value,
    /// Other keys of the file, unread.
    pub extra: Map<String, Value>,
    entries: Vec<NamedEntry>,
    index: HashMap<String, usize>,
}

impl EncodingsFile {
    /// A file without entries.
    pub fn new(version: Version) -> Self {
        EncodingsFile {
            version,
            producer: Value::Null,
            quantizer_args: Value::Null,
            excluded_layers: Value::Null,
            extra: Map::new(),
            entries: Vec::new(),
            index: HashMap::new(),
        }
    }

    /// Reads the file at `path`.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path.display(), &e))?;
        Self::parse(&bytes, &path.display().to_string())
    }

    /// Reads a file from memory; `origin` names it in errors.
    ///
    /// # Errors
    /// `encodings_*` for anything that is not a valid file of a known version; the location is the tensor or the file.
    pub fn parse(bytes: &[u8], origin: &str) -> Result<Self> {
        let in_file = |e: Error| e.at(Location::File(origin.into()));
        let Value::Object(mut top) = json::parse(bytes, origin)? else {
            return Err(in_file(Error::invalid("encodings_json", "the file is not a JSON object")));
        };
        let version = match top.remove("version") {
            Some(Value::String(text)) => Version::parse(&text).map_err(in_file)?,
            _ => {
                return Err(in_file(
                    Error::invalid("encodings_version", "the file has no version string")
                        .help("an encodings file has a key \"version\" such as \"1.0.0\""),
                ));
            }
        };
        let mut file = EncodingsFile::new(version);
        let mut take = |key: &str| top.remove(key).unwrap_or(Value::Null);
        file.producer = take("producer");
        file.quantizer_args = take("quantizer_args");
        file.excluded_layers = take("excluded_layers");
        match version {
            Version::V0_6_1 => v0_6_1::parse(&mut top, &mut file),
            Version::V1_0_0 => v1_0_0::parse(&mut top, &mut file),
            Version::V2_0_0 | Version::V2_1_0 => v2::parse(&mut top, &mut file),
        }
        .map_err(in_file)?;
        file.extra = top;
        Ok(file)
    }

    /// All entries, in the order of the file.
    pub fn entries(&self) -> &[NamedEntry] {
        &self.entries
    }

    /// The entry of a tensor.
    pub fn get(&self, name: &str) -> Option<&NamedEntry> {
        self.index.get(name).map(|&i| &self.entries[i])
    }

    /// Adds an entry; an error where the tensor has one already or its encoding is wrong.
    pub fn insert(&mut self, entry: NamedEntry) -> Result<()> {
        if entry.name.is_empty() {
            return Err(Error::invalid("encodings_name", "an entry has an empty name"));
        }
        if let Entry::Int(encoding) = &entry.entry {
            encoding.validate().map_err(|e| e.at_tensor(&entry.name))?;
        }
        if self.index.contains_key(&entry.name) {
            return Err(Error::invalid("encodings_duplicate", "the tensor has two entries")
                .at_tensor(&entry.name)
                .help("keep one of them"));
        }
        self.index.insert(entry.name.clone(), self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    /// The encoding of a tensor; `None` where the file has none or keeps the tensor in float.
    ///
    /// # Errors
    /// `encodings_axis` where the axis of its scales is not known.
    pub fn encoding(&self, name: &str) -> Result<Option<&Encoding>> {
        match self.get(name).map(|e| &e.entry) {
            Some(Entry::Int(encoding)) => Ok(Some(encoding)),
            Some(Entry::Unplaced(_)) => Err(Error::invalid("encodings_axis", "the axis of the scales is not known")
                .at_tensor(name)
                .help("this version of the format leaves it to the model: resolve the axes against the graph first")),
            Some(Entry::Float(_)) | None => Ok(None),
        }
    }

    /// Those of `tensors` that have no entry.
    pub fn without_entry<'a>(&self, tensors: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        tensors.into_iter().filter(|name| !self.index.contains_key(*name)).collect()
    }

    /// Places the scales of every tensor that `lookup` knows, and checks the axes that the file states. Gives the names
    /// of the tensors whose axes stay unknown.
    pub fn resolve_axes(&mut self, lookup: impl Fn(&str) -> Option<ParamUse>) -> Result<Vec<String>> {
        let mut unresolved = Vec::new();
        for entry in &mut self.entries {
            match lookup(&entry.name) {
                Some(usage) => entry.resolve(&usage)?,
                None if matches!(entry.entry, Entry::Unplaced(_)) => unresolved.push(entry.name.clone()),
                None => {}
            }
        }
        Ok(unresolved)
    }

    /// Says for the tensors of a 2.x file whether they are parameters.
    pub fn resolve_sections(&mut self, is_param: impl Fn(&str) -> bool) {
        for entry in self.entries.iter_mut().filter(|e| e.section == Section::Unknown) {
            entry.section = if is_param(&entry.name) { Section::Param } else { Section::Activation };
        }
    }
}
