//! Whole graphs: the same bits however they run, errors that say what is wrong, traces that end in the computed code.

mod support;

use nputwin::exec::{Captured, Options, Session};
use nputwin::graph::Graph;
use nputwin::program::Evaluator;
use nputwin::spec::{EMBEDDED, Execution, Spec, embedded_names};
use nputwin::tensor::{Data, Tensor};
use support::{Builder, ints, network, network_input, per_tensor};

fn session(graph: &Graph, target: &str, threads: usize) -> Session {
    Session::new(graph.clone(), Spec::load(target).unwrap(), Options { threads, ..Options::default() }).unwrap()
}

fn capture(session: &Session, input: &Tensor) -> Vec<Captured> {
    let name = session.inputs()[0].name.clone();
    session.run_with(&[(&name, input)], true, &mut || Ok(())).unwrap().captured
}

/// Codes (or bits of reals) of every tensor.
fn bits(captured: &[Captured]) -> Vec<(String, Vec<u64>)> {
    captured
        .iter()
        .map(|c| {
            let values = c.codes.as_ref().unwrap_or(&c.value).to_f64();
            (c.name.clone(), values.iter().map(|v| v.to_bits()).collect())
        })
        .collect()
}

const TARGETS: [&str; 4] = ["float", "fake_quant", "onnxruntime_cpu", "htp_v75"];

#[test]
fn every_thread_count_and_batch_gives_the_same_bits() {
    let graph = network(1);
    let batch = network_input(2, 5);
    for target in TARGETS {
        let whole = bits(&capture(&session(&graph, target, 1), &batch));
        for threads in [2, 7] {
            assert_eq!(bits(&capture(&session(&graph, target, threads), &batch)), whole, "{target}, {threads} threads");
        }
        for image in 0..5 {
            let Data::F32(values) = batch.data() else { unreachable!() };
            let one = Tensor::f32(&[1, 3, 11, 13], values[image * 429..][..429].to_vec());
            for ((name, single), (_, all)) in bits(&capture(&session(&graph, target, 2), &one)).iter().zip(&whole) {
                let part = &all[image * all.len() / 5..(image + 1) * all.len() / 5];
                assert_eq!(single, part, "{target}: '{name}' of image {image}");
            }
        }
    }
}

#[test]
fn float_runs_alone_compute_the_reals_of_coded_weights() {
    for target in TARGETS {
        let graph = network(1);
        capture(&session(&graph, target, 1), &network_input(2, 1));
        let coded: Vec<_> = graph.tensors.iter().filter(|t| t.codes.is_some()).collect();
        assert!(coded.len() > 2, "the network has coded weights");
        for tensor in coded {
            let computed = tensor.constant.as_ref().unwrap().is_computed();
            assert_eq!(computed, target == "float", "{target}: '{}'", tensor.name);
        }
    }
}

#[test]
fn no_behaviour_hangs_on_a_targets_name() {
    let graph = network(3);
    let input = network_input(4, 1);
    for target in embedded_names() {
        let shipped = EMBEDDED.iter().find(|e| e.file == format!("{target}.toml")).unwrap();
        let renamed = shipped.toml.replace(&format!("name = \"{target}\""), "name = \"somebody_else\"");
        assert_ne!(renamed, shipped.toml, "{} states its name", shipped.file);
        let other = Spec::parse(&renamed, "renamed.toml").unwrap();
        let own = Spec::load(target).unwrap();
        assert_eq!(own.hash, other.hash);
        let run = |spec: Spec| {
            // Targets that take other encodings refuse the graph, under either name.
            let session = Session::new(graph.clone(), spec, Options { threads: 1, ..Options::default() });
            let captured = |session: Session| {
                let name = session.inputs()[0].name.clone();
                session.run_with(&[(&name, &input)], true, &mut || Ok(()))
            };
            session.and_then(captured).map(|r| bits(&r.captured)).map_err(|e| e.code())
        };
        assert_eq!(run(own), run(other), "{target}");
    }
}

#[test]
fn emulation_stays_near_simulation_and_is_not_it() {
    let graph = network(5);
    let input = network_input(6, 2);
    let simulated = capture(&session(&graph, "fake_quant", 1), &input);
    for target in ["onnxruntime_cpu", "htp_v75"] {
        let emulated = capture(&session(&graph, target, 1), &input);
        let mut differs = false;
        for (e, s) in emulated
            .iter()
            .filter(|e| e.codes.is_some())
            .filter_map(|e| simulated.iter().find(|s| s.name == e.name).map(|s| (e, s)))
        {
            let scale = e.encoding.as_ref().unwrap().scale[0];
            let worst =
                e.value.to_f64().iter().zip(s.value.to_f64()).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f64::max);
            assert!(worst < 4.5, "{target}: '{}' is {worst} codes from the simulation", e.name);
            differs |= worst > 0.5;
        }
        assert!(differs, "{target} computes something of its own");
    }
}

