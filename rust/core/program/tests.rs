//! The language as a whole.

use super::samples::SAMPLES;
use super::*;

fn run(lets: &[(&str, &str)], body: &str, env: &Env, inputs: &[Value]) -> Result<Value> {
    let lets: Vec<(String, Text)> =
        lets.iter().map(|(n, t)| (n.to_string(), Text::new(*t, format!("let.{n}")))).collect();
    Program::parse(&lets, &Text::new(body, "y"), &Functions::new())?.compile(env)?.eval(0, inputs)
}

fn constant(body: &str) -> Value {
    let mut env = Env::new();
    env.constant("k", Value::Int(5))
        .constant("s", Value::F64(0.25))
        .table("w", vec![Value::F32(1.5), Value::F32(-3.0), Value::F32(0.5)]);
    run(&[], body, &env, &[]).unwrap_or_else(|e| panic!("{body}: {e}"))
}

fn refusal(body: &str) -> Error {
    let mut env = Env::new();
    env.constant("k", Value::Int(5))
        .constant("x.scale", Value::F32(0.5))
        .channel("w.scale", vec![Value::F64(1.0), Value::F64(2.0)])
        .input_int("acc", i32::MIN.into(), i32::MAX.into())
        .input_float("v", crate::num::FloatType::F32)
        .output(0, 255);
    let program = match Program::parse(&[], &Text::new(body, "y"), &Functions::new()) {
        Ok(program) => program,
        Err(error) => return error,
    };
    program.compile(&env).err().unwrap_or_else(|| panic!("'{body}' compiles"))
}

#[test]
fn samples_compile() {
    for sample in SAMPLES {
        sample.program().compile(&(sample.env)()).unwrap_or_else(|e| panic!("{}: {e}", sample.name));
    }
}

#[test]
fn constants_fold() {
    let int = Value::Int;
    for (body, expected) in [
        ("2^k + 3 * -2", int(26)),
        ("-2^2", int(-4)),
        ("2^-2 * s", Value::F64(0.0625)),
        ("f32(0.1)", Value::F32(0.1)),
        ("let_ = f32(1)\n let_ / 3", Value::F32(1.0 / 3.0)),
        ("first(i in 0..64 : 1 << i > 1000)", int(10)),
        ("argmin(i in -5..6 : abs(i - 3))", int(3)),
        ("argmin(i in -32..31 : abs(f64(int(0.3 * 2^i, half_even)) * 2^-i - 0.3))", int(30)),
        ("sum(table(10, i -> i * i))", int(285)),
        ("at([3, 1, 4], 2) + len([1, 2])", int(6)),
        ("max_abs(w)", Value::F32(3.0)),
        ("channel_max(k) - channel_max(-k)", int(10)),
        ("sum(w)", Value::F64(-1.0)),
        ("min(w)", Value::F32(-3.0)),
        ("bucket(5, [1, 5, 9])", int(2)),
        ("select(k > 0, 7, div(1, k - 5, floor))", int(7)),
        ("int(k > 0 && (k == 5 || div(1, 0, floor) > 0))", int(1)),
        ("clz(1, 32) + clz(0, 16)", int(47)),
        ("floor_log2(1023) + floor_log2(0.2)", int(6)),
        ("exponent(0.75) + exponent(1.0)", int(1)),
        ("mantissa(3.0)", Value::F64(0.75)),
        ("wrap(300, u8) + sat(300, i8) + wrap(200, i8)", int(44 + 127 - 56)),
        ("fl(0.1, 24, half_even)", Value::F64(f64::from(0.1f32))),
        ("round(2.5, half_even)", Value::F64(2.0)),
        ("shr(-5, 1, half_away) * 100 + shr(-5, 1, half_up)", int(-302)),
        ("div(-7, 2, trunc)", int(-3)),
        ("0x1F + 1_000", int(1031)),
        ("int(2.5, half_odd)", int(3)),
        ("pow(2.0, 0.5)", Value::F64(libm::pow(2.0, 0.5))),
        ("f64(sqrt(2))", Value::F64(2f64.sqrt())),
    ] {
        assert_eq!(constant(body), expected, "{body}");
    }
}

