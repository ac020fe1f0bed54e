//! Convolution of 8-bit NHWC activations with 8-bit weights, exact modulo 2^32.
//!
//! The windows of output pixels are read in place, from the activations themselves or from a copy with the padding around
//! them, and multiplied by the packed weights of their group.

use super::byte_form::ByteForm;
use super::code::Code8;
use super::depthwise::{DepthwiseWeights, depthwise};
use super::epilogue::{AccTile, Epilogue, OutTile};
use super::gemm::{Lhs, Place, Source, Then, all_then, grain, run_tiles, tile, tile_rows};
use super::isa::{Engine, Simd};
use super::pack::{Columns, PANEL, PackedWeights, centred_init};
use super::scratch::{Call, Scratch};
use super::shape::ConvShape;
use super::window::{self, Padded};

/// Weights of a convolution, packed once.
#[derive(Debug, Clone)]
pub struct ConvWeights {
    form: Form,
    column_sums: Vec<i32>,
}

#[derive(Debug, Clone)]
enum Form {
    /// One matrix per group; rows in the order (ky, kx, input channel).
    Groups(Vec<PackedWeights>),
    /// One input channel per group and one output channel per input channel.
    Depthwise(DepthwiseWeights),
}

impl ConvWeights {
    /// Packs weights in ONNX's order (output channel, input channel of the group, ky, kx). `zero_points` has one entry
    /// per output channel, or one for all, or none (zero). Panics where lengths disagree.
    pub fn new<W: Code8>(shape: &ConvShape, weights: &[W], zero_points: &[i32]) -> Self {
        Self::packed(shape, weights, zero_points, shape.taps() == 1)
    }

    /// As [`ConvWeights::new`], for weights in the order (output channel, ky, kx, input channel of the group).
    pub fn from_channels_last<W: Code8>(shape: &ConvShape, weights: &[W], zero_points: &[i32]) -> Self {
        Self::packed(shape, weights, zero_points, true)
    }

    fn packed<W: Code8>(shape: &ConvShape, weights: &[W], zero_points: &[i32], channels_last: bool) -> Self {
        assert_eq!(weights.len(), shape.weight_len(), "weights and their shape");
        let zero_points = match zero_points {
            [] => vec![0; shape.out_channels],
            [only] => vec![*only; shape.out_channels],
            many => many.to_vec(),
        };
        assert_eq!(zero_points.len(), shape.out_channels, "one zero point per output channel, or one");
        let (group_in, group_out, depth) = (shape.group_in(), shape.group_out(), shape.depth());
        if group_in == 1 && group_out == 1 && shape.groups > 1 {
            let packed = DepthwiseWeights::new(shape.out_channels, shape.kernel, weights, &zero_points);
            return ConvWeights { column_sums: packed.column_sums().to_vec(), form: Form::Depthwise(packed) };
        }
        let groups: Vec<PackedWeights> = (0..shape.groups)
            .map(|g| {
                let zero_points = &zero_points[g * group_out..(g + 1) * group_out];
                let own = &weights[g * group_out * depth..][..group_out * depth];
                let turn = |n: usize, packed: &mut [W]| taps_in_front(&own[n * depth..][..depth], shape.taps(), packed);
                let columns = if channels_last { Columns::Given(own) } else { Columns::Made(&turn) };
                PackedWeights::in_runs(window::runs(shape), group_out, zero_points, columns)
            })
            .collect();
        let column_sums = groups.iter().flat_map(|g| g.column_sums().iter().copied()).collect();
        ConvWeights { form: Form::Groups(groups), column_sums }
    }

    /// Whether [`conv2d_then`] hands outputs on while they are in the cache.
    pub fn hands_on(&self) -> bool {
        matches!(&self.form, Form::Groups(groups) if groups.len() == 1)
    }

    /// `Σ (w - zero_point)` of each output channel, modulo 2^32.
    pub fn column_sums(&self) -> &[i32] {
        &self.column_sums
    }

    /// Initial accumulators that centre the activations: `bias - zero_point · Σ(w - zero_point_w)`, modulo 2^32. An
    /// empty `bias` is zero. The padding code must then be `zero_point`.
    pub fn centred_init(&self, bias: &[i32], zero_point: i32) -> Vec<i32> {
        centred_init(&self.column_sums, bias, zero_point)
    }
}

