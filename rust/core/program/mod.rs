//! The typed arithmetic language: a kernel's arithmetic as data.
//!
//! A [`Program`] is lets and a body, parsed once. [`Program::compile`] gives it an [`Env`] (encodings, attributes,
//! run-time inputs with proven ranges): names are resolved, types and ranges checked, everything that is known
//! before the run computed. [`Compiled::eval`] is the definition of the result; the tile executor of
//! [`Compiled::tile`] gives the same bits, 256 lanes at a time.
//!
//! # Values
//! Ints are exact, with a proven range; what has a name must fit 64 bits, unnamed intermediates 127. `f16`, `bf16`,
//! `f32` and `f64` round every operation once, to nearest even, and never mix without a cast; an int mixes with a
//! float where the float holds it exactly; a real literal takes the type of what it meets. `min(a, b)` of floats is
//! `a` where `a < b`, else `b`; `max` likewise; `clamp` keeps NaN.
//!
//! # Functions
//! `abs min max clamp select shl shr div sat wrap clz floor_log2`, `at bucket sum max_abs len` on tables, `first
//! argmin table` loops at prepare, `channel_max` of a constant over all channels, `int round fl f16 bf16 f32 f64 fma mantissa exponent ldexp`, and `exp exp2 expm1
//! log log2 log1p sqrt rsqrt cbrt sin cos tan atan tanh erf sigmoid pow` in f64. `v = mantissa(v) · 2^exponent(v)`
//! with the mantissa in `[0.5, 1)`, as C's `frexp`. `int(v, mode)` while the kernel runs saturates at the proven
//! range of `v` within 64 bits, and NaN becomes 0 (or the bound nearest to it); at prepare both are errors.
//! `bucket(v, edges)` counts the edges that are at most `v`; `clz(v, bits)` takes an unsigned value.

mod builtins;
mod check;
mod column;
mod describe;
mod env;
mod eval;
mod executor;
mod float_quantize;
mod float_sum;
mod functions;
mod graph;
mod interval;
mod lexer;
mod normal_form;
mod parser;
mod sharing;
mod simplify;
mod split;
mod syntax;
mod tile;
mod trace;
mod types;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use env::Env;
pub use executor::{Evaluator, Executor, Vectors};
pub use float_quantize::FloatQuantize;
pub use float_sum::FloatSum;
pub use functions::Functions;
pub use normal_form::NormalForm;
pub use split::{Meeting, Split};
pub use syntax::Text;
pub use tile::{Channels, LANES, Lanes, TileProgram};
pub use trace::{Exact, Step, Trace};
pub use types::Value;

use crate::error::{Error, Result};
use check::Lower;
use env::InputKind;
use graph::{Cell, Graph, NodeId, Op};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use syntax::{Body, Expr, ExprKind};
use types::{Datum, Interval};

/// Operations of most programs of shipped targets, after inlining.
const USUAL_STEPS: usize = 128;

/// Operations of most conditions.
const USUAL_CONDITION: usize = 8;

/// A parsed program: lets, in order, and a body.
#[derive(Debug, Clone)]
pub struct Program {
    source: Arc<Source>,
    executor: Executor,
}

/// What was parsed.
#[derive(Debug)]
struct Source {
    lets: Vec<(String, Expr)>,
    body: Body,
    functions: Functions,
    /// The names that all of them mention, once somebody asked.
    names: OnceLock<BTreeSet<String>>,
}

impl Program {
    /// Parses lets and body and resolves the functions that they call. A let may use earlier lets.
    pub fn parse(lets: &[(String, Text)], body: &Text, functions: &Functions) -> Result<Program> {
        let lets = lets
            .iter()
            .map(|(name, text)| Ok((name.clone(), parser::expression(text)?)))
            .collect::<Result<Vec<_>>>()?;
        let body = parser::body(body)?;
        for (_, value) in &lets {
            check_calls(value, functions)?;
        }
        for statement in &body.statements {
            check_calls(&statement.value, functions)?;
        }
        check_calls(&body.result, functions)?;
        let source = Source { lets, body, functions: functions.clone(), names: OnceLock::new() };
        Ok(Program { source: Arc::new(source), executor: Executor::default() })
    }

    /// How the program is computed.
    pub fn executor(&self) -> Executor {
        self.executor
    }

