//! The tables of the TFLite flatbuffer schema that the importer reads.
//!
//! Slots, types and defaults are those of the public `schema.fbs` (version 3a/3c, identifier `TFL3`);
//! `tests/python/test_tflite_schema.py` compares them with the schema module of a published package. Tables and fields that
//! are not listed are refused by the reader or change nothing. A [`Model`] comes from the verifier only, which has walked
//! every field listed here: reading never leaves the file, whatever it holds.

use flatbuffers::{
    Follow, ForwardsUOffset, InvalidFlatbuffer, Table, VOffsetT, Vector, Verifiable, Verifier, VerifierOptions,
};

/// Bytes 4 to 8 of every file.
pub const IDENTIFIER: &[u8; 4] = b"TFL3";

/// Bytes from a table's vtable to the entry of a slot.
const fn entry(slot: VOffsetT) -> VOffsetT {
    4 + 2 * slot
}

/// Declares a table: scalars with slot and default, and fields behind an offset with slot and type.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $name:ident<$life:lifetime> {
            $($slot:literal $field:ident: $scalar:ty = $default:expr;)*
            $(@ $far_slot:literal $far:ident: $target:ty;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        #[allow(dead_code)] // a table without fields is never looked into
        pub struct $name<$life>(Table<$life>);

        impl<$life> Follow<$life> for $name<$life> {
            type Inner = Self;
            unsafe fn follow(buffer: &$life [u8], position: usize) -> Self {
                // SAFETY: the caller vouches for a table at the position, as the verifier does for all that it visited.
                unsafe { $name(Table::new(buffer, position)) }
            }
        }

        impl<$life> Verifiable for $name<$life> {
            fn run_verifier(verifier: &mut Verifier<'_, '_>, position: usize) -> Result<(), InvalidFlatbuffer> {
                #[allow(unused_mut)]
                let mut table = verifier.visit_table(position)?;
                $(table = table.visit_field::<$scalar>(stringify!($field), entry($slot), false)?;)*
                $(table = table.visit_field::<ForwardsUOffset<$target>>(stringify!($far), entry($far_slot), false)?;)*
                table.finish();
                Ok(())
            }
        }

        #[allow(missing_docs)]
        impl<$life> $name<$life> {
            $(
                pub fn $field(&self) -> $scalar {
                    // SAFETY: the verifier visited this slot with this type.
                    unsafe { self.0.get::<$scalar>(entry($slot), Some($default)) }.unwrap_or($default)
                }
            )*
            $(
                pub fn $far(&self) -> Option<<ForwardsUOffset<$target> as Follow<$life>>::Inner> {
                    // SAFETY: the verifier visited this slot with this type.
                    unsafe { self.0.get::<ForwardsUOffset<$target>>(entry($far_slot), None) }
                }
            )*
        }
    };
}

type Tables<'a, T> = Vector<'a, ForwardsUOffset<T>>;

table! {
    /// The file.
    Model<'a> {
        0 version: u32 = 0;
        @ 1 operator_codes: Tables<'a, OperatorCode<'a>>;
        @ 2 subgraphs: Tables<'a, SubGraph<'a>>;
        @ 4 buffers: Tables<'a, Buffer<'a>>;
    }
}

table! {
    /// An operator that the file uses.
    OperatorCode<'a> {
        0 deprecated_builtin_code: i8 = 0;
        3 builtin_code: i32 = 0;
        @ 1 custom_code: &'a str;
    }
}

table! {
    /// A graph.
    SubGraph<'a> {
        @ 0 tensors: Tables<'a, Tensor<'a>>;
        @ 1 inputs: Vector<'a, i32>;
        @ 2 outputs: Vector<'a, i32>;
        @ 3 operators: Tables<'a, Operator<'a>>;
        @ 4 name: &'a str;
    }
}

