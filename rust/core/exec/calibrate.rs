//! Encodings of a model from sample inputs: the float graph runs, observers watch, and the target's placement rules say
//! which tensors get an encoding.
//!
//! Every float tensor is quantized but: tensors inside a chain that the target runs as one kernel, outputs of operators
//! that preserve the grid of their input (they share its encoding), and biases, which the target quantizes itself.
//! Operators that preserve a grid and read several tensors (Concat) tie these: all get one encoding.

use super::placement;
use super::session::{Options, Session};
use crate::calibrate::{MinMax, Observer, Percentile, weight_encoding};
use crate::encoding::file::{EncodingsFile, Entry, NamedEntry, ParamUse, Section, Version};
use crate::encoding::{Encoding, Formula, FormulaOptions};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, TensorId};
use crate::ops::integer;
use crate::ops::{Fact, Facts};
use crate::spec::{Execution, Spec};
use crate::tensor::{DType, Data, Tensor};
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
    /// Bits of activations; unsigned, asymmetric.
    pub activation_bits: u32,
    /// Bits of weights; signed, symmetric.
    pub weight_bits: u32,
    /// One scale per output channel of a weight.
    pub per_channel: bool,
    /// Threads; 0 for as many as the machine has.
    pub threads: usize,
    /// Version that the result says it has; it can be written as any.
    pub version: Version,
}

