//! Random graphs: every instruction set, evaluator, thread count and repetition gives the bits of the reference.

mod support;

use nputwin::encoding::Encoding;
use nputwin::exec::{Options, Session};
use nputwin::graph::{Attribute, TensorId};
use nputwin::kernels::Isa;
use nputwin::program::Evaluator;
use nputwin::spec::Spec;
use nputwin::tensor::{Data, Tensor};
use support::{Builder, Numbers, ints, per_tensor};

/// A value of the graph under construction: tensor, shape, and the scale of its encoding.
#[derive(Clone)]
struct Value {
    id: TensorId,
    shape: [usize; 4],
    encoding: (f64, i64),
}

struct Drawing {
    b: Builder,
    signed: bool,
}

impl Drawing {
    fn encoding(&mut self, scale: f64) -> (Encoding, (f64, i64)) {
        // One time in four the scales of neighbours have simple ratios, so that many results are ties.
        let scale = if self.b.numbers.below(4) == 0 { 2f64.powf(scale.log2().round()) } else { scale };
        let lo = if self.signed { -128 } else { 0 };
        let zero_point = lo + [128, 0, 255, 100][self.b.numbers.below(4) as usize];
        // Scales are float32 in files.
        let scale = f64::from(scale as f32);
        (per_tensor(scale, zero_point, 8, self.signed), (scale, zero_point))
    }

    fn add(
        &mut self,
        op: &str,
        inputs: &[TensorId],
        attributes: &[(&str, Attribute)],
        scale: f64,
        shape: [usize; 4],
    ) -> Value {
        let (encoding, parameters) = self.encoding(scale);
        let id = self.b.node(op, inputs, attributes, Some(encoding));
        Value { id, shape, encoding: parameters }
    }

    /// The same with the encoding of an operand.
    fn keep(&mut self, op: &str, x: &Value, attributes: &[(&str, Attribute)], shape: [usize; 4]) -> Value {
        let encoding = per_tensor(x.encoding.0, x.encoding.1, 8, self.signed);
        let id = self.b.node(op, &[x.id], attributes, Some(encoding));
        Value { id, shape, encoding: x.encoding }
    }

    fn below(&mut self, n: usize) -> usize {
        self.b.numbers.below(n as u64) as usize
    }

    fn conv(&mut self, x: &Value) -> Value {
        let [n, cin, h, w] = x.shape;
        let kernel = [[1, 1], [1, 1], [3, 3], [3, 3], [5, 5], [2, 3], [7, 7]][self.below(7)];
        let dilation = if self.below(5) == 0 { 2 } else { 1 };
        let stride = [1, 1 + self.below(2)][self.below(2)];
        let pads: Vec<usize> = (0..4).map(|i| if kernel[i % 2] == 1 { 0 } else { self.below(4) }).collect();
        let size = |i: usize, d: usize| (d + pads[i] + pads[i + 2]).checked_sub(dilation * (kernel[i] - 1) + 1);
        let (Some(rows), Some(columns)) = (size(0, h), size(1, w)) else { return x.clone() };
        let (groups, cout) = match self.below(4) {
            0 => (cin, cin),
            1 if cin % 2 == 0 => (2, 2 * (1 + self.below(20))),
            _ => (1, 1 + self.below(80)),
        };
        let scale = 0.002 + 0.001 * self.b.numbers.below(8) as f64;
        let count = if self.below(3) == 0 { 1 } else { cout };
        let scales: Vec<f64> = (0..count).map(|i| f64::from((scale * (1.0 + 0.01 * i as f64)) as f32)).collect();
        let weights = self.b.weights(&[cout, cin / groups, kernel[0], kernel[1]], &scales, 8, 0);
        let mut inputs = vec![x.id, weights];
        if self.below(3) > 0 {
            let values = (0..cout).map(|_| self.b.numbers.real() * 0.5).collect();
            inputs.push(self.b.constant(Tensor::f32(&[cout], values), None));
        }
        let attributes = [
            ("group", Attribute::Int(groups as i64)),
            ("kernel_shape", ints(&[kernel[0] as i64, kernel[1] as i64])),
            ("strides", ints(&[stride as i64, stride as i64])),
            ("dilations", ints(&[dilation, dilation].map(|d| d as i64))),
            ("pads", ints(&[pads[0], pads[1], pads[2], pads[3]].map(|p| p as i64))),
        ];
        let depth = (cin / groups * kernel[0] * kernel[1]) as f64;
        let shape = [n, cout, rows / stride + 1, columns / stride + 1];
        let y = self.add("Conv", &inputs, &attributes, x.encoding.0 * scale * 60.0 * depth.sqrt(), shape);
        if self.below(3) > 0 { y } else { self.keep("Relu", &y, &[], shape) }
    }

