//! Loops over typed columns against the definition, channel by channel.

use super::super::graph::{Comparison, Math, Node, Op};
use super::super::syntax::{Site, Text};
use super::super::types::Rate;
use super::super::{Env, Functions, Program};
use super::steps::{by_cells, typed};
use super::*;
use crate::num::Rounding;
use half::f16;
use smallvec::SmallVec;

fn node(op: Op) -> Node {
    Node {
        op,
        args: SmallVec::new(),
        ty: Type::Int,
        rate: Rate::Channel,
        proven: Interval::Other,
        frozen: None,
        literal: None,
        name: None,
        site: Site { source: Arc::new(Text::new("", "test")), span: 0..0 },
    }
}

/// Extremes, ties, shift counts in and out of range, integers that floats round.
fn ints() -> Vec<Value> {
    let near = [0, 24, 31, 32, 53, 62].map(|n| 1i64 << n).into_iter().flat_map(|p| [p - 1, p, p + 1]);
    let all = near.flat_map(|v| [v, -v]).chain([i64::MIN, i64::MIN + 1, i64::MAX, 5, 6, -7, 63, 64, 126, 127, 1 << 16]);
    all.map(Value::from).collect()
}

fn f64s() -> Vec<Value> {
    let mut all = vec![0.0, 0.1, 0.5, 1.0, 1.5, 2.5, 3.0, 1e-320, 5e-324, f64::MIN_POSITIVE, 1e-160, 1e160, f64::MAX];
    all.extend([f64::INFINITY, f64::NAN, 2f64.powi(52) + 0.5, 2f64.powi(62), 2f64.powi(63), 2f64.powi(64), 1e300]);
    all.extend([16_777_216.5, 16_777_217.0, 0.499_999_999_999_999_94, 3.5e38, 1.401e-45, 2.0e-45]);
    all.into_iter().flat_map(|v| [v, -v]).map(Value::F64).collect()
}

fn f32s() -> Vec<Value> {
    let mut all = vec![0.0, 0.1, 0.5, 1.0, 1.5, 2.5, 3.0, 1e-40, 1e-45, f32::MIN_POSITIVE, 1e-22, 1e22, f32::MAX];
    all.extend([f32::INFINITY, f32::NAN, 8_388_607.5, 16_777_216.0, 9.223_372e18, 1.844_674_4e19, 0.499_999_97]);
    all.into_iter().flat_map(|v| [v, -v]).map(Value::F32).collect()
}

fn bools() -> Vec<Value> {
    vec![Value::Bool(false), Value::Bool(true)]
}

type Operands = Vec<Vec<Value>>;

/// Every operation that has loops of its own, with the values that its operands take.
fn cases() -> Vec<(Op, Operands)> {
    let mut all: Vec<(Op, Operands)> = Vec::new();
    let (f32_, f64_) = (Op::ToFloat(FloatType::F32), Op::ToFloat(FloatType::F64));
    use Comparison::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
    let comparisons = [Less, LessEqual, Greater, GreaterEqual, Equal, NotEqual].map(Op::Compare);
    for op in [Op::Add, Op::Sub, Op::Mul, Op::Min, Op::Max, Op::Shl, Op::Pow].into_iter().chain(comparisons) {
        all.push((op, vec![ints(), ints()]));
    }
    for op in [Op::Neg, Op::Abs, Op::Clz(32), Op::Clz(64), Op::ToInt(Rounding::Floor), f32_, f64_] {
        all.push((op, vec![ints()]));
    }
    for (bits, signed) in [(1, true), (8, false), (32, true), (63, false), (64, true)] {
        all.push((Op::Wrap { bits, signed }, vec![ints()]));
    }
    all.push((Op::Clamp, vec![ints(), ints(), ints()]));
    for floats in [f32s(), f64s()] {
        let two = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Min, Op::Max].into_iter().chain(comparisons);
        all.extend(two.map(|op| (op, vec![floats.clone(), floats.clone()])));
        let one = [Op::Neg, Op::Abs, Op::Mantissa, Op::Exponent, f32_, f64_];
        all.extend(one.map(|op| (op, vec![floats.clone()])));
        all.push((Op::Ldexp, vec![floats.clone(), ints()]));
        all.extend([Op::Clamp, Op::Fma].map(|op| (op, vec![floats.clone(); 3])));
        for mode in Rounding::ALL {
            all.extend([Op::ToInt(mode), Op::Round(mode)].map(|op| (op, vec![floats.clone()])));
            all.push((Op::Significant(mode), vec![floats.clone(), ints()]));
        }
    }
    all.push((Op::Pow, vec![f64s(), f64s()]));
    all.push((Op::Math(Math::Pow), vec![f64s(), f64s()]));
    all.extend([Math::Exp, Math::Tanh, Math::Rsqrt].map(|function| (Op::Math(function), vec![f64s()])));
    for mode in Rounding::ALL {
        all.extend([Op::Shr(mode), Op::DivInt(mode)].map(|op| (op, vec![ints(), ints()])));
    }
    for values in [ints(), f32s(), f64s(), bools()] {
        all.push((Op::Select, vec![bools(), values.clone(), values]));
    }
    all.push((Op::Not, vec![bools()]));
    all.extend([Op::And, Op::Or].into_iter().chain(comparisons).map(|op| (op, vec![bools(), bools()])));
    all
}

