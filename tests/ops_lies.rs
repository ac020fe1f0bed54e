//! Nodes that lie: no attribute, shape or constant may make an operator panic, and what is inferred is what is computed.

use nputwin::graph::{Attribute, Node};
use nputwin::ops::{Fact, Facts, RunContext, registry};
use nputwin::tensor::{Data, Tensor, element_count};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A small generator: xorshift with a multiplier.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    fn int(&mut self) -> i64 {
        match self.below(12) {
            0 => self.pick(&[i64::MIN, i64::MAX, i64::MIN + 1, 1 << 31, -(1 << 31), 1 << 40, i64::from(i32::MAX)]),
            _ => self.below(7) as i64 - 2,
        }
    }

    fn shape(&mut self) -> Vec<usize> {
        let rank = self.pick(&[0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 6]);
        (0..rank).map(|_| self.pick(&[0, 1, 1, 2, 2, 2, 3, 4])).collect()
    }

    fn tensor(&mut self) -> Tensor {
        let mut shape = self.shape();
        let kind = self.below(8);
        if kind < 3 {
            shape = match self.below(8) {
                0 => shape,
                1 => vec![],
                n => vec![n as usize - 1],
            };
        }
        let count = element_count(&shape).unwrap();
        let mut ints = || (0..count).map(|_| self.int()).collect::<Vec<i64>>();
        let data = match kind {
            0..3 => Data::I64(ints()),
            3 => Data::I8(ints().iter().map(|&v| v as i8).collect()),
            4 => Data::Bool(ints().iter().map(|&v| v > 0).collect()),
            _ => Data::F32(ints().iter().map(|&v| if v == i64::MIN { f32::NAN } else { v as f32 * 0.7 }).collect()),
        };
        Tensor::new(shape, data).unwrap()
    }

    /// An attribute; lists are often of a length that suits a tensor of `rank`.
    fn attribute(&mut self, name: &str, rank: usize) -> Attribute {
        let ints = |random: &mut Random| {
            let spatial = rank.saturating_sub(2);
            let length = random.pick(&[spatial, spatial, if name == "pads" { 2 * spatial } else { rank }, 3]);
            (0..length).map(|_| if random.below(8) == 0 { random.int() } else { 1 + random.below(2) as i64 }).collect()
        };
        let strings: &[&str] = match name {
            "auto_pad" => &["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "x"],
            "mode" => &["constant", "reflect", "edge", "wrap", "nearest", "linear", "cubic", "DCR", "CRD", "x"],
            "coordinate_transformation_mode" => {
                &["half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize", "pytorch_half_pixel", "x"]
            }
            "nearest_mode" => &["floor", "ceil", "round_prefer_floor", "round_prefer_ceil", "x"],
            "keep_aspect_ratio_policy" => &["stretch", "not_larger", "not_smaller", "x"],
            "approximate" => &["none", "tanh", "x"],
            _ => &[],
        };
        if !strings.is_empty() && self.below(10) > 0 {
            return Attribute::String(self.pick(strings).into());
        }
        let lists =
            ["axes", "pads", "strides", "dilations", "kernel_shape", "perm", "split", "shape", "starts", "ends"];
        let also = ["output_padding", "output_shape"];
        if (lists.contains(&name) || also.contains(&name)) && self.below(10) > 0 {
            return Attribute::Ints(ints(self));
        }
        match self.below(12) {
            0 => Attribute::Ints(ints(self)),
            1 => Attribute::Float(self.pick(&[0.0, -1.0, 1e30, f32::NAN, 0.5])),
            2 => Attribute::Floats(vec![1.0; self.below(5) as usize]),
            3 => Attribute::Tensor(Arc::new(self.tensor())),
            _ => Attribute::Int(self.int()),
        }
    }
}

/// Attributes that operators know.
const NAMES: &[&str] = &[
    "axis",
    "axes",
    "keepdims",
    "pads",
    "strides",
    "dilations",
    "kernel_shape",
    "group",
    "auto_pad",
    "mode",
    "perm",
    "ceil_mode",
    "count_include_pad",
    "storage_order",
    "split",
    "num_outputs",
    "blocksize",
    "to",
    "starts",
    "ends",
    "output_padding",
    "output_shape",
    "epsilon",
    "alpha",
    "beta",
    "transA",
    "transB",
    "value",
    "scales",
    "antialias",
    "coordinate_transformation_mode",
    "nearest_mode",
    "exclude_outside",
    "keep_aspect_ratio_policy",
    "approximate",
    "allowzero",
    "noop_with_empty_axes",
    "select_last_index",
    "start",
    "end",
    "min",
    "max",
    "num_groups",
    "stash_type",
    "fmod",
    "shape",
    "extrapolation_value",
    "cubic_coeff_a",
];

#[test]
fn no_node_panics() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let context = RunContext::new(&pool);
    let mut untested = Vec::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (domain, name, op) in registry::all() {
        let mut accepted = 0;
        for round in 0..10_000 {
            let tensors: Vec<Option<Tensor>> = (0..random.pick(&[1, 1, 2, 2, 3, 3, 4, 5]))
                .map(|_| if random.below(12) == 0 { None } else { Some(random.tensor()) })
                .collect();
            let opset = random.pick(&[1, 6, 7, 9, 10, 11, 12, 13, 14, 18, 20, 21]);
            let rank = tensors[0].as_ref().map_or(0, |t| t.shape().len());
            let mut attributes = BTreeMap::new();
            for _ in 0..random.below(16) {
                let name = random.pick(NAMES);
                attributes.insert(name.to_string(), random.attribute(name, rank));
            }
            let facts: Vec<Option<Fact>> = tensors
                .iter()
                .map(|t| {
                    t.as_ref().map(|t| Fact {
                        name: "x".into(),
                        dtype: t.dtype(),
                        shape: t.shape().to_vec(),
                        constant: Some(Arc::new(t.clone())),
                        codes: None,
                        encoding: None,
                    })
                })
                .collect();
            let outputs = (0..random.pick(&[1, 1, 1, 2, 3])).map(Some).collect();
            let mut node = Node { op_type: name.into(), domain: domain.into(), outputs, attributes, ..Node::default() };
            // Attributes that the operator refuses by name are dropped one after the other.
            let inferred = loop {
                let facts = Facts { node: &node, opset, inputs: &facts, outputs: &[] };
                match op.infer(&facts) {
                    Err(error) if error.code() == "attribute_unknown" => {
                        let unknown = error.message().split('\'').nth(1).unwrap().to_string();
                        node.attributes.remove(&unknown);
                    }
                    other => break other,
                }
            };
            let Ok(inferred) = inferred else { continue };
            accepted += 1;
            if inferred.iter().any(|i| element_count(&i.1).unwrap() > 1 << 16) {
                continue;
            }
            let facts = Facts { node: &node, opset, inputs: &facts, outputs: &[] };
            let inputs: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
            let what = || format!("{name} round {round} opset {opset} {node:?} {inputs:?}");
            let kernel = op.float(&facts).unwrap_or_else(|e| panic!("{e}: {}", what()));
            let Ok(results) = kernel.run(&context, &inputs) else { continue };
            let shapes: Vec<_> = results.iter().map(|r| (r.dtype(), r.shape().to_vec())).collect();
            assert_eq!(shapes, inferred, "{}", what());
        }
        if accepted == 0 {
            untested.push(name);
        }
    }
    println!("no draw was accepted by {untested:?}");
    assert!(untested.len() < 6, "{untested:?}");
}
