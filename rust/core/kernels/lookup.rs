//! Look-up tables over codes.

use super::isa::{Engine, Isa, Simd};

/// Elements per task.
const CHUNK: usize = 1 << 14;

/// `out[i] = table[x[i]]`. For signed codes the table is in the order of the bytes: entry 128 is that of -128. Panics
/// where lengths disagree.
pub fn lookup8(engine: Engine<'_>, x: &[u8], table: &[u8; 256], out: &mut [u8]) {
    assert_eq!(x.len(), out.len(), "input and output");
    engine.for_each_chunk(out, CHUNK, |i, out| {
        let x = &x[i * CHUNK..][..out.len()];
        let done = vectors(engine.simd(), x, table, out);
        for (o, &x) in out[done..].iter_mut().zip(&x[done..]) {
            *o = table[usize::from(x)];
        }
    });
}

/// `out[i] = table[x[i]]` for entries of any type. Panics where lengths disagree.
pub fn lookup8_to<T: Copy + Send + Sync>(engine: Engine<'_>, x: &[u8], table: &[T; 256], out: &mut [T]) {
    assert_eq!(x.len(), out.len(), "input and output");
    engine.for_each_chunk(out, CHUNK, |i, out| {
        out.iter_mut().zip(&x[i * CHUNK..]).for_each(|(o, &x)| *o = table[usize::from(x)]);
    });
}

/// `out[i] = table[x[i]]` for a table of 65 536 entries; signed codes index by their bits. Panics where lengths disagree.
pub fn lookup16<T: Copy + Send + Sync>(engine: Engine<'_>, x: &[u16], table: &[T], out: &mut [T]) {
    assert_eq!(x.len(), out.len(), "input and output");
    assert_eq!(table.len(), 1 << 16, "an entry for every code");
    engine.for_each_chunk(out, CHUNK, |i, out| {
        out.iter_mut().zip(&x[i * CHUNK..]).for_each(|(o, &x)| *o = table[usize::from(x)]);
    });
}

/// Looks up as many leading elements as fill whole vectors, and says how many those are.
fn vectors(simd: Simd, x: &[u8], table: &[u8; 256], out: &mut [u8]) -> usize {
    assert_eq!(x.len(), out.len());
    #[cfg(target_arch = "x86_64")]
    if simd.vectors() == Isa::Avx512Vnni && is_x86_feature_detected!("avx512vbmi") {
        // SAFETY: the `Simd` and the test prove the features; both slices have the same length.
        return unsafe { super::avx512::lookup8(x, table, out) };
    }
    #[cfg(target_arch = "x86_64")]
    if simd.vectors() != Isa::Scalar {
        // SAFETY: every set of x86 but the scalar one has AVX2; both slices have the same length.
        return unsafe { super::avx2::lookup8(x, table, out) };
    }
    #[cfg(target_arch = "aarch64")]
    if simd.vectors() != Isa::Scalar {
        // SAFETY: every set of AArch64 but the scalar one has NEON; both slices have the same length.
        return unsafe { super::neon::lookup8(x, table, out) };
    }
    let _ = (simd, Isa::Scalar, table);
    0
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    #[test]
    fn every_code_at_every_position_of_a_vector() {
        let mut random = Random::new(3);
        let table: [u8; 256] = std::array::from_fn(|_| random.next() as u8);
        let wide: [i16; 256] = std::array::from_fn(|_| random.next() as i16);
        let full: Vec<u16> = (0..1 << 16).map(|_| random.next() as u16).collect();
        let codes: Vec<u8> = (0..40_001usize).map(|i| (i + i / 256) as u8).collect();
        let codes16: Vec<u16> = (0..70_000u32).map(|i| i as u16).collect();
        on_every_engine(|engine| {
            let mut out = vec![0u8; codes.len()];
            lookup8(engine, &codes, &table, &mut out);
            assert!(out == reference::lookup(&codes, &table), "{:?}", engine.simd());
            let mut out = vec![0i16; codes.len()];
            lookup8_to(engine, &codes, &wide, &mut out);
            assert!(out == reference::lookup(&codes, &wide));
            let mut out = vec![0u16; codes16.len()];
            lookup16(engine, &codes16, &full, &mut out);
            assert!(out == reference::lookup(&codes16, &full));
        });
    }
}