impl Default for CalibrateOptions {
    fn default() -> Self {
        CalibrateOptions {
            method: Method::MinMax,
            formula: Formula::AimetOnnx,
            activation_bits: 8,
            weight_bits: 8,
            per_channel: false,
            threads: 0,
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
    let activation = FormulaOptions::activation(options.formula, options.activation_bits);
    let weight = FormulaOptions::weight(options.formula, options.weight_bits);
    activation.validate()?;
    weight.validate()?;
    let bare = graph.without_encodings()?;
    let sites = Sites::find(&bare, spec);
    let mut observers: HashMap<usize, Box<dyn Observer>> = HashMap::new();
    for &t in &sites.observed {
        if let (Some(constant), None) = (&bare.tensors[t].constant, sites.weights.get(&t)) {
            sites.observe(&mut observers, t, &bare, constant, options.method)?;
        }
    }
    let ids: HashMap<&str, TensorId> =
        bare.tensors.iter().enumerate().map(|(t, info)| (info.name.as_str(), t)).collect();
    let float = Spec { execution: Execution::Float, ..spec.clone() };
    let session = Session::new(bare.clone(), float, Options { threads: options.threads, ..Options::default() })?;
    let mut float_tensors: BTreeSet<TensorId> = BTreeSet::new();
    let mut seen = 0usize;
    for feeds in samples {
        let feeds = feeds?;
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        for captured in session.run_with(&feeds, true, &mut || Ok(()))?.captured {
            let Some(&t) = ids.get(captured.name.as_str()) else { continue };
            if sites.observed.contains(&t) && captured.value.dtype().is_float() {
                float_tensors.insert(t);
                sites.observe(&mut observers, t, &bare, &captured.value, options.method)?;
            }
        }
        seen += 1;
    }
    if seen == 0 {
        return Err(Error::invalid("calibrate_empty", "no sample was given").help("give at least one inference"));
    }
    let mut file = EncodingsFile::new(options.version);
    for t in sites.order(&bare) {
        let info = &bare.tensors[t];
        let named = |e: Error| e.at_tensor(&info.name);
        if let Some(usage) = sites.weights.get(&t) {
            let Some(constant) = &info.constant else { continue };
            let axis = options.per_channel.then_some(usage.axis);
            let encoding = weight_encoding(constant.shape(), &reals(constant), axis, &weight).map_err(named)?;
            let mut entry = NamedEntry::new(&info.name, Section::Param, Entry::Int(encoding));
            entry.resolve(usage)?;
            file.insert(entry)?;
        } else if info.constant.is_some() || float_tensors.contains(&t) {
            let Some(observer) = observers.get(&sites.root(t)) else { continue };
            let encoding: Encoding = observer.finish(&activation).map_err(named)?;
            let section = if info.constant.is_some() { Section::Param } else { Section::Activation };
            file.insert(NamedEntry::new(&info.name, section, Entry::Int(encoding)))?;
        }
    }
    Ok(file)
}

fn reals(tensor: &Tensor) -> Vec<f32> {
    match tensor.data() {
        Data::F32(v) => v.clone(),
        _ => tensor.to_f64().into_iter().map(|v| v as f32).collect(),
    }
}

/// Where encodings go.
struct Sites {
    /// Tensors whose values settle a range.
    observed: BTreeSet<TensorId>,
    /// Constants with a channel axis.
    weights: HashMap<TensorId, ParamUse>,
    /// Tensors that share an encoding point to each other.
    parents: Vec<TensorId>,
}

impl Sites {
    fn find(graph: &Graph, spec: &Spec) -> Sites {
        let internal: BTreeSet<TensorId> = placement::chains(graph, spec)
            .into_iter()
            .flat_map(|chain| chain[..chain.len() - 1].to_vec())
            .flat_map(|n| graph.nodes[n].outputs.iter().flatten().copied().collect::<Vec<_>>())
            .collect();
        let mut sites = Sites {
            observed: graph.inputs.iter().map(|p| p.tensor).collect(),
            weights: HashMap::new(),
            parents: (0..graph.tensors.len()).collect(),
        };
        for node in &graph.nodes {
            let preserves = spec.placement.grid_preserving.contains(&node.op_type);
            let data = data_inputs(graph, node);
            let outputs = node.outputs.iter().flatten().copied();
            match preserves {
                true => {
                    let tied = data.iter().copied().chain(outputs);
                    let tied: Vec<TensorId> = tied.collect();
                    tied.windows(2).for_each(|pair| sites.tie(pair[0], pair[1]));
                }
                false => sites.observed.extend(outputs.filter(|t| !internal.contains(t))),
            }
            for (i, t) in node.inputs.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?))) {
                let Some(constant) = &graph.tensors[t].constant else { continue };
                if !constant.dtype().is_float() || !data.contains(&t) || is_bias(node, i) {
                    continue;
                }
                let trans_b = matches!(node.int("transB", 0), Ok(1));
                match ParamUse::of_operator(&node.op_type, i, constant.shape(), trans_b) {
                    Some(usage) => {
                        sites.weights.entry(t).or_insert(usage);
                    }
                    None => {
                        sites.observed.insert(t);
                    }
                }
            }
        }
        sites
    }

    /// Tensors with an entry: inputs, then what each node reads and writes.
    fn order(&self, graph: &Graph) -> Vec<TensorId> {
        let inputs = graph.inputs.iter().map(|p| p.tensor);
        let nodes = graph.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs).flatten().copied());
        let mut taken = BTreeSet::new();
        inputs
            .chain(nodes)
            .filter(|t| self.weights.contains_key(t) || self.observed.contains(t))
            .filter(|t| taken.insert(*t))
            .collect()
    }

    fn root(&self, mut t: TensorId) -> TensorId {
        while self.parents[t] != t {
            t = self.parents[t];
        }
        t
    }

    fn tie(&mut self, a: TensorId, b: TensorId) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b);
    }

    fn observe(
        &self,
        observers: &mut HashMap<usize, Box<dyn Observer>>,
        t: TensorId,
        graph: &Graph,
        value: &Tensor,
        method: Method,
    ) -> Result<()> {
        let observer = match observers.entry(self.root(t)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(match method {
                Method::MinMax => Box::new(MinMax::new()),
                Method::Percentile(p) => Box::new(Percentile::new(Percentile::DEFAULT_BINS, p)?),
            }),
        };
        observer.observe(&reals(value)).map_err(|e| e.at_tensor(&graph.tensors[t].name))
    }
}

fn is_bias(node: &Node, input: usize) -> bool {
    input == 2 && matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm")
}

