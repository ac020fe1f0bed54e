//! Reading `cases.json` and its arrays.

use crate::arrays::Npz;
use crate::error::{Error, Location, Result};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Format that is read.
const FORMAT: &str = "nputwin-golden/1";
/// File that makes a folder a family.
const CASES: &str = "cases.json";

/// A folder of cases.
#[derive(Deserialize)]
pub struct Family {
    format: String,
    /// Name.
    #[serde(rename = "family")]
    pub name: String,
    /// What computed it.
    #[serde(default)]
    pub description: String,
    /// All cases.
    pub cases: Vec<Case>,
    #[serde(skip)]
    dir: PathBuf,
    /// The archive that was read last.
    #[serde(skip)]
    archive: Mutex<Option<(String, Npz)>>,
}

/// One application of one operator.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Activation {
    /// `none`, `relu`, `relu6`, …
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Smallest code.
    #[serde(default)]
    pub qmin: Option<i64>,
    /// Largest code.
    #[serde(default)]
    pub qmax: Option<i64>,
    /// `output_range` where no code of the output lies beyond the bounds, so that there is nothing to clamp.
    #[serde(default)]
    pub by: Option<String>,
}

impl Case {
    /// The file without its ending: operator and types, the rows of reports.
    pub fn group(&self) -> &str {
        self.file.strip_suffix(".npz").unwrap_or(&self.file)
    }

    /// The one output.
    pub fn output(&self) -> Result<&Operand> {
        match &self.outputs[..] {
            [output] => Ok(output),
            outputs => {
                Err(Error::unsupported("vector_output", format!("a case with {} outputs: it has one", outputs.len())))
            }
        }
    }
}

/// The families below a folder, which may be one itself, sorted by path.
///
/// # Errors
/// `vector_folder` where there is none.
pub fn find_families(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.join(CASES).is_file() {
        return Ok(vec![dir.to_path_buf()]);
    }
    let io = |e: std::io::Error| Error::io(dir.display(), &e);
    let entries: Vec<PathBuf> =
        std::fs::read_dir(dir).map_err(io)?.map(|e| e.map(|e| e.path()).map_err(io)).collect::<Result<_>>()?;
    let mut found: Vec<PathBuf> = entries.into_iter().filter(|p| p.join(CASES).is_file()).collect();
    found.sort();
    match found.is_empty() {
        false => Ok(found),
        true => Err(Error::invalid("vector_folder", format!("neither a {CASES} nor a folder with one"))
            .at(Location::File(dir.display().to_string()))
            .help("give the folder of a family, or one whose folders are families")),
    }
}

impl Family {
    /// Reads the folder's `cases.json`.
    ///
    /// # Errors
    /// `vector_json`, `vector_format`; `vector_case` where an id is there twice or a file is not one of the folder.
    pub fn read(dir: &Path) -> Result<Family> {
        let path = dir.join(CASES);
        let place = |e: Error| e.at(Location::File(path.display().to_string()));
        let bytes = std::fs::read(&path).map_err(|e| Error::io(path.display(), &e))?;
        let mut family: Family =
            serde_json::from_slice(&bytes).map_err(|e| place(Error::invalid("vector_json", e.to_string())))?;
        if family.format != FORMAT {
            return Err(place(Error::invalid("vector_format", format!("format '{}' is not {FORMAT}", family.format))));
        }
        family.check().map_err(place)?;
        family.dir = dir.to_path_buf();
        Ok(family)
    }

    fn check(&self) -> Result<()> {
        let mut ids = BTreeSet::new();
        for case in &self.cases {
            let fault = |text: String| Error::invalid("vector_case", format!("case '{}': {text}", case.id));
            if !ids.insert(case.id.as_str()) {
                return Err(fault("the id is there twice".into()));
            }
            let mut components = Path::new(&case.file).components();
            let plain = matches!(components.next(), Some(std::path::Component::Normal(_)));
            if !plain || components.next().is_some() {
                return Err(fault(format!("'{}' is no file of the folder", case.file)));
            }
            let mut roles = BTreeSet::new();
            if let Some(twice) = case.inputs.iter().chain(&case.outputs).find(|o| !roles.insert(o.role.as_str())) {
                return Err(fault(format!("role '{}' is there twice", twice.role)));
            }
        }
        Ok(())
    }

    /// The case of that id.
    pub fn case(&self, id: &str) -> Result<&Case> {
        self.cases.iter().find(|c| c.id == id).ok_or_else(|| {
            let known = self.cases.iter().map(|c| c.id.as_str());
            Error::invalid("vector_case", format!("family '{}' has no case '{id}'", self.name))
                .help(crate::spec::nearest_help(id, known.take(1000)))
        })
    }

    /// The arrays of a case's inputs, by name.
    pub fn inputs(&self, case: &Case) -> Result<BTreeMap<String, Tensor>> {
        case.inputs.iter().map(|o| Ok((o.array.clone(), self.array(case, o)?))).collect()
    }

    /// What somebody else's kernel computed.
    pub fn expected(&self, case: &Case) -> Result<Tensor> {
        self.array(case, case.output()?)
    }

    fn array(&self, case: &Case, operand: &Operand) -> Result<Tensor> {
        let mut archive = self.archive.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if archive.as_ref().is_none_or(|(file, _)| *file != case.file) {
            *archive = Some((case.file.clone(), Npz::open(&self.dir.join(&case.file))?));
        }
        let Some((_, npz)) = archive.as_mut() else { unreachable!("opened above") };
        let tensor = npz.array(&operand.array)?;
        let stored = if operand.dtype == "int4" { "int8" } else { operand.dtype.as_str() };
        if tensor.shape() != operand.shape.as_slice() || tensor.dtype().name() != stored {
            let (array, dtype) = (&operand.array, tensor.dtype());
            return Err(Error::invalid(
                "vector_array",
                format!(
                    "array '{array}' is {dtype} of shape {:?}, the case says {stored} of shape {:?}",
                    tensor.shape(),
                    operand.shape
                ),
            )
            .at(Location::File(self.dir.join(&case.file).display().to_string())));
        }
        Ok(tensor)
    }
}
