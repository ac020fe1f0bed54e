//! A writer of small `.tflite` files, right or wrong: slots are those of the public schema.
#![allow(dead_code)]

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

/// Types of elements.
pub const FLOAT32: i8 = 0;
pub const INT32: i8 = 2;
pub const INT8: i8 = 9;
pub const INT4: i8 = 17;

/// A tensor.
#[derive(Clone, Default)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<i32>,
    pub signature: Vec<i32>,
    pub dtype: i8,
    pub buffer: u32,
    pub scale: Vec<f32>,
    pub zero_point: Vec<i64>,
    pub axis: i32,
    pub details: u8,
    pub variable: bool,
    pub sparse: bool,
}

/// Options: number in the union, and slots with their values.
#[derive(Clone, Default)]
pub struct Options {
    pub number: u8,
    pub bytes: Vec<(u16, i8)>,
    pub ints: Vec<(u16, i32)>,
}

/// An operator.
#[derive(Clone, Default)]
pub struct Operator {
    pub code: u32,
    pub inputs: Vec<i32>,
    pub outputs: Vec<i32>,
    pub options: Options,
}

/// A file.
#[derive(Clone)]
pub struct Model {
    pub version: u32,
    pub identifier: &'static str,
    pub codes: Vec<i32>,
    pub custom: Option<&'static str>,
    pub buffers: Vec<Vec<u8>>,
    pub tensors: Vec<Tensor>,
    pub operators: Vec<Operator>,
    pub inputs: Vec<i32>,
    pub outputs: Vec<i32>,
    pub subgraphs: usize,
}

fn slot(n: u16) -> u16 {
    4 + 2 * n
}

fn table<'b>(
    b: &mut FlatBufferBuilder<'b>,
    fill: impl FnOnce(&mut FlatBufferBuilder<'b>),
) -> WIPOffset<UnionWIPOffset> {
    let start = b.start_table();
    fill(b);
    WIPOffset::new(b.end_table(start).value())
}

fn list<'b>(
    b: &mut FlatBufferBuilder<'b>,
    tables: &[WIPOffset<UnionWIPOffset>],
) -> WIPOffset<flatbuffers::Vector<'b, flatbuffers::ForwardsUOffset<UnionWIPOffset>>> {
    b.create_vector(tables)
}

impl Model {
    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut b = FlatBufferBuilder::new();
        let codes: Vec<_> = self
            .codes
            .iter()
            .map(|&code| {
                let custom = self.custom.map(|c| b.create_string(c));
                table(&mut b, |b| {
                    b.push_slot::<i8>(slot(0), code.min(127) as i8, 0);
                    b.push_slot::<i32>(slot(3), code, 0);
                    if let Some(custom) = custom {
                        b.push_slot_always(slot(1), custom);
                    }
                })
            })
            .collect();
        let codes = list(&mut b, &codes);
        let tensors: Vec<_> = self.tensors.iter().map(|t| t.write(&mut b)).collect();
        let tensors = list(&mut b, &tensors);
        let operators: Vec<_> = self.operators.iter().map(|o| o.write(&mut b)).collect();
        let operators = list(&mut b, &operators);
        let (inputs, outputs) = (b.create_vector(&self.inputs), b.create_vector(&self.outputs));
        let graph = table(&mut b, |b| {
            b.push_slot_always(slot(0), tensors);
            b.push_slot_always(slot(1), inputs);
            b.push_slot_always(slot(2), outputs);
            b.push_slot_always(slot(3), operators);
        });
        let graphs = list(&mut b, &vec![graph; self.subgraphs]);
        let buffers: Vec<_> = self
            .buffers
            .iter()
            .map(|bytes| {
                let data = b.create_vector(bytes);
                table(&mut b, |b| b.push_slot_always(slot(0), data))
            })
            .collect();
        let buffers = list(&mut b, &buffers);
        let model = table(&mut b, |b| {
            b.push_slot::<u32>(slot(0), self.version, 0);
            b.push_slot_always(slot(1), codes);
            b.push_slot_always(slot(2), graphs);
            b.push_slot_always(slot(4), buffers);
        });
        b.finish(model, Some(self.identifier));
        b.finished_data().to_vec()
    }
}

