//! The passes. Each is a plain loop over slices that the compiler vectorises for the machine at hand.

use super::super::eval;
use super::super::graph::{Cell, Comparison, Math};
use super::super::types::{Datum, Type, Value};
use super::lanes::{LANES, Lane, Scratch, View};
use super::loops::{self, Level};
use super::{Action, AnyView, Argument, Channels, Class, Instruction, Lanes, Reference, Shift, Source, TileProgram};
use crate::num::float::{HalfGrid, fma_half, nearest_f16};
use crate::num::{Rounding, div_round, shr_round};

pub(super) struct Tile<'a, 'r> {
    pub program: &'a TileProgram,
    pub inputs: &'a [Lanes<'a>],
    pub channels: Channels,
    /// Index of the tile's first element.
    pub first: usize,
    /// Elements in the tile, at most [`LANES`].
    pub length: usize,
    pub scratch: &'r mut Scratch,
    pub level: Level,
}

/// Integer lanes.
trait Int: Lane {
    const BITS: u32;
    const ZERO: Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn shl(self, n: Self) -> Self;
    fn sar(self, n: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn bit(flag: bool) -> Self;
    fn divide(self, d: Self, mode: Rounding) -> Self;
}

macro_rules! int {
    ($type:ident) => {
        impl Int for $type {
            const BITS: u32 = $type::BITS;
            const ZERO: Self = 0;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn shl(self, n: Self) -> Self {
                self.wrapping_shl(n as u32)
            }
            #[inline(always)]
            fn sar(self, n: Self) -> Self {
                self.wrapping_shr(n as u32)
            }
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline(always)]
            fn bit(flag: bool) -> Self {
                flag as Self
            }
            #[inline(always)]
            fn divide(self, d: Self, mode: Rounding) -> Self {
                if d == 0 {
                    return 0;
                }
                let (quotient, remainder) = (self.wrapping_div(d), self.wrapping_rem(d));
                if remainder == 0 {
                    return quotient;
                }
                let negative = (self < 0) != (d < 0);
                let (rest, other) = (remainder.unsigned_abs(), d.unsigned_abs() - remainder.unsigned_abs());
                // `quotient` was cut toward zero; `away` says whether the other neighbour is the answer.
                let odd = quotient & 1 != 0;
                let away = match mode {
                    Rounding::Floor => negative,
                    Rounding::Ceil => !negative,
                    Rounding::Trunc => false,
                    Rounding::HalfUp => rest > other || (rest == other && !negative),
                    Rounding::HalfDown => rest > other || (rest == other && negative),
                    Rounding::HalfAway => rest >= other,
                    Rounding::HalfToZero => rest > other,
                    Rounding::HalfEven => rest > other || (rest == other && odd),
                    Rounding::HalfOdd => rest > other || (rest == other && !odd),
                };
                quotient + if away { if negative { -1 } else { 1 } } else { 0 }
            }
        }
    };
}

int!(i32);
int!(i64);
int!(i128);

/// `as`, in a form that has vectors: saturates, and NaN becomes 0. `$end` is the first power of two beyond the type.
macro_rules! saturate {
    ($from:ident, $to:ident, $end:literal) => {
        |v: $from| {
            const END: $from = $end;
            let bounded = v.max(-END).min(END.next_down());
            // SAFETY: `max` and `min` leave no NaN and nothing beyond the type.
            let int: $to = unsafe { bounded.to_int_unchecked() };
            if v.is_nan() {
                0
            } else if v >= END {
                $to::MAX
            } else {
                int
            }
        }
    };
}

/// The lanes of a view; a scalar is spread into `$spread` first.
macro_rules! lanes {
    ($view:expr, $spread:ident, $length:expr) => {
        match $view {
            View::Lanes(lanes) => lanes,
            View::Scalar(v) => {
                $spread = [v; LANES];
                &$spread[..$length]
            }
        }
    };
}

impl Tile<'_, '_> {
    pub fn execute(&mut self) {
        let program = self.program;
        for instruction in &program.instructions {
            self.step(instruction);
        }
    }

