//! The steps by which one element is computed.

use super::graph::{Cell, NodeId, Op};
use super::types::{Datum, Value};
use super::{Compiled, eval};
use crate::error::Result;
use crate::num::float::{as_fraction, decompose};
use serde::Serialize;
use std::fmt;

/// The exact value that a rounding step rounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exact {
    /// `numerator/denominator` in lowest terms, or `mantissa*2^exponent` where those parts exceed 127 bits.
    pub fraction: String,
    /// Decimal; ends in `…` where it was cut.
    pub decimal: String,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Source text of the operation.
    pub text: String,
    /// Name that the program gives the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `input`, `constant` (known before the run), `step`, or `stage`: the result of one kernel, which the next one reads.
    pub kind: &'static str,
    /// The value, as the language writes it.
    pub value: String,
    /// The exact value before rounding, for operations that round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<Exact>,
}

/// How one element is computed, operation by operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Trace {
    /// Channel of the element.
    pub channel: usize,
    /// Operations in order; the last gives the result.
    pub steps: Vec<Step>,
    /// The result.
    pub result: String,
}

impl Trace {
    /// Adds a step that is no operation of a program.
    pub fn add(&mut self, kind: &'static str, text: impl Into<String>, value: impl fmt::Display) {
        let step = Step { text: text.into(), name: None, kind, value: value.to_string(), exact: None };
        self.steps.push(step);
    }

    /// Ends with the result.
    pub fn end(mut self, result: impl fmt::Display) -> Trace {
        self.result = result.to_string();
        self
    }

    /// Lets `next` follow, which reads this result; `label` names the kernel that computed it.
    pub fn then(mut self, label: &str, next: Trace) -> Trace {
        let result = std::mem::take(&mut self.result);
        self.add("stage", label, result);
        self.steps.extend(next.steps);
        Trace { channel: next.channel, steps: self.steps, result: next.result }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |step: &Step| match &step.name {
            Some(name) if *name != step.text => format!("{name} = {}", step.text),
            _ => step.text.clone(),
        };
        let width = self.steps.iter().map(|s| shown(s).chars().count()).max().unwrap_or(0).min(60);
        for step in &self.steps {
            write!(f, "{:8} {:width$}  = {}", step.kind, shown(step), step.value)?;
            if let Some(exact) = &step.exact {
                write!(f, "   (exactly {}", exact.decimal)?;
                if exact.fraction != exact.decimal {
                    write!(f, " = {}", exact.fraction)?;
                }
                f.write_str(")")?;
            }
            writeln!(f)?;
        }
        write!(f, "result   {}", self.result)
    }
}

impl Compiled {
    /// The steps of [`Compiled::eval`], with the exact value before each rounding.
    pub fn trace(&self, channel: usize, inputs: &[Value]) -> Result<Trace> {
        let mut cells = self.fresh(channel)?;
        self.fill(&mut cells, channel, inputs)?;
        let wanted = self.graph.reachable(self.result, true);
        self.recall(&wanted, channel, &mut cells);
        let value = |id: NodeId| match &cells[id] {
            Ok(Datum::Value(value)) => Some(*value),
            _ => None,
        };
        let mut steps = Vec::new();
        for id in wanted {
            let node = &self.graph.nodes[id];
            // Constants without a name that are written in the text explain themselves.
            if node.frozen.is_some() && node.args.is_empty() && (node.name.is_none() || node.literal.is_some()) {
                continue;
            }
            let shown = match &cells[id] {
                Ok(Datum::Value(value)) => value.to_string(),
                Ok(Datum::Table(table)) => format!("table of {}", table.len()),
                // Not chosen by a `select` or `&&`.
                Err(_) => continue,
            };
            let kind = match (node.op, node.frozen.is_some()) {
                (Op::Input(_), _) => "input",
                (_, true) => "constant",
                _ => "step",
            };
            let args: Vec<Option<Value>> = node.args.iter().map(|&arg| value(arg)).collect();
            let name = node.name.clone();
            let text = match (node.op, &name) {
                (Op::Input(_), Some(name)) => name.clone(),
                _ => node.site.excerpt(),
            };
            steps.push(Step { text, name, kind, value: shown, exact: before_rounding(node.op, &args) });
        }
        let result = match eval_result(&cells[self.result]) {
            Some(value) => value.to_string(),
            None => self.eval(channel, inputs)?.to_string(),
        };
        Ok(Trace { channel, steps, result })
    }

    /// The constants among the nodes `wanted`, which are in order, also those that are no longer kept.
    fn recall(&self, wanted: &[NodeId], channel: usize, cells: &mut [Cell]) {
        for &id in wanted {
            let node = &self.graph.nodes[id];
            let cell = match node.cell(channel) {
                Some(cell) => cell.into_owned(),
                None if node.frozen.is_some() => {
                    let args: Vec<&Cell> = node.args.iter().map(|&arg| &cells[arg]).collect();
                    eval::apply(node, &args)
                }
                None => continue,
            };
            cells[id] = cell;
        }
    }

    /// The value of a constant in the first channel.
    pub(super) fn first_of(&self, constant: NodeId) -> Result<Datum> {
        let mut cells = self.fresh(0)?;
        self.recall(&self.graph.reachable(constant, true), 0, &mut cells);
        cells.swap_remove(constant)
    }
}

fn eval_result(cell: &Cell) -> Option<Value> {
    if let Ok(Datum::Value(value)) = cell { Some(*value) } else { None }
}