/// All combinations of operands.
fn tuples(operands: &Operands) -> Vec<Vec<Value>> {
    operands.iter().fold(vec![Vec::new()], |tuples, values| {
        tuples.iter().flat_map(|tuple| values.iter().map(|&v| [&tuple[..], &[v]].concat())).collect()
    })
}

fn column(values: impl IntoIterator<Item = Value>) -> Column {
    values.into_iter().map(|v| Ok(Datum::Value(v))).collect::<Vec<Cell>>().into()
}

fn same(a: Value, b: Value) -> bool {
    let nan = |v: Value| v.as_float().is_some_and(f64::is_nan);
    a.same_bits(b) || (nan(a) && nan(b) && a.type_of() == b.type_of())
}

/// The loop's result, which must be that of the definition, and be there exactly where all of it has a type of its own.
fn compare(op: Op, args: &[Column], count: usize) -> bool {
    let args: Vec<&Column> = args.iter().collect();
    let (fast, defined) = (typed(op, &args, count), by_cells(&node(op), &args, count));
    let Some(fast) = fast else {
        assert!(matches!(defined, Column::Cells(_)), "{op:?} of {args:?} has no loop");
        return false;
    };
    assert_eq!((fast.len(), defined.len(), fast.first_type()), (count, count, defined.first_type()), "{op:?}");
    for channel in 0..count {
        let value = |column: &Column| column.cell(channel).and_then(|cell| scalar(&cell));
        let (found, expected) = (value(&fast), value(&defined));
        let equal = found.zip(expected).is_some_and(|(a, b)| same(a, b));
        assert!(equal, "{op:?} of {args:?}, channel {channel}: {found:?} is not {expected:?}");
    }
    true
}

#[test]
fn loops_are_the_definition() {
    for (op, operands) in cases() {
        let mut whole: Vec<Vec<Value>> = Vec::new();
        for tuple in tuples(&operands) {
            // One pair of values alone: overflow, errors and what leaves 64 bits fall back.
            if compare(op, &tuple.iter().map(|&v| column([v, v])).collect::<Vec<_>>(), 2) {
                whole.push(tuple);
            }
        }
        // What has loops, in one column; then with each operand the same for all channels.
        let of = |tuples: &[&Vec<Value>], i: usize| column(tuples.iter().map(|tuple| tuple[i]));
        let all: Vec<&Vec<Value>> = whole.iter().collect();
        assert!(all.len() > 1, "{op:?} of {operands:?} is never computed");
        let columns: Vec<Column> = (0..operands.len()).map(|i| of(&all, i)).collect();
        assert!(compare(op, &columns, all.len()), "{op:?}");
        for shared in 0..operands.len() {
            for &one in &operands[shared] {
                let some: Vec<&Vec<Value>> = whole.iter().filter(|tuple| tuple[shared].same_bits(one)).collect();
                if operands.len() > 1 && some.len() > 1 {
                    let mut columns: Vec<Column> = (0..operands.len()).map(|i| of(&some, i)).collect();
                    columns[shared] = one.into();
                    assert!(compare(op, &columns, some.len()), "{op:?} with {one}");
                }
            }
        }
    }
}

