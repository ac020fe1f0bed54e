//! Tiles of a matrix product: up to fourteen rows by 32 columns in registers.

use super::super::epilogue::{Bytes, Fused};
use super::super::gemm::Lhs;
use super::super::pack::{Line, PANEL};
use super::amx::{self, Tiles};
use super::requantize::{Requantize, exchange_quarters, to_bytes, with_requantize};
use std::arch::x86_64::*;

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
    /// Initial accumulators of whole panels.
    pub init: *const i32,
    /// Columns.
    pub columns: usize,
    /// What multiplies blocks of many rows, where the machine has it. There are then more lines than those of the panels,
    /// by as many as a tile has.
    pub tiles: Option<Tiles>,
}

/// What becomes of a block of accumulators.
pub(super) trait Finish: Copy {
    /// Type of the output.
    type Out;

    /// Takes `R` rows of `V` vectors, of which the first `columns` columns count, to `out`.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL and DQ; the columns and rows exist in the parameters and in the output.
    unsafe fn finish<const R: usize, const V: usize>(
        self,
        acc: &[[__m512i; V]; R],
        column: usize,
        columns: usize,
        out: *mut Self::Out,
        stride: usize,
    );
}

/// Stores accumulators.
#[derive(Clone, Copy)]
pub(super) struct Store;

impl Finish for Store {
    type Out = i32;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn finish<const R: usize, const V: usize>(
        self,
        acc: &[[__m512i; V]; R],
        _: usize,
        _: usize,
        out: *mut i32,
        stride: usize,
    ) {
        for (r, row) in acc.iter().enumerate() {
            for (v, &value) in row.iter().enumerate() {
                // SAFETY: blocks of accumulators have whole panels.
                unsafe { _mm512_storeu_si512(out.add(r * stride + PANEL * v).cast(), value) };
            }
        }
    }
}

/// Requantizes accumulators.
#[derive(Clone, Copy)]
struct Codes<Q> {
    q: Q,
    bytes: Bytes,
    /// Channel of the first column.
    channel: usize,
}

impl<Q: Requantize> Finish for Codes<Q> {
    type Out = u8;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn finish<const R: usize, const V: usize>(
        self,
        acc: &[[__m512i; V]; R],
        column: usize,
        columns: usize,
        out: *mut u8,
        stride: usize,
    ) {
        let lanes = |v: usize| first_lanes(columns.saturating_sub(PANEL * v));
        // SAFETY: selected lanes are channels; stores are masked to the columns.
        unsafe {
            let channel = self.channel + column;
            let p: [Q::Parameters; V] = std::array::from_fn(|v| self.q.load(channel + PANEL * v, lanes(v)));
            for first in (0..R * V).step_by(4) {
                let value = |i: usize| match first + i < R * V {
                    true => Q::value(acc[(first + i) / V][(first + i) % V], p[(first + i) % V]),
                    false => _mm512_setzero_si512(),
                };
                let codes = to_bytes([value(0), value(1), value(2), value(3)], self.bytes);
                let codes = exchange_quarters(codes);
                if V == 2 && lanes(1) == 0xFFFF {
                    // Two rows of 32 columns.
                    let to = out.wrapping_add(first / 2 * stride);
                    _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(codes));
                    if first / 2 + 1 < R {
                        let to = to.wrapping_add(stride);
                        _mm256_storeu_si256(to.cast(), _mm512_extracti64x4_epi64::<1>(codes));
                    }
                    continue;
                }
                let quarters = [
                    _mm512_castsi512_si128(codes),
                    _mm512_extracti32x4_epi32::<1>(codes),
                    _mm512_extracti32x4_epi32::<2>(codes),
                    _mm512_extracti32x4_epi32::<3>(codes),
                ];
                for (i, quarter) in quarters.into_iter().enumerate().take(R * V - first) {
                    let (r, v) = ((first + i) / V, (first + i) % V);
                    let to = out.wrapping_add(r * stride + PANEL * v);
                    if lanes(v) == 0xFFFF {
                        _mm_storeu_si128(to.cast(), quarter);
                    } else {
                        _mm_mask_storeu_epi8(to.cast(), lanes(v), quarter);
                    }
                }
            }
        }
    }
}

