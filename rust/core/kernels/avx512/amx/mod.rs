//! Blocks of a matrix product on AMX tiles: up to 32 rows by 32 columns in four tile registers of 32-bit sums.
//!
//! A tile register holds sixteen rows of 64 bytes. Sixteen lines of a panel of packed weights are such a tile as they are: four
//! `k` of sixteen columns each. So are 64 bytes of sixteen rows of the left operand, where these are as far apart as the next
//! ones and their runs are whole tiles; elsewhere the rows of a block are copied first, once for all panels:
//!
//! ```text
//! for block in blocks of 32 rows
//!     rows = the rows of the block, or a copy with all runs one after the other and zeros up to a multiple of 64 bytes
//!     for two panels of 16 columns
//!         sums[2][2] = initial accumulators of the panels
//!         for 64 bytes of the rows
//!             a[2] = 2 · 16 rows of 64 bytes;  b[2] = 16 lines of each panel
//!             sums[i][j] += a[i] · b[j]
//!         finish the sums
//! ```
//!
//! What the weights' last tile holds beyond its panel meets the zeros of the copy.

mod block;
mod system;

use super::super::pack::{PANEL, TILE_LINES};
use super::super::scratch::with_kept;
use super::product::{Finish, Product};
use block::{Block, COLUMNS, ROWS, Sums, TILE_BYTES, TILE_ROWS};
use std::arch::x86_64::*;
use std::cell::Cell;
use system::{configure, release};

pub(in super::super) use block::Tiles;
pub(in super::super) use system::is_available;

/// Rows below which vectors are as fast as a tile that is mostly empty.
const FEWEST_ROWS: usize = 8;

/// Groups of four `k` below which copying the rows and storing the sums takes as many instructions as vectors take in all.
const FEWEST_GROUPS: usize = 8;

thread_local! {
    /// Where blocks copy their rows, and where the tiles of a row begin.
    static BUFFERS: Cell<(Vec<u8>, Vec<usize>)> = Cell::default();
}

/// Computes and finishes all rows of a product but a few at its end; gives how many.
///
/// # Safety
/// As [`Product::run`]; behind the lines of the last panel are [`TILE_LINES`] more, and the machine has what `tiles` names.
pub(super) unsafe fn run<F: Finish>(
    tiles: Tiles,
    product: &Product<'_>,
    finish: F,
    out: *mut F::Out,
    stride: usize,
) -> usize {
    let rows = product.lhs.rows.len();
    let blocks = rows / ROWS + usize::from(rows % ROWS >= FEWEST_ROWS);
    if blocks == 0 || product.groups < FEWEST_GROUPS {
        return 0;
    }
    // SAFETY: the caller's; tiles are configured until the last block is finished.
    with_kept(&BUFFERS, |(copy, steps)| unsafe {
        if tiles == Tiles::Hardware {
            configure();
        }
        for block in 0..blocks {
            let first = block * ROWS;
            let count = (rows - first).min(ROWS);
            let (from, row_stride) = match product.place(first, count, steps) {
                Some(row_stride) => (product.lhs.bytes.as_ptr().add(product.lhs.rows[first]), row_stride),
                None => product.copy(first, count, copy, steps),
            };
            product.panels_by_tiles(tiles, finish, (from, row_stride, steps), count, out.add(first * stride), stride);
        }
        if tiles == Tiles::Hardware {
            release();
        }
    });
    rows.min(blocks * ROWS)
}

