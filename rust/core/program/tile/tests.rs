//! The tile executor against the reference evaluator.

use super::super::samples::{SAMPLES, Sample};
use super::super::{Compiled, Env, Functions, Program, Text, Value};
use super::*;
use half::f16;

/// Integers around powers of two and ties, and a spread of others.
fn accumulators() -> Vec<i64> {
    let mut out: Vec<i64> = (-600..=600).collect();
    for k in 0..47 {
        for factor in [1i64, 3, 5] {
            for d in -2..=2 {
                out.extend([factor * (1 << k) / 2 + d, -factor * (1 << k) / 2 + d]);
            }
        }
    }
    let mut state = 0x1234_5678_9abc_def1u64;
    for i in 0..3000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.push((state as i64) >> (i % 63));
    }
    out
}

fn floats() -> Vec<f64> {
    let mut out = vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -1e30, 1e-40, 65504.0];
    for i in -700..700 {
        let v = f64::from(i) * 0.025;
        out.extend([v, v + 1e-7, f64::from(i) * 0.5, f64::from(i) * 0.125]);
    }
    out
}

/// All elements of a sample's inputs, as values.
fn elements(sample: &Sample, env: &Env) -> Vec<Vec<Value>> {
    let binary = env.inputs.len() == 2;
    let kind = env.inputs[0].kind;
    match kind {
        super::super::env::InputKind::Int(lo, hi) if binary => {
            let (lo, hi) = (lo as i64, hi as i64);
            (lo..=hi).flat_map(|a| (lo..=hi).map(move |b| vec![Value::Int(a.into()), Value::Int(b.into())])).collect()
        }
        super::super::env::InputKind::Int(lo, hi) => {
            let wanted = accumulators().into_iter().map(i128::from).filter(|v| (lo..=hi).contains(v));
            wanted.chain([lo, hi]).map(|v| vec![Value::Int(v)]).collect()
        }
        super::super::env::InputKind::Float(format) => {
            assert!(binary, "{}", sample.name);
            let values: Vec<Value> = floats()
                .into_iter()
                .map(|v| match format {
                    FloatType::F16 => Value::F16(f16::from_f64(v)),
                    _ => Value::F32(v as f32),
                })
                .collect();
            let other = values.len() / 2 + 13;
            (0..values.len() * 3)
                .map(|i| vec![values[i % values.len()], values[(i * 7 + other) % values.len()]])
                .collect()
        }
    }
}

fn columns(elements: &[Vec<Value>]) -> Vec<Column> {
    (0..elements[0].len())
        .map(|i| match elements[0][i] {
            Value::Int(_) => Column::Int(elements.iter().map(|e| e[i].as_int().unwrap() as i64).collect()),
            _ => Column::Float(elements.iter().map(|e| e[i].as_float().unwrap() as f32).collect()),
        })
        .collect()
}

enum Column {
    Int(Vec<i64>),
    Float(Vec<f32>),
}

impl Column {
    fn lanes(&self) -> Lanes<'_> {
        match self {
            Column::Int(v) => Lanes::I64(v),
            Column::Float(v) => Lanes::F32(v),
        }
    }
}

fn equal_everywhere(name: &str, compiled: &Compiled, elements: &[Vec<Value>]) {
    let tile = compiled.tile();
    let columns = columns(elements);
    let lanes: Vec<Lanes<'_>> = columns.iter().map(Column::lanes).collect();
    let mut out = vec![0i64; elements.len()];
    for channel in 0..compiled.channels() {
        tile.run_i64(&lanes, Channels::Uniform(channel), &mut out).unwrap();
        for (element, got) in elements.iter().zip(&out) {
            let expected = compiled.eval(channel, element).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(Value::Int((*got).into()), expected, "{name}, channel {channel}, {element:?}");
        }
    }
    let start = compiled.channels() / 2;
    tile.run_i64(&lanes, Channels::Cyclic { start }, &mut out).unwrap();
    for (i, (element, got)) in elements.iter().zip(&out).enumerate() {
        let channel = (start + i) % compiled.channels();
        let expected = compiled.eval(channel, element).unwrap();
        assert_eq!(Value::Int((*got).into()), expected, "{name}, cyclic channel {channel}, {element:?}");
    }
}

#[test]
fn samples_equal_the_definition() {
    for sample in SAMPLES {
        let env = (sample.env)();
        let compiled = sample.program().compile(&env).unwrap_or_else(|e| panic!("{}: {e}", sample.name));
        equal_everywhere(sample.name, &compiled, &elements(sample, &env));
    }
}

