//! Matrix products of 8-bit activations and packed 8-bit weights, exact modulo 2^32.
//!
//! The left operand is cut into tiles of rows that fit the second-level cache, and each tile meets the packed weights a few
//! panels of columns at a time. Where an epilogue has a vector form, accumulators never leave the registers; elsewhere
//! blocks of them go to the [`Epilogue`] while they are in the first-level cache. Integer sums are exact, so neither the
//! tiling nor the instruction set shows in the result.

use super::byte_form::ByteForm;
use super::code::Code8;
use super::epilogue::{AccTile, Epilogue, Fused, OutTile};
use super::isa::{Engine, Isa, Shared, Simd};
use super::pack::{Line, PANEL, PackedWeights, Pairing, TILE_LINES};
use super::scratch::{Call, Scratch, at_least};

/// Columns of one block of accumulators.
const BLOCK_COLUMNS: usize = 16 * PANEL;
/// Bytes that a tile of the left operand may take.
const TILE_BYTES: usize = 96 << 10;
/// Most rows of a micro-kernel.
const MOST_ROWS: usize = 32;

/// Rows that tasks and tiles are multiples of, where there are enough: those of the largest micro-kernel.
pub(crate) fn grain(simd: Simd) -> usize {
    match simd.isa() {
        Isa::AmxInt8 => MOST_ROWS,
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => 12,
        Isa::Scalar | Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => 14,
    }
}

/// Rows of one block of accumulators: whole micro-kernels.
fn block_rows(simd: Simd) -> usize {
    (MOST_ROWS / grain(simd)) * grain(simd)
}

/// Rows per tile where each brings `bytes` new bytes into the cache.
pub(crate) fn tile_rows(simd: Simd, bytes: usize) -> usize {
    (TILE_BYTES / bytes.max(1) / grain(simd)).clamp(2, 32) * grain(simd)
}

/// Rows of the left operand as the kernels read them: bytes in runs that are readable up to a multiple of four.
pub(crate) struct Lhs<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// First byte of each row.
    pub rows: &'a [usize],
    /// First byte of each run, relative to that of the row.
    pub runs: &'a [usize],
    /// What the bytes make of the codes.
    pub form: ByteForm,
}

/// Where a product goes: which rows and channels of the whole result it is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Flat index of the first output row.
    pub row: usize,
    /// First output channel.
    pub channel: usize,
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
    acc: &mut Vec<i32>,
    row_sums: &mut Vec<i32>,
) {
    let [rows, columns] = extents(lhs, weights, &panels, init);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(out_stride >= columns && out.len() >= (rows - 1) * out_stride + columns, "rows of the output");
    if let Some(fused) = in_registers(simd, weights, epilogue) {
        // SAFETY: the assertion above; `out` is borrowed.
        unsafe { fused_tile(simd, lhs, weights, panels, init, place.channel, &fused, out.as_mut_ptr(), out_stride) };
        return;
    }
    let (first_column, run, factors) = (panels.start * PANEL, weights.runs()[1], weights.row_sum_factors());
    if factors.is_some() {
        sum_rows(lhs, run, row_sums);
    }
    let acc = at_least(acc, block_rows(simd) * BLOCK_COLUMNS);
    for row in (0..rows).step_by(block_rows(simd)) {
        let count = (rows - row).min(block_rows(simd));
        for panel in panels.clone().step_by(BLOCK_COLUMNS / PANEL) {
            let panels = panel..panels.end.min(panel + BLOCK_COLUMNS / PANEL);
            let column = panel * PANEL;
            let columns = (panels.end * PANEL).min(weights.n()) - column;
            let part = Lhs { rows: &lhs.rows[row..row + count], ..*lhs };
            multiply(simd, &part, run.div_ceil(4), weights, panels, &init[column..], acc);
            if let Some(factors) = factors {
                for (line, &sum) in acc.chunks_exact_mut(BLOCK_COLUMNS).zip(&row_sums[row..row + count]) {
                    for (a, &f) in line.iter_mut().zip(&factors[column..column + columns]) {
                        *a = a.wrapping_add(f.wrapping_mul(sum));
                    }
                }
            }
            let tile = AccTile {
                acc,
                stride: BLOCK_COLUMNS,
                rows: count,
                cols: columns,
                row: place.row + row,
                channel: place.channel + column,
            };
            let start = row * out_stride + column - first_column;
            epilogue.apply(simd, tile, OutTile { data: &mut out[start..], stride: out_stride });
        }
    }
}

