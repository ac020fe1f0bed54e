//! What a spec file may contain. Unknown keys are errors.

use super::placement::Placement;
use crate::num::narrow::{Beyond, Subnormals};
use crate::num::{FloatType, Narrow};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Version of the schema that this build reads.
pub const SCHEMA_VERSION: u32 = 1;

/// How graphs run under a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// Integer kernels; float only where a rule says so.
    #[default]
    Integer,
    /// ONNX semantics in float; encodings are ignored.
    Float,
    /// Float operators, and quantize-dequantize at every encoded tensor.
    FakeQuant,
}

/// How we know a rule, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Compared bit for bit with the implementation; `source` names the test.
    Executed,
    /// Read in the implementation's source.
    Source,
    /// Text by the vendor.
    Documented,
    /// Fits published or captured numbers.
    Fitted,
    /// Nobody outside the vendor knows.
    #[default]
    Assumed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Executed => "executed",
            Status::Source => "source",
            Status::Documented => "documented",
            Status::Fitted => "fitted",
            Status::Assumed => "assumed",
        })
    }
}

/// The evidence of a rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Kind of evidence.
    pub status: Status,
    /// Test, repository@commit:path, document or data set.
    #[serde(default)]
    pub source: String,
    /// Anything to add.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Which factors a multiply-accumulate sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Terms {
    /// `(x - x.zp) · (w - w.zp)`.
    #[default]
    Centred,
    /// `x · w` on raw codes; the program corrects for zero points.
    Raw,
}

/// What happens when a sum leaves the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Two's complement wrap-around.
    #[default]
    Wrap,
    /// Adjacent pairs of products along the reduction saturate to 16 bits before they are summed.
    PairSat16,
}

/// The shape of the accumulator of a multiply-accumulate, pooling or reduction kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accumulator {
    /// Which factors are summed.
    pub terms: Terms,
    /// Bits: 32 or 64.
    pub width: u32,
    /// What an overflow does.
    pub overflow: Overflow,
    /// Whether the bias is part of the sum; otherwise the program sees it as `b`.
    pub bias: bool,
    /// Whether the file's integers of a bias are added as they are, whatever scale the file gives them.
    pub verbatim_bias: bool,
}

impl Default for Accumulator {
    fn default() -> Self {
        Accumulator { terms: Terms::Centred, width: 32, overflow: Overflow::Wrap, bias: true, verbatim_bias: false }
    }
}

/// A float format of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Format {
    F16,
    Bf16,
    #[default]
    F32,
    F64,
}

impl From<Format> for FloatType {
    fn from(format: Format) -> FloatType {
        match format {
            Format::F16 => FloatType::F16,
            Format::Bf16 => FloatType::Bf16,
            Format::F32 => FloatType::F32,
            Format::F64 => FloatType::F64,
        }
    }
}

/// What becomes of results below the smallest normal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Denormals {
    /// They stay.
    #[default]
    Keep,
    /// They become zero with their sign.
    Flush,
}

/// What becomes of float results beyond the largest finite number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FloatOverflow {
    /// They become infinite.
    #[default]
    Inf,
    /// They and infinities become the largest finite number.
    Saturate,
}

/// How a target holds and sums the reals of its float kernels.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FloatArithmetic {
    /// Format of every tensor of reals up to 32 bits: each result is rounded to it once, to nearest even.
    #[serde(rename = "type")]
    pub format: Format,
    /// Format of the sums of Conv, ConvTranspose, Gemm and MatMul, which take their terms by fused multiply-add.
    #[serde(default)]
    pub accumulate: Format,
    /// Below the range of normal numbers, in tensors and in sums of 16 bits.
    #[serde(default)]
    pub denormals: Denormals,
    /// Above the range, in tensors and in sums of 16 bits.
    #[serde(default)]
    pub overflow: FloatOverflow,
    /// How we know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

impl fmt::Display for FloatArithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tensors, sums) = (FloatType::from(self.format), FloatType::from(self.accumulate));
        write!(f, "tensors in {tensors}, sums in {sums}")?;
        if self.denormals == Denormals::Flush {
            f.write_str(", subnormals become zero")?;
        }
        if self.overflow == FloatOverflow::Saturate {
            f.write_str(", overflow saturates")?;
        }
        Ok(())
    }
}

