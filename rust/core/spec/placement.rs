//! Where quantizers stand and what fuses: the `[placement]` table of a spec.
//!
//! A file's table lies over its parents': tables merge key by key, lists and values replace. What no file says has the
//! meaning that the accessors document.

use super::schema::Evidence;
use crate::error::{Error, Location, Result};
use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// What to do with a tensor that an integer kernel needs and that has no encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingEncoding {
    /// Compute its producer and consumers in float.
    #[default]
    Float,
    /// Refuse the model.
    Error,
}

/// What keeps a chain of operators from being a supergroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Break {
    /// A tensor inside the chain has more than one reader.
    Branching,
    /// The chain begins with a convolution that has one input channel per group.
    Depthwise,
    /// The chain begins with a convolution over three spatial axes.
    #[serde(rename = "conv3d")]
    Conv3d,
}

/// Subgraphs other than chains that have one quantizer, at their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// MatMul by a constant, and Add of a constant: a Gemm.
    MatmulAdd,
    /// Layer normalization written out in elementwise operators.
    LayerNormalization,
    /// Root-mean-square normalization written out in elementwise operators.
    RmsNormalization,
    /// Softmax of scores where a mask holds, and of a value below their smallest elsewhere.
    MaskedSoftmax,
}

/// A number format: `int8`, `float16` …; whether integers are signed plays no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precision {
    /// Bits of a number.
    pub bits: u32,
    /// Floating point.
    pub float: bool,
}

impl Precision {
    /// An integer of so many bits.
    pub const fn int(bits: u32) -> Precision {
        Precision { bits, float: false }
    }

    /// Reads `int8`, `float16`.
    pub fn parse(word: &str) -> Option<Precision> {
        if let Some(bits) = word.strip_prefix("int") {
            let bits = bits.parse().ok().filter(|b| (2..=32).contains(b))?;
            return Some(Precision { bits, float: false });
        }
        let bits = word.strip_prefix("float")?.parse().ok().filter(|b| matches!(b, 16 | 32))?;
        Some(Precision { bits, float: true })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.float { "float" } else { "int" }, self.bits)
    }
}

impl Serialize for Precision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Precision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Precision::parse(&word).ok_or_else(|| {
            de::Error::custom(format_args!("'{word}' is no number format: int2 to int32, float16 and float32 are"))
        })
    }
}

/// Formats that an operator's kernels take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Combination {
    /// Of the activations.
    pub activation: Precision,
    /// Of the constant weights; without it, any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Precision>,
}

/// Formats that a product of two computed tensors takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperandPair {
    /// Of the first operand.
    pub first: Precision,
    /// Of the second operand.
    pub second: Precision,
    /// Whether the second operand's grid must be symmetric.
    #[serde(default)]
    pub symmetric: bool,
}

/// Ends of a grid that are given, not observed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// Lower end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Upper end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl Constraint {
    /// Whether both ends are given and lie symmetric to zero, which asks for a symmetric grid.
    pub fn is_symmetric(&self) -> bool {
        matches!((self.min, self.max), (Some(lo), Some(hi)) if lo == -hi)
    }
}

/// Which tensors of an operator have one encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tie {
    /// The output takes the input's encoding.
    OutputFollowsInput,
    /// All inputs take the output's encoding.
    InputsFollowOutput,
}

/// Quantizers of activations.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActivationRule {
    /// Whether outputs of operators are quantized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized: Option<bool>,
    /// Bits of a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitwidth: Option<u32>,
    /// Zero in the middle of the grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symmetric: Option<bool>,
    /// Signed codes; without it, symmetric grids are signed and others unsigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<bool>,
}

/// Quantizers of constant weights, biases and tables.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParameterRule {
    /// Whether the parameter is quantized by its own range. A bias without quantizer becomes an integer in units of the
    /// accumulator by the rule `bias`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized: Option<bool>,
    /// Bits of a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitwidth: Option<u32>,
    /// No fewer bits than these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bitwidth: Option<u32>,
    /// Zero in the middle of the grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symmetric: Option<bool>,
    /// Symmetric from so many bits on, whatever `symmetric` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symmetric_from_bits: Option<u32>,
    /// Bits and symmetry of the operator's quantized output, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows_output: Option<bool>,
    /// Signed codes; without it, symmetric grids are signed and others unsigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<bool>,
    /// One scale per output channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_channel: Option<bool>,
}

/// What holds where nothing more specific does.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Symmetric grids leave the lowest code out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_symmetric: Option<bool>,
    /// Symmetric quantizers of tensors without negative values use the whole unsigned grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsigned_symmetric: Option<bool>,
    /// Activations.
    #[serde(skip_serializing_if = "is_default")]
    pub activations: ActivationRule,
    /// Parameters.
    #[serde(skip_serializing_if = "is_default")]
    pub parameters: ParameterRule,
}