table! {
    /// A tensor; its value lies in a buffer, where it is constant.
    Tensor<'a> {
        1 r#type: i8 = 0;
        2 buffer: u32 = 0;
        5 is_variable: bool = false;
        10 external_buffer: u32 = 0;
        @ 0 shape: Vector<'a, i32>;
        @ 3 name: &'a str;
        @ 4 quantization: QuantizationParameters<'a>;
        @ 6 sparsity: Opaque<'a>;
        @ 7 shape_signature: Vector<'a, i32>;
    }
}

table! {
    /// Scales and zero points; `details` (of a type that is not 0) replace them.
    QuantizationParameters<'a> {
        4 details_type: u8 = 0;
        6 quantized_dimension: i32 = 0;
        @ 2 scale: Vector<'a, f32>;
        @ 3 zero_point: Vector<'a, i64>;
    }
}

table! {
    /// Bytes in the file: within the flatbuffer, or behind it at an offset.
    Buffer<'a> {
        1 offset: u64 = 0;
        2 size: u64 = 0;
        @ 0 data: Vector<'a, u8>;
    }
}

table! {
    /// A table of which only the presence matters.
    Opaque<'a> {}
}

/// An operator with its operands; an index of -1 stands for an optional input that is left out.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'a>(Table<'a>);

impl<'a> Follow<'a> for Operator<'a> {
    type Inner = Self;
    unsafe fn follow(buffer: &'a [u8], position: usize) -> Self {
        // SAFETY: as for every other table.
        unsafe { Operator(Table::new(buffer, position)) }
    }
}

impl<'a> Operator<'a> {
    const OPCODE_INDEX: VOffsetT = entry(0);
    const INPUTS: VOffsetT = entry(1);
    const OUTPUTS: VOffsetT = entry(2);
    const OPTIONS_TYPE: VOffsetT = entry(3);
    const OPTIONS: VOffsetT = entry(4);

    /// Index among the model's operator codes.
    pub fn opcode_index(&self) -> u32 {
        // SAFETY: the verifier visited this slot with this type.
        unsafe { self.0.get::<u32>(Self::OPCODE_INDEX, Some(0)) }.unwrap_or(0)
    }

    /// Indices of tensors.
    pub fn inputs(&self) -> Option<Vector<'a, i32>> {
        // SAFETY: the verifier visited this slot with this type.
        unsafe { self.0.get::<ForwardsUOffset<Vector<'a, i32>>>(Self::INPUTS, None) }
    }

    /// Indices of tensors.
    pub fn outputs(&self) -> Option<Vector<'a, i32>> {
        // SAFETY: the verifier visited this slot with this type.
        unsafe { self.0.get::<ForwardsUOffset<Vector<'a, i32>>>(Self::OUTPUTS, None) }
    }

    /// Which table the options are, 0 for none.
    pub fn options_type(&self) -> u8 {
        // SAFETY: the verifier visited this slot with this type.
        unsafe { self.0.get::<u8>(Self::OPTIONS_TYPE, Some(0)) }.unwrap_or(0)
    }

    /// The options, where they are a `T`.
    pub fn options<T: Options<'a>>(&self) -> Option<T> {
        if self.options_type() != T::TYPE {
            return None;
        }
        // SAFETY: the verifier visited a table of the type that the slot before it names.
        unsafe { self.0.get::<ForwardsUOffset<T>>(Self::OPTIONS, None) }
    }
}

/// Options of an operator: a member of the union `BuiltinOptions`.
pub trait Options<'a>: Follow<'a, Inner = Self> + 'a {
    /// Number of the table in the union.
    const TYPE: u8;
    /// Name of the table.
    const NAME: &'static str;
}

