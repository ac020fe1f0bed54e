//! Batched products of two 8-bit activations.

use super::code::Code8;
use super::epilogue::{AccTile, Epilogue, OutTile};
use super::gemm::gemm;
use super::isa::{Engine, Simd};
use super::pack::PackedWeights;

/// One matrix per entry of `pairs`: `out[i] = epilogue(init + Σ_k (a - zero_point_a)·(b - zero_point_b))`, modulo 2^32,
/// of the `pairs[i].0`-th matrix of `a` and the `pairs[i].1`-th of `b`, which is how broadcasting is written.
///
/// `a` holds row-major `m × k` matrices, `b` row-major `k × n`, `out` row-major `m × n`; `zero_point_b` has one entry per
/// column, or one. `init` is empty (zero) or has `n` entries. The epilogue sees output rows counted over all matrices
/// and columns as channels. Panics where lengths disagree.
#[allow(clippy::too_many_arguments)]
pub fn matmul<A: Code8, B: Code8, E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    [m, k, n]: [usize; 3],
    a: &[A],
    zero_point_a: i32,
    b: &[B],
    zero_point_b: &[i32],
    pairs: &[(usize, usize)],
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    assert_eq!(out.len(), pairs.len() * m * n, "outputs and their shape");
    if out.is_empty() {
        return;
    }
    let matrices = b.len().checked_div(k * n).unwrap_or(1);
    assert!(k == 0 || b.len() == matrices * k * n, "whole matrices");
    let packed = engine.map(matrices, |i| PackedWeights::from_kn(k, n, zero_point_b, &b[i * k * n..(i + 1) * k * n]));
    let inits: Vec<Vec<i32>> = packed.iter().map(|p| p.centred_init(init, zero_point_a)).collect();
    let run = |engine: Engine<'_>, i: usize, out: &mut [E::Out]| {
        let (left, right) = pairs[i];
        let right = if k == 0 { 0 } else { right };
        let shifted = Below { epilogue, rows: i * m };
        gemm(engine, &a[left * m * k..(left + 1) * m * k], m, &packed[right], &inits[right], &shifted, out);
    };
    if pairs.len() >= engine.threads() {
        let single = Engine::single().with(engine.simd());
        engine.for_each_chunk(out, m * n, |i, out| run(single, i, out));
    } else {
        out.chunks_exact_mut(m * n).enumerate().for_each(|(i, out)| run(engine, i, out));
    }
}

/// An epilogue whose rows begin further down in the whole result.
struct Below<'a, E: ?Sized> {
    epilogue: &'a E,
    rows: usize,
}

impl<E: Epilogue + ?Sized> Epilogue for Below<'_, E> {
    type Out = E::Out;
    fn apply(&self, simd: Simd, tile: AccTile<'_>, out: OutTile<'_, E::Out>) {
        self.epilogue.apply(simd, AccTile { row: tile.row + self.rows, ..tile }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::Accumulators;
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    fn check<A: Code8, B: Code8>(zero_point_a: i32, zero_point_b: &[i32]) {
        let [m, k, n] = [5, 19, 6];
        let mut random = Random::new(77);
        let (a, b) = (random.codes::<A>(3 * m * k), random.codes::<B>(2 * k * n));
        let init = random.ints(n, i32::MIN, i32::MAX);
        let pairs = [(0, 0), (1, 1), (2, 0), (2, 1), (0, 1), (1, 0), (0, 0)];
        for count in [1, 7] {
            let pairs = &pairs[..count];
            let expected = reference::matmul([m, k, n], &a, zero_point_a, &b, zero_point_b, pairs, &init);
            on_every_engine(|engine| {
                let mut out = vec![0i32; pairs.len() * m * n];
                let sizes = [m, k, n];
                matmul(engine, sizes, &a, zero_point_a, &b, zero_point_b, pairs, &init, &Accumulators, &mut out);
                assert!(out == expected, "{:?} {}", engine.simd(), engine.threads());
            });
        }
    }

    #[test]
    fn equals_its_twin_for_all_signs_and_zero_points() {
        check::<u8, u8>(3, &[200]);
        check::<u8, i8>(128, &[0]);
        check::<i8, i8>(-128, &[5]);
        check::<i8, u8>(0, &[0, 1, 2, 127, 128, 255]);
    }

    #[test]
    fn rows_count_over_all_matrices() {
        struct Rows;
        impl Epilogue for Rows {
            type Out = i32;
            fn apply(&self, _: Simd, tile: AccTile<'_>, mut out: OutTile<'_, i32>) {
                (0..tile.rows).for_each(|r| out.line(r, tile.cols).fill((tile.row + r) as i32));
            }
        }
        let mut out = [0; 6];
        matmul(Engine::single(), [2, 1, 1], &[1u8, 2], 0, &[1u8], &[0], &[(0, 0); 3], &[], &Rows, &mut out);
        assert_eq!(out, [0, 1, 2, 3, 4, 5]);
    }
}
