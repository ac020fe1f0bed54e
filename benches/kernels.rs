//! Throughput of the convolution kernels on one thread, in multiply-accumulates per second.
//!
//! `cargo bench --bench kernels`; `NPUTWIN_ISA` chooses a plainer instruction set.

use nputwin::kernels::float::{FloatConvWeights, conv2d_f32};
use nputwin::kernels::{
    Accumulators, ConvShape, ConvWeights, DoubleRounding, Engine, Epilogue, FloatScale, WideWeights, conv2d,
    conv2d_wide,
};
use std::time::{Duration, Instant};

fn measure(name: &str, work: usize, unit: &str, mut body: impl FnMut()) {
    body();
    let (mut best, start) = (Duration::MAX, Instant::now());
    while start.elapsed() < Duration::from_millis(400) {
        let lap = Instant::now();
        body();
        best = best.min(lap.elapsed());
    }
    println!("{name:44} {:8.1} us {:8.1} G{unit}/s", best.as_secs_f64() * 1e6, work as f64 / best.as_secs_f64() / 1e9);
}

fn conv(name: &str, shape: &ConvShape, epilogue: &dyn Epilogue<Out = u8>) {
    let x: Vec<u8> = (0..shape.input_len()).map(|i| (i * 37 % 251) as u8).collect();
    let w: Vec<i8> = (0..shape.weight_len()).map(|i| (i * 91 % 253) as u8 as i8).collect();
    let weights = ConvWeights::new(shape, &w, &[]);
    let init = weights.centred_init(&vec![1000; shape.out_channels], 128);
    let mut out = vec![0u8; shape.output_len()];
    measure(name, shape.output_len() * shape.depth(), "MAC", || {
        conv2d(Engine::single(), shape, &x, 128, &weights, &init, epilogue, &mut out);
    });
}

fn conv_f32(name: &str, shape: &ConvShape) {
    let x: Vec<f32> = (0..shape.input_len()).map(|i| (i * 37 % 251) as f32 / 64.0 - 2.0).collect();
    let w: Vec<f32> = (0..shape.weight_len()).map(|i| (i * 91 % 253) as f32 / 128.0 - 1.0).collect();
    let weights = FloatConvWeights::new(shape, &w);
    let mut out = vec![0f32; shape.output_len()];
    measure(name, shape.output_len() * shape.depth() * 2, "FLOP", || {
        conv2d_f32(Engine::single(), shape, &x, &weights, &[], &mut out);
    });
}

fn conv_wide(name: &str, shape: &ConvShape) {
    let x: Vec<u16> = (0..shape.input_len()).map(|i| (i * 3719 % 65_521) as u16).collect();
    let w: Vec<i8> = (0..shape.weight_len()).map(|i| (i * 91 % 253) as u8 as i8).collect();
    let weights = WideWeights::new(shape, &w, &[]);
    let mut out = vec![0i64; shape.output_len()];
    measure(name, shape.output_len() * shape.depth(), "MAC", || {
        conv2d_wide(Engine::single(), shape, &x, 0, &weights, &[], &Accumulators, &mut out);
    });
}

fn main() {
    println!("{}", Engine::single().simd().isa().name());
    let dense = ConvShape { pads: [1; 4], ..ConvShape::new(1, [56, 56], 64, 64, [3, 3]) };
    let point = ConvShape::new(1, [56, 56], 256, 64, [1, 1]);
    let depth = ConvShape { pads: [1; 4], groups: 96, ..ConvShape::new(1, [112, 112], 96, 96, [3, 3]) };
    let first = ConvShape { pads: [3; 4], stride: [2, 2], ..ConvShape::new(1, [224, 224], 3, 64, [7, 7]) };
    let late = ConvShape { pads: [1; 4], ..ConvShape::new(1, [7, 7], 512, 512, [3, 3]) };
    for (name, shape) in [
        ("conv 3x3 64->64 56x56", dense),
        ("conv 1x1 256->64 56x56", point),
        ("conv 7x7/2 3->64 224x224", first),
        ("conv 3x3 512->512 7x7", late),
        ("depthwise 3x3 x96 112x112", depth),
    ] {
        let n = shape.out_channels;
        let scale = FloatScale::new(vec![0.001; n], -128.0, 127.0, 128, 0, 255).expect("in range");
        conv(&format!("{name} float_scale"), &shape, &scale);
        let fixed = DoubleRounding::new(vec![0; n], vec![1 << 30; n], vec![9; n], 128, 0, 255).expect("in range");
        conv(&format!("{name} double_rounding"), &shape, &fixed);
    }
    conv_f32("f32 conv 3x3 64->64 56x56", &dense);
    conv_f32("f32 conv 1x1 256->64 56x56", &point);
    conv_f32("f32 depthwise 3x3 x96 112x112", &depth);
    conv_wide("u16 x i8 -> i64 conv 3x3 64->64 56x56", &dense);
}
