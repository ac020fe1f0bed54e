//! Weights laid out for the 8-bit dot product: `K` in groups of four, `N` in panels of sixteen columns.
//!
//! On machines with 8-bit matrix products, which take eight consecutive `k` of two columns, the two lines of each pair of
//! groups of a run are interleaved by column; see [`Pairing`].

use super::code::Code8;
use super::isa::{Isa, Simd, multiversion};

/// Columns of one panel.
pub const PANEL: usize = 16;

/// Lines of a tile of weights; as many zero ones lie behind the last panel, so that whole tiles can be read.
pub(crate) const TILE_LINES: usize = 16;

/// Sixteen columns of four consecutive `k`: byte `4·column + (k mod 4)`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [i8; 64]);

/// How the groups of a run lie in their lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// Each group is a line.
    Apart,
    /// Groups `2·i` and `2·i + 1` of a run share two lines: byte `8·column + (k mod 8)` of both. The last group of an odd
    /// number is a line.
    Interleaved,
}

impl Pairing {
    /// The one that suits the richest instruction set of this machine. Kernels of all its sets read it.
    pub(crate) fn of_this_machine() -> Pairing {
        match Isa::NeonI8mm.is_of_this_architecture() && Isa::NeonI8mm.is_available() {
            true => Pairing::Interleaved,
            false => Pairing::Apart,
        }
    }

    /// Line and first byte of the four bytes of `column` of group `group` in a run of `per_run` groups.
    #[inline(always)]
    pub(crate) fn place(self, per_run: usize, group: usize, column: usize) -> (usize, usize) {
        let first = group & !1;
        if self == Pairing::Apart || first + 1 == per_run {
            return (group, 4 * column);
        }
        (first + column / 8, column % 8 * 8 + group % 2 * 4)
    }

    /// Brings the lines of the groups of a run, each apart, into order.
    fn arrange(self, run: &mut [Line]) {
        if self == Pairing::Apart {
            return;
        }
        for pair in run.chunks_exact_mut(2) {
            let groups = [pair[0].0, pair[1].0];
            for (g, group) in groups.iter().enumerate() {
                for (column, quad) in group.as_chunks::<4>().0.iter().enumerate() {
                    let (line, slot) = self.place(2, g, column);
                    pair[line].0[slot..slot + 4].copy_from_slice(quad);
                }
            }
        }
    }
}

multiversion! {
    /// The sum of weights.
    fn sum<W: Code8>(simd: Simd, weights: &[W], sum: &mut i32) {
        *sum = weights.iter().fold(0i32, |sum, w| sum.wrapping_add(w.to_i32()));
    }
}