/// Turns rows of `taps` into columns.
fn taps_in_front<W: Copy>(rows: &[W], taps: usize, out: &mut [W]) {
    fn turn<W: Copy, const TAPS: usize>(rows: &[W], out: &mut [W]) {
        let rows = rows.as_chunks::<TAPS>().0;
        for (tap, out) in out.chunks_exact_mut(rows.len().max(1)).enumerate() {
            out.iter_mut().zip(rows).for_each(|(to, row)| *to = row[tap]);
        }
    }
    match taps {
        1 => out.copy_from_slice(rows),
        9 => turn::<W, 9>(rows, out),
        _ => {
            for (i, row) in rows.chunks_exact(taps.max(1)).enumerate() {
                let column = out[i..].iter_mut().step_by(rows.len() / taps);
                column.zip(row).for_each(|(to, &w)| *to = w);
            }
        }
    }
}

/// Convolves `x` (NHWC) and writes `epilogue(acc)` to `out` (NHWC).
///
/// `acc[p][c] = init[c] + Σ x·(w - zero_point_w)` modulo 2^32 over the window of pixel `p`, where taps in the padding
/// read the code `pad`. `init` is empty (zero) or has one entry per output channel. `weights` must have been packed for
/// the same channels, groups, kernel and dilation. Panics where lengths disagree or [`ConvShape::validate`] fails.
#[allow(clippy::too_many_arguments)]
pub fn conv2d<X: Code8, E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    shape: &ConvShape,
    x: &[X],
    pad: X,
    weights: &ConvWeights,
    init: &[i32],
    epilogue: &E,
    out: &mut [E::Out],
) {
    conv2d_then(engine, shape, x, pad, weights, init, epilogue, None, out);
}

/// [`conv2d`], and calls `then` for all outputs, while they are in the cache where that is possible
/// ([`ConvWeights::hands_on`]).
#[allow(clippy::too_many_arguments)]
pub fn conv2d_then<X: Code8, E: Epilogue + ?Sized>(
    engine: Engine<'_>,
    shape: &ConvShape,
    x: &[X],
    pad: X,
    weights: &ConvWeights,
    init: &[i32],
    epilogue: &E,
    then: Option<Then<'_, E::Out>>,
    out: &mut [E::Out],
) {
    assert!(shape.validate().is_ok(), "a valid shape");
    assert_eq!(x.len(), shape.input_len(), "activations and their shape");
    assert_eq!(out.len(), shape.output_len(), "outputs and their shape");
    assert_eq!(weights.column_sums.len(), shape.out_channels, "weights of the same shape");
    assert!(init.is_empty() || init.len() == shape.out_channels, "one initial accumulator per channel");
    if out.is_empty() {
        return;
    }
    let groups = match &weights.form {
        Form::Depthwise(packed) => {
            depthwise(engine, shape, x, pad, packed, init, epilogue, out);
            return all_then(engine, then, out);
        }
        Form::Groups(groups) => groups,
    };
    assert!(groups.len() == shape.groups && groups[0].runs() == window::runs(shape), "weights of the same shape");
    let (bytes, pad) = (X::bytes(x), X::bytes(&[pad])[0]);
    let form = ByteForm::new(engine.simd(), X::SIGNED);
    let padded = Padded::new(engine, shape, bytes, pad, form.flip);
    let find = |group: usize, first: usize, count: usize, scratch: &mut Scratch| match &padded {
        Some(padded) => padded.starts(first, count, &mut scratch.rows),
        None => {
            let stride = window::gather(shape, bytes, [pad, form.flip], group, first, count, &mut scratch.bytes);
            scratch.rows.clear();
            scratch.rows.extend((0..count).map(|r| r * stride));
        }
    };
    let [per_window, run] = window::runs(shape);
    let bytes = padded.as_ref().map(Padded::bytes);
    let step = shape.stride[0] * shape.stride[1] * shape.in_channels;
    let rows_per_tile = tile_rows(engine.simd(), if padded.is_some() { step } else { shape.depth() });
    Call::with(|Call { init: starts, runs, scratch }| {
        for (g, weights) in groups.iter().enumerate() {
            let part = if init.is_empty() { init } else { &init[g * shape.group_out()..][..shape.group_out()] };
            weights.kernel_init(part, form.excess, starts);
            match &padded {
                Some(padded) => padded.runs(g, runs),
                None => runs.extend((0..per_window).map(|i| i * run.next_multiple_of(4))),
            }
        }
        if let [weights] = &groups[..] {
            let build = |first: usize, count: usize, scratch: &mut Scratch| find(0, first, count, scratch);
            let source = Source { bytes, runs, form, build };
            let pixels = shape.output_pixels();
            return run_tiles(engine, pixels, rows_per_tile, weights, starts, &source, scratch, epilogue, then, out);
        }
        let (channels, padded_out) = (shape.out_channels, groups[0].panels() * PANEL);
        let simd = engine.simd();
        let per_task = engine.share(shape.output_pixels(), grain(simd));
        engine.for_each_chunk(out, per_task * channels, |task, out| {
            Scratch::with(|scratch| {
                for (t, out) in out.chunks_mut(rows_per_tile * channels).enumerate() {
                    let row = task * per_task + t * rows_per_tile;
                    for (g, weights) in groups.iter().enumerate() {
                        find(g, row, out.len() / channels, scratch);
                        let Scratch { acc, row_sums, bytes: gathered, rows, .. } = &mut *scratch;
                        let runs = &runs[g * per_window..][..per_window];
                        let lhs = Lhs { bytes: bytes.unwrap_or(gathered), rows, runs, form };
                        let channel = g * shape.group_out();
                        let place = Place { row, channel };
                        let (panels, out) = (0..weights.panels(), &mut out[channel..]);
                        let init = &starts[g * padded_out..][..padded_out];
                        tile(simd, &lhs, weights, panels, init, place, epilogue, out, channels, acc, row_sums);
                    }
                }
            });
        });
        all_then(engine, then, out);
    });
}

