//! Encodings of a model from sample inputs: the float graph runs, observers watch, and the target's placement rules say
//! which tensors get an encoding, and which grid ([`super::quantizers`]).
//!
//! Tensors that share an encoding share an observer. Outputs of operators that preserve the grid of their input get no
//! entry of their own.

use super::quantizers::{Decision, Decisions, Quantizer, Reason, Role, quantizers};
use super::session::{Options, Session};
use crate::calibrate::{MinMax, Observer, Percentile, weight_encoding};
use crate::encoding::file::{EncodingsFile, Entry, NamedEntry, ParamUse, Section, Version};
use crate::encoding::{Encoding, Formula, FormulaOptions};
use crate::error::{Error, Result};
use crate::graph::{Graph, TensorId};
use crate::spec::placement::{Constraint, Placement};
use crate::spec::{Execution, Spec};
use crate::tensor::{Data, Tensor};
use std::collections::{BTreeSet, HashMap};

/// How observers settle on the range of an activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// Smallest and largest value.
    MinMax,
    /// As [`Percentile`]: a share of the values is left out at both ends; 50 to 100.
    Percentile(f64),
}

/// What encodings to derive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrateOptions {
    /// Ranges of activations.
    pub method: Method,
    /// How ranges become grids.
    pub formula: Formula,
    /// Bits of all activations, instead of the target's.
    pub activation_bits: Option<u32>,
    /// Bits of all weights, instead of the target's.
    pub weight_bits: Option<u32>,
    /// Whether each weight has one scale per output channel, instead of what the target says.
    pub per_channel: Option<bool>,
    /// Threads; 0 for as many as the machine has.
    pub threads: usize,
    /// Bytes that the values of a run may take, as in [`Options`].
    pub max_memory: Option<u64>,
    /// Version that the result says it has; it can be written as any.
    pub version: Version,
}

impl Default for CalibrateOptions {
    fn default() -> Self {
        CalibrateOptions {
            method: Method::MinMax,
            formula: Formula::AimetOnnx,
            activation_bits: None,
            weight_bits: None,
            per_channel: None,
            threads: 0,
            max_memory: None,
            version: Version::V1_0_0,
        }
    }
}

/// Encodings of `graph` for the placement rules of `spec`. Encodings that the graph has are not looked at. Memory does not
/// grow with the number of samples.
///
/// # Errors
/// `calibrate_empty` without samples, `calibrate_nan` with the tensor where a run gives NaN, and all errors of running
/// the graph and of the options.
pub fn calibrate(
    graph: &Graph,
    spec: &Spec,
    samples: impl Iterator<Item = Result<Vec<(String, Tensor)>>>,
    options: &CalibrateOptions,
) -> Result<EncodingsFile> {
    let bare = graph.without_encodings()?;
    let placement = options.over(&spec.placement);
    let sites = Sites::new(quantizers(&bare, &placement), options)?;
    let mut observers: HashMap<TensorId, Box<dyn Observer>> = HashMap::new();
    for decision in sites.decisions.tensors.iter().filter(|d| d.role == Role::Constant && d.quantizer.is_some()) {
        if let Some(value) = sites.decisions.value(decision.tensor) {
            sites.observe(&mut observers, decision, &bare, value)?;
        }
    }
    let ids: HashMap<&str, TensorId> =
        bare.tensors.iter().enumerate().map(|(t, info)| (info.name.as_str(), t)).collect();
    let float = Spec { execution: Execution::Float, float: None, ..spec.clone() };
    let CalibrateOptions { threads, max_memory, .. } = *options;
    let session = Session::new(bare.clone(), float, Options { threads, max_memory, ..Options::default() })?;
    let mut float_tensors: BTreeSet<TensorId> = BTreeSet::new();
    let mut seen = 0usize;
    for feeds in samples {
        let feeds = feeds?;
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        for captured in session.run_with(&feeds, true, &mut || Ok(()))?.captured {
            let Some(&t) = ids.get(captured.name.as_str()) else { continue };
            let Some(decision) = sites.observed(t).filter(|_| captured.value.dtype().is_float()) else { continue };
            float_tensors.insert(t);
            sites.observe(&mut observers, decision, &bare, &captured.value)?;
        }
        seen += 1;
    }
    if seen == 0 {
        return Err(Error::invalid("calibrate_empty", "no sample was given").help("give at least one inference"));
    }
    let mut file = EncodingsFile::new(options.version);
    for decision in &sites.decisions.tensors {
        let t = decision.tensor;
        let info = &bare.tensors[t];
        let named = |e: Error| e.at_tensor(&info.name);
        let (Some(quantizer), Reason::Rule) = (decision.quantizer, &decision.reason) else { continue };
        let formula = sites.formula(&quantizer);
        match (&decision.role, sites.decisions.value(t)) {
            (Role::Parameter { .. }, Some(value)) => {
                let encoding =
                    weight_encoding(value.shape(), &reals(value), quantizer.axis, &formula).map_err(named)?;
                let mut entry = NamedEntry::new(&info.name, Section::Param, Entry::Int(encoding));
                if let Some(axis) = quantizer.axis {
                    entry.resolve(&ParamUse { shape: value.shape().to_vec(), axis, block_axis: None })?;
                }
                file.insert(entry)?;
            }
            (_, value) if value.is_some() || float_tensors.contains(&t) => {
                let Some(observer) = observers.get(&decision.group) else { continue };
                let (min, max) = observer.range(&formula).map_err(named)?;
                let (min, max) = constrained(quantizer.constraint, min, max);
                let encoding: Encoding = formula.encoding(min, max).map_err(named)?;
                let section = if value.is_some() { Section::Param } else { Section::Activation };
                file.insert(NamedEntry::new(&info.name, section, Entry::Int(encoding)))?;
            }
            _ => {}
        }
    }
    Ok(file)
}

