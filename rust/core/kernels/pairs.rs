//! Elementwise functions of two 8-bit codes.

use super::code::{Code, Code8};
#[cfg(target_arch = "x86_64")]
use super::epilogue::Bytes;
use super::isa::{Engine, Isa, Simd, multiversion};

/// Elements per task.
const CHUNK: usize = 1 << 14;

/// `sat(rint(fma(f32(a), factors[0], fma(f32(b), factors[1], constant))) + zero_point)`; `rint` is half to even.
#[derive(Debug, Clone, Copy)]
pub struct FloatSum {
    factors: [f32; 2],
    constant: f32,
    lo: f32,
    hi: f32,
    zero_point: i32,
}

impl FloatSum {
    /// Codes are saturated to `qmin..=qmax`. `None` where a step might leave the range in which the vector form is exact.
    pub fn new(factors: [f32; 2], constant: f32, zero_point: i32, qmin: i32, qmax: i32) -> Option<FloatSum> {
        const LIMIT: f32 = 1_048_576.0;
        let bounded = factors.iter().all(|f| f.abs() < LIMIT) && constant.abs() < LIMIT * 256.0;
        let near = |v: i32| v.unsigned_abs() < 1 << 20;
        (bounded && near(zero_point) && near(qmin) && near(qmax) && qmin <= qmax).then_some(FloatSum {
            factors,
            constant,
            // Rounding moves no value past an integer, so the bounds may be applied before it.
            lo: (qmin - zero_point) as f32,
            hi: (qmax - zero_point) as f32,
            zero_point,
        })
    }
}

#[cfg(target_arch = "x86_64")]
impl FloatSum {
    /// Least and greatest code.
    fn codes(&self) -> [i64; 2] {
        [self.lo, self.hi].map(|bound| bound as i64 + i64::from(self.zero_point))
    }
}

/// The sum of each pair of codes. Panics where lengths disagree.
pub fn float_sum<A: Code8, B: Code8, O: Code8>(engine: Engine<'_>, sum: &FloatSum, a: &[A], b: &[B], out: &mut [O]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "operands and output");
    engine.for_each_chunk(out, CHUNK, |i, out| {
        let range = i * CHUNK..i * CHUNK + out.len();
        let (a, b) = (&a[range.clone()], &b[range]);
        let done = add_vectors(engine.simd(), sum, a, b, out);
        add(engine.simd(), sum, &a[done..], &b[done..], &mut out[done..]);
    });
}

/// Adds as many leading pairs as fill whole vectors, and says how many those are.
fn add_vectors<A: Code8, B: Code8, O: Code8>(simd: Simd, sum: &FloatSum, a: &[A], b: &[B], out: &mut [O]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if simd.vectors() == Isa::Avx512Vnni
        && let Some(bytes) = Bytes::of(sum.zero_point, sum.codes(), O::SIGNED)
    {
        let (a, b, out) = (A::bytes(a), B::bytes(b), O::bytes_mut(out));
        assert!(a.len() == out.len() && b.len() == out.len(), "operands and output");
        let FloatSum { factors, constant, .. } = *sum;
        // SAFETY: the `Simd` proves the features; all slices have the same length.
        return unsafe {
            match (A::SIGNED, B::SIGNED) {
                (false, false) => super::avx512::float_sum::<false, false>(factors, constant, a, b, bytes, out),
                (false, true) => super::avx512::float_sum::<false, true>(factors, constant, a, b, bytes, out),
                (true, false) => super::avx512::float_sum::<true, false>(factors, constant, a, b, bytes, out),
                (true, true) => super::avx512::float_sum::<true, true>(factors, constant, a, b, bytes, out),
            }
        };
    }
    let _ = (simd, sum, a, b, out, Isa::Scalar);
    0
}

multiversion! {
    fn add<A: Code8, B: Code8, O: Code8>(simd: Simd, sum: &FloatSum, a: &[A], b: &[B], out: &mut [O]) {
        let FloatSum { factors: [outer, inner], constant, lo, hi, zero_point, .. } = *sum;
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            let rest = (b.to_i32() as f32).mul_add(inner, constant);
            let value = (a.to_i32() as f32).mul_add(outer, rest).max(lo).min(hi);
            // SAFETY: the value lies between the bounds, which are within ±2^21; `max` leaves no NaN.
            let rounded: i32 = unsafe { value.round_ties_even().to_int_unchecked() };
            *o = O::wrap32(rounded + zero_point);
        }
    }
}

/// Pairs that are formed at a time, in vectors, before the first one is looked up.
const PAIRS: usize = 256;

