//! Convolutions and matrix products of 8- and 16-bit codes with 64-bit accumulators, or with 32-bit ones that wrap.

use super::code::Code;
use super::conv::emit;
use super::epilogue::Epilogue;
use super::gather::Gather;
use super::isa::{Engine, multiversion};
use super::shape::ConvShape;

/// An accumulator of products of codes.
pub trait Accumulator: Copy + Default + PartialEq + Send + Sync + std::fmt::Debug + 'static {
    /// `self + x·w`, modulo the width of the type.
    fn mac(self, x: i32, w: i32) -> Self;
}

impl Accumulator for i32 {
    #[inline(always)]
    fn mac(self, x: i32, w: i32) -> i32 {
        self.wrapping_add(x.wrapping_mul(w))
    }
}

impl Accumulator for i64 {
    #[inline(always)]
    fn mac(self, x: i32, w: i32) -> i64 {
        self.wrapping_add(i64::from(x) * i64::from(w))
    }
}

/// Columns of one panel, and rows that meet it together.
const COLUMNS: usize = 16;
const ROWS: usize = 4;
/// Output pixels that go to the epilogue together.
const PIXELS: usize = 16;

/// Weights of a wide convolution, less their zero points, packed once.
#[derive(Debug, Clone)]
pub struct WideWeights {
    /// Per group: panels of sixteen columns, each with one line per `k` in the order (ky, kx, input channel); for a
    /// depthwise convolution one line of all channels per tap.
    lines: Vec<i32>,
    channels: usize,
    depth: usize,
    depthwise: bool,
    column_sums: Vec<i64>,
}

impl WideWeights {
    /// Packs weights in ONNX's order (output channel, input channel of the group, ky, kx). `zero_points` has one entry
    /// per output channel, or one for all, or none (zero). Panics where lengths disagree.
    pub fn new<W: Code>(shape: &ConvShape, weights: &[W], zero_points: &[i32]) -> Self {
        assert_eq!(weights.len(), shape.weight_len(), "weights and their shape");
        let channels = shape.out_channels;
        assert!(
            matches!(zero_points.len(), 0 | 1) || zero_points.len() == channels,
            "one zero point per channel, or one"
        );
        let zero_point = |c: usize| match zero_points {
            [] => 0,
            [only] => *only,
            many => many[c],
        };
        let (taps, group_in, group_out, depth) = (shape.taps(), shape.group_in(), shape.group_out(), shape.depth());
        let depthwise = group_in == 1 && group_out == 1;
        let panels = group_out.div_ceil(COLUMNS);
        let size = if depthwise { taps * channels } else { shape.groups * panels * depth * COLUMNS };
        let mut lines = vec![0i32; size];
        let mut column_sums = vec![0i64; channels];
        for (c, sum) in column_sums.iter_mut().enumerate() {
            let (group, n) = (c / group_out, c % group_out);
            for k in 0..depth {
                let (tap, i) = (k / group_in, k % group_in);
                let w = weights[(c * group_in + i) * taps + tap].to_i32() - zero_point(c);
                let at = match depthwise {
                    true => tap * channels + c,
                    false => ((group * panels + n / COLUMNS) * depth + k) * COLUMNS + n % COLUMNS,
                };
                lines[at] = w;
                *sum += i64::from(w);
            }
        }
        WideWeights { lines, channels, depth, depthwise, column_sums }
    }

    /// `Σ (w - zero_point)` of each output channel.
    pub fn column_sums(&self) -> &[i64] {
        &self.column_sums
    }

    /// Initial accumulators that centre the activations: `bias - zero_point · Σ(w - zero_point_w)`. An empty `bias` is
    /// zero. The padding code must then be `zero_point`. For 32-bit accumulators cut them with `as i32`.
    pub fn centred_init(&self, bias: &[i64], zero_point: i32) -> Vec<i64> {
        assert!(bias.is_empty() || bias.len() == self.channels, "one bias per channel");
        let bias_of = |c: usize| bias.get(c).copied().unwrap_or(0);
        let sums = self.column_sums.iter().enumerate();
        sums.map(|(c, &s)| bias_of(c).wrapping_sub(i64::from(zero_point).wrapping_mul(s))).collect()
    }
}

