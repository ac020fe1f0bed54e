//! Reading `cases.json` and its arrays.

use crate::arrays::Npz;
use crate::error::{Error, Location, Result};
use crate::tensor::Tensor;
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
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
    /// What the runtime's own compiler decided: among it, the values of the target's parameters.
    #[serde(default)]
    pub kernel_params: Option<BTreeMap<String, serde_json::Value>>,
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
    let mut npz = Npz::open(path)?;
    npz.names().into_iter().map(|name| Ok((name.clone(), npz.array(&name)?))).collect()
}
