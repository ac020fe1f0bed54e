//! Registers, constants and views of them.

use super::{Class, Source};
use std::cell::Cell;

/// Elements per tile.
pub const LANES: usize = 256;

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// Registers, which each thread keeps for all programs and calls.
#[derive(Default)]
pub(super) struct Scratch {
    i32: Vec<Vec<i32>>,
    i64: Vec<Vec<i64>>,
    i128: Vec<Vec<i128>>,
    f32: Vec<Vec<f32>>,
    f64: Vec<Vec<f64>>,
}

impl Scratch {
    /// Does `body` with at least `registers` of each class.
    pub(super) fn with<T>(registers: [usize; 5], body: impl FnOnce(&mut Scratch) -> T) -> T {
        let mut scratch = SCRATCH.take();
        scratch.reserve(registers);
        let out = body(&mut scratch);
        SCRATCH.set(scratch);
        out
    }

    fn reserve(&mut self, registers: [usize; 5]) {
        fn grow<T: Clone + Default>(pool: &mut Vec<Vec<T>>, count: usize) {
            if pool.len() < count {
                pool.resize(count, vec![T::default(); LANES]);
            }
        }
        grow(&mut self.i32, registers[Class::I32 as usize]);
        grow(&mut self.i64, registers[Class::I64 as usize]);
        grow(&mut self.i128, registers[Class::I128 as usize]);
        grow(&mut self.f32, registers[Class::F32 as usize]);
        grow(&mut self.f64, registers[Class::F64 as usize]);
    }
}

/// Constants: one element, or one per channel and, beyond those, the first [`LANES`] again, so that every tile finds
/// its lanes in one slice.
#[derive(Debug, Clone, Default)]
pub(super) struct Consts {
    pub i32: Vec<Vec<i32>>,
    pub i64: Vec<Vec<i64>>,
    pub i128: Vec<Vec<i128>>,
    pub f32: Vec<Vec<f32>>,
    pub f64: Vec<Vec<f64>>,
}

/// A type of lane.
pub(super) trait Lane: Copy + Default + PartialOrd + 'static {
    const CLASS: Class;
    /// Whether vector instructions exist for it.
    const VECTORS: bool;
    fn registers(scratch: &Scratch) -> &[Vec<Self>];
    fn registers_mut(scratch: &mut Scratch) -> &mut [Vec<Self>];
    fn constants(consts: &Consts) -> &[Vec<Self>];
    fn constants_mut(consts: &mut Consts) -> &mut Vec<Vec<Self>>;
}

macro_rules! lane {
    ($type:ident, $class:ident) => {
        impl Lane for $type {
            const CLASS: Class = Class::$class;
            const VECTORS: bool = size_of::<$type>() <= 8;
            fn registers(scratch: &Scratch) -> &[Vec<Self>] {
                &scratch.$type
            }
            fn registers_mut(scratch: &mut Scratch) -> &mut [Vec<Self>] {
                &mut scratch.$type
            }
            fn constants(consts: &Consts) -> &[Vec<Self>] {
                &consts.$type
            }
            fn constants_mut(consts: &mut Consts) -> &mut Vec<Vec<Self>> {
                &mut consts.$type
            }
        }
    };
}

lane!(i32, I32);
lane!(i64, I64);
lane!(i128, I128);
lane!(f32, F32);
lane!(f64, F64);

impl Consts {
    /// Adds a constant (one element, or one per channel), or finds it.
    pub fn add<T: Lane>(&mut self, values: Vec<T>) -> Source {
        let mut values = values;
        let channels = values.len();
        if channels > 1 {
            values.extend_from_within(..channels.min(LANES));
            while values.len() < channels + LANES {
                values.push(values[values.len() - channels]);
            }
        }
        self.store(values)
    }

    /// Adds a table as it is.
    pub fn store<T: Lane>(&mut self, values: Vec<T>) -> Source {
        let pool = T::constants_mut(self);
        pool.push(values);
        Source::Constant(T::CLASS, (pool.len() - 1) as u16)
    }
}

/// Operand of a pass.
#[derive(Clone, Copy)]
pub(super) enum View<'a, T> {
    Scalar(T),
    Lanes(&'a [T]),
}

impl<T: Copy> View<'_, T> {
    pub fn copy_to(&self, out: &mut [T]) {
        match self {
            View::Scalar(v) => out.fill(*v),
            View::Lanes(lanes) => out.copy_from_slice(&lanes[..out.len()]),
        }
    }

    pub fn map_to<U: Copy>(&self, out: &mut [U], f: impl Fn(T) -> U) {
        match self {
            View::Scalar(v) => out.fill(f(*v)),
            View::Lanes(lanes) => out.iter_mut().zip(*lanes).for_each(|(out, v)| *out = f(*v)),
        }
    }

    /// The element of a lane.
    pub fn at(&self, lane: usize) -> T {
        match self {
            View::Scalar(v) => *v,
            View::Lanes(lanes) => lanes[lane],
        }
    }
}