/// Hands one row of accumulators of consecutive pixels to the epilogue.
pub(crate) fn emit<A, E: Epilogue<A> + ?Sized>(
    simd: Simd,
    acc: &[A],
    channels: usize,
    row: usize,
    epilogue: &E,
    out: &mut [E::Out],
) {
    let rows = acc.len() / channels;
    let tile = AccTile { acc, stride: channels, rows, cols: channels, row, channel: 0 };
    epilogue.apply(simd, tile, OutTile { data: out, stride: channels });
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::{Accumulators, FloatScale};
    use super::super::reference;
    use super::super::testing::{Random, on_every_engine};
    use super::*;

    fn shapes() -> Vec<ConvShape> {
        let base = ConvShape::new(2, [7, 9], 5, 6, [3, 3]);
        vec![
            base,
            ConvShape { pads: [1, 1, 1, 1], ..base },
            ConvShape { pads: [0, 2, 3, 1], stride: [2, 3], ..base },
            ConvShape { pads: [4, 9, 0, 9], dilation: [2, 2], stride: [1, 2], ..base },
            ConvShape { kernel: [1, 1], ..base },
            ConvShape { kernel: [1, 1], in_channels: 8, out_channels: 70, ..base },
            ConvShape { kernel: [1, 1], stride: [2, 2], in_channels: 64, ..base },
            ConvShape { in_channels: 6, out_channels: 9, groups: 3, pads: [1, 0, 0, 1], ..base },
            ConvShape { in_channels: 37, out_channels: 37, groups: 37, pads: [1, 1, 1, 1], ..base },
            ConvShape { in_channels: 16, out_channels: 32, groups: 16, ..base },
            ConvShape { in_channels: 48, out_channels: 48, groups: 48, kernel: [2, 2], stride: [2, 2], ..base },
            ConvShape {
                input: [9, 40],
                in_channels: 70,
                out_channels: 70,
                groups: 70,
                kernel: [5, 3],
                pads: [2; 4],
                ..base
            },
            ConvShape {
                in_channels: 130,
                out_channels: 130,
                groups: 130,
                dilation: [2, 3],
                pads: [3, 7, 0, 2],
                ..base
            },
            ConvShape { in_channels: 100, out_channels: 100, groups: 100, pads: [1, 1, 1, 1], ..base },
            ConvShape { in_channels: 41, out_channels: 41, groups: 41, dilation: [2, 1], pads: [2, 0, 1, 1], ..base },
            ConvShape { in_channels: 16, out_channels: 16, groups: 16, stride: [2, 2], pads: [1, 1, 0, 2], ..base },
            ConvShape {
                in_channels: 113,
                out_channels: 113,
                groups: 113,
                kernel: [5, 5],
                stride: [1, 2],
                pads: [2; 4],
                ..base
            },
            ConvShape { in_channels: 20, out_channels: 20, groups: 20, stride: [2, 2], pads: [1, 1, 1, 1], ..base },
            ConvShape { in_channels: 87, out_channels: 87, groups: 87, stride: [1, 2], pads: [0, 1, 0, 1], ..base },
            ConvShape { input: [4, 70], in_channels: 40, out_channels: 40, groups: 40, kernel: [2, 2], ..base },
            // Taps so far apart that the columns between them must not be made.
            ConvShape {
                input: [1, 3],
                in_channels: 16,
                out_channels: 16,
                groups: 16,
                kernel: [1, 2],
                dilation: [1, 1 << 30],
                stride: [1, 1 << 30],
                pads: [0, 1 << 30, 0, 1 << 30],
                ..base
            },
            ConvShape { kernel: [1, 1], in_channels: 12, out_channels: 170, batch: 1, input: [5, 5], ..base },
            ConvShape { input: [1, 30], kernel: [1, 5], out_channels: 40, pads: [0, 2, 0, 2], ..base },
            ConvShape { batch: 1, input: [3, 3], in_channels: 64, out_channels: 130, ..base },
            ConvShape { batch: 0, ..base },
        ]
    }

    fn check<X: Code8, W: Code8>(shape: &ConvShape, zero_points: &[i32]) {
        let mut random = Random::new(shape.depth() as u64);
        let (x, w) = (random.codes::<X>(shape.input_len()), random.codes::<W>(shape.weight_len()));
        let init = random.ints(shape.out_channels, i32::MIN, i32::MAX);
        let pad = X::wrap(random.next() as i64);
        let spread: Vec<i32> = (0..shape.out_channels).map(|c| zero_points[c % zero_points.len()]).collect();
        let wide: Vec<i64> = init.iter().map(|&v| v.into()).collect();
        let expected: Vec<i32> =
            reference::conv2d(shape, &x, pad, &w, &spread, &wide).into_iter().map(|v| v as i32).collect();
        let packed = ConvWeights::new(shape, &w, &spread);
        on_every_engine(|engine| {
            let mut out = vec![0i32; shape.output_len()];
            conv2d(engine, shape, &x, pad, &packed, &init, &Accumulators, &mut out);
            assert!(out == expected, "{shape:?} {:?} {} threads", engine.simd(), engine.threads());
        });
        let (taps, depth) = (shape.taps(), shape.group_in());
        let turned: Vec<W> =
            (0..w.len()).map(|i| w[i / (taps * depth) * taps * depth + i % depth * taps + i / depth % taps]).collect();
        let packed = ConvWeights::from_channels_last(shape, &turned, &spread);
        // Small accumulators, so that few codes are saturated, through an epilogue that kernels apply in registers.
        let init: Vec<i32> = init.iter().map(|v| v % 4096).collect();
        let wide: Vec<i64> = init.iter().map(|&v| v.into()).collect();
        let scale: Vec<f32> = (0..shape.out_channels).map(|c| 2f32.powi(-4 - (c % 7) as i32)).collect();
        let epilogue = FloatScale::<u8>::new(scale.clone(), -500.0, 500.0, 99, 2, 253).unwrap();
        let codes: Vec<u8> = reference::conv2d(shape, &x, pad, &w, &spread, &wide)
            .into_iter()
            .enumerate()
            .map(|(i, v)| {
                let scale = scale[i % shape.out_channels];
                reference::float_scale(v as i32, scale, -500.0, 500.0, 99, 2, 253) as u8
            })
            .collect();
        on_every_engine(|engine| {
            let mut out = vec![0u8; shape.output_len()];
            conv2d(engine, shape, &x, pad, &packed, &init, &epilogue, &mut out);
            assert!(out == codes, "codes: {shape:?} {:?} {} threads", engine.simd(), engine.threads());
        });
    }

    #[test]
    fn equals_its_twin_for_every_geometry_and_sign() {
        for shape in shapes() {
            check::<u8, i8>(&shape, &[0]);
            check::<i8, i8>(&shape, &[0]);
            check::<u8, u8>(&shape, &[128, 3, 255]);
            check::<i8, u8>(&shape, &[0, 200]);
        }
    }

    #[test]
    fn padding_with_the_zero_point_adds_nothing_to_centred_sums() {
        let shape = ConvShape { pads: [1, 1, 1, 1], ..ConvShape::new(1, [1, 1], 4, 1, [3, 3]) };
        let mut w = vec![100i8; shape.weight_len()];
        (0..4).for_each(|c| w[c * 9 + 4] = 2);
        let packed = ConvWeights::new(&shape, &w, &[]);
        let mut out = [0i32];
        conv2d(
            Engine::single(),
            &shape,
            &[10u8; 4],
            7,
            &packed,
            &packed.centred_init(&[1], 7),
            &Accumulators,
            &mut out,
        );
        assert_eq!(out[0], 1 + 4 * 3 * 2);
    }
}
