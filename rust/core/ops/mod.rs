//! Operators: where kernels and specs meet.
//!
//! An operator is one [`Op`] in one file and one line of the registry. `infer` gives shapes; `float` prepares the ONNX
//! meaning; `integer` prepares the target's arithmetic. Preparing freezes multipliers, tables and packed weights.

pub mod accumulate;
pub mod activation;
pub mod arithmetic;
pub mod attention;
pub mod axis;
pub mod bits;
pub mod broadcast;
pub mod cast;
pub mod center_crop_pad;
pub mod clip;
pub mod closure;
pub mod code_maps;
pub mod concat;
pub mod conv;
pub mod conv_transpose;
pub mod cumulative;
pub mod deform_conv;
pub mod det;
pub mod detection;
pub mod dynamic_quantization;
pub mod einsum;
pub mod element;
pub mod elementwise;
pub mod expand;
mod explained;
pub mod explanation;
pub mod floats;
pub mod gather;
pub mod grid;
pub mod grid_sample;
pub mod integer;
pub mod linear_attention;
pub mod logic;
pub mod lp_normalization;
pub mod lp_pool;
pub mod lrn;
pub mod matmul;
pub mod normalization;
pub mod one_hot;
mod outputs;
pub mod pad;
pub mod parallel;
pub mod pool;
mod products;
pub mod recurrent;
pub mod recurrent_cell;
pub mod reduce;
pub mod registry;
pub mod reshape;
pub mod resize;
pub mod resize_axis;
pub mod scatter;
pub mod selection;
pub mod shape;
pub mod signal;
pub mod signature;
pub mod slice;
pub mod softmax;
pub mod strided;
pub mod transpose;
pub mod triangle;
pub mod window;

use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::graph::{Constant, Node};
use crate::kernels::{Code8, Engine, Simd, Team, Then};
use crate::tensor::{Arena, DType, Data, Elements, Plain, Tensor};
pub use explained::Explained;
pub use explanation::{Explanation, Place};
pub use outputs::Outputs;
use std::sync::Arc;

/// What is known of a tensor when a node is prepared.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Tensor name.
    pub name: String,
    /// Element type in the float graph.
    pub dtype: DType,
    /// Shape in ONNX's order.
    pub shape: Vec<usize>,
    /// The value, where it is constant (reals or indices).
    pub constant: Option<Constant>,
    /// The integers, where constant and quantized.
    pub codes: Option<Constant>,
    /// The encoding, where quantized.
    pub encoding: Option<Arc<Encoding>>,
}

impl Fact {
    /// Bytes of the value in the float graph.
    pub fn bytes(&self) -> u64 {
        self.bytes_as(self.dtype)
    }

    /// Bytes of as many elements of another type.
    pub fn bytes_as(&self, dtype: DType) -> u64 {
        self.shape.iter().fold(dtype.size() as u64, |bytes, &d| bytes.saturating_mul(d as u64))
    }
}

/// A node with the facts of its tensors. Optional inputs and outputs that are left out are `None`.
pub struct Facts<'a> {
    /// The node.
    pub node: &'a Node,
    /// Opset version of the node's domain.
    pub opset: i64,
    /// Facts of the inputs.
    pub inputs: &'a [Option<Fact>],
    /// Facts of the outputs; empty while shapes are inferred.
    pub outputs: &'a [Option<Fact>],
}

impl<'a> Facts<'a> {
    /// Input `i`, which must be present.
    pub fn input(&self, i: usize) -> Result<&'a Fact> {
        self.inputs.get(i).and_then(Option::as_ref).ok_or_else(|| self.invalid(format!("input {i} is missing")))
    }

    /// Input `i` where present.
    pub fn optional(&self, i: usize) -> Option<&'a Fact> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// Constant value of input `i`, which must be known before the run.
    pub fn constant(&self, i: usize) -> Result<&'a Constant> {
        let fact = self.input(i)?;
        fact.constant.as_ref().ok_or_else(|| {
            Error::unsupported("input_not_constant", format!("input {i} ('{}') must be constant", fact.name))
                .at_node(&self.node.name, &self.node.op_type)
        })
    }

    /// An error about this node.
    pub fn invalid(&self, message: impl Into<String>) -> Error {
        Error::invalid("node", message).at_node(&self.node.name, &self.node.op_type)
    }

    /// A limit of nputwin at this node.
    pub fn unsupported(&self, message: impl Into<String>) -> Error {
        Error::unsupported("node_unsupported", message).at_node(&self.node.name, &self.node.op_type)
    }
}

