//! What each operator of the file is in ONNX's operators.

mod elementwise;
mod image;
mod product;
mod quantize;
mod reduce;
mod select;
mod shape;

use super::import::{Builder, Site};
use super::schema as s;
use crate::error::{Error, Result};
use crate::graph::Clamp;

/// Adds the nodes of one operator.
///
/// # Errors
/// `op_unsupported` for operators without an importer; otherwise what is wrong with the operator, its options or operands.
pub fn import(b: &mut Builder<'_, '_>, site: Site<'_, '_>) -> Result<()> {
    let op = site.op;
    match op.kind {
        "CONV_2D" => product::convolution(b, site),
        "DEPTHWISE_CONV_2D" => product::depthwise(b, site),
        "TRANSPOSE_CONV" => product::transposed(b, site),
        "FULLY_CONNECTED" => product::fully_connected(b, site),
        "BATCH_MATMUL" => product::matrices(b, site),
        "AVERAGE_POOL_2D" => image::pool(b, site, "AveragePool"),
        "MAX_POOL_2D" => image::pool(b, site, "MaxPool"),
        "RESIZE_BILINEAR" => {
            let o = op.options::<s::ResizeBilinearOptions<'_>>()?;
            image::resize(b, site, "linear", o.align_corners(), o.half_pixel_centers())
        }
        "RESIZE_NEAREST_NEIGHBOR" => {
            let o = op.options::<s::ResizeNearestNeighborOptions<'_>>()?;
            image::resize(b, site, "nearest", o.align_corners(), o.half_pixel_centers())
        }
        "SPACE_TO_DEPTH" => {
            image::blocks(b, site, "SpaceToDepth", op.options::<s::SpaceToDepthOptions<'_>>()?.block_size())
        }
        "DEPTH_TO_SPACE" => {
            image::blocks(b, site, "DepthToSpace", op.options::<s::DepthToSpaceOptions<'_>>()?.block_size())
        }
        "ADD" => {
            let options = op.optional_options::<s::AddOptions<'_>>()?;
            elementwise::shifted_scales(b, site, options.is_none_or(|o| o.pot_scale_int16()))?;
            elementwise::binary(b, site, "Add", options.map(|o| o.fused_activation_function()))
        }
        "SUB" => {
            let options = op.optional_options::<s::SubOptions<'_>>()?;
            elementwise::shifted_scales(b, site, options.is_none_or(|o| o.pot_scale_int16()))?;
            elementwise::binary(b, site, "Sub", options.map(|o| o.fused_activation_function()))
        }
        "MUL" => {
            let fused = op.optional_options::<s::MulOptions<'_>>()?.map(|o| o.fused_activation_function());
            elementwise::binary(b, site, "Mul", fused)
        }
        "DIV" => {
            let fused = op.optional_options::<s::DivOptions<'_>>()?.map(|o| o.fused_activation_function());
            elementwise::binary(b, site, "Div", fused)
        }
        "MAXIMUM" => elementwise::binary(b, site, "Max", None),
        "MINIMUM" => elementwise::binary(b, site, "Min", None),
        "POW" => elementwise::binary(b, site, "Pow", None),
        "PRELU" => elementwise::binary(b, site, "PRelu", None),
        "SQUARE" => elementwise::square(b, site),
        "SQUARED_DIFFERENCE" => elementwise::squared_difference(b, site),
        "RSQRT" => elementwise::inverse_root(b, site),
        "RELU" => elementwise::unary(b, site, "Relu"),
        "RELU6" => elementwise::clip(b, site, 0.0, 6.0),
        "RELU_N1_TO_1" => elementwise::clip(b, site, -1.0, 1.0),
        "RELU_0_TO_1" => elementwise::clip(b, site, 0.0, 1.0),
        "LEAKY_RELU" => elementwise::leaky(b, site),
        "GELU" => elementwise::gelu(b, site),
        "LOGISTIC" => elementwise::unary(b, site, "Sigmoid"),
        "TANH" => elementwise::unary(b, site, "Tanh"),
        "HARD_SWISH" => elementwise::unary(b, site, "HardSwish"),
        "ELU" => elementwise::unary(b, site, "Elu"),
        "ABS" => elementwise::unary(b, site, "Abs"),
        "NEG" => elementwise::unary(b, site, "Neg"),
        "EXP" => elementwise::unary(b, site, "Exp"),
        "LOG" => elementwise::unary(b, site, "Log"),
        "SQRT" => elementwise::unary(b, site, "Sqrt"),
        "SIN" => elementwise::unary(b, site, "Sin"),
        "COS" => elementwise::unary(b, site, "Cos"),
        "FLOOR" => elementwise::unary(b, site, "Floor"),
        "CEIL" => elementwise::unary(b, site, "Ceil"),
        "ROUND" => elementwise::unary(b, site, "Round"),
        "SIGN" => elementwise::unary(b, site, "Sign"),
        "CAST" => quantize::cast(b, site),
        "QUANTIZE" => quantize::quantize(b, site),
        "DEQUANTIZE" => quantize::dequantize(b, site),
        "SOFTMAX" => reduce::softmax(b, site),
        "LOG_SOFTMAX" => reduce::rows(b, site, "LogSoftmax"),
        "L2_NORMALIZATION" => reduce::l2_normalization(b, site),
        "MEAN" => reduce::reduce(b, site, "ReduceMean"),
        "SUM" => reduce::reduce(b, site, "ReduceSum"),
        "REDUCE_MAX" => reduce::reduce(b, site, "ReduceMax"),
        "REDUCE_MIN" => reduce::reduce(b, site, "ReduceMin"),
        "ARG_MAX" => reduce::arg(b, site, "ArgMax"),
        "ARG_MIN" => reduce::arg(b, site, "ArgMin"),
        "CONCATENATION" => shape::concat(b, site),
        "PAD" | "PADV2" | "MIRROR_PAD" => shape::pad(b, site),
        "RESHAPE" => shape::reshape(b, site),
        "SQUEEZE" => shape::squeeze(b, site),
        "EXPAND_DIMS" => shape::expand_dims(b, site),
        "TRANSPOSE" => shape::transpose(b, site),
        "PACK" => shape::pack(b, site),
        "UNPACK" => shape::unpack(b, site),
        "TILE" => shape::repeat(b, site, "Tile"),
        "BROADCAST_TO" => shape::repeat(b, site, "Expand"),
        "SHAPE" => shape::shape(b, site),
        "SPLIT" | "SPLIT_V" => select::split(b, site),
        "SLICE" => select::slice(b, site),
        "STRIDED_SLICE" => select::strided_slice(b, site),
        "GATHER" => select::gather(b, site),
        "IF" | "WHILE" | "CALL_ONCE" => {
            Err(Error::unsupported("op_control_flow", format!("control flow ({})", op.kind))
                .help("convert the model without control flow"))
        }
        "VAR_HANDLE" | "READ_VARIABLE" | "ASSIGN_VARIABLE" => {
            Err(Error::unsupported("variable_tensor", "the model keeps values between runs"))
        }
        kind => Err(Error::unsupported("op_unsupported", format!("the operator {kind} is not understood"))),
    }
}

/// The bounds of a fused activation, by the schema's `ActivationFunctionType`.
fn fused(number: i8) -> Result<Option<Clamp>> {
    Ok(Some(match number {
        0 => return Ok(None),
        1 => Clamp { lo: 0.0, hi: f32::INFINITY },
        2 => Clamp { lo: -1.0, hi: 1.0 },
        3 => Clamp { lo: 0.0, hi: 6.0 },
        other => {
            let name = [(4, "TANH"), (5, "SIGN_BIT")].iter().find(|(n, _)| *n == other).map(|(_, name)| *name);
            let name = name.map_or(format!("{other}"), String::from);
            return Err(Error::unsupported("fused_activation", format!("the fused activation {name}")));
        }
    }))
}

/// Fails where some of the operands hold codes and others hold reals: kernels for both round ranges while they run.
fn uniform(b: &Builder<'_, '_>, tensors: &[usize]) -> Result<()> {
    let coded = |t: &usize| b.tensor(*t).encoding.is_some();
    if tensors.iter().any(coded) && !tensors.iter().all(coded) {
        let names: Vec<_> = tensors.iter().filter(|t| !coded(t)).map(|&t| format!("'{}'", b.tensor(t).name)).collect();
        let message = format!("{} hold reals beside operands that hold codes", names.join(", "));
        return Err(Error::unsupported("dynamic_range", message)
            .help("quantize weights and activations (full integer quantization)"));
    }
    Ok(())
}

/// The sizes of a tensor of four dimensions, `N H W C`.
fn image_shape(b: &Builder<'_, '_>, t: usize) -> Result<[usize; 4]> {
    let tensor = b.tensor(t);
    tensor.shape.as_slice().try_into().map_err(|_| {
        let message = format!("shape {:?} where four dimensions are needed", tensor.shape);
        Error::invalid("node_shape", message).at_tensor(&tensor.name)
    })
}

/// A number that must be 1 or more.
fn positive(what: &str, value: i32) -> Result<usize> {
    usize::try_from(value)
        .ok()
        .filter(|&v| v > 0)
        .ok_or_else(|| Error::invalid("node_options", format!("{what} is {value}, not a positive number")))
}