#[test]
fn refusals_have_code_and_place() {
    for (body, code, excerpt) in [
        ("acd + 1", "program_unknown_name", "did you mean 'acc'"),
        ("shrr(acc, 1, floor)", "program_unknown_function", "did you mean 'shr'"),
        ("shr(acc, 1, half_upp)", "program_mode", "half_up"),
        ("shr(acc, 1)", "program_arity", "shr(value, n, mode)"),
        ("t = shl(acc, 40)\n t", "program_range", "wrap"),
        ("acc * acc * acc * acc * acc", "program_range", "127 bits"),
        ("shr(acc, k - 6, floor)", "program_range", "shift count"),
        ("shl(1, acc)", "program_range", "shift count"),
        ("div(acc, acc, floor)", "program_range", "zero"),
        ("acc / 2", "program_type", "div(a, b, mode)"),
        ("acc * 0.5", "program_type", "f32"),
        ("v * acc", "program_type", "exactly"),
        ("v * w.scale", "program_type", "do not mix"),
        ("v + true", "program_type", "expected a number"),
        ("acc && true", "program_type", "expected bool"),
        ("select(acc, 1, 2)", "program_type", "expected bool"),
        ("wrap(acc, i65)", "program_type", "i1 to i64"),
        ("at([1, 2], acc)", "program_range", "index"),
        ("int(v)", "program_mode", "half_even"),
        ("table(4, i -> i + acc)", "program_rate", "run-time"),
        ("first(i in 0..acc : true)", "program_rate", "constants"),
        ("first(i in 0..3 : i > 9)", "program_loop", "fulfils"),
        ("table(3000000, i -> i)", "program_loop", "2^20"),
        ("acc = 3\n acc", "program_name", "given from outside"),
        ("div(k, 0, floor) + acc", "program_value", "division by zero"),
        ("int(x.scale / 0, floor)", "program_value", "does not become"),
        ("[1, 2]", "program_type", "scalar"),
        ("acc ^ 2", "program_rate", "constants"),
        ("bucket(acc, [3, 1])", "program_table", "rise"),
        ("clz(acc)", "program_range", "clz"),
        ("exponent(v)", "program_range", "clamp"),
        ("floor_log2(acc)", "program_range", "positive"),
        ("f32(2^-200 + k) + x.scale * (1 / 3.0)", "program_type", "f32"),
    ] {
        let error = refusal(body);
        assert_eq!(error.code(), code, "{body}: {error}");
        assert!(error.to_string().contains(excerpt), "{body}: {error}");
        assert!(matches!(error.location(), Some(crate::Location::Text { .. })), "{body}");
    }
}

#[test]
fn functions_are_hygienic() {
    let mut functions = Functions::new();
    let text = |t: &str| Text::new(t, "functions");
    functions.define("twice", &["v".into()], &[], text("t = v + v\n t")).unwrap();
    functions.define("scaled", &["v".into()], &[("m".into(), text("k * 2"))], text("twice(v) * m")).unwrap();
    let mut env = Env::new();
    env.constant("k", Value::Int(5)).input_int("acc", -100, 100);
    let parse = |body: &str| Program::parse(&[("m".into(), text("1000"))], &text(body), &functions);
    let compiled = parse("t = 7\n scaled(acc + t) + t + m").unwrap().compile(&env).unwrap();
    assert_eq!(compiled.eval(0, &[Value::Int(3)]).unwrap(), Value::Int(2 * 10 * 10 + 7 + 1000));
    // The caller's names are invisible inside.
    functions.define("leak", &[], &[], text("t + 1")).unwrap();
    let error = Program::parse(&[], &text("t = 1\n leak()"), &functions).unwrap().compile(&env).unwrap_err();
    assert_eq!(error.code(), "program_unknown_name");
    // Cycles, shadowed functions and wrong counts.
    functions.define("f", &[], &[], text("g()")).unwrap();
    assert!(functions.define("g", &[], &[], text("f()")).is_err());
    assert!(functions.define("shr", &[], &[], text("1")).is_err());
    assert_eq!(
        Program::parse(&[], &text("twice(1, 2)"), &functions).unwrap().compile(&env).unwrap_err().code(),
        "program_arity"
    );
    assert!(Program::parse(&[], &text("f()"), &functions).unwrap().compile(&env).is_err());
}

#[test]
fn inlining_cannot_explode() {
    let mut functions = Functions::new();
    let text = |t: String| Text::new(t, "functions");
    functions.define("g0", &["v".into()], &[], text("v + 1".into())).unwrap();
    for i in 1..100 {
        let body = text(format!("g{0}(v) + g{0}(v + 1)", i - 1));
        functions.define(&format!("g{i}"), &["v".into()], &[], body).unwrap();
    }
    let mut env = Env::new();
    env.input_int("acc", 0, 1);
    let program = Program::parse(&[], &text("g40(acc)".into()), &functions).unwrap();
    assert!(program.compile(&env).is_err());
    let program = Program::parse(&[], &text("g99(1)".into()), &functions).unwrap();
    assert!(program.compile(&env).is_err());
}

