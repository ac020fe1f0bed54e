//! Whole files as bytes.

use memmap2::MmapOptions;
use std::fs::File;
use std::io::{Read, Result};
use std::path::Path;

/// Bytes from which on a file is mapped instead of read.
const MAPPED: u64 = 1 << 18;

/// What a file holds.
pub enum Contents {
    /// Pages of the system's cache.
    Mapped(memmap2::Mmap),
    /// A copy.
    Read(Vec<u8>),
}

impl Contents {
    /// The bytes of a regular file. A large one is mapped, where the system can; it must not be cut short while the value
    /// lives.
    ///
    /// # Errors
    /// Those of opening and reading.
    pub fn of(path: &Path) -> Result<Contents> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length >= MAPPED {
            // SAFETY: the mapping is private and only read. Bytes that another process writes meanwhile show like those of a
            // read that it races with; that nobody cuts the file short is asked of the caller.
            if let Ok(mapped) = unsafe { MmapOptions::new().populate().map_copy_read_only(&file) } {
                return Ok(Contents::Mapped(mapped));
            }
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.read_to_end(&mut bytes)?;
        Ok(Contents::Read(bytes))
    }
}

impl AsRef<[u8]> for Contents {
    fn as_ref(&self) -> &[u8] {
        match self {
            Contents::Mapped(bytes) => bytes,
            Contents::Read(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_small_files_give_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 5, MAPPED as usize, MAPPED as usize + 1] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let path = dir.path().join(length.to_string());
            std::fs::write(&path, &bytes).unwrap();
            let contents = Contents::of(&path).unwrap();
            assert!(contents.as_ref() == bytes, "{length}");
            assert_eq!(matches!(contents, Contents::Mapped(_)), length >= MAPPED as usize);
        }
        assert!(Contents::of(&dir.path().join("missing")).is_err());
    }
}
