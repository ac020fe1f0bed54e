//! From accumulator to code while the tile is in cache: vector code for the normal forms of shipped specs, the tile executor
//! for every other program.

use crate::kernels::{
    AccTile, Code, DoubleRounding, Epilogue, FloatAffine, FloatScale, MulShift, OutTile, ShiftRounding, Simd,
};
use crate::num::Rounding;
use crate::program::{Channels, Compiled, Lanes, NormalForm, TileProgram};
use crate::tensor::DType;
use std::cell::RefCell;

/// An epilogue for one of the storage types of codes.
pub enum AnyEpilogue<A: 'static> {
    /// To uint8.
    U8(Box<dyn Epilogue<A, Out = u8> + Send>),
    /// To int8.
    I8(Box<dyn Epilogue<A, Out = i8> + Send>),
    /// To uint16.
    U16(Box<dyn Epilogue<A, Out = u16> + Send>),
    /// To int16.
    I16(Box<dyn Epilogue<A, Out = i16> + Send>),
    /// To int32.
    I32(Box<dyn Epilogue<A, Out = i32> + Send>),
}

/// Runs `$body` with `$e` bound to the epilogue and `$out` to a vector of its type; gives the vector as tensor data.
macro_rules! with_epilogue {
    ($context:expr, $any:expr, $len:expr, ($e:ident, $out:ident) => $body:expr) => {{
        use $crate::ops::integer::mac::epilogue::AnyEpilogue;
        use $crate::tensor::Data;
        macro_rules! arm {
            ($epilogue:expr, $variant:ident, $t:ty) => {{
                let $e = &**$epilogue;
                let mut $out = $context.output::<$t>(0, $len);
                $body;
                Data::$variant($out)
            }};
        }
        match $any {
            AnyEpilogue::U8(e) => arm!(e, U8, u8),
            AnyEpilogue::I8(e) => arm!(e, I8, i8),
            AnyEpilogue::U16(e) => arm!(e, U16, u16),
            AnyEpilogue::I16(e) => arm!(e, I16, i16),
            AnyEpilogue::I32(e) => arm!(e, I32, i32),
        }
    }};
}
pub(in crate::ops::integer) use with_epilogue;

/// The epilogue of 32-bit accumulators, with `outputs` per channel in a run of a kernel that fuses it.
pub fn narrow(compiled: &Compiled, channels: usize, dtype: DType, outputs: usize) -> AnyEpilogue<i32> {
    vectors(compiled, channels, dtype, outputs).unwrap_or_else(|| tiles(compiled, dtype))
}

/// As [`narrow`], in vector code, where the program has a form that there is some for.
pub fn vectors(compiled: &Compiled, channels: usize, dtype: DType, outputs: usize) -> Option<AnyEpilogue<i32>> {
    let form = compiled.normal_form()?;
    let reach = compiled.input_reach(0).and_then(|reach| u32::try_from(reach).ok()).unwrap_or(1 << 31);
    let simd = Some(Simd::best()).filter(|simd| outputs >= MANY && simd.fuses_epilogues());
    let reach = Reach { reach, steps: simd };
    Some(match dtype {
        DType::U8 => AnyEpilogue::U8(vector_form(form, channels, reach)?),
        DType::I8 => AnyEpilogue::I8(vector_form(form, channels, reach)?),
        DType::U16 => AnyEpilogue::U16(vector_form(form, channels, reach)?),
        DType::I16 => AnyEpilogue::I16(vector_form(form, channels, reach)?),
        _ => AnyEpilogue::I32(vector_form(form, channels, reach)?),
    })
}

/// The epilogue of any program, by the tile executor.
pub fn tiles<A: TileInput>(compiled: &Compiled, dtype: DType) -> AnyEpilogue<A> {
    macro_rules! boxed {
        ($t:ty) => {
            Box::new(TileEpilogue { tile: compiled.tile(), out: std::marker::PhantomData::<fn() -> $t> })
        };
    }
    match dtype {
        DType::U8 => AnyEpilogue::U8(boxed!(u8)),
        DType::I8 => AnyEpilogue::I8(boxed!(i8)),
        DType::U16 => AnyEpilogue::U16(boxed!(u16)),
        DType::I16 => AnyEpilogue::I16(boxed!(i16)),
        _ => AnyEpilogue::I32(boxed!(i32)),
    }
}

/// Outputs of a channel from which on a fixed-point epilogue is given its float form: finding that takes as long as it saves in a few
/// hundred.
const MANY: usize = 196;

/// What is known of accumulators, and the set with which to look for the float form of a fixed-point epilogue.
#[derive(Clone, Copy)]
struct Reach {
    reach: u32,
    steps: Option<Simd>,
}

fn spread<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
    if values.len() == 1 { vec![values[0]; channels] } else { values.to_vec() }
}

