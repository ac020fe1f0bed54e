//! The network of the complaint: `x ← x + relu6(conv3x3(x))`, or `x ← relu6(conv3x3(x))` without the cumulative Add.
//!
//! Batch normalizations are folded. Every prefix of the layers is a network of its own with the same encodings, because
//! no layer sees what follows: one deep network gives the results of all shallower ones.

use super::random::Stream;
use nputwin::calibrate::{MinMax, Observer, weight_encoding};
use nputwin::encoding::{Encoding, Formula, FormulaOptions};
use nputwin::graph::{Attribute, Dim, Graph, Node, Port, TensorInfo};
use nputwin::tensor::{DType, Tensor};
use nputwin::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the graph's input.
pub const INPUT: &str = "input";

/// Weights and bias of one convolution.
#[derive(Debug, Clone)]
pub struct Layer {
    /// `[channels, channels, 3, 3]`.
    pub weight: Arc<Tensor>,
    /// `[channels]`.
    pub bias: Arc<Tensor>,
}

/// Calibrated ranges of all quantized activations, by tensor name.
pub type Ranges = BTreeMap<String, MinMax>;

/// A network without its encodings.
#[derive(Debug, Clone)]
pub struct Network {
    /// Whether each layer adds to a running sum.
    pub cumulative_add: bool,
    /// `[1, channels, height, width]`.
    pub shape: [usize; 4],
    /// Layers in order.
    pub layers: Vec<Layer>,
}

/// Name of a layer's activation.
pub fn relu6_name(layer: usize) -> String {
    format!("layer{}.relu6", layer + 1)
}

/// Name of the running sum after a layer.
pub fn add_name(layer: usize) -> String {
    format!("layer{}.add", layer + 1)
}

impl Network {
    /// Layers as PyTorch initialises them: weights and biases uniform within `±1/√(9·channels)`, and batch
    /// normalizations of mean 0, variance 1 and epsilon 1e-5.
    pub fn random(seed: u64, depth: usize, shape: [usize; 4], cumulative_add: bool) -> Network {
        let channels = shape[1];
        let bound = 1.0 / (9.0 * channels as f64).sqrt() / (1.0f64 + 1e-5).sqrt();
        let layers = (0..depth).map(|i| {
            let mut stream = Stream::new(seed, LAYER_STREAMS + i as u64);
            let weight = stream.uniform(bound, channels * channels * 9);
            let bias = stream.uniform(bound, channels);
            Layer {
                weight: Arc::new(Tensor::f32(&[channels, channels, 3, 3], weight)),
                bias: Arc::new(Tensor::f32(&[channels], bias)),
            }
        });
        Network { cumulative_add, shape, layers: layers.collect() }
    }

    /// A normal random input; `index` 0 is the one that is measured, those from 1 on calibrate.
    pub fn random_input(seed: u64, index: usize, shape: [usize; 4]) -> Tensor {
        let count = shape.iter().product();
        Tensor::f32(&shape, Stream::new(seed, INPUT_STREAMS + index as u64).normal(count))
    }

    /// Name of the tensor that a network of `depth` layers gives.
    pub fn output_name(&self, depth: usize) -> String {
        if self.cumulative_add { add_name(depth - 1) } else { relu6_name(depth - 1) }
    }

    /// Names of all quantized activations of the first `depth` layers, in order.
    pub fn activation_names(&self, depth: usize) -> Vec<String> {
        let mut names = vec![INPUT.to_string()];
        for i in 0..depth {
            names.push(relu6_name(i));
            if self.cumulative_add {
                names.push(add_name(i));
            }
        }
        names
    }