#[test]
fn narrow_lanes_and_lengths() {
    let sample = SAMPLES.iter().find(|s| s.name == "q31_double").unwrap();
    let compiled = sample.program().compile(&(sample.env)()).unwrap();
    let tile = compiled.tile();
    for length in [0, 1, 7, 15, 16, 17, 255, 256, 257, 700] {
        let acc: Vec<i32> = (0..length).map(|i| i * 7919 - 300_000).collect();
        let mut out = vec![0; acc.len()];
        tile.run(&[Lanes::I32(&acc)], Channels::Cyclic { start: 3 }, &mut out).unwrap();
        for (i, (acc, got)) in acc.iter().zip(&out).enumerate() {
            let expected = compiled.eval((3 + i) % 7, &[Value::Int((*acc).into())]).unwrap();
            assert_eq!(expected, Value::Int((*got).into()));
        }
    }
    let mut out = [0; 9];
    tile.run(&[Lanes::I32(&[12345])], Channels::Uniform(2), &mut out).unwrap();
    assert_eq!(Value::Int(out[8].into()), compiled.eval(2, &[Value::Int(12345)]).unwrap());
    assert!(tile.run(&[], Channels::Uniform(0), &mut out).is_err());
    assert!(tile.run(&[Lanes::I32(&[1, 2])], Channels::Uniform(0), &mut out).is_err());
    assert!(tile.run(&[Lanes::F32(&[1.0])], Channels::Uniform(0), &mut out).is_err());
    assert!(tile.run(&[Lanes::I32(&[1])], Channels::Uniform(7), &mut out).is_err());
    assert!(tile.run_f32(&[Lanes::I32(&[1])], Channels::Uniform(0), &mut [0.0]).is_err());
}

/// Every rounding mode of floats, on ties, their neighbours and specials, in both widths.
#[test]
fn float_roundings_equal_the_definition() {
    for mode in Rounding::ALL {
        for wide in [false, true] {
            for body in
                ["round(v, MODE)", "int(v, MODE)", "int(clamp(v, -3.0, 1000.0), MODE)", "int(max(5.5, v), MODE)"]
            {
                let body = body.replace("MODE", mode.name());
                let mut env = Env::new();
                env.input_float("v", if wide { FloatType::F64 } else { FloatType::F32 });
                let text = Text::new(body.clone(), "y");
                let compiled = Program::parse(&[], &text, &Functions::new()).unwrap().compile(&env).unwrap();
                let tile = compiled.tile();
                let mut values = floats();
                values.extend([
                    0.49999997,
                    -0.49999997,
                    0.499_999_999_999_999_94,
                    8_388_607.5,
                    -8_388_607.5,
                    4_503_599_627_370_495.5,
                ]);
                let singles: Vec<f32> = values.iter().map(|v| *v as f32).collect();
                let lanes = [if wide { Lanes::F64(&values) } else { Lanes::F32(&singles) }];
                let (mut ints, mut reals) = (vec![0i64; values.len()], vec![0f64; values.len()]);
                let float = body.starts_with("round");
                if float {
                    tile.run_f64(&lanes, Channels::Uniform(0), &mut reals).unwrap();
                } else {
                    tile.run_i64(&lanes, Channels::Uniform(0), &mut ints).unwrap();
                }
                for i in 0..values.len() {
                    let input = if wide { Value::F64(values[i]) } else { Value::F32(singles[i]) };
                    let expected = compiled.eval(0, &[input]).unwrap();
                    if float {
                        let expected = expected.as_float().unwrap();
                        let same = expected.to_bits() == reals[i].to_bits() || (expected.is_nan() && reals[i].is_nan());
                        assert!(same, "{body} of {input}: {expected} {}", reals[i]);
                    } else {
                        assert_eq!(expected, Value::Int(ints[i].into()), "{body} of {input}");
                    }
                }
            }
        }
    }
}

#[test]
fn integer_quotients_equal_the_definition() {
    for mode in Rounding::ALL {
        let mut env = Env::new();
        env.input_int("v", i64::MIN.into(), i64::MAX.into()).input_int("d", 1, 40);
        let body = format!("div(v, d, {mode}) + div(clamp(v, -9999, 9999), -d, {mode})");
        let text = Text::new(format!("sat({body}, i64)"), "y");
        let compiled = Program::parse(&[], &text, &Functions::new()).unwrap().compile(&env).unwrap();
        let elements: Vec<Vec<Value>> = accumulators()
            .into_iter()
            .enumerate()
            .map(|(i, v)| vec![Value::Int(v.into()), Value::Int((i % 40 + 1) as i128)])
            .collect();
        equal_everywhere(&body, &compiled, &elements);
    }
}
