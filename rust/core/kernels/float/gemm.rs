//! f32 matrix product with a fixed order of summation.

use super::super::isa::{Engine, Isa, Simd};

/// Columns of one panel.
pub(super) const PANEL: usize = 16;
/// Rows that share one pass over a panel's weights in the first-level cache.
const TILE_ROWS: usize = 48;

/// Sixteen columns of one `k`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [f32; PANEL]);

/// A `K × N` matrix of f32, packed once in panels of sixteen columns.
#[derive(Debug, Clone)]
pub struct FloatWeights {
    k: usize,
    n: usize,
    lines: Vec<Line>,
}

impl FloatWeights {
    /// Packs `weight(k, n)`.
    pub fn new(k: usize, n: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let mut lines = vec![Line([0.0; PANEL]); n.div_ceil(PANEL) * k];
        for column in 0..n {
            for row in 0..k {
                lines[column / PANEL * k + row].0[column % PANEL] = weight(row, column);
            }
        }
        FloatWeights { k, n, lines }
    }

    /// Packs a row-major `K × N` matrix.
    pub fn from_kn(k: usize, n: usize, weights: &[f32]) -> Self {
        assert_eq!(weights.len(), k * n, "weights and their shape");
        Self::new(k, n, |row, column| weights[row * n + column])
    }

    /// Packs a row-major `N × K` matrix.
    pub fn from_nk(k: usize, n: usize, weights: &[f32]) -> Self {
        assert_eq!(weights.len(), k * n, "weights and their shape");
        Self::new(k, n, |row, column| weights[column * k + row])
    }

    /// Length of the sums.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }
}

/// `out[r][c] = (Σ_k a[r][k]·w[k][c]) + bias[c]` for row-major `a` of `rows × K` and `out` of `rows × N`.
///
/// The sum starts at +0 and takes `k` in ascending order by fused multiply-add. An empty `bias` is not added. Panics
/// where lengths disagree.
pub fn gemm_f32(engine: Engine<'_>, a: &[f32], rows: usize, weights: &FloatWeights, bias: &[f32], out: &mut [f32]) {
    let (k, n) = (weights.k, weights.n);
    assert!(a.len() == rows * k && out.len() == rows * n, "matrices and their shapes");
    if out.is_empty() {
        return;
    }
    if rows.div_ceil(12) < engine.threads() && n >= 4 * PANEL {
        let panels = n.div_ceil(PANEL);
        let per_task = engine.share(panels, 2);
        let parts = engine.map(panels.div_ceil(per_task), |task| {
            let range = task * per_task..((task + 1) * per_task).min(panels);
            let width = (range.end * PANEL).min(n) - range.start * PANEL;
            let mut part = vec![0.0; rows * width];
            tile(engine.simd(), a, k, rows, weights, range, bias, &mut part, width);
            part
        });
        let mut column = 0;
        for part in parts {
            let width = part.len() / rows;
            for (to, from) in out.chunks_exact_mut(n).zip(part.chunks_exact(width)) {
                to[column..column + width].copy_from_slice(from);
            }
            column += width;
        }
        return;
    }
    let per_task = engine.share(rows, 12);
    engine.for_each_chunk(out, per_task * n, |task, out| {
        for (t, out) in out.chunks_mut(TILE_ROWS * n).enumerate() {
            let row = task * per_task + t * TILE_ROWS;
            let count = out.len() / n;
            let a = &a[row * k..(row + count) * k];
            tile(engine.simd(), a, k, count, weights, 0..n.div_ceil(PANEL), bias, out, n);
        }
    });
}

/// Rows of a tile, `stride` apart, by some panels; `out` starts at the first row's first column of these panels.
#[allow(clippy::too_many_arguments)]
pub(super) fn tile(
    simd: Simd,
    a: &[f32],
    stride: usize,
    rows: usize,
    weights: &FloatWeights,
    panels: std::ops::Range<usize>,
    bias: &[f32],
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(bias.is_empty() || bias.len() == weights.n, "one bias per column");
    let mut sums = [0.0; 12 * 2 * PANEL];
    for panel in panels.clone().step_by(2) {
        let count = (panels.end - panel).min(2);
        let column = panel * PANEL;
        let columns = (weights.n - column).min(count * PANEL);
        let to = column - panels.start * PANEL;
        for row in (0..rows).step_by(12) {
            let block = (rows - row).min(12);
            let lines = &weights.lines[panel * weights.k..(panel + count) * weights.k];
            multiply(simd, &a[row * stride..], stride, block, lines, weights.k, &mut sums);
            for (r, sums) in sums.chunks_exact(2 * PANEL).take(block).enumerate() {
                let out = &mut out[(row + r) * out_stride + to..][..columns];
                out.copy_from_slice(&sums[..columns]);
                if !bias.is_empty() {
                    out.iter_mut().zip(&bias[column..]).for_each(|(o, b)| *o += b);
                }
            }
        }
    }
}

/// `sums[r][c] = Σ_k a[r][k]·w[k][c]` for up to twelve rows and the one or two panels of `lines`, with a stride of 32.
fn multiply(simd: Simd, a: &[f32], stride: usize, rows: usize, lines: &[Line], k: usize, sums: &mut [f32]) {
    assert!((1..=12).contains(&rows) && a.len() >= (rows - 1) * stride + k && sums.len() >= rows * 2 * PANEL);
    if k == 0 {
        sums.fill(0.0);
        return;
    }
    let panels = lines.len() / k;
    assert!(lines.len() == panels * k && (1..=2).contains(&panels));
    match simd.vectors() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the `Simd` proves the features; the assertions above are the lengths that the kernel reads and writes.
        Isa::Avx512Vnni => unsafe { super::avx512::multiply(a, stride, rows, lines, k, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 | Isa::AvxVnni => unsafe { super::avx2::multiply(a, stride, rows, lines, k, sums) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { super::neon::multiply(a, stride, rows, lines, k, sums) },
        _ => {
            for (r, sums) in sums.chunks_exact_mut(2 * PANEL).take(rows).enumerate() {
                sums.fill(0.0);
                for (lines, sums) in lines.chunks_exact(k).zip(sums.chunks_exact_mut(PANEL)) {
                    for (&x, line) in a[r * stride..][..k].iter().zip(lines) {
                        sums.iter_mut().zip(line.0).for_each(|(s, w)| *s = x.mul_add(w, *s));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reference;
    use super::super::super::testing::{Random, on_every_engine};
    use super::*;

    #[test]
    fn equals_its_twin_bit_for_bit() {
        for (rows, k, n) in [(1, 300, 130), (5, 7, 3), (13, 65, 33), (70, 20, 48), (3, 0, 4)] {
            let mut random = Random::new((rows + k + n) as u64);
            let (a, w, bias) = (random.floats(rows * k), random.floats(k * n), random.floats(n));
            let expected = reference::gemm_f32(&a, rows, k, n, &w, &bias);
            let weights = FloatWeights::from_kn(k, n, &w);
            on_every_engine(|engine| {
                let mut out = vec![f32::NAN; rows * n];
                gemm_f32(engine, &a, rows, &weights, &bias, &mut out);
                let same = out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{rows}x{k}x{n} {:?} {}", engine.simd(), engine.threads());
            });
        }
    }
}
