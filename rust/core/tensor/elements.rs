//! The elements of a tensor.

use super::arena::{Arena, Piece, UNWRITTEN};
use half::{bf16, f16};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A type that tensors hold.
pub trait Plain: Copy + Default + PartialEq + fmt::Debug + Send + Sync + 'static + sealed::Sealed {
    /// Whether any bits are a value.
    const ANY_BITS: bool;
}

mod sealed {
    /// Keeps the types to those below: memory of arenas is taken for values of theirs.
    pub trait Sealed {}
}

macro_rules! plain {
    ($any_bits:literal: $($t:ty),+) => {$(
        impl sealed::Sealed for $t {}
        impl Plain for $t {
            const ANY_BITS: bool = $any_bits;
        }
    )+};
}
plain!(true: f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8);
plain!(false: bool);

/// Elements one after another: a vector, or a piece of the memory of a run.
pub struct Elements<T>(Home<T>);

enum Home<T> {
    Vector(Vec<T>),
    Arena(Piece<T>),
}

impl<T: Plain> Elements<T> {
    /// `len` elements of any value, to be written, at byte `at` of the arena; a vector where the place is taken.
    pub fn at(arena: &Arc<Arena>, at: usize, len: usize) -> Self {
        arena.piece(at, len).map_or_else(|| Self::vector(len), |piece| Elements(Home::Arena(piece)))
    }

    /// A vector of `len` elements of any value, to be written.
    pub fn vector(len: usize) -> Self {
        let mut elements = vec![T::default(); len];
        if cfg!(debug_assertions) && T::ANY_BITS {
            // SAFETY: the vector has as many elements, and any bits are one.
            unsafe { elements.as_mut_ptr().write_bytes(UNWRITTEN, len) }
        }
        elements.into()
    }

    /// The elements as a vector; a copy where they lie in an arena.
    pub fn into_vec(self) -> Vec<T> {
        match self.0 {
            Home::Vector(v) => v,
            Home::Arena(piece) => piece.to_vec(),
        }
    }
}

impl<T> Deref for Elements<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Home::Vector(v) => v,
            Home::Arena(piece) => piece,
        }
    }
}

impl<T> DerefMut for Elements<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Home::Vector(v) => v,
            Home::Arena(piece) => piece,
        }
    }
}

impl<T> From<Vec<T>> for Elements<T> {
    fn from(v: Vec<T>) -> Self {
        Elements(Home::Vector(v))
    }
}

impl<T> FromIterator<T> for Elements<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        Vec::from_iter(iter).into()
    }
}

impl<T: Plain> IntoIterator for Elements<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Elements<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A copy is a vector.
impl<T: Clone> Clone for Elements<T> {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl<T: PartialEq> PartialEq for Elements<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: fmt::Debug> fmt::Debug for Elements<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