multiversion! {
    fn pair_up(simd: Simd, a: &[u8], b: &[u8], pairs: &mut [u16; PAIRS]) {
        pairs.iter_mut().zip(a).zip(b).for_each(|((p, &a), &b)| *p = u16::from(a) << 8 | u16::from(b));
    }
}

/// `out[i] = table[256·a[i] + b[i]]`; signed codes index by their bytes. Panics where lengths disagree.
pub fn lookup_pairs<T: Code>(engine: Engine<'_>, a: &[u8], b: &[u8], table: &[T], out: &mut [T]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "operands and output");
    let table: &[T; 1 << 16] = table.try_into().expect("an entry for every pair");
    engine.for_each_chunk(out, CHUNK, |i, out| {
        let range = i * CHUNK..i * CHUNK + out.len();
        let operands = a[range.clone()].chunks(PAIRS).zip(b[range].chunks(PAIRS));
        let mut pairs = [0u16; PAIRS];
        for (out, (a, b)) in out.chunks_mut(PAIRS).zip(operands) {
            pair_up(engine.simd(), a, b, &mut pairs);
            out.iter_mut().zip(&pairs).for_each(|(o, &pair)| *o = table[usize::from(pair)]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    fn all_pairs() -> (Vec<u8>, Vec<u8>) {
        (0..=65_535u16).map(|p| ((p >> 8) as u8, p as u8)).unzip()
    }

    #[test]
    fn sums_of_all_pairs_equal_their_twins_on_ties() {
        let (a, b) = all_pairs();
        let signed: Vec<i8> = b.iter().map(|&b| b as i8).collect();
        // Halves and quarters make ties of many pairs; the last factors make none, and large sums.
        for (factors, constant) in
            [([0.5, 0.25], 0.25), ([0.5, -0.5], 127.5), ([0.031_37, 0.897_1], -3.3), ([9e5, 9e5], 0.5)]
        {
            for (zero_point, qmin, qmax) in [(0, 0, 255), (77, 3, 200), (-200, 0, 255)] {
                let sum = FloatSum::new(factors, constant, zero_point, qmin, qmax).unwrap();
                let twin = |a: i32, b: i32| reference::float_sum(a, b, factors, constant, zero_point, qmin, qmax);
                let expected: Vec<u8> = a.iter().zip(&b).map(|(&a, &b)| twin(a.into(), b.into()) as u8).collect();
                let mixed: Vec<u8> = a.iter().zip(&signed).map(|(&a, &b)| twin(a.into(), b.into()) as u8).collect();
                on_every_engine(|engine| {
                    let mut out = vec![0u8; a.len()];
                    float_sum(engine, &sum, &a, &b, &mut out);
                    assert!(out == expected, "{factors:?} {constant} {zero_point} {:?}", engine.simd());
                    float_sum(engine, &sum, &a, &signed, &mut out);
                    assert!(out == mixed, "{factors:?} {constant} {zero_point} {:?}", engine.simd());
                });
            }
        }
        let first: Vec<i8> = a.iter().map(|&a| a as i8).collect();
        for (factors, constant) in [([0.5, 0.25], 0.25), ([0.031_37, -0.897_1], 40.3)] {
            let sum = FloatSum::new(factors, constant, -5, -120, 127).unwrap();
            let twin = |a: i8, b: i32| reference::float_sum(a.into(), b, factors, constant, -5, -120, 127) as i8;
            let expected: Vec<i8> = first.iter().zip(&signed).map(|(&a, &b)| twin(a, b.into())).collect();
            let mixed: Vec<i8> = first.iter().zip(&b).map(|(&a, &b)| twin(a, b.into())).collect();
            on_every_engine(|engine| {
                let mut out = vec![0i8; a.len()];
                float_sum(engine, &sum, &first, &signed, &mut out);
                assert!(out == expected, "signed, {factors:?} {:?}", engine.simd());
                float_sum(engine, &sum, &first, &b, &mut out);
                assert!(out == mixed, "signed by unsigned, {factors:?} {:?}", engine.simd());
            });
        }
        assert!(FloatSum::new([f32::NAN, 1.0], 0.0, 0, 0, 255).is_none());
        assert!(FloatSum::new([1.0, 1e30], 0.0, 0, 0, 255).is_none());
    }

    #[test]
    fn every_pair_finds_its_entry() {
        let (a, b) = all_pairs();
        let table = Random::new(8).codes::<i16>(1 << 16);
        on_every_engine(|engine| {
            let mut out = vec![0i16; a.len()];
            lookup_pairs(engine, &b, &a, &table, &mut out);
            assert!(out == reference::lookup_pairs(&b, &a, &table));
        });
    }
}
