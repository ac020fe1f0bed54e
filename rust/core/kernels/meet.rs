//! Integers that two codes stand for, added or multiplied, and an epilogue.

use super::code::{Code, Code8};
use super::epilogue::{AccTile, Epilogue, OutTile};
use super::isa::{Engine, Isa, Simd, multiversion};
use crate::program::Meeting;

/// Elements per task.
const CHUNK: usize = 1 << 14;

/// Columns of the blocks that the epilogue gets: it needs parameters for so many channels.
pub const MEET_CHANNELS: usize = 64;

/// Elements that are computed at a time; their integers stay in the first-level cache.
const BLOCK: usize = 16 * MEET_CHANNELS;

/// What becomes of a code before it meets the other.
#[derive(Debug, Clone)]
pub enum Part {
    /// `code · factor + constant`, modulo 2^32.
    Affine {
        /// Multiplier.
        factor: i32,
        /// Added to the product.
        constant: i32,
    },
    /// The entry of the code's byte.
    Table(Box<ByteEntries>),
}

/// A table of 256 integers.
#[derive(Debug, Clone)]
pub struct ByteEntries {
    entries: [i32; 256],
    /// The bytes of the entries, the lowest ones first.
    planes: [[u8; 256]; 4],
}

impl Part {
    /// A table: entry 128 is that of the code -128, where codes are signed.
    pub fn table(entries: [i32; 256]) -> Part {
        let planes = std::array::from_fn(|byte| std::array::from_fn(|i| entries[i].to_le_bytes()[byte]));
        Part::Table(Box::new(ByteEntries { entries, planes }))
    }
}