#[test]
fn columns_keep_their_values_in_the_narrowest_form() {
    let wide = Value::Int(i128::from(i64::MAX) + 1);
    assert!(matches!(column(ints()), Column::Ints(_)) && matches!(column(f32s()), Column::F32(_)));
    assert!(matches!(column(f64s()), Column::F64(_)) && matches!(column(bools()), Column::Bools(_)));
    assert!(matches!(column([Value::Int(1), wide]), Column::Cells(_)));
    assert!(matches!(column([Value::Int(1), Value::F32(1.0)]), Column::Cells(_)));
    assert!(matches!(column([Value::F16(f16::ONE); 2]), Column::Cells(_)));
    assert!(matches!(column([wide]), Column::One(_)) && matches!(Column::of([7]), Column::One(_)));
    for values in [ints(), f32s(), f64s(), bools(), vec![wide; 3]] {
        let kept = column(values.clone());
        assert_eq!(kept.len(), values.len());
        let mapped = kept.map(|v| v.unwrap());
        assert!(mapped.iter().zip(&values).all(|(a, b)| a.same_bits(*b)));
        assert!(kept.cell(values.len()).is_none());
        assert_eq!(kept.uniform().is_some(), values[0] == wide);
        assert_eq!(kept.try_map(|v| v.as_int()).is_some(), values[0].as_int().is_some());
    }
    assert_eq!(column([Value::F64(0.0), Value::F64(-0.0)]).uniform(), None);
    assert!(Column::Forgotten.uniform().is_none() && Column::Forgotten.cell(0).is_none());
}

#[test]
fn ranges_are_those_of_the_values() {
    for values in [ints(), f32s(), f64s(), bools()] {
        for length in 2..=values.len() {
            for start in [0, (values.len() - length) / 2, values.len() - length] {
                let part = &values[start..start + length];
                let expected = Interval::of(part.iter().copied());
                assert_eq!(column(part.iter().copied()).range(), expected, "{part:?}");
            }
        }
    }
    assert_eq!(column([Value::F64(f64::NAN); 9]).range(), Interval::ANY_FLOAT);
    let infinite = [Value::F32(f32::INFINITY); 9];
    assert_eq!(column(infinite).range(), Interval::of(infinite.into_iter()));
}

fn compiled(body: &str, b: &[i64]) -> Result<Vec<Value>> {
    let mut env = Env::new();
    env.channel_ints("b", b.iter().copied()).input_int("acc", 0, 1);
    let program = Program::parse(&[], &Text::new(body, "y"), &Functions::new())?.compile(&env)?;
    (0..b.len()).map(|channel| program.eval(channel, &[Value::Int(1)])).collect()
}

#[test]
fn an_error_counts_only_in_the_channel_that_uses_it() {
    let guarded = "select(b == 0, -1, div(12, b, floor)) + acc";
    assert_eq!(compiled(guarded, &[3, 0, 4]).unwrap(), [5, 0, 4].map(Value::Int));
    let either = "int(b == 0 || div(12, b, floor) > 3) + acc";
    assert_eq!(compiled(either, &[3, 0, 4]).unwrap(), [2, 2, 1].map(Value::Int));
    let error = compiled("div(12, b, floor) + acc", &[3, 0, 4]).unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error}");
    let error = compiled("shl(b, 64 - b) + acc", &[3, 65, 70]).unwrap_err();
    assert!(error.to_string().contains("shift by -1"), "the first channel's: {error}");
}

#[test]
fn what_leaves_64_bits_on_the_way_stays_exact() {
    let b = [i64::MAX, i64::MIN, 3, -1];
    let squares = compiled("shr(b * b, 64, floor) + acc", &b).unwrap();
    let expected = b.map(|b| Value::Int(((i128::from(b) * i128::from(b)) >> 64) + 1));
    assert_eq!(squares, expected);
    let sums = compiled("int(b + b - b == b) + acc", &b).unwrap();
    assert_eq!(sums, [Value::Int(2); 4]);
}