    /// The same program, computed by other code.
    #[must_use]
    pub fn with_executor(&self, executor: Executor) -> Program {
        Program { executor, ..self.clone() }
    }

    /// Whether the program, or a function that it calls, reads this name from outside.
    pub fn reads(&self, name: &str) -> bool {
        let Source { lets, body, functions, names } = &*self.source;
        let expressions = || lets.iter().map(|(_, e)| e).chain(body.expressions());
        names.get_or_init(|| functions.mentioned(expressions())).contains(name)
    }

    /// Checks names, types and ranges in `env`, and computes everything that is known before the run.
    pub fn compile(&self, env: &Env) -> Result<Compiled> {
        let Source { lets, body, functions, .. } = &*self.source;
        let mut lower = Lower::new(env, functions, USUAL_STEPS)?;
        for (name, value) in lets {
            let id = lower.expr(value)?;
            if env.entries.contains_key(name) {
                return Err(value.site.error(
                    "program_name",
                    format!("let '{name}' has the name of something that is given from outside"),
                ));
            }
            lower.bind(name, id)?;
        }
        let mut result = lower.body(body)?;
        if lower.node(result).ty == types::Type::Literal {
            let site = lower.node(result).site.clone();
            result = lower.convert(result, crate::num::FloatType::F64, &site)?;
        }
        lower.use_frozen(result)?;
        if lower.node(result).ty == types::Type::Table {
            return Err(lower.node(result).site.error("program_type", "the result of a program is a scalar"));
        }
        let node = lower.node(result);
        if node.ty == types::Type::Int && !node.range().fits_i64() {
            return Err(node
                .site
                .error("program_range", "the result leaves 64 bits")
                .help("write wrap(…, i64) or sat(…, i64)"));
        }
        let order = lower.graph.reachable(result, false);
        lower.graph.forget(&order, result);
        Ok(Compiled {
            channels: lower.channels,
            graph: lower.graph,
            result,
            order,
            inputs: env.inputs.clone(),
            source: self.source.clone(),
            executor: self.executor,
        })
    }
}

/// Every called function must exist and have its number of arguments.
fn check_calls(e: &Expr, functions: &Functions) -> Result<()> {
    let mut fault = None;
    e.walk(&mut |e| {
        let ExprKind::Call(name, args) = &e.kind else { return };
        let checked = match builtins::find(name) {
            Some(builtin) => builtins::check_arity(builtin, args.len(), &e.site),
            None if functions.contains(name) => Ok(()),
            None => Err(builtins::unknown_function(name, functions.names(), &e.site)),
        };
        if let Err(error) = checked {
            fault.get_or_insert(error);
        }
    });
    fault.map_or(Ok(()), Err)
}

/// A condition on constants that chooses among bodies.
#[derive(Debug, Clone)]
pub struct Guard {
    condition: Expr,
    functions: Functions,
}

/// Parses the condition of a `when`.
pub fn parse_guard(text: &Text, functions: &Functions) -> Result<Guard> {
    let condition = parser::expression(text)?;
    check_calls(&condition, functions)?;
    Ok(Guard { condition, functions: functions.clone() })
}

impl Guard {
    /// Whether the condition, or a function that it calls, reads this name from outside.
    pub fn reads(&self, name: &str) -> bool {
        self.functions.mentioned([&self.condition]).contains(name)
    }

    /// Whether the condition holds; an error where it depends on anything but constants.
    pub fn holds(&self, env: &Env) -> Result<bool> {
        let mut lower = Lower::new(env, &self.functions, USUAL_CONDITION)?;
        let id = lower.expr(&self.condition)?;
        lower.expect_bool(id)?;
        lower.use_frozen(id)?;
        match lower.node(id).uniform() {
            Some(Value::Bool(v)) => Ok(v),
            _ if lower.node(id).frozen.is_some() => {
                Err(self.condition.site.error("program_rate", "the condition differs among channels"))
            }
            _ => Err(self.condition.site.error("program_rate", "the condition depends on run-time values")),
        }
    }
}

/// A program in its environment: types and ranges proven, constants frozen.
#[derive(Debug, Clone)]
pub struct Compiled {
    graph: Graph,
    result: NodeId,
    /// Run-time nodes that the result needs, in order.
    order: Vec<NodeId>,
    channels: usize,
    inputs: Vec<env::Input>,
    source: Arc<Source>,
    executor: Executor,
}