    /// The first `depth` layers as a graph with 8-bit weights, symmetric per output channel. Activations are 8-bit
    /// where `ranges` are given and reals otherwise. Graph outputs are the tensors named in `outputs`.
    pub fn graph(&self, depth: usize, ranges: Option<&Ranges>, outputs: &[String]) -> Result<Graph> {
        let mut graph = Graph { name: "residual".into(), opsets: [(String::new(), 13)].into(), ..Graph::default() };
        let activation = |graph: &mut Graph, name: String, quantized: bool| -> Result<usize> {
            let encoding = match ranges {
                Some(ranges) if quantized => {
                    let range = ranges.get(&name).ok_or_else(|| {
                        Error::invalid("demo_range", "no range is known for this tensor").at_tensor(&name)
                    })?;
                    let options = FormulaOptions::activation(Formula::AimetTorch, 8);
                    Some(Arc::new(range.finish(&options).map_err(|e| e.at_tensor(&name))?))
                }
                _ => None,
            };
            let shape = Some(self.shape.map(Dim::Fixed).to_vec());
            Ok(graph.add_tensor(TensorInfo { name, dtype: Some(DType::F32), shape, encoding, ..TensorInfo::default() }))
        };
        let bound = |graph: &mut Graph, name: &str, value: f32| constant(graph, name, Arc::new(scalar(value)), None);
        let (zero, six) = (bound(&mut graph, "zero", 0.0), bound(&mut graph, "six", 6.0));
        let mut x = activation(&mut graph, INPUT.into(), true)?;
        graph.inputs.push(Port { name: INPUT.into(), tensor: x, quantized: false });
        for (i, layer) in self.layers[..depth].iter().enumerate() {
            let prefix = format!("layer{}", i + 1);
            let formula = FormulaOptions::weight(Formula::AimetTorch, 8);
            let encoding = weight_encoding(layer.weight.shape(), layer.weight.as_f32()?, Some(0), &formula);
            let encoding = Arc::new(encoding.map_err(|e| e.at_tensor(&format!("{prefix}.weight")))?);
            let weight = constant(&mut graph, &format!("{prefix}.weight"), layer.weight.clone(), Some(encoding));
            let bias = constant(&mut graph, &format!("{prefix}.bias"), layer.bias.clone(), None);
            let sum = activation(&mut graph, format!("{prefix}.conv"), false)?;
            let mut conv = node("Conv", &format!("{prefix}.conv"), &[x, weight, bias], sum);
            conv.attributes.insert("kernel_shape".into(), Attribute::Ints(vec![3, 3]));
            conv.attributes.insert("pads".into(), Attribute::Ints(vec![1; 4]));
            graph.nodes.push(conv);
            let clipped = activation(&mut graph, relu6_name(i), true)?;
            graph.nodes.push(node("Clip", &relu6_name(i), &[sum, zero, six], clipped));
            x = if self.cumulative_add {
                let y = activation(&mut graph, add_name(i), true)?;
                graph.nodes.push(node("Add", &add_name(i), &[x, clipped], y));
                y
            } else {
                clipped
            };
        }
        for name in outputs {
            let tensor = graph
                .find(name)
                .ok_or_else(|| Error::invalid("demo_output", "the network has no such tensor").at_tensor(name))?;
            graph.outputs.push(Port { name: name.clone(), tensor, quantized: false });
        }
        Ok(graph)
    }
}

const LAYER_STREAMS: u64 = 1 << 32;
const INPUT_STREAMS: u64 = 2 << 32;

fn scalar(value: f32) -> Tensor {
    Tensor::f32(&[], vec![value])
}

fn constant(graph: &mut Graph, name: &str, value: Arc<Tensor>, encoding: Option<Arc<Encoding>>) -> usize {
    let shape = Some(value.shape().iter().map(|&d| Dim::Fixed(d)).collect());
    graph.add_tensor(TensorInfo {
        name: name.into(),
        dtype: Some(value.dtype()),
        shape,
        constant: Some(value.into()),
        encoding,
        ..TensorInfo::default()
    })
}

fn node(op_type: &str, name: &str, inputs: &[usize], output: usize) -> Node {
    Node {
        name: name.into(),
        op_type: op_type.into(),
        inputs: inputs.iter().map(|&t| Some(t)).collect(),
        outputs: vec![Some(output)],
        ..Node::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(cumulative_add: bool) -> Network {
        Network::random(3, 3, [1, 2, 4, 4], cumulative_add)
    }

    #[test]
    fn a_prefix_has_the_layers_of_the_deep_network() {
        let (deep, shallow) = (tiny(true), Network::random(3, 1, [1, 2, 4, 4], true));
        assert_eq!(deep.layers[0].weight, shallow.layers[0].weight);
        assert_ne!(deep.layers[0].weight, deep.layers[1].weight);
        assert_eq!(deep.activation_names(2), ["input", "layer1.relu6", "layer1.add", "layer2.relu6", "layer2.add"]);
        assert_eq!(tiny(false).output_name(2), "layer2.relu6");
    }

    #[test]
    fn every_activation_but_the_convolutions_gets_an_encoding() {
        let network = tiny(true);
        let names = network.activation_names(3);
        let mut range = MinMax::new();
        range.observe(&[-1.0, 2.0]).unwrap();
        let ranges: Ranges = names.iter().map(|n| (n.clone(), range)).collect();
        let graph = network.graph(3, Some(&ranges), &[network.output_name(3)]).unwrap();
        for tensor in &graph.tensors {
            let expected = names.contains(&tensor.name) || tensor.name.ends_with(".weight");
            assert_eq!(tensor.encoding.is_some(), expected, "{}", tensor.name);
        }
        let missing = network.graph(3, Some(&Ranges::new()), &[]).unwrap_err();
        assert_eq!(missing.code(), "demo_range");
    }
}