/// Rows and columns of the product of a tile and some panels. Panics where the operands do not fit each other.
fn extents(lhs: &Lhs<'_>, weights: &PackedWeights, panels: &std::ops::Range<usize>, init: &[i32]) -> [usize; 2] {
    let [runs, run] = weights.runs();
    assert_eq!(lhs.runs.len(), runs, "runs of both operands");
    assert_eq!(init.len(), weights.panels() * PANEL, "padded initial accumulators");
    let reach = lhs.rows.iter().max().unwrap_or(&0) + lhs.runs.iter().max().unwrap_or(&0) + run.next_multiple_of(4);
    assert!(lhs.rows.is_empty() || runs == 0 || run == 0 || lhs.bytes.len() >= reach, "rows of the left operand");
    [lhs.rows.len(), (panels.end * PANEL).min(weights.n()) - panels.start * PANEL]
}

/// The form in which an epilogue is applied to these products in registers, where there is one.
fn in_registers<'e, E: Epilogue + ?Sized>(simd: Simd, weights: &PackedWeights, epilogue: &'e E) -> Option<Fused<'e>> {
    let possible = simd.fuses_epilogues() && weights.row_sum_factors().is_none();
    let fused = if possible { epilogue.fused() } else { None };
    assert!(fused.is_none() || size_of::<E::Out>() == 1, "fused epilogues write bytes");
    fused
}

