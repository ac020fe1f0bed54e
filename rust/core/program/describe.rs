//! The program in mathematical notation, for the datasheet.

use super::graph::Node;
use super::syntax::{Binary, Expr, ExprKind, Loop};
use super::types::{Datum, Interval, Rate};
use super::{Compiled, Source};
use crate::num::Rounding;
use std::collections::BTreeSet;

impl Compiled {
    /// Lets with their values, then the statements, in mathematical notation; then ranges and rounding modes in words.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        let mut modes = BTreeSet::new();
        let Source { lets, body, .. } = &*self.source;
        for (name, value) in lets {
            out.push_str(&format!("{name} = {}{}\n", maths(value, 0, &mut modes), self.frozen_note(name)));
        }
        for statement in &body.statements {
            let formula = maths(&statement.value, 0, &mut modes);
            out.push_str(&format!("{} = {formula}{}\n", statement.name, self.frozen_note(&statement.name)));
        }
        out.push_str(&format!("y = {}\n", maths(&body.result, 0, &mut modes)));
        for input in &self.inputs {
            match input.kind {
                super::env::InputKind::Int(lo, hi) => out.push_str(&format!("{} ∈ [{lo}, {hi}]\n", input.name)),
                super::env::InputKind::Float(format) => out.push_str(&format!("{} is {format}\n", input.name)),
            }
        }
        if let Interval::Int(lo, hi) = self.graph.nodes[self.result].range() {
            out.push_str(&format!("y ∈ [{lo}, {hi}]\n"));
        }
        for mode in modes {
            out.push_str(&format!("round_{mode}: {}\n", mode.words()));
        }
        out
    }

    /// `   (= value)` for a let that is known before the run.
    fn frozen_note(&self, name: &str) -> String {
        let named = |n: &Node| n.name.as_deref() == Some(name) && n.frozen.is_some();
        let Some(id) = self.graph.nodes.iter().position(named) else {
            return String::new();
        };
        let alike = self.graph.nodes[id].rate == Rate::Const;
        match self.first_of(id) {
            Ok(Datum::Value(value)) if alike => format!("   (= {value})"),
            Ok(Datum::Value(first)) => format!("   (= {first}, … for {} channels)", self.channels),
            Ok(Datum::Table(table)) => format!("   ({} entries)", table.len()),
            Err(_) => String::new(),
        }
    }
}

/// Formula of an expression; `outer` is the binding strength around it.
fn maths(e: &Expr, outer: u8, modes: &mut BTreeSet<Rounding>) -> String {
    let mut inner = |e: &Expr, level: u8| maths(e, level, modes);
    let (text, level) = match &e.kind {
        ExprKind::Int(v) => (v.to_string(), 9),
        ExprKind::Real(v) => (v.clone(), 9),
        ExprKind::Bool(v) => (v.to_string(), 9),
        ExprKind::Name(name) => (name.clone(), 9),
        ExprKind::Negate(a) => (format!("−{}", inner(a, 7)), 5),
        ExprKind::Not(a) => (format!("¬{}", inner(a, 7)), 7),
        ExprKind::Binary(Binary::ShiftLeft, a, b) => (format!("{} · 2^{}", inner(a, 6), inner(b, 8)), 6),
        ExprKind::Binary(operator, a, b) => {
            let level = operator.level();
            let symbol = match operator {
                Binary::Mul => "·",
                Binary::Sub => "−",
                Binary::LessEqual => "≤",
                Binary::GreaterEqual => "≥",
                Binary::Equal => "=",
                Binary::NotEqual => "≠",
                Binary::And => "∧",
                Binary::Or => "∨",
                other => other.symbol(),
            };
            let right = if *operator == Binary::Pow { level } else { level + 1 };
            let gap = if *operator == Binary::Pow { "" } else { " " };
            (format!("{}{gap}{symbol}{gap}{}", inner(a, level), inner(b, right)), level)
        }
        ExprKind::List(items) => {
            let shown: Vec<String> = items.iter().take(8).map(|i| inner(i, 0)).collect();
            let more = if items.len() > 8 { format!(", … ({} entries)", items.len()) } else { String::new() };
            (format!("[{}{more}]", shown.join(", ")), 9)
        }
        ExprKind::Loop { kind, variable, lo, hi, body } => {
            let (lo, hi, body) = (inner(lo, 0), inner(hi, 5), inner(body, 0));
            let text = match kind {
                Loop::First => format!("first {variable} in [{lo}, {hi}) with {body}"),
                Loop::Argmin => format!("{variable} in [{lo}, {hi}) that minimises {body}"),
                Loop::Table => format!("table of {body} for {variable} in [{lo}, {hi})"),
            };
            (text, 0)
        }
        ExprKind::Call(name, args) => match call(name, args, modes) {
            Some(shown) => shown,
            None => {
                let args: Vec<String> = args.iter().map(|a| maths(a, 0, modes)).collect();
                (format!("{name}({})", args.join(", ")), 9)
            }
        },
    };
    if level < outer { format!("({text})") } else { text }
}