    /// A convolution, perhaps an activation, and the sum or product with its input: what follows a kernel in its own step.
    fn residual(&mut self, x: &Value) -> Value {
        let c = x.shape[1];
        let weights = self.b.weights(&[c, c, 1, 1], &[0.004], 8, 0);
        let mut y = self.add("Conv", &[x.id, weights], &[], x.encoding.0 * 0.2 * (c as f64).sqrt(), x.shape);
        if self.below(2) == 0 {
            let op = ["HardSwish", "Sigmoid", "LeakyRelu"][self.below(3)];
            y = self.add(op, &[y.id], &[], if op == "Sigmoid" { 1.0 / 256.0 } else { y.encoding.0 }, x.shape);
        }
        let pair = if self.below(2) == 0 { [x.id, y.id] } else { [y.id, x.id] };
        match self.below(3) {
            0 => self.add("Mul", &pair, &[], x.encoding.0 * y.encoding.0 * 60.0, x.shape),
            _ => self.add("Add", &pair, &[], x.encoding.0 + y.encoding.0, x.shape),
        }
    }

    fn step(&mut self, values: &[Value]) -> Value {
        let x = values[self.below(values.len())].clone();
        let [n, c, h, w] = x.shape;
        match self.below(17) {
            12 | 13 => self.residual(&x),
            14 => self.average(&x),
            15 | 16 => self.repeated(&x),
            0 => {
                let same: Vec<Value> = values.iter().filter(|v| v.shape == x.shape).cloned().collect();
                let other = same[self.below(same.len())].clone();
                let op = ["Add", "Mul"][self.below(2)];
                let scale = if op == "Add" { x.encoding.0 * 1.7 } else { x.encoding.0 * other.encoding.0 * 60.0 };
                self.add(op, &[x.id, other.id], &[], scale, x.shape)
            }
            1 if h > 1 && w > 1 => {
                let attributes =
                    [("kernel_shape", ints(&[2, 2])), ("strides", ints(&[1, 2])), ("pads", ints(&[0, 1, 1, 0]))];
                self.keep("MaxPool", &x, &attributes, [n, c, h, (w + 1 - 2) / 2 + 1])
            }
            2 if h * w > 1 => {
                let pooled = self.add("GlobalAveragePool", &[x.id], &[], x.encoding.0 * 0.4, [n, c, 1, 1]);
                self.add("Mul", &[x.id, pooled.id], &[], x.encoding.0 * pooled.encoding.0 * 60.0, x.shape)
            }
            3 => {
                let y = self.add(
                    "Concat",
                    &[x.id, x.id],
                    &[("axis", Attribute::Int(1))],
                    x.encoding.0 * 1.1,
                    [n, 2 * c, h, w],
                );
                if c > 60 { x } else { y }
            }
            4 if c % 2 == 0 => self.shuffled(&x),
            5 => {
                let pads: Vec<i64> = (0..4).map(|_| self.below(3) as i64).collect();
                let all = [0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]];
                let pads_input = self.integers(&all);
                let shape = [n, c, h + (pads[0] + pads[2]) as usize, w + (pads[1] + pads[3]) as usize];
                let encoding = per_tensor(x.encoding.0, x.encoding.1, 8, self.signed);
                let id = self.b.node("Pad", &[x.id, pads_input], &[], Some(encoding));
                Value { id, shape, encoding: x.encoding }
            }
            _ => self.conv(&x),
        }
    }

    fn average(&mut self, x: &Value) -> Value {
        let [n, c, h, w] = x.shape;
        let attributes = [
            ("kernel_shape", ints(&[3, 2])),
            ("strides", ints(&[1, 1 + self.below(2) as i64])),
            ("pads", ints(&[1, 0, 1, 1])),
            ("count_include_pad", Attribute::Int(self.below(2) as i64)),
        ];
        let Attribute::Ints(strides) = &attributes[1].1 else { unreachable!() };
        let shape = [n, c, h, (w - 1) / strides[1] as usize + 1];
        self.add("AveragePool", &[x.id], &attributes, x.encoding.0 * 0.7, shape)
    }

    /// A sum or product with a constant that repeats along some axes.
    fn repeated(&mut self, x: &Value) -> Value {
        let [n, c, h, w] = x.shape;
        let shapes = [vec![], vec![1, 1], vec![w], vec![1, 1, 1, w], vec![h, 1], vec![c, 1, 1], vec![n, 1, h, w]];
        let shape = &shapes[self.below(shapes.len())];
        let count = shape.iter().product();
        let values = (0..count).map(|_| self.b.numbers.real() * 3.0).collect();
        let (encoding, (scale, _)) = self.encoding(0.025);
        let constant = self.b.constant(Tensor::f32(shape, values), Some(encoding));
        let pair = if self.below(2) == 0 { [x.id, constant] } else { [constant, x.id] };
        match self.below(2) {
            0 => self.add("Mul", &pair, &[], x.encoding.0 * scale * 60.0, x.shape),
            _ => self.add("Add", &pair, &[], x.encoding.0 + scale, x.shape),
        }
    }

    fn integers(&mut self, values: &[i64]) -> TensorId {
        self.b.constant(
            Tensor::new(vec![values.len()], Data::I64(values.to_vec().into())).expect("as many as it says"),
            None,
        )
    }

    /// The channels of two groups in turn.
    fn shuffled(&mut self, x: &Value) -> Value {
        let [n, c, h, w] = x.shape.map(|d| d as i64);
        let encoding = || per_tensor(x.encoding.0, x.encoding.1, 8, self.signed);
        let encodings = [encoding(), encoding(), encoding()].map(Some);
        let [apart, exchanged, joined] = encodings;
        let shape = self.integers(&[n, 2, c / 2, h, w]);
        let id = self.b.node("Reshape", &[x.id, shape], &[], apart);
        let id = self.b.node("Transpose", &[id], &[("perm", ints(&[0, 2, 1, 3, 4]))], exchanged);
        let shape = self.integers(&[n, c, h, w]);
        let id = self.b.node("Reshape", &[id, shape], &[], joined);
        Value { id, shape: x.shape, encoding: x.encoding }
    }
}

