//! Programs of real kernels, for the tests.

use super::{Compiled, Env, Functions, Program, Text, Value};
use crate::num::FloatType;

pub(super) struct Sample {
    pub name: &'static str,
    pub lets: &'static [(&'static str, &'static str)],
    pub body: &'static str,
    pub env: fn() -> Env,
}

impl Sample {
    pub fn program(&self) -> Program {
        let text = |key: &str, text: &str| Text::new(text, format!("{}.{key}", self.name));
        let lets: Vec<(String, Text)> = self.lets.iter().map(|(n, t)| (n.to_string(), text(n, t))).collect();
        Program::parse(&lets, &text("y", self.body), &Functions::new()).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

/// An accumulator of 32 bits, per-channel weight scales that make the exponent of the multiplier change sign.
fn conv() -> Env {
    let mut env = Env::new();
    let scales = [0.000_37, 0.013, 0.25, 0.004_1, 0.5, 1.7, 9.3].map(Value::F64).to_vec();
    env.constant("x.scale", Value::F64(0.023_5))
        .constant("y.scale", Value::F64(0.040_1))
        .constant("y.zp", Value::Int(-5))
        .channel("w.scale", scales)
        .input_int("acc", i32::MIN.into(), i32::MAX.into())
        .output(-128, 127);
    env
}

/// As [`conv`], with factors that are powers of two, so that ties occur.
fn conv_ties() -> Env {
    let mut env = conv();
    env.constant("x.scale", Value::F64(0.5))
        .constant("y.scale", Value::F64(1.0))
        .channel("w.scale", [0.015_625, 0.5, 1.0, 2.0, 8.0].map(Value::F64).to_vec());
    env
}

/// Two codes of 8 bits.
fn pair() -> Env {
    let mut env = Env::new();
    env.constant("a.scale", Value::F64(0.02))
        .constant("b.scale", Value::F64(0.031))
        .constant("y.scale", Value::F64(0.05))
        .constant("a.zp", Value::Int(131))
        .constant("b.zp", Value::Int(120))
        .constant("y.zp", Value::Int(127))
        .input_int("a", 0, 255)
        .input_int("b", 0, 255)
        .output(0, 255);
    env
}

fn wide() -> Env {
    let mut env = conv();
    env.input_int("acc", -(1 << 47), (1 << 47) - 1).output(-32768, 32767);
    env
}

fn float_input() -> Env {
    let mut env = pair();
    env.input_float("a", FloatType::F32).input_float("b", FloatType::F32);
    env
}

fn halves() -> Env {
    let mut env = pair();
    env.input_float("a", FloatType::F16).input_float("b", FloatType::F16);
    env
}

const Q31: &[(&str, &str)] = &[
    ("M", "f64(x.scale) * f64(w.scale) / f64(y.scale)"),
    ("q", "int(ldexp(mantissa(M), 31), half_away)"),
    ("e", "exponent(M) + select(q == 1 << 31, 1, 0)"),
    ("m", "select(q == 1 << 31, 1 << 30, q)"),
];

pub(super) const SAMPLES: &[Sample] = &[
    Sample {
        name: "q31_double",
        lets: Q31,
        body: "t = wrap(shl(acc, max(e, 0)), i32)
               t = sat(shr(t * m, 31, half_up), i32)
               t = shr(t, max(-e, 0), half_away)
               sat(t + y.zp, y)",
        env: conv,
    },
    Sample {
        name: "q31_double_ties",
        lets: Q31,
        body: "t = wrap(shl(acc, max(e, 0)), i32)
               t = sat(shr(t * m, 31, half_up), i32)
               t = shr(t, max(-e, 0), half_away)
               sat(t + y.zp, y)",
        env: conv_ties,
    },
    Sample { name: "q31_single", lets: Q31, body: "sat(shr(acc * m, 31 - e, half_up) + y.zp, y)", env: conv },
    Sample {
        name: "q15_wide",
        lets: &[
            ("M", "f64(x.scale) * f64(w.scale) / f64(y.scale)"),
            ("e", "exponent(M)"),
            ("m", "int(ldexp(mantissa(M), 31), half_away)"),
            ("r", "select(m < 0x7FFF0000, shr(m, 16, half_up), 0x7FFF)"),
        ],
        body: "sat(shr(acc * r, 15 - e, half_up), y)",
        env: wide,
    },
    Sample {
        name: "f32_scale",
        lets: &[("s", "f32(f32(x.scale) * f32(w.scale)) / f32(y.scale)")],
        body: "int(clamp(f32(acc) * s, f32(y.qmin - y.zp), f32(y.qmax - y.zp)), half_even) + y.zp",
        env: conv,
    },
    Sample {
        name: "f32_scale_clamped_after",
        lets: &[("s", "f32(f32(x.scale) * f32(w.scale)) / f32(y.scale)")],
        body: "sat(int(f32(acc) * s, half_away) + y.zp, y)",
        env: conv_ties,
    },
    Sample {
        name: "f32_affine",
        lets: &[("s", "f32(f32(x.scale) * f32(w.scale)) / f32(y.scale)")],
        body: "sat(int(f32(acc) * s + f32(y.zp), half_even), y)",
        env: conv_ties,
    },
    Sample {
        name: "f32_add_fma",
        lets: &[
            ("ra", "f32(a.scale) / f32(y.scale)"),
            ("rb", "f32(b.scale) / f32(y.scale)"),
            ("c", "f32(y.zp) - (ra * f32(a.zp) + rb * f32(b.zp))"),
        ],
        body: "sat(int(fma(f32(a), ra, fma(f32(b), rb, c)), half_even), y)",
        env: pair,
    },
    Sample {
        name: "three_multipliers",
        lets: &[
            ("t2", "2 * max(a.scale, b.scale)"),
            ("fa", "a.scale / t2"),
            ("fb", "b.scale / t2"),
            ("fo", "t2 / (2^20 * y.scale)"),
            ("ma", "int(ldexp(mantissa(fa), 31), half_away)"),
            ("mb", "int(ldexp(mantissa(fb), 31), half_away)"),
            ("mo", "int(ldexp(mantissa(fo), 31), half_away)"),
            ("ea", "exponent(fa)"),
            ("eb", "exponent(fb)"),
            ("eo", "exponent(fo)"),
        ],
        body: "u = shr(sat(shr(shl(a - a.zp, 20) * ma, 31, half_up), i32), -ea, half_away)
               v = shr(sat(shr(shl(b - b.zp, 20) * mb, 31, half_up), i32), -eb, half_away)
               y = sat(shr(shr((u + v) * mo, 31, half_up), -eo, half_away) + y.zp, y)",
        env: pair,
    },
    Sample {
        name: "common_shift",
        lets: &[
            ("fa", "f32(a.scale) / f32(y.scale)"),
            ("fb", "f32(b.scale) / f32(y.scale)"),
            ("rsh", "min(6 - (exponent((fa + fb) * (f32(16384) / 16380))), 7)"),
            ("A", "int(fa * 2^(rsh + 8), half_away)"),
            ("B", "int(fb * 2^(rsh + 8), half_away)"),
            ("off", "sat(int(f32(y.zp) * 2^rsh, half_away) - shr(a.zp * A + b.zp * B, 8, floor), i16)"),
        ],
        body: "t = shr(a * A + b * B, 8, floor)
               t = sat(t + off, i16)
               sat(shr(t, rsh, half_up), y)",
        env: pair,
    },
    Sample {
        name: "twelve_bit_add",
        lets: &[
            ("A", "int(a.scale / y.scale * 2^12, half_even)"),
            ("B", "int(b.scale / y.scale * 2^12, half_even)"),
            ("c", "int((y.zp - a.zp * (a.scale / y.scale) - b.zp * (b.scale / y.scale)) * 2^12, half_even)"),
        ],
        body: "sat(shr(a * A + b * B + c, 12, half_even), y)",
        env: pair,
    },
    Sample {
        name: "dropped_bits",
        lets: &[("M", "x.scale * w.scale / y.scale"), ("m", "int(M * 2^20, half_even)")],
        body: "sat(shr(shr(acc, 8, floor) * m, 12, half_up) + y.zp, y)",
        env: conv,
    },
    Sample {
        name: "kpu_carry",
        lets: &[],
        body: "w = shr(acc, 6, floor)
               odd = wrap(w, u1) == 1
               h = shr(w, 1, floor)
               sat(select(odd, select(w < 0, h - 1, h + 1), h), y)",
        env: conv,
    },
    Sample {
        name: "rescale_double",
        lets: &[("m", "1518500250"), ("s", "38")],
        body: "p = (acc - 3) * m
               r = shl(1, s - 1) + select(s > 31, select(acc >= 3, 1 << 30, -(1 << 30)), 0)
               sat(shr(p + r, s, floor) + y.zp, y)",
        env: conv,
    },
    Sample {
        name: "table_interpolated",
        lets: &[("t", "table(513, i -> int(clamp(tanh(f64(i - 256) / 64.0) * 32768.0, -32768.0, 32767.0), half_away))")],
        body: "v = sat(shr(acc, 4, half_up), i16)
               i = 256 + shr(v, 7, floor)
               off = wrap(v, u7)
               base = at(t, i)
               slope = at(t, i + 1) - base
               sat(base + shr(slope * off, 7, half_up), i16)",
        env: wide,
    },
    Sample {
        name: "leaky",
        lets: &[("m", "int(ldexp(f64(0.7), 15), half_away)")],
        body: "d = a - a.zp
               sat(select(d < 0, shr(d * m, 17, half_away), abs(d) - min(d, 3)) + max(b, 7) - b.zp, y)",
        env: pair,
    },
    Sample {
        name: "every_mode",
        lets: &[],
        body: "n = sat(b, 0, 15)
               v = (a - a.zp) * 37
               s = shr(v, n, floor) + shr(v, n, ceil) - shr(v, n, trunc) + 3 * shr(v, n, half_up) - shr(v, n, half_down)
               s = s + 5 * shr(v, n, half_away) - 7 * shr(v, n, half_to_zero) + 11 * shr(v, n, half_even) + 13 * shr(v, n, half_odd)
               d = div(v, b + 1, half_even) + div(v, -3, half_away) - div(v, 5, floor) + clz(abs(v), 32) + floor_log2(b + 1)
               s * 3 + d",
        env: pair,
    },
    Sample {
        name: "quantize",
        lets: &[],
        body: "q = round(a / f32(y.scale), half_even) + f32(y.zp)
               int(clamp(q, f32(y.qmin), f32(y.qmax)), trunc) + sat(int(b, half_odd), i16)",
        env: float_input,
    },
    Sample {
        name: "double_steps",
        lets: &[("s", "a.scale / y.scale")],
        body: "v = fma(f64(a), s, -(f64(b) * 0.25)) / 3.0
               v = select(v < 0.0, min(v, -v), max(v, 0.125))
               sat(int(v, half_down) + bucket(v, [-3.0, 0.0, 1.5]) + bucket(b, [0, 1, 77, 200]), y)",
        env: pair,
    },
    Sample {
        name: "half_steps",
        lets: &[],
        body: "v = fma(a, b, a) * 0.5 + b / f16(3)
               w = bf16(v) - bf16(b)
               sat(int(clamp(f32(v), -100.0, 100.0), half_even) + int(clamp(f32(w), -100.0, 100.0), half_up), y)",
        env: halves,
    },
    Sample {
        name: "rare_steps",
        lets: &[("edges", "[1, 2, 4, 8, 16, 1000]")],
        body: "v = f64(a) * 0.01 - 1.0
               m = int(ldexp(mantissa(v), 12), half_even) + exponent(v) * 3
               t = int(clamp(tanh(v) * exp(v) * 100.0 + f64(fl(f32(v), 5, half_up)), -500.0, 500.0), ceil)
               m + t + bucket(b, edges) + int(a > b) - int(a == b && !(b != 3) || a <= 2)",
        env: pair,
    },
];

/// A program of two codes, `a` unsigned and `b` signed, for unsigned codes.
pub(super) fn of_two_codes(y: &str) -> Compiled {
    let mut env = Env::new();
    env.input_int("a", 0, 255).input_int("b", -128, 127).output(0, 255);
    Program::parse(&[], &Text::new(y, "y"), &Functions::new()).unwrap().compile(&env).unwrap()
}