/// The lines of a panel: group `g` of all columns is line `g`. Bytes are XORed with `flip`.
fn interleave(simd: Simd, columns: [&[[u8; 4]]; PANEL], flip: u8, lines: &mut Vec<Line>) {
    let groups = columns[0].len();
    let columns = columns.map(|column| &column[..groups]);
    lines.reserve(groups);
    #[cfg(target_arch = "x86_64")]
    let done = match simd.vectors() {
        // SAFETY: the `Simd` proves the features; all columns have `groups` quads, and there is room for as many lines, of
        // which those that were written are counted.
        Isa::Avx512Vnni => unsafe {
            let done = super::avx512::interleave(&columns, flip, lines.as_mut_ptr().add(lines.len()));
            lines.set_len(lines.len() + done);
            done
        },
        _ => 0,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (done, _) = (0, simd);
    lines.extend((done..groups).map(|g| {
        let mut line = [0u8; 64];
        for (to, column) in line.as_chunks_mut().0.iter_mut().zip(columns) {
            *to = column[g];
        }
        Line(line.map(|byte| (byte ^ flip) as i8))
    }));
}

/// Where the columns of a matrix come from, each with its rows in order.
pub(crate) enum Columns<'a, W> {
    /// One behind the other.
    Given(&'a [W]),
    /// Written on demand.
    Made(&'a dyn Fn(usize, &mut [W])),
}

/// A `K × N` matrix of 8-bit weights, packed once.
///
/// Stands for `w - zero_point`: products are formed with an `i8` part `w'`, and what remains of the zero point is a
/// per-column factor of the sum of the activations, added by the GEMM. `K` falls into runs of bytes that neighbour each
/// other in the activations; each starts a group of four, and what is missing in its last group is zero, as are the columns
/// beyond `N`.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    runs: usize,
    run: usize,
    n: usize,
    pairing: Pairing,
    lines: Vec<Line>,
    raw_sums: Vec<i32>,
    row_sum_factors: Option<Vec<i32>>,
    column_sums: Vec<i32>,
}

impl PackedWeights {
    /// Packs `weight(k, n)`. `zero_points` has one entry per column, or one for all, or none (zero).
    ///
    /// Unsigned codes are stored as `w - 128`, which leaves a factor of `128 - zero_point`.
    pub fn new<W: Code8>(k: usize, n: usize, zero_points: &[i32], weight: impl Fn(usize, usize) -> W) -> Self {
        let column = |column: usize, rows: &mut [W]| {
            rows.iter_mut().enumerate().for_each(|(row, w)| *w = weight(row, column));
        };
        Self::in_runs([1, k], n, zero_points, Columns::Made(&column))
    }

    /// Packs `k` in `runs` runs of `run` each, in the order of the columns' rows.
    pub(crate) fn in_runs<W: Code8>(
        [runs, run]: [usize; 2],
        n: usize,
        zero_points: &[i32],
        columns: Columns<'_, W>,
    ) -> Self {
        assert!(matches!(zero_points.len(), 0 | 1) || zero_points.len() == n, "one zero point per column, or one");
        let (offset, flip) = if W::SIGNED { (0, 0) } else { (128i32, 0x80) };
        let zero_point = |c: usize| match zero_points {
            [] => 0,
            [only] => *only,
            many => many[c],
        };
        let (k, per_run) = (runs * run, run.div_ceil(4));
        let groups = runs * per_run;
        let pairing = Pairing::of_this_machine();
        let mut lines = Vec::with_capacity(groups * n.div_ceil(PANEL) + TILE_LINES);
        let mut raw_sums = vec![0i32; n];
        let simd = Simd::best();
        let mut made = vec![W::default(); if matches!(columns, Columns::Made(_)) { k * PANEL } else { 0 }];
        // Columns whose runs are no multiples of four, with what is missing; and what becomes zero beyond the last column.
        let mut padded = vec![[0u8; 4]; if run.is_multiple_of(4) { 0 } else { groups * PANEL }];
        let none = vec![[flip; 4]; groups];
        for (panel, sums) in raw_sums.chunks_mut(PANEL).enumerate() {
            if let Columns::Made(write) = columns {
                (0..sums.len()).for_each(|i| write(panel * PANEL + i, &mut made[i * k..][..k]));
            }
            let of = |i: usize| match columns {
                Columns::Given(all) => &all[(panel * PANEL + i) * k..][..k],
                Columns::Made(_) => &made[i * k..][..k],
            };
            for (i, total) in sums.iter_mut().enumerate() {
                sum(simd, of(i), total);
                *total = total.wrapping_sub(offset.wrapping_mul(k as i32));
            }
            let count = sums.len();
            if run.is_multiple_of(4) {
                let quads = |i| if i < count { W::bytes(of(i)).as_chunks().0 } else { &none[..] };
                interleave(simd, std::array::from_fn(quads), flip, &mut lines);
            } else {
                for i in 0..count {
                    let to = padded[i * groups..][..groups].as_flattened_mut().chunks_exact_mut(per_run * 4);
                    for (to, from) in to.zip(W::bytes(of(i)).chunks_exact(run)) {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = from ^ flip);
                    }
                }
                padded[count * groups..].fill([0; 4]);
                interleave(simd, std::array::from_fn(|i| &padded[i * groups..][..groups]), 0, &mut lines);
            }
            lines[panel * groups..].chunks_exact_mut(per_run.max(1)).for_each(|run| pairing.arrange(run));
        }
        lines.resize(lines.len() + TILE_LINES, Line([0; 64]));
        let factors: Vec<i32> = (0..n).map(|c| offset.wrapping_sub(zero_point(c))).collect();
        let depth = k as i32;
        let column_sums = raw_sums.iter().zip(&factors).map(|(&s, &f)| s.wrapping_add(f.wrapping_mul(depth))).collect();
        let row_sum_factors = factors.iter().any(|&f| f != 0).then_some(factors);
        PackedWeights { runs, run, n, pairing, lines, raw_sums, row_sum_factors, column_sums }
    }

    /// Packs a row-major `K × N` matrix (the layout of the right operand of a MatMul).
    pub fn from_kn<W: Code8>(k: usize, n: usize, zero_points: &[i32], weights: &[W]) -> Self {
        assert_eq!(weights.len(), k * n, "weights and their shape");
        Self::new(k, n, zero_points, |row, column| weights[row * n + column])
    }

    /// Packs a row-major `N × K` matrix (one row per output channel).
    pub fn from_nk<W: Code8>(k: usize, n: usize, zero_points: &[i32], weights: &[W]) -> Self {
        assert_eq!(weights.len(), k * n, "weights and their shape");
        Self::in_runs([1, k], n, zero_points, Columns::Given(weights))
    }

    /// Length of the sums.
    pub fn k(&self) -> usize {
        self.runs * self.run
    }

    /// Number of runs, and the length of each.
    pub(crate) fn runs(&self) -> [usize; 2] {
        [self.runs, self.run]
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// `Σ_k (w - zero_point)` of each column, modulo 2^32.
    pub fn column_sums(&self) -> &[i32] {
        &self.column_sums
    }

    /// Initial accumulators that centre the activations: `bias - zero_point · Σ(w - zero_point_w)`, modulo 2^32.
    ///
    /// With them a GEMM over raw codes gives `bias + Σ (x - zero_point)·(w - zero_point_w)`. An empty `bias` is zero.
    pub fn centred_init(&self, bias: &[i32], zero_point: i32) -> Vec<i32> {
        centred_init(&self.column_sums, bias, zero_point)
    }

    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Groups of four along `K`.
    pub(crate) fn groups(&self) -> usize {
        self.runs * self.run.div_ceil(4)
    }

    /// Packed lines from panel `panel` on, of which each panel has [`PackedWeights::groups`], and [`TILE_LINES`] zero ones.
    pub(crate) fn lines_from(&self, panel: usize) -> &[Line] {
        &self.lines[panel * self.groups()..]
    }

    /// How the groups of a run lie in their lines.
    pub(crate) fn pairing(&self) -> Pairing {
        self.pairing
    }

    /// Per-column factors of the sum of the activations, where any is not zero.
    pub(crate) fn row_sum_factors(&self) -> Option<&[i32]> {
        self.row_sum_factors.as_deref()
    }

    /// Appends the accumulators that the kernels start from, one for each column of all panels: `init`, less `excess·Σw'`
    /// where activations enter as `x + excess`, so that the result equals `init + Σ x·w'`.
    pub(crate) fn kernel_init(&self, init: &[i32], excess: i32, out: &mut Vec<i32>) {
        let end = out.len() + self.panels() * PANEL;
        less_excess(init, &self.raw_sums, excess, out);
        out.resize(end, 0);
    }
}

/// `bias - zero_point · sums`, modulo 2^32; an empty `bias` is zero.
pub(crate) fn centred_init(sums: &[i32], bias: &[i32], zero_point: i32) -> Vec<i32> {
    assert!(bias.is_empty() || bias.len() == sums.len(), "one bias per column");
    let bias_of = |c: usize| if bias.is_empty() { 0 } else { bias[c] };
    sums.iter().enumerate().map(|(c, &s)| bias_of(c).wrapping_sub(zero_point.wrapping_mul(s))).collect()
}

/// Appends `init - excess · sums`, modulo 2^32; an empty `init` is zero.
pub(crate) fn less_excess(init: &[i32], sums: &[i32], excess: i32, out: &mut Vec<i32>) {
    assert!(init.is_empty() || init.len() == sums.len(), "one initial accumulator per column");
    match init {
        [] => out.extend(sums.iter().map(|sum| sum.wrapping_mul(excess).wrapping_neg())),
        _ => out.extend(init.iter().zip(sums).map(|(start, sum)| start.wrapping_sub(sum.wrapping_mul(excess)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_in_groups_of_four_and_panels_of_sixteen() {
        let weights: Vec<i8> = (0..5 * 18).map(|v| v as i8).collect();
        let packed = PackedWeights::from_kn(5, 18, &[], &weights);
        assert_eq!((packed.panels(), packed.groups()), (2, 2));
        let byte = |k: usize, n: usize| {
            let (line, slot) = packed.pairing().place(2, k / 4, n % 16);
            packed.lines_from(n / 16)[line].0[slot + k % 4]
        };
        assert_eq!(byte(2, 3), weights[2 * 18 + 3]);
        assert_eq!(byte(4, 17), weights[4 * 18 + 17]);
        assert_eq!((byte(5, 17), byte(4, 18)), (0, 0));
        assert_eq!(packed.column_sums()[1], (0..5).map(|k| i32::from(weights[k * 18 + 1])).sum::<i32>());
    }

    #[test]
    fn every_set_interleaves_the_same_lines() {
        for groups in [0, 1, 15, 16, 33, 70] {
            let bytes: Vec<[u8; 4]> = (0..groups * PANEL).map(|i| (i as u32 * 77).to_le_bytes()).collect();
            let columns: [&[[u8; 4]]; PANEL] = std::array::from_fn(|c| &bytes[c * groups..][..groups]);
            for flip in [0, 0x80] {
                for simd in Isa::available().into_iter().filter_map(Simd::new) {
                    let mut lines = vec![Line([7; 64])];
                    interleave(simd, columns, flip, &mut lines);
                    assert_eq!((lines.len(), lines[0].0), (groups + 1, [7; 64]));
                    for (g, c) in (0..groups).flat_map(|g| (0..PANEL).map(move |c| (g, c))) {
                        let expected = bytes[c * groups + g].map(|b| (b ^ flip) as i8);
                        assert_eq!(lines[g + 1].0[4 * c..4 * c + 4], expected, "{simd:?} line {g} column {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn pairs_of_groups_are_eight_bytes_per_column() {
        assert_eq!(Pairing::Apart.place(3, 1, 9), (1, 36));
        for per_run in 1..5 {
            let mut seen = vec![[false; PANEL]; per_run * 4];
            for (group, column) in (0..per_run).flat_map(|g| (0..PANEL).map(move |c| (g, c))) {
                let (line, byte) = Pairing::Interleaved.place(per_run, group, column);
                let last = group + 1 == per_run && per_run % 2 == 1;
                let expected =
                    if last { group * 64 + 4 * column } else { group / 2 * 128 + 8 * column + group % 2 * 4 };
                assert_eq!(line * 64 + byte, expected, "{per_run} {group} {column}");
                assert!(!std::mem::replace(&mut seen[line * 4 + byte / 16][byte % 16], true));
            }
        }
    }

    #[test]
    fn unsigned_weights_keep_their_centred_sums() {
        let weights: Vec<u8> = vec![0, 255, 7, 128];
        let packed = PackedWeights::from_nk(4, 1, &[3], &weights);
        assert_eq!(packed.column_sums(), [390 - 12]);
        assert_eq!(packed.centred_init(&[5], 2), [5 - 2 * 378]);
        assert_eq!(packed.row_sum_factors(), Some(&[125][..]));
    }
}