/// The vector code of a normal form, where it is exact for these constants.
fn vector_form<O: Code>(
    form: NormalForm,
    channels: usize,
    Reach { reach, steps }: Reach,
) -> Option<Box<dyn Epilogue<i32, Out = O> + Send>> {
    let narrow = |v: i64| i32::try_from(v).ok();
    Some(match form {
        NormalForm::FloatScale {
            scale,
            clamp: Some((lo, hi)),
            rounding: Rounding::HalfEven,
            zero_point,
            qmin,
            qmax,
        } => {
            let scale = spread(&scale, channels);
            let epilogue = FloatScale::<O>::new(scale, lo, hi, narrow(zero_point)?, narrow(qmin)?, narrow(qmax)?)?;
            Box::new(epilogue.within(reach))
        }
        NormalForm::FloatAffine { scale, offset, rounding: Rounding::HalfEven, zero_point, qmin, qmax } => {
            let (scale, offset) = (spread(&scale, channels), spread(&offset, channels));
            Box::new(FloatAffine::<O>::new(scale, offset, narrow(zero_point)?, narrow(qmin)?, narrow(qmax)?)?)
        }
        NormalForm::FloatScale { .. } | NormalForm::FloatAffine { .. } => return None,
        NormalForm::DoubleRounding { left, mantissa, mid, right, last, zero_point, qmin, qmax } => {
            if (mid, last) != (Rounding::HalfUp, Rounding::HalfAway) {
                return None;
            }
            let shifts = |s: &[u32]| spread(s, channels).iter().map(|&s| i32::try_from(s).ok()).collect::<Option<_>>();
            let (left, mantissa, right) = (shifts(&left)?, spread(&mantissa, channels), shifts(&right)?);
            let (zero_point, qmin, qmax) = (narrow(zero_point)?, narrow(qmin)?, narrow(qmax)?);
            let epilogue = DoubleRounding::<O>::new(left, mantissa, right, zero_point, qmin, qmax)?;
            Box::new(match steps {
                Some(simd) => epilogue.in_steps(simd, reach),
                None => epilogue.within(reach),
            })
        }
        NormalForm::MulShift { drop, mantissa, shift, rounding, offset, zero_point, qmin, qmax } => {
            if drop.0 != 0 {
                return None;
            }
            let mantissa: Option<Vec<i32>> = spread(&mantissa, channels).iter().map(|&m| narrow(m)).collect();
            let rounding = match rounding {
                Rounding::HalfUp => ShiftRounding::HalfUp,
                Rounding::Floor => ShiftRounding::Floor,
                Rounding::HalfEven => ShiftRounding::HalfEven,
                Rounding::HalfAway => ShiftRounding::HalfAway,
                _ => return None,
            };
            let (offset, shift) = (spread(&offset, channels), spread(&shift, channels));
            let (zero_point, qmin, qmax) = (narrow(zero_point)?, narrow(qmin)?, narrow(qmax)?);
            let epilogue = MulShift::<O>::new(mantissa?, offset, shift, rounding, zero_point, qmin, qmax)?;
            Box::new(match steps {
                Some(simd) => epilogue.in_steps(simd, reach),
                None => epilogue.within(reach),
            })
        }
    })
}

/// Any program, 256 lanes at a time.
struct TileEpilogue<O> {
    tile: TileProgram,
    out: std::marker::PhantomData<fn() -> O>,
}

/// Buffers of the tile executor's epilogue.
#[derive(Default)]
struct Buffers {
    codes: Vec<i32>,
    narrow: Vec<i32>,
    wide: Vec<i64>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Accumulators that the tile executor reads.
pub trait TileInput: Copy + Sync + 'static {
    /// As inputs of a program.
    fn lanes(slice: &[Self]) -> Lanes<'_>;
    /// The buffer for accumulators of this type.
    fn row<'b>(narrow: &'b mut Vec<i32>, wide: &'b mut Vec<i64>) -> &'b mut Vec<Self>;
}

impl TileInput for i32 {
    fn lanes(slice: &[i32]) -> Lanes<'_> {
        Lanes::I32(slice)
    }
    fn row<'b>(narrow: &'b mut Vec<i32>, _: &'b mut Vec<i64>) -> &'b mut Vec<i32> {
        narrow
    }
}

impl TileInput for i64 {
    fn lanes(slice: &[i64]) -> Lanes<'_> {
        Lanes::I64(slice)
    }
    fn row<'b>(_: &'b mut Vec<i32>, wide: &'b mut Vec<i64>) -> &'b mut Vec<i64> {
        wide
    }
}

impl<A: TileInput, O: Code> Epilogue<A> for TileEpilogue<O> {
    type Out = O;
    fn apply(&self, _simd: Simd, tile: AccTile<'_, A>, mut out: OutTile<'_, O>) {
        BUFFERS.with_borrow_mut(|Buffers { codes, narrow, wide }| {
            // Rows of all channels follow each other in the order of the channels, and so do any rows where the channels
            // do not matter: as many of them run together as make the executor's work worthwhile.
            let joined = self.tile.channels() == 1 || (tile.channel == 0 && tile.cols == self.tile.channels());
            let together = if joined { (TOGETHER / tile.cols.max(1)).max(1) } else { 1 };
            let flat = A::row(narrow, wide);
            for first in (0..tile.rows).step_by(together) {
                let rows = first..tile.rows.min(first + together);
                flat.clear();
                rows.clone().for_each(|r| flat.extend_from_slice(tile.line(r)));
                codes.resize(flat.len(), 0);
                let channels = Channels::Cyclic { start: tile.channel };
                self.tile
                    .run(&[A::lanes(flat)], channels, codes)
                    .expect("lanes and channels are those that the program was compiled for");
                for (r, codes) in rows.zip(codes.chunks_exact(tile.cols.max(1))) {
                    for (to, &code) in out.line(r, tile.cols).iter_mut().zip(codes) {
                        *to = O::wrap(code.into());
                    }
                }
            }
        });
    }
}

/// Accumulators that the tile executor gets in one call, where it may.
const TOGETHER: usize = 1024;