/// Convolves `x` (NHWC) with accumulators of type `A` and writes `epilogue(acc)` to `out` (NHWC).
///
/// `acc[p][c] = init[c] + Σ x·(w - zero_point_w)` modulo the width of `A`, where taps in the padding read the code `pad`.
/// `init` is empty (zero) or has one entry per output channel. Panics where lengths disagree or
/// [`ConvShape::validate`] fails.
#[allow(clippy::too_many_arguments)]
pub fn conv2d_wide<A: Accumulator, X: Code, E: Epilogue<A> + ?Sized>(
    engine: Engine<'_>,
    shape: &ConvShape,
    x: &[X],
    pad: X,
    weights: &WideWeights,
    init: &[A],
    epilogue: &E,
    out: &mut [E::Out],
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert_eq!(out.len(), shape.output_len(), "outputs and their shape");
    assert!(weights.channels == shape.out_channels && weights.depth == shape.depth(), "weights of the same shape");
    assert!(init.is_empty() || init.len() == shape.out_channels, "one initial accumulator per channel");
    let zero = vec![A::default(); shape.out_channels];
    let init = if init.is_empty() { &zero[..] } else { init };
    let gather = Gather::new(shape, x, pad);
    let (channels, depth, group_out) = (shape.out_channels, shape.depth(), shape.group_out());
    let panels = group_out.div_ceil(COLUMNS);
    let simd = engine.simd();
    let output = shape.output();
    let padding = vec![pad; shape.in_channels];
    let per_task = engine.share(shape.output_pixels(), PIXELS);
    engine.for_each_chunk(out, per_task * channels, |task, out| {
        let (mut codes, mut rows) = (Vec::new(), Vec::new());
        let mut acc = vec![A::default(); PIXELS * channels];
        for (t, out) in out.chunks_mut(PIXELS * channels).enumerate() {
            let first = task * per_task + t * PIXELS;
            let acc = &mut acc[..out.len()];
            acc.chunks_exact_mut(channels).for_each(|a| a.copy_from_slice(init));
            if weights.depthwise {
                for (p, acc) in acc.chunks_exact_mut(channels).enumerate() {
                    let (image, at) = shape.locate(output, first + p);
                    for (tap, line) in weights.lines.chunks_exact(channels).enumerate() {
                        let place = [tap / shape.kernel[1], tap % shape.kernel[1]];
                        let source = shape.source(image, at, place);
                        let x = source.map_or(&padding[..], |pixel| &x[pixel * channels..][..channels]);
                        multiply_lanes(simd, x, line, acc);
                    }
                }
            } else {
                let count = out.len() / channels;
                for group in 0..shape.groups {
                    gather.rows(group, first, count, depth, &mut codes);
                    rows.clear();
                    rows.extend(codes[..count * depth].iter().map(|x| x.to_i32()));
                    let lines = &weights.lines[group * panels * depth * COLUMNS..][..panels * depth * COLUMNS];
                    let columns = group * group_out..(group + 1) * group_out;
                    multiply(simd, &rows, depth, lines, acc, channels, columns);
                }
            }
            emit(simd, acc, channels, first, epilogue, out);
        }
    });
}

/// `out = epilogue(init + A·W)` with accumulators of type `A`, for row-major activations of `rows × K`.
///
/// `weights` are those of a 1×1 convolution of `K` to `N` channels (see [`WideWeights::new`]); `out` is row-major.
pub fn gemm_wide<A: Accumulator, X: Code, E: Epilogue<A> + ?Sized>(
    engine: Engine<'_>,
    a: &[X],
    rows: usize,
    weights: &WideWeights,
    init: &[A],
    epilogue: &E,
    out: &mut [E::Out],
) {
    let shape = ConvShape::new(1, [1, rows], weights.depth, weights.channels, [1, 1]);
    if rows > 0 {
        conv2d_wide(engine, &shape, a, X::default(), weights, init, epilogue, out);
    }
}

multiversion! {
    fn multiply_lanes<A: Accumulator, X: Code>(simd: Simd, x: &[X], w: &[i32], acc: &mut [A]) {
        for ((a, x), &w) in acc.iter_mut().zip(x).zip(w) {
            *a = a.mac(x.to_i32(), w);
        }
    }
}