impl Tensor {
    fn write(&self, b: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let (shape, signature) = (b.create_vector(&self.shape), b.create_vector(&self.signature));
        let name = b.create_string(&self.name);
        let (scale, zero_point) = (b.create_vector(&self.scale), b.create_vector(&self.zero_point));
        let quantization = table(b, |b| {
            b.push_slot_always(slot(2), scale);
            b.push_slot_always(slot(3), zero_point);
            b.push_slot::<u8>(slot(4), self.details, 0);
            b.push_slot::<i32>(slot(6), self.axis, 0);
        });
        let sparsity = self.sparse.then(|| table(b, |_| ()));
        table(b, |b| {
            b.push_slot_always(slot(0), shape);
            b.push_slot::<i8>(slot(1), self.dtype, 0);
            b.push_slot::<u32>(slot(2), self.buffer, 0);
            b.push_slot_always(slot(3), name);
            if !self.scale.is_empty() || self.details != 0 {
                b.push_slot_always(slot(4), quantization);
            }
            b.push_slot::<bool>(slot(5), self.variable, false);
            if let Some(sparsity) = sparsity {
                b.push_slot_always(slot(6), sparsity);
            }
            if !self.signature.is_empty() {
                b.push_slot_always(slot(7), signature);
            }
        })
    }
}

impl Operator {
    fn write(&self, b: &mut FlatBufferBuilder<'_>) -> WIPOffset<UnionWIPOffset> {
        let (inputs, outputs) = (b.create_vector(&self.inputs), b.create_vector(&self.outputs));
        let options = table(b, |b| {
            self.options.bytes.iter().for_each(|&(s, v)| b.push_slot_always(slot(s), v));
            self.options.ints.iter().for_each(|&(s, v)| b.push_slot_always(slot(s), v));
        });
        table(b, |b| {
            b.push_slot::<u32>(slot(0), self.code, 0);
            b.push_slot_always(slot(1), inputs);
            b.push_slot_always(slot(2), outputs);
            if self.options.number != 0 {
                b.push_slot_always(slot(3), self.options.number);
                b.push_slot_always(slot(4), options);
            }
        })
    }
}

/// `y = CONV_2D(x, w, b)` on int8: x is 1×4×5×2, w 3×1×1×2 with a scale per output, and y has the fused RELU6.
pub fn convolution() -> Model {
    let tensor = |name: &str, shape: &[i32], dtype: i8, buffer: u32, scale: &[f32]| Tensor {
        name: name.into(),
        shape: shape.to_vec(),
        dtype,
        buffer,
        scale: scale.to_vec(),
        zero_point: vec![0; scale.len()],
        ..Tensor::default()
    };
    Model {
        version: 3,
        identifier: "TFL3",
        codes: vec![3],
        custom: None,
        buffers: vec![vec![], vec![1, 2, 3, 4, 5, 0xff], [7i32, -8, 9].iter().flat_map(|v| v.to_le_bytes()).collect()],
        tensors: vec![
            tensor("x", &[1, 4, 5, 2], INT8, 0, &[0.5]),
            tensor("w", &[3, 1, 1, 2], INT8, 1, &[0.25, 0.5, 1.0]),
            tensor("b", &[3], INT32, 2, &[0.125, 0.25, 0.5]),
            tensor("y", &[1, 4, 5, 3], INT8, 0, &[0.5]),
        ],
        operators: vec![Operator {
            code: 0,
            inputs: vec![0, 1, 2],
            outputs: vec![3],
            options: Options { number: 1, bytes: vec![(0, 1), (3, 3)], ints: vec![(1, 1), (2, 1)] },
        }],
        inputs: vec![0],
        outputs: vec![3],
        subgraphs: 1,
    }
}
