//! Specs: one TOML file per target that says how its kernels compute.
//!
//! A spec holds *rules*, one per operator (and a few that are not operators: [`names`]), each with a program, the shape
//! of its accumulator and the evidence for it. `specs/README.md` teaches the format by example.

mod embedded;
pub mod import;
mod json_schema;
mod load;
mod parameters;
pub mod placement;
mod schema;

pub use embedded::{EMBEDDED, Embedded, embedded_names};
pub use json_schema::json_schema;
pub use parameters::Parameter;
pub use placement::{MissingEncoding, Placement};
pub use schema::{
    Accumulator, Claim, Denormals, Evidence, Exception, Execution, FloatArithmetic, FloatOverflow, Format, Overflow,
    Status, Terms,
};

use crate::error::{Error, Kind, Location, Result, nearest};
use crate::program::{Env, Executor, Guard, Program, Text};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of the rules that are not ONNX operators.
pub mod names {
    /// Real → code at a boundary between float and integer.
    pub const QUANTIZE: &str = "quantize";
    /// Real → code at a graph input, where the target does it differently from [`QUANTIZE`].
    pub const QUANTIZE_INPUT: &str = "quantize_input";
    /// Real → code of a constant, at build time.
    pub const QUANTIZE_WEIGHTS: &str = "quantize_weights";
    /// Real bias → integer in accumulator units.
    pub const BIAS: &str = "bias";
    /// Weight code → code that the kernel multiplies (`w'`), where the target re-encodes weights.
    pub const WEIGHTS: &str = "weights";
    /// Scale of the codes that [`WEIGHTS`] gives.
    pub const WEIGHTS_SCALE: &str = "weights_scale";
    /// Code → real.
    pub const DEQUANTIZE: &str = "dequantize";
    /// Whether the target takes the encoding of an activation: `move`, or `unsupported` with the reason.
    pub const ACTIVATIONS: &str = "activations";
    /// Every operator that has no rule of its own.
    pub const OTHER: &str = "other";
    /// Code → code of another encoding.
    pub const REQUANTIZE: &str = "Requantize";
    /// All of the above.
    pub const ALL: [&str; 10] = [
        ACTIVATIONS,
        QUANTIZE,
        QUANTIZE_INPUT,
        QUANTIZE_WEIGHTS,
        BIAS,
        WEIGHTS,
        WEIGHTS_SCALE,
        DEQUANTIZE,
        OTHER,
        REQUANTIZE,
    ];
}

/// How one operator computes, in one situation.
#[derive(Debug, Clone)]
pub struct Body {
    /// Condition on constants; a body without one always applies.
    pub when: Option<Arc<Guard>>,
    /// The text of the condition.
    pub when_text: Option<String>,
    /// What to run.
    pub action: Action,
    /// How products are summed.
    pub accumulator: Accumulator,
    /// How we know it.
    pub evidence: Evidence,
}

/// What a body does.
#[derive(Debug, Clone)]
pub enum Action {
    /// A program.
    Program {
        /// Parsed form.
        program: Arc<Program>,
        /// Constants in source form, for listings.
        lets: Vec<(String, Text)>,
        /// The result in source form.
        y: Text,
    },
    /// A named Rust function for what a program cannot say.
    Intrinsic(String),
    /// Dequantize, run the ONNX operator in float, quantize.
    Float,
    /// Codes are moved, never computed; inputs in another encoding than the output's are requantized first.
    Move,
    /// The target has no such kernel; the reason.
    Unsupported(String),
}

impl Action {
    /// One word for reports.
    pub fn label(&self) -> &'static str {
        match self {
            Action::Program { .. } => "integer",
            Action::Intrinsic(_) => "intrinsic",
            Action::Float => "float",
            Action::Move => "move",
            Action::Unsupported(_) => "unsupported",
        }
    }
}

/// All that a spec says of one operator.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Operator or one of [`names`].
    pub name: String,
    /// File that the rule stands in.
    pub origin: String,
    /// Bodies in the order in which they are tried.
    pub bodies: Vec<Body>,
    /// Other hypotheses about the same rule, by name.
    pub alternatives: BTreeMap<String, Vec<Body>>,
    /// Name of the hypothesis in `bodies`, where there are alternatives.
    pub choice: Option<String>,
}

impl Rule {
    /// Whether a condition reads this name.
    pub fn asks_for(&self, name: &str) -> bool {
        self.bodies.iter().filter_map(|b| b.when.as_ref()).any(|when| when.reads(name))
    }

    /// The first body whose condition holds.
    pub fn resolve(&self, env: &Env) -> Result<&Body> {
        for body in &self.bodies {
            match &body.when {
                None => return Ok(body),
                Some(guard) if guard.holds(env)? => return Ok(body),
                Some(_) => {}
            }
        }
        let tried: Vec<_> = self.bodies.iter().filter_map(|b| b.when_text.as_deref()).collect();
        Err(Error::new(
            Kind::Unspecified,
            "rule_case",
            format!("no case of rule '{}' applies; tried: {}", self.name, tried.join("; ")),
        )
        .at(Location::File(self.origin.clone()))
        .help("the target's public sources say nothing of this combination of types"))
    }
}

