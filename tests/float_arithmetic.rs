//! Targets that hold reals in 16 bits: every result is rounded once, and sums have the stated format and order.

use half::{bf16, f16};
use nputwin::encoding::file::{EncodingsFile, Entry, FloatKind, NamedEntry, Section, Version};
use nputwin::exec::{Options, Session};
use nputwin::graph::encodings::{ApplyOptions, apply};
use nputwin::graph::{Attribute, Constant, Graph, Node, Port, TensorInfo};
use nputwin::num::FloatType;
use nputwin::spec::Spec;
use nputwin::tensor::{DType, Tensor};

/// A graph of one node; inputs with a value are constants.
fn graph(op_type: &str, inputs: &[Option<Tensor>], attributes: &[(&str, Attribute)]) -> Graph {
    let mut graph = Graph { opsets: [(String::new(), 17)].into(), ..Graph::default() };
    let mut tensor = |name: String, constant: Option<Tensor>| {
        let constant = constant.map(Constant::from);
        graph.add_tensor(TensorInfo { name, dtype: Some(DType::F32), constant, ..TensorInfo::default() })
    };
    let ids: Vec<usize> = inputs.iter().enumerate().map(|(i, t)| tensor(format!("x{i}"), t.clone())).collect();
    let y = tensor("y".into(), None);
    let free = ids.iter().zip(inputs).filter(|(_, t)| t.is_none()).map(|(&id, _)| id);
    graph.inputs = free.map(|id| Port { name: format!("x{id}"), tensor: id, quantized: false }).collect();
    graph.outputs = vec![Port { name: "y".into(), tensor: y, quantized: false }];
    graph.nodes = vec![Node {
        name: "node".into(),
        op_type: op_type.into(),
        inputs: ids.into_iter().map(Some).collect(),
        outputs: vec![Some(y)],
        attributes: attributes.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        ..Node::default()
    }];
    graph
}

fn spec(keys: &str) -> Spec {
    let text =
        format!("schema_version = 1\nname = \"t\"\nextends = [\"float.toml\"]\nexecution = \"float\"\n[float]\n{keys}");
    Spec::parse(&text, "t.toml").unwrap()
}

fn run(graph: Graph, spec: Spec, x: &Tensor) -> Vec<f32> {
    let session = Session::new(graph, spec, Options { threads: 2, ..Options::default() }).unwrap();
    let name = session.inputs()[0].name.clone();
    session.run(&[(&name, x)]).unwrap().outputs[0].1.as_f32().unwrap().to_vec()
}

/// Numbers between -2 and 2 with all bits of float32.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u32 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn hold(format: FloatType, x: f32) -> f32 {
    match format {
        FloatType::F16 => f16::from_f32(x).to_f32(),
        FloatType::Bf16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// All values of both formats that are finite, and the middles between neighbours.
#[test]
fn results_inputs_and_constants_are_rounded_once() {
    for (key, format) in [("f16", FloatType::F16), ("bf16", FloatType::Bf16)] {
        let values: Vec<f32> = (0..=u16::MAX)
            .map(|b| if format == FloatType::F16 { f16::from_bits(b).to_f32() } else { bf16::from_bits(b).to_f32() })
            .filter(|v| v.is_finite())
            .collect();
        let middles = values.iter().zip(&values[1..]).map(|(a, b)| a / 2.0 + b / 2.0);
        let x: Vec<f32> = values.iter().copied().chain(middles).collect();
        let factor = 1.0 + f32::powi(2.0, -12);
        let constant = Tensor::f32(&[1], vec![factor]);
        let y = run(
            graph("Mul", &[None, Some(constant)], &[]),
            spec(&format!("type = \"{key}\"")),
            &Tensor::f32(&[x.len()], x.clone()),
        );
        for (x, y) in x.iter().zip(y) {
            let expected = hold(format, hold(format, *x) * hold(format, factor));
            assert_eq!(y.to_bits(), expected.to_bits(), "{key}: {x}");
        }
    }
}

#[test]
fn ends_of_the_range_follow_the_spec() {
    let x = Tensor::f32(&[4], vec![60000.0, f32::INFINITY, 1e-6, -1e-6]);
    let doubled = |keys: &str| run(graph("Add", &[None, Some(x.clone())], &[]), spec(keys), &x);
    let small = 2.0 * hold(FloatType::F16, 1e-6);
    assert_eq!(doubled("type = \"f16\""), [f32::INFINITY, f32::INFINITY, small, -small]);
    let hard = doubled("type = \"f16\"\noverflow = \"saturate\"\ndenormals = \"flush\"");
    assert_eq!(hard.map_bits(), [65504.0f32, 65504.0, 0.0, -0.0].map(f32::to_bits));
    assert!(Spec::parse("schema_version = 1\nname = \"t\"\n[float]\ntype = \"f64\"", "t").is_err());
    assert!(Spec::parse("schema_version = 1\nname = \"t\"\n[float]\ntype = \"f16\"\nround = 1", "t").is_err());
}

trait Bits {
    fn map_bits(&self) -> Vec<u32>;
}

impl Bits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|v| v.to_bits()).collect()
    }
}

/// The step of a sum in a format, by way of float64, where products of 16-bit numbers and their sums are exact enough.
fn step(accumulate: &str, sum: f64, a: f32, b: f32) -> f64 {
    match accumulate {
        "f16" => f16::from_f64(sum + f64::from(a) * f64::from(b)).to_f64(),
        "bf16" => bf16::from_f64(sum + f64::from(a) * f64::from(b)).to_f64(),
        "f32" => f64::from(a.mul_add(b, sum as f32)),
        _ => sum + f64::from(a) * f64::from(b),
    }
}

