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

use super::super::pack::{PANEL, TILE_LINES};
use super::product::{Finish, Product};
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::sync::OnceLock;

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
const TILE_BYTES: usize = 64;
/// Rows of a block.
pub(super) const ROWS: usize = 2 * TILE_ROWS;
/// Columns of a block.
const COLUMNS: usize = 2 * PANEL;
/// Rows below which vectors are as fast as a tile that is mostly empty.
const FEWEST_ROWS: usize = 8;

/// What computes with tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Tiles {
    /// AMX-INT8.
    Hardware,
    /// Portable code, for tests on other machines.
    #[cfg(test)]
    Twin,
}

/// The sums of a block.
#[repr(C, align(64))]
struct Sums([[i32; COLUMNS]; ROWS]);

/// Operands of a block of `A · 16` rows by `B` panels.
struct Block<'a> {
    /// The first row.
    rows: *const u8,
    /// Bytes from one row to the next.
    stride: usize,
    /// First of each 64 bytes of a row that meet a tile of the weights.
    steps: &'a [usize],
    /// The first line of the first panel, and bytes from one panel to the next.
    lines: *const i8,
    panel: usize,
    /// Initial accumulators of the panels.
    init: *const i32,
}

thread_local! {
    /// The copy of the rows of the last block on this thread, for its memory.
    static COPY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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
    if blocks == 0 || product.groups == 0 {
        return 0;
    }
    let mut copy = COPY.take();
    let mut steps = Vec::new();
    // SAFETY: the caller's; tiles are configured until the last block is finished.
    unsafe {
        if tiles == Tiles::Hardware {
            configure();
        }
        for block in 0..blocks {
            let first = block * ROWS;
            let count = (rows - first).min(ROWS);
            let (from, row_stride) = match product.place(first, count, &mut steps) {
                Some(row_stride) => (product.lhs.bytes.as_ptr().add(product.lhs.rows[first]), row_stride),
                None => product.copy(first, count, &mut copy, &mut steps),
            };
            product.panels_by_tiles(tiles, finish, (from, row_stride, &steps), count, out.add(first * stride), stride);
        }
        if tiles == Tiles::Hardware {
            release();
        }
    }
    COPY.set(copy);
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

impl Block<'_> {
    /// The sums of `rows · 16` rows and `panels` panels, both one or two; steps are at least one.
    ///
    /// # Safety
    /// The extents of the operands, and tiles as [`configure`] makes them.
    unsafe fn multiply(&self, tiles: Tiles, [rows, panels]: [usize; 2], sums: &mut Sums) {
        // SAFETY: the caller's.
        unsafe {
            match tiles {
                Tiles::Hardware => match (rows, panels) {
                    (1, 1) => self.one_by_one(sums),
                    (1, _) => self.one_by_two(sums),
                    (_, 1) => self.two_by_one(sums),
                    _ => self.two_by_two(sums),
                },
                #[cfg(test)]
                Tiles::Twin => self.twin([rows, panels], sums),
            }
        }
    }

    /// What the hardware computes.
    #[cfg(test)]
    unsafe fn twin(&self, [rows, panels]: [usize; 2], sums: &mut Sums) {
        for (r, c) in (0..rows * TILE_ROWS).flat_map(|r| (0..panels * PANEL).map(move |c| (r, c))) {
            // SAFETY: the caller's.
            unsafe {
                let mut sum = *self.init.add(c);
                for (tile, step) in self.steps.iter().enumerate() {
                    for k in 0..TILE_BYTES {
                        let line = tile * TILE_LINES + k / 4;
                        let w = *self.lines.add(c / PANEL * self.panel + line * TILE_BYTES + c % PANEL * 4 + k % 4);
                        let x = *self.rows.add(r * self.stride + step + k);
                        sum = sum.wrapping_add(i32::from(x) * i32::from(w));
                    }
                }
                sums.0[r][c] = sum;
            }
        }
    }
}

/// Defines a method of [`Block`] on tiles: the sums begin as the initial accumulators (a stride of zero repeats their row), are
/// summed over all steps, and are stored.
macro_rules! product_of_tiles {
    ($name:ident: load $($load:literal),+; step $($step:literal),+; store $($store:literal),+) => {
        impl Block<'_> {
            /// # Safety
            /// As [`Block::multiply`].
            unsafe fn $name(&self, sums: &mut Sums) {
                // SAFETY: what the tiles read is the caller's; the sums are 32 rows of 128 bytes. The compiler uses no tile
                // registers.
                unsafe {
                    asm!(
                        $($load,)+
                        "2:",
                        "mov {a0}, [{step}]",
                        "lea {a1}, [{upper} + {a0}]",
                        "add {a0}, {lower}",
                        $($step,)+
                        "add {step}, 8",
                        "add {b0}, 1024",
                        "add {b1}, 1024",
                        "dec {count}",
                        "jnz 2b",
                        "mov {a0}, 128",
                        $($store,)+
                        // The initial accumulators and the stride of zero, and the rows after that.
                        a0 = inout(reg) self.init => _,
                        a1 = inout(reg) 0usize => _,
                        b0 = inout(reg) self.lines => _,
                        b1 = inout(reg) self.lines.wrapping_add(self.panel) => _,
                        step = inout(reg) self.steps.as_ptr() => _,
                        count = inout(reg) self.steps.len() => _,
                        lower = in(reg) self.rows,
                        upper = in(reg) self.rows.wrapping_add(TILE_ROWS * self.stride),
                        stride = in(reg) self.stride,
                        line = in(reg) TILE_BYTES,
                        sums = in(reg) sums.0.as_mut_ptr(),
                        options(nostack)
                    );
                }
            }
        }
    };
}

