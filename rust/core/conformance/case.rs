//! Reading `cases.json` and its arrays.

use crate::error::{Error, Location, Result};
use crate::tensor::{Data, Tensor};
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Format that is read.
const FORMAT: &str = "nputwin-golden/1";

/// A folder of cases.
#[derive(Debug, Deserialize)]
pub struct Family {
    format: String,
    /// Name.
    pub family: String,
    /// What computed it.
    #[serde(default)]
    pub description: String,
    /// All cases.
    pub cases: Vec<Case>,
    #[serde(skip)]
    dir: PathBuf,
    #[serde(skip)]
    files: RefCell<HashMap<String, BTreeMap<String, Tensor>>>,
}

/// One application of one operator.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// Unique name.
    pub id: String,
    /// File of the arrays.
    pub file: String,
    /// ONNX operator, or `Requantize`, `QuantizeLinear`, `DequantizeLinear`.
    pub op: String,
    /// Attributes in ONNX's terms.
    #[serde(default)]
    pub attributes: BTreeMap<String, serde_json::Value>,
    /// Operands.
    pub inputs: Vec<Operand>,
    /// Results.
    pub outputs: Vec<Operand>,
    /// Fused activation.
    #[serde(default)]
    pub activation: Option<Activation>,
    /// Which of several kernels of the runtime was run.
    #[serde(default)]
    pub kernel_variant: Option<String>,
    /// Marks such as `tie_pt` and `exhaustive`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Where the result needs more than the encodings.
    #[serde(default)]
    pub note: Option<String>,
}

/// One array of a case and its encoding.
#[derive(Debug, Clone, Deserialize)]
pub struct Operand {
    /// `in0`, `in1`, `w`, `b`, `out`.
    pub role: String,
    /// Name of the array in the file.
    pub array: String,
    /// Type of the codes.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Scales as decimal numbers.
    #[serde(default)]
    pub scale: Option<Vec<String>>,
    /// Zero points.
    #[serde(default)]
    pub zero_point: Option<Vec<i64>>,
    /// Channel axis.
    #[serde(default)]
    pub axis: Option<usize>,
}

/// A fused activation as bounds on codes.
#[derive(Debug, Clone, Deserialize)]
pub struct Activation {
    /// Smallest code.
    #[serde(default)]
    pub qmin: Option<i64>,
    /// Largest code.
    #[serde(default)]
    pub qmax: Option<i64>,
}

impl Family {
    /// Reads the folder's `cases.json`.
    pub fn read(dir: &Path) -> Result<Family> {
        let path = dir.join("cases.json");
        let bytes = std::fs::read(&path).map_err(|e| Error::io(path.display(), &e))?;
        let mut family: Family = serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid("vector_json", e.to_string()).at(Location::File(path.display().to_string())))?;
        if family.format != FORMAT {
            return Err(Error::invalid("vector_format", format!("format '{}' is not {FORMAT}", family.format))
                .at(Location::File(path.display().to_string())));
        }
        family.dir = dir.to_path_buf();
        Ok(family)
    }

    /// The arrays of a case by name.
    pub fn arrays(&self, case: &Case) -> Result<BTreeMap<String, Tensor>> {
        let mut files = self.files.borrow_mut();
        if !files.contains_key(&case.file) {
            files.clear();
            files.insert(case.file.clone(), read_npz(&self.dir.join(&case.file))?);
        }
        let all = &files[&case.file];
        case.inputs
            .iter()
            .chain(&case.outputs)
            .map(|o| match all.get(&o.array) {
                Some(tensor) if tensor.shape() == o.shape.as_slice() => Ok((o.array.clone(), tensor.clone())),
                Some(tensor) => Err(Error::invalid(
                    "vector_shape",
                    format!("array '{}' has shape {:?}, the case says {:?}", o.array, tensor.shape(), o.shape),
                )),
                None => Err(Error::invalid("vector_array", format!("'{}' has no array '{}'", case.file, o.array))),
            })
            .collect()
    }
}

/// Every array of an npz file.
fn read_npz(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let fault = |e: std::io::Error| Error::io(path.display(), &e);
    let bytes = std::fs::read(path).map_err(fault)?;
    let mut npz = npyz::npz::NpzArchive::new(Cursor::new(bytes)).map_err(fault)?;
    let names: Vec<String> = npz.array_names().map(str::to_string).collect();
    let mut out = BTreeMap::new();
    for name in names {
        let Some(array) = npz.by_name(&name).map_err(fault)? else { continue };
        out.insert(name, read_array(array).map_err(fault)?);
    }
    Ok(out)
}

fn read_array<R: std::io::Read>(array: npyz::NpyFile<R>) -> std::io::Result<Tensor> {
    let invalid = |e: String| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
    let shape: Vec<usize> = array.shape().iter().map(|&d| d as usize).collect();
    if array.order() != npyz::Order::C {
        return Err(invalid("array in Fortran order".into()));
    }
    let dtype = match array.dtype() {
        npyz::DType::Plain(t) => t,
        other => return Err(invalid(format!("array of type {other:?}"))),
    };
    macro_rules! read {
        ($variant:ident, $t:ty) => {
            Data::$variant(array.into_vec::<$t>()?)
        };
    }
    let data = match (dtype.type_char(), dtype.size_field()) {
        (npyz::TypeChar::Int, 1) => read!(I8, i8),
        (npyz::TypeChar::Uint, 1) => read!(U8, u8),
        (npyz::TypeChar::Int, 2) => read!(I16, i16),
        (npyz::TypeChar::Uint, 2) => read!(U16, u16),
        (npyz::TypeChar::Int, 4) => read!(I32, i32),
        (npyz::TypeChar::Int, 8) => read!(I64, i64),
        (npyz::TypeChar::Float, 4) => read!(F32, f32),
        (npyz::TypeChar::Float, 8) => read!(F64, f64),
        (kind, size) => return Err(invalid(format!("array of type {kind:?}{size}"))),
    };
    Tensor::new(shape, data).map_err(|e| invalid(e.to_string()))
}