multiversion! {
    /// Adds `rows · lines` to the columns `columns` of `acc`, whose rows are `stride` apart.
    fn multiply<A: Accumulator>(
        simd: Simd,
        rows: &[i32],
        depth: usize,
        lines: &[i32],
        acc: &mut [A],
        stride: usize,
        columns: std::ops::Range<usize>,
    ) {
        for (r, rows) in rows.chunks(ROWS * depth).enumerate() {
            let count = rows.len() / depth;
            for (p, panel) in lines.chunks_exact(depth * COLUMNS).enumerate() {
                let first = columns.start + p * COLUMNS;
                let width = COLUMNS.min(columns.end - first);
                let mut sums = [[A::default(); COLUMNS]; ROWS];
                for (i, sums) in sums.iter_mut().enumerate().take(count) {
                    sums[..width].copy_from_slice(&acc[(r * ROWS + i) * stride + first..][..width]);
                }
                // Missing rows of the last block repeat its last row and are dropped.
                let row = |i: usize| &rows[i.min(count - 1) * depth..][..depth];
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                for ((((w, &a), &b), &c), &d) in panel.chunks_exact(COLUMNS).zip(a).zip(b).zip(c).zip(d) {
                    for j in 0..COLUMNS {
                        sums[0][j] = sums[0][j].mac(a, w[j]);
                        sums[1][j] = sums[1][j].mac(b, w[j]);
                        sums[2][j] = sums[2][j].mac(c, w[j]);
                        sums[3][j] = sums[3][j].mac(d, w[j]);
                    }
                }
                for (i, sums) in sums.iter().enumerate().take(count) {
                    acc[(r * ROWS + i) * stride + first..][..width].copy_from_slice(&sums[..width]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::Accumulators;
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    fn check<X: Code, W: Code>(shape: &ConvShape, zero_points: &[i32]) {
        let mut random = Random::new(shape.depth() as u64 + 3);
        let (x, w) = (random.codes::<X>(shape.input_len()), random.codes::<W>(shape.weight_len()));
        let init: Vec<i64> =
            random.ints(shape.out_channels, i32::MIN, i32::MAX).into_iter().map(|v| i64::from(v) << 20).collect();
        let pad = X::wrap(random.next() as i64);
        let spread: Vec<i32> = (0..shape.out_channels).map(|c| zero_points[c % zero_points.len()]).collect();
        let expected = reference::conv2d(shape, &x, pad, &w, &spread, &init);
        let narrow: Vec<i32> = expected.iter().map(|&v| v as i32).collect();
        let narrow_init: Vec<i32> = init.iter().map(|&v| v as i32).collect();
        let packed = WideWeights::new(shape, &w, &spread);
        on_every_engine(|engine| {
            let mut out = vec![0i64; shape.output_len()];
            conv2d_wide(engine, shape, &x, pad, &packed, &init, &Accumulators, &mut out);
            assert!(out == expected, "{shape:?} {:?} {} threads", engine.simd(), engine.threads());
            let mut out = vec![0i32; shape.output_len()];
            conv2d_wide(engine, shape, &x, pad, &packed, &narrow_init, &Accumulators, &mut out);
            assert!(out == narrow, "32 bits: {shape:?} {:?} {} threads", engine.simd(), engine.threads());
        });
    }

    #[test]
    fn equals_its_twin_for_every_width_and_geometry() {
        let base = ConvShape { pads: [1, 0, 2, 1], ..ConvShape::new(2, [6, 7], 5, 18, [3, 2]) };
        for shape in [
            base,
            ConvShape { stride: [2, 1], dilation: [1, 2], ..base },
            ConvShape { in_channels: 9, groups: 9, ..base },
            ConvShape { in_channels: 18, groups: 18, ..base },
            ConvShape { in_channels: 6, groups: 2, ..base },
        ] {
            check::<i16, i8>(&shape, &[0]);
            check::<u16, i16>(&shape, &[-7, 3]);
            check::<u8, i16>(&shape, &[0]);
            check::<i8, u16>(&shape, &[65_535, 0]);
        }
    }

    #[test]
    fn gemm_wide_keeps_sums_beyond_32_bits() {
        let shape = ConvShape::new(1, [1, 1], 1000, 1, [1, 1]);
        let packed = WideWeights::new(&shape, &vec![i16::MIN; 1000], &[]);
        let mut out = [0i64; 2];
        gemm_wide(Engine::single(), &vec![u16::MAX; 2000], 2, &packed, &[], &Accumulators, &mut out);
        assert_eq!(out, [-32_768 * 65_535 * 1000; 2]);
        assert_eq!(packed.centred_init(&[3], 2), [3 + 2 * 32_768_000]);
    }
}
