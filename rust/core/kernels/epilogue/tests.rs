use super::super::reference;
use super::super::testing::{Random, on_every_engine};
use super::fixed::Width;
use super::*;

const CHANNELS: usize = 37;

/// Accumulators around every power of two and random ones, in rows of `CHANNELS`.
fn accumulators() -> Vec<i32> {
    let mut values: Vec<i32> = vec![0, i32::MIN, i32::MAX, i32::MIN + 1];
    for k in 0..31 {
        for d in -2..=2 {
            values.extend([(1i32 << k).wrapping_add(d), (-(1i32 << k)).wrapping_add(d)]);
        }
    }
    values.extend(-600..600);
    values.extend(Random::new(5).ints(2000, i32::MIN, i32::MAX));
    values.extend(Random::new(6).ints(4000, -200_000, 200_000));
    values.resize(values.len().next_multiple_of(CHANNELS), 12_345);
    values
}

/// Runs the epilogue over all accumulators, in tiles that start at `channel`, and compares with `expected(acc, channel)`.
fn check<O: Code>(epilogue: &impl Epilogue<Out = O>, channel: usize, expected: impl Fn(i32, usize) -> i32) {
    check_on(&accumulators(), epilogue, channel, expected);
}

fn check_on<O: Code>(
    acc: &[i32],
    epilogue: &impl Epilogue<Out = O>,
    channel: usize,
    expected: impl Fn(i32, usize) -> i32,
) {
    let rows = acc.len() / CHANNELS;
    let cols = CHANNELS - channel;
    on_every_engine(|engine| {
        let mut out = vec![O::default(); rows * CHANNELS];
        let tile = AccTile { acc, stride: CHANNELS, rows, cols, row: 0, channel };
        epilogue.apply(engine.simd(), tile, OutTile { data: &mut out, stride: CHANNELS });
        for r in 0..rows {
            for c in 0..CHANNELS {
                let want = if c < cols { expected(acc[r * CHANNELS + c], channel + c) } else { 0 };
                let (got, a) = (out[r * CHANNELS + c].to_i32(), acc[r * CHANNELS + c]);
                assert_eq!(got, want, "{:?}: acc {a}, column {c} from channel {channel}", engine.simd());
            }
        }
    });
}

#[test]
fn float_scale_equals_its_twin_on_ties_and_extremes() {
    let mut scale: Vec<f32> = (0..CHANNELS as i32).map(|e| 2f32.powi(e - 20)).collect();
    (0..8).for_each(|i| scale[3 * i] = 0.001_234_5 * (i + 1) as f32);
    scale[5] = -0.5;
    scale[6] = 0.0;
    scale[7] = f32::MAX;
    let s = scale.clone();
    for channel in [0, 5] {
        let e = FloatScale::<u8>::new(scale.clone(), -7.0, 248.0, 7, 0, 255).unwrap();
        check(&e, channel, |a, c| reference::float_scale(a, s[c], -7.0, 248.0, 7, 0, 255));
        let e = FloatScale::<i8>::new(scale.clone(), -200.5, 200.5, -3, -128, 127).unwrap();
        check(&e, channel, |a, c| reference::float_scale(a, s[c], -200.5, 200.5, -3, -128, 127));
        let e = FloatScale::<u16>::new(scale.clone(), -32_768.0, 32_767.0, 32_768, 0, 65_535).unwrap();
        check(&e, channel, |a, c| reference::float_scale(a, s[c], -32_768.0, 32_767.0, 32_768, 0, 65_535));
    }
}

