//! Nodes that lie: no attribute, shape or constant may make an operator panic, and what is inferred is what is computed.

use nputwin::graph::{Attribute, Node};
use nputwin::kernels::Team;
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
            0..3 => Data::I64(ints().into()),
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

/// Inputs and attributes of a node.
type Sound = (Vec<Option<Tensor>>, Vec<(&'static str, Attribute)>);

/// Inputs and attributes that an operator of many parts takes; `f` and `i` make tensors of reals and of small indices.
fn sound(name: &str, random: &mut Random) -> Option<Sound> {
    let float = |shape: &[usize], random: &mut Random| {
        let count = element_count(shape).unwrap();
        Some(Tensor::f32(shape, (0..count).map(|_| random.below(9) as f32 * 0.3 - 1.2).collect()))
    };
    let index = |shape: &[usize], n: u64, random: &mut Random| {
        let count = element_count(shape).unwrap();
        Some(Tensor::i64(shape, (0..count).map(|_| random.below(n) as i64).collect()))
    };
    let ints = |list: &[i64]| Some(Tensor::i64(&[list.len()], list.to_vec()));
    let bytes = |shape: &[usize], random: &mut Random| {
        let count = element_count(shape).unwrap();
        Some(Tensor::new(shape.to_vec(), Data::U8((0..count).map(|_| random.below(256) as u8).collect())).unwrap())
    };
    let text = |v: &str| Attribute::String(v.into());
    let r = random;
    Some(match name {
        "RNN" | "GRU" | "LSTM" => {
            let (g, d) = (
                match name {
                    "RNN" => 1,
                    "GRU" => 3,
                    _ => 4,
                },
                1 + r.below(2) as usize,
            );
            let mut inputs = vec![float(&[3, 2, 4], r), float(&[d, g * 5, 4], r), float(&[d, g * 5, 5], r)];
            inputs.extend([float(&[d, 2 * g * 5], r), index(&[2], 4, r), float(&[d, 2, 5], r)]);
            if name == "LSTM" {
                inputs.extend([float(&[d, 2, 5], r), float(&[d, 15], r)]);
            }
            let direction = if d == 2 { "bidirectional" } else { r.pick(&["forward", "reverse"]) };
            (inputs, vec![("direction", text(direction)), ("clip", Attribute::Float(0.5))])
        }
        "Attention" => {
            let inputs =
                vec![float(&[2, 4, 3, 5], r), float(&[2, 2, 6, 5], r), float(&[2, 2, 6, 3], r), float(&[3, 6], r)];
            (inputs, vec![("is_causal", Attribute::Int(1)), ("softcap", Attribute::Float(1.0))])
        }
        "LinearAttention" => {
            let inputs =
                vec![float(&[2, 3, 8], r), float(&[2, 3, 4], r), float(&[2, 3, 6], r), None, float(&[2, 3, 2], r)];
            let attributes = [("q_num_heads", Attribute::Int(4)), ("kv_num_heads", Attribute::Int(2))];
            (inputs, attributes.into_iter().chain([("update_rule", text("gated"))]).collect())
        }
        "RotaryEmbedding" => {
            (vec![float(&[2, 3, 4, 6], r), float(&[5, 3], r), float(&[5, 3], r), index(&[2, 4], 5, r)], vec![])
        }
        "Einsum" => {
            let equation = r.pick(&["ij,jk->ik", "...j,jk", "ij,ji->", "ij,jk->kji"]);
            (vec![float(&[3, 4], r), float(&[4, 3], r)], vec![("equation", text(equation))])
        }
        "GridSample" => {
            let mode = r.pick(&["nearest", "bilinear", "linear", "cubic"]);
            let padding = r.pick(&["zeros", "border", "reflection"]);
            let inputs = vec![float(&[2, 3, 4, 5], r), float(&[2, 2, 6, 2], r)];
            (inputs, vec![("mode", text(mode)), ("padding_mode", text(padding))])
        }
        "AffineGrid" => (vec![float(&[2, 2, 3], r), ints(&[2, 3, 4, 5])], vec![]),
        "RoiAlign" => {
            let inputs = vec![float(&[2, 3, 4, 5], r), float(&[3, 4], r), index(&[3], 3, r)];
            (inputs, vec![("mode", text(r.pick(&["avg", "max"]))), ("output_height", Attribute::Int(2))])
        }
        "NonMaxSuppression" => {
            let iou = Some(Tensor::f32(&[1], vec![0.4]));
            (vec![float(&[2, 6, 4], r), float(&[2, 3, 6], r), ints(&[4]), iou], vec![])
        }
        "DeformConv" => (vec![float(&[1, 2, 4, 4], r), float(&[3, 2, 2, 2], r), float(&[1, 8, 3, 3], r)], vec![]),
        "Col2Im" => (vec![float(&[1, 8, 9], r), ints(&[4, 4]), ints(&[2, 2])], vec![]),
        "CausalConvWithState" => (vec![float(&[2, 3, 5], r), float(&[3, 1, 4], r), None, float(&[2, 3, 3], r)], vec![]),
        "DFT" => (vec![float(&[2, 5, 1], r)], vec![("onesided", Attribute::Int(1))]),
        "STFT" => (vec![float(&[2, 9, 1], r), ints(&[2]), float(&[4], r)], vec![]),
        "ScatterND" => (vec![float(&[4, 3], r), index(&[5, 1], 5, r), float(&[5, 3], r)], vec![]),
        "ScatterElements" | "Scatter" => (vec![float(&[4, 3], r), index(&[2, 3], 5, r), float(&[2, 3], r)], vec![]),
        "TensorScatter" => (vec![float(&[2, 4, 3], r), float(&[2, 2, 3], r), index(&[2], 5, r)], vec![]),
        "GatherND" => (vec![float(&[4, 3], r), index(&[2, 5, 2], 4, r)], vec![]),
        "MaxUnpool" => {
            let kernel = Attribute::Ints(vec![2, 2]);
            (vec![float(&[1, 1, 2, 2], r), index(&[1, 1, 2, 2], 10, r)], vec![("kernel_shape", kernel)])
        }
        "OneHot" => (vec![index(&[3, 2], 5, r), ints(&[4]), float(&[2], r)], vec![]),
        "TopK" => (vec![float(&[3, 4], r), ints(&[2])], vec![]),
        "BitShift" => (vec![bytes(&[3], r), bytes(&[2, 1], r)], vec![("direction", text(r.pick(&["LEFT", "RIGHT"])))]),
        "ReverseSequence" => (vec![float(&[4, 3, 2], r), index(&[3], 6, r)], vec![]),
        "Compress" => {
            (vec![float(&[4, 3], r), Some(Tensor::new(vec![2], Data::Bool(vec![true, false].into())).unwrap())], vec![])
        }
        "MatMulInteger" => (vec![bytes(&[2, 3], r), bytes(&[3, 4], r)], vec![]),
        "ConvInteger" => (vec![bytes(&[1, 2, 4, 4], r), bytes(&[3, 2, 2, 2], r), bytes(&[1], r)], vec![]),
        "SwiGLU" => (vec![float(&[2, 3], r), float(&[2, 3], r)], vec![]),
        "CenterCropPad" => (vec![float(&[4, 3], r), ints(&[3, 5])], vec![]),
        "RMSNormalization" => (vec![float(&[2, 3], r), float(&[3], r)], vec![]),
        "Conv" | "ConvTranspose" => (vec![float(&[1, 2, 4, 3], r), float(&[2, 2, 2, 2], r), float(&[2], r)], vec![]),
        "BatchNormalization" => {
            (vec![float(&[2, 3, 2], r), float(&[3], r), float(&[3], r), float(&[3], r), float(&[3], r)], vec![])
        }
        "InstanceNormalization" => (vec![float(&[2, 4, 3], r), float(&[4], r), float(&[4], r)], vec![]),
        "GroupNormalization" => {
            (vec![float(&[2, 4, 3], r), float(&[4], r), float(&[4], r)], vec![("num_groups", Attribute::Int(2))])
        }
        "SpaceToDepth" => (vec![float(&[1, 2, 4, 6], r)], vec![("blocksize", Attribute::Int(2))]),
        _ => return None,
    })
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
    "saturate",
    "dtype",
    "output_datatype",
    "periodic",
    "detect_negative",
    "offset_group",
    "left_window_size",
    "qk_matmul_output_mode",
    "scale",
    "rotary_embedding_dim",
    "interleaved",
    "num_heads",
    "kv_num_heads",
    "q_num_heads",
    "is_causal",
    "dft_length",
    "onesided",
    "inverse",
    "time_axis",
    "batch_axis",
    "center_point_box",
    "output_width",
    "output_height",
    "spatial_scale",
    "sampling_ratio",
    "padding_mode",
    "align_corners",
    "input_forget",
    "linear_before_reset",
    "layout",
    "hidden_size",
    "sorted",
    "largest",
    "upper",
    "k",
    "depth",
    "p",
    "lambd",
    "bias",
    "size",
    "batch_dims",
    "exclusive",
    "reverse",
];

#[test]
fn no_node_panics() {
    let team = Team::new(1);
    let context = RunContext::new(&team);
    let mut untested = Vec::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (domain, name, op) in registry::all() {
        let mut accepted = 0;
        for round in 0..10_000 {
            let tensors: Vec<Option<Tensor>> = (0..random.pick(&[1, 1, 2, 2, 3, 3, 4, 5]))
                .map(|_| if random.below(12) == 0 { None } else { Some(random.tensor()) })
                .collect();
            let mut tensors = tensors;
            let mut given = Vec::new();
            if round % 2 == 0
                && let Some((mut inputs, sound)) = sound(name, &mut random)
            {
                // Sound in most parts: one input may be another one.
                if random.below(3) == 0 {
                    let i = random.below(inputs.len() as u64) as usize;
                    inputs[i] = if random.below(8) == 0 { None } else { Some(random.tensor()) };
                }
                (tensors, given) = (inputs, sound);
            }
            let opset = random.pick(&[1, 6, 7, 9, 10, 11, 12, 13, 14, 18, 20, 21, 23, 25, 28]);
            let rank = tensors[0].as_ref().map_or(0, |t| t.shape().len());
            let mut attributes: BTreeMap<String, Attribute> =
                given.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
            for _ in 0..if attributes.is_empty() { random.below(16) } else { random.below(3) } {
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
                        constant: Some(t.clone().into()),
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
            let kernel = match op.float(&facts) {
                Ok(kernel) => kernel,
                // An operator of nputwin's own may exist on codes alone.
                Err(e) if !domain.is_empty() && e.kind() == nputwin::Kind::UnsupportedByNputwin => continue,
                Err(e) => panic!("{e}: {}", what()),
            };
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