/// What holds for one operator.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpRule {
    /// `true`: inputs have a quantizer even where their producer's output has none. `false`: a graph input or constant
    /// that only such operators read has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_quantized: Option<bool>,
    /// Whether the outputs are quantized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_quantized: Option<bool>,
    /// The output has no quantizer where it is an output of the graph: it leaves as the accumulator times its scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_precision_output: Option<bool>,
    /// Bits of the outputs' codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitwidth: Option<u32>,
    /// Bits that the first inputs must have: their producers' quantizers take them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_bitwidth: Option<u32>,
    /// Symmetry of the outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symmetric: Option<bool>,
    /// Sign of the outputs' codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<bool>,
    /// One scale per output channel of the weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_channel: Option<bool>,
    /// Whether `per_channel` holds for weights in groups as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_channel_grouped: Option<bool>,
    /// The channel axis of the weight; without it, that of the ONNX operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub axis: Option<usize>,
    /// Ends of the output's grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
    /// Tensors with one encoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tied: Option<Tie>,
    /// Formats that its kernels take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supported: Option<Vec<Combination>>,
    /// Formats that products of two computed tensors take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_operand: Option<Vec<OperandPair>>,
    /// Parameters by role: `weight`, `bias`, `running_mean` …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, ParameterRule>,
}

/// Quantizers at the ends of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PortRule {
    /// Whether they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized: Option<bool>,
}

/// Where quantizers stand and what fuses.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// Forget what the parents say, and begin anew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Chains of operators with one quantizer, at their end; the longest that matches wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supergroups: Option<Vec<Vec<String>>>,
    /// What keeps a chain from being one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supergroup_breaks: Option<Vec<Break>>,
    /// Other subgraphs with one quantizer; they match before supergroups do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patterns: Option<Vec<Pattern>>,
    /// A supergroup's activation fuses only where the output's codes cannot leave its bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuse_only_redundant: Option<bool>,
    /// Operators whose output holds values of its first input, on the same grid. They have no quantizer of their own
    /// unless `ops` gives them one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid_preserving: Option<Vec<String>>,
    /// Operators, of Mul and Div, that scale the grid where one operand is a positive constant scalar: the output has the
    /// input's codes and no quantizer of its own, unless `ops` gives them one. The scalar has none either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid_scaling: Option<Vec<String>>,
    /// What a missing encoding means to an integer kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_encoding: Option<MissingEncoding>,
    /// Formats that kernels take where `ops` does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supported: Option<Vec<Combination>>,
    /// Inputs of the graph, and constants that operators read as activations.
    #[serde(skip_serializing_if = "is_default")]
    pub model_input: PortRule,
    /// Outputs of the graph.
    #[serde(skip_serializing_if = "is_default")]
    pub model_output: PortRule,
    /// How we know the keys of this file's table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What holds where nothing more specific does.
    #[serde(skip_serializing_if = "is_default")]
    pub defaults: Defaults,
    /// Parameters of all operators, by role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, ParameterRule>,
    /// Operators.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ops: BTreeMap<String, OpRule>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Each listed key of `$over` replaces that of `$under` where it is there.
macro_rules! lay {
    ($under:expr, $over:expr, $($key:ident),+) => { $( if $over.$key.is_some() { $under.$key = $over.$key; } )+ };
}

impl ActivationRule {
    fn lay(&mut self, over: ActivationRule) {
        lay!(self, over, quantized, bitwidth, symmetric, signed);
    }
}

impl ParameterRule {
    /// Lays a more specific rule over this one.
    pub fn lay(&mut self, over: ParameterRule) {
        lay!(
            self,
            over,
            quantized,
            bitwidth,
            min_bitwidth,
            symmetric,
            symmetric_from_bits,
            follows_output,
            signed,
            per_channel
        );
    }
}

impl OpRule {
    fn lay(&mut self, over: OpRule) {
        lay!(
            self,
            over,
            input_quantized,
            output_quantized,
            high_precision_output,
            bitwidth,
            input_bitwidth,
            symmetric,
            signed,
            per_channel,
            per_channel_grouped,
            axis,
            constraint,
            tied,
            supported,
            second_operand
        );
        for (role, rule) in over.params {
            self.params.entry(role).or_default().lay(rule);
        }
    }
}

impl Placement {
    /// Lays a file's table over that of its parents.
    pub(super) fn lay(&mut self, over: Placement) {
        if over.replace {
            *self = Placement::default();
        }
        lay!(
            self,
            over,
            supergroups,
            supergroup_breaks,
            patterns,
            fuse_only_redundant,
            grid_preserving,
            grid_scaling,
            missing_encoding,
            supported
        );
        lay!(self.model_input, over.model_input, quantized);
        lay!(self.model_output, over.model_output, quantized);
        lay!(self.defaults, over.defaults, strict_symmetric, unsigned_symmetric);
        self.defaults.activations.lay(over.defaults.activations);
        self.defaults.parameters.lay(over.defaults.parameters);
        for (role, rule) in over.params {
            self.params.entry(role).or_default().lay(rule);
        }
        for (op_type, rule) in over.ops {
            self.ops.entry(op_type).or_default().lay(rule);
        }
    }

