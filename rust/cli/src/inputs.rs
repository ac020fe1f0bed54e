//! Where the values of a model's inputs come from: single files, or a list with one inference per line.

use crate::args::split_pair;
use crate::files::sha256;
use clap::Args;
use nputwin::arrays::{Format, Npz, decode_npy, decode_raw, read_file};
use nputwin::exec::PortInfo;
use nputwin::graph::{Dim, Graph};
use nputwin::tensor::Tensor;
use nputwin::{Error, Location, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Values for the inputs.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// A .npy, .npz or raw file; NAME= may be left out for a single input and for an .npz with the inputs' names
    #[arg(long = "input", short = 'i', value_name = "[NAME=]FILE")]
    pub inputs: Vec<String>,
    /// One inference per line: `name:=file` pairs or files in the order of the inputs. Raw files hold float32
    #[arg(long, value_name = "LIST", conflicts_with = "inputs")]
    pub input_list: Option<PathBuf>,
    /// Inputs with an encoding are codes, not reals
    #[arg(long)]
    pub native_input: bool,
    /// Shape of an input that the model leaves open
    #[arg(long, value_name = "NAME=D,D,...")]
    pub shape: Vec<String>,
}

/// A file and, in an npz, the array.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    path: PathBuf,
    array: Option<String>,
}

/// Files for one inference, by input name.
type SampleFiles = Vec<(String, Origin)>;

/// All inferences that were asked for. Tensors are read one inference at a time.
#[derive(Debug)]
pub struct Samples {
    items: Vec<SampleFiles>,
    shapes: BTreeMap<String, Vec<usize>>,
    /// Tensors that the list asks for (`%name` lines), beyond the graph's outputs.
    pub wanted: Vec<String>,
    /// Whether they come from a list.
    pub is_list: bool,
}

impl InputArgs {
    /// Marks quantized inputs as codes where the user feeds codes.
    pub fn apply_native(&self, graph: &mut Graph) {
        if self.native_input {
            for port in &mut graph.inputs {
                port.quantized = graph.tensors[port.tensor].encoding.is_some();
            }
        }
    }

    /// Reads the list, if there is one, and finds the file of every input.
    pub fn samples(&self, ports: &[PortInfo]) -> Result<Samples> {
        let mut shapes = BTreeMap::new();
        for text in &self.shape {
            let (name, dims) = split_pair(text, "shape_form", "--shape x=1,3,224,224")?;
            if !ports.iter().any(|p| p.name == name) {
                return Err(unknown_input(name, ports));
            }
            let dims = dims.split(',').map(|d| {
                d.trim().parse::<usize>().map_err(|_| Error::invalid("shape_form", format!("'{d}' is no dimension")))
            });
            shapes.insert(name.to_string(), dims.collect::<Result<Vec<_>>>()?);
        }
        let (items, wanted) = match &self.input_list {
            Some(list) => read_list(list, ports)?,
            None if self.inputs.is_empty() && !ports.is_empty() => {
                let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
                return Err(Error::invalid("input_none", "no values for the model's inputs")
                    .help(format!("give --input or --input-list; inputs: {}", names.join(", "))));
            }
            None => (vec![single(&self.inputs, ports)?], Vec::new()),
        };
        Ok(Samples { items, shapes, wanted, is_list: self.input_list.is_some() })
    }
}

impl Samples {
    /// Number of inferences; at least one.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The tensors of one inference.
    pub fn load(&self, sample: usize, ports: &[PortInfo]) -> Result<Vec<(String, Tensor)>> {
        self.items[sample]
            .iter()
            .map(|(name, origin)| {
                let port = ports.iter().find(|p| p.name == *name).ok_or_else(|| unknown_input(name, ports))?;
                Ok((name.clone(), self.tensor(port, origin)?))
            })
            .collect()
    }

    /// Files and hashes of one inference.
    pub fn provenance(&self, sample: usize) -> Result<Value> {
        let mut out = serde_json::Map::new();
        for (name, origin) in &self.items[sample] {
            let entry = json!({ "path": origin.path.display().to_string(), "sha256": sha256(&origin.path)? });
            out.insert(name.clone(), entry);
        }
        Ok(Value::Object(out))
    }

    fn tensor(&self, port: &PortInfo, origin: &Origin) -> Result<Tensor> {
        let path = &origin.path;
        let tensor = match Format::of(path) {
            Format::Npy => decode_npy(&read_file(path)?, &path.display().to_string())?,
            Format::Npz => {
                let mut npz = Npz::open(path)?;
                npz.array(origin.array.as_deref().unwrap_or(&port.name))?
            }
            Format::Raw => {
                let dims = match self.shapes.get(&port.name) {
                    Some(shape) => shape.iter().map(|&d| Some(d)).collect(),
                    None => declared(port)?,
                };
                let file = Location::File(path.display().to_string());
                decode_raw(&read_file(path)?, port.dtype, &dims).map_err(|e| e.at(file))?
            }
        };
        match self.shapes.get(&port.name) {
            Some(shape) if tensor.shape() != shape => Err(Error::invalid(
                "input_shape",
                format!("the array has shape {:?}, --shape says {shape:?}", tensor.shape()),
            )
            .at(Location::File(path.display().to_string()))),
            _ => Ok(tensor),
        }
    }
}

