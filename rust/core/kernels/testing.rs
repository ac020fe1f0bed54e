//! Test support: reproducible numbers, and every engine that a kernel must give the same bits on.

use super::code::Code;
use super::isa::{Engine, Isa, Simd};
use super::team::Team;

/// A small generator of reproducible numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Codes of the whole range of `T`, a quarter of them its extremes.
    pub fn codes<T: Code>(&mut self, len: usize) -> Vec<T> {
        (0..len)
            .map(|_| match self.next() % 8 {
                0 => T::wrap(T::MIN),
                1 => T::wrap(T::MAX),
                _ => T::wrap(self.next() as i64),
            })
            .collect()
    }

    /// Integers in `lo..=hi`.
    pub fn ints(&mut self, len: usize, lo: i32, hi: i32) -> Vec<i32> {
        let span = (i64::from(hi) - i64::from(lo) + 1) as u64;
        (0..len).map(|_| (i64::from(lo) + (self.next() % span) as i64) as i32).collect()
    }

    /// Floats in -1..1.
    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() % (1 << 24)) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// Calls `body` with engines of every instruction set of this machine, on 1, 2 and 7 threads.
pub fn on_every_engine(mut body: impl FnMut(Engine<'_>)) {
    for threads in [1, 2, 7] {
        let team = Team::new(threads);
        for isa in Isa::available() {
            body(Engine::of_team(&team).with(Simd::new(isa).unwrap()));
        }
    }
}
