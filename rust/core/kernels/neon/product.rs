//! Tiles of a matrix product: up to six rows by sixteen columns in registers.
//!
//! Two groups of four `k` are taken at a time: eight bytes of each row, two rows to a register. What remains of a run is one
//! group.

use super::super::gemm::Lhs;
use super::super::isa::{Isa, Simd};
use super::super::pack::{Line, PANEL, Pairing};
use super::dot::{dot_lane, matrix, matrix_unsigned};
use std::arch::aarch64::*;

/// Operands of `init[c] + Σ_k a[r][k]·w[k][c]`.
pub(in super::super) struct Product<'a> {
    /// Rows of the left operand.
    pub lhs: &'a Lhs<'a>,
    /// Groups of four in each of its runs.
    pub per_run: usize,
    /// Panels of the weights, `groups` lines each.
    pub lines: &'a [Line],
    /// Groups of all runs.
    pub groups: usize,
    /// How they lie in the lines.
    pub pairing: Pairing,
    /// Initial accumulators of whole panels.
    pub init: &'a [i32],
    /// Panels.
    pub panels: usize,
}

/// Some rows and a panel.
struct Tile<'a> {
    bytes: *const u8,
    rows: &'a [usize],
    runs: &'a [usize],
    per_run: usize,
    weights: *const i8,
    init: *const i32,
    out: *mut i32,
    stride: usize,
}

/// A micro-kernel, and how many rows it takes.
///
/// The machine must have its features; the tile must have so many rows, whose runs and weights may be read and whose outputs
/// may be written.
type Kernel = (usize, unsafe fn(&Tile<'_>));

const WIDEN: [Kernel; 2] = [(2, widen::<2, false>), (1, widen::<1, false>)];
const WIDEN_PAIRED: [Kernel; 2] = [(2, widen::<2, true>), (1, widen::<1, true>)];
const DOT: [Kernel; 4] =
    [(6, dots::<6, 3, false>), (4, dots::<4, 2, false>), (2, dots::<2, 1, false>), (1, dots::<1, 1, false>)];
const DOT_PAIRED: [Kernel; 4] =
    [(6, dots::<6, 3, true>), (4, dots::<4, 2, true>), (2, dots::<2, 1, true>), (1, dots::<1, 1, true>)];
const MATRIX: [Kernel; 4] =
    [(6, squares::<6, 3, true>), (4, squares::<4, 2, true>), (2, squares::<2, 1, true>), (1, squares::<1, 1, true>)];
const MATRIX_UNSIGNED: [Kernel; 4] = [
    (6, squares::<6, 3, false>),
    (4, squares::<4, 2, false>),
    (2, squares::<2, 1, false>),
    (1, squares::<1, 1, false>),
];

impl Product<'_> {
    /// Stores the accumulators of whole panels to `out`, whose rows are `stride` apart.
    ///
    /// # Safety
    /// `simd` is one of AArch64. All runs of all rows lie in the left operand, up to a multiple of four bytes, in the form for
    /// that set; `lines` holds `panels·groups` lines, `init` holds `16·panels` values.
    pub(in super::super) unsafe fn store(&self, simd: Simd, out: &mut [i32], stride: usize) {
        let paired = self.pairing == Pairing::Interleaved;
        let kernels: &[Kernel] = match simd.isa() {
            Isa::NeonI8mm => {
                assert!(paired, "weights are interleaved where there are matrix products");
                if self.lhs.form.signed { &MATRIX } else { &MATRIX_UNSIGNED }
            }
            Isa::NeonDot if paired => &DOT_PAIRED,
            Isa::NeonDot => &DOT,
            _ if paired => &WIDEN_PAIRED,
            _ => &WIDEN,
        };
        for panel in 0..self.panels {
            let mut row = 0;
            for &(rows, kernel) in kernels {
                while self.lhs.rows.len() - row >= rows {
                    let tile = Tile {
                        bytes: self.lhs.bytes.as_ptr(),
                        rows: &self.lhs.rows[row..row + rows],
                        runs: self.lhs.runs,
                        per_run: self.per_run,
                        weights: self.lines[panel * self.groups..].as_ptr().cast(),
                        init: self.init[panel * PANEL..][..PANEL].as_ptr(),
                        out: out[row * stride + panel * PANEL..][..(rows - 1) * stride + PANEL].as_mut_ptr(),
                        stride,
                    };
                    // SAFETY: the `Simd` proves the features; the caller vouches for the rows and the weights, and the
                    // outputs are those of the slice.
                    unsafe { kernel(&tile) };
                    row += rows;
                }
            }
        }
    }
}

impl Tile<'_> {
    /// First bytes of a run of `R` rows.
    fn starts<const R: usize>(&self, run: usize) -> [*const u8; R] {
        std::array::from_fn(|r| self.bytes.wrapping_add(self.rows[r] + run))
    }
}