impl Product<'_> {
    /// Bytes from one of `count` rows to the next where whole tiles of them can be read in place; `steps` are then relative to
    /// the first row.
    fn place(&self, first: usize, count: usize, steps: &mut Vec<usize>) -> Option<usize> {
        let rows = &self.lhs.rows[first..first + count];
        let distance = rows[1].checked_sub(rows[0])?;
        let whole = count.is_multiple_of(TILE_ROWS) && (4 * self.per_run).is_multiple_of(TILE_BYTES);
        if !whole || rows.windows(2).any(|pair| pair[1].wrapping_sub(pair[0]) != distance) {
            return None;
        }
        let tiles = 4 * self.per_run / TILE_BYTES;
        steps.clear();
        steps.extend(self.lhs.runs.iter().flat_map(|run| (0..tiles).map(move |tile| run + tile * TILE_BYTES)));
        Some(distance)
    }

    /// Copies `count` rows one after the other, with all runs of a row together and zeros up to whole tiles; gives the first of
    /// them and the bytes from one to the next.
    fn copy(&self, first: usize, count: usize, copy: &mut Vec<u8>, steps: &mut Vec<usize>) -> (*const u8, usize) {
        let tiles = self.groups.div_ceil(TILE_LINES);
        // One tile more than a row has, so that rows of powers of two do not meet in the same lines of the cache.
        let (run, stride) = (4 * self.per_run, (tiles + 1) * TILE_BYTES);
        // What an earlier block left in rows beyond `count` gives sums that nobody reads.
        copy.resize(copy.len().max(ROWS * stride), 0);
        for (&row, to) in self.lhs.rows[first..first + count].iter().zip(copy.chunks_exact_mut(stride)) {
            for (from, to) in self.lhs.runs.iter().zip(to.chunks_exact_mut(run)) {
                to.copy_from_slice(&self.lhs.bytes[row + from..][..run]);
            }
            to[4 * self.groups..].fill(0);
        }
        steps.clear();
        steps.extend((0..tiles).map(|tile| tile * TILE_BYTES));
        (copy.as_ptr(), stride)
    }

    /// Multiplies a block of rows by all panels and finishes `count` rows.
    ///
    /// # Safety
    /// As [`run`], with tiles configured; 32 rows can be read, or 16 where `count` is no more.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn panels_by_tiles<F: Finish>(
        &self,
        tiles: Tiles,
        finish: F,
        (rows, stride, steps): (*const u8, usize, &[usize]),
        count: usize,
        out: *mut F::Out,
        out_stride: usize,
    ) {
        let mut sums = Sums([[0; COLUMNS]; ROWS]);
        let panels = self.columns.div_ceil(PANEL);
        for panel in (0..panels).step_by(2) {
            let column = panel * PANEL;
            // SAFETY: the panels are among those of the contract.
            unsafe {
                let lines = self.lines.as_ptr().add(panel * self.groups).cast();
                let init = self.init.add(column);
                let block = Block { rows, stride, steps, lines, panel: self.groups * TILE_BYTES, init };
                let to = out.add(column);
                if panels - panel > 1 {
                    block.multiply(tiles, [count.div_ceil(TILE_ROWS), 2], &mut sums);
                    finish_rows::<2, F>(&sums, finish, count, column, self.columns - column, to, out_stride);
                } else {
                    block.multiply(tiles, [count.div_ceil(TILE_ROWS), 1], &mut sums);
                    finish_rows::<1, F>(&sums, finish, count, column, self.columns - column, to, out_stride);
                }
            }
        }
    }
}

/// Finishes the first `count` rows of a block of `V` panels.
///
/// # Safety
/// As [`Finish::finish`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn finish_rows<const V: usize, F: Finish>(
    sums: &Sums,
    finish: F,
    count: usize,
    column: usize,
    columns: usize,
    out: *mut F::Out,
    stride: usize,
) {
    let mut row = 0;
    macro_rules! rows {
        ($($r:literal),+) => {$(
            while count - row >= $r {
                // SAFETY: the sums have whole rows; the rest is the caller's.
                unsafe {
                    let acc: [[__m512i; V]; $r] = std::array::from_fn(|r| {
                        std::array::from_fn(|v| _mm512_load_si512(sums.0[row + r][PANEL * v..].as_ptr().cast()))
                    });
                    finish.finish(&acc, column, columns, out.add(row * stride), stride);
                }
                row += $r;
            }
        )+};
    }
    rows!(8, 4, 2, 1);
}

#[cfg(test)]
mod tests {
    use super::super::super::byte_form::ByteForm;
    use super::super::super::epilogue::{Epilogue, FloatScale};
    use super::super::super::gemm::Lhs;
    use super::super::super::isa::{Isa, Simd};
    use super::super::super::pack::{Columns, PackedWeights};
    use super::super::super::testing::Random;
    use super::*;

    /// Whatever this machine computes tiles with.
    fn all_tiles() -> Vec<Tiles> {
        let hardware = is_available().then_some(Tiles::Hardware);
        [Tiles::Twin].into_iter().chain(hardware).collect()
    }