#[test]
fn a_trace_ends_in_the_code_that_was_computed() {
    let graph = network(7);
    let input = network_input(8, 1);
    for target in ["onnxruntime_cpu", "htp_v75"] {
        let session = session(&graph, target, 1);
        let name = session.inputs()[0].name.clone();
        let mut traced = 0;
        for tensor in capture(&session, &input).iter().filter(|t| t.codes.is_some()) {
            let codes = tensor.codes.as_ref().unwrap().to_i64().unwrap();
            for index in [0, codes.len() / 2, codes.len() - 1] {
                let explanation = session.explain(&[(&name, &input)], &tensor.name, index).unwrap();
                let result: i128 = explanation.trace.result.parse().expect("codes are ints");
                assert_eq!(result, i128::from(codes[index]), "{target}: '{}' [{index}]", tensor.name);
                traced += 1;
            }
        }
        assert!(traced >= 24, "{target}: {traced} elements traced");
    }
}

#[test]
fn a_tensor_without_encoding_runs_in_float_and_is_reported() {
    let mut b = Builder::new(9);
    let x = b.input(&[1, 4], Some(per_tensor(0.1, 128, 8, false)));
    let t = b.node("Sigmoid", &[x], &[], None);
    let y = b.node("Tanh", &[t], &[], Some(per_tensor(0.01, 128, 8, false)));
    b.output(y);
    let session = session(&b.graph, "htp_v75", 1);
    let report = session.report(vec![vec![1, 4]]).unwrap();
    assert!(report.nodes.iter().all(|n| n.mode == "float"), "{:?}", report.nodes);
    assert!(report.notes.iter().any(|n| n.text.contains("has no encoding")), "{:?}", report.notes);
}

#[test]
fn strict_refuses_assumed_rules() {
    let graph = network(10);
    let strict = Options { threads: 1, strict: true, ..Options::default() };
    let session = Session::new(graph, Spec::load("htp_v75").unwrap(), strict).unwrap();
    let error = session.report(vec![vec![1, 3, 11, 13]]).unwrap_err();
    assert_eq!(error.code(), "strict_assumed");
    assert_eq!(error.kind().exit_code(), 3);
}

#[test]
fn wrong_feeds_are_named() {
    let session = session(&network(11), "onnxruntime_cpu", 1);
    let name = session.inputs()[0].name.clone();
    let good = network_input(1, 1);
    let code = |feeds: &[(&str, &Tensor)]| session.run(feeds).unwrap_err().code();
    assert_eq!(code(&[]), "feed_missing");
    assert_eq!(code(&[("nobody", &good)]), "feed_unknown");
    assert_eq!(code(&[(&name, &Tensor::i64(&[1], vec![0]))]), "feed_dtype");
    assert_eq!(code(&[(&name, &Tensor::f32(&[1, 3, 11, 12], vec![0.0; 396]))]), "feed_shape");
    assert_eq!(code(&[(&name, &Tensor::f32(&[3, 11, 13], vec![0.0; 429]))]), "feed_shape");
    let mut values = vec![0.5; 429];
    values[77] = f32::NAN;
    let error = session.run(&[(&name, &Tensor::f32(&[1, 3, 11, 13], values))]).unwrap_err();
    assert_eq!(error.code(), "quantize_nan");
    assert!(error.to_string().contains("element 77"), "{error}");
}

