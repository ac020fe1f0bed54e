//! Weights that the target holds in another encoding than the file: the rules `weights` and `weights_scale`.

use super::super::environment::add_encoding;
use super::super::lanes::{CHUNK, ScaleMap, read_codes};
use super::super::quantizers;
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Kind, Result};
use crate::ops::Fact;
use crate::program::{Channels, Env, Lanes, Value};
use crate::spec::{Action, Spec, names};
use crate::tensor::{Data, Tensor};
use std::sync::Arc;

/// The fact of constant weights as the kernel multiplies them: signed 8-bit codes around zero. `None` where the spec leaves
/// the file's codes alone, or where the weights are not constant. `env` holds what the rules know besides the encodings;
/// `axis` runs over the `channels` outputs, each of which the rules see alone.
///
/// # Errors
/// Those of the rules; `weights_scale` where the new scale is not a positive number.
pub fn reencode(
    spec: &Spec,
    x: &Encoding,
    w: &Fact,
    axis: usize,
    channels: usize,
    env: impl FnOnce() -> Env,
) -> Result<Option<Fact>> {
    let (Some(codes), Some(from)) = (&w.codes, w.encoding.as_deref()) else { return Ok(None) };
    let Some(rule) = spec.rule(names::WEIGHTS) else { return Ok(None) };
    let env = env();
    if ["w.max", "w.reach"].iter().all(|name| !rule.asks_for(name))
        && let Action::Move = &rule.resolve(&environment(env.clone(), x, from, &vec![0; channels]))?.action
    {
        return Ok(None);
    }
    let map = channel_map(from, w, axis, channels)?;
    let reach: Vec<i64> = statistics(&map, from, codes, channels)?.iter().map(|s| s.reach).collect();
    let mut env = environment(env, x, from, &reach);
    match &rule.resolve(&env)?.action {
        Action::Move => return Ok(None),
        Action::Unsupported(reason) => {
            let error = Error::new(Kind::UnsupportedByTarget, "weights_encoding", reason.clone());
            return Err(error.at_tensor(&w.name));
        }
        _ => {}
    }
    let mut scale = scales(spec, &env, channels)?;
    let mut granularity = Granularity::PerChannel { axis };
    if from.granularity == Granularity::PerTensor && scale.windows(2).all(|s| s[0] == s[1]) {
        scale.truncate(1);
        granularity = Granularity::PerTensor;
    }
    env.input_int("w", from.qmin().into(), from.qmax().into());
    let compiled = quantizers::compile(spec, names::WEIGHTS, &env)?;
    let tile = compiled.tile();
    let mut out: Vec<i8> = Vec::with_capacity(codes.len());
    for start in (0..codes.len()).step_by(CHUNK) {
        let (mut wide, mut coded) = ([0i32; CHUNK], [0i32; CHUNK]);
        let len = CHUNK.min(codes.len() - start);
        read_codes(codes.data(), start, &mut wide[..len])?;
        map.segments(start..start + len, |range, channels| {
            let part = range.start - start..range.end - start;
            tile.run(&[Lanes::I32(&wide[part.clone()])], channels, &mut coded[part])
        })?;
        out.extend(coded[..len].iter().map(|&v| v as i8));
    }
    let encoding = Encoding {
        zero_point: vec![0; scale.len()],
        scale,
        bitwidth: 8,
        signed: true,
        symmetric: true,
        narrow_range: false,
        granularity,
        lpbq: None,
    };
    encoding.validate().map_err(|_| Error::invalid("weights_scale", "the rule gives a scale that is not positive"))?;
    let codes = Tensor::new(w.shape.clone(), Data::I8(out.into()))?;
    Ok(Some(Fact { constant: None, codes: Some(codes.into()), encoding: Some(Arc::new(encoding)), ..w.clone() }))
}

/// What the rules see: what `env` holds, `x.*`, `w.*`, `w.max`, `w.reach`, `w.centred`, and the codes of the result as `y`.
fn environment(mut env: Env, x: &Encoding, w: &Encoding, reach: &[i64]) -> Env {
    add_encoding(&mut env, "x", x);
    add_encoding(&mut env, "w", w);
    match w.granularity {
        Granularity::PerTensor => env.channel_ints("w.max", [reach.iter().copied().max().unwrap_or(0)]),
        _ => env.channel_ints("w.max", reach.iter().copied()),
    };
    env.channel_ints("w.reach", reach.iter().copied());
    let centre = if w.signed { 0 } else { 1i64 << (w.bitwidth - 1) };
    env.constant("w.centred", Value::Bool(w.zero_point.iter().all(|&z| z == centre)));
    env.output(i8::MIN.into(), i8::MAX.into());
    env
}

