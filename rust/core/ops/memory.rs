//! Memory that kernels use again: the values of a run take the place of those that nothing reads any more.

use crate::tensor::Data;
use std::sync::{Mutex, PoisonError};

/// Vectors that are free, by element type.
#[derive(Default)]
pub struct Shelves {
    /// Bytes of all of them.
    bytes: usize,
    u8: Vec<Vec<u8>>,
    i8: Vec<Vec<i8>>,
    u16: Vec<Vec<u16>>,
    i16: Vec<Vec<i16>>,
    i32: Vec<Vec<i32>>,
    f32: Vec<Vec<f32>>,
}

/// Free vectors of one run after another.
#[derive(Default)]
pub struct Memory {
    shelves: Mutex<Shelves>,
}

/// An element type that [`Memory`] keeps vectors of.
pub trait Kept: Copy + Default + sealed::Shelf {}

mod sealed {
    /// Where vectors of a type lie.
    pub trait Shelf: Sized {
        fn of(shelves: &mut super::Shelves) -> &mut Vec<Vec<Self>>;
    }
}

macro_rules! kept {
    ($($t:ident)+) => {$(
        impl Kept for $t {}
        impl sealed::Shelf for $t {
            fn of(shelves: &mut Shelves) -> &mut Vec<Vec<$t>> {
                &mut shelves.$t
            }
        }
    )+};
}
kept!(u8 i8 u16 i16 i32 f32);

/// Free vectors per element type that are kept.
const MOST: usize = 64;
/// Bytes of free vectors that are kept.
const MOST_BYTES: usize = 1 << 30;

impl Memory {
    /// A vector of `len` elements of any value: the smallest free one that is large enough, or a new one.
    pub fn take<T: Kept>(&self, len: usize) -> Vec<T> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = T::of(&mut shelves);
        let fits = |v: &Vec<T>| v.capacity() >= len && v.capacity() / 4 <= len;
        let best = (0..shelf.len()).filter(|&i| fits(&shelf[i])).min_by_key(|&i| shelf[i].capacity());
        let Some(best) = best else {
            drop(shelves);
            return vec![T::default(); len];
        };
        let mut out = shelf.swap_remove(best);
        shelves.bytes -= out.capacity() * size_of::<T>();
        drop(shelves);
        out.resize(len, T::default());
        out
    }

    /// Takes back the elements of a tensor that nothing reads any more.
    pub fn give(&self, data: Data) {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        fn put<T: Kept>(shelves: &mut Shelves, v: Vec<T>) {
            let bytes = v.capacity() * size_of::<T>();
            if bytes > 0 && shelves.bytes + bytes <= MOST_BYTES && T::of(shelves).len() < MOST {
                shelves.bytes += bytes;
                T::of(shelves).push(v);
            }
        }
        match data {
            Data::U8(v) => put(&mut shelves, v),
            Data::I8(v) => put(&mut shelves, v),
            Data::U16(v) => put(&mut shelves, v),
            Data::I16(v) => put(&mut shelves, v),
            Data::I32(v) => put(&mut shelves, v),
            Data::F32(v) => put(&mut shelves, v),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again() {
        let memory = Memory::default();
        let first = memory.take::<u8>(1000);
        let place = first.as_ptr();
        memory.give(Data::U8(first));
        memory.give(Data::U8(vec![7; 1 << 16]));
        let again = memory.take::<u8>(900);
        assert_eq!((again.as_ptr(), again.len()), (place, 900));
        assert_eq!(memory.take::<u8>(950).len(), 950);
        // Far too large a vector is left for those that need it.
        assert_eq!(memory.take::<u8>(1 << 16).len(), 1 << 16);
    }
}
