//! Code tensors as lanes of i32, computed in chunks on all threads.

use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::ops::RunContext;
use crate::program::Channels;
use crate::tensor::{DType, Data, View, strides};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Elements that one task computes: a multiple of the tile executor's lanes, small enough for L1.
pub const CHUNK: usize = 4096;

/// Widens `out.len()` codes from `start` on.
pub fn read_codes(data: &Data, start: usize, out: &mut [i32]) -> Result<()> {
    let range = start..start + out.len();
    match data {
        Data::U8(v) => v[range].iter().zip(out).for_each(|(&c, o)| *o = c.into()),
        Data::I8(v) => v[range].iter().zip(out).for_each(|(&c, o)| *o = c.into()),
        Data::U16(v) => v[range].iter().zip(out).for_each(|(&c, o)| *o = c.into()),
        Data::I16(v) => v[range].iter().zip(out).for_each(|(&c, o)| *o = c.into()),
        Data::I32(v) => out.copy_from_slice(&v[range]),
        other => return Err(no_codes(other)),
    }
    Ok(())
}

fn no_codes(data: &Data) -> Error {
    Error::invalid("codes_dtype", format!("{} does not hold codes", data.dtype()))
}

/// As [`read_codes`], of a view of the tensor where there is one.
pub fn read_viewed(data: &Data, view: Option<&View>, start: usize, out: &mut [i32]) -> Result<()> {
    let Some(view) = view else { return read_codes(data, start, out) };
    match data {
        Data::U8(v) => view.read(v, start, out, i32::from),
        Data::I8(v) => view.read(v, start, out, i32::from),
        Data::U16(v) => view.read(v, start, out, i32::from),
        Data::I16(v) => view.read(v, start, out, i32::from),
        Data::I32(v) => view.read(v, start, out, |code| code),
        other => return Err(no_codes(other)),
    }
    Ok(())
}

/// Computes `len` codes chunk by chunk: `fill(start, out)` writes the codes from `start` on. The result does not depend
/// on the number of threads, since every element is computed alone.
pub fn compute_codes(
    context: &RunContext<'_>,
    dtype: DType,
    len: usize,
    fill: impl Fn(usize, &mut [i32]) -> Result<()> + Sync,
) -> Result<Data> {
    macro_rules! narrow {
        ($variant:ident, $t:ty) => {{
            let mut out = context.output::<$t>(0, len);
            for_chunks(context, &mut out, |start, chunk| {
                let mut wide = [0i32; CHUNK];
                let wide = &mut wide[..chunk.len()];
                fill(start, wide)?;
                chunk.iter_mut().zip(wide).for_each(|(o, w)| *o = *w as $t);
                Ok(())
            })?;
            Data::$variant(out)
        }};
    }
    Ok(match dtype {
        DType::U8 => narrow!(U8, u8),
        DType::I8 => narrow!(I8, i8),
        DType::U16 => narrow!(U16, u16),
        DType::I16 => narrow!(I16, i16),
        DType::I32 => {
            let mut out = context.output::<i32>(0, len);
            for_chunks(context, &mut out, &fill)?;
            Data::I32(out)
        }
        other => return Err(Error::unsupported("codes_dtype", format!("codes of type {other}"))),
    })
}

