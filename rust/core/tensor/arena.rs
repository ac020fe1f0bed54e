//! One piece of memory for the values of a run.

use super::elements::Plain;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Alignment of an arena and of the places that planning gives out: a line of the cache, and the widest vector.
pub const LINE: usize = 64;

/// The bytes of elements that are to be written, in debug builds: those that nobody writes shall not pass for zeros.
pub(super) const UNWRITTEN: u8 = 0xa5;

/// Bytes that are lent out in pieces, which never overlap. All of them have a value from the beginning.
pub struct Arena {
    /// Where the allocation begins, and, not more than a line behind it, the arena. An allocator that is asked for lines writes
    /// the zeros itself, which new memory of the system has.
    block: NonNull<u8>,
    start: NonNull<u8>,
    bytes: usize,
    /// What pieces cover at the moment; a run has few values at one time.
    live: Mutex<Vec<Range<usize>>>,
}

// SAFETY: the memory belongs to the arena, and is reached through pieces that do not overlap only.
unsafe impl Send for Arena {}
// SAFETY: as above; `live` is behind a lock.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena of as many bytes, all 0.
    pub fn new(bytes: usize) -> Arc<Arena> {
        let layout = Self::layout(bytes);
        // SAFETY: the layout has a size.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: the block is a line longer than the arena.
        let start = unsafe { block.add(block.align_offset(LINE).min(LINE)) };
        Arc::new(Arena { block, start, bytes, live: Mutex::default() })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn layout(bytes: usize) -> Layout {
        Layout::array::<u8>(bytes.saturating_add(LINE)).expect("no larger than the values of a run")
    }

    fn live(&self) -> MutexGuard<'_, Vec<Range<usize>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `len` elements from byte `at` on, of any value; `None` where that is no place for them or meets a piece that is in use.
    pub(super) fn piece<T: Plain>(self: &Arc<Self>, at: usize, len: usize) -> Option<Piece<T>> {
        let end = len.checked_mul(size_of::<T>())?.checked_add(at)?;
        if !T::ANY_BITS || len == 0 || end > self.bytes {
            return None;
        }
        if !(self.start.addr().get() + at).is_multiple_of(align_of::<T>()) {
            return None;
        }
        let mut live = self.live();
        if live.iter().any(|other| at < other.end && other.start < end) {
            return None;
        }
        live.push(at..end);
        // SAFETY: `at` lies within the arena.
        let start = unsafe { self.start.add(at) };
        if cfg!(debug_assertions) {
            // SAFETY: the place lies within the arena, and is nobody else's.
            unsafe { start.write_bytes(UNWRITTEN, end - at) }
        }
        Some(Piece { arena: self.clone(), at, start: start.cast(), len, elements: PhantomData })
    }

    /// Bytes that pieces cover.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> usize {
        self.live().iter().map(Range::len).sum()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and pieces keep the arena alive.
        unsafe { dealloc(self.block.as_ptr(), Self::layout(self.bytes)) }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Elements in an arena, which are nobody else's until the piece is dropped.
pub(super) struct Piece<T> {
    arena: Arc<Arena>,
    at: usize,
    start: NonNull<T>,
    len: usize,
    elements: PhantomData<T>,
}

// SAFETY: a piece owns its elements as a vector does.
unsafe impl<T: Send> Send for Piece<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Piece<T> {}

impl<T> Deref for Piece<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `Arena::piece` found the place free, aligned and within the arena, whose bytes all have a value; any bits are
        // an element; nobody else writes there while the piece lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Piece<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and the piece is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Piece<T> {
    fn drop(&mut self) {
        let mut live = self.arena.live();
        if let Some(i) = live.iter().position(|range| range.start == self.at) {
            live.swap_remove(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_never_overlap() {
        let arena = Arena::new(256);
        let mut first = arena.piece::<u8>(0, 100).unwrap();
        first.fill(7);
        assert!(arena.piece::<u8>(99, 1).is_none());
        let mut second = arena.piece::<i32>(100, 39).unwrap();
        second.fill(-1);
        assert!(first.iter().all(|&b| b == 7));
        assert_eq!(arena.lent(), 100 + 4 * 39);
        drop(first);
        // What was there before is still there in a release: nobody pays for zeros.
        let found = if cfg!(debug_assertions) { UNWRITTEN } else { 7 };
        assert_eq!(&*arena.piece::<u8>(64, 36).unwrap(), [found; 36]);
        assert!(arena.piece::<u8>(64, 37).is_none());
        assert!(second.iter().all(|&v| v == -1));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let arena = Arena::new(128);
        assert!(arena.piece::<u8>(0, 129).is_none());
        assert!(arena.piece::<u8>(128, 1).is_none());
        assert!(arena.piece::<i32>(2, 1).is_none());
        assert!(arena.piece::<i64>(8, usize::MAX / 4).is_none());
        assert!(arena.piece::<u8>(usize::MAX, 2).is_none());
        assert!(arena.piece::<bool>(0, 1).is_none());
        assert!(arena.piece::<u8>(0, 0).is_none());
        assert!(Arena::new(0).piece::<u8>(0, 1).is_none());
        assert_eq!(arena.piece::<u8>(0, 128).unwrap().len(), 128);
    }

    #[test]
    fn a_piece_outlives_the_hand_that_gave_it() {
        let arena = Arena::new(64);
        let mut piece = arena.piece::<u64>(0, 8).unwrap();
        drop(arena);
        piece.fill(3);
        std::thread::spawn(move || assert_eq!(piece.iter().sum::<u64>(), 24)).join().unwrap();
    }
}