product_of_tiles!(one_by_one:
    load "tileloadd tmm0, [{a0} + {a1}*1]";
    step
        "tileloadd tmm6, [{b0} + {line}*1]",
        "tileloadd tmm4, [{a0} + {stride}*1]",
        "tdpbusd tmm0, tmm4, tmm6";
    store "tilestored [{sums} + {a0}*1], tmm0");

product_of_tiles!(one_by_two:
    load
        "tileloadd tmm0, [{a0} + {a1}*1]",
        "tileloadd tmm1, [{a0} + {a1}*1 + 64]";
    step
        "tileloadd tmm6, [{b0} + {line}*1]",
        "tileloadd tmm4, [{a0} + {stride}*1]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {line}*1]",
        "tdpbusd tmm1, tmm4, tmm7";
    store
        "tilestored [{sums} + {a0}*1], tmm0",
        "tilestored [{sums} + {a0}*1 + 64], tmm1");

product_of_tiles!(two_by_one:
    load
        "tileloadd tmm0, [{a0} + {a1}*1]",
        "tileloadd tmm2, [{a0} + {a1}*1]";
    step
        "tileloadd tmm6, [{b0} + {line}*1]",
        "tileloadd tmm4, [{a0} + {stride}*1]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{a1} + {stride}*1]",
        "tdpbusd tmm2, tmm5, tmm6";
    store
        "tilestored [{sums} + {a0}*1], tmm0",
        "tilestored [{sums} + {a0}*1 + 2048], tmm2");

product_of_tiles!(two_by_two:
    load
        "tileloadd tmm0, [{a0} + {a1}*1]",
        "tileloadd tmm1, [{a0} + {a1}*1 + 64]",
        "tileloadd tmm2, [{a0} + {a1}*1]",
        "tileloadd tmm3, [{a0} + {a1}*1 + 64]";
    step
        "tileloadd tmm6, [{b0} + {line}*1]",
        "tileloadd tmm4, [{a0} + {stride}*1]",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {line}*1]",
        "tdpbusd tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{a1} + {stride}*1]",
        "tdpbusd tmm2, tmm5, tmm6",
        "tdpbusd tmm3, tmm5, tmm7";
    store
        "tilestored [{sums} + {a0}*1], tmm0",
        "tilestored [{sums} + {a0}*1 + 64], tmm1",
        "tilestored [{sums} + {a0}*1 + 2048], tmm2",
        "tilestored [{sums} + {a0}*1 + 2112], tmm3");

/// The operand of `ldtilecfg`: palette, row to start at, bytes of a row and rows of each register.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight whole registers.
static WHOLE: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Makes all tile registers of this thread whole.
///
/// # Safety
/// [`is_available`] holds.
unsafe fn configure() {
    // SAFETY: a configuration of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly)) }
}

/// Gives the tile registers of this thread up: the system need not save them.
///
/// # Safety
/// [`is_available`] holds.
unsafe fn release() {
    // SAFETY: no operands.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Whether the processor has AMX-TILE and AMX-INT8, and the system lets this process use tile registers, which it must be asked
/// for once.
pub(in super::super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_tiles() && are_permitted())
}

/// Bits 24 (AMX-TILE) and 25 (AMX-INT8) of EDX of leaf 7, and in XCR0 bits 17 and 18, the state of tiles.
fn has_tiles() -> bool {
    let (basic, features) = (__cpuid(0), __cpuid(1));
    let saves_states = features.ecx >> 27 & 1 == 1;
    if basic.eax < 7 || !saves_states || __cpuid_count(7, 0).edx >> 24 & 3 != 3 {
        return false;
    }
    let (low, _high): (u32, u32);
    // SAFETY: OSXSAVE says that the instruction exists.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _high, options(nostack, nomem));
    }
    low >> 17 & 3 == 3
}

/// Asks Linux for the state of tiles (`ARCH_REQ_XCOMP_PERM` of `arch_prctl`).
#[cfg(target_os = "linux")]
fn are_permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const REQUEST_STATE: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: a system call with two integers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_STATE,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// What other systems want to be asked is not known here.
#[cfg(not(target_os = "linux"))]
fn are_permitted() -> bool {
    false
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
        let init = packed.kernel_init(&random.ints(n, -1 << 20, 1 << 20), 0);
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
        for (runs, run) in [(1, 64), (1, 3), (1, 16), (2, 64), (3, 192), (9, 20), (3, 70), (1, 1000)] {
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
        let packed = PackedWeights::from_nk(8, 1, &[], &[1i8; 8]);
        let bytes = [1u8; 8 * 100];
        for rows in 0..100 {
            let starts: Vec<usize> = (0..rows).map(|r| 8 * r).collect();
            let lhs = Lhs { bytes: &bytes, rows: &starts, runs: &[0], form: ByteForm::new(simd, false) };
            let (lines, groups, init) = (packed.lines_from(0), packed.groups(), packed.kernel_init(&[], 0));
            let tiles = Some(Tiles::Twin);
            let product = Product { lhs: &lhs, per_run: 2, lines, groups, init: init.as_ptr(), columns: 16, tiles };
            let mut sums = vec![0; rows * 16];
            // SAFETY: as above.
            let done = unsafe { run(Tiles::Twin, &product, super::super::product::Store, sums.as_mut_ptr(), 16) };
            assert_eq!(done, if rows % 32 < FEWEST_ROWS { rows / 32 * 32 } else { rows });
            assert!(sums.iter().enumerate().all(|(i, &s)| s == if i % 16 == 0 && i / 16 < done { 8 } else { 0 }));
        }
    }
}