/// What constant weights hold in one output channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelStatistics {
    /// Sum of `w - zero point`.
    pub sum: i64,
    /// The largest `|w - zero point|`.
    pub reach: i64,
}

/// The statistics of each of `channels` outputs along `axis`; `None` without constant codes.
pub fn channel_statistics(w: &Fact, axis: usize, channels: usize) -> Result<Option<Vec<ChannelStatistics>>> {
    let (Some(codes), Some(encoding)) = (&w.codes, w.encoding.as_deref()) else { return Ok(None) };
    let map = channel_map(encoding, w, axis, channels)?;
    Ok(Some(statistics(&map, encoding, codes, channels)?))
}

/// Which element belongs to which output channel, whatever the granularity of the encoding.
fn channel_map(encoding: &Encoding, w: &Fact, axis: usize, channels: usize) -> Result<ScaleMap> {
    let spread = Encoding {
        scale: vec![1.0; channels],
        zero_point: vec![0; channels],
        granularity: Granularity::PerChannel { axis },
        ..encoding.clone()
    };
    ScaleMap::new(&spread, &w.shape)
}

fn statistics(map: &ScaleMap, encoding: &Encoding, codes: &Tensor, channels: usize) -> Result<Vec<ChannelStatistics>> {
    let mut out = vec![ChannelStatistics::default(); channels];
    let zero_point = |channel: usize| encoding.zero_point[channel % encoding.zero_point.len()];
    for start in (0..codes.len()).step_by(CHUNK) {
        let mut wide = [0i32; CHUNK];
        let len = CHUNK.min(codes.len() - start);
        read_codes(codes.data(), start, &mut wide[..len])?;
        map.segments(start..start + len, |range, place| {
            let codes = &wide[range.start - start..range.end - start];
            match place {
                Channels::Uniform(channel) => {
                    let (zero, to) = (zero_point(channel), &mut out[channel]);
                    to.sum += codes.iter().map(|&c| i64::from(c)).sum::<i64>() - zero * codes.len() as i64;
                    let lowest = codes.iter().copied().min().map_or(zero, i64::from);
                    let highest = codes.iter().copied().max().map_or(zero, i64::from);
                    to.reach = to.reach.max(highest - zero).max(zero - lowest);
                }
                Channels::Cyclic { start } => {
                    for (i, &code) in codes.iter().enumerate() {
                        let channel = (start + i) % channels;
                        let centred = i64::from(code) - zero_point(channel);
                        out[channel].sum += centred;
                        out[channel].reach = out[channel].reach.max(centred.abs());
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(out)
}

fn scales(spec: &Spec, env: &Env, channels: usize) -> Result<Vec<f64>> {
    let compiled = quantizers::compile(spec, names::WEIGHTS_SCALE, env)?;
    let scale = |channel: usize| {
        let value = compiled.eval(channel % compiled.channels(), &[])?;
        value.as_float().ok_or_else(|| Error::invalid("weights_scale", "the rule must give a real number"))
    };
    (0..channels).map(scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    const SPEC: &str = r#"
schema_version = 1
name = "t"
[rules.weights]
move = true
evidence = { status = "assumed", source = "test" }
[[rules.weights.cases]]
when = "!w.centred && x.bits == 16"
y = "sat(div((w - w.zp) * 127, max(w.max, 1), half_even), y)"
[rules.weights_scale]
y = "w.scale * f64(max(w.max, 1)) / 127.0"
evidence = { status = "assumed", source = "test" }
"#;

    fn fact(codes: Vec<u8>, scale: Vec<f64>, zero_point: Vec<i64>) -> Fact {
        let granularity = match scale.len() {
            1 => Granularity::PerTensor,
            _ => Granularity::PerChannel { axis: 1 },
        };
        let grid = Encoding::per_tensor(1.0, 0, 8, false).unwrap();
        let encoding = Encoding { scale, zero_point, granularity, ..grid };
        Fact {
            name: "w".into(),
            dtype: DType::F32,
            shape: vec![2, codes.len() / 2],
            constant: None,
            codes: Some(Tensor::new(vec![2, codes.len() / 2], Data::U8(codes.into())).unwrap().into()),
            encoding: Some(Arc::new(encoding)),
        }
    }

    fn run(x_bits: u32, w: &Fact) -> Option<(Vec<i64>, Vec<f64>)> {
        let spec = Spec::parse(SPEC, "test").unwrap();
        let x = Encoding::per_tensor(0.5, 0, x_bits, false).unwrap();
        let channels = w.shape[1];
        let out = reencode(&spec, &x, w, 1, channels, Env::new).unwrap()?;
        let encoding = out.encoding.unwrap();
        assert_eq!((encoding.signed, encoding.bitwidth), (true, 8));
        assert!(encoding.zero_point.iter().all(|&z| z == 0));
        Some((out.codes.unwrap().to_i64().unwrap(), encoding.scale.clone()))
    }

    #[test]
    fn the_largest_weight_becomes_127() {
        let w = fact(vec![0, 10, 20, 210], vec![0.25], vec![10]);
        let (codes, scale) = run(16, &w).unwrap();
        // (-10, 0, 10, 200) · 127 / 200 = (-6.35, 0, 6.35, 127)
        assert_eq!((codes, scale), (vec![-6, 0, 6, 127], vec![0.25 * 200.0 / 127.0]));
        assert_eq!(run(8, &w), None);
    }

    #[test]
    fn channels_have_their_own_largest_weight() {
        let w = fact(vec![1, 3, 3, 7], vec![1.0, 2.0], vec![2, 3]);
        let (codes, scale) = run(16, &w).unwrap();
        assert_eq!((codes, scale), (vec![-127, 0, 127, 127], vec![1.0 / 127.0, 2.0 * 4.0 / 127.0]));
    }

    #[test]
    fn centred_and_zero_weights_need_no_division() {
        assert_eq!(run(16, &fact(vec![128, 129, 3, 255], vec![0.25], vec![128])), None);
        assert_eq!(run(16, &fact(vec![9; 4], vec![0.25], vec![9])).unwrap().0, [0; 4]);
    }

    #[test]
    fn channels_of_one_encoding_may_get_scales_of_their_own() {
        let text = SPEC.replace("w.max", "w.reach").replace("x.bits == 16", "taps == 9");
        let spec = Spec::parse(&text, "test").unwrap();
        let x = Encoding::per_tensor(0.5, 0, 8, false).unwrap();
        let w = fact(vec![10, 30, 210, 110], vec![0.25], vec![10]);
        let mut env = Env::new();
        env.constant("taps", Value::Int(9));
        let out = reencode(&spec, &x, &w, 1, 2, || env.clone()).unwrap().unwrap();
        let encoding = out.encoding.unwrap();
        assert_eq!(out.codes.unwrap().to_i64().unwrap(), [0, 25, 127, 127]);
        assert_eq!(encoding.scale, [0.25 * 200.0 / 127.0, 0.25 * 100.0 / 127.0]);
        assert_eq!(encoding.granularity, Granularity::PerChannel { axis: 1 });
        let even = fact(vec![0, 0, 20, 20], vec![0.25], vec![10]);
        let out = reencode(&spec, &x, &even, 1, 2, || env).unwrap().unwrap();
        assert_eq!(out.encoding.unwrap().granularity, Granularity::PerTensor);
    }

    #[test]
    fn statistics_are_those_of_outputs_along_the_axis() {
        let w = fact(vec![1, 3, 3, 7], vec![1.0, 2.0], vec![2, 3]);
        let by = |axis| channel_statistics(&w, axis, 2).unwrap().unwrap().iter().map(|s| (s.sum, s.reach)).collect();
        let columns: Vec<(i64, i64)> = by(1);
        assert_eq!(columns, [(0, 1), (4, 4)]);
        let one = fact(vec![1, 3, 3, 7], vec![1.0], vec![2]);
        let rows: Vec<_> = channel_statistics(&one, 0, 2).unwrap().unwrap();
        assert_eq!(rows, [ChannelStatistics { sum: 0, reach: 1 }, ChannelStatistics { sum: 6, reach: 5 }]);
    }
}
