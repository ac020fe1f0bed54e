//! Cast and CastLike. Float to integer truncates and saturates, NaN gives 0; integer to integer keeps the low bits;
//! everything to a float rounds once, to nearest even. To two and four bits, the low bits of the truncated number are kept,
//! one code per byte.

use super::closure::{input, kernel};
use super::element::{Element, Integer, Real, by_class};
use super::parallel::map;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor};
use half::{bf16, f16};

/// Cast, or CastLike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// To the type of attribute `to`.
    To,
    /// To the type of the second input.
    Like,
}

/// The type of ONNX's number.
pub(super) fn by_number(number: i64) -> Option<DType> {
    Some(match number {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        _ => return None,
    })
}

/// The packed type of ONNX's number, whose elements are bytes in memory.
fn packed_by_number(number: i64) -> Option<DType> {
    Some(match number {
        21 => DType::U4,
        22 => DType::I4,
        25 => DType::U2,
        26 => DType::I2,
        _ => return None,
    })
}

impl Cast {
    fn target(self, facts: &Facts<'_>) -> Result<DType> {
        let dtype = match self {
            Cast::Like => Some(facts.input(1)?.dtype),
            Cast::To if !facts.node.attributes.contains_key("to") => {
                return Err(facts.invalid("attribute 'to' is missing"));
            }
            Cast::To => {
                let number = facts.node.int("to", 0)?;
                by_number(number).or_else(|| packed_by_number(number))
            }
        };
        dtype.ok_or_else(|| facts.unsupported("the cast is not between supported types"))
    }
}

