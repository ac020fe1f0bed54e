//! Whole files as bytes.

use memmap2::{MmapMut, MmapOptions};
use std::fmt;
use std::fs::File;
use std::io::{Read, Result};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// Bytes from which on a file is mapped instead of read.
const MAPPED: u64 = 1 << 18;

/// Bytes of a large page on most systems.
const LARGE_PAGE: usize = 1 << 21;

/// What a file holds.
pub enum Contents {
    /// Pages of the system's cache.
    Mapped(memmap2::Mmap),
    /// A copy.
    Read(Vec<u8>),
    /// A copy of so many bytes in pages of its own.
    Copied(MmapMut, usize),
}

impl Contents {
    /// The bytes of a regular file. A large one is mapped, where the system can; it must not be cut short while the value
    /// lives.
    ///
    /// # Errors
    /// Those of opening and reading.
    pub fn of(path: &Path) -> Result<Contents> {
        let file = File::open(path)?;
        if file.metadata()?.len() >= MAPPED {
            // SAFETY: the mapping is private and only read. Bytes that another process writes meanwhile show like those of a
            // read that it races with; that nobody cuts the file short is asked of the caller.
            if let Ok(mapped) = unsafe { MmapOptions::new().populate().map_copy_read_only(&file) } {
                return Ok(Contents::Mapped(mapped));
            }
        }
        read(file).map(Contents::Read)
    }

    /// A copy of the bytes of a file, which may change from then on. It lies in large pages where the system has them:
    /// touching a page for the first time costs more than reading it.
    ///
    /// # Errors
    /// Those of opening and reading, and `UnexpectedEof` where the file becomes shorter meanwhile.
    pub fn copy_of(path: &Path) -> Result<Contents> {
        let mut file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length < LARGE_PAGE {
            return read(file).map(Contents::Read);
        }
        // Of whole large pages, because only then does Linux place it where such pages begin.
        let mut memory = MmapMut::map_anon(length.checked_next_multiple_of(LARGE_PAGE).unwrap_or(length))?;
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        file.read_exact(&mut memory[..length])?;
        Ok(Contents::Copied(memory, length))
    }
}

fn read(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A part of a file that is in memory.
#[derive(Debug, Clone)]
pub struct Part {
    file: Arc<Contents>,
    range: Range<usize>,
}

impl Part {
    /// `bytes`, which must lie in the file; `None` where they do not.
    pub fn of(file: &Arc<Contents>, bytes: &[u8]) -> Option<Part> {
        let whole = (**file).as_ref();
        let start = bytes.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        let range = start..start.checked_add(bytes.len())?;
        (range.end <= whole.len()).then(|| Part { file: file.clone(), range })
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.file).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of a file", self.as_ref().len())
    }
}

impl From<Vec<u8>> for Contents {
    fn from(bytes: Vec<u8>) -> Contents {
        Contents::Read(bytes)
    }
}

impl AsRef<[u8]> for Contents {
    fn as_ref(&self) -> &[u8] {
        match self {
            Contents::Mapped(bytes) => bytes,
            Contents::Read(bytes) => bytes,
            Contents::Copied(memory, length) => &memory[..*length],
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

    #[test]
    fn parts_are_of_the_file_that_they_lie_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..5_000_003u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(Contents::copy_of(&path).unwrap());
        assert!(matches!(*file, Contents::Copied(..)) && (*file).as_ref() == bytes);
        assert_eq!(&*Part::of(&file, &(*file).as_ref()[7..20]).unwrap(), &bytes[7..20]);
        assert!(Part::of(&file, &bytes[7..20]).is_none());
        // What the file becomes later changes nothing.
        std::fs::write(&path, b"short").unwrap();
        assert!((*file).as_ref() == bytes);
        assert_eq!(Contents::copy_of(&path).unwrap().as_ref(), b"short");
        assert!(Contents::copy_of(&dir.path().join("missing")).is_err());
    }
}