    /// Lanes that passes work on: the length of the tile, rounded up so that loops need no remainder.
    #[inline(always)]
    fn lanes(&self) -> usize {
        self.length.next_multiple_of(16).min(LANES)
    }

    #[inline(always)]
    fn operand<T: Lane>(&self, source: Source) -> View<'_, T> {
        match source {
            Source::Register(_, index) => View::Lanes(&T::registers(self.scratch)[index as usize][..self.lanes()]),
            Source::Constant(_, index) => {
                let values = &T::constants(&self.program.constants)[index as usize];
                if values.len() == 1 {
                    return View::Scalar(values[0]);
                }
                match self.channels {
                    Channels::Uniform(channel) => View::Scalar(values[channel]),
                    Channels::Cyclic { start } => {
                        let at = (start % self.program.channels + self.first) % self.program.channels;
                        View::Lanes(&values[at..at + self.lanes()])
                    }
                }
            }
            Source::None => View::Scalar(T::default()),
        }
    }

    pub fn view(&self, source: Source) -> AnyView<'_> {
        let class = match source {
            Source::Register(class, _) | Source::Constant(class, _) => class,
            Source::None => Class::I32,
        };
        match class {
            Class::I32 => AnyView::I32(self.operand(source)),
            Class::I64 => AnyView::I64(self.operand(source)),
            Class::I128 => AnyView::I128(self.operand(source)),
            Class::F32 => AnyView::F32(self.operand(source)),
            Class::F64 => AnyView::F64(self.operand(source)),
        }
    }

    #[inline(always)]
    fn take<R: Lane>(&mut self, i: &Instruction) -> Vec<R> {
        std::mem::take(&mut R::registers_mut(self.scratch)[i.destination as usize])
    }

    #[inline(always)]
    fn put<R: Lane>(&mut self, i: &Instruction, lanes: Vec<R>) {
        R::registers_mut(self.scratch)[i.destination as usize] = lanes;
    }

    fn map1<A: Lane, R: Lane>(&mut self, i: &Instruction, f: impl Fn(A) -> R) {
        let mut buffer = self.take::<R>(i);
        let out = &mut buffer[..self.lanes()];
        match self.operand::<A>(i.a) {
            View::Scalar(a) => out.fill(f(a)),
            View::Lanes(a) => loops::one(self.level, f, out, a),
        }
        self.put(i, buffer);
    }

    fn map2<A: Lane, B: Lane, R: Lane>(&mut self, i: &Instruction, f: impl Fn(A, B) -> R) {
        let mut buffer = self.take::<R>(i);
        let out = &mut buffer[..self.lanes()];
        let spread_a;
        let a = lanes!(self.operand::<A>(i.a), spread_a, out.len());
        match self.operand::<B>(i.b) {
            View::Scalar(b) => loops::two_scalar(self.level, f, out, a, b),
            View::Lanes(b) => loops::two(self.level, f, out, a, b),
        }
        self.put(i, buffer);
    }

    fn map3<A: Lane, B: Lane, C: Lane, R: Lane>(&mut self, i: &Instruction, f: impl Fn(A, B, C) -> R) {
        let mut buffer = self.take::<R>(i);
        let out = &mut buffer[..self.lanes()];
        let spread_a;
        let a = lanes!(self.operand::<A>(i.a), spread_a, out.len());
        match (self.operand::<B>(i.b), self.operand::<C>(i.c)) {
            (View::Scalar(b), View::Scalar(c)) => loops::three_scalar(self.level, f, out, a, b, c),
            (b, c) => {
                let (spread_b, spread_c);
                let (b, c) = (lanes!(b, spread_b, out.len()), lanes!(c, spread_c, out.len()));
                loops::three(self.level, f, out, a, b, c);
            }
        }
        self.put(i, buffer);
    }

    fn step(&mut self, i: &Instruction) {
        match &i.action {
            Action::Load(position) => self.load(i, *position),
            Action::Convert => self.convert(i),
            Action::Add => match i.class {
                Class::I32 => self.map2(i, <i32 as Int>::add),
                Class::I64 => self.map2(i, <i64 as Int>::add),
                Class::I128 => self.map2(i, <i128 as Int>::add),
                Class::F32 => self.map2(i, |a: f32, b: f32| a + b),
                Class::F64 => self.map2(i, |a: f64, b: f64| a + b),
            },
            Action::Sub => match i.class {
                Class::I32 => self.map2(i, <i32 as Int>::sub),
                Class::I64 => self.map2(i, <i64 as Int>::sub),
                Class::I128 => self.map2(i, <i128 as Int>::sub),
                Class::F32 => self.map2(i, |a: f32, b: f32| a - b),
                Class::F64 => self.map2(i, |a: f64, b: f64| a - b),
            },
            Action::Mul => match i.class {
                Class::I32 => self.map2(i, <i32 as Int>::mul),
                Class::I64 => self.map2(i, <i64 as Int>::mul),
                Class::I128 => self.map2(i, <i128 as Int>::mul),
                Class::F32 => self.map2(i, |a: f32, b: f32| a * b),
                Class::F64 => self.map2(i, |a: f64, b: f64| a * b),
            },
            Action::MulWide => self.map2(i, |a: i32, b: i32| i64::from(a) * i64::from(b)),
            Action::Div => match i.class {
                Class::F32 => self.map2(i, |a: f32, b: f32| a / b),
                _ => self.map2(i, |a: f64, b: f64| a / b),
            },
            Action::DivInt(mode) => {
                let mode = *mode;
                match i.class {
                    Class::I32 => self.map2(i, |a: i32, d: i32| a.divide(d, mode)),
                    Class::I64 => self.map2(i, |a: i64, d: i64| a.divide(d, mode)),
                    _ => self.map2(i, |a: i128, d: i128| if d == 0 { 0 } else { div_round(a, d, mode) }),
                }
            }
            Action::Neg => match i.class {
                Class::I32 => self.map1(i, i32::wrapping_neg),
                Class::I64 => self.map1(i, i64::wrapping_neg),
                Class::I128 => self.map1(i, i128::wrapping_neg),
                Class::F32 => self.map1(i, |a: f32| -a),
                Class::F64 => self.map1(i, |a: f64| -a),
            },
            Action::Abs => match i.class {
                Class::I32 => self.map1(i, i32::wrapping_abs),
                Class::I64 => self.map1(i, i64::wrapping_abs),
                Class::I128 => self.map1(i, i128::wrapping_abs),
                Class::F32 => self.map1(i, f32::abs),
                Class::F64 => self.map1(i, f64::abs),
            },
            Action::Min => match i.class {
                Class::I32 => self.map2(i, least::<i32>),
                Class::I64 => self.map2(i, least::<i64>),
                Class::I128 => self.map2(i, least::<i128>),
                Class::F32 => self.map2(i, least::<f32>),
                Class::F64 => self.map2(i, least::<f64>),
            },
            Action::Max => match i.class {
                Class::I32 => self.map2(i, greatest::<i32>),
                Class::I64 => self.map2(i, greatest::<i64>),
                Class::I128 => self.map2(i, greatest::<i128>),
                Class::F32 => self.map2(i, greatest::<f32>),
                Class::F64 => self.map2(i, greatest::<f64>),
            },
            Action::Clamp => match i.class {
                Class::I32 => self.map3(i, clamp::<i32>),
                Class::I64 => self.map3(i, clamp::<i64>),
                Class::I128 => self.map3(i, clamp::<i128>),
                Class::F32 => self.map3(i, clamp::<f32>),
                Class::F64 => self.map3(i, clamp::<f64>),
            },
            Action::Fma => match i.class {
                Class::F32 => self.map3(i, |a: f32, b: f32, c: f32| a.mul_add(b, c)),
                _ => self.map3(i, |a: f64, b: f64, c: f64| a.mul_add(b, c)),
            },
            Action::FmaHalf(format) => {
                let format = *format;
                self.map3(i, |a: f64, b: f64, c: f64| fma_half(a, b, c, format) as f32);
            }
            Action::RoundF16 => self.map1(i, nearest_f16),
            Action::RoundHalf(format) => {
                let grid = HalfGrid::new(*format);
                self.map1(i, |a: f64| grid.round(a) as f32);
            }
            Action::Not => self.map1(i, |a: i32| a ^ 1),
            Action::And => self.map2(i, |a: i32, b: i32| a & b),
            Action::Or => self.map2(i, |a: i32, b: i32| a | b),
            Action::Compare(how) => match class_of(i.a) {
                Class::I32 => self.compare::<i32>(i, *how),
                Class::I64 => self.compare::<i64>(i, *how),
                Class::I128 => self.compare::<i128>(i, *how),
                Class::F32 => self.compare::<f32>(i, *how),
                Class::F64 => self.compare::<f64>(i, *how),
            },
            Action::Select => match i.class {
                Class::I32 => self.map3(i, choose::<i32>),
                Class::I64 => self.map3(i, choose::<i64>),
                Class::I128 => self.map3(i, choose::<i128>),
                Class::F32 => self.map3(i, choose::<f32>),
                Class::F64 => self.map3(i, choose::<f64>),
            },
            Action::Shl => match i.class {
                Class::I32 => self.map2(i, <i32 as Int>::shl),
                Class::I64 => self.map2(i, <i64 as Int>::shl),
                _ => self.map2(i, <i128 as Int>::shl),
            },
            Action::Shr(shift) => self.shift(i, *shift),
            Action::Wrap { bits, signed } => match i.class {
                Class::I32 => self.wrap::<i32>(i, *bits, *signed),
                Class::I64 => self.wrap::<i64>(i, *bits, *signed),
                _ => self.wrap::<i128>(i, *bits, *signed),
            },
            Action::At(table) => match i.class {
                Class::I32 => self.at::<i32>(i, *table),
                Class::I64 => self.at::<i64>(i, *table),
                Class::I128 => self.at::<i128>(i, *table),
                Class::F32 => self.at::<f32>(i, *table),
                Class::F64 => self.at::<f64>(i, *table),
            },
            Action::Bucket(edges) => match class_of(i.a) {
                Class::I32 => self.bucket::<i32>(i, *edges),
                Class::I64 => self.bucket::<i64>(i, *edges),
                Class::I128 => self.bucket::<i128>(i, *edges),
                Class::F32 => self.bucket::<f32>(i, *edges),
                Class::F64 => self.bucket::<f64>(i, *edges),
            },
            Action::Clz(bits) => {
                let unused = 64 - *bits as i32;
                self.map1(i, |v: i64| v.leading_zeros() as i32 - unused);
            }
            Action::FloorLog2 => self.map1(i, |v: i64| 63 - v.leading_zeros() as i32),
            Action::Round(mode) => match i.class {
                Class::F32 => self.round_f32(i, *mode),
                _ => self.round_f64(i, *mode),
            },
            Action::Math(Math::Pow) => self.map2(i, |x: f64, y: f64| eval::math(Math::Pow, x, y)),
            Action::Math(function) => {
                let function = *function;
                self.map1(i, |x: f64| eval::math(function, x, 0.0));
            }
            Action::Reference(reference) => self.reference(i, reference),
        }
    }

    fn load(&mut self, i: &Instruction, position: usize) {
        match (i.class, self.inputs[position]) {
            (Class::I32, Lanes::I32(v)) => self.fill(i, v, |v| v),
            (Class::I32, Lanes::I64(v)) => self.fill(i, v, |v| v as i32),
            (Class::I64, Lanes::I32(v)) => self.fill(i, v, i64::from),
            (Class::I64, Lanes::I64(v)) => self.fill(i, v, |v| v),
            (Class::F32, Lanes::F32(v)) => self.fill(i, v, |v| v),
            (Class::F64, Lanes::F64(v)) => self.fill(i, v, |v| v),
            // The types of inputs are checked before the first tile.
            _ => {}
        }
    }

    fn fill<T: Copy, R: Lane>(&mut self, i: &Instruction, values: &[T], f: impl Fn(T) -> R) {
        let (first, length) = (self.first, self.length);
        let out = &mut R::registers_mut(self.scratch)[i.destination as usize];
        if let [value] = values {
            out.fill(f(*value));
        } else {
            out[..length].iter_mut().zip(&values[first..first + length]).for_each(|(out, v)| *out = f(*v));
        }
    }

    fn convert(&mut self, i: &Instruction) {
        match (class_of(i.a), i.class) {
            (Class::I32, Class::I64) => self.map1(i, |v: i32| i64::from(v)),
            (Class::I32, Class::I128) => self.map1(i, |v: i32| i128::from(v)),
            (Class::I64, Class::I128) => self.map1(i, |v: i64| i128::from(v)),
            (Class::I64, Class::I32) => self.map1(i, |v: i64| v as i32),
            (Class::I128, Class::I32) => self.map1(i, |v: i128| v as i32),
            (Class::I128, Class::I64) => self.map1(i, |v: i128| v as i64),
            (Class::I32, Class::F32) => self.map1(i, |v: i32| v as f32),
            (Class::I64, Class::F32) => self.map1(i, |v: i64| v as f32),
            (Class::I128, Class::F32) => self.map1(i, |v: i128| v as f32),
            (Class::I32, Class::F64) => self.map1(i, |v: i32| f64::from(v)),
            (Class::I64, Class::F64) => self.map1(i, |v: i64| v as f64),
            (Class::I128, Class::F64) => self.map1(i, |v: i128| v as f64),
            (Class::F32, Class::F64) => self.map1(i, |v: f32| f64::from(v)),
            (Class::F64, Class::F32) => self.map1(i, |v: f64| v as f32),
            (Class::F32, Class::I32) => self.map1(i, saturate!(f32, i32, 2_147_483_648.0)),
            (Class::F32, Class::I64) => self.map1(i, saturate!(f32, i64, 9_223_372_036_854_775_808.0)),
            (Class::F64, Class::I32) => self.map1(i, saturate!(f64, i32, 2_147_483_648.0)),
            (Class::F64, Class::I64) => self.map1(i, saturate!(f64, i64, 9_223_372_036_854_775_808.0)),
            // Conversions to the same class are never emitted.
            _ => {}
        }
    }

    fn compare<T: Lane>(&mut self, i: &Instruction, how: Comparison) {
        match how {
            Comparison::Less => self.map2(i, |a: T, b: T| i32::from(a < b)),
            Comparison::LessEqual => self.map2(i, |a: T, b: T| i32::from(a <= b)),
            Comparison::Equal => self.map2(i, |a: T, b: T| i32::from(a == b)),
            // The rest is brought to these three when the program is built.
            Comparison::Greater | Comparison::GreaterEqual | Comparison::NotEqual => {}
        }
    }

    fn shift(&mut self, i: &Instruction, shift: Shift) {
        match i.class {
            Class::I32 => self.shift_as::<i32>(i, shift),
            Class::I64 => self.shift_as::<i64>(i, shift),
            _ => {
                let mode = match shift {
                    Shift::Floor => Rounding::Floor,
                    Shift::AddHalfUp => Rounding::HalfUp,
                    Shift::AddHalfAway => Rounding::HalfAway,
                    Shift::Threshold(mode) => mode,
                };
                self.map2(i, |v: i128, n: i128| shr_round(v, n as u32, mode));
            }
        }
    }

    fn shift_as<T: Int>(&mut self, i: &Instruction, shift: Shift) {
        let one = T::bit(true);
        match shift {
            Shift::Floor | Shift::Threshold(Rounding::Floor) => self.map2(i, |v: T, n: T| v.sar(n)),
            Shift::AddHalfUp => self.map2(i, |v: T, n: T| v.add(one.shl(n).sar(one)).sar(n)),
            Shift::AddHalfAway => self.map2(i, |v: T, n: T| {
                let half = one.shl(n).sar(one);
                let some = T::ZERO.sub(T::bit(half != T::ZERO));
                let minus = T::ZERO.sub(T::bit(v < T::ZERO)).and(some);
                v.add(half).add(minus).sar(n)
            }),
            Shift::Threshold(mode) => match mode {
                Rounding::Floor | Rounding::Ceil => self.threshold(i, |_: T, _, _| T::ZERO),
                // No rest exceeds the mask.
                Rounding::Trunc => self.threshold(i, |v: T, _, mask| if v < T::ZERO { T::ZERO } else { mask }),
                Rounding::HalfUp => self.threshold(i, |_: T, _, mask| mask.sar(one)),
                Rounding::HalfDown => self.threshold(i, |_: T, _, mask| mask.sar(one).add(one)),
                Rounding::HalfAway => self.threshold(i, |v: T, _, mask| mask.sar(one).add(T::bit(v < T::ZERO))),
                Rounding::HalfToZero => self.threshold(i, |v: T, _, mask| mask.sar(one).add(T::bit(v >= T::ZERO))),
                Rounding::HalfEven => self.threshold(i, |_: T, q, mask| mask.sar(one).add(one).sub(q.and(one))),
                Rounding::HalfOdd => self.threshold(i, |_: T, q, mask| mask.sar(one).add(q.and(one))),
            },
        }
    }

    /// `floor(v / 2^n)`, and one more where the rest exceeds the threshold, which is given the value, the floor and
    /// `2^n - 1`. With `n = 0` the rest is zero and no threshold is below it.
    fn threshold<T: Int>(&mut self, i: &Instruction, f: impl Fn(T, T, T) -> T) {
        self.map2(i, |v: T, n: T| {
            let mask = T::bit(true).shl(n).sub(T::bit(true));
            let floor = v.sar(n);
            floor.add(T::bit(v.and(mask) > f(v, floor, mask)))
        });
    }

    fn wrap<T: Int>(&mut self, i: &Instruction, bits: u32, signed: bool) {
        let unused = (0..T::BITS - bits).fold(T::ZERO, |n, _| n.add(T::bit(true)));
        if signed {
            self.map1(i, |v: T| v.shl(unused).sar(unused));
        } else {
            let width = (0..bits).fold(T::ZERO, |n, _| n.add(T::bit(true)));
            let mask = T::bit(true).shl(width).sub(T::bit(true));
            self.map1(i, |v: T| v.and(mask));
        }
    }

    fn at<R: Lane>(&mut self, i: &Instruction, table: u16) {
        let table = &R::constants(&self.program.constants)[table as usize];
        let last = table.len() - 1;
        if class_of(i.a) == Class::I32 {
            self.map1(i, |index: i32| table[(index as u32 as usize).min(last)]);
        } else {
            self.map1(i, |index: i64| table[(index as usize).min(last)]);
        }
    }

    fn bucket<T: Lane>(&mut self, i: &Instruction, edges: u16) {
        let edges = &T::constants(&self.program.constants)[edges as usize];
        self.map1(i, |v: T| edges.iter().map(|e| i32::from(*e <= v)).sum::<i32>());
    }

    fn reference(&mut self, i: &Instruction, reference: &Reference) {
        let (first, length) = (self.first, self.length);
        for lane in 0..length {
            let channel = match self.channels {
                Channels::Uniform(channel) => channel,
                Channels::Cyclic { start } => (start % self.program.channels + first + lane) % self.program.channels,
            };
            let cells: Vec<Cell> = reference
                .args
                .iter()
                .map(|argument| {
                    Ok(match argument {
                        Argument::Tables(tables) => tables[if tables.len() == 1 { 0 } else { channel }].clone(),
                        Argument::Lane(source, ty) => Datum::Value(self.value(*source, *ty, lane)),
                    })
                })
                .collect();
            let value = match eval::apply(&reference.node, &cells.iter().collect::<Vec<_>>()) {
                Ok(Datum::Value(value)) => value,
                _ => Value::Int(0),
            };
            let (int, float) = match value {
                Value::Int(v) => (v, 0.0),
                Value::Bool(v) => (i128::from(v), 0.0),
                float => (0, float.as_float().unwrap_or_default()),
            };
            let at = i.destination as usize;
            match i.class {
                Class::I32 => i32::registers_mut(self.scratch)[at][lane] = int as i32,
                Class::I64 => i64::registers_mut(self.scratch)[at][lane] = int as i64,
                Class::I128 => i128::registers_mut(self.scratch)[at][lane] = int,
                Class::F32 => f32::registers_mut(self.scratch)[at][lane] = float as f32,
                Class::F64 => f64::registers_mut(self.scratch)[at][lane] = float,
            }
        }
    }

    fn value(&self, source: Source, ty: Type, lane: usize) -> Value {
        match (self.view(source), ty) {
            (AnyView::I32(view), Type::Bool) => Value::Bool(view.at(lane) != 0),
            (AnyView::I32(view), _) => Value::Int(view.at(lane).into()),
            (AnyView::I64(view), _) => Value::Int(view.at(lane).into()),
            (AnyView::I128(view), _) => Value::Int(view.at(lane)),
            (AnyView::F32(view), Type::Float(format)) => Value::float(view.at(lane).into(), format),
            (AnyView::F32(view), _) => Value::F32(view.at(lane)),
            (AnyView::F64(view), _) => Value::F64(view.at(lane)),
        }
    }
}

