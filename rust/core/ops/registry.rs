//! The table of operators: one line each.

use super::Op;
use super::activation::{self, Gelu, PRelu, Parametric};
use super::arithmetic::{Arithmetic, Binary, Mod, Pow, Variadic};
use super::cast::Cast;
use super::clip::Clip;
use super::code_maps::{LookUp, Requantize};
use super::concat::{Concat, Split};
use super::conv::Conv;
use super::conv_transpose::ConvTranspose;
use super::elementwise::{self, Function, NumberFunction, Test};
use super::expand::{Expand, Tile};
use super::gather::Gather;
use super::logic::{Compare, Logical, Not, Where};
use super::matmul::{Gemm, MatMul};
use super::normalization::{BatchNormalization, GroupNormalization, LayerNormalization};
use super::pad::Pad;
use super::pool::Pool;
use super::reduce::{ArgExtreme, Reduce};
use super::reshape::{Dropout, Reshape};
use super::resize::Resize;
use super::shape::{ConstantOfShape, Extent, Range};
use super::slice::Slice;
use super::softmax::Softmax;
use super::transpose::{Blocks, Transpose};
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
    ("And", &Logical(|a, b| a & b)),
    ("ArgMax", &ArgExtreme { largest: true }),
    ("ArgMin", &ArgExtreme { largest: false }),
    ("Asin", &Function(libm::asin)),
    ("Asinh", &Function(libm::asinh)),
    ("Atan", &Function(libm::atan)),
    ("Atanh", &Function(libm::atanh)),
    ("AveragePool", &Pool { average: true, global: false }),
    ("BatchNormalization", &BatchNormalization),
    ("Cast", &Cast::To),
    ("CastLike", &Cast::Like),
    ("Ceil", &Function(libm::ceil)),
    ("Celu", &Parametric { attributes: &[("alpha", 1.0)], function: activation::celu }),
    ("Clip", &Clip),
    ("Concat", &Concat),
    ("ConstantOfShape", &ConstantOfShape),
    ("Conv", &Conv),
    ("ConvTranspose", &ConvTranspose),
    ("Cos", &Function(libm::cos)),
    ("Cosh", &Function(libm::cosh)),
    ("DepthToSpace", &Blocks::DepthToSpace),
    ("Div", &Binary(Arithmetic::Div)),
    ("Dropout", &Dropout),
    ("Elu", &Parametric { attributes: &[("alpha", 1.0)], function: activation::elu }),
    ("Equal", &Compare(|o| o == Some(Ordering::Equal))),
    ("Erf", &Function(libm::erf)),
    ("Exp", &Function(libm::exp)),
    ("Expand", &Expand),
    ("Flatten", &Reshape::Flatten),
    ("Floor", &Function(libm::floor)),
    ("Gather", &Gather::Slices),
    ("GatherElements", &Gather::Elements),
    ("Gelu", &Gelu),
    ("Gemm", &Gemm),
    ("GlobalAveragePool", &Pool { average: true, global: true }),
    ("GlobalMaxPool", &Pool { average: false, global: true }),
    ("Greater", &Compare(|o| o == Some(Ordering::Greater))),
    ("GreaterOrEqual", &Compare(|o| matches!(o, Some(Ordering::Greater | Ordering::Equal)))),
    ("GroupNormalization", &GroupNormalization::Group),
    ("HardSigmoid", &Parametric { attributes: &[("alpha", 0.2), ("beta", 0.5)], function: activation::hard_sigmoid }),
    ("HardSwish", &Function(elementwise::hard_swish)),
    ("Identity", &Reshape::Identity),
    ("InstanceNormalization", &GroupNormalization::Instance),
    ("IsNaN", &Test(f64::is_nan)),
    ("LayerNormalization", &LayerNormalization),
    ("LeakyRelu", &Parametric { attributes: &[("alpha", 0.01)], function: activation::leaky_relu }),
    ("Less", &Compare(|o| o == Some(Ordering::Less))),
    ("LessOrEqual", &Compare(|o| matches!(o, Some(Ordering::Less | Ordering::Equal)))),
    ("Log", &Function(libm::log)),
    ("LogSoftmax", &Softmax { logarithm: true }),
    ("LpNormalization", &super::lp_normalization::LpNormalization),
    ("MatMul", &MatMul),
    ("Max", &Variadic { op: Arithmetic::Max, mean: false }),
    ("MaxPool", &Pool { average: false, global: false }),
    ("Mean", &Variadic { op: Arithmetic::Add, mean: true }),
    ("Min", &Variadic { op: Arithmetic::Min, mean: false }),
    ("Mish", &Function(elementwise::mish)),
    ("Mod", &Mod),
    ("Mul", &Binary(Arithmetic::Mul)),
    ("Neg", &NumberFunction { real: |x| -x, integer: |x| -x }),
    ("Not", &Not),
    ("Or", &Logical(|a, b| a | b)),
    ("PRelu", &PRelu),
    ("Pad", &Pad),
    ("Pow", &Pow),
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
    ("Round", &Function(elementwise::round)),
    ("Selu", &Parametric { attributes: &[("alpha", 1.673_263_2), ("gamma", 1.050_701)], function: activation::selu }),
    ("Shape", &Extent::Shape),
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
    ("Swish", &Parametric { attributes: &[("alpha", 1.0)], function: activation::swish }),
    ("Tan", &Function(libm::tan)),
    ("Tanh", &Function(libm::tanh)),
    ("ThresholdedRelu", &Parametric { attributes: &[("alpha", 1.0)], function: activation::thresholded_relu }),
    ("Tile", &Tile),
    ("Transpose", &Transpose),
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
