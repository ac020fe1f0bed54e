//! What the codes of two operands add to a result.

use crate::encoding::Encoding;
use crate::program::{Compiled, Meeting, NormalForm, Split, Value};

/// What one more code of each operand adds to a result, where the program is about a weighted sum.
pub fn factors(split: &Split, encodings: [&Encoding; 2]) -> Option<[f64; 2]> {
    let sign = match split.meeting {
        Meeting::Sum => 1.0,
        Meeting::Difference => -1.0,
        Meeting::Product => return None,
    };
    let scale = scale(&split.after)?;
    let factor = |i: usize| {
        let [least, most] = [encodings[i].qmin(), encodings[i].qmax()];
        let at = |code: i64| split.parts[i].eval(0, &[Value::Int(code.into())]).ok()?.as_int();
        Some(scale * (at(most)? - at(least)?) as f64 / (most - least).max(1) as f64)
    };
    Some([factor(0)?, sign * factor(1)?])
}

/// What one more of its input adds to the result of a program, about.
fn scale(program: &Compiled) -> Option<f64> {
    let power = |exponent: i64| f64::powi(2.0, exponent as i32);
    match program.normal_form()? {
        NormalForm::FloatScale { scale, .. } | NormalForm::FloatAffine { scale, .. } => Some((*scale.first()?).into()),
        NormalForm::DoubleRounding { left, mantissa, right, .. } => {
            let exponent = i64::from(*left.first()?) - 31 - i64::from(*right.first()?);
            Some(f64::from(*mantissa.first()?) * power(exponent))
        }
        NormalForm::MulShift { drop, mantissa, shift, .. } => {
            Some(*mantissa.first()? as f64 * power(-i64::from(*shift.first()?) - i64::from(drop.0)))
        }
    }
}