macro_rules! rounding {
    ($name:ident, $type:ident) => {
        impl Tile<'_, '_> {
            /// Rounds to an integral float. The nearest even integer differs from the value by an exactly known rest;
            /// the half modes correct it at ties.
            fn $name(&mut self, i: &Instruction, mode: Rounding) {
                let near = |v: $type| {
                    let even = v.round_ties_even();
                    (even, v - even)
                };
                match mode {
                    Rounding::Floor => self.map1(i, $type::floor),
                    Rounding::Ceil => self.map1(i, $type::ceil),
                    Rounding::Trunc => self.map1(i, $type::trunc),
                    Rounding::HalfEven => self.map1(i, $type::round_ties_even),
                    Rounding::HalfUp => self.map1(i, |v: $type| {
                        let (even, rest) = near(v);
                        if rest == 0.5 { even + 1.0 } else { even }
                    }),
                    Rounding::HalfDown => self.map1(i, |v: $type| {
                        let (even, rest) = near(v);
                        if rest == -0.5 { even - 1.0 } else { even }
                    }),
                    Rounding::HalfAway => self.map1(i, |v: $type| {
                        let (even, rest) = near(v);
                        if rest == (0.5 as $type).copysign(v) { even + (1.0 as $type).copysign(v) } else { even }
                    }),
                    Rounding::HalfToZero => self.map1(i, |v: $type| {
                        let (even, rest) = near(v);
                        if rest == (-0.5 as $type).copysign(-v) { even - (1.0 as $type).copysign(v) } else { even }
                    }),
                    Rounding::HalfOdd => self.map1(i, |v: $type| {
                        let (even, rest) = near(v);
                        if rest.abs() == 0.5 { even + rest + rest } else { even }
                    }),
                }
            }
        }
    };
}

rounding!(round_f32, f32);
rounding!(round_f64, f64);

fn class_of(source: Source) -> Class {
    match source {
        Source::Register(class, _) | Source::Constant(class, _) => class,
        Source::None => Class::I32,
    }
}

#[inline(always)]
fn least<T: PartialOrd>(a: T, b: T) -> T {
    if a < b { a } else { b }
}

#[inline(always)]
fn greatest<T: PartialOrd>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

#[inline(always)]
fn clamp<T: PartialOrd>(v: T, lo: T, hi: T) -> T {
    least(hi, greatest(lo, v))
}

#[inline(always)]
fn choose<T>(condition: i32, yes: T, no: T) -> T {
    if condition != 0 { yes } else { no }
}