#[test]
fn float_affine_equals_its_twin_on_ties_and_extremes() {
    let scale: Vec<f32> = (0..CHANNELS as i32).map(|e| if e % 5 == 0 { -0.001_7 } else { 2f32.powi(e - 30) }).collect();
    let offset: Vec<f32> = (0..CHANNELS as i32).map(|c| (c % 7) as f32 * 0.25 + 100.0).collect();
    let (s, o) = (scale.clone(), offset.clone());
    for channel in [0, 3] {
        let e = FloatAffine::<u8>::new(scale.clone(), offset.clone(), 0, 0, 255).unwrap();
        check(&e, channel, |a, c| reference::float_affine(a, s[c], o[c], 0, 0, 255));
        let e = FloatAffine::<i16>::new(scale.clone(), offset.clone(), -90, -32_768, 32_000).unwrap();
        check(&e, channel, |a, c| reference::float_affine(a, s[c], o[c], -90, -32_768, 32_000));
    }
    assert!(FloatAffine::<u8>::new(vec![1.0], vec![f32::INFINITY], 0, 0, 255).is_none());
    assert!(FloatAffine::<u8>::new(vec![1.0], vec![0.0], 1 << 25, 0, 255).is_none());
}

#[test]
fn double_rounding_equals_its_twin_on_ties_and_extremes() {
    let mut random = Random::new(9);
    let mut multiplier = random.ints(CHANNELS, 1 << 30, i32::MAX);
    multiplier[..6].copy_from_slice(&[1 << 30, i32::MAX, 0, -(1 << 30), i32::MIN + 1, 1]);
    let left: Vec<i32> = (0..CHANNELS as i32).map(|c| if c % 3 == 0 { c % 32 } else { 0 }).collect();
    let right: Vec<i32> = (0..CHANNELS as i32).map(|c| if c % 3 == 0 { 0 } else { c % 32 }).collect();
    let plain: Vec<i32> = accumulators().into_iter().map(|a| a.clamp(-(1 << 29), 1 << 29)).collect();
    check_on(
        &plain,
        &{
            let e =
                DoubleRounding::<i8>::new(vec![0; CHANNELS], multiplier.clone(), right.clone(), -5, -128, 127).unwrap();
            e.within(1 << 29)
        },
        0,
        |a, c| reference::double_rounding(a, 0, multiplier[c], right[c] as u32, -5, -128, 127),
    );
    for channel in [0, 3] {
        let twin = |zero_point, qmin, qmax| {
            let (l, m, r) = (left.clone(), multiplier.clone(), right.clone());
            move |a, c| reference::double_rounding(a, l[c] as u32, m[c], r[c] as u32, zero_point, qmin, qmax)
        };
        let e = DoubleRounding::<i8>::new(left.clone(), multiplier.clone(), right.clone(), -5, -128, 127).unwrap();
        check(&e, channel, twin(-5, -128, 127));
        let e = DoubleRounding::<u8>::new(left.clone(), multiplier.clone(), right.clone(), 128, 3, 250).unwrap();
        check(&e, channel, twin(128, 3, 250));
        let e =
            DoubleRounding::<i16>::new(left.clone(), multiplier.clone(), right.clone(), 0, -32_768, 32_767).unwrap();
        check(&e, channel, twin(0, -32_768, 32_767));
        let (lo, hi) = (i32::MIN, i32::MAX);
        let e = DoubleRounding::<i32>::new(left.clone(), multiplier.clone(), right.clone(), 1000, lo, hi).unwrap();
        check(&e, channel, twin(1000, lo, hi));
    }
}

#[test]
fn mul_shift_equals_its_twin_in_every_rounding() {
    use ShiftRounding::{Floor, HalfAway, HalfEven, HalfUp};
    let mut random = Random::new(11);
    let mut multiplier = random.ints(CHANNELS, i32::MIN, i32::MAX);
    multiplier[..10].copy_from_slice(&[1, 1, 1, 1, 1, 1, 1, 1, i32::MIN, i32::MAX]);
    let mut shift: Vec<u32> = (0..CHANNELS as u32).map(|c| 16 + c).collect();
    shift[..10].copy_from_slice(&[0, 1, 2, 3, 5, 8, 20, 62, 31, 62]);
    let mut offset = vec![0i64; CHANNELS];
    offset[8] = (1 << 61) - 1;
    offset[9] = 1 - (1 << 61);
    offset[12] = -123_456_789_012;
    for rounding in [Floor, HalfUp, HalfEven, HalfAway] {
        for (channel, zero_point) in [(0, 0), (5, -9)] {
            let twin = |qmin, qmax| {
                let (m, o, s) = (multiplier.clone(), offset.clone(), shift.clone());
                move |a, c| reference::mul_shift(a, m[c], o[c], s[c], rounding, zero_point, qmin, qmax)
            };
            let make = || (multiplier.clone(), offset.clone(), shift.clone());
            let (m, o, s) = make();
            check(&MulShift::<i8>::new(m, o, s, rounding, zero_point, -128, 127).unwrap(), channel, twin(-128, 127));
            let (m, o, s) = make();
            check(&MulShift::<u16>::new(m, o, s, rounding, zero_point, 0, 65_535).unwrap(), channel, twin(0, 65_535));
            let (m, o, s) = make();
            let (lo, hi) = (i32::MIN, i32::MAX);
            check(&MulShift::<i32>::new(m, o, s, rounding, zero_point, lo, hi).unwrap(), channel, twin(lo, hi));
        }
    }
}