/// Runs `fill(start, chunk)` over chunks of `out`, on all threads where there is more than one chunk. The error is that of
/// the first chunk that has one.
pub fn for_chunks<T: Send>(
    context: &RunContext<'_>,
    out: &mut [T],
    fill: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    let first: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    context.engine().for_each_chunk(out, CHUNK, |i, chunk| {
        if let Err(error) = fill(i * CHUNK, chunk) {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|(at, _)| i < *at) {
                *first = Some((i, error));
            }
        }
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Which scale belongs to which element.
#[derive(Debug, Clone)]
pub struct ScaleMap {
    /// Elements per step along the divided axis, of all axes behind it.
    inner: usize,
    /// Elements along the axis that share a scale.
    block: usize,
    /// Size of the axis.
    extent: usize,
    /// Whether all elements behind the axis share the scale (channels) or have their own (blocks).
    shared_inner: bool,
}

impl ScaleMap {
    /// The map of an encoding on a row-major tensor.
    pub fn new(encoding: &Encoding, shape: &[usize]) -> Result<Self> {
        let (axis, block) = match encoding.granularity {
            Granularity::PerTensor => {
                return Ok(ScaleMap { inner: usize::MAX, block: 1, extent: 1, shared_inner: true });
            }
            Granularity::PerChannel { axis } => (axis, None),
            Granularity::PerBlock { axis, block_size } => (axis, Some(block_size)),
        };
        if axis >= shape.len() {
            return Err(Error::invalid(
                "encoding_axis",
                format!("axis {axis} of the encoding does not exist in a tensor of shape {shape:?}"),
            ));
        }
        let expected = match block {
            None => shape[axis],
            Some(b) if b > 0 && shape[axis].is_multiple_of(b) => shape.iter().product::<usize>() / b,
            Some(b) => {
                return Err(Error::invalid("encoding_block", format!("blocks of {b} do not divide {}", shape[axis])));
            }
        };
        if encoding.scale.len() != expected {
            return Err(Error::invalid(
                "encoding_length",
                format!("{} scales for {expected} channels or blocks of shape {shape:?}", encoding.scale.len()),
            ));
        }
        Ok(ScaleMap {
            inner: strides(shape)[axis],
            block: block.unwrap_or(1),
            extent: shape[axis],
            shared_inner: block.is_none(),
        })
    }

    /// Splits `range` into runs whose elements have one scale, or consecutive ones.
    pub fn segments(
        &self,
        range: Range<usize>,
        mut each: impl FnMut(Range<usize>, Channels) -> Result<()>,
    ) -> Result<()> {
        if self.inner == usize::MAX {
            return each(range, Channels::Uniform(0));
        }
        if self.shared_inner && self.inner == 1 {
            let start = range.start % self.extent;
            return each(range, Channels::Cyclic { start });
        }
        let mut at = range.start;
        while at < range.end {
            let row = at / self.inner;
            let (outer, index) = (row / self.extent, row % self.extent);
            let blocks = self.extent / self.block;
            if self.shared_inner {
                let end = ((row + 1) * self.inner).min(range.end);
                each(at..end, Channels::Uniform(index))?;
                at = end;
            } else if self.inner == 1 {
                let end = ((at / self.block + 1) * self.block).min(range.end);
                each(at..end, Channels::Uniform(outer * blocks + index / self.block))?;
                at = end;
            } else {
                let end = ((row + 1) * self.inner).min(range.end);
                let first = (outer * blocks + index / self.block) * self.inner + at % self.inner;
                each(at..end, Channels::Cyclic { start: first })?;
                at = end;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale_of_each(granularity: Granularity, scales: usize, shape: &[usize]) -> Vec<usize> {
        let mut encoding = Encoding::per_tensor(1.0, 0, 8, true).unwrap();
        encoding.scale = vec![1.0; scales];
        encoding.zero_point = vec![0; scales];
        encoding.granularity = granularity;
        let map = ScaleMap::new(&encoding, shape).unwrap();
        let len: usize = shape.iter().product();
        let mut out = vec![usize::MAX; len];
        for start in (0..len).step_by(5) {
            map.segments(start..(start + 5).min(len), |range, channels| {
                for (i, at) in range.enumerate() {
                    out[at] = match channels {
                        Channels::Uniform(c) => c,
                        Channels::Cyclic { start } => (start + i) % scales,
                    };
                }
                Ok(())
            })
            .unwrap();
        }
        out
    }

    #[test]
    fn every_element_finds_its_channel_or_block() {
        let shape = [2, 4, 3];
        for axis in 0..3 {
            let got = scale_of_each(Granularity::PerChannel { axis }, shape[axis], &shape);
            let expected: Vec<usize> = (0..24).map(|i| [i / 12, i / 3 % 4, i % 3][axis]).collect();
            assert_eq!(got, expected, "axis {axis}");
        }
        let got = scale_of_each(Granularity::PerBlock { axis: 1, block_size: 2 }, 12, &shape);
        let expected: Vec<usize> = (0..24).map(|i| (i / 12 * 2 + i / 3 % 4 / 2) * 3 + i % 3).collect();
        assert_eq!(got, expected);
        let got = scale_of_each(Granularity::PerBlock { axis: 1, block_size: 2 }, 4, &[2, 4]);
        assert_eq!(got, [0, 0, 1, 1, 2, 2, 3, 3]);
    }
}