impl Compiled {
    /// Number of channels: the length of the per-channel constants, 1 without any.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// How its elements are to be computed.
    pub fn evaluator(&self) -> Evaluator {
        self.executor.evaluator
    }

    /// Proven range of an integer result; of a float result, the integers around it within 64 bits.
    pub fn output_range(&self) -> (i128, i128) {
        match self.graph.nodes[self.result].range() {
            Interval::Int(lo, hi) => (lo, hi),
            Interval::Float { lo, hi, .. } => (lo.floor() as i64 as i128, hi.ceil() as i64 as i128),
            Interval::Other => (0, 1),
        }
    }

    /// Largest magnitude of an integer input.
    pub fn input_reach(&self, input: usize) -> Option<u128> {
        match self.inputs.get(input)?.kind {
            InputKind::Int(lo, hi) => Some(lo.unsigned_abs().max(hi.unsigned_abs())),
            InputKind::Float(_) => None,
        }
    }

    /// The definition: the result for one element of `channel`. `inputs` in the order in which the environment
    /// declared them. Values outside their declared range are an error.
    pub fn eval(&self, channel: usize, inputs: &[Value]) -> Result<Value> {
        self.eval_in(&mut self.fresh(channel)?, channel, inputs)
    }

    /// As [`Compiled::eval`], in the cells of [`Compiled::fresh`] for the same channel.
    fn eval_in(&self, cells: &mut [Cell], channel: usize, inputs: &[Value]) -> Result<Value> {
        self.fill(cells, channel, inputs)?;
        match &cells[self.result] {
            Ok(Datum::Value(value)) => Ok(*value),
            Ok(Datum::Table(_)) => Err(Error::invalid("program_type", "the result of a program is a scalar")),
            Err(error) => Err(error.clone()),
        }
    }

    /// A cell per node: constants of the channel where run-time nodes read them; the others hold an error that nobody
    /// reads.
    fn fresh(&self, channel: usize) -> Result<Vec<Cell>> {
        if channel >= self.channels {
            return Err(Error::invalid("program_inputs", format!("channel {channel} of {}", self.channels)));
        }
        let unknown: Cell = Err(Error::invalid("program_rate", "value not computed"));
        let mut cells: Vec<Cell> = vec![unknown; self.graph.nodes.len()];
        let read = self.order.iter().flat_map(|&id| &self.graph.nodes[id].args).chain([&self.result]);
        for &id in read {
            if let Some(cell) = self.graph.nodes[id].cell(channel) {
                cells[id] = cell.into_owned();
            }
        }
        Ok(cells)
    }

    /// Computes the value of every run-time node that the result needs.
    fn fill(&self, cells: &mut [Cell], channel: usize, inputs: &[Value]) -> Result<()> {
        self.check_inputs(channel, inputs)?;
        for &id in &self.order {
            let node = &self.graph.nodes[id];
            let cell = if let Op::Input(position) = node.op {
                Ok(Datum::Value(inputs[position]))
            } else {
                let args: Vec<&Cell> = node.args.iter().map(|&arg| &cells[arg]).collect();
                eval::apply(node, &args)
            };
            if let Ok(Datum::Value(value)) = cell
                && !node.range().holds(value)
            {
                return Err(node
                    .site
                    .error("program_range", format!("{value} is outside the proven range {:?}", node.range())));
            }
            cells[id] = cell;
        }
        Ok(())
    }

    fn check_inputs(&self, channel: usize, inputs: &[Value]) -> Result<()> {
        if inputs.len() != self.inputs.len() || channel >= self.channels {
            return Err(Error::invalid(
                "program_inputs",
                format!(
                    "{} values for {} inputs, channel {channel} of {}",
                    inputs.len(),
                    self.inputs.len(),
                    self.channels
                ),
            ));
        }
        for (input, value) in self.inputs.iter().zip(inputs) {
            let fits = match (input.kind, value) {
                (InputKind::Int(lo, hi), Value::Int(v)) => (lo..=hi).contains(v),
                (InputKind::Float(format), v) => v.type_of() == types::Type::Float(format),
                _ => false,
            };
            if !fits {
                return Err(Error::invalid(
                    "program_inputs",
                    format!("{value} is no value of input '{}' ({:?})", input.name, input.kind),
                ));
            }
        }
        Ok(())
    }
}