/// A target.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name of the target.
    pub name: String,
    /// Other names of the same arithmetic.
    pub aliases: Vec<String>,
    /// One line.
    pub title: String,
    /// File or embedded name that it was read from.
    pub origin: String,
    /// How graphs run.
    pub execution: Execution,
    /// Where quantizers stand and which operators fuse.
    pub placement: Placement,
    /// Families of golden vectors that the target claims to equal; a child does not inherit them.
    pub conformance: Vec<Claim>,
    /// What a node may state beyond ONNX's attributes, by name.
    pub parameters: BTreeMap<String, Parameter>,
    /// How we know `placement`: the files that its keys stand in, parents first, with their evidence.
    pub placement_evidence: Vec<(String, Option<Evidence>)>,
    /// How float kernels hold and sum reals; ONNX's own meaning where left out.
    pub float: Option<FloatArithmetic>,
    /// Rules by name.
    pub rules: BTreeMap<String, Rule>,
    /// Hexadecimal SHA-256 over the spec's and its parents' rules after merging.
    pub hash: String,
    /// `rule=alternative` pairs that the user chose.
    pub assumptions: BTreeMap<String, String>,
}

impl Spec {
    /// Reads a spec by target name, alias, or path of a TOML file.
    pub fn load(name_or_path: &str) -> Result<Spec> {
        load::load(name_or_path)
    }

    /// Parses TOML text; `extends` is resolved among the embedded specs.
    pub fn parse(text: &str, origin: &str) -> Result<Spec> {
        load::parse(text, origin)
    }

    /// What the target claims of a family of golden vectors.
    pub fn claim(&self, family: &str) -> Option<&Claim> {
        self.conformance.iter().find(|c| c.family == family)
    }

    /// As [`Spec::parse`]; `extends` is resolved beside the files of `folder` first.
    pub fn parse_beside(text: &str, origin: &str, folder: &std::path::Path) -> Result<Spec> {
        load::parse_in(text, origin, Some(folder))
    }

    /// The rule of an operator.
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.get(name)
    }

    /// The rule, or the error that says that nobody documented it.
    pub fn require(&self, name: &str) -> Result<&Rule> {
        self.rule(name).ok_or_else(|| {
            Error::new(Kind::Unspecified, "rule_missing", format!("target '{}' has no rule for {name}", self.name))
                .at(Location::File(self.origin.clone()))
                .help(format!("add [rules.{name}] to the spec"))
        })
    }

    /// Name of the rule that quantizes constants: the one for weights, where the target has its own.
    pub fn constant_rule(&self) -> &'static str {
        if self.rule(names::QUANTIZE_WEIGHTS).is_some() { names::QUANTIZE_WEIGHTS } else { names::QUANTIZE }
    }

    /// Swaps in an alternative: `assume("Add.rule", "A1")`, where the `.rule` suffix and letter case are free; or sets what nodes
    /// have that state nothing for a parameter: `assume("rounding_mode", "SINGLE")`.
    pub fn assume(&mut self, key: &str, value: &str) -> Result<()> {
        if let Some(parameter) = self.parameters.get_mut(key) {
            if !parameter.one_of.iter().any(|v| v == value) {
                return Err(Error::invalid("assume_parameter", format!("parameter '{key}' is never '{value}'"))
                    .help(format!("one of: {}", parameter.one_of.join(", "))));
            }
            parameter.default = value.to_string();
            self.assumptions.insert(key.to_string(), value.to_string());
            return Ok(());
        }
        let wanted = key.strip_suffix(".rule").unwrap_or(key);
        let Some(rule) = self.rules.values_mut().find(|r| r.name.eq_ignore_ascii_case(wanted)) else {
            return Err(Error::invalid("assume_rule", format!("target '{}' has no rule '{wanted}'", self.name))
                .help(nearest_help(wanted, self.rules.keys().map(String::as_str))));
        };
        let Some(choice) = &rule.choice else {
            return Err(Error::invalid("assume_rule", format!("rule '{}' has no alternatives", rule.name)));
        };
        if choice != value {
            let Some(bodies) = rule.alternatives.remove(value) else {
                let known = rule.alternatives.keys().map(String::as_str).chain([choice.as_str()]);
                return Err(Error::invalid(
                    "assume_alternative",
                    format!("rule '{}' has no alternative '{value}'", rule.name),
                )
                .help(format!("alternatives: {}", known.collect::<Vec<_>>().join(", "))));
            };
            let old = std::mem::replace(&mut rule.bodies, bodies);
            rule.alternatives.insert(choice.clone(), old);
            rule.choice = Some(value.to_string());
        }
        self.assumptions.insert(rule.name.clone(), value.to_string());
        Ok(())
    }

    /// The same target, its programs computed by other code.
    #[must_use]
    pub fn with_executor(mut self, executor: Executor) -> Spec {
        let bodies =
            self.rules.values_mut().flat_map(|r| r.bodies.iter_mut().chain(r.alternatives.values_mut().flatten()));
        for body in bodies {
            if let Action::Program { program, .. } = &mut body.action
                && program.executor() != executor
            {
                *program = Arc::new(program.with_executor(executor));
            }
        }
        self
    }

    /// The weakest evidence among all rules, the float arithmetic and placement tables.
    pub fn status(&self) -> Status {
        let float = self.float.iter().map(|f| f.evidence.as_ref().map_or(Status::Assumed, |e| e.status));
        let rules = self.rules.values().flat_map(|r| &r.bodies).map(|b| b.evidence.status);
        let placement = self.placement_evidence.iter().map(|(_, e)| e.as_ref().map_or(Status::Assumed, |e| e.status));
        rules.chain(placement).chain(float).max().unwrap_or(Status::Executed)
    }
}

/// "did you mean" line for a misspelt word, or the list of known ones.
pub(crate) fn nearest_help<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(k) => format!("did you mean '{k}'?"),
        None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests;