/// The declared dimensions of an input, open ones unknown.
fn declared(port: &PortInfo) -> Result<Vec<Option<usize>>> {
    let shape = port.shape.as_ref().ok_or_else(|| {
        Error::invalid("input_shape", "the model gives no shape for this input, and a raw file has none")
            .at_tensor(&port.name)
            .help(format!("give it: --shape {}=1,3,224,224", port.name))
    })?;
    Ok(shape.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None }).collect())
}

fn unknown_input(name: &str, ports: &[PortInfo]) -> Error {
    let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
    Error::invalid("feed_unknown", format!("the model has no input '{name}'"))
        .help(format!("inputs: {}", names.join(", ")))
}

/// Files given with `--input`.
fn single(inputs: &[String], ports: &[PortInfo]) -> Result<SampleFiles> {
    let mut out: SampleFiles = Vec::new();
    for text in inputs {
        // An input's own name decides whether `a=b` is a pair: file names may have `=` too.
        let named = ports.iter().find_map(|p| Some((p.name.clone(), text.strip_prefix(&p.name)?.strip_prefix('=')?)));
        match named {
            Some((name, file)) => out.push((name, origin(file))),
            None => {
                let found = origin(text);
                if !found.path.exists()
                    && let Some((name, _)) = text.split_once('=')
                {
                    return Err(unknown_input(name, ports));
                }
                match (Format::of(&found.path), ports) {
                    (_, [port]) if found.array.is_some() || Format::of(&found.path) != Format::Npz => {
                        out.push((port.name.clone(), found));
                    }
                    (Format::Npz, _) => out.extend(whole_archive(&found.path, ports)?),
                    _ => {
                        return Err(Error::invalid("input_name", format!("which input does '{text}' belong to?"))
                            .help(format!("write NAME={text}")));
                    }
                }
            }
        }
    }
    check_complete(&out, ports)?;
    Ok(out)
}

/// Arrays of an archive that are called like inputs; the only array where neither has a choice.
fn whole_archive(path: &Path, ports: &[PortInfo]) -> Result<SampleFiles> {
    let names = Npz::open(path)?.names();
    let file = |name: &str, array: &str| {
        (name.to_string(), Origin { path: path.to_path_buf(), array: Some(array.to_string()) })
    };
    if let ([port], [array]) = (ports, &names[..]) {
        return Ok(vec![file(&port.name, array)]);
    }
    Ok(ports.iter().filter(|p| names.contains(&p.name)).map(|p| file(&p.name, &p.name)).collect())
}

/// `FILE`, or `FILE.npz:ARRAY`.
fn origin(text: &str) -> Origin {
    if let Some(at) = text.to_ascii_lowercase().find(".npz:") {
        return Origin { path: PathBuf::from(&text[..at + 4]), array: Some(text[at + 5..].to_string()) };
    }
    Origin { path: PathBuf::from(text), array: None }
}

fn check_complete(files: &SampleFiles, ports: &[PortInfo]) -> Result<()> {
    for port in ports {
        match files.iter().filter(|(name, _)| *name == port.name).count() {
            1 => {}
            0 => return Err(Error::invalid("feed_missing", format!("no value for input '{}'", port.name))),
            _ => return Err(Error::invalid("feed_twice", format!("input '{}' is given twice", port.name))),
        }
    }
    Ok(())
}

/// Reads a list: blank lines and lines that begin with `#` say nothing, `%name …` asks for tensors beyond the outputs.
/// Relative paths are looked for in the working directory, then beside the list.
fn read_list(path: &Path, ports: &[PortInfo]) -> Result<(Vec<SampleFiles>, Vec<String>)> {
    let bytes = read_file(path)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::invalid("input_list_utf8", "the list is not UTF-8 text").at(Location::File(path.display().to_string()))
    })?;
    let beside = path.parent().unwrap_or(Path::new(""));
    let (mut samples, mut wanted, mut start) = (Vec::new(), Vec::new(), 0);
    for line in text.split('\n') {
        let location = Location::Text {
            origin: path.display().to_string(),
            text: text.clone(),
            span: start..start + line.trim_end().len(),
        };
        start += line.len() + 1;
        let content = line.trim();
        if let Some(names) = content.strip_prefix('%') {
            wanted.extend(names.split_whitespace().map(String::from));
        } else if !(content.is_empty() || content.starts_with('#')) {
            samples.push(list_line(content, beside, ports).map_err(|e| e.at(location))?);
        }
    }
    if samples.is_empty() {
        return Err(Error::invalid("input_list_empty", "the list has no inference")
            .at(Location::File(path.display().to_string()))
            .help("write one line per inference: x:=a.raw y:=b.raw"));
    }
    Ok((samples, wanted))
}

