//! Reading `cases.json` and its arrays.

use crate::arrays::Npz;
use crate::error::{Error, Location, Result};
use crate::spec::nearest_help;
use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Format that is read.
const FORMAT: &str = "nputwin-golden/1";
/// File that makes a folder a family.
const CASES: &str = "cases.json";

/// Keys that inform a reader and change nothing: of a family, a case and an operand. An activation has none.
const FAMILY_NOTES: [&str; 4] = ["split", "licence_of_source", "build", "environment"];
const CASE_NOTES: [&str; 2] = ["case", "source"];
const OPERAND_NOTES: [&str; 2] = ["min", "max"];

/// What a document says besides the keys that are read.
type Others = BTreeMap<String, Value>;

/// A folder of cases.
#[derive(Deserialize, Serialize)]
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
    #[serde(flatten)]
    others: Others,
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
    /// Domain of the operator; empty for ONNX's.
    #[serde(default)]
    pub domain: String,
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
    /// Where it comes from.
    #[serde(flatten)]
    others: Others,
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
    /// Order of the axes: `NCHW`, or `OIHW` and `IOHW` of weights; ONNX's where it is absent.
    #[serde(default)]
    pub layout: Option<String>,
    /// Scales as decimal numbers.
    #[serde(default)]
    pub scale: Option<Vec<String>>,
    /// `float32` where every scale is one, `float64` otherwise.
    #[serde(default)]
    pub scale_dtype: Option<String>,
    /// Zero points.
    #[serde(default)]
    pub zero_point: Option<Vec<i64>>,
    /// Channel axis.
    #[serde(default)]
    pub axis: Option<usize>,
    /// Bits of the accumulator whose sums the codes are, where they are fewer than those of the type.
    #[serde(default)]
    pub accumulator_bits: Option<u32>,
    /// The range that the encoding stands for.
    #[serde(flatten)]
    others: Others,
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
    #[serde(flatten)]
    others: Others,
}

impl Case {
    /// Keys, layouts and types of scales.
    fn check(&self) -> Result<()> {
        let place = format!("case '{}'", self.id);
        known_keys(&place, &self.others, &CASE_NOTES, self)?;
        for operand in self.inputs.iter().chain(&self.outputs) {
            let place = format!("{place}, operand '{}'", operand.role);
            known_keys(&place, &operand.others, &OPERAND_NOTES, operand)?;
            operand.check(&self.op).map_err(|text| Error::invalid("vector_operand", format!("{place}: {text}")))?;
        }
        match &self.activation {
            Some(activation) => known_keys(&format!("{place}, activation"), &activation.others, &[], activation),
            None => Ok(()),
        }
    }

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

impl Operand {
    /// Says what is wrong with the layout or the type of the scales.
    fn check(&self, op: &str) -> Result<(), String> {
        if let Some(layout) = &self.layout {
            let expected = match (self.role.as_str(), op) {
                ("w", "ConvTranspose") => "IOHW",
                ("w", _) => "OIHW",
                _ => "NCHW",
            };
            if layout != expected {
                return Err(format!("layout {layout}: {expected} is read"));
            }
            if self.shape.len() != layout.len() {
                return Err(format!("layout {layout} of shape {:?}", self.shape));
            }
        }
        let is_wider = |s: &&String| s.parse::<f64>().is_ok_and(|v| v.is_finite() && f64::from(v as f32) != v);
        match self.scale_dtype.as_deref() {
            None | Some("float64") => Ok(()),
            Some("float32") => match self.scale.iter().flatten().find(is_wider) {
                Some(scale) => Err(format!("scale {scale} is no float32")),
                None => Ok(()),
            },
            Some(other) => Err(format!("scales of type {other}: float32 and float64 are read")),
        }
    }
}

/// Refuses what is neither read nor a note. `read` is the part of the document, which names the keys that are read.
fn known_keys(place: &str, others: &Others, notes: &[&str], read: &impl Serialize) -> Result<()> {
    let Some(unknown) = others.keys().find(|key| !notes.contains(&key.as_str())) else { return Ok(()) };
    let document = serde_json::to_value(read).map_err(|e| Error::invalid("vector_json", e.to_string()))?;
    let read = document.as_object().into_iter().flat_map(|o| o.keys()).map(String::as_str);
    let known = read.filter(|key| !others.contains_key(*key)).chain(notes.iter().copied());
    let known: Vec<&str> = known.collect();
    Err(Error::invalid("vector_key", format!("{place} has an unknown key '{unknown}'"))
        .help(nearest_help(unknown, known.into_iter())))
}

impl Family {
    /// Reads the folder's `cases.json`.
    ///
    /// # Errors
    /// `vector_json`, `vector_format`; `vector_key` for a key that is neither read nor known to inform only; `vector_case` where
    /// an id is there twice or a file is not one of the folder; `vector_operand` for a layout that is not ONNX's.
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
        known_keys("the family", &self.others, &FAMILY_NOTES, self)?;
        let mut ids = BTreeSet::new();
        for case in &self.cases {
            case.check()?;
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
                .help(nearest_help(id, known.take(1000)))
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
        let stored = DType::from_name(&operand.dtype).map_or(operand.dtype.as_str(), |dtype| dtype.in_memory().name());
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