/// The weights of columns `4·q..4·q + 4` of two groups.
///
/// # Safety
/// The lines of both may be read at `from`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn two_groups<const PAIRED: bool>(from: *const i8, q: usize) -> [int8x16_t; 2] {
    // SAFETY: the caller's.
    unsafe {
        if PAIRED {
            let columns = vld2q_s32(from.add(32 * q).cast());
            [vreinterpretq_s8_s32(columns.0), vreinterpretq_s8_s32(columns.1)]
        } else {
            [vld1q_s8(from.add(16 * q)), vld1q_s8(from.add(64 + 16 * q))]
        }
    }
}

/// Eight bytes of each of `R` rows from byte `at` on, rows `2·p` and `2·p + 1` in register `p`.
///
/// # Safety
/// The bytes may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn eights<const R: usize, const P: usize>(rows: &[*const u8; R], at: usize) -> [int8x16_t; P] {
    std::array::from_fn(|p| {
        // SAFETY: the caller's.
        unsafe {
            let first = vld1_s8(rows[2 * p].add(at).cast());
            let second = if 2 * p + 1 < R { vld1_s8(rows[2 * p + 1].add(at).cast()) } else { first };
            vcombine_s8(first, second)
        }
    })
}

/// Four bytes of each row, followed by four zeros, as [`eights`].
///
/// # Safety
/// The bytes may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn fours<const R: usize, const P: usize>(rows: &[*const u8; R], at: usize) -> [int8x16_t; P] {
    std::array::from_fn(|p| {
        // SAFETY: the caller's.
        unsafe {
            let four = |r: usize| rows[r].add(at).cast::<i32>().read_unaligned();
            let first = vsetq_lane_s32::<0>(four(2 * p), vdupq_n_s32(0));
            vreinterpretq_s8_s32(vsetq_lane_s32::<2>(four((2 * p + 1).min(R - 1)), first))
        }
    })
}

/// Signed bytes by the dot product; `P` is half of `R`, rounded up.
///
/// # Safety
/// As [`Kernel`] says.
#[target_feature(enable = "neon,dotprod")]
unsafe fn dots<const R: usize, const P: usize, const PAIRED: bool>(tile: &Tile<'_>) {
    // SAFETY: all addresses lie within the rows, the weights, the initial accumulators and the outputs of the tile.
    unsafe {
        let init: [int32x4_t; 4] = std::array::from_fn(|q| vld1q_s32(tile.init.add(4 * q)));
        let mut acc = [init; R];
        let mut weights = tile.weights;
        for &run in tile.runs {
            let rows = tile.starts::<R>(run);
            for pair in 0..tile.per_run / 2 {
                let x: [int8x16_t; P] = eights(&rows, 8 * pair);
                for q in 0..4 {
                    let [first, second] = two_groups::<PAIRED>(weights, q);
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let x = x[r / 2];
                        acc[q] =
                            if r % 2 == 0 { dot_lane::<0>(acc[q], first, x) } else { dot_lane::<2>(acc[q], first, x) };
                    }
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let x = x[r / 2];
                        acc[q] = if r % 2 == 0 {
                            dot_lane::<1>(acc[q], second, x)
                        } else {
                            dot_lane::<3>(acc[q], second, x)
                        };
                    }
                }
                weights = weights.add(128);
            }
            if tile.per_run % 2 == 1 {
                let x: [int8x16_t; P] = fours(&rows, 4 * (tile.per_run - 1));
                for q in 0..4 {
                    let w = vld1q_s8(weights.add(16 * q));
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let x = x[r / 2];
                        acc[q] = if r % 2 == 0 { dot_lane::<0>(acc[q], w, x) } else { dot_lane::<2>(acc[q], w, x) };
                    }
                }
                weights = weights.add(64);
            }
        }
        for (r, sums) in acc.into_iter().enumerate() {
            for (q, sums) in sums.into_iter().enumerate() {
                vst1q_s32(tile.out.add(r * tile.stride + 4 * q), sums);
            }
        }
    }
}