/// The tensors whose codes the node's integer form reads.
fn data_inputs(graph: &Graph, node: &Node) -> Vec<TensorId> {
    let Some(integer) = integer::find(&node.domain, &node.op_type) else {
        return node.inputs.first().copied().flatten().into_iter().collect();
    };
    // Which inputs are data follows from the operator and the number of inputs alone.
    let fact = |t: TensorId| Fact {
        name: graph.tensors[t].name.clone(),
        dtype: graph.tensors[t].dtype.unwrap_or(DType::F32),
        shape: Vec::new(),
        constant: graph.tensors[t].constant.clone(),
        codes: None,
        encoding: None,
    };
    let inputs: Vec<Option<Fact>> = node.inputs.iter().map(|t| t.map(fact)).collect();
    let facts = Facts { node, opset: graph.opset(&node.domain), inputs: &inputs, outputs: &[] };
    let data = integer.data_inputs(&facts);
    data.into_iter().filter_map(|i| node.inputs.get(i).copied().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Port, TensorInfo};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const SPEC: &str = r#"
        schema_version = 1
        name = "test"
        [placement]
        supergroups = [["Conv", "Relu"]]
        grid_preserving = ["MaxPool", "Concat", "Reshape"]
    "#;

    #[derive(Default)]
    struct Builder(Graph);

    impl Builder {
        fn tensor(&mut self, name: &str, constant: Option<Tensor>) -> TensorId {
            let found = self.0.find(name);
            found.unwrap_or_else(|| {
                self.0.add_tensor(TensorInfo {
                    name: name.into(),
                    dtype: Some(DType::F32),
                    constant: constant.map(Arc::new),
                    ..TensorInfo::default()
                })
            })
        }

        fn node(&mut self, op_type: &str, inputs: &[&str], output: &str) {
            let inputs = inputs.iter().map(|n| Some(self.tensor(n, None))).collect();
            let outputs = vec![Some(self.tensor(output, None))];
            self.0.nodes.push(Node {
                name: output.into(),
                op_type: op_type.into(),
                inputs,
                outputs,
                attributes: BTreeMap::new(),
                ..Node::default()
            });
        }

        fn port(&mut self, name: &str) -> Port {
            Port { name: name.into(), tensor: self.tensor(name, None), quantized: false }
        }
    }

    fn network() -> Graph {
        let mut b = Builder(Graph { opsets: BTreeMap::from([(String::new(), 17)]), ..Graph::default() });
        b.tensor("w", Some(Tensor::f32(&[2, 1, 1, 1], vec![1.27, -0.5])));
        b.tensor("b", Some(Tensor::f32(&[2], vec![0.0, 3.0])));
        b.tensor("c", Some(Tensor::f32(&[1], vec![-4.0])));
        b.node("Conv", &["x", "w", "b"], "conv");
        b.node("Relu", &["conv"], "relu");
        b.node("Add", &["relu", "c"], "sum");
        b.node("Concat", &["relu", "sum"], "cat");
        b.0.nodes[3].attributes.insert("axis".into(), crate::graph::Attribute::Int(1));
        b.0.inputs = vec![b.port("x")];
        b.0.outputs = vec![b.port("cat")];
        b.0
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
        // Not conv (inside a chain), not b (a bias), not cat (shares its inputs' encoding).
        assert_eq!(names, ["x", "w", "relu", "c", "sum"]);
        let encoding = |name: &str| file.encoding(name).unwrap().unwrap();
        assert_eq!(encoding("w").scale, [f64::from(1.27f32) / 127.0]);
        assert_eq!((encoding("x").min(), encoding("x").max()), (-1.0, 2.0));
        // relu and sum meet in a Concat: one encoding over both ranges.
        assert!(encoding("relu").same_grid(encoding("sum")));
        let sum = encoding("sum");
        assert!(sum.min() <= -3.9 && sum.max() >= 3.4, "{} {}", sum.min(), sum.max());
    }

    #[test]
    fn weights_have_a_scale_per_channel_on_request() {
        let options = CalibrateOptions { per_channel: true, ..CalibrateOptions::default() };
        let file = run(&options, &[&[1.0]]).unwrap();
        let w = file.encoding("w").unwrap().unwrap();
        assert_eq!(w.granularity, crate::encoding::Granularity::PerChannel { axis: 0 });
        assert_eq!(w.scale.len(), 2);
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