impl CalibrateOptions {
    /// The placement rules with what the caller asked for in their stead.
    fn over(&self, placement: &Placement) -> Placement {
        let mut placement = placement.clone();
        if let Some(bits) = self.activation_bits {
            placement.defaults.activations.bitwidth = Some(bits);
            placement.ops.values_mut().for_each(|op| (op.bitwidth, op.input_bitwidth) = (None, None));
        }
        if let Some(bits) = self.weight_bits {
            let of_ops = placement.ops.values_mut().flat_map(|op| op.params.values_mut());
            of_ops.chain(placement.params.values_mut()).for_each(|rule| rule.bitwidth = None);
            placement.defaults.parameters.bitwidth = Some(bits);
        }
        if let Some(per_channel) = self.per_channel {
            placement.defaults.parameters.per_channel = Some(per_channel);
            placement.ops.values_mut().for_each(|op| op.per_channel = None);
        }
        placement
    }
}

/// A range with the ends that are given.
fn constrained(constraint: Option<Constraint>, min: f64, max: f64) -> (f64, f64) {
    let Constraint { min: lo, max: hi } = constraint.unwrap_or_default();
    (lo.unwrap_or(min), hi.unwrap_or(max))
}

fn reals(tensor: &Tensor) -> Vec<f32> {
    match tensor.data() {
        Data::F32(v) => v.to_vec(),
        _ => tensor.to_f64().into_iter().map(|v| v as f32).collect(),
    }
}

/// Where encodings go, and how.
struct Sites<'a> {
    decisions: Decisions,
    options: &'a CalibrateOptions,
}