/// Codes of one of the types that operands have.
#[derive(Debug, Clone, Copy)]
pub enum Codes<'a> {
    /// uint8.
    U8(&'a [u8]),
    /// int8.
    I8(&'a [i8]),
    /// uint16.
    U16(&'a [u16]),
    /// int16.
    I16(&'a [i16]),
}

macro_rules! codes_from {
    ($($t:ty => $variant:ident),+) => {$(
        impl<'a> From<&'a [$t]> for Codes<'a> {
            fn from(codes: &'a [$t]) -> Self {
                Codes::$variant(codes)
            }
        }
    )+};
}
codes_from!(u8 => U8, i8 => I8);

impl Codes<'_> {
    /// Number of codes.
    pub fn len(&self) -> usize {
        match self {
            Codes::U8(v) => v.len(),
            Codes::I8(v) => v.len(),
            Codes::U16(v) => v.len(),
            Codes::I16(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The codes from `start` on as integers after `part`, put in the place of those of `onto`, or joined to them.
    fn integers(&self, simd: Simd, part: &Part, start: usize, onto: Option<Meeting>, out: &mut [i32]) {
        let range = start..start + out.len();
        match (self, part) {
            (Codes::U8(v), Part::Table(table)) => look_up(simd, &v[range], table, onto, out),
            (Codes::I8(v), Part::Table(table)) => look_up(simd, i8::bytes(&v[range]), table, onto, out),
            (Codes::U8(v), Part::Affine { factor, constant }) => affine(simd, &v[range], *factor, *constant, onto, out),
            (Codes::I8(v), Part::Affine { factor, constant }) => affine(simd, &v[range], *factor, *constant, onto, out),
            (Codes::U16(v), Part::Affine { factor, constant }) => {
                affine(simd, &v[range], *factor, *constant, onto, out)
            }
            (Codes::I16(v), Part::Affine { factor, constant }) => {
                affine(simd, &v[range], *factor, *constant, onto, out)
            }
            (Codes::U16(_) | Codes::I16(_), Part::Table(..)) => panic!("tables are for codes of one byte"),
        }
    }
}

/// `out[i] = epilogue(meet(first(a[i]), second(b[i])))`. The epilogue has the same parameters for [`MEET_CHANNELS`] channels.
/// Panics where lengths disagree, or where a table meets codes of two bytes.
pub fn meet<O: Code>(
    engine: Engine<'_>,
    meeting: Meeting,
    parts: [&Part; 2],
    codes: [Codes<'_>; 2],
    epilogue: &dyn Epilogue<Out = O>,
    out: &mut [O],
) {
    assert!(codes.iter().all(|c| c.len() == out.len()), "operands and output");
    let simd = engine.simd();
    engine.for_each_chunk(out, CHUNK, |i, out| {
        let mut integers = [0i32; BLOCK];
        for (j, out) in out.chunks_mut(BLOCK).enumerate() {
            let start = i * CHUNK + j * BLOCK;
            let integers = &mut integers[..out.len()];
            codes[0].integers(simd, parts[0], start, None, integers);
            codes[1].integers(simd, parts[1], start, Some(meeting), integers);
            let whole = integers.len() / MEET_CHANNELS * MEET_CHANNELS;
            let mut block = |from: usize, rows: usize, cols: usize| {
                let tile = AccTile { acc: &integers[from..], stride: MEET_CHANNELS, rows, cols, row: 0, channel: 0 };
                epilogue.apply(simd, tile, OutTile { data: &mut out[from..], stride: MEET_CHANNELS });
            };
            block(0, whole / MEET_CHANNELS, MEET_CHANNELS);
            if whole < integers.len() {
                block(whole, 1, integers.len() - whole);
            }
        }
    });
}

multiversion! {
    fn affine<C: Code>(simd: Simd, codes: &[C], factor: i32, constant: i32, onto: Option<Meeting>, out: &mut [i32]) {
        join(codes.iter().map(|c| c.to_i32().wrapping_mul(factor).wrapping_add(constant)), onto, out);
    }
}

/// The entries of the codes.
fn look_up(simd: Simd, codes: &[u8], table: &ByteEntries, onto: Option<Meeting>, out: &mut [i32]) {
    #[cfg(target_arch = "x86_64")]
    if simd.vectors() == Isa::Avx512Vnni && is_x86_feature_detected!("avx512vbmi") {
        assert!(codes.len() == out.len() && out.len() <= BLOCK);
        let mut entries = [0i32; BLOCK];
        // SAFETY: the `Simd` and the test prove the features; all slices have the same length.
        let done = match onto {
            None => unsafe { super::avx512::lookup8_i32(codes, &table.planes, out) },
            Some(_) => unsafe { super::avx512::lookup8_i32(codes, &table.planes, &mut entries[..codes.len()]) },
        };
        if onto.is_some() {
            join_entries(simd, &entries[..done], onto, out);
        }
        return join_scalar(&codes[done..], table, onto, &mut out[done..]);
    }
    let _ = (simd, Isa::Scalar, &table.planes);
    join_scalar(codes, table, onto, out);
}

fn join_scalar(codes: &[u8], table: &ByteEntries, onto: Option<Meeting>, out: &mut [i32]) {
    join(codes.iter().map(|&c| table.entries[usize::from(c)]), onto, out);
}

multiversion! {
    #[cfg(target_arch = "x86_64")]
    fn join_entries(simd: Simd, entries: &[i32], onto: Option<Meeting>, out: &mut [i32]) {
        join(entries.iter().copied(), onto, out);
    }
}

/// Puts values in the place of integers, or joins them to those.
#[inline(always)]
fn join(values: impl Iterator<Item = i32>, onto: Option<Meeting>, out: &mut [i32]) {
    let pairs = out.iter_mut().zip(values);
    match onto {
        None => pairs.for_each(|(o, v)| *o = v),
        Some(Meeting::Sum) => pairs.for_each(|(o, v)| *o = o.wrapping_add(v)),
        Some(Meeting::Difference) => pairs.for_each(|(o, v)| *o = o.wrapping_sub(v)),
        Some(Meeting::Product) => pairs.for_each(|(o, v)| *o = o.wrapping_mul(v)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Accumulators;
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    /// A part, and what it makes of a byte and its code.
    type Case = (Part, Box<dyn Fn(u8, i32) -> i32>);

    fn table(random: &mut Random) -> Case {
        let entries: [i32; 256] = std::array::from_fn(|_| random.next() as i32);
        (Part::table(entries), Box::new(move |byte, _| entries[usize::from(byte)]))
    }

    fn affine(factor: i32, constant: i32) -> Case {
        let value = move |_, code: i32| (i64::from(code) * i64::from(factor) + i64::from(constant)) as i32;
        (Part::Affine { factor, constant }, Box::new(value))
    }

    #[test]
    fn all_pairs_of_codes_equal_their_twin() {
        let mut random = Random::new(11);
        let cases = [
            [table(&mut random), table(&mut random)],
            [affine(-70_001, 5), table(&mut random)],
            [affine(3, -9), affine(1 << 20, i32::MAX)],
        ];
        // An odd number of pairs, so that blocks and vectors have remainders.
        let (a, b): (Vec<u8>, Vec<u8>) = (0..65_536u32 + 77).map(|p| ((p >> 8) as u8, p as u8)).unzip();
        let signed: Vec<i8> = b.iter().map(|&b| b as i8).collect();
        for [(first, of_first), (second, of_second)] in &cases {
            for how in [Meeting::Sum, Meeting::Difference, Meeting::Product] {
                let twin = |code: fn(u8) -> i32| -> Vec<i32> {
                    let integers = a.iter().zip(&b).map(|(&a, &b)| (of_first(a, a.into()), of_second(b, code(b))));
                    integers.map(|(a, b)| reference::meet(how, a, b)).collect()
                };
                let (plain, mixed) = (twin(i32::from), twin(|b| (b as i8).into()));
                on_every_engine(|engine| {
                    let mut out = vec![0i32; a.len()];
                    meet(engine, how, [first, second], [Codes::U8(&a), Codes::U8(&b)], &Accumulators, &mut out);
                    assert!(out == plain, "{how:?} {:?}", engine.simd());
                    meet(engine, how, [first, second], [Codes::U8(&a), Codes::I8(&signed)], &Accumulators, &mut out);
                    assert!(out == mixed, "{how:?} {:?}", engine.simd());
                });
            }
        }
    }

    #[test]
    fn wide_codes_are_affine() {
        let unsigned: Vec<u16> = (0..=u16::MAX).collect();
        let signed: Vec<i16> = unsigned.iter().map(|&c| c as i16).collect();
        let (part, value) = affine(40_099, -12);
        let pairs = unsigned.iter().zip(&signed);
        let expected: Vec<i32> =
            pairs.map(|(&a, &b)| reference::meet(Meeting::Sum, value(0, a.into()), value(0, b.into()))).collect();
        on_every_engine(|engine| {
            let mut out = vec![0i32; unsigned.len()];
            let codes = [Codes::U16(&unsigned), Codes::I16(&signed)];
            meet(engine, Meeting::Sum, [&part, &part], codes, &Accumulators, &mut out);
            assert!(out == expected, "{:?}", engine.simd());
        });
    }
}