/// The exact value before the rounding of an operation. None where the operation is exact or its exact value has no
/// finite form here.
fn before_rounding(op: Op, args: &[Option<Value>]) -> Option<Exact> {
    let int = |i: usize| args.get(i).copied().flatten().and_then(Value::as_int);
    let real = |i: usize| args.get(i).copied().flatten().and_then(Value::as_float);
    match op {
        Op::Shr(_) => {
            let (v, n) = (int(0)?, u32::try_from(int(1)?).ok()?);
            (n > 0 && n < 127).then(|| Exact::fraction(v, 1 << n))
        }
        Op::DivInt(_) => Some(Exact::fraction(int(0)?, int(1)?)),
        Op::ToInt(_) | Op::Round(_) | Op::Significant(_) => Exact::dyadic(real(0)?),
        Op::ToFloat(_) => match args.first().copied().flatten()? {
            Value::Int(v) => Some(Exact::fraction(v, 1)),
            Value::Bool(_) => None,
            float => Exact::dyadic(float.as_float()?),
        },
        Op::Add | Op::Sub | Op::Mul | Op::Div => {
            let (a, b) = (as_fraction(real(0)?)?, as_fraction(real(1)?)?);
            let (numerator, denominator) = match op {
                Op::Mul => (a.0.checked_mul(b.0)?, a.1.checked_mul(b.1)?),
                Op::Div => (a.0.checked_mul(b.1)?, a.1.checked_mul(b.0)?),
                _ => {
                    // Denominators are powers of two.
                    let common = a.1.max(b.1);
                    let (x, y) = (a.0.checked_mul(common / a.1)?, b.0.checked_mul(common / b.1)?);
                    (if op == Op::Add { x.checked_add(y)? } else { x.checked_sub(y)? }, common)
                }
            };
            (denominator != 0).then(|| Exact::fraction(numerator, denominator))
        }
        Op::Fma => {
            let (a, b, c) = (as_fraction(real(0)?)?, as_fraction(real(1)?)?, as_fraction(real(2)?)?);
            let (product, below) = (a.0.checked_mul(b.0)?, a.1.checked_mul(b.1)?);
            let common = below.max(c.1);
            let sum = product.checked_mul(common / below)?.checked_add(c.0.checked_mul(common / c.1)?)?;
            Some(Exact::fraction(sum, common))
        }
        Op::Math(_) => None,
        _ => None,
    }
}

impl Exact {
    fn fraction(numerator: i128, denominator: i128) -> Exact {
        let divisor = gcd(numerator.unsigned_abs(), denominator.unsigned_abs()).max(1);
        let negative = (numerator < 0) != (denominator < 0) && numerator != 0;
        let (n, d) = (numerator.unsigned_abs() / divisor, denominator.unsigned_abs() / divisor);
        let sign = if negative { "-" } else { "" };
        let fraction = if d == 1 { format!("{sign}{n}") } else { format!("{sign}{n}/{d}") };
        let mut decimal = format!("{sign}{}", n / d);
        let mut rest = n % d;
        if rest != 0 {
            decimal.push('.');
        }
        for digit in 0.. {
            if rest == 0 {
                break;
            }
            let (Some(scaled), true) = (rest.checked_mul(10), digit < 40) else {
                decimal.push('…');
                break;
            };
            decimal.push_str(&(scaled / d).to_string());
            rest = scaled % d;
        }
        Exact { fraction, decimal }
    }

    fn dyadic(v: f64) -> Option<Exact> {
        if let Some((n, d)) = as_fraction(v) {
            return Some(Exact::fraction(n, d));
        }
        let (negative, mantissa, exponent) = decompose(v)?;
        let sign = if negative { "-" } else { "" };
        Some(Exact { fraction: format!("{sign}{mantissa}*2^{exponent}"), decimal: format!("{v:e}") })
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::super::samples::SAMPLES;
    use super::*;

    #[test]
    fn exact_values() {
        let shown = |n, d| {
            let exact = Exact::fraction(n, d);
            (exact.fraction, exact.decimal)
        };
        assert_eq!(shown(-63, 128), ("-63/128".into(), "-0.4921875".into()));
        assert_eq!(shown(8, 4), ("2".into(), "2".into()));
        assert_eq!(shown(1, -3).0, "-1/3");
        assert!(shown(1, 3).1.ends_with("3…"));
        assert_eq!(Exact::dyadic(1e300).unwrap().decimal, "1e300");
        assert!(Exact::dyadic(f64::NAN).is_none());
    }

    #[test]
    fn every_sample_explains_its_result() {
        for sample in SAMPLES {
            let compiled = sample.program().compile(&(sample.env)()).unwrap();
            let inputs: Vec<Value> = compiled
                .inputs
                .iter()
                .map(|input| match input.kind {
                    super::super::env::InputKind::Int(lo, hi) => Value::Int((lo + (hi - lo) / 3).clamp(lo, hi)),
                    super::super::env::InputKind::Float(format) => Value::float(3.5, format),
                })
                .collect();
            let trace = compiled.trace(0, &inputs).unwrap();
            assert_eq!(trace.result, compiled.eval(0, &inputs).unwrap().to_string(), "{}", sample.name);
            assert!(trace.steps.len() > 2 && trace.to_string().contains("result"), "{trace}");
            serde_json::to_string(&trace).unwrap();
        }
    }

    #[test]
    fn a_tie_is_visible() {
        let sample = SAMPLES.iter().find(|s| s.name == "q31_double_ties").unwrap();
        let compiled = sample.program().compile(&(sample.env)()).unwrap();
        let trace = compiled.trace(0, &[Value::Int(63)]).unwrap();
        let exact: Vec<String> =
            trace.steps.iter().filter_map(|s| s.exact.as_ref()).map(|e| e.decimal.clone()).collect();
        assert!(exact.contains(&"31.5".to_string()) && exact.contains(&"0.5".to_string()), "{trace}");
    }
}
