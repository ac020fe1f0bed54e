//! The table of operators: one line each.

use super::Op;
use super::activation::{self, Gelu, PRelu, Parametric, Shrink, SwiGlu};
use super::arithmetic::{Arithmetic, Binary, Mod, Pow, Variadic};
use super::attention::{Attention, RotaryEmbedding};
use super::bits::{BitCast, BitShift, Bitwise, BitwiseNot};
use super::cast::Cast;
use super::center_crop_pad::CenterCropPad;
use super::clip::Clip;
use super::code_maps::{LookUp, Requantize};
use super::concat::{Concat, Split};
use super::conv::Conv;
use super::conv_transpose::ConvTranspose;
use super::cumulative::Cumulative;
use super::deform_conv::{CausalConvWithState, Col2Im, DeformConv};
use super::det::Det;
use super::detection::{NonMaxSuppression, RoiAlign};
use super::dynamic_quantization::{ConvInteger, DynamicQuantizeLinear, MatMulInteger};
use super::einsum::Einsum;
use super::elementwise::{self, Function, IsInf, NumberFunction, Test};
use super::expand::{Expand, Tile};
use super::gather::{Gather, GatherNd};
use super::grid_sample::{AffineGrid, GridSample};
use super::logic::{Compare, Logical, Not, Where};
use super::lp_pool::{LpPool, MaxUnpool};
use super::lrn::{Lrn, MeanVarianceNormalization, RmsNormalization};
use super::matmul::{Gemm, MatMul};
use super::normalization::{BatchNormalization, GroupNormalization, LayerNormalization};
use super::one_hot::{Hardmax, OneHot};
use super::pad::Pad;
use super::pool::Pool;
use super::recurrent::Recurrent;
use super::reduce::{ArgExtreme, Reduce};
use super::reshape::{Dropout, Reshape};
use super::resize::Resize;
use super::scatter::{ReverseSequence, ScatterElements, ScatterNd, TensorScatter};
use super::selection::{Compress, NonZero, TopK, Unique};
use super::shape::{ConstantOfShape, Extent, Range};
use super::signal::{self, CosineWindow, Dft, Stft};
use super::slice::Slice;
use super::softmax::Softmax;
use super::transpose::{Blocks, Transpose};
use super::triangle::{EyeLike, Trilu};
use std::cmp::Ordering;

/// The operator of a name in a domain; `ai.onnx` is the empty domain.
pub fn find(domain: &str, op_type: &str) -> Option<&'static dyn Op> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    all().find(|entry| (entry.0, entry.1) == (domain, op_type)).map(|entry| entry.2)
}

/// Every operator with its domain and name.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static dyn Op)> {
    let domains = [("", ONNX), ("nputwin", OWN)];
    domains.into_iter().flat_map(|(domain, ops)| ops.iter().map(move |&(name, op)| (domain, name, op)))
}

/// What a graph needs beside ONNX's operators.
static OWN: &[(&str, &dyn Op)] = &[("Identity", &Reshape::Identity), ("LookUp", &LookUp), ("Requantize", &Requantize)];