/// Notation of the functions that have one, with its binding strength.
fn call(name: &str, args: &[Expr], modes: &mut BTreeSet<Rounding>) -> Option<(String, u8)> {
    let mode = |e: &Expr| match &e.kind {
        ExprKind::Name(name) => Rounding::parse(name),
        _ => None,
    };
    let named = |e: &Expr| match &e.kind {
        ExprKind::Name(name) => Some(name.clone()),
        _ => None,
    };
    Some(match (name, args) {
        ("shl", [v, n]) => (format!("{} · 2^{}", maths(v, 6, modes), maths(n, 8, modes)), 6),
        ("shr", [v, n, m]) => {
            let mode = mode(m)?;
            modes.insert(mode);
            (format!("round_{mode}({} / 2^{})", maths(v, 6, modes), maths(n, 8, modes)), 9)
        }
        ("div", [v, d, m]) => {
            let mode = mode(m)?;
            modes.insert(mode);
            (format!("round_{mode}({} / {})", maths(v, 6, modes), maths(d, 7, modes)), 9)
        }
        ("int" | "round", [v, m]) => {
            let mode = mode(m)?;
            modes.insert(mode);
            (format!("round_{mode}({})", maths(v, 0, modes)), 9)
        }
        ("sat", [v, t]) => {
            let shown = named(t)?;
            (format!("sat_{shown}({})", maths(v, 0, modes)), 9)
        }
        ("wrap", [v, t]) => {
            let shown = named(t)?;
            (format!("wrap_{shown}({})", maths(v, 0, modes)), 9)
        }
        ("sat" | "clamp", [v, lo, hi]) => {
            (format!("clamp({}, [{}, {}])", maths(v, 0, modes), maths(lo, 0, modes), maths(hi, 0, modes)), 9)
        }
        ("select", [c, a, b]) => {
            let (c, a, b) = (maths(c, 0, modes), maths(a, 1, modes), maths(b, 1, modes));
            (format!("{{{a} if {c}, else {b}}}"), 9)
        }
        ("abs", [v]) => (format!("|{}|", maths(v, 0, modes)), 9),
        ("at", [t, i]) => (format!("{}[{}]", maths(t, 9, modes), maths(i, 0, modes)), 9),
        ("fl", [v, bits, m]) => {
            let mode = mode(m)?;
            modes.insert(mode);
            (format!("{} to {} significant bits, {mode}", maths(v, 1, modes), maths(bits, 1, modes)), 0)
        }
        ("sqrt", [v]) => (format!("√{}", maths(v, 9, modes)), 8),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::SAMPLES;

    #[test]
    fn double_rounding_in_maths() {
        let sample = SAMPLES.iter().find(|s| s.name == "q31_double").unwrap();
        let shown = sample.program().compile(&(sample.env)()).unwrap().describe();
        for line in [
            "t = round_half_away(t / 2^max(−e, 0))",
            "t = sat_i32(round_half_up(t · m / 2^31))",
            "y = sat_y(t + y.zp)",
            "y ∈ [-128, 127]",
            "round_half_up: to nearest, ties toward plus infinity",
            "for 7 channels)",
        ] {
            assert!(shown.contains(line), "{line} is missing:\n{shown}");
        }
    }

    #[test]
    fn brackets_stay_where_they_matter() {
        let sample = SAMPLES.iter().find(|s| s.name == "rescale_double").unwrap();
        let shown = sample.program().compile(&(sample.env)()).unwrap().describe();
        assert!(shown.contains("p = (acc − 3) · m"), "{shown}");
        assert!(
            shown.contains("r = 1 · 2^(s − 1) + {{1 · 2^30 if acc ≥ 3, else −(1 · 2^30)} if s > 31, else 0}"),
            "{shown}"
        );
    }
}