#[test]
fn guards() {
    let mut env = Env::new();
    env.constant("bits", Value::Int(8)).input_int("acc", 0, 1).channel("c", vec![Value::Int(1), Value::Int(2)]);
    let holds = |t: &str| parse_guard(&Text::new(t, "when"), &Functions::new()).unwrap().holds(&env);
    assert!(holds("bits == 8 && !(bits > 8)").unwrap());
    assert!(!holds("bits == 16").unwrap());
    assert!(holds("acc == 1").is_err() && holds("c == 1").is_err() && holds("bits").is_err());
}

#[test]
fn double_rounding_of_known_values() {
    let sample = SAMPLES.iter().find(|s| s.name == "q31_double_ties").unwrap();
    let compiled = sample.program().compile(&(sample.env)()).unwrap();
    assert_eq!(compiled.channels(), 5);
    // Factor 1/128. 63 becomes 31.5, upward 32, then 0.5, away from zero 1; -63 becomes -31.5, upward -31, then 0.
    for (acc, expected) in [(64, 1), (-64, -1), (63, 1), (-63, 0), (62, 0), (192, 2), (-192, -2), (1 << 20, 8192)] {
        let got = compiled.eval(0, &[Value::Int(acc)]).unwrap();
        let expected = (expected - 5i128).clamp(-128, 127);
        assert_eq!(got, Value::Int(expected), "{acc}");
    }
    assert_eq!(compiled.output_range(), (-128, 127));
}

#[test]
fn inputs_outside_their_declaration_are_errors() {
    let sample = &SAMPLES[0];
    let compiled = sample.program().compile(&(sample.env)()).unwrap();
    assert!(compiled.eval(0, &[Value::Int(1 << 40)]).is_err());
    assert!(compiled.eval(7, &[Value::Int(1)]).is_err());
    assert!(compiled.eval(0, &[]).is_err());
    assert!(compiled.eval(0, &[Value::F32(1.0)]).is_err());
}

mod soup {
    use super::*;
    use proptest::prelude::*;

    const WORDS: &[&str] = &[
        "acc",
        "v",
        "k",
        "x.scale",
        "w.scale",
        "t",
        "i",
        "(",
        ")",
        "(",
        ")",
        "[",
        "]",
        ",",
        ",",
        "+",
        "-",
        "*",
        "/",
        "^",
        "<<",
        "<",
        "==",
        "&&",
        "||",
        "!",
        "=",
        "\n",
        ";",
        "..",
        "->",
        ":",
        "in",
        "1",
        "0",
        "-1",
        "31",
        "2",
        "0.5",
        "1e30",
        "0x7fffffff",
        "170141183460469231731687303715884105727",
        "shr(",
        "shl(",
        "sat(",
        "wrap(",
        "select(",
        "int(",
        "f32(",
        "f64(",
        "f16(",
        "bf16(",
        "clamp(",
        "min(",
        "table(",
        "first(",
        "argmin(",
        "at(",
        "fma(",
        "ldexp(",
        "exponent(",
        "mantissa(",
        "fl(",
        "div(",
        "clz(",
        "floor_log2(",
        "exp(",
        "bucket(",
        "sum(",
        "half_even",
        "floor",
        "half_up",
        "i8",
        "u16",
        "i64",
        "y",
        "true",
        "#",
        "w",
        "é",
    ];

    fn environment() -> Env {
        let mut env = Env::new();
        env.constant("k", Value::Int(5))
            .constant("x.scale", Value::F32(0.5))
            .channel("w.scale", vec![Value::F64(1.0), Value::F64(f64::NAN)])
            .table("w", vec![Value::Int(i128::MAX), Value::Int(i128::MIN)])
            .input_int("acc", i64::MIN.into(), i64::MAX.into())
            .input_float("v", crate::num::FloatType::F32)
            .output(0, 255);
        env
    }

