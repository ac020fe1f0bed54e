//! Matrix products of 8-bit activations and packed 8-bit weights, exact modulo 2^32.
//!
//! The left operand is cut into tiles of rows that fit the second-level cache. A tile meets the packed weights two
//! panels (32 columns) at a time, and each block of accumulators goes to the [`Epilogue`] while it is in the first-level
//! cache. Integer sums are exact, so neither the tiling nor the instruction set shows in the result.

use super::code::Code8;
use super::epilogue::{AccTile, Epilogue, OutTile};
use super::isa::{Engine, Isa, Simd};
use super::pack::{Line, PANEL, PackedWeights};

/// Columns of one block of accumulators: two panels.
pub(crate) const BLOCK_COLUMNS: usize = 2 * PANEL;
/// Rows of one block of accumulators. A multiple of the rows of every micro-kernel.
const BLOCK_ROWS: usize = 48;
/// Bytes that a tile of the left operand may take.
const TILE_BYTES: usize = 128 << 10;

/// Rows per tile for rows of `depth` bytes.
pub(crate) fn tile_rows(depth: usize) -> usize {
    (TILE_BYTES / depth.max(1) / 12).clamp(1, 8) * 12
}

/// Rows of the left operand as the kernels read them: unsigned bytes, readable up to a multiple of four.
pub(crate) struct Lhs<'a> {
    /// The bytes; signed codes enter as `code + 128`.
    pub bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Rows.
    pub rows: usize,
    /// Whether the codes were signed.
    pub signed: bool,
}

/// Where a product goes: which rows and channels of the whole result it is.
pub(crate) struct Place {
    /// Flat index of the first output row.
    pub row: usize,
    /// First output channel.
    pub channel: usize,
}

/// Buffers that a task uses again for each of its tiles.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Accumulators of one block.
    acc: Vec<i32>,
    /// Sums of the rows of the left operand.
    row_sums: Vec<i32>,
    /// Rows of the left operand that had to be gathered.
    pub rows: Vec<u8>,
}

/// Multiplies a tile by the panels `panels` of the weights and hands the accumulators to the epilogue, which writes to
/// `out` (whose first element is the first row's first channel of these panels).
#[allow(clippy::too_many_arguments)]
pub(crate) fn tile<E: Epilogue + ?Sized>(
    simd: Simd,
    lhs: &Lhs<'_>,
    weights: &PackedWeights,
    panels: std::ops::Range<usize>,
    init: &[i32],
    place: Place,
    epilogue: &E,
    out: &mut [E::Out],
    out_stride: usize,
    scratch: &mut Scratch,
) {
    let groups = weights.groups();
    assert!(lhs.rows == 0 || lhs.bytes.len() >= (lhs.rows - 1) * lhs.stride + groups * 4, "rows of the left operand");
    assert_eq!(init.len(), weights.panels() * PANEL, "padded initial accumulators");
    let Scratch { acc, row_sums, .. } = scratch;
    acc.resize(BLOCK_ROWS * BLOCK_COLUMNS, 0);
    let factors = weights.row_sum_factors();
    if factors.is_some() {
        sum_rows(lhs, weights.k(), row_sums);
    }
    let first_column = panels.start * PANEL;
    for panel in panels.clone().step_by(2) {
        let count = (panels.end - panel).min(2);
        let column = panel * PANEL;
        let columns = (weights.n() - column).min(count * PANEL);
        for row in (0..lhs.rows).step_by(BLOCK_ROWS) {
            let rows = (lhs.rows - row).min(BLOCK_ROWS);
            let a = &lhs.bytes[row * lhs.stride..];
            multiply(simd, a, lhs.stride, rows, weights.lines_from(panel), groups, count, &init[column..], acc);
            if let Some(factors) = factors {
                for (line, &sum) in acc.chunks_exact_mut(BLOCK_COLUMNS).zip(&row_sums[row..row + rows]) {
                    for (a, &f) in line.iter_mut().zip(&factors[column..column + columns]) {
                        *a = a.wrapping_add(f.wrapping_mul(sum));
                    }
                }
            }
            let tile = AccTile {
                acc,
                stride: BLOCK_COLUMNS,
                rows,
                cols: columns,
                row: place.row + row,
                channel: place.channel + column,
            };
            let start = row * out_stride + column - first_column;
            epilogue.apply(simd, tile, OutTile { data: &mut out[start..], stride: out_stride });
        }
    }
}

fn sum_rows(lhs: &Lhs<'_>, k: usize, sums: &mut Vec<i32>) {
    let correction = if lhs.signed { (k as i32).wrapping_mul(128) } else { 0 };
    sums.clear();
    sums.extend((0..lhs.rows).map(|r| {
        let row = &lhs.bytes[r * lhs.stride..][..k];
        row.iter().fold(0i32, |s, &v| s.wrapping_add(i32::from(v))).wrapping_sub(correction)
    }));
}

