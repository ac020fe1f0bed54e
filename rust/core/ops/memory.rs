//! Memory that kernels use again: the values of a run take the place of those that nothing reads any more.

use crate::tensor::Data;
use half::{bf16, f16};
use std::sync::{Mutex, PoisonError};

/// Vectors of one element type.
#[derive(Default)]
pub struct Shelf<T> {
    free: Vec<Vec<T>>,
    /// Vectors that were taken in this run and have not come back, and the most that there were in any run.
    lent: usize,
    most_lent: usize,
}

/// Free vectors of one run after another.
#[derive(Default)]
pub struct Memory {
    shelves: Mutex<Shelves>,
}

/// An element type that [`Memory`] keeps vectors of.
pub trait Kept: Copy + Default + sealed::Shelved {}

mod sealed {
    /// Where vectors of a type lie.
    pub trait Shelved: Sized {
        fn shelf(shelves: &mut super::Shelves) -> &mut super::Shelf<Self>;
    }
}

macro_rules! kept {
    ($($t:ident $variant:ident),+) => {
        /// Vectors by element type.
        #[derive(Default)]
        pub struct Shelves {
            /// Bytes of those that are free.
            bytes: usize,
            $($t: Shelf<$t>,)+
        }

        $(
            impl Kept for $t {}
            impl sealed::Shelved for $t {
                fn shelf(shelves: &mut Shelves) -> &mut Shelf<$t> {
                    &mut shelves.$t
                }
            }
        )+

        impl Memory {
            /// Ends a run: what has not come back has left for good.
            pub fn settle(&self) {
                let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
                $(shelves.$t.lent = 0;)+
            }

            /// Takes back the elements of a tensor that nothing reads any more.
            pub fn give(&self, data: Data) {
                match data {
                    $(Data::$variant(v) => self.put(v),)+
                }
            }
        }
    };
}
kept!(
    f64 F64, f32 F32, f16 F16, bf16 BF16, i64 I64, i32 I32, i16 I16, i8 I8, u64 U64, u32 U32, u16 U16, u8 U8, bool Bool
);

/// Bytes of free vectors that are kept.
const MOST_BYTES: usize = 1 << 30;

impl Memory {
    /// A vector of `len` elements of any value: the smallest free one that is large enough, or a new one.
    pub fn take<T: Kept>(&self, len: usize) -> Vec<T> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = T::shelf(&mut shelves);
        shelf.lent += 1;
        shelf.most_lent = shelf.most_lent.max(shelf.lent);
        let fits = |v: &Vec<T>| v.capacity() >= len && v.capacity() / 4 <= len;
        let best = (0..shelf.free.len()).filter(|&i| fits(&shelf.free[i])).min_by_key(|&i| shelf.free[i].capacity());
        let Some(best) = best else {
            drop(shelves);
            return vec![T::default(); len];
        };
        let mut out = shelf.free.remove(best);
        shelves.bytes -= out.capacity() * size_of::<T>();
        drop(shelves);
        out.resize(len, T::default());
        out
    }

    /// Takes a vector back, also one that was not taken here. As many are kept as were ever lent at one time in a run; the oldest
    /// goes.
    fn put<T: Kept>(&self, v: Vec<T>) {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |v: &Vec<T>| v.capacity() * size_of::<T>();
        let left = MOST_BYTES.saturating_sub(shelves.bytes);
        let shelf = T::shelf(&mut shelves);
        shelf.lent = shelf.lent.saturating_sub(1);
        if bytes(&v) == 0 || bytes(&v) > left {
            return;
        }
        let kept = bytes(&v);
        shelf.free.push(v);
        let too_many = shelf.free.len() + shelf.lent > shelf.most_lent;
        let oldest = too_many.then(|| shelf.free.remove(0));
        shelves.bytes = shelves.bytes + kept - oldest.as_ref().map_or(0, bytes);
        drop(shelves);
        drop(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again() {
        let memory = Memory::default();
        let (first, second) = (memory.take::<u8>(1000), memory.take::<u8>(1 << 16));
        let place = first.as_ptr();
        memory.give(Data::U8(first));
        memory.give(Data::U8(second));
        let again = memory.take::<u8>(900);
        assert_eq!((again.as_ptr(), again.len()), (place, 900));
        // Far too large a vector is left for those that need it.
        assert_ne!(memory.take::<u8>(950).capacity(), 1 << 16);
        assert_eq!(memory.take::<u8>(1 << 16).len(), 1 << 16);
    }

    #[test]
    fn no_more_are_kept_than_were_lent_at_one_time() {
        let memory = Memory::default();
        let free = || memory.shelves.lock().unwrap().i32.free.iter().map(Vec::capacity).collect::<Vec<_>>();
        memory.give(Data::I32(vec![1; 10]));
        assert_eq!(free(), [0; 0]);
        let lent = [memory.take::<i32>(100), memory.take::<i32>(200)];
        for size in 1..50 {
            memory.give(Data::I32(vec![1; size]));
        }
        assert_eq!(free(), [48, 49]);
        lent.into_iter().for_each(|v| memory.give(Data::I32(v)));
        assert_eq!((free(), memory.shelves.lock().unwrap().bytes), (vec![100, 200], 1200));
        for _ in 0..10 {
            let (output, value) = (memory.take::<i32>(100), memory.take::<i32>(200));
            memory.give(Data::I32(value));
            drop(output);
            memory.settle();
        }
        assert_eq!((free(), memory.shelves.lock().unwrap().i32.most_lent), (vec![200], 2));
    }
}