impl Op for Cast {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let (inputs, mut attributes) = match self {
            Cast::To => (1..=1, vec!["to"]),
            Cast::Like => (2..=2, Vec::new()),
        };
        // Saturation and rounding concern 8-bit float types, which are refused.
        if facts.opset >= 19 {
            attributes.push("saturate");
        }
        if facts.opset >= 24 {
            attributes.push("round_mode");
        }
        signature::check(facts, inputs, 1..=1, &attributes)?;
        signature::flag(facts, "saturate", true)?;
        facts.node.string("round_mode", "up")?;
        Ok(vec![(self.target(facts)?.in_memory(), facts.input(0)?.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let target = self.target(facts)?;
        kernel(move |context, inputs| {
            let x = input(inputs, 0)?;
            Ok([Tensor::new(x.shape(), cast(context.engine(), x.data(), target)?)?].into())
        })
    }
}

/// The elements as another type.
pub fn cast(engine: Engine<'_>, data: &Data, target: DType) -> Result<Data> {
    if data.dtype() == target {
        return Ok(data.clone());
    }
    fn reals<T: Real>(engine: Engine<'_>, v: &[T], target: DType) -> Option<Data> {
        macro_rules! to {
            ($f:expr) => {
                Element::wrap(map(engine, v, |x: T| $f(x.to_f64())))
            };
        }
        Some(match target {
            DType::F64 => to!(|x| x),
            DType::F32 => to!(|x| x as f32),
            DType::F16 => to!(<f16 as Real>::from_f64),
            DType::BF16 => to!(<bf16 as Real>::from_f64),
            DType::I64 => to!(|x| x as i64),
            DType::I32 => to!(|x| x as i32),
            DType::I16 => to!(|x| x as i16),
            DType::I8 => to!(|x| x as i8),
            DType::U64 => to!(|x| x as u64),
            DType::U32 => to!(|x| x as u32),
            DType::U16 => to!(|x| x as u16),
            DType::U8 => to!(|x| x as u8),
            DType::Bool => to!(|x| x != 0.0),
            DType::I4 => to!(|x| wrapped(x as i32, 4)),
            DType::I2 => to!(|x| wrapped(x as i32, 2)),
            DType::U4 => to!(|x| (x as i32 & 15) as u8),
            DType::U2 => to!(|x| (x as i32 & 3) as u8),
        })
    }
    fn integers<T: Integer>(engine: Engine<'_>, v: &[T], target: DType) -> Option<Data> {
        macro_rules! to {
            ($f:expr) => {
                Element::wrap(map(engine, v, |x: T| $f(x.to_i128())))
            };
        }
        Some(match target {
            DType::F64 => to!(|x| x as f64),
            DType::F32 => to!(|x| x as f32),
            // Below 2^53 f64 is exact; above it, f16 is infinite, and bf16's tie bits are far above what f64 drops.
            DType::F16 => to!(|x| <f16 as Real>::from_f64(x as f64)),
            DType::BF16 => to!(bf16_from_integer),
            DType::I64 => to!(|x| x as i64),
            DType::I32 => to!(|x| x as i32),
            DType::I16 => to!(|x| x as i16),
            DType::I8 => to!(|x| x as i8),
            DType::U64 => to!(|x| x as u64),
            DType::U32 => to!(|x| x as u32),
            DType::U16 => to!(|x| x as u16),
            DType::U8 => to!(|x| x as u8),
            DType::Bool => to!(|x| x != 0),
            DType::I4 => to!(|x| wrapped(x as i32, 4)),
            DType::I2 => to!(|x| wrapped(x as i32, 2)),
            DType::U4 => to!(|x| (x & 15) as u8),
            DType::U2 => to!(|x| (x & 3) as u8),
        })
    }
    let out = by_class!(data, v =>
        real reals(engine, v, target),
        integer integers(engine, v, target),
        boolean integers(engine, &v.iter().map(|&b| u8::from(b)).collect::<Vec<_>>(), target),
    );
    out.ok_or_else(|| Error::unsupported("cast", format!("no cast of {} to {target}", data.dtype())))
}

/// The low bits of an integer, with their sign.
fn wrapped(x: i32, bits: u32) -> i8 {
    ((x << (32 - bits)) >> (32 - bits)) as i8
}

/// Bits that f64 would drop are kept as one sticky bit.
fn bf16_from_integer(x: i128) -> bf16 {
    let low = x.unsigned_abs() & 0xffff;
    let kept = if x.unsigned_abs() < 1 << 53 {
        x.unsigned_abs()
    } else {
        x.unsigned_abs() & !0xffff | u128::from(low != 0) << 15
    };
    <bf16 as Real>::from_f64(kept as f64 * if x < 0 { -1.0 } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Team;

    #[test]
    fn casts_truncate_saturate_and_wrap() {
        let team = Team::new(1);
        let x = Data::F32(vec![-1.9, 300.0, f32::NAN, 2.5].into());
        assert_eq!(cast(Engine::of_team(&team), &x, DType::I8).unwrap(), Data::I8(vec![-1, 127, 0, 2].into()));
        assert_eq!(cast(Engine::of_team(&team), &x, DType::Bool).unwrap(), Data::Bool(vec![true; 4].into()));
        assert_eq!(
            cast(Engine::of_team(&team), &Data::I64(vec![257].into()), DType::U8).unwrap(),
            Data::U8(vec![1].into())
        );
        let big = (1i64 << 24) + 1;
        assert_eq!(
            cast(Engine::of_team(&team), &Data::I64(vec![big + 2].into()), DType::F32).unwrap(),
            Data::F32(vec![16777220.0].into())
        );
        let wide = Data::F32(vec![-9.0, -8.5, 7.9, 8.0, f32::NAN].into());
        assert_eq!(cast(Engine::of_team(&team), &wide, DType::I4).unwrap(), Data::I8(vec![7, -8, 7, -8, 0].into()));
        assert_eq!(cast(Engine::of_team(&team), &wide, DType::U4).unwrap(), Data::U8(vec![7, 8, 7, 8, 0].into()));
        assert_eq!(cast(Engine::of_team(&team), &wide, DType::I2).unwrap(), Data::I8(vec![-1, 0, -1, 0, 0].into()));
        assert_eq!(
            cast(Engine::of_team(&team), &Data::I8(vec![-3, -2, 3].into()), DType::U2).unwrap(),
            Data::U8(vec![1, 2, 3].into())
        );
    }

    #[test]
    fn large_integers_round_once_to_bfloat16() {
        // Just above a tie of bfloat16 (8 significant bits) by less than f64 can hold.
        let tie = (1i128 << 62) + (1 << 54);
        assert_eq!(bf16_from_integer(tie + 1).to_f64_const(), ((1i64 << 62) + (1 << 55)) as f64);
        assert_eq!(bf16_from_integer(tie).to_f64_const(), (1i64 << 62) as f64);
        assert_eq!(bf16_from_integer(-tie - 1).to_f64_const(), -(((1i64 << 62) + (1 << 55)) as f64));
    }
}