    fn survive(text: &str) {
        let Ok(program) = Program::parse(&[], &Text::new(text, "soup"), &Functions::new()) else { return };
        let Ok(compiled) = program.compile(&environment()) else { return };
        let _ = compiled.describe();
        let _ = compiled.normal_form();
        let tile = compiled.tile();
        let (accs, floats) = ([0i64, -1, i64::MIN, i64::MAX], [0.0f32, -1.5, f32::NAN, f32::INFINITY]);
        let lanes = [tile::Lanes::I64(&accs), tile::Lanes::F32(&floats)];
        let mut out = [0i64; 4];
        let ran = tile.run_i64(&lanes, tile::Channels::Uniform(0), &mut out).is_ok();
        for i in 0..4 {
            let inputs = [Value::Int(accs[i].into()), Value::F32(floats[i])];
            let _ = compiled.trace(0, &inputs);
            if let (true, Ok(Value::Int(expected))) = (ran, compiled.eval(0, &inputs)) {
                assert_eq!(expected, out[i].into(), "{text}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn any_tokens(words in proptest::collection::vec(proptest::sample::select(WORDS), 1..30)) {
            survive(&words.join(" "));
        }

        #[test]
        fn any_text(text in "\\PC{0,60}") {
            survive(&text);
        }

        /// Well-formed int expressions, so that lanes of all widths meet.
        #[test]
        fn any_int_expression(text in expression()) {
            survive(&text);
        }
    }

    fn expression() -> impl Strategy<Value = String> {
        let leaf = proptest::sample::select(vec![
            "acc",
            "k",
            "1",
            "0",
            "-3",
            "wrap(acc, i32)",
            "wrap(acc, u8)",
            "sat(acc, i16)",
            "int(v, half_away)",
            "7919",
            "(1 << 40)",
            "int(v < 0.0)",
            "int(clamp(v * 3.5, -9.5, 1000.0), half_odd)",
        ])
        .prop_map(str::to_string);
        let mode = || proptest::sample::select(crate::num::Rounding::ALL.map(|m| m.name()).to_vec());
        leaf.prop_recursive(5, 40, 3, move |inner| {
            prop_oneof![
                (inner.clone(), proptest::sample::select(vec!["+", "-", "*"]), inner.clone())
                    .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
                (inner.clone(), 0..70u32, mode()).prop_map(|(a, n, m)| format!("shr({a}, {n}, {m})")),
                (inner.clone(), inner.clone(), mode())
                    .prop_map(|(a, n, m)| format!("shr({a}, clamp({n}, 0, 40), {m})")),
                (inner.clone(), 1..9000i32, mode()).prop_map(|(a, d, m)| format!("div({a}, {d}, {m})")),
                (inner.clone(), proptest::sample::select(vec!["i8", "u16", "i32", "u32", "i33", "i64", "u1"]))
                    .prop_map(|(a, t)| format!("wrap({a}, {t})")),
                (inner.clone(), proptest::sample::select(vec!["i8", "u16", "i32", "i64"]))
                    .prop_map(|(a, t)| format!("sat({a}, {t})")),
                (inner.clone(), inner.clone(), inner.clone())
                    .prop_map(|(a, b, c)| format!("select({a} < {b}, {c}, min({a}, max({b}, {c})))")),
                (inner.clone(), 0..20u32).prop_map(|(a, n)| format!("shl({a}, {n})")),
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| format!("abs({a}) - bucket({b}, [-5, 0, 1000000000000])")),
                inner.clone().prop_map(|a| format!("int(f32({a}) * 0.37, half_even)")),
                inner.prop_map(|a| format!("at([3, -1, 4, 1 << 35], clamp({a}, 0, 3))")),
            ]
        })
        .prop_map(|text| format!("sat({text}, i64)"))
    }
}

#[test]
fn the_largest_over_channels_is_one_value() {
    let mut env = Env::new();
    env.channel("f", vec![Value::F32(1.5), Value::F32(-4.0), Value::F32(2.25)]);
    env.channel("i", vec![Value::Int(-3), Value::Int(-9), Value::Int(-5)]).input_int("acc", 0, 9);
    let program = |body: &str| Program::parse(&[], &Text::new(body, "y"), &Functions::new()).unwrap();
    let at = |body: &str, channel: usize| program(body).compile(&env).unwrap().eval(channel, &[Value::Int(1)]).unwrap();
    for channel in 0..3 {
        assert_eq!(at("acc + channel_max(i)", channel), Value::Int(-2));
        assert_eq!(at("acc + int(channel_max(-f), trunc) - i", channel), Value::Int([8, 14, 10][channel]));
    }
    assert_eq!(program("channel_max(acc)").compile(&env).unwrap_err().code(), "program_rate");
    assert_eq!(program("channel_max(true)").compile(&env).unwrap_err().code(), "program_type");
    // An error in one channel is an error of the whole.
    assert!(program("channel_max(div(1, i + 9, floor))").compile(&env).is_err());
}

#[test]
fn every_channel_may_have_a_table_of_its_own() {
    let mut env = Env::new();
    env.input_int("acc", -8, 8);
    let table = |values: &[i128]| values.iter().map(|&v| Value::Int(v)).collect::<Vec<_>>();
    env.channel_table("w", vec![table(&[1, 2, 3]), table(&[10, 20])]);
    let program = Program::parse(&[], &Text::new("acc + sum(w)", "y"), &Functions::new()).unwrap();
    let compiled = program.compile(&env).unwrap();
    assert_eq!(compiled.channels(), 2);
    for (channel, expected) in [(0, 7), (1, 31)] {
        assert_eq!(compiled.eval(channel, &[Value::Int(1)]).unwrap(), Value::Int(expected));
    }
}
