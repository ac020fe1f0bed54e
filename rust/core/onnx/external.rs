//! Elements of tensors that lie in files beside the model.

use super::proto::StringStringEntryProto;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Reads exactly `bytes` bytes as `entries` describe them (`location`, `offset`, `length`; a `checksum` is not checked).
///
/// The file must be a regular file inside `base_dir`, links followed.
pub fn read(entries: &[StringStringEntryProto], base_dir: Option<&Path>, bytes: usize) -> Result<Vec<u8>> {
    let mut location = None;
    let mut offset = 0;
    let mut length = None;
    for entry in entries {
        let value = entry.value.as_deref().unwrap_or_default();
        match entry.key.as_deref().unwrap_or_default() {
            "location" => location = Some(value),
            "offset" => offset = number("offset", value)?,
            "length" => length = Some(number("length", value)?),
            "checksum" => {}
            other => {
                return Err(Error::unsupported("external_data_key", format!("key '{other}' of external data")));
            }
        }
    }
    let location =
        location.ok_or_else(|| Error::invalid("external_data_location", "external data without a location"))?;
    let base_dir = base_dir.ok_or_else(|| {
        Error::invalid("external_data_base", format!("external data '{location}' of a model without a folder"))
            .help("read the model from its file")
    })?;
    let path = locate(location, base_dir)?;
    let shown = path.display();
    let metadata = path.metadata().map_err(|e| Error::io(shown.to_string(), &e))?;
    if !metadata.is_file() {
        return Err(Error::invalid("external_data_file", format!("'{location}' is not a regular file")));
    }
    let bytes = bytes as u64;
    if length.is_some_and(|l| l != bytes) {
        return Err(Error::invalid(
            "external_data_length",
            format!("the shape needs {bytes} bytes, the model says {}", length.unwrap_or_default()),
        ));
    }
    if offset.checked_add(bytes).is_none_or(|end| end > metadata.len()) {
        return Err(Error::invalid(
            "external_data_range",
            format!("{bytes} bytes at offset {offset} leave '{location}', which has {} bytes", metadata.len()),
        ));
    }
    let mut out = vec![0; bytes as usize];
    File::open(&path)
        .and_then(|mut file| file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut out)))
        .map_err(|e| Error::io(shown.to_string(), &e))?;
    Ok(out)
}

fn number(key: &str, value: &str) -> Result<u64> {
    value.parse().map_err(|_| {
        Error::invalid("external_data_number", format!("'{value}' is not a number of bytes for '{key}' of external data"))
    })
}

/// The path of `location`, refused where it leaves `base_dir`.
fn locate(location: &str, base_dir: &Path) -> Result<PathBuf> {
    let outside = || {
        Error::invalid("external_data_path", format!("external data '{location}' lies outside the folder of the model"))
            .help("put the data beside the model and name it relative to the model")
    };
    let relative = Path::new(location);
    if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let base_dir = if base_dir.as_os_str().is_empty() { Path::new(".") } else { base_dir };
    let base = base_dir.canonicalize().map_err(|e| Error::io(base_dir.display(), &e))?;
    let joined = base.join(relative);
    let path = joined.canonicalize().map_err(|e| Error::io(joined.display(), &e))?;
    if path.starts_with(&base) { Ok(path) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        let entry = |&(k, v): &(&str, &str)| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
        pairs.iter().map(entry).collect()
    }

    #[test]
    fn the_named_range_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("w.bin"), [1, 2, 3, 4, 5]).unwrap();
        let ok = entries(&[("location", "w.bin"), ("offset", "1"), ("length", "3")]);
        assert_eq!(read(&ok, Some(dir.path()), 3).unwrap(), [2, 3, 4]);
    }

    #[test]
    fn paths_and_ranges_that_leave_their_bounds_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("model");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(dir.path().join("secret"), [0; 8]).unwrap();
        std::fs::write(inner.join("w.bin"), [0; 8]).unwrap();
        let code = |pairs: &[(&str, &str)]| read(&entries(pairs), Some(&inner), 8).unwrap_err().code();
        assert_eq!(code(&[("location", "../secret")]), "external_data_path");
        assert_eq!(code(&[("location", "/etc/passwd")]), "external_data_path");
        assert_eq!(code(&[("location", "w.bin"), ("offset", "1")]), "external_data_range");
        assert_eq!(code(&[("location", "w.bin"), ("offset", "18446744073709551615")]), "external_data_range");
        assert_eq!(code(&[("location", "w.bin"), ("length", "9")]), "external_data_length");
        assert_eq!(code(&[("location", "w.bin"), ("offset", "-1")]), "external_data_number");
        assert_eq!(code(&[("location", ".")]), "external_data_file");
        assert_eq!(code(&[("location", "missing")]), "io");
        assert_eq!(code(&[]), "external_data_location");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("secret"), inner.join("link")).unwrap();
            assert_eq!(code(&[("location", "link")]), "external_data_path");
        }
    }
}