/// As [`tile`], with an epilogue of [`in_registers`]; `channel` is that of the weights' first column.
///
/// # Safety
/// `fused` is of [`in_registers`] for these weights and this set. `out` points to the first column of these panels of as many
/// rows, `out_stride` apart, as the left operand has, and nothing else uses these elements meanwhile.
#[allow(clippy::too_many_arguments)]
unsafe fn fused_tile<O>(
    simd: Simd,
    lhs: &Lhs<'_>,
    weights: &PackedWeights,
    panels: std::ops::Range<usize>,
    init: &[i32],
    channel: usize,
    fused: &Fused<'_>,
    out: *mut O,
    out_stride: usize,
) {
    let [rows, columns] = extents(lhs, weights, &panels, init);
    let channel = channel + panels.start * PANEL;
    if rows == 0 || columns == 0 {
        return;
    }
    let (lines, groups) = (weights.lines_from(panels.start), weights.groups());
    assert!(lines.len() >= panels.len() * groups + TILE_LINES && fused.channels() >= channel + columns);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `in_registers` has seen the features; the assertions above and the contract are the extents of what the kernels
    // read and write.
    unsafe {
        let (per_run, init) = (weights.runs()[1].div_ceil(4), init[panels.start * PANEL..].as_ptr());
        let tiles = super::avx512::tiles(simd);
        let product = super::avx512::Product { lhs, per_run, lines, groups, init, columns, tiles };
        product.finish(fused, channel, out.cast(), out_stride);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no other architecture has epilogues in registers: {simd:?} {out:?} {out_stride}");
}

fn sum_rows(lhs: &Lhs<'_>, run: usize, sums: &mut Vec<i32>) {
    let correction = ((run * lhs.runs.len()) as i32).wrapping_mul(lhs.form.excess);
    let value = |byte: u8| if lhs.form.signed { i32::from(byte as i8) } else { i32::from(byte) };
    sums.clear();
    sums.extend(lhs.rows.iter().map(|row| {
        let bytes = lhs.runs.iter().flat_map(|start| &lhs.bytes[row + start..][..run]);
        bytes.fold(0i32, |s, &v| s.wrapping_add(value(v))).wrapping_sub(correction)
    }));
}

/// `acc[r][c] = init[c] + Σ_k a[r][k]·w[k][c]` for at most [`block_rows`] rows and the columns of `panels`; `acc` has a
/// stride of `BLOCK_COLUMNS`.
fn multiply(
    simd: Simd,
    lhs: &Lhs<'_>,
    per_run: usize,
    weights: &PackedWeights,
    panels: std::ops::Range<usize>,
    init: &[i32],
    acc: &mut [i32],
) {
    let (lines, groups, panels) = (weights.lines_from(panels.start), weights.groups(), panels.len());
    assert!(
        lines.len() >= panels * groups + TILE_LINES
            && init.len() >= panels * PANEL
            && groups == lhs.runs.len() * per_run
    );
    assert!(acc.len() >= lhs.rows.len() * BLOCK_COLUMNS && panels * PANEL <= BLOCK_COLUMNS);
    match simd.isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::AmxInt8 => {
            let (init, columns, tiles) = (init.as_ptr(), panels * PANEL, super::avx512::tiles(simd));
            let product = super::avx512::Product { lhs, per_run, lines, groups, init, columns, tiles };
            // SAFETY: the `Simd` proves the features; `tile` checked the left operand, the assertions above the rest.
            unsafe { product.store(acc.as_mut_ptr(), BLOCK_COLUMNS) }
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe {
            super::avx2::multiply_vnni(lhs, per_run, lines, groups, panels, init, acc, BLOCK_COLUMNS)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { super::avx2::multiply(lhs, per_run, lines, groups, panels, init, acc, BLOCK_COLUMNS) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => {
            let pairing = weights.pairing();
            let product = super::neon::Product { lhs, per_run, lines, groups, pairing, init, panels };
            // SAFETY: the `Simd` proves the features; `tile` checked the left operand, the assertions above the rest.
            unsafe { product.store(simd, acc, BLOCK_COLUMNS) }
        }
        _ => multiply_scalar(lhs, per_run, weights.pairing(), lines, groups, panels, init, acc),
    }
}

#[allow(clippy::too_many_arguments)]
fn multiply_scalar(
    lhs: &Lhs<'_>,
    per_run: usize,
    pairing: Pairing,
    lines: &[Line],
    groups: usize,
    panels: usize,
    init: &[i32],
    acc: &mut [i32],
) {
    assert!(!lhs.form.signed, "portable code reads unsigned bytes");
    for (out, &row) in acc.chunks_exact_mut(BLOCK_COLUMNS).zip(lhs.rows) {
        for p in 0..panels {
            let out = &mut out[p * PANEL..][..PANEL];
            out.copy_from_slice(&init[p * PANEL..][..PANEL]);
            let lines = lines[p * groups..][..groups].chunks_exact(per_run.max(1));
            for (run, lines) in lhs.runs.iter().zip(lines) {
                for (group, x) in lhs.bytes[row + run..][..per_run * 4].chunks_exact(4).enumerate() {
                    for (c, o) in out.iter_mut().enumerate() {
                        let (line, byte) = pairing.place(per_run, group, c);
                        let w = &lines[line].0[byte..][..4];
                        let dot: i32 = x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
                        *o = o.wrapping_add(dot);
                    }
                }
            }
        }
    }
}

/// Copies rows of `k` codes into rows of bytes with a stride of a multiple of four, XORed with `flip`.
fn gather_rows<X: Code8>(x: &[X], k: usize, flip: u8, rows: &mut Vec<u8>) -> usize {
    let stride = k.next_multiple_of(4);
    rows.clear();
    rows.resize(x.len() / k * stride, 0);
    for (to, from) in rows.chunks_exact_mut(stride).zip(X::bytes(x).chunks_exact(k)) {
        to[..k].copy_from_slice(from);
    }
    if flip != 0 {
        rows.iter_mut().for_each(|b| *b ^= flip);
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
    let form = ByteForm::new(engine.simd(), X::SIGNED);
    if rows == 0 || n == 0 {
        return;
    }
    let in_place = k == 0 || form.flip == 0 && k.is_multiple_of(4);
    let build = |first: usize, count: usize, scratch: &mut Scratch| {
        let stride = match in_place {
            true => k,
            false => gather_rows(&a[first * k..(first + count) * k], k, form.flip, &mut scratch.bytes),
        };
        let start = if in_place { first * stride } else { 0 };
        scratch.rows.clear();
        scratch.rows.extend((0..count).map(|r| start + r * stride));
    };
    let bytes = in_place.then(|| X::bytes(a));
    let source = Source { bytes, runs: &[0], form, build };
    let rows_per_tile = tile_rows(engine.simd(), k);
    Call::with(|Call { init: start, scratch, .. }| {
        weights.kernel_init(init, form.excess, start);
        run_tiles(engine, rows, rows_per_tile, weights, start, &source, scratch, epilogue, None, out);
    });
}

/// How tiles of the left operand come about.
pub(crate) struct Source<'a, B> {
    /// The bytes of all rows; `None` where `build` gathers them.
    pub bytes: Option<&'a [u8]>,
    /// First byte of each run, relative to that of its row.
    pub runs: &'a [usize],
    /// What the bytes make of the codes.
    pub form: ByteForm,
    /// Finds `count` rows from `first` on: their first bytes, and the bytes themselves where they are gathered.
    pub build: B,
}

impl<B> Source<'_, B> {
    fn lhs<'b>(&'b self, gathered: &'b [u8], rows: &'b [usize]) -> Lhs<'b> {
        Lhs { bytes: self.bytes.unwrap_or(gathered), rows, runs: self.runs, form: self.form }
    }
}