/// Declares the tables of the union.
macro_rules! options {
    ($($number:literal $name:ident { $($slot:literal $field:ident: $scalar:ty = $default:expr;)*
        $(@ $far_slot:literal $far:ident: $target:ty;)* })*) => {
        $(
            table! {
                #[allow(missing_docs)]
                $name<'a> { $($slot $field: $scalar = $default;)* $(@ $far_slot $far: $target;)* }
            }

            impl<'a> Options<'a> for $name<'a> {
                const TYPE: u8 = $number;
                const NAME: &'static str = stringify!($name);
            }
        )*

        impl Verifiable for Operator<'_> {
            fn run_verifier(verifier: &mut Verifier<'_, '_>, position: usize) -> Result<(), InvalidFlatbuffer> {
                verifier
                    .visit_table(position)?
                    .visit_field::<u32>("opcode_index", Self::OPCODE_INDEX, false)?
                    .visit_field::<ForwardsUOffset<Vector<'_, i32>>>("inputs", Self::INPUTS, false)?
                    .visit_field::<ForwardsUOffset<Vector<'_, i32>>>("outputs", Self::OUTPUTS, false)?
                    .visit_union::<u8, _>(
                        "builtin_options_type",
                        Self::OPTIONS_TYPE,
                        "builtin_options",
                        Self::OPTIONS,
                        false,
                        |number, verifier, position| match number {
                            $($number => verifier
                                .verify_union_variant::<ForwardsUOffset<$name<'_>>>(stringify!($name), position),)*
                            _ => Ok(()),
                        },
                    )?
                    .finish();
                Ok(())
            }
        }
    };
}