    /// Chains with one quantizer; none without the key.
    pub fn supergroups(&self) -> &[Vec<String>] {
        self.supergroups.as_deref().unwrap_or_default()
    }

    /// Whether such a thing keeps a chain from being a supergroup; without the key, branching does.
    pub fn breaks(&self, what: Break) -> bool {
        self.supergroup_breaks.as_deref().unwrap_or(&[Break::Branching]).contains(&what)
    }

    /// Other subgraphs with one quantizer; none without the key.
    pub fn patterns(&self) -> &[Pattern] {
        self.patterns.as_deref().unwrap_or_default()
    }

    /// Whether activations fuse only where they clamp nothing; without the key, they always fuse.
    pub fn fuse_only_redundant(&self) -> bool {
        self.fuse_only_redundant.unwrap_or(false)
    }

    /// Whether the operator's output holds values of its input.
    pub fn preserves_grid(&self, op_type: &str) -> bool {
        self.grid_preserving.as_deref().unwrap_or_default().iter().any(|op| op == op_type)
    }

    /// Whether a product with a constant scalar scales the grid.
    pub fn scales_grid(&self, op_type: &str) -> bool {
        self.grid_scaling.as_deref().unwrap_or_default().iter().any(|op| op == op_type)
            && self.ops.get(op_type).and_then(|op| op.output_quantized) != Some(true)
    }

    /// What a missing encoding means; without the key, float.
    pub fn missing_encoding(&self) -> MissingEncoding {
        self.missing_encoding.unwrap_or_default()
    }

    /// Ties of an operator.
    pub fn tie(&self, op_type: &str) -> Option<Tie> {
        self.ops.get(op_type)?.tied
    }

    /// Formats that an operator's kernels take, where a file says so.
    pub fn supported(&self, op_type: &str) -> Option<&[Combination]> {
        self.ops.get(op_type).and_then(|op| op.supported.as_deref()).or(self.supported.as_deref())
    }

    /// The rule of a parameter: the defaults, what holds for its role, and what holds for its role in this operator.
    /// `per_channel` of the operator counts for weights.
    pub fn parameter(&self, op_type: &str, role: &str) -> ParameterRule {
        let mut rule = self.defaults.parameters;
        let op = self.ops.get(op_type);
        rule.per_channel = match role {
            "weight" => op.and_then(|op| op.per_channel).or(rule.per_channel),
            _ => None,
        };
        if role == "bias" && !self.params.contains_key(role) {
            rule.quantized = Some(false);
        }
        for over in [self.params.get(role), op.and_then(|op| op.params.get(role))].into_iter().flatten() {
            rule.lay(*over);
        }
        rule
    }

    /// Checks numbers that TOML's types cannot.
    pub(super) fn validate(&self, origin: &str) -> Result<()> {
        let fail = |place: String, message: String| {
            Err(Error::invalid("spec_placement", message).at(Location::File(format!("{origin} [placement{place}]"))))
        };
        let bits = |place: String, bits: &[Option<u32>]| match bits.iter().flatten().find(|b| !(2..=32).contains(*b)) {
            Some(wrong) => fail(place, format!("{wrong} bits are not in 2..=32")),
            None => Ok(()),
        };
        if let Some(short) = self.supergroups().iter().find(|chain| chain.len() < 2) {
            return fail(String::new(), format!("the supergroup {short:?} has fewer than two operators"));
        }
        if let Some(other) = self.grid_scaling.iter().flatten().find(|op| !matches!(op.as_str(), "Mul" | "Div")) {
            return fail(String::new(), format!("grid_scaling is known of Mul and Div, not of '{other}'"));
        }
        bits(".defaults.activations".into(), &[self.defaults.activations.bitwidth])?;
        let parameter = |place: String, rule: &ParameterRule| bits(place, &[rule.bitwidth, rule.min_bitwidth]);
        parameter(".defaults.parameters".into(), &self.defaults.parameters)?;
        for (role, rule) in &self.params {
            parameter(format!(".params.{role}"), rule)?;
        }
        for (op_type, op) in &self.ops {
            let place = format!(".ops.{op_type}");
            bits(place.clone(), &[op.bitwidth, op.input_bitwidth])?;
            for (role, rule) in &op.params {
                parameter(format!("{place}.params.{role}"), rule)?;
            }
            if let Some(Constraint { min, max }) = op.constraint {
                let (lo, hi) = (min.unwrap_or(0.0), max.unwrap_or(0.0));
                if !(lo.is_finite() && hi.is_finite() && lo <= 0.0 && hi >= 0.0) || (min.is_none() && max.is_none()) {
                    return fail(place, "a constraint has a finite min or max, and zero between them".into());
                }
            }
            if op.second_operand.as_ref().is_some_and(Vec::is_empty) || op.supported.as_ref().is_some_and(Vec::is_empty)
            {
                return fail(place, "an empty list allows nothing".into());
            }
        }
        Ok(())
    }
}