/// Type and shape of one output.
pub type Inferred = (DType, Vec<usize>);

/// Where the outputs of a kernel go in a run.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// The memory of the run.
    pub arena: &'a Arc<Arena>,
    /// The byte at which each output begins; `None` for those that get memory of their own.
    pub outputs: &'a [Option<usize>],
}

/// What a kernel may use while it runs.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// Threads to use. Results never depend on their number.
    pub team: &'a Team,
    /// Where the outputs go, where planning says so.
    pub places: Option<Places<'a>>,
    /// Instruction set to use. Results do not depend on it either.
    pub simd: Simd,
}

impl<'a> RunContext<'a> {
    /// Runs on the threads of `team` with the best instruction set.
    pub fn new(team: &'a Team) -> Self {
        RunContext { team, places: None, simd: Simd::best() }
    }

    /// What kernels run on.
    pub fn engine(&self) -> Engine<'a> {
        Engine::of_team(self.team).with(self.simd)
    }

    /// `len` elements of any value, to be written as output `i`.
    pub fn output<T: Plain>(&self, i: usize, len: usize) -> Elements<T> {
        let place = self.places.and_then(|places| Some((places.arena, (*places.outputs.get(i)?)?)));
        place.map_or_else(|| Elements::vector(len), |(arena, at)| Elements::at(arena, at, len))
    }

    /// A copy of `data` as output `i`.
    pub fn copy(&self, i: usize, data: &Data) -> Data {
        crate::map_data!(data, v => {
            let mut out = self.output(i, v.len());
            out.copy_from_slice(v);
            out
        })
    }
}

/// A node that is ready to run.
pub trait Kernel: Send + Sync {
    /// Computes the outputs.
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs>;

    /// Type of the codes of the one output, where [`Kernel::run_then`] hands them on while they are in the cache.
    fn hands_on(&self) -> Option<DType> {
        None
    }

    /// As [`Kernel::run`] for kernels of one output of bytes, and calls `then` for every part of it.
    fn run_then(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], then: Then<'_, u8>) -> Result<Outputs> {
        let mut outputs = self.run(context, inputs)?;
        match outputs.first_mut().map(Tensor::data_mut) {
            Some(Data::U8(codes)) => then(0, codes),
            Some(Data::I8(codes)) => then(0, i8::bytes_mut(codes)),
            _ => return Err(Error::invalid("codes_dtype", "only codes of one byte are handed on")),
        }
        Ok(outputs)
    }

    /// The kernel as a function that changes the codes of an operand in place, where it has that form.
    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    /// How one element of an output comes about. Kernels that know no more give their arguments and the result.
    fn explain(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        explanation::of_arguments(&self.run(context, inputs)?, inputs, place, &|i| format!("input {i}"))
    }
}

/// A function of codes of one byte, element by element, that can put its results in the place of an operand.
pub trait InPlace: Sync {
    /// Type of the output, where results may take the place of operand `own`, which must have the same.
    fn takes(&self, own: usize) -> Option<DType>;

    /// Fails where the other operands are not those that the kernel was prepared for.
    fn check(&self, own: usize, inputs: &[Option<&Tensor>]) -> Result<()> {
        let _ = (own, inputs);
        Ok(())
    }

    /// Changes the codes of operand `own`, those from index `start` on, into results. That operand is not among `inputs`; the
    /// others have passed [`InPlace::check`].
    fn replace(&self, simd: Simd, own: usize, inputs: &[Option<&Tensor>], start: usize, codes: &mut [u8]);
}

/// An ONNX operator.
pub trait Op: Send + Sync {
    /// Types and shapes of the outputs. Must check every attribute and the consistency of all shapes.
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>>;

    /// The ONNX meaning, in the tensors' own types.
    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>>;

    /// Whether the outputs are known as soon as the inputs' shapes are: the float kernel then runs without inputs.
    fn depends_on_shapes_alone(&self) -> bool {
        false
    }
}