/// Bytes by the matrix product, which multiplies two rows and two columns; `P` is half of `R`, rounded up. The weights are
/// interleaved.
///
/// # Safety
/// As [`Kernel`] says.
#[target_feature(enable = "neon,i8mm")]
unsafe fn squares<const R: usize, const P: usize, const SIGNED: bool>(tile: &Tile<'_>) {
    // SAFETY: all addresses lie within the rows, the weights, the initial accumulators and the outputs of the tile.
    unsafe {
        // acc[p][j] holds columns 2j and 2j + 1 of row 2p, then of row 2p + 1.
        let init: [int32x4_t; 8] = std::array::from_fn(|j| {
            let columns = vld1_s32(tile.init.add(2 * j));
            vcombine_s32(columns, columns)
        });
        let mut acc = [init; P];
        let mut weights = tile.weights;
        for &run in tile.runs {
            let rows = tile.starts::<R>(run);
            for pair in 0..tile.per_run / 2 {
                let x: [int8x16_t; P] = eights(&rows, 8 * pair);
                for j in 0..8 {
                    let w = vld1q_s8(weights.add(16 * j));
                    for (acc, &x) in acc.iter_mut().zip(&x) {
                        acc[j] = if SIGNED { matrix(acc[j], x, w) } else { matrix_unsigned(acc[j], x, w) };
                    }
                }
                weights = weights.add(128);
            }
            if tile.per_run % 2 == 1 {
                // The upper four bytes of each row are zero, whatever the weights beside them.
                let x: [int8x16_t; P] = fours(&rows, 4 * (tile.per_run - 1));
                for q in 0..4 {
                    let w = vld1q_s32(weights.add(16 * q).cast());
                    for (half, w) in [vzip1q_s32(w, w), vzip2q_s32(w, w)].into_iter().enumerate() {
                        let (j, w) = (2 * q + half, vreinterpretq_s8_s32(w));
                        for (acc, &x) in acc.iter_mut().zip(&x) {
                            acc[j] = if SIGNED { matrix(acc[j], x, w) } else { matrix_unsigned(acc[j], x, w) };
                        }
                    }
                }
                weights = weights.add(64);
            }
        }
        for (p, sums) in acc.into_iter().enumerate() {
            for q in 0..4 {
                let (a, b) = (vreinterpretq_s64_s32(sums[2 * q]), vreinterpretq_s64_s32(sums[2 * q + 1]));
                let to = tile.out.add(2 * p * tile.stride + 4 * q);
                vst1q_s32(to, vreinterpretq_s32_s64(vzip1q_s64(a, b)));
                if 2 * p + 1 < R {
                    vst1q_s32(to.add(tile.stride), vreinterpretq_s32_s64(vzip2q_s64(a, b)));
                }
            }
        }
    }
}

/// Signed bytes by products of 16 bits, which are added in pairs.
///
/// # Safety
/// As [`Kernel`] says.
#[target_feature(enable = "neon")]
unsafe fn widen<const R: usize, const PAIRED: bool>(tile: &Tile<'_>) {
    // SAFETY: all addresses lie within the rows, the weights, the initial accumulators and the outputs of the tile.
    unsafe {
        // acc[r][j] holds, for columns 2j and 2j + 1, the sums of the first and of the second pairs of products.
        let mut acc = [[vdupq_n_s32(0); 8]; R];
        let mut weights = tile.weights;
        let add = |acc: &mut [[int32x4_t; 8]; R], q: usize, w: int8x16_t, x: [int8x16_t; R]| {
            for (acc, x) in acc.iter_mut().zip(x) {
                acc[2 * q] = vpadalq_s16(acc[2 * q], vmull_s8(vget_low_s8(w), vget_low_s8(x)));
                acc[2 * q + 1] = vpadalq_s16(acc[2 * q + 1], vmull_high_s8(w, x));
            }
        };
        for &run in tile.runs {
            let rows = tile.starts::<R>(run);
            let four = |group: usize| {
                rows.map(|row| vreinterpretq_s8_s32(vdupq_n_s32(row.add(4 * group).cast::<i32>().read_unaligned())))
            };
            for pair in 0..tile.per_run / 2 {
                let (x, y) = (four(2 * pair), four(2 * pair + 1));
                for q in 0..4 {
                    let [first, second] = two_groups::<PAIRED>(weights, q);
                    add(&mut acc, q, first, x);
                    add(&mut acc, q, second, y);
                }
                weights = weights.add(128);
            }
            if tile.per_run % 2 == 1 {
                let x = four(tile.per_run - 1);
                for q in 0..4 {
                    add(&mut acc, q, vld1q_s8(weights.add(16 * q)), x);
                }
                weights = weights.add(64);
            }
        }
        for (r, sums) in acc.into_iter().enumerate() {
            for q in 0..4 {
                let start = vld1q_s32(tile.init.add(4 * q));
                let sums = vaddq_s32(start, vpaddq_s32(sums[2 * q], sums[2 * q + 1]));
                vst1q_s32(tile.out.add(r * tile.stride + 4 * q), sums);
            }
        }
    }
}