#[test]
fn sums_have_the_stated_format_and_order() {
    let (batch, channels, filters, size) = (2, 6, 4, 5);
    let x: Vec<f32> = numbers(batch * channels * size * size, 1);
    let (w, b) = (numbers(filters * channels / 2 * 9, 2), numbers(filters, 3));
    let mut results = Vec::new();
    for accumulate in ["f16", "bf16", "f32", "f64"] {
        let inputs = [
            None,
            Some(Tensor::f32(&[filters, channels / 2, 3, 3], w.clone())),
            Some(Tensor::f32(&[filters], b.clone())),
        ];
        let attributes = [
            ("group", Attribute::Int(2)),
            ("pads", Attribute::Ints(vec![1, 0, 0, 1])),
            ("strides", Attribute::Ints(vec![2, 1])),
        ];
        let spec = spec(&format!("type = \"f16\"\naccumulate = \"{accumulate}\""));
        let y = run(graph("Conv", &inputs, &attributes), spec, &Tensor::f32(&[batch, channels, size, size], x.clone()));
        let half = |v: f32| hold(FloatType::F16, v);
        let (rows, columns) = (2, 4);
        let mut expected = Vec::new();
        for (n, m, r, c) in (0..batch * filters * rows * columns)
            .map(|i| (i / columns / rows / filters, i / columns / rows % filters, i / columns % rows, i % columns))
        {
            let mut sum = 0.0;
            for (ky, kx, d) in
                (0..9 * channels / 2).map(|t| (t / (3 * channels / 2), t / (channels / 2) % 3, t % (channels / 2)))
            {
                let (iy, ix) = (2 * r + ky, c + kx);
                if iy < 1 || iy > size || ix >= size {
                    continue;
                }
                let channel = m / (filters / 2) * channels / 2 + d;
                let at = ((n * channels + channel) * size + iy - 1) * size + ix;
                sum = step(accumulate, sum, half(x[at]), half(w[((m * channels / 2 + d) * 3 + ky) * 3 + kx]));
            }
            let sum = match accumulate {
                "f32" => f64::from(sum as f32 + half(b[m])),
                _ => step(accumulate, sum, half(b[m]), 1.0),
            };
            expected.push(f16::from_f64(sum).to_f32());
        }
        assert_eq!(y.map_bits(), expected.map_bits(), "{accumulate}");
        results.push(y);
    }
    assert!(results[..3].windows(2).all(|r| r[0] != r[1]), "the formats can be told apart");
}

#[test]
fn wide_sums_keep_what_cancels() {
    let small = f32::powi(2.0, -13);
    let x = Tensor::f32(&[1, 3], vec![4096.0, small, -4096.0]);
    for (accumulate, expected) in [("f16", 0.0), ("f32", 0.0), ("f64", small)] {
        let w = Tensor::f32(&[3, 1], vec![1.0; 3]);
        let spec = spec(&format!("type = \"f16\"\naccumulate = \"{accumulate}\""));
        assert_eq!(run(graph("MatMul", &[None, Some(w)], &[]), spec, &x), [expected], "{accumulate}");
    }
}

#[test]
fn products_of_matrices_sum_in_the_stated_format() {
    let (m, k, n) = (3, 40, 5);
    let (a, b, c) = (numbers(m * k, 4), numbers(k * n, 5), numbers(n, 6));
    let half = |v: f32| hold(FloatType::F16, v);
    for accumulate in ["f16", "bf16", "f64"] {
        let spec = || spec(&format!("type = \"f16\"\naccumulate = \"{accumulate}\""));
        let x = Tensor::f32(&[m, k], a.clone());
        let matmul = run(graph("MatMul", &[None, Some(Tensor::f32(&[k, n], b.clone()))], &[]), spec(), &x);
        let transposed = Tensor::f32(&[n, k], (0..n * k).map(|i| b[i % k * n + i / k]).collect());
        let inputs = [None, Some(transposed), Some(Tensor::f32(&[n], c.clone()))];
        let gemm = run(graph("Gemm", &inputs, &[("transB", Attribute::Int(1))]), spec(), &x);
        for i in 0..m * n {
            let (row, column) = (i / n, i % n);
            let sum = (0..k).fold(0.0, |s, j| step(accumulate, s, half(a[row * k + j]), half(b[j * n + column])));
            assert_eq!(matmul[i], f16::from_f64(sum).to_f32(), "{accumulate}");
            let sum = step(accumulate, sum, half(c[column]), 1.0);
            assert_eq!(gemm[i], f16::from_f64(sum).to_f32(), "{accumulate}");
        }
    }
}

#[test]
fn float_entries_of_encodings_files_hold_tensors_in_their_format() {
    for (kind, format) in [(FloatKind::F16, FloatType::F16), (FloatKind::BF16, FloatType::Bf16)] {
        let x = Tensor::f32(&[64], numbers(64, 7));
        let mut model = graph("Mul", &[None, Some(Tensor::f32(&[1], vec![1.001]))], &[]);
        let mut file = EncodingsFile::new(Version::V2_0_0);
        for name in ["x0", "x1", "y"] {
            file.insert(NamedEntry::new(name, Section::Unknown, Entry::Float(kind))).unwrap();
        }
        let report = apply(&mut model, &file, ApplyOptions::default()).unwrap();
        assert_eq!(report.float.len(), 3);
        for target in ["fake_quant", "htp_v75"] {
            let y = run(model.clone(), Spec::load(target).unwrap(), &x);
            let expected = x.as_f32().unwrap().iter().map(|&v| hold(format, hold(format, v) * hold(format, 1.001)));
            assert_eq!(y, expected.collect::<Vec<_>>(), "{target}");
        }
        let plain = run(model, Spec::load("float").unwrap(), &x);
        assert_eq!(plain[0], x.as_f32().unwrap()[0] * 1.001);
    }
}