#[test]
fn steps_of_32_bits_equal_their_twin() {
    use ShiftRounding::{Floor, HalfAway, HalfEven, HalfUp};
    // The largest accumulators exceed the reach that is promised, and are left out.
    const REACH: u32 = 200_000;
    let multiplier: Vec<i32> = (0..CHANNELS as i32).map(|c| (c - 9) * 300).collect();
    let offset: Vec<i64> = (0..CHANNELS as i64).map(|c| c * 1001 - 17_000).collect();
    let shift: Vec<u32> = (0..CHANNELS as u32).map(|c| c % 24).collect();
    let acc: Vec<i32> = accumulators().into_iter().map(|a| a.clamp(-(REACH as i32), REACH as i32)).collect();
    for rounding in [Floor, HalfUp, HalfEven, HalfAway] {
        let (m, o, s) = (multiplier.clone(), offset.clone(), shift.clone());
        let e = MulShift::<i8>::new(m, o, s, rounding, -4, -128, 127).unwrap().within(REACH);
        assert_eq!(e.width, Width::All32);
        check_on(&acc, &e, 0, |a, c| {
            reference::mul_shift(a, multiplier[c], offset[c], shift[c], rounding, -4, -128, 127)
        });
    }
}

#[test]
fn what_the_vector_forms_cannot_do_exactly_is_refused() {
    assert!(FloatScale::<u8>::new(vec![f32::INFINITY], 0.0, 1.0, 0, 0, 255).is_none());
    assert!(FloatScale::<u8>::new(vec![1.0], 0.0, 1e9, 0, 0, 255).is_none());
    assert!(FloatScale::<u8>::new(vec![1.0], f32::NAN, 1.0, 0, 0, 255).is_none());
    assert!(FloatScale::<u8>::new(vec![1.0], 0.0, 1.0, 0, -1, 255).is_none());
    assert!(DoubleRounding::<i8>::new(vec![0], vec![i32::MIN], vec![0], 0, -128, 127).is_none());
    assert!(DoubleRounding::<i8>::new(vec![32], vec![1], vec![0], 0, -128, 127).is_none());
    assert!(DoubleRounding::<i8>::new(vec![], vec![1], vec![0], 0, -128, 127).is_none());
    assert!(MulShift::<i8>::new(vec![1], vec![1 << 61], vec![0], ShiftRounding::Floor, 0, -128, 127).is_none());
    assert!(MulShift::<i8>::new(vec![1], vec![0], vec![63], ShiftRounding::Floor, 0, -128, 127).is_none());
    assert!(MulShift::<i8>::new(vec![1], vec![0], vec![1], ShiftRounding::Floor, 0, 5, 4).is_none());
}

#[test]
fn rounding_at_minus_one_half() {
    let at = |rounding| reference::shift_right(-1, 1, rounding);
    assert_eq!(at(ShiftRounding::Floor), -1);
    assert_eq!(at(ShiftRounding::HalfUp), 0);
    assert_eq!(at(ShiftRounding::HalfEven), 0);
    assert_eq!(at(ShiftRounding::HalfAway), -1);
}
