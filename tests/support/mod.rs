//! A small quantized network, built in memory, and numbers that look random and are always the same.
#![allow(dead_code)]

use nputwin::encoding::{Encoding, Granularity};
use nputwin::graph::{Attribute, Constant, Graph, Node, Port, TensorId, TensorInfo};
use nputwin::tensor::{DType, Data, Tensor};
use std::sync::Arc;

/// A linear congruential generator (Knuth's MMIX constants).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(2) + 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A real in [-1, 1).
    pub fn real(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
}

/// Builds graphs node by node.
pub struct Builder {
    pub graph: Graph,
    pub numbers: Numbers,
    count: usize,
}

pub fn per_tensor(scale: f64, zero_point: i64, bitwidth: u32, signed: bool) -> Encoding {
    Encoding::per_tensor(scale, zero_point, bitwidth, signed).unwrap()
}

impl Builder {
    pub fn new(seed: u64) -> Self {
        let mut graph = Graph::default();
        graph.opsets.insert(String::new(), 17);
        Builder { graph, numbers: Numbers::new(seed), count: 0 }
    }

    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }

    pub fn input(&mut self, shape: &[usize], encoding: Option<Encoding>) -> TensorId {
        let name = self.name("x");
        let mut dims: Vec<_> = shape.iter().map(|&d| nputwin::graph::Dim::Fixed(d)).collect();
        dims[0] = nputwin::graph::Dim::Symbol("N".into());
        let id = self.graph.add_tensor(TensorInfo {
            name: name.clone(),
            dtype: Some(DType::F32),
            shape: Some(dims),
            encoding: encoding.map(Arc::new),
            ..TensorInfo::default()
        });
        self.graph.inputs.push(Port { name, tensor: id, quantized: false });
        id
    }

    /// Integer weights with an encoding; per channel where there are several scales.
    pub fn weights(&mut self, shape: &[usize], scales: &[f64], bitwidth: u32, axis: usize) -> TensorId {
        let name = self.name("w");
        let half = 1i64 << (bitwidth - 1);
        let len: usize = shape.iter().product();
        let codes: Vec<i8> = (0..len).map(|_| (self.numbers.below(2 * half as u64) as i64 - half) as i8).collect();
        let granularity = if scales.len() == 1 { Granularity::PerTensor } else { Granularity::PerChannel { axis } };
        let encoding = Encoding {
            scale: scales.to_vec(),
            zero_point: vec![0; scales.len()],
            bitwidth,
            signed: true,
            symmetric: true,
            narrow_range: false,
            granularity,
            lpbq: None,
        };
        let codes = Constant::from(Tensor::new(shape.to_vec(), Data::I8(codes.into())).unwrap());
        let encoding = Arc::new(encoding);
        self.graph.add_tensor(TensorInfo {
            name,
            constant: Some(Constant::dequantized(codes.clone(), encoding.clone(), DType::F32).unwrap()),
            codes: Some(codes),
            encoding: Some(encoding),
            ..TensorInfo::default()
        })
    }

    pub fn constant(&mut self, tensor: Tensor, encoding: Option<Encoding>) -> TensorId {
        let name = self.name("c");
        self.graph.add_tensor(TensorInfo {
            name,
            constant: Some(tensor.into()),
            encoding: encoding.map(Arc::new),
            ..TensorInfo::default()
        })
    }

    pub fn node(
        &mut self,
        op_type: &str,
        inputs: &[TensorId],
        attributes: &[(&str, Attribute)],
        encoding: Option<Encoding>,
    ) -> TensorId {
        let name = self.name("t");
        let output = self.graph.add_tensor(TensorInfo {
            name: name.clone(),
            encoding: encoding.map(Arc::new),
            ..TensorInfo::default()
        });
        self.graph.nodes.push(Node {
            name: format!("{op_type}_{name}"),
            op_type: op_type.into(),
            inputs: inputs.iter().map(|&t| Some(t)).collect(),
            outputs: vec![Some(output)],
            attributes: attributes.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            ..Node::default()
        });
        output
    }

    pub fn output(&mut self, tensor: TensorId) {
        let name = self.graph.tensors[tensor].name.clone();
        self.graph.outputs.push(Port { name, tensor, quantized: false });
    }
}

pub fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// Convolutions of all kinds, a residual Add, pools, a Concat and a classifier, with 8-bit activations.
pub fn network(seed: u64) -> Graph {
    let mut b = Builder::new(seed);
    let act = |scale: f64, zero_point: i64| Some(per_tensor(scale, zero_point, 8, false));
    let x = b.input(&[1, 3, 11, 13], act(0.031, 117));
    let bias = |b: &mut Builder, n: usize| {
        let values = (0..n).map(|_| b.numbers.real() * 0.2).collect();
        b.constant(Tensor::f32(&[n], values), None)
    };
    let scales = |n: usize| (0..n).map(|i| 0.002 + 0.0003 * i as f64).collect::<Vec<_>>();
    let w = b.weights(&[20, 3, 3, 3], &scales(20), 8, 0);
    let c = bias(&mut b, 20);
    let t = b.node("Conv", &[x, w, c], &[("pads", ints(&[1, 1, 1, 1]))], None);
    let t = b.node("Relu", &[t], &[], act(0.037, 0));
    let w = b.weights(&[20, 1, 3, 3], &scales(20), 8, 0);
    let c = bias(&mut b, 20);
    let attributes = [("pads", ints(&[2, 1, 1, 2])), ("group", Attribute::Int(20)), ("strides", ints(&[2, 1]))];
    let d = b.node("Conv", &[t, w, c], &attributes, act(0.021, 131));
    let w = b.weights(&[12, 10, 1, 1], &scales(12), 8, 0);
    let c = bias(&mut b, 12);
    let e = b.node("Conv", &[d, w, c], &[("group", Attribute::Int(2))], act(0.041, 97));
    let w = b.weights(&[12, 12, 3, 3], &[0.004], 8, 0);
    let attributes = [("pads", ints(&[2, 2, 2, 2])), ("dilations", ints(&[2, 2]))];
    let f = b.node("Conv", &[e, w], &attributes, act(0.055, 120));
    let g = b.node("Add", &[e, f], &[], act(0.067, 110));
    let m = b.node(
        "MaxPool",
        &[g],
        &[("kernel_shape", ints(&[3, 3])), ("strides", ints(&[2, 2])), ("pads", ints(&[1, 1, 1, 1]))],
        act(0.067, 110),
    );
    let s = b.node("Sigmoid", &[m], &[], act(1.0 / 256.0, 0));
    let q = b.node("Mul", &[m, s], &[], act(0.06, 12));
    let k = b.node("Concat", &[m, q], &[("axis", Attribute::Int(1))], act(0.07, 111));
    let p = b.node("GlobalAveragePool", &[k], &[], act(0.013, 128));
    let p = b.node("Flatten", &[p], &[], act(0.013, 128));
    let w = b.weights(&[7, 24], &[0.006], 8, 0);
    let c = bias(&mut b, 7);
    let y = b.node("Gemm", &[p, w, c], &[("transB", Attribute::Int(1))], act(0.05, 128));
    b.output(y);
    b.graph
}

/// Reals for the network's input.
pub fn network_input(seed: u64, batch: usize) -> Tensor {
    let mut numbers = Numbers::new(seed);
    Tensor::f32(&[batch, 3, 11, 13], (0..batch * 3 * 11 * 13).map(|_| numbers.real() * 3.5).collect())
}