options! {
    1 Conv2DOptions {
        0 padding: i8 = 0;
        1 stride_w: i32 = 0;
        2 stride_h: i32 = 0;
        3 fused_activation_function: i8 = 0;
        4 dilation_w_factor: i32 = 1;
        5 dilation_h_factor: i32 = 1;
    }
    2 DepthwiseConv2DOptions {
        0 padding: i8 = 0;
        1 stride_w: i32 = 0;
        2 stride_h: i32 = 0;
        3 depth_multiplier: i32 = 0;
        4 fused_activation_function: i8 = 0;
        5 dilation_w_factor: i32 = 1;
        6 dilation_h_factor: i32 = 1;
    }
    5 Pool2DOptions {
        0 padding: i8 = 0;
        1 stride_w: i32 = 0;
        2 stride_h: i32 = 0;
        3 filter_width: i32 = 0;
        4 filter_height: i32 = 0;
        5 fused_activation_function: i8 = 0;
    }
    8 FullyConnectedOptions {
        0 fused_activation_function: i8 = 0;
        1 weights_format: i8 = 0;
    }
    9 SoftmaxOptions { 0 beta: f32 = 0.0; }
    10 ConcatenationOptions { 0 axis: i32 = 0; 1 fused_activation_function: i8 = 0; }
    11 AddOptions { 0 fused_activation_function: i8 = 0; 1 pot_scale_int16: bool = true; }
    12 L2NormOptions { 0 fused_activation_function: i8 = 0; }
    15 ResizeBilinearOptions { 2 align_corners: bool = false; 3 half_pixel_centers: bool = false; }
    17 ReshapeOptions { @ 0 new_shape: Vector<'a, i32>; }
    19 SpaceToDepthOptions { 0 block_size: i32 = 0; }
    21 MulOptions { 0 fused_activation_function: i8 = 0; }
    23 GatherOptions { 0 axis: i32 = 0; 1 batch_dims: i32 = 0; }
    27 ReducerOptions { 0 keep_dims: bool = false; }
    28 SubOptions { 0 fused_activation_function: i8 = 0; 1 pot_scale_int16: bool = true; }
    29 DivOptions { 0 fused_activation_function: i8 = 0; }
    30 SqueezeOptions { @ 0 squeeze_dims: Vector<'a, i32>; }
    32 StridedSliceOptions {
        0 begin_mask: i32 = 0;
        1 end_mask: i32 = 0;
        2 ellipsis_mask: i32 = 0;
        3 new_axis_mask: i32 = 0;
        4 shrink_axis_mask: i32 = 0;
        5 offset: bool = false;
    }
    35 SplitOptions { 0 num_splits: i32 = 0; }
    49 TransposeConvOptions {
        0 padding: i8 = 0;
        1 stride_w: i32 = 0;
        2 stride_h: i32 = 0;
        3 fused_activation_function: i8 = 0;
    }
    59 PackOptions { 1 axis: i32 = 0; }
    64 UnpackOptions { 0 num: i32 = 0; 1 axis: i32 = 0; }
    74 ResizeNearestNeighborOptions { 0 align_corners: bool = false; 1 half_pixel_centers: bool = false; }
    75 LeakyReluOptions { 0 alpha: f32 = 0.0; }
    77 MirrorPadOptions { 0 mode: i8 = 0; }
    79 SplitVOptions { 0 num_splits: i32 = 0; }
    94 DepthToSpaceOptions { 0 block_size: i32 = 0; }
    101 BatchMatMulOptions { 0 adj_x: bool = false; 1 adj_y: bool = false; }
    116 GeluOptions { 0 approximate: bool = false; }
}

/// The verified model of a file.
pub fn model(bytes: &[u8]) -> Result<Model<'_>, InvalidFlatbuffer> {
    // Tables may share what they point to; a file that shares more than writers do would grow while it is read.
    let max_apparent_size = bytes.len().saturating_mul(8).saturating_add(1 << 20);
    let options = VerifierOptions { max_apparent_size, ..VerifierOptions::default() };
    flatbuffers::root_with_opts::<Model<'_>>(&options, bytes)
}

/// Names of the built-in operators by number.
pub const OPERATORS: &[&str] = &[
    "ADD",
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "DEPTH_TO_SPACE",
    "DEQUANTIZE",
    "EMBEDDING_LOOKUP",
    "FLOOR",
    "FULLY_CONNECTED",
    "HASHTABLE_LOOKUP",
    "L2_NORMALIZATION",
    "L2_POOL_2D",
    "LOCAL_RESPONSE_NORMALIZATION",
    "LOGISTIC",
    "LSH_PROJECTION",
    "LSTM",
    "MAX_POOL_2D",
    "MUL",
    "RELU",
    "RELU_N1_TO_1",
    "RELU6",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RNN",
    "SOFTMAX",
    "SPACE_TO_DEPTH",
    "SVDF",
    "TANH",
    "CONCAT_EMBEDDINGS",
    "SKIP_GRAM",
    "CALL",
    "CUSTOM",
    "EMBEDDING_LOOKUP_SPARSE",
    "PAD",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "GATHER",
    "BATCH_TO_SPACE_ND",
    "SPACE_TO_BATCH_ND",
    "TRANSPOSE",
    "MEAN",
    "SUB",
    "DIV",
    "SQUEEZE",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "STRIDED_SLICE",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "EXP",
    "TOPK_V2",
    "SPLIT",
    "LOG_SOFTMAX",
    "DELEGATE",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "CAST",
    "PRELU",
    "MAXIMUM",
    "ARG_MAX",
    "MINIMUM",
    "LESS",
    "NEG",
    "PADV2",
    "GREATER",
    "GREATER_EQUAL",
    "LESS_EQUAL",
    "SELECT",
    "SLICE",
    "SIN",
    "TRANSPOSE_CONV",
    "SPARSE_TO_DENSE",
    "TILE",
    "EXPAND_DIMS",
    "EQUAL",
    "NOT_EQUAL",
    "LOG",
    "SUM",
    "SQRT",
    "RSQRT",
    "SHAPE",
    "POW",
    "ARG_MIN",
    "FAKE_QUANT",
    "REDUCE_PROD",
    "REDUCE_MAX",
    "PACK",
    "LOGICAL_OR",
    "ONE_HOT",
    "LOGICAL_AND",
    "LOGICAL_NOT",
    "UNPACK",
    "REDUCE_MIN",
    "FLOOR_DIV",
    "REDUCE_ANY",
    "SQUARE",
    "ZEROS_LIKE",
    "FILL",
    "FLOOR_MOD",
    "RANGE",
    "RESIZE_NEAREST_NEIGHBOR",
    "LEAKY_RELU",
    "SQUARED_DIFFERENCE",
    "MIRROR_PAD",
    "ABS",
    "SPLIT_V",
    "UNIQUE",
    "CEIL",
    "REVERSE_V2",
    "ADD_N",
    "GATHER_ND",
    "COS",
    "WHERE",
    "RANK",
    "ELU",
    "REVERSE_SEQUENCE",
    "MATRIX_DIAG",
    "QUANTIZE",
    "MATRIX_SET_DIAG",
    "ROUND",
    "HARD_SWISH",
    "IF",
    "WHILE",
    "NON_MAX_SUPPRESSION_V4",
    "NON_MAX_SUPPRESSION_V5",
    "SCATTER_ND",
    "SELECT_V2",
    "DENSIFY",
    "SEGMENT_SUM",
    "BATCH_MATMUL",
    "PLACEHOLDER_FOR_GREATER_OP_CODES",
    "CUMSUM",
    "CALL_ONCE",
    "BROADCAST_TO",
    "RFFT2D",
    "CONV_3D",
    "IMAG",
    "REAL",
    "COMPLEX_ABS",
    "HASHTABLE",
    "HASHTABLE_FIND",
    "HASHTABLE_IMPORT",
    "HASHTABLE_SIZE",
    "REDUCE_ALL",
    "CONV_3D_TRANSPOSE",
    "VAR_HANDLE",
    "READ_VARIABLE",
    "ASSIGN_VARIABLE",
    "BROADCAST_ARGS",
    "RANDOM_STANDARD_NORMAL",
    "BUCKETIZE",
    "RANDOM_UNIFORM",
    "MULTINOMIAL",
    "GELU",
    "DYNAMIC_UPDATE_SLICE",
    "RELU_0_TO_1",
    "UNSORTED_SEGMENT_PROD",
    "UNSORTED_SEGMENT_MAX",
    "UNSORTED_SEGMENT_SUM",
    "ATAN2",
    "UNSORTED_SEGMENT_MIN",
    "SIGN",
    "BITCAST",
    "BITWISE_XOR",
    "RIGHT_SHIFT",
    "STABLEHLO_LOGISTIC",
    "STABLEHLO_ADD",
    "STABLEHLO_DIVIDE",
    "STABLEHLO_MULTIPLY",
    "STABLEHLO_MAXIMUM",
    "STABLEHLO_RESHAPE",
    "STABLEHLO_CLAMP",
    "STABLEHLO_CONCATENATE",
    "STABLEHLO_BROADCAST_IN_DIM",
    "STABLEHLO_CONVOLUTION",
    "STABLEHLO_SLICE",
    "STABLEHLO_CUSTOM_CALL",
    "STABLEHLO_REDUCE",
    "STABLEHLO_ABS",
    "STABLEHLO_AND",
    "STABLEHLO_COSINE",
    "STABLEHLO_EXPONENTIAL",
    "STABLEHLO_FLOOR",
    "STABLEHLO_LOG",
    "STABLEHLO_MINIMUM",
    "STABLEHLO_NEGATE",
    "STABLEHLO_OR",
    "STABLEHLO_POWER",
    "STABLEHLO_REMAINDER",
    "STABLEHLO_RSQRT",
    "STABLEHLO_SELECT",
    "STABLEHLO_SUBTRACT",
    "STABLEHLO_TANH",
    "STABLEHLO_SCATTER",
    "STABLEHLO_COMPARE",
    "STABLEHLO_CONVERT",
    "STABLEHLO_DYNAMIC_SLICE",
    "STABLEHLO_DYNAMIC_UPDATE_SLICE",
    "STABLEHLO_PAD",
    "STABLEHLO_IOTA",
    "STABLEHLO_DOT_GENERAL",
    "STABLEHLO_REDUCE_WINDOW",
    "STABLEHLO_SORT",
    "STABLEHLO_WHILE",
    "STABLEHLO_GATHER",
    "STABLEHLO_TRANSPOSE",
    "DILATE",
    "STABLEHLO_RNG_BIT_GENERATOR",
    "REDUCE_WINDOW",
    "STABLEHLO_COMPOSITE",
    "STABLEHLO_SHIFT_LEFT",
    "STABLEHLO_CBRT",
    "STABLEHLO_CASE",
];