    /// Compares tiles with vectors, for rows that begin where `start` says.
    fn check(runs: usize, run: usize, rows: usize, n: usize, start: impl Fn(usize) -> usize) {
        let Some(simd) = Simd::new(Isa::Avx512Vnni) else { return };
        let mut random = Random::new((runs * 1000 + run * 100 + rows * 10 + n) as u64);
        let (k, per_run) = (runs * run, run.div_ceil(4));
        let weights: Vec<i8> = random.codes(k * n);
        let packed = PackedWeights::in_runs([runs, run], n, &[], Columns::Given(&weights));
        let starts: Vec<usize> = (0..rows).map(&start).collect();
        // Runs that neither touch nor follow one distance.
        let offsets: Vec<usize> = (0..runs).map(|i| i * (run + 4) + i * i).collect();
        let end = starts.iter().max().unwrap_or(&0) + offsets.last().unwrap_or(&0) + per_run * 4;
        let bytes: Vec<u8> = random.codes(end);
        let lhs = Lhs { bytes: &bytes, rows: &starts, runs: &offsets, form: ByteForm::new(simd, false) };
        let mut init = Vec::new();
        packed.kernel_init(&random.ints(n, -1 << 20, 1 << 20), 0, &mut init);
        let scale: Vec<f32> = random.floats(n).iter().map(|v| v * 1e-3).collect();
        let epilogue = FloatScale::<u8>::new(scale, -100.0, 27.0, 100, 0, 255).unwrap();
        let fused = epilogue.fused().unwrap();
        let compute = |tiles: Option<Tiles>| {
            let width = packed.panels() * PANEL;
            let (mut sums, mut codes) = (vec![i32::MIN; rows * width], vec![77u8; rows * n]);
            let (lines, groups) = (packed.lines_from(0), packed.groups());
            let product = |columns| Product { lhs: &lhs, per_run, lines, groups, init: init.as_ptr(), columns, tiles };
            // SAFETY: the machine has the set and the tiles; the operands are made for each other.
            unsafe {
                product(width).store(sums.as_mut_ptr(), width);
                product(n).finish(&fused, 0, codes.as_mut_ptr(), n);
            }
            (sums, codes)
        };
        let expected = compute(None);
        for tiles in all_tiles() {
            assert!(compute(Some(tiles)) == expected, "{tiles:?}: {runs} × {run}, {rows} rows, {n} columns");
        }
    }

    #[test]
    fn blocks_of_any_extent_equal_vectors() {
        for (runs, run) in [(1, 64), (1, 28), (1, 29), (2, 64), (3, 192), (9, 20), (3, 70), (1, 1000)] {
            for rows in [7, 8, 15, 16, 17, 31, 32, 39, 40, 48, 64, 70] {
                for n in [1, 15, 16, 17, 32, 40, 48, 90] {
                    check(runs, run, rows, n, |row| row * run);
                }
            }
        }
    }

    #[test]
    fn rows_at_any_distance_equal_vectors() {
        for (runs, run) in [(1, 64), (3, 128), (2, 36)] {
            for rows in [16, 32, 64, 80] {
                // Lines of an image, backward, the same row again and again.
                check(runs, run, rows, 33, |row| row * run + row / 14 * 2 * run);
                check(runs, run, rows, 33, |row| (rows - row) * run);
                check(runs, run, rows, 33, |_| 5);
                check(runs, run, rows, 33, |row| row * (run + 1));
            }
        }
    }

    #[test]
    fn a_few_rows_are_left_to_vectors() {
        let Some(simd) = Simd::new(Isa::Avx512Vnni) else { return };
        let packed = PackedWeights::from_nk(32, 1, &[], &[1i8; 32]);
        let bytes = [1u8; 32 * 100];
        for rows in 0..100 {
            let starts: Vec<usize> = (0..rows).map(|r| 32 * r).collect();
            let lhs = Lhs { bytes: &bytes, rows: &starts, runs: &[0], form: ByteForm::new(simd, false) };
            let (lines, groups, mut init) = (packed.lines_from(0), packed.groups(), Vec::new());
            packed.kernel_init(&[], 0, &mut init);
            let tiles = Some(Tiles::Twin);
            let product = Product { lhs: &lhs, per_run: 8, lines, groups, init: init.as_ptr(), columns: 16, tiles };
            let mut sums = vec![0; rows * 16];
            // SAFETY: as above.
            let done = unsafe { run(Tiles::Twin, &product, super::super::product::Store, sums.as_mut_ptr(), 16) };
            assert_eq!(done, if rows % 32 < FEWEST_ROWS { rows / 32 * 32 } else { rows });
            assert!(sums.iter().enumerate().all(|(i, &s)| s == if i % 16 == 0 && i / 16 < done { 32 } else { 0 }));
        }
    }
}