/// What to do with outputs that are finished: the index of the first one, and the outputs, which may be changed. It is called
/// once for each of them, from any thread.
pub type Then<'a, O> = &'a (dyn Fn(usize, &mut [O]) + Sync);

/// Outputs per task where all of them are finished before [`Then`] is called.
const THEN_CHUNK: usize = 1 << 14;

/// Calls `then` for all outputs.
pub(crate) fn all_then<O: Send>(engine: Engine<'_>, then: Option<Then<'_, O>>, out: &mut [O]) {
    if let Some(then) = then {
        engine.for_each_chunk(out, THEN_CHUNK, |i, part| then(i * THEN_CHUNK, part));
    }
}

/// Runs all tiles: over tasks of rows where there are enough of them, else over tasks of columns, which share `scratch`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn run_tiles<E: Epilogue + ?Sized, B>(
    engine: Engine<'_>,
    rows: usize,
    rows_per_tile: usize,
    weights: &PackedWeights,
    init: &[i32],
    source: &Source<'_, B>,
    scratch: &mut Scratch,
    epilogue: &E,
    then: Option<Then<'_, E::Out>>,
    out: &mut [E::Out],
) where
    B: Fn(usize, usize, &mut Scratch) + Sync,
{
    let n = weights.n();
    let simd = engine.simd();
    let panels = weights.panels();
    if engine.threads() == 1 || rows >= engine.threads() * 2 * grain(simd) || panels < 4 {
        let per_task = engine.share(rows, grain(simd));
        engine.for_each_chunk(out, per_task * n, |task, out| {
            let first = task * per_task;
            Scratch::with(|scratch| {
                for (t, out) in out.chunks_mut(rows_per_tile * n).enumerate() {
                    let row = first + t * rows_per_tile;
                    (source.build)(row, out.len() / n, scratch);
                    let Scratch { acc, row_sums, bytes, rows, .. } = &mut *scratch;
                    let lhs = source.lhs(bytes, rows);
                    let place = Place { row, channel: 0 };
                    tile(simd, &lhs, weights, 0..panels, init, place, epilogue, out, n, acc, row_sums);
                    if let Some(then) = then {
                        then(row * n, out);
                    }
                }
            });
        });
        return;
    }
    let per_task = engine.share(panels, 1);
    let part = |task: usize| task * per_task..((task + 1) * per_task).min(panels);
    for (t, out) in out.chunks_mut(rows_per_tile * n).enumerate() {
        let row = t * rows_per_tile;
        let count = out.len() / n;
        (source.build)(row, count, scratch);
        let lhs = source.lhs(&scratch.bytes, &scratch.rows);
        let fused = in_registers(simd, weights, epilogue);
        if fused.is_none() && count == 1 {
            let place = Place { row, channel: 0 };
            engine.for_each_chunk(out, per_task * PANEL, |task, out| {
                Scratch::with(|Scratch { acc, row_sums, .. }| {
                    let width = out.len();
                    tile(simd, &lhs, weights, part(task), init, place, epilogue, out, width, acc, row_sums);
                });
            });
            continue;
        }
        let shared = Shared::new(out);
        engine.for_each_task(panels.div_ceil(per_task), |task| {
            if let Some(fused) = &fused {
                let out = shared.at(part(task).start * PANEL);
                // SAFETY: the rows are those of the tile, and tasks write different columns.
                return unsafe { fused_tile(simd, &lhs, weights, part(task), init, 0, fused, out, n) };
            }
            Scratch::with(|Scratch { acc, row_sums, .. }| {
                // The columns of other tasks lie between those of this one.
                let mut block = [E::Out::default(); MOST_ROWS * BLOCK_COLUMNS];
                for first in (0..count).step_by(block_rows(simd)) {
                    let lhs = Lhs { rows: &lhs.rows[first..count.min(first + block_rows(simd))], ..lhs };
                    for panel in part(task).step_by(BLOCK_COLUMNS / PANEL) {
                        let panels = panel..part(task).end.min(panel + BLOCK_COLUMNS / PANEL);
                        let (column, width) = (panel * PANEL, (panels.end * PANEL).min(n) - panel * PANEL);
                        let place = Place { row: row + first, channel: 0 };
                        let block = &mut block[..lhs.rows.len() * width];
                        tile(simd, &lhs, weights, panels, init, place, epilogue, block, width, acc, row_sums);
                        for (r, line) in block.chunks_exact(width).enumerate() {
                            let to = shared.at((first + r) * n + column);
                            // SAFETY: as above.
                            unsafe { to.copy_from_nonoverlapping(line.as_ptr(), width) };
                        }
                    }
                }
            });
        });
    }
    all_then(engine, then, out);
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::{Accumulators, DoubleRounding, FloatScale, MulShift, ShiftRounding};
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

    /// Runs an epilogue on accumulators that come out of the product: `init[c] + r·weight` for every byte `r`.
    fn check_epilogue(epilogue: &impl Epilogue<Out = i8>, init: &[i32], weight: i8, twin: impl Fn(i32, usize) -> i32) {
        let (n, a): (usize, Vec<u8>) = (init.len(), (0..=255).collect());
        let packed = PackedWeights::from_kn(1, n, &[], &vec![weight; n]);
        let acc = |r: usize, c: usize| init[c] + i32::from(a[r]) * i32::from(weight);
        let expected: Vec<i8> = (0..256 * n).map(|i| twin(acc(i / n, i % n), i % n) as i8).collect();
        on_every_engine(|engine| {
            let mut out = vec![0i8; 256 * n];
            gemm(engine, &a, 256, &packed, init, epilogue, &mut out);
            assert!(out == expected, "{:?} {} threads", engine.simd(), engine.threads());
        });
    }

    #[test]
    fn epilogues_in_registers_equal_their_twins_on_ties() {
        const N: usize = 53;
        const REACH: u32 = 1 << 26;
        let right: Vec<i32> = (0..N as i32).map(|c| c % 24).collect();
        let mut random = Random::new(21);
        let mut multiplier = random.ints(N, 1 << 30, i32::MAX);
        // Half of the channels hit ties: with 2^30 the product is half of the accumulator.
        multiplier.iter_mut().step_by(2).for_each(|m| *m = 1 << 30);
        let offset = random.ints(N, -1 << 20, 1 << 20).iter().map(|&o| o.into()).collect::<Vec<i64>>();
        // Halves of the last place; products that leave 32 bits, where nothing is promised.
        let scale: Vec<f32> = (0..N as i32).map(|c| 2f32.powi(-(c % 24))).collect();
        let huge: Vec<f32> = scale.iter().map(|s| s * 1e30).collect();
        // The doubling product shifts by 31 more.
        let shift: Vec<u32> = right.iter().map(|&r| r as u32 + 31).collect();
        for base in [-1, 0, 1, 3, -5, 77] {
            let init: Vec<i32> = right.iter().map(|&r| (base << r.min(18)) - 128).collect();
            for weight in [1, -1, 127] {
                for (scale, within) in [(&scale, true), (&scale, false), (&huge, true)] {
                    let make = FloatScale::new(scale.clone(), -120.0, 129.0, 7, -113, 127).unwrap();
                    let twin = |a, c: usize| reference::float_scale(a, scale[c], -120.0, 129.0, 7, -113, 127);
                    check_epilogue(&if within { make.within(REACH) } else { make }, &init, weight, twin);
                }
                let make =
                    || DoubleRounding::new(vec![0; N], multiplier.clone(), right.clone(), -3, -128, 127).unwrap();
                let twin =
                    |a, c: usize| reference::double_rounding(a, 0, multiplier[c], right[c] as u32, -3, -128, 127);
                check_epilogue(&make(), &init, weight, twin);
                check_epilogue(&make().within(REACH), &init, weight, twin);
                for rounding in [ShiftRounding::Floor, ShiftRounding::HalfUp] {
                    let (m, o, s) = (multiplier.clone(), offset.clone(), shift.clone());
                    let whole = MulShift::new(m, o, s, rounding, 5, -128, 127).unwrap();
                    let twin = |a, c: usize| {
                        reference::mul_shift(a, multiplier[c], offset[c], shift[c], rounding, 5, -128, 127)
                    };
                    check_epilogue(&whole, &init, weight, twin);
                    check_epilogue(&whole.within(REACH), &init, weight, twin);
                    let (m, o, s) = (vec![23; N], offset.clone(), right.iter().map(|&r| r as u32).collect());
                    let narrow = MulShift::new(m, o, s, rounding, 5, -128, 127).unwrap().within(REACH);
                    let twin =
                        |a, c: usize| reference::mul_shift(a, 23, offset[c], right[c] as u32, rounding, 5, -128, 127);
                    check_epilogue(&narrow, &init, weight, twin);
                }
            }
        }
    }

    #[test]
    fn float_forms_of_fixed_point_epilogues_equal_their_twins_on_ties() {
        const N: usize = 53;
        const REACH: u32 = 1 << 26;
        let mut random = Random::new(22);
        let right: Vec<i32> = (0..N as i32).map(|c| c % 12).collect();
        let shift: Vec<u32> = right.iter().map(|&r| r as u32 + 31).collect();
        let mut multiplier = random.ints(N, 1 << 30, i32::MAX);
        multiplier.iter_mut().step_by(2).for_each(|m| *m = 1 << 30);
        let simd = Simd::best();
        for base in [-1, 0, 1, 3, -5, 77] {
            let init: Vec<i32> = right.iter().map(|&r| (base << r) - 128).collect();
            for (weight, (zero_point, qmin, qmax)) in [1, -1, 127]
                .into_iter()
                .flat_map(|w| [(-3, -128, 127), (-128, -128, 90), (127, -100, 127)].map(|q| (w, q)))
            {
                let (m, r) = (multiplier.clone(), right.clone());
                let twice = DoubleRounding::new(vec![0; N], m, r, zero_point, qmin, qmax).unwrap();
                let twice = twice.in_steps(simd, REACH);
                assert!(matches!(twice.fused(), Some(Fused::Steps { split: true, .. })));
                check_epilogue(&twice, &init, weight, |a, c: usize| {
                    reference::double_rounding(a, 0, multiplier[c], right[c] as u32, zero_point, qmin, qmax)
                });
                for (rounding, by_sign) in [(ShiftRounding::HalfUp, false), (ShiftRounding::HalfAway, true)] {
                    let (m, s) = (multiplier.clone(), shift.clone());
                    let once = MulShift::new(m, vec![0; N], s, rounding, zero_point, qmin, qmax).unwrap();
                    let once = once.in_steps(simd, REACH);
                    assert!(matches!(once.fused(), Some(Fused::Steps { split, .. }) if split == by_sign));
                    check_epilogue(&once, &init, weight, |a, c: usize| {
                        reference::mul_shift(a, multiplier[c], 0, shift[c], rounding, zero_point, qmin, qmax)
                    });
                }
            }
        }
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