fn list_line(line: &str, beside: &Path, ports: &[PortInfo]) -> Result<SampleFiles> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let named = words.iter().filter(|w| w.contains(":=")).count();
    if named != 0 && named != words.len() {
        return Err(Error::invalid("input_list_mixed", "some files have a name and some have none"));
    }
    if named == 0 && words.len() != ports.len() {
        return Err(Error::invalid("input_list_count", format!("{} files for {} inputs", words.len(), ports.len()))
            .help("put one inference on one line; file names cannot have blanks"));
    }
    let mut out = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let (name, file) = word.split_once(":=").unwrap_or((ports[i.min(ports.len() - 1)].name.as_str(), word));
        if !ports.iter().any(|p| p.name == name) {
            return Err(unknown_input(name, ports));
        }
        let mut found = origin(file);
        if !found.path.exists() && beside.join(&found.path).exists() {
            found.path = beside.join(&found.path);
        }
        if !found.path.is_file() {
            return Err(Error::invalid("input_list_file", format!("there is no file '{file}'")));
        }
        out.push((name.to_string(), found));
    }
    check_complete(&out, ports)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nputwin::tensor::DType;

    fn ports(names: &[&str]) -> Vec<PortInfo> {
        let port = |n: &&str| PortInfo {
            name: n.to_string(),
            dtype: DType::F32,
            shape: Some(vec![Dim::Symbol("N".into()), Dim::Fixed(2)]),
            encoding: None,
        };
        names.iter().map(port).collect()
    }

    fn list(text: &str, names: &[&str]) -> Result<(Vec<SampleFiles>, Vec<String>)> {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.raw", "b.raw"] {
            std::fs::write(dir.path().join(file), [0u8; 8]).unwrap();
        }
        let path = dir.path().join("list.txt");
        std::fs::write(&path, text).unwrap();
        read_list(&path, &ports(names))
    }

    #[test]
    fn a_list_has_comments_names_positions_and_wanted_tensors() {
        let (samples, wanted) =
            list("# comment\n\n%conv1 relu1\nx:=a.raw y:=b.raw\r\n b.raw a.raw \n", &["x", "y"]).unwrap();
        assert_eq!(wanted, ["conv1", "relu1"]);
        let names: Vec<Vec<(&str, &str)>> = samples
            .iter()
            .map(|s| s.iter().map(|(n, o)| (n.as_str(), o.path.file_name().unwrap().to_str().unwrap())).collect())
            .collect();
        assert_eq!(names, [[("x", "a.raw"), ("y", "b.raw")], [("x", "b.raw"), ("y", "a.raw")]]);
    }

    #[test]
    fn each_fault_of_a_list_has_its_error_and_line() {
        let code = |text: &str| list(text, &["x", "y"]).unwrap_err().code();
        assert_eq!(code("# nothing\n"), "input_list_empty");
        assert_eq!(code("x:=a.raw b.raw\n"), "input_list_mixed");
        assert_eq!(code("a.raw\n"), "input_list_count");
        assert_eq!(code("x:=a.raw z:=b.raw\n"), "feed_unknown");
        assert_eq!(code("x:=a.raw x:=b.raw\n"), "feed_twice");
        assert_eq!(code("x:=a.raw\n"), "feed_missing");
        assert_eq!(code("x:=a.raw y:=c.raw\n"), "input_list_file");
        let shown = list("a.raw b.raw\na.raw\n", &["x", "y"]).unwrap_err().to_string();
        assert!(shown.contains("list.txt:2:1"), "{shown}");
    }

    #[test]
    fn an_input_is_named_by_pair_by_archive_or_by_being_alone() {
        let found = single(&["x=a=b.npy".into(), "y=c.npz:k".into()], &ports(&["x", "y"])).unwrap();
        assert_eq!(found[0].1, Origin { path: "a=b.npy".into(), array: None });
        assert_eq!(found[1].1, Origin { path: "c.npz".into(), array: Some("k".into()) });
        assert_eq!(single(&["a.raw".into()], &ports(&["x"])).unwrap()[0].0, "x");
        assert_eq!(single(&["a.raw".into()], &ports(&["x", "y"])).unwrap_err().code(), "input_name");
        assert_eq!(single(&["z=a.raw".into()], &ports(&["x"])).unwrap_err().code(), "feed_unknown");
        assert_eq!(single(&["x=a".into(), "x=b".into()], &ports(&["x"])).unwrap_err().code(), "feed_twice");
    }
}