impl Sites<'_> {
    fn new(decisions: Decisions, options: &CalibrateOptions) -> Result<Sites<'_>> {
        let sites = Sites { decisions, options };
        for decision in sites.decisions.tensors.iter() {
            if let Some(quantizer) = &decision.quantizer {
                sites.formula(quantizer).validate()?;
            }
        }
        Ok(sites)
    }

    fn formula(&self, quantizer: &Quantizer) -> FormulaOptions {
        FormulaOptions {
            formula: self.options.formula,
            bitwidth: quantizer.bitwidth,
            signed: quantizer.signed,
            symmetric: quantizer.symmetric,
            narrow_range: quantizer.narrow_range,
            unsigned_symmetric: quantizer.unsigned_symmetric,
        }
    }

    /// The decision about a tensor whose values settle a range.
    fn observed(&self, t: TensorId) -> Option<&Decision> {
        self.decisions.of(t).filter(|d| d.quantizer.is_some() && d.reason == Reason::Rule)
    }

    fn observe(
        &self,
        observers: &mut HashMap<TensorId, Box<dyn Observer>>,
        decision: &Decision,
        graph: &Graph,
        value: &Tensor,
    ) -> Result<()> {
        let observer = match observers.entry(decision.group) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(match self.options.method {
                Method::MinMax => Box::new(MinMax::new()),
                Method::Percentile(p) => Box::new(Percentile::new(Percentile::DEFAULT_BINS, p)?),
            }),
        };
        observer.observe(&reals(value)).map_err(|e| e.at_tensor(&graph.tensors[decision.tensor].name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::Builder;

    const SPEC: &str = r#"
        schema_version = 1
        name = "test"
        [placement]
        supergroups = [["Conv", "Relu"]]
        grid_preserving = ["MaxPool", "Reshape"]
        ops.Concat.tied = "inputs_follow_output"
    "#;

    fn network() -> Graph {
        let mut b = Builder::new();
        b.tensor("w", Some(Tensor::f32(&[2, 1, 1, 1], vec![1.27, -0.5])));
        b.tensor("b", Some(Tensor::f32(&[2], vec![0.0, 3.0])));
        b.tensor("c", Some(Tensor::f32(&[1], vec![-4.0])));
        b.node("Conv", &["x", "w", "b"], "conv").node("Relu", &["conv"], "relu").node("Add", &["relu", "c"], "sum");
        b.node("Concat", &["relu", "sum"], "cat").attribute("axis", 1);
        b.graph(&["x"], &["cat"])
    }

    fn run(options: &CalibrateOptions, samples: &[&[f32]]) -> Result<EncodingsFile> {
        let spec = Spec::parse(SPEC, "test.toml").unwrap();
        let feeds = samples.iter().map(|s| Ok(vec![("x".to_string(), Tensor::f32(&[1, 1, 1, s.len()], s.to_vec()))]));
        calibrate(&network(), &spec, feeds, options)
    }

    #[test]
    fn encodings_go_where_the_rules_say() {
        let file = run(&CalibrateOptions::default(), &[&[0.0, 1.0], &[-1.0, 2.0]]).unwrap();
        let names: Vec<&str> = file.entries().iter().map(|e| e.name.as_str()).collect();
        // Not conv (inside a chain), not b (a bias).
        assert_eq!(names, ["x", "relu", "sum", "cat", "w", "c"]);
        let encoding = |name: &str| file.encoding(name).unwrap().unwrap();
        assert_eq!(encoding("w").scale, [f64::from(1.27f32) / 127.0]);
        assert_eq!((encoding("x").min(), encoding("x").max()), (-1.0, 2.0));
        // relu and sum meet in a Concat: one encoding over both ranges.
        assert!(encoding("relu").same_grid(encoding("sum")) && encoding("cat").same_grid(encoding("sum")));
        let sum = encoding("sum");
        assert!(sum.min() <= -3.9 && sum.max() >= 3.4, "{} {}", sum.min(), sum.max());
    }

    #[test]
    fn weights_have_a_scale_per_channel_on_request() {
        let options = CalibrateOptions { per_channel: Some(true), ..CalibrateOptions::default() };
        let file = run(&options, &[&[1.0]]).unwrap();
        let w = file.encoding("w").unwrap().unwrap();
        assert_eq!(w.granularity, crate::encoding::Granularity::PerChannel { axis: 0 });
        assert_eq!(w.scale.len(), 2);
    }

    #[test]
    fn rules_give_grids_and_options_stand_over_them() {
        let rules = r#"
            defaults.strict_symmetric = true
            defaults.activations = { bitwidth = 16, symmetric = true }
            ops.Relu = { constraint = { min = 0.0, max = 6.0 }, symmetric = false }
            ops.Conv.per_channel = true
            ops.Concat.output_quantized = false
        "#;
        let text = SPEC.replace("ops.Concat.tied = \"inputs_follow_output\"", rules);
        let spec = Spec::parse(&text, "test.toml").unwrap();
        let run = |options: &CalibrateOptions| {
            let sample = Ok(vec![("x".to_string(), Tensor::f32(&[1, 1, 1, 2], vec![1.0, -2.0]))]);
            calibrate(&network(), &spec, std::iter::once(sample), options).unwrap()
        };
        let file = run(&CalibrateOptions::default());
        assert!(file.entries().iter().all(|e| e.name != "cat"));
        let x = file.encoding("x").unwrap().unwrap();
        assert_eq!((x.bitwidth, x.signed, x.narrow_range, x.zero_point[0]), (16, true, true, 0));
        assert_eq!(x.scale, [2.0 / 32767.0]);
        let relu = file.encoding("relu").unwrap().unwrap();
        assert_eq!((relu.scale[0], relu.zero_point[0], relu.signed), (6.0 / 65535.0, 0, false));
        assert_eq!(file.encoding("w").unwrap().unwrap().scale.len(), 2);
        let options = CalibrateOptions { activation_bits: Some(8), per_channel: Some(false), ..Default::default() };
        let file = run(&options);
        assert_eq!(file.encoding("x").unwrap().unwrap().bitwidth, 8);
        assert_eq!(file.encoding("w").unwrap().unwrap().scale.len(), 1);
    }

    #[test]
    fn percentiles_leave_outliers_out() {
        let mut sample = vec![0.5f32; 1000];
        sample[0] = 100.0;
        let options = CalibrateOptions { method: Method::Percentile(99.0), ..CalibrateOptions::default() };
        let file = run(&options, &[&sample]).unwrap();
        assert!(file.encoding("x").unwrap().unwrap().max() < 2.0);
        let wrong = CalibrateOptions { method: Method::Percentile(20.0), ..options };
        assert_eq!(run(&wrong, &[&sample]).unwrap_err().code(), "calibrate_percentile");
    }

    #[test]
    fn no_samples_and_nan_are_errors() {
        assert_eq!(run(&CalibrateOptions::default(), &[]).unwrap_err().code(), "calibrate_empty");
        let error = run(&CalibrateOptions::default(), &[&[f32::NAN]]).unwrap_err();
        assert_eq!(error.code(), "calibrate_nan");
        assert!(error.to_string().contains("'x'"), "{error}");
    }
}
