//! Whole files as bytes.

use memmap2::MmapOptions;
use std::fs::File;
use std::io::{Read, Result};
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

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
}

/// The bytes of a file, in large pages where the system has them: touching a page for the first time costs more than reading it.
///
/// # Errors
/// Those of opening and reading.
pub fn read_whole(path: &Path) -> Result<Vec<u8>> {
    read(File::open(path)?)
}

fn read(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX))?;
    large_pages(bytes.spare_capacity_mut());
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Asks for large pages where memory is long enough for them; who has pages of another size refuses.
fn large_pages(memory: &mut [MaybeUninit<u8>]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 1 << 12;
        let (start, length) = (memory.as_mut_ptr().addr(), memory.len());
        let inside = start.next_multiple_of(PAGE) - start;
        if length > (1 << 22) {
            let from = memory.as_mut_ptr().wrapping_add(inside).cast();
            let length = (length - inside) / PAGE * PAGE;
            // SAFETY: whole pages of memory that is borrowed; the advice changes no contents. Where it is not taken, nothing is lost.
            let _ = unsafe { rustix::mm::madvise(from, length, rustix::mm::Advice::LinuxHugepage) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// A part of a file that is in memory.
#[derive(Debug, Clone)]
pub struct Part {
    file: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Part {
    /// `bytes`, which must lie in the file; `None` where they do not.
    pub fn of(file: &Arc<Vec<u8>>, bytes: &[u8]) -> Option<Part> {
        let start = bytes.as_ptr().addr().checked_sub(file.as_ptr().addr())?;
        let range = start..start.checked_add(bytes.len())?;
        (range.end <= file.len()).then(|| Part { file: file.clone(), range })
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file[self.range.clone()]
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

    #[test]
    fn parts_are_of_the_file_that_they_lie_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..5_000_003u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(read_whole(&path).unwrap());
        assert!(*file == bytes);
        assert_eq!(&*Part::of(&file, &file[7..20]).unwrap(), &bytes[7..20]);
        assert!(Part::of(&file, &bytes[7..20]).is_none());
        assert!(read_whole(&dir.path().join("missing")).is_err());
    }
}
