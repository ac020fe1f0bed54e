//! Files: written completely or not at all, and named so that no tensor's name leaves its folder.

use nputwin::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest file name that is made of a tensor's name.
const MAX_NAME: usize = 180;

/// Writes a file under a temporary name beside it and renames it: readers see the old file or the whole new one.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut BufWriter<std::fs::File>) -> Result<()>) -> Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let io = |e: std::io::Error| Error::io(path.display(), &e);
    let name = path
        .file_name()
        .ok_or_else(|| Error::invalid("output_name", format!("'{}' names no file", path.display())))?
        .to_string_lossy();
    let unique = format!(".{name:.80}.{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let temporary = path.with_file_name(unique);
    let attempt = || -> Result<()> {
        let mut writer = BufWriter::new(std::fs::File::create(&temporary).map_err(io)?);
        write(&mut writer)?;
        writer.into_inner().map_err(|e| io(e.into_error()))?.sync_data().map_err(io)?;
        std::fs::rename(&temporary, path).map_err(io)
    };
    attempt().inspect_err(|_| {
        // The file may never have come into being.
        let _ = std::fs::remove_file(&temporary);
    })
}

/// As [`write_atomic`] for bytes at hand.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |w| w.write_all(bytes).map_err(|e| Error::io(path.display(), &e)))
}

/// Creates a folder and its parents.
pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| Error::io(path.display(), &e))
}

/// Hexadecimal SHA-256 of a file.
pub fn sha256(path: &Path) -> Result<String> {
    let io = |e: std::io::Error| Error::io(path.display(), &e);
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(io)?);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        match reader.read(&mut buffer).map_err(io)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// Hexadecimal SHA-256 of bytes at hand.
pub fn sha256_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A tensor's name as a file name: every byte outside `[A-Za-z0-9._-]` becomes `_`, and so does a leading dot.
pub fn file_stem(name: &str) -> String {
    let mut stem: String =
        name.bytes().map(|b| if b.is_ascii_alphanumeric() || b"._-".contains(&b) { b as char } else { '_' }).collect();
    stem.truncate(MAX_NAME);
    if stem.is_empty() || stem.starts_with('.') {
        stem.replace_range(..stem.len().min(1), "_");
    }
    stem
}

/// File names for tensors, each of them once.
#[derive(Debug, Default)]
pub struct Stems(HashSet<String>);

impl Stems {
    /// The file name of a tensor; with a number where another tensor has the same.
    pub fn take(&mut self, name: &str) -> String {
        let stem = file_stem(name);
        // Compared in lower case: some file systems do not tell the two apart.
        let mut candidate = stem.clone();
        let mut number = 2;
        while !self.0.insert(candidate.to_ascii_lowercase()) {
            candidate = format!("{stem}_{number}");
            number += 1;
        }
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_folder() {
        for (name, stem) in [
            ("/conv1/Conv_output_0", "_conv1_Conv_output_0"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("..", "_."),
            (".", "_"),
            ("", "_"),
            ("ü:a", "___a"),
        ] {
            assert_eq!(file_stem(name), stem);
        }
        assert_eq!(file_stem(&"x".repeat(1000)).len(), MAX_NAME);
    }

    #[test]
    fn two_tensors_never_share_a_file() {
        let mut stems = Stems::default();
        assert_eq!([stems.take("a/b"), stems.take("a:b"), stems.take("A_b")], ["a_b", "a_b_2", "A_b_3"]);
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.bin");
        write_bytes(&path, b"old").unwrap();
        let failed = write_atomic(&path, |_| Err(Error::invalid("x", "stop")));
        assert_eq!(failed.unwrap_err().code(), "x");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