impl FloatArithmetic {
    fn narrow(&self, format: Format) -> Narrow {
        Narrow {
            format: format.into(),
            subnormals: match self.denormals {
                Denormals::Keep => Subnormals::Keep,
                Denormals::Flush => Subnormals::Flush,
            },
            beyond: match self.overflow {
                FloatOverflow::Inf => Beyond::Infinity,
                FloatOverflow::Saturate => Beyond::Saturate,
            },
        }
    }

    /// How tensors hold reals.
    pub fn tensors(&self) -> Narrow {
        self.narrow(self.format)
    }

    /// How sums hold reals. Sums of 32 and 64 bits are plain IEEE ones.
    pub fn sums(&self) -> Narrow {
        match self.accumulate {
            Format::F16 | Format::Bf16 => self.narrow(self.accumulate),
            wide => Narrow::ieee(wide.into()),
        }
    }
}

/// An ordered table of names and program texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Lets(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Lets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Lets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of name = \"expression\"")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lets, A::Error> {
                let mut out = Vec::new();
                while let Some(entry) = map.next_entry::<String, String>()? {
                    out.push(entry);
                }
                Ok(Lets(out))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// One body or a case of one.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawBody {
    pub when: Option<String>,
    #[serde(default, rename = "let")]
    pub lets: Lets,
    pub y: Option<String>,
    pub intrinsic: Option<String>,
    pub float: Option<bool>,
    #[serde(rename = "move")]
    pub moves: Option<bool>,
    pub unsupported: Option<String>,
    pub accumulator: Option<Accumulator>,
    pub evidence: Option<Evidence>,
    /// Tried before this body, in order. What a case leaves out it takes from here.
    #[serde(default)]
    pub cases: Vec<RawBody>,
    /// Only in the rule itself.
    pub choice: Option<String>,
    /// Only in the rule itself.
    #[serde(default)]
    pub alternatives: BTreeMap<String, RawBody>,
}

impl RawBody {
    /// Whether the rule has no arithmetic of its own, only cases or evidence: it adds to a parent's rule.
    pub fn is_extension(&self) -> bool {
        let computes = self.y.is_some()
            || self.intrinsic.is_some()
            || self.float.is_some()
            || self.moves.is_some()
            || self.unsupported.is_some();
        let chooses = self.when.is_some() || self.choice.is_some() || !self.alternatives.is_empty();
        !computes && !chooses && self.lets.0.is_empty() && (self.evidence.is_some() || !self.cases.is_empty())
    }

    /// Puts the cases of an extension before those of this rule; an extension without cases restates the evidence.
    pub fn extend(&mut self, extension: RawBody) {
        if extension.cases.is_empty() {
            self.evidence = extension.evidence;
            return;
        }
        let accumulator = extension.accumulator.unwrap_or_default();
        let cases = extension.cases.into_iter().map(|case| RawBody {
            accumulator: case.accumulator.or(Some(accumulator)),
            evidence: case.evidence.or_else(|| extension.evidence.clone()),
            ..case
        });
        self.cases = cases.chain(std::mem::take(&mut self.cases)).collect();
    }
}

/// A named function of programs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawFunction {
    pub args: Vec<String>,
    #[serde(default, rename = "let")]
    pub lets: Lets,
    pub y: String,
}

/// A case of a claimed family that the target does not equal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Id of the case; a `*` at the end stands for any rest.
    pub id: String,
    /// Why the target cannot equal it.
    pub reason: String,
}

impl Exception {
    /// Whether the exception speaks of this case.
    pub fn covers(&self, id: &str) -> bool {
        match self.id.strip_suffix('*') {
            Some(start) => id.starts_with(start),
            None => id == self.id,
        }
    }
}

/// A family of golden vectors that a target claims to equal, bit for bit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Name of the family in its `cases.json`.
    pub family: String,
    /// Cases that are not claimed.
    #[serde(default)]
    pub except: Vec<Exception>,
}

/// A spec file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawSpec {
    pub schema_version: u32,
    pub name: Option<String>,
    #[serde(default)]
    pub aliases: Vec<String>,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub extends: Vec<String>,
    /// Rules of parents are known no better than this here.
    pub inherited_evidence: Option<Evidence>,
    pub execution: Option<Execution>,
    pub placement: Option<Placement>,
    pub float: Option<FloatArithmetic>,
    #[serde(default)]
    pub conformance: Vec<Claim>,
    #[serde(default)]
    pub parameters: BTreeMap<String, super::Parameter>,
    #[serde(default)]
    pub functions: BTreeMap<String, RawFunction>,
    #[serde(default)]
    pub rules: BTreeMap<String, RawBody>,
}
