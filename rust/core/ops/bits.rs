//! BitShift, the bitwise operators and BitCast: operators on the bits of integers.

use super::broadcast::{Broadcast, broadcast_shape};
use super::cast::by_number;
use super::closure::{input, kernel};
use super::element::{Integer, by_class};
use super::parallel::map;
use super::{Facts, Inferred, Kernel, Op, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor};
use half::{bf16, f16};

fn no_integers() -> Error {
    Error::invalid("tensor_dtype", "two tensors of integers of one type are expected")
}

fn integer(facts: &Facts<'_>, fact: &super::Fact) -> Result<()> {
    if fact.dtype.is_float() || fact.dtype == DType::Bool {
        return Err(facts.invalid(format!("'{}' is {}, integers are expected", fact.name, fact.dtype)));
    }
    Ok(())
}

/// Two integer inputs of one type, which broadcast.
fn infer_pair(facts: &Facts<'_>) -> Result<Vec<Inferred>> {
    let (a, b) = (facts.input(0)?, facts.input(1)?);
    integer(facts, a)?;
    signature::same_dtype(facts, a, b)?;
    Ok(vec![(a.dtype, broadcast_shape(&[&a.shape, &b.shape])?)])
}

/// `f(a, b, bits of the type)` of each pair.
fn pairs(f: impl Fn(i128, i128, u32) -> i128 + Send + Sync + 'static) -> Result<Box<dyn Kernel>> {
    fn typed<T: Integer>(
        engine: Engine<'_>,
        plan: &Broadcast,
        a: &[T],
        b: &Data,
        f: impl Fn(i128, i128, u32) -> i128 + Sync,
    ) -> Option<Data> {
        let bits = 8 * T::DTYPE.size() as u32;
        Some(T::wrap(
            plan.zip(engine, a, T::view(b)?, |x: T, y: T| T::wrapping_from(f(x.to_i128(), y.to_i128(), bits))),
        ))
    }
    kernel(move |context, inputs| {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let plan = Broadcast::new(&[a.shape(), b.shape()])?;
        let data = by_class!(a.data(), v =>
            real v.first().and(None),
            integer typed(context.engine(), &plan, v, b.data(), &f),
            boolean v.first().and(None),
        );
        Ok([Tensor::new(plan.shape(), data.ok_or_else(no_integers)?)?].into())
    })
}

/// BitShift by `direction`. Bits that leave the type are lost; a shift by its width or more, or by a negative count, gives
/// 0 (-1 for a negative number to the right).
pub struct BitShift;

impl BitShift {
    fn left(facts: &Facts<'_>) -> Result<bool> {
        match facts.node.string("direction", "")? {
            "LEFT" => Ok(true),
            "RIGHT" => Ok(false),
            other => Err(facts.invalid(format!("direction '{other}' is neither 'LEFT' nor 'RIGHT'"))),
        }
    }
}

/// `x` shifted by `count` within `bits` bits.
fn shifted(x: i128, left: bool, count: i128, bits: u32) -> i128 {
    let distance = u32::try_from(count).unwrap_or(bits).min(bits);
    match left {
        true if distance == bits => 0,
        true => x.wrapping_shl(distance),
        false => x >> distance,
    }
}

impl Op for BitShift {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["direction"])?;
        Self::left(facts)?;
        let inferred = infer_pair(facts)?;
        if facts.opset < 28 && !matches!(inferred[0].0, DType::U8 | DType::U16 | DType::U32 | DType::U64) {
            return Err(facts.invalid("signed integers are shifted from opset 28 on"));
        }
        Ok(inferred)
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let left = Self::left(facts)?;
        pairs(move |x, count, bits| shifted(x, left, count, bits))
    }
}

/// BitwiseAnd, BitwiseOr and BitwiseXor.
pub struct Bitwise(pub fn(i128, i128) -> i128);

impl Op for Bitwise {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &[])?;
        infer_pair(facts)
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let f = self.0;
        pairs(move |a, b, _| f(a, b))
    }
}

/// BitwiseNot.
pub struct BitwiseNot;