/// A graph of a few operators for one target, and the shape of its input.
fn draw(seed: u64, signed: bool) -> (nputwin::graph::Graph, [usize; 4]) {
    let mut d = Drawing { b: Builder::new(seed), signed };
    let shape = [1 + d.below(2), 1 + d.below(20), 3 + d.below(10), 3 + d.below(14)];
    let (encoding, parameters) = d.encoding(0.03);
    let id = d.b.input(&shape, Some(encoding));
    let mut values = vec![Value { id, shape, encoding: parameters }];
    let first = d.conv(&values[0]);
    values.push(first);
    for _ in 0..1 + d.below(5) {
        let value = d.step(&values);
        values.push(value);
    }
    let last = values.len() - 1;
    for (i, value) in values.iter().enumerate().skip(1) {
        // What is no output may be computed in the step of the operator before it.
        if (i == last || d.below(3) == 0) && !d.b.graph.outputs.iter().any(|p| p.tensor == value.id) {
            d.b.output(value.id);
        }
    }
    (d.b.graph, shape)
}

fn run(session: &Session, name: &str, input: &Tensor) -> Result<Vec<Vec<u32>>, String> {
    let result = session.run(&[(name, input)]).map_err(|e| e.to_string())?;
    let bits = |t: &Tensor| match t.data() {
        Data::F32(v) => v.iter().map(|v| v.to_bits()).collect(),
        other => panic!("outputs are reals, not {}", other.dtype()),
    };
    Ok(result.outputs.iter().map(|(_, t)| bits(t)).collect())
}

#[test]
fn every_path_gives_the_bits_of_the_reference() {
    // NPUTWIN_GRAPHS draws more of them.
    let count = std::env::var("NPUTWIN_GRAPHS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let mut ran = 0;
    for (target, signed) in [("onnxruntime_cpu", false), ("tflite_micro", true), ("htp_v75", false)] {
        let spec = Spec::load(target).unwrap();
        for seed in 0..count {
            let (graph, shape) = draw(seed * 3 + u64::from(signed), signed);
            let name = graph.inputs[0].name.clone();
            let mut numbers = Numbers::new(seed + 77);
            let values = (0..shape.iter().product()).map(|_| numbers.real() * 4.0).collect();
            let input = Tensor::f32(&shape, values);
            let session = |options| Session::new(graph.clone(), spec.clone(), options).map_err(|e| e.to_string());
            let reference = Options { threads: 1, evaluator: Evaluator::Reference, ..Options::default() };
            let expected = session(reference).and_then(|s| run(&s, &name, &input));
            ran += usize::from(expected.is_ok());
            for evaluator in [Evaluator::Fast, Evaluator::Tile] {
                for isa in Isa::available() {
                    for threads in [1, 2, 7] {
                        let options = Options { threads, evaluator, isa: Some(isa), ..Options::default() };
                        let session = session(options);
                        // Twice, since the second run uses the memory of the first.
                        for round in 0..2 {
                            let got = session.as_ref().map_err(String::clone).and_then(|s| run(s, &name, &input));
                            assert!(
                                got == expected,
                                "{target}, seed {seed}: {evaluator:?} on {isa:?}, {threads} threads, run {round}: {:?}",
                                got.as_ref().err().or(expected.as_ref().err())
                            );
                        }
                    }
                }
            }
        }
    }
    assert!(ran * 2 > 3 * count as usize, "most graphs run: {ran} of {}", 3 * count);
}