/// The mask of the first `count` of sixteen lanes.
fn first_lanes(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

impl Product<'_> {
    /// Stores the accumulators of whole panels.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW, VL, DQ and VNNI. All runs of all rows lie in the left operand, up to a multiple of
    /// four bytes; the lines and initial accumulators hold all panels; `out` holds all rows of whole panels.
    pub(in super::super) unsafe fn store(&self, out: *mut i32, stride: usize) {
        // SAFETY: the caller's.
        unsafe { self.run(Store, out, stride) }
    }

    /// Requantizes the accumulators; `channel` is that of the first column.
    ///
    /// # Safety
    /// As [`Product::store`], but `out` holds the columns only; there are parameters for all channels.
    pub(in super::super) unsafe fn finish(&self, fused: &Fused<'_>, channel: usize, out: *mut u8, stride: usize) {
        // SAFETY: the caller's.
        with_requantize!(fused, q => unsafe { self.run(Codes { q, bytes: fused.bytes(), channel }, out, stride) });
    }

    /// # Safety
    /// As [`Product::store`] or [`Product::finish`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn run<F: Finish>(&self, finish: F, out: *mut F::Out, stride: usize) {
        let first = match self.tiles {
            // SAFETY: the caller's.
            Some(tiles) => unsafe { amx::run(tiles, self, finish, out, stride) },
            None => 0,
        };
        let panels = self.columns.div_ceil(PANEL);
        let mut panel = 0;
        while panel < panels {
            let wide = match panels - panel {
                1 => 1,
                3 => 3,
                _ => 2,
            };
            let mut row = first;
            macro_rules! rows {
                ($v:literal: $($r:literal),+) => {$(
                    while self.lhs.rows.len() - row >= $r {
                        // SAFETY: the caller's; these rows and panels are among those.
                        unsafe {
                            let to = out.add(row * stride + panel * PANEL);
                            self.block::<$r, $v, F>(row, panel, finish, to, stride);
                        }
                        row += $r;
                    }
                )+};
            }
            match wide {
                1 => {
                    rows!(1: 16, 8, 4, 2, 1);
                }
                2 => {
                    rows!(2: 14, 7, 4, 2, 1);
                }
                _ => {
                    rows!(3: 7, 4, 2, 1);
                }
            }
            panel += wide;
        }
    }

    /// # Safety
    /// As [`Product::run`], for `R` rows from `row` on and `V` panels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn block<const R: usize, const V: usize, F: Finish>(
        &self,
        row: usize,
        panel: usize,
        finish: F,
        out: *mut F::Out,
        stride: usize,
    ) {
        let mut acc = [[_mm512_setzero_si512(); V]; R];
        let column = panel * PANEL;
        // SAFETY: all addresses lie within the extents that the contract names.
        unsafe {
            for v in 0..V {
                let start = _mm512_loadu_si512(self.init.add(column + PANEL * v).cast());
                for row in &mut acc {
                    row[v] = start;
                }
            }
            let a = self.lhs.bytes.as_ptr();
            let starts = self.lhs.rows.as_ptr().add(row);
            let mut b: *const i8 = self.lines.as_ptr().add(panel * self.groups).cast();
            for &run in self.lhs.runs {
                let rows: [*const u8; R] = std::array::from_fn(|r| a.wrapping_add(*starts.add(r) + run));
                for k in 0..self.per_run {
                    let mut w = [_mm512_setzero_si512(); V];
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = _mm512_load_si512(b.add(v * self.groups * 64).cast());
                    }
                    for (r, row) in acc.iter_mut().enumerate() {
                        let x = _mm512_set1_epi32(rows[r].add(4 * k).cast::<i32>().read_unaligned());
                        for v in 0..V {
                            row[v] = _mm512_dpbusd_epi32(row[v], x, w[v]);
                        }
                    }
                    for v in 0..V {
                        // The panels that follow: where rows are few, they come from beyond the second-level cache.
                        _mm_prefetch::<_MM_HINT_T1>(b.wrapping_add((V + v) * self.groups * 64));
                    }
                    b = b.add(64);
                }
            }
            // A copy, so that the accumulators have no address and stay in registers above.
            let sums = acc;
            finish.finish(&sums, column, self.columns - column, out, stride);
        }
    }
}