#[test]
fn an_operator_that_the_target_does_not_cover_is_an_error() {
    let mut b = Builder::new(12);
    let x = b.input(&[1, 4], Some(per_tensor(0.1, 0, 8, true)));
    let y = b.node("Erf", &[x], &[], Some(per_tensor(0.01, 0, 8, true)));
    b.output(y);
    let session = session(&b.graph, "tflite_micro", 1);
    let error = session.report(vec![vec![1, 4]]).unwrap_err();
    assert_eq!(error.code(), "rule_missing");
    assert_eq!(error.kind(), nputwin::Kind::Unspecified);
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    if std::env::var_os("NPUTWIN_ISA").is_some() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let listing = |isa: &str| {
        let out = std::process::Command::new(&program)
            .args(["--exact", "prints_all_bits", "--nocapture", "--test-threads", "1"])
            .env("NPUTWIN_ISA", isa)
            .output()
            .unwrap();
        assert!(out.status.success(), "{isa}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().filter(|l| l.starts_with("bits ")).map(str::to_string).collect::<Vec<_>>()
    };
    let scalar = listing("scalar");
    assert!(scalar.len() > 40, "{} tensors", scalar.len());
    for isa in nputwin::kernels::Isa::available() {
        assert_eq!(listing(isa.name()), scalar, "{}", isa.name());
    }
}

#[test]
fn prints_all_bits() {
    use std::hash::{DefaultHasher, Hash, Hasher};
    for target in TARGETS {
        let session = session(&network(13), target, 2);
        assert!(matches!(session.spec().execution, Execution::Float | Execution::FakeQuant | Execution::Integer));
        for (name, bits) in bits(&capture(&session, &network_input(14, 2))) {
            let mut hasher = DefaultHasher::new();
            bits.hash(&mut hasher);
            println!("bits {target} {name} {:016x}", hasher.finish());
        }
    }
}

/// Two convolutions that meet in a sum behind an activation, and a sum whose convolution somebody else reads as well.
fn residual(channels: usize) -> Graph {
    let mut b = Builder::new(channels as u64);
    let grid = |scale: f64| Some(per_tensor(scale, 100, 8, false));
    let x = b.input(&[1, channels, 9, 7], grid(0.03));
    let conv = |b: &mut Builder, x| {
        let weights = b.weights(&[channels, channels, 1, 1], &[0.004], 8, 0);
        b.node("Conv", &[x, weights], &[], grid(0.02))
    };
    let (left, right) = (conv(&mut b, x), conv(&mut b, x));
    let active = b.node("Sigmoid", &[right], &[], grid(0.01));
    let sum = b.node("Add", &[left, active], &[], grid(0.025));
    let shared = conv(&mut b, sum);
    let twice = b.node("Add", &[shared, shared], &[], grid(0.04));
    let last = b.node("Mul", &[twice, shared], &[], grid(0.05));
    b.output(last);
    b.graph
}

#[test]
fn means_are_over_the_axes_that_are_named() {
    // Axes of one size are told apart by their place alone.
    let cases: [(&[usize], &[i64]); 6] = [
        (&[1, 4, 4], &[1]),
        (&[1, 4, 4], &[2]),
        (&[1, 4, 3, 4], &[1, 2]),
        (&[1, 4, 3, 4], &[2, 3]),
        (&[2, 2, 2], &[0]),
        (&[2, 2, 2, 2], &[0, 3]),
    ];
    for (target, signed) in
        [("onnxruntime_cpu", false), ("htp_v75", false), ("litert_xnnpack_x86", true), ("tflite_micro", true)]
    {
        for ((shape, axes), keep) in cases.iter().flat_map(|&case| [(case, 0), (case, 1)]) {
            let reduced = |axis: usize| axes.contains(&(axis as i64));
            let count: usize = (0..shape.len()).filter(|&a| reduced(a)).map(|a| shape[a]).product();
            let mut out: Vec<usize> =
                (0..shape.len()).map(|axis| if reduced(axis) { 1 } else { shape[axis] }).collect();
            // Every element is a multiple of the count, and so every mean an integer.
            let len: usize = shape.iter().product();
            let values: Vec<usize> = (0..len).map(|i| i * i % 7 * count).collect();
            let mut means = vec![0; out.iter().product()];
            for (i, value) in values.iter().enumerate() {
                let (mut rest, mut at, mut step) = (i, 0, 1);
                for axis in (0..shape.len()).rev() {
                    at += if reduced(axis) { 0 } else { rest % shape[axis] * step };
                    rest /= shape[axis];
                    step *= out[axis];
                }
                means[at] += value / count;
            }
            if keep == 0 {
                out = (0..shape.len()).filter(|&a| !reduced(a)).map(|a| shape[a]).collect();
            }
            let mut b = Builder::new(1);
            let encoding = || Some(per_tensor(1.0, 0, 8, signed));
            let x = b.input(shape, encoding());
            let attributes = [("axes", ints(axes)), ("keepdims", nputwin::graph::Attribute::Int(keep))];
            let y = b.node("ReduceMean", &[x], &attributes, encoding());
            b.output(y);
            let name = b.graph.inputs[0].name.clone();
            let input = Tensor::f32(shape, values.iter().map(|&v| v as f32).collect());
            let result = session(&b.graph, target, 1).run(&[(&name, &input)]).unwrap();
            let (_, y) = &result.outputs[0];
            let expected: Vec<f64> = means.iter().map(|&m| m as f64).collect();
            assert_eq!((y.shape(), y.to_f64()), (&out[..], expected), "{target}, {shape:?}, {axes:?}, keepdims {keep}");
        }
    }
}

#[test]
fn what_follows_a_convolution_runs_in_its_step_where_nothing_else_reads_between() {
    for channels in [3, 40] {
        let graph = residual(channels);
        let input = network_input(channels as u64, 2 * channels);
        let Data::F32(values) = input.data() else { unreachable!() };
        let input = Tensor::f32(&[2, channels, 9, 7], values[..2 * channels * 63].to_vec());
        let name = graph.inputs[0].name.clone();
        for target in ["onnxruntime_cpu", "htp_v75"] {
            let whole = session(&graph, target, 1).run_with(&[(&name, &input)], true, &mut || Ok(())).unwrap();
            for threads in [1, 2, 7] {
                let session = session(&graph, target, threads);
                let alone = session.run(&[(&name, &input)]).unwrap();
                assert_eq!(alone.outputs[0].1.to_f64(), whole.outputs[0].1.to_f64(), "{target}, {threads} threads");
                let profile = session.profile(&[(&name, &input)]).unwrap();
                let steps: Vec<usize> = profile.iter().map(|p| p.label.matches(" + ").count()).collect();
                // The second convolution, its activation and their sum; nothing behind the one that is read three times.
                assert_eq!(
                    steps.iter().sum::<usize>(),
                    2,
                    "{:?}",
                    profile.iter().map(|p| &p.label).collect::<Vec<_>>()
                );
                assert_eq!(profile.iter().filter(|p| p.label.starts_with("Conv")).count(), 3);
                let options = Options { threads, apart: true, ..Options::default() };
                let apart = Session::new(graph.clone(), Spec::load(target).unwrap(), options).unwrap();
                assert_eq!(apart.run(&[(&name, &input)]).unwrap().outputs[0].1.to_f64(), alone.outputs[0].1.to_f64());
                assert!(apart.profile(&[(&name, &input)]).unwrap().iter().all(|p| !p.label.contains(" + ")));
            }
        }
    }
}

/// Large enough for the forms of epilogues and sums that are only looked for where there are many outputs.
#[test]
fn large_convolutions_and_sums_equal_the_reference() {
    let mut b = Builder::new(31);
    let signed = |scale: f64, zero_point: i64| Some(per_tensor(f64::from(scale as f32), zero_point, 8, true));
    let x = b.input(&[1, 4, 48, 48], signed(0.05, -7));
    let scales: Vec<f64> = (0..64).map(|c| f64::from(0.002f32 * (1.0 + 0.03 * c as f32))).collect();
    let pads = [("pads", ints(&[1, 1, 1, 1]))];
    let mut branch = |scale: f64, zero_point: i64| {
        let weights = b.weights(&[64, 4, 3, 3], &scales, 8, 0);
        b.node("Conv", &[x, weights], &pads, signed(scale, zero_point))
    };
    let (first, second, third) = (branch(0.11, 3), branch(0.0625, -128), branch(0.07, -20));
    let sum = b.node("Add", &[first, second], &[], signed(0.143, -5));
    let again = b.node("Add", &[sum, third], &[], signed(0.1, 11));
    b.output(again);
    let values = (0..4 * 48 * 48).map(|_| b.numbers.real() * 7.0).collect();
    let input = Tensor::f32(&[1, 4, 48, 48], values);
    for target in ["tflite_micro", "litert_xnnpack_x86", "htp_v75"] {
        let run = |evaluator: Evaluator| {
            let options = Options { threads: 2, evaluator, ..Options::default() };
            let session =
                Session::new(b.graph.clone(), Spec::load(target).unwrap(), options).map_err(|e| e.to_string())?;
            let plain = session.run(&[("x1", &input)]).map_err(|e| e.to_string())?.outputs;
            Ok::<_, String>((bits(&capture(&session, &input)), plain))
        };
        match (run(Evaluator::Fast), run(Evaluator::Reference)) {
            (Ok(fast), Ok(reference)) => assert!(fast == reference, "{target}"),
            (fast, reference) => panic!("{target}: {:?} {:?}", fast.err(), reference.err()),
        }
    }
}