impl Op for BitwiseNot {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &[])?;
        let x = facts.input(0)?;
        integer(facts, x)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Integer>(engine: Engine<'_>, v: &[T]) -> Data {
            T::wrap(map(engine, v, |x| T::wrapping_from(!x.to_i128())))
        }
        kernel(|context, inputs| {
            let x = input(inputs, 0)?;
            let data = by_class!(x.data(), v =>
                real v.first().and(None),
                integer Some(typed(context.engine(), v)),
                boolean v.first().and(None),
            );
            Ok([Tensor::new(x.shape(), data.ok_or_else(no_integers)?)?].into())
        })
    }
}

/// BitCast: the same bits as another type of the same width.
pub struct BitCast;

impl BitCast {
    fn target(facts: &Facts<'_>) -> Result<DType> {
        let from = facts.input(0)?.dtype;
        let to = by_number(facts.node.int("to", 0)?)
            .ok_or_else(|| facts.unsupported("the attribute 'to' names no supported type"))?;
        if from.size() != to.size() {
            return Err(facts.invalid(format!("{from} and {to} differ in width")));
        }
        Ok(to)
    }
}

/// The elements as unsigned integers of their bits.
fn bits_of(data: &Data) -> Vec<u64> {
    match data {
        Data::F64(v) => v.iter().map(|x| x.to_bits()).collect(),
        Data::F32(v) => v.iter().map(|x| x.to_bits().into()).collect(),
        Data::F16(v) => v.iter().map(|x| x.to_bits().into()).collect(),
        Data::BF16(v) => v.iter().map(|x| x.to_bits().into()).collect(),
        Data::I64(v) => v.iter().map(|&x| x as u64).collect(),
        Data::I32(v) => v.iter().map(|&x| (x as u32).into()).collect(),
        Data::I16(v) => v.iter().map(|&x| (x as u16).into()).collect(),
        Data::I8(v) => v.iter().map(|&x| (x as u8).into()).collect(),
        Data::U64(v) => v.to_vec(),
        Data::U32(v) => v.iter().map(|&x| x.into()).collect(),
        Data::U16(v) => v.iter().map(|&x| x.into()).collect(),
        Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
        Data::Bool(v) => v.iter().map(|&x| x.into()).collect(),
    }
}

fn from_bits(bits: &[u64], dtype: DType) -> Result<Data> {
    macro_rules! each {
        ($variant:ident, $f:expr) => {
            Data::$variant(bits.iter().map(|&b| $f(b)).collect())
        };
    }
    Ok(match dtype {
        DType::F64 => each!(F64, f64::from_bits),
        DType::F32 => each!(F32, |b| f32::from_bits(b as u32)),
        DType::F16 => each!(F16, |b| f16::from_bits(b as u16)),
        DType::BF16 => each!(BF16, |b| bf16::from_bits(b as u16)),
        DType::I64 => each!(I64, |b| b as i64),
        DType::I32 => each!(I32, |b| b as i32),
        DType::I16 => each!(I16, |b| b as i16),
        DType::I8 => each!(I8, |b| b as i8),
        DType::U64 => each!(U64, |b| b),
        DType::U32 => each!(U32, |b| b as u32),
        DType::U16 => each!(U16, |b| b as u16),
        DType::U8 => each!(U8, |b| b as u8),
        DType::Bool if bits.iter().any(|&b| b > 1) => {
            return Err(Error::invalid("tensor_range", "a boolean is 0 or 1"));
        }
        DType::Bool => each!(Bool, |b| b == 1),
        DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
            return Err(Error::unsupported("bit_cast", format!("bits as {dtype}")));
        }
    })
}

impl Op for BitCast {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["to"])?;
        Ok(vec![(Self::target(facts)?, facts.input(0)?.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let to = Self::target(facts)?;
        kernel(move |_, inputs| {
            let x = input(inputs, 0)?;
            Ok([Tensor::new(x.shape(), from_bits(&bits_of(x.data()), to)?)?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_beyond_the_width() {
        assert_eq!(u8::wrapping_from(shifted(0x81, true, 1, 8)), 2);
        assert_eq!(shifted(255, true, 8, 8), 0);
        assert_eq!(shifted(255, true, i128::from(u64::MAX), 64), 0);
        assert_eq!(shifted(-1, false, 200, 8), -1);
        assert_eq!(shifted(-7, false, 1, 8), -4);
        assert_eq!((shifted(-7, false, -1, 8), shifted(-7, true, -1, 8)), (-1, 0));
    }
}
