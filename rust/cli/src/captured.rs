//! Tensors that another tool captured, matched to the tensors of a run.

use crate::files::file_stem;
use nputwin::arrays::{Format, Npz, decode_npy, decode_raw, read_file};
use nputwin::exec::{Captured, Session, layout};
use nputwin::ops::integer::Layout;
use nputwin::tensor::{DType, Tensor};
use nputwin::{Error, Location, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folders below the given one that are looked into.
const MAX_DEPTH: usize = 8;

/// Order of the elements in captured files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CapturedLayout {
    /// ONNX's order.
    Nchw,
    /// Channels last.
    Nhwc,
}

/// Where a captured tensor lies.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    array: Option<String>,
}

/// Reads the captured tensors that have a name, alias or file name of a tensor in `ours`. Integers are codes of our
/// encoding, floats are reals.
///
/// # Errors
/// `captured_none` where no name matches, `captured_shape` and `captured_code` where a tensor is not ours; errors of
/// the files.
pub fn read(path: &Path, ours: &[Captured], session: &Session, order: CapturedLayout) -> Result<Vec<Captured>> {
    let places = index(path)?;
    let mut out = Vec::new();
    for tensor in ours {
        let names = std::iter::once(&tensor.name).chain(&tensor.aliases);
        let mut keys = names.flat_map(|n| [n.clone(), n.trim_start_matches('/').to_string(), file_stem(n)]);
        let Some(found) = keys.find_map(|n| places.get(&n)) else { continue };
        let mut captured = Captured { codes: None, encoding: None, ..tensor.clone() };
        let mut reals = None;
        for place in found {
            let in_file = |e: Error| e.at_tensor(&tensor.name);
            let read = read_place(place, tensor, order).map_err(in_file)?;
            match &tensor.encoding {
                Some(encoding) if !read.dtype().is_float() => {
                    let codes = codes(&read, tensor).map_err(in_file)?;
                    captured.value = session.dequantize(&tensor.name, encoding, &codes)?;
                    captured.codes = Some(codes);
                    captured.encoding = Some(encoding.clone());
                }
                _ => reals = Some(read),
            }
        }
        if let Some(reals) = reals {
            captured.value = reals;
        }
        out.push(captured);
    }
    if out.is_empty() {
        let known: Vec<&str> = places.keys().take(8).map(String::as_str).collect();
        return Err(Error::invalid("captured_none", "no captured tensor has the name of a tensor of the model")
            .at(Location::File(path.display().to_string()))
            .help(format!("captured: {} ...", known.join(", "))));
    }
    Ok(out)
}

/// All captured tensors by name.
fn index(path: &Path) -> Result<BTreeMap<String, Vec<Place>>> {
    let mut places = BTreeMap::new();
    if path.is_dir() {
        walk(path, "", 0, &mut places)?;
    } else {
        add_archive(path, &mut places)?;
    }
    Ok(places)
}

fn add_archive(path: &Path, places: &mut BTreeMap<String, Vec<Place>>) -> Result<()> {
    for array in Npz::open(path)?.names() {
        let place = Place { path: path.to_path_buf(), array: Some(array.clone()) };
        places.entry(array).or_default().push(place);
    }
    Ok(())
}

fn walk(folder: &Path, prefix: &str, depth: usize, places: &mut BTreeMap<String, Vec<Place>>) -> Result<()> {
    let io = |e: std::io::Error| Error::io(folder.display(), &e);
    let mut entries: Vec<_> = std::fs::read_dir(folder).map_err(io)?.collect::<Result<_, _>>().map_err(io)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if path.is_dir() {
            if depth < MAX_DEPTH {
                walk(&path, &format!("{prefix}{name}/"), depth + 1, places)?;
            }
            continue;
        }
        let Some((stem, extension)) = name.rsplit_once('.') else { continue };
        match extension.to_ascii_lowercase().as_str() {
            "npz" => add_archive(&path, places)?,
            "npy" | "raw" | "bin" => {
                let place = Place { path: path.clone(), array: None };
                places.entry(format!("{prefix}{stem}")).or_default().push(place);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads one captured tensor in ONNX's order.
fn read_place(place: &Place, ours: &Captured, order: CapturedLayout) -> Result<Tensor> {
    let shape = ours.value.shape();
    let channels_last = order == CapturedLayout::Nhwc && (3..=4).contains(&shape.len());
    let file_shape = if channels_last { channels_last_shape(shape) } else { shape.to_vec() };
    let origin = place.path.display().to_string();
    let tensor = match (&place.array, Format::of(&place.path)) {
        (Some(array), _) => Npz::open(&place.path)?.array(array)?,
        (None, Format::Npy) => decode_npy(&read_file(&place.path)?, &origin)?,
        _ => {
            let bytes = read_file(&place.path)?;
            let count = ours.value.len();
            let coded = ours.encoding.as_ref().map(|e| e.storage_dtype());
            let dtype = match coded {
                Some(dtype) if bytes.len() != 4 * count && bytes.len() == dtype.size() * count => dtype,
                _ if ours.value.dtype().is_float() => DType::F32,
                _ => ours.value.dtype(),
            };
            let dims: Vec<Option<usize>> = file_shape.iter().map(|&d| Some(d)).collect();
            decode_raw(&bytes, dtype, &dims).map_err(|e| e.at(Location::File(origin)))?
        }
    };
    let squeezed = |s: &[usize]| s.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    if squeezed(tensor.shape()) != squeezed(&file_shape) {
        let error = Error::invalid(
            "captured_shape",
            format!("the captured tensor has shape {:?}, ours {shape:?}", tensor.shape()),
        );
        let other_order = tensor.shape() == channels_last_shape(shape);
        return Err(if other_order {
            error.help("it seems to be channels-last: --captured-layout nhwc")
        } else {
            error
        });
    }
    let tensor = tensor.reshaped(file_shape)?;
    if channels_last { layout::convert(&tensor, Layout::RowMajor) } else { Ok(tensor) }
}

fn channels_last_shape(shape: &[usize]) -> Vec<usize> {
    match shape {
        [n, c, spatial @ ..] => std::iter::once(*n).chain(spatial.iter().copied()).chain([*c]).collect(),
        _ => shape.to_vec(),
    }
}

/// Captured integers as codes of our encoding.
fn codes(read: &Tensor, ours: &Captured) -> Result<Tensor> {
    let encoding = ours.encoding.as_ref().ok_or_else(|| Error::invalid("captured_code", "no encoding"))?;
    let range = encoding.qmin()..=encoding.qmax();
    let mut out = Vec::with_capacity(read.len());
    for code in read.to_i64()? {
        let small = i32::try_from(code).ok().filter(|_| range.contains(&code));
        out.push(small.ok_or_else(|| Error::invalid("captured_code", format!("code {code} is outside {range:?}")))?);
    }
    encoding.codes_to_tensor(read.shape(), out)
}