/// `acc[r][c] = init[c] + Σ_k a[r][k]·w[k][c]` for `rows ≤ 48` rows and one or two panels.
#[allow(clippy::too_many_arguments)]
fn multiply(
    simd: Simd,
    a: &[u8],
    stride: usize,
    rows: usize,
    lines: &[Line],
    groups: usize,
    panels: usize,
    init: &[i32],
    acc: &mut [i32],
) {
    assert!(rows > 0 && a.len() >= (rows - 1) * stride + groups * 4);
    assert!(lines.len() >= panels * groups && init.len() >= panels * PANEL && acc.len() >= rows * BLOCK_COLUMNS);
    assert!((1..=2).contains(&panels));
    match simd.isa() {
        Isa::Scalar => multiply_scalar(a, stride, rows, lines, groups, panels, init, acc),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the `Simd` proves the features; the assertions above are the lengths that the kernel reads and writes.
        Isa::Avx512Vnni => unsafe { super::avx512::multiply(a, stride, rows, lines, groups, panels, init, acc) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { super::avx2::multiply_vnni(a, stride, rows, lines, groups, panels, init, acc) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { super::avx2::multiply(a, stride, rows, lines, groups, panels, init, acc) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => multiply_scalar(a, stride, rows, lines, groups, panels, init, acc),
    }
}

#[allow(clippy::too_many_arguments)]
fn multiply_scalar(
    a: &[u8],
    stride: usize,
    rows: usize,
    lines: &[Line],
    groups: usize,
    panels: usize,
    init: &[i32],
    acc: &mut [i32],
) {
    for (r, out) in acc.chunks_exact_mut(BLOCK_COLUMNS).take(rows).enumerate() {
        let row = &a[r * stride..][..groups * 4];
        for p in 0..panels {
            let out = &mut out[p * PANEL..][..PANEL];
            out.copy_from_slice(&init[p * PANEL..][..PANEL]);
            for (x, line) in row.chunks_exact(4).zip(&lines[p * groups..][..groups]) {
                for (o, w) in out.iter_mut().zip(line.0.chunks_exact(4)) {
                    let dot: i32 = x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
                    *o = o.wrapping_add(dot);
                }
            }
        }
    }
}

/// Copies rows of `k` codes into rows of unsigned bytes with a stride of a multiple of four, adding 128 to signed codes.
fn gather_rows<X: Code8>(x: &[X], k: usize, rows: &mut Vec<u8>) -> usize {
    let stride = k.next_multiple_of(4);
    rows.clear();
    rows.resize(x.len() / k * stride, 0);
    for (to, from) in rows.chunks_exact_mut(stride).zip(X::bytes(x).chunks_exact(k)) {
        to[..k].copy_from_slice(from);
    }
    if X::SIGNED {
        rows.iter_mut().for_each(|b| *b ^= 0x80);
    }
    stride
}

/// `out = epilogue(init + A·W)` for row-major activations `a` of `rows × K` and packed weights of `K × N`.
///
/// The accumulator is `init[c] + Σ_k a[r][k]·(w[k][c] - zero_point[c])` modulo 2^32; see
/// [`PackedWeights::centred_init`] for centred activations. `init` is empty (zero) or has `N` entries; `out` is
/// row-major `rows × N`. Panics where lengths disagree.
pub fn gemm<X: Code8, E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    a: &[X],
    rows: usize,
    weights: &PackedWeights,
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    let (k, n) = (weights.k(), weights.n());
    assert_eq!(a.len(), rows * k, "activations and their shape");
    assert_eq!(out.len(), rows * n, "outputs and their shape");
    let init = weights.kernel_init(init, X::SIGNED);
    if rows == 0 || n == 0 {
        return;
    }
    let rows_per_tile = tile_rows(k);
    let build = |first: usize, count: usize, buffer: &mut Vec<u8>| {
        let part = &a[first * k..(first + count) * k];
        let in_place = k == 0 || !X::SIGNED && k.is_multiple_of(4);
        (!in_place).then(|| gather_rows(part, k, buffer))
    };
    let source = Source { bytes: X::bytes(a), stride: k, signed: X::SIGNED, build };
    run_tiles(engine, rows, rows_per_tile, weights, &init, 0, &source, epilogue, out);
}

/// How tiles of the left operand come about.
pub(crate) struct Source<'a, B> {
    /// Rows that may be read in place.
    pub bytes: &'a [u8],
    /// Their stride.
    pub stride: usize,
    /// Whether codes are signed.
    pub signed: bool,
    /// Gathers `count` rows from `first` on into the buffer and gives their stride, or `None` to read them in place.
    pub build: B,
}

/// Runs all tiles: over tasks of rows where there are enough of them, else over tasks of columns.
#[allow(clippy::too_many_arguments)]
pub(crate) fn run_tiles<E: Epilogue + ?Sized, B>(
    engine: Engine<'_>,
    rows: usize,
    rows_per_tile: usize,
    weights: &PackedWeights,
    init: &[i32],
    channel: usize,
    source: &Source<'_, B>,
    epilogue: &E,
    out: &mut [E::Out],
) where
    B: Fn(usize, usize, &mut Vec<u8>) -> Option<usize> + Sync,
{
    let n = weights.n();
    let simd = engine.simd();
    let panels = weights.panels();
    if rows.div_ceil(rows_per_tile) >= engine.threads() || panels < 4 {
        let per_task = engine.share(rows, 12);
        engine.for_each_chunk(out, per_task * n, |task, out| {
            let mut scratch = Scratch::default();
            let first = task * per_task;
            for (t, out) in out.chunks_mut(rows_per_tile * n).enumerate() {
                let row = first + t * rows_per_tile;
                let count = out.len() / n;
                let mut buffer = std::mem::take(&mut scratch.rows);
                let lhs = source.rows(row, count, &mut buffer);
                tile(simd, &lhs, weights, 0..panels, init, Place { row, channel }, epilogue, out, n, &mut scratch);
                scratch.rows = buffer;
            }
        });
        return;
    }
    let pairs = panels.div_ceil(2);
    let per_task = engine.share(pairs, 1);
    let mut buffer = Vec::new();
    for (t, out) in out.chunks_mut(rows_per_tile * n).enumerate() {
        let row = t * rows_per_tile;
        let count = out.len() / n;
        let lhs = source.rows(row, count, &mut buffer);
        let parts = engine.map(pairs.div_ceil(per_task), |task| {
            let range = task * per_task * 2..((task + 1) * per_task * 2).min(panels);
            let width = (range.end * PANEL).min(n) - range.start * PANEL;
            let mut part = vec![E::Out::default(); count * width];
            let place = Place { row, channel };
            tile(simd, &lhs, weights, range, init, place, epilogue, &mut part, width, &mut Scratch::default());
            part
        });
        let mut column = 0;
        for part in parts {
            let width = part.len() / count;
            for (to, from) in out.chunks_exact_mut(n).zip(part.chunks_exact(width)) {
                to[column..column + width].copy_from_slice(from);
            }
            column += width;
        }
    }
}

impl<B: Fn(usize, usize, &mut Vec<u8>) -> Option<usize>> Source<'_, B> {
    fn rows<'b>(&'b self, first: usize, count: usize, buffer: &'b mut Vec<u8>) -> Lhs<'b> {
        match (self.build)(first, count, buffer) {
            Some(stride) => Lhs { bytes: buffer, stride, rows: count, signed: self.signed },
            None => Lhs {
                bytes: &self.bytes[first * self.stride..(first + count) * self.stride],
                stride: self.stride,
                rows: count,
                signed: self.signed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::Accumulators;
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    fn check<X: Code8, W: Code8>(rows: usize, k: usize, n: usize, zero_points: &[i32]) {
        let mut random = Random::new((rows * 7919 + k * 31 + n) as u64);
        let (a, w) = (random.codes::<X>(rows * k), random.codes::<W>(k * n));
        let init = random.ints(n, i32::MIN, i32::MAX);
        let spread: Vec<i32> =
            (0..n).map(|c| zero_points.get(c % zero_points.len().max(1)).copied().unwrap_or(0)).collect();
        let expected = reference::gemm(&a, rows, k, n, &w, &spread, &init);
        let packed = PackedWeights::from_kn(k, n, &spread, &w);
        on_every_engine(|engine| {
            let mut out = vec![0i32; rows * n];
            gemm(engine, &a, rows, &packed, &init, &Accumulators, &mut out);
            assert!(out == expected, "{rows}x{k}x{n} {:?} {} threads", engine.simd(), engine.threads());
        });
    }

    #[test]
    fn equals_its_twin_for_all_signs_and_ragged_sizes() {
        for (rows, k, n) in
            [(1, 1, 1), (1, 64, 200), (3, 7, 17), (13, 576, 33), (60, 130, 48), (200, 27, 16), (2, 0, 5), (0, 4, 4)]
        {
            check::<u8, i8>(rows, k, n, &[]);
            check::<i8, i8>(rows, k, n, &[]);
            check::<u8, u8>(rows, k, n, &[0, 255, 128, 3]);
            check::<i8, u8>(rows, k, n, &[128, 77]);
            check::<u8, i8>(rows, k, n, &[-128, 5, 127]);
        }
    }

    #[test]
    fn sums_wrap_and_pairs_never_saturate() {
        let k = 70_000;
        let (a, w) = (vec![255u8; k], vec![-128i8; k]);
        let packed = PackedWeights::from_kn(k, 1, &[], &w);
        on_every_engine(|engine| {
            let mut out = [0i32];
            gemm(engine, &a, 1, &packed, &[], &Accumulators, &mut out);
            assert_eq!(out[0], (-128i64 * 255 * 70_000) as i32);
        });
    }

    #[test]
    fn centred_init_centres_the_activations() {
        let (a, w) = ([7u8, 9, 200], [3i8, -5, 11]);
        let packed = PackedWeights::from_nk(3, 1, &[], &w);
        let mut out = [0i32];
        gemm(Engine::single(), &a, 1, &packed, &packed.centred_init(&[100], 9), &Accumulators, &mut out);
        assert_eq!(out[0], 100 + (7 - 9) * 3 + (200 - 9) * 11);
    }
}