/// ONNX's own operators.
static ONNX: &[(&str, &dyn Op)] = &[
    ("Abs", &NumberFunction { real: f64::abs, integer: i128::abs }),
    ("Acos", &Function(libm::acos)),
    ("Acosh", &Function(libm::acosh)),
    ("Add", &Binary(Arithmetic::Add)),
    ("AffineGrid", &AffineGrid),
    ("And", &Logical(|a, b| a & b)),
    ("ArgMax", &ArgExtreme { largest: true }),
    ("ArgMin", &ArgExtreme { largest: false }),
    ("Asin", &Function(libm::asin)),
    ("Asinh", &Function(libm::asinh)),
    ("Atan", &Function(libm::atan)),
    ("Atanh", &Function(libm::atanh)),
    ("Attention", &Attention),
    ("AveragePool", &Pool { average: true, global: false }),
    ("BatchNormalization", &BatchNormalization),
    ("BitCast", &BitCast),
    ("BitShift", &BitShift),
    ("BitwiseAnd", &Bitwise(|a, b| a & b)),
    ("BitwiseNot", &BitwiseNot),
    ("BitwiseOr", &Bitwise(|a, b| a | b)),
    ("BitwiseXor", &Bitwise(|a, b| a ^ b)),
    ("BlackmanWindow", &CosineWindow(&[0.42, -0.5, 0.08])),
    ("Cast", &Cast::To),
    ("CastLike", &Cast::Like),
    ("CausalConvWithState", &CausalConvWithState),
    ("Ceil", &Function(libm::ceil)),
    ("Celu", &Parametric { attributes: &[("alpha", 1.0)], function: activation::celu }),
    ("CenterCropPad", &CenterCropPad),
    ("Clip", &Clip),
    ("Col2Im", &Col2Im),
    ("Compress", &Compress),
    ("Concat", &Concat),
    ("ConstantOfShape", &ConstantOfShape),
    ("Conv", &Conv),
    ("ConvInteger", &ConvInteger),
    ("ConvTranspose", &ConvTranspose),
    ("Cos", &Function(libm::cos)),
    ("Cosh", &Function(libm::cosh)),
    ("CumProd", &Cumulative::Product),
    ("CumSum", &Cumulative::Sum),
    ("DFT", &Dft),
    ("DeformConv", &DeformConv),
    ("DepthToSpace", &Blocks::DepthToSpace),
    ("Det", &Det),
    ("Div", &Binary(Arithmetic::Div)),
    ("Dropout", &Dropout),
    ("DynamicQuantizeLinear", &DynamicQuantizeLinear),
    ("Einsum", &Einsum),
    ("Elu", &Parametric { attributes: &[("alpha", 1.0)], function: activation::elu }),
    ("Equal", &Compare(|o| o == Some(Ordering::Equal))),
    ("Erf", &Function(libm::erf)),
    ("Exp", &Function(libm::exp)),
    ("Expand", &Expand),
    ("EyeLike", &EyeLike),
    ("Flatten", &Reshape::Flatten),
    ("Floor", &Function(libm::floor)),
    ("GRU", &Recurrent::Gru),
    ("Gather", &Gather::Slices),
    ("GatherElements", &Gather::Elements),
    ("GatherND", &GatherNd),
    ("Gelu", &Gelu),
    ("Gemm", &Gemm),
    ("GlobalAveragePool", &Pool { average: true, global: true }),
    ("GlobalLpPool", &LpPool { global: true }),
    ("GlobalMaxPool", &Pool { average: false, global: true }),
    ("Greater", &Compare(|o| o == Some(Ordering::Greater))),
    ("GreaterOrEqual", &Compare(|o| matches!(o, Some(Ordering::Greater | Ordering::Equal)))),
    ("GridSample", &GridSample),
    ("GroupNormalization", &GroupNormalization::Group),
    ("HammingWindow", &CosineWindow(&signal::HAMMING)),
    ("HannWindow", &CosineWindow(&[0.5, -0.5])),
    ("HardSigmoid", &Parametric { attributes: &[("alpha", 0.2), ("beta", 0.5)], function: activation::hard_sigmoid }),
    ("HardSwish", &Function(elementwise::hard_swish)),
    ("Hardmax", &Hardmax),
    ("Identity", &Reshape::Identity),
    ("InstanceNormalization", &GroupNormalization::Instance),
    ("IsInf", &IsInf),
    ("IsNaN", &Test(f64::is_nan)),
    ("LRN", &Lrn),
    ("LSTM", &Recurrent::Lstm),
    ("LayerNormalization", &LayerNormalization),
    ("LeakyRelu", &Parametric { attributes: &[("alpha", 0.01)], function: activation::leaky_relu }),
    ("Less", &Compare(|o| o == Some(Ordering::Less))),
    ("LessOrEqual", &Compare(|o| matches!(o, Some(Ordering::Less | Ordering::Equal)))),
    ("LinearAttention", &super::linear_attention::LinearAttention),
    ("Log", &Function(libm::log)),
    ("LogSoftmax", &Softmax { logarithm: true }),
    ("LpNormalization", &super::lp_normalization::LpNormalization),
    ("LpPool", &LpPool { global: false }),
    ("MatMul", &MatMul),
    ("MatMulInteger", &MatMulInteger),
    ("Max", &Variadic { op: Arithmetic::Max, mean: false }),
    ("MaxPool", &Pool { average: false, global: false }),
    ("MaxUnpool", &MaxUnpool),
    ("Mean", &Variadic { op: Arithmetic::Add, mean: true }),
    ("MeanVarianceNormalization", &MeanVarianceNormalization),
    ("Min", &Variadic { op: Arithmetic::Min, mean: false }),
    ("Mish", &Function(elementwise::mish)),
    ("Mod", &Mod),
    ("Mul", &Binary(Arithmetic::Mul)),
    ("Neg", &NumberFunction { real: |x| -x, integer: |x| -x }),
    ("NonMaxSuppression", &NonMaxSuppression),
    ("NonZero", &NonZero),
    ("Not", &Not),
    ("OneHot", &OneHot),
    ("Or", &Logical(|a, b| a | b)),
    ("PRelu", &PRelu),
    ("Pad", &Pad),
    ("Pow", &Pow),
    ("RMSNormalization", &RmsNormalization),
    ("RNN", &Recurrent::Rnn),
    ("Range", &Range),
    ("Reciprocal", &Function(elementwise::reciprocal)),
    ("ReduceL1", &Reduce::L1),
    ("ReduceL2", &Reduce::L2),
    ("ReduceLogSum", &Reduce::LogSum),
    ("ReduceLogSumExp", &Reduce::LogSumExp),
    ("ReduceMax", &Reduce::Max),
    ("ReduceMean", &Reduce::Mean),
    ("ReduceMin", &Reduce::Min),
    ("ReduceProd", &Reduce::Prod),
    ("ReduceSum", &Reduce::Sum),
    ("ReduceSumSquare", &Reduce::SumSquare),
    ("Relu", &NumberFunction { real: elementwise::relu, integer: |x| x.max(0) }),
    ("Reshape", &Reshape::Reshape),
    ("Resize", &Resize::Resize),
    ("ReverseSequence", &ReverseSequence),
    ("RoiAlign", &RoiAlign),
    ("RotaryEmbedding", &RotaryEmbedding),
    ("Round", &Function(elementwise::round)),
    ("STFT", &Stft),
    ("Scatter", &ScatterElements),
    ("ScatterElements", &ScatterElements),
    ("ScatterND", &ScatterNd),
    ("Selu", &Parametric { attributes: &[("alpha", 1.673_263_2), ("gamma", 1.050_701)], function: activation::selu }),
    ("Shape", &Extent::Shape),
    ("Shrink", &Shrink),
    ("Sigmoid", &Function(elementwise::sigmoid)),
    ("Sign", &NumberFunction { real: elementwise::sign, integer: i128::signum }),
    ("Sin", &Function(libm::sin)),
    ("Sinh", &Function(libm::sinh)),
    ("Size", &Extent::Size),
    ("Slice", &Slice),
    ("Softmax", &Softmax { logarithm: false }),
    ("Softplus", &Function(elementwise::softplus)),
    ("Softsign", &Function(elementwise::softsign)),
    ("SpaceToDepth", &Blocks::SpaceToDepth),
    ("Split", &Split),
    ("Sqrt", &Function(elementwise::sqrt)),
    ("Squeeze", &Reshape::Squeeze),
    ("Sub", &Binary(Arithmetic::Sub)),
    ("Sum", &Variadic { op: Arithmetic::Add, mean: false }),
    ("SwiGLU", &SwiGlu),
    ("Swish", &Parametric { attributes: &[("alpha", 1.0)], function: activation::swish }),
    ("Tan", &Function(libm::tan)),
    ("Tanh", &Function(libm::tanh)),
    ("TensorScatter", &TensorScatter),
    ("ThresholdedRelu", &Parametric { attributes: &[("alpha", 1.0)], function: activation::thresholded_relu }),
    ("Tile", &Tile),
    ("TopK", &TopK),
    ("Transpose", &Transpose),
    ("Trilu", &Trilu),
    ("Unique", &Unique),
    ("Unsqueeze", &Reshape::Unsqueeze),
    ("Upsample", &Resize::Upsample),
    ("Where", &Where),
    ("Xor", &Logical(|a, b| a ^ b)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!([ONNX, OWN].iter().all(|ops| ops.windows(2).all(|w| w[0].0 < w[1].0)));
        assert!(find("", "Conv").is_some() && find("ai.onnx", "Conv").is_some());
        assert!(find("nputwin", "Identity").is_some());
        assert!(find("nputwin", "Conv").is_none() && find("", "Conw").is_none());
    }
}
