//! `Encoding`, `quantize`, `dequantize` and `fake_quantize`.

use crate::array::{array, elements, to_numpy, to_tensor};
use crate::error::OrRaise;
use nputwin::Error;
use nputwin::encoding::{
    self as core, Formula, FormulaOptions, Granularity, QuantizeRule, Rounding, Scaling, ZeroPointOrder,
};
use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::fmt::Write;
use std::sync::Arc;

/// How the integers of a tensor stand for real numbers: `real = scale * (code - zero_point)`.
///
/// Args:
///     scale: Positive and finite; a number, or a sequence with one per channel or block.
///     zero_point: A number, or as many as scales.
///     bitwidth: 2 to 32.
///     signed: Whether codes are signed.
///     symmetric: Whether the producer asked for a symmetric grid (kept as information).
///     narrow_range: Whether the lowest code is left out (-127..=127).
///     axis: Axis of the tensor along which scales differ.
///     block_size: Elements along `axis` that share one scale; scales then lie in row-major order of the tensor's shape
///         with `axis` divided by `block_size`.
///
/// Raises:
///     InvalidError: A value is out of range, or counts do not fit.
///
/// Example:
///     >>> Encoding(0.5, 128).max
///     63.5
#[pyclass(frozen, module = "nputwin", name = "Encoding")]
pub struct PyEncoding(pub Arc<core::Encoding>);

/// One number or several.
#[derive(FromPyObject)]
pub enum OneOrMany<T> {
    /// A sequence or one-dimensional array; tried first, because arrays of one element pass for numbers.
    Many(Vec<T>),
    /// A scalar.
    One(T),
}

impl<T: Clone> OneOrMany<T> {
    fn repeated(self, count: usize) -> Vec<T> {
        match self {
            OneOrMany::One(value) => vec![value; count],
            OneOrMany::Many(values) => values,
        }
    }

    fn into_vec(self) -> Vec<T> {
        self.repeated(1)
    }
}

fn granularity(axis: Option<usize>, block_size: Option<usize>) -> nputwin::Result<Granularity> {
    match (axis, block_size) {
        (None, None) => Ok(Granularity::PerTensor),
        (Some(axis), None) => Ok(Granularity::PerChannel { axis }),
        (Some(axis), Some(block_size)) => Ok(Granularity::PerBlock { axis, block_size }),
        (None, Some(_)) => Err(Error::invalid("encoding_axis", "a block size needs an axis")),
    }
}

#[pymethods]
impl PyEncoding {
    #[new]
    #[pyo3(signature = (scale, zero_point=None, *, bitwidth=8, signed=false, symmetric=false, narrow_range=false, axis=None, block_size=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        scale: OneOrMany<f64>,
        zero_point: Option<OneOrMany<i64>>,
        bitwidth: u32,
        signed: bool,
        symmetric: bool,
        narrow_range: bool,
        axis: Option<usize>,
        block_size: Option<usize>,
    ) -> PyResult<Self> {
        let scale = scale.into_vec();
        let zero_point = zero_point.unwrap_or(OneOrMany::One(0)).repeated(scale.len());
        let granularity = granularity(axis, block_size).or_raise(py)?;
        let encoding =
            core::Encoding { scale, zero_point, bitwidth, signed, symmetric, narrow_range, granularity, lpbq: None };
        encoding.validate().or_raise(py)?;
        Ok(PyEncoding(Arc::new(encoding)))
    }

    /// The grid for reals from `min` to `max`, by a producer's formula.
    ///
    /// Args:
    ///     min: Smallest real; one per channel where `axis` is given.
    ///     max: Largest real.
    ///     bitwidth: 2 to 32.
    ///     signed: Signed codes.
    ///     symmetric: Zero in the middle of the grid.
    ///     narrow_range: Leave the lowest code out; needs `symmetric`.
    ///     unsigned_symmetric: Use all codes of the unsigned grid where a symmetric range has no negative part.
    ///     axis: Axis of the channels.
    ///     formula: "aimet_torch", "aimet_onnx", "aimet_cpp_2024", "closer_end" (TensorFlow Lite) or "nudged_range"
    ///         (Hexagon nnlib).
    ///
    /// Raises:
    ///     InvalidError: A range is not finite or not ordered, or the formula has no such grid.
    #[staticmethod]
    #[pyo3(signature = (min, max, *, bitwidth=8, signed=false, symmetric=false, narrow_range=false, unsigned_symmetric=false, axis=None, formula="aimet_torch"))]
    #[allow(clippy::too_many_arguments)]
    fn from_min_max(
        py: Python<'_>,
        min: OneOrMany<f64>,
        max: OneOrMany<f64>,
        bitwidth: u32,
        signed: bool,
        symmetric: bool,
        narrow_range: bool,
        unsigned_symmetric: bool,
        axis: Option<usize>,
        formula: &str,
    ) -> PyResult<Self> {
        let formula = word(py, "formula", formula, &FORMULAS)?;
        let options = FormulaOptions { formula, bitwidth, signed, symmetric, narrow_range, unsigned_symmetric };
        let (min, max) = (min.into_vec(), max.into_vec());
        if min.len() != max.len() {
            let message = format!("{} minima and {} maxima", min.len(), max.len());
            return Err(Error::invalid("encoding_range", message)).or_raise(py);
        }
        let grids: nputwin::Result<Vec<(f64, i64)>> =
            min.iter().zip(&max).map(|(&lo, &hi)| options.scale_and_zero_point(lo, hi)).collect();
        let (scale, zero_point) = grids.or_raise(py)?.into_iter().unzip();
        let granularity = granularity(axis, None).or_raise(py)?;
        let encoding =
            core::Encoding { scale, zero_point, bitwidth, signed, symmetric, narrow_range, granularity, lpbq: None };
        encoding.validate().or_raise(py)?;
        Ok(PyEncoding(Arc::new(encoding)))
    }

    /// Scales as a float64 array of one dimension.
    #[getter]
    fn scale<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyUntypedArray>> {
        array(py, vec![self.0.scale.len()], self.0.scale.clone())
    }

    /// Zero points as an int64 array of one dimension.
    #[getter]
    fn zero_point<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyUntypedArray>> {
        array(py, vec![self.0.zero_point.len()], self.0.zero_point.clone())
    }

    /// Bits of a code.
    #[getter]
    fn bitwidth(&self) -> u32 {
        self.0.bitwidth
    }

    /// Whether codes are signed.
    #[getter]
    fn signed(&self) -> bool {
        self.0.signed
    }

    /// Whether the producer asked for a symmetric grid.
    #[getter]
    fn symmetric(&self) -> bool {
        self.0.symmetric
    }

    /// Whether the lowest code is left out.
    #[getter]
    fn narrow_range(&self) -> bool {
        self.0.narrow_range
    }

    /// Axis along which scales differ; None per tensor.
    #[getter]
    fn axis(&self) -> Option<usize> {
        match self.0.granularity {
            Granularity::PerTensor => None,
            Granularity::PerChannel { axis } | Granularity::PerBlock { axis, .. } => Some(axis),
        }
    }

    /// Elements along `axis` that share a scale; None where encodings are not per block.
    #[getter]
    fn block_size(&self) -> Option<usize> {
        match self.0.granularity {
            Granularity::PerBlock { block_size, .. } => Some(block_size),
            _ => None,
        }
    }

    /// "per_tensor", "per_channel" or "per_block".
    #[getter]
    fn granularity(&self) -> &'static str {
        match self.0.granularity {
            Granularity::PerTensor => "per_tensor",
            Granularity::PerChannel { .. } => "per_channel",
            Granularity::PerBlock { .. } => "per_block",
        }
    }

    /// Smallest code.
    #[getter]
    fn qmin(&self) -> i64 {
        self.0.qmin()
    }

    /// Largest code.
    #[getter]
    fn qmax(&self) -> i64 {
        self.0.qmax()
    }

    /// Smallest real that has a code in any channel.
    #[getter]
    fn min(&self) -> f64 {
        self.0.min()
    }

    /// Largest real that has a code in any channel.
    #[getter]
    fn max(&self) -> f64 {
        self.0.max()
    }

    /// numpy's name of the type that holds the codes.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.storage_dtype().name()
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn __repr__(&self) -> String {
        let encoding = &self.0;
        let mut text = "Encoding(".to_string();
        let list = |items: Vec<String>| match items.len() {
            1 => items[0].clone(),
            2..=4 => format!("[{}]", items.join(", ")),
            n => format!("[{}, {}, ... {} of them]", items[0], items[1], n),
        };
        let scale = list(encoding.scale.iter().map(|s| format!("{s:?}")).collect());
        let zero_point = match encoding.zero_point.iter().all(|z| *z == encoding.zero_point[0]) {
            true => encoding.zero_point[0].to_string(),
            false => list(encoding.zero_point.iter().map(ToString::to_string).collect()),
        };
        // Writing into a String cannot fail.
        let _ = write!(text, "{scale}, {zero_point}, bitwidth={}", encoding.bitwidth);
        for (name, set) in
            [("signed", encoding.signed), ("symmetric", encoding.symmetric), ("narrow_range", encoding.narrow_range)]
        {
            if set {
                let _ = write!(text, ", {name}=True");
            }
        }
        if let Some(axis) = self.axis() {
            let _ = write!(text, ", axis={axis}");
        }
        if let Some(block_size) = self.block_size() {
            let _ = write!(text, ", block_size={block_size}");
        }
        text.push(')');
        text
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        if self.0.lpbq.is_some() {
            let message = "a low-power block encoding cannot be pickled";
            return Err(Error::unsupported("encoding_pickle", message)).or_raise(py);
        }
        let options = PyDict::new(py);
        options.set_item("bitwidth", self.0.bitwidth)?;
        options.set_item("signed", self.0.signed)?;
        options.set_item("symmetric", self.0.symmetric)?;
        options.set_item("narrow_range", self.0.narrow_range)?;
        options.set_item("axis", self.axis())?;
        options.set_item("block_size", self.block_size())?;
        Ok(((self.0.scale.clone(), self.0.zero_point.clone()).into_pyobject(py)?, options))
    }
}

/// Formulas by name.
pub const FORMULAS: [(&str, Formula); 5] = [
    ("aimet_torch", Formula::AimetTorch),
    ("aimet_onnx", Formula::AimetOnnx),
    ("aimet_cpp_2024", Formula::AimetCpp2024),
    ("closer_end", Formula::CloserEnd),
    ("nudged_range", Formula::NudgedRange),
];

const SCALINGS: [(&str, Scaling); 3] = [
    ("divide_f32", Scaling::DivideF32),
    ("reciprocal_f32", Scaling::ReciprocalF32),
    ("divide_f64", Scaling::DivideF64),
];

const ZERO_POINT_ORDERS: [(&str, ZeroPointOrder); 3] = [
    ("after_rounding", ZeroPointOrder::AfterRounding),
    ("before_rounding", ZeroPointOrder::BeforeRounding),
    ("before_rounding_from_lowest", ZeroPointOrder::BeforeRoundingFromLowest),
];

/// The value that `given` names.
pub fn word<T: Copy>(py: Python<'_>, option: &str, given: &str, known: &[(&str, T)]) -> PyResult<T> {
    let found = known.iter().find(|(name, _)| *name == given).map(|(_, value)| *value);
    found
        .ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            Error::invalid("option_unknown", format!("{option} '{given}' is not known"))
                .help(format!("known: {}", names.join(", ")))
        })
        .or_raise(py)
}

/// Codes of reals.
///
/// Args:
///     x: float32 array of any shape.
///     encoding: Grid of the codes.
///     rounding: What happens between two integers: "half_even", "half_away", "half_up", "half_down", "half_to_zero",
///         "half_odd", "floor", "ceil" or "trunc".
///     scaling: "divide_f32" (ONNX), "reciprocal_f32" (x * (1 / scale), as torch and AIMET's evaluation path do it) or
///         "divide_f64".
///     zero_point: When it is added: "after_rounding", "before_rounding" or "before_rounding_from_lowest".
///
/// Returns:
///     An array of the same shape and of `encoding.dtype`.
///
/// Raises:
///     InvalidError: An element is NaN, or scales do not fit the shape.
///
/// Example:
///     >>> quantize(np.float32([0.25, 0.75]), Encoding(0.5, 128))
///     array([128, 130], dtype=uint8)
#[pyfunction]
#[pyo3(signature = (x, encoding, *, rounding="half_even", scaling="divide_f32", zero_point="after_rounding"))]
pub fn quantize<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyUntypedArray>,
    encoding: &PyEncoding,
    rounding: &str,
    scaling: &str,
    zero_point: &str,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let rule = QuantizeRule {
        scaling: word(py, "scaling", scaling, &SCALINGS)?,
        rounding: word(py, "rounding", rounding, &Rounding::ALL.map(|mode| (mode.name(), mode)))?,
        zero_point: word(py, "zero_point", zero_point, &ZERO_POINT_ORDERS)?,
    };
    let x = to_tensor(x, "x")?;
    let encoding = encoding.0.clone();
    let codes = py.detach(|| {
        let codes = core::quantize(x.as_f32()?, x.shape(), &encoding, rule)?;
        encoding.codes_to_tensor(x.shape(), codes)
    });
    to_numpy(py, codes.or_raise(py)?)
}

/// Reals of codes: `float32(scale) * float32(code - zero_point)`.
///
/// Args:
///     codes: Integer array of any shape and type.
///     encoding: Grid of the codes.
///
/// Returns:
///     A float32 array of the same shape.
///
/// Raises:
///     InvalidError: A code lies outside the grid, or scales do not fit the shape.
#[pyfunction]
pub fn dequantize<'py>(
    py: Python<'py>,
    codes: &Bound<'py, PyUntypedArray>,
    encoding: &PyEncoding,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let codes = to_tensor(codes, "codes")?;
    let encoding = encoding.0.clone();
    let reals = py.detach(|| {
        let range = encoding.qmin()..=encoding.qmax();
        let wide = codes.to_i64()?;
        let outside = wide.iter().position(|c| !range.contains(c));
        if let Some(i) = outside {
            return Err(Error::invalid("encoding_code", format!("code {} is outside {range:?}", wide[i]))
                .at(nputwin::Location::Tensor { name: "codes".into(), index: Some(i) }));
        }
        let narrow: Result<Vec<i32>, _> = wide.iter().map(|&c| i32::try_from(c)).collect();
        let narrow = narrow
            .map_err(|_| Error::unsupported("encoding_codes", "codes of an unsigned 32-bit grid do not fit int32"))?;
        core::dequantize(&narrow, codes.shape(), &encoding)
    });
    array(py, codes.shape().to_vec(), reals.or_raise(py)?)
}

/// Quantize and dequantize in one pass, `scale * (saturate(half_even(x * (1 / scale)) + zero_point) - zero_point)` in
/// float32, and where the code lay in the grid before saturation.
///
/// Args:
///     x: float32 array of any shape; NaN stays NaN.
///     encoding: The grid.
///
/// Returns:
///     A float32 array and a bool array of the same shape.
///
/// Raises:
///     InvalidError: Scales do not fit the shape.
#[pyfunction]
pub fn fake_quantize<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyArrayDyn<f32>>,
    encoding: &PyEncoding,
) -> PyResult<(Bound<'py, PyUntypedArray>, Bound<'py, PyUntypedArray>)> {
    let shape = x.shape().to_vec();
    let encoding = encoding.0.clone();
    let rule = QuantizeRule {
        scaling: Scaling::ReciprocalF32,
        rounding: Rounding::HalfEven,
        zero_point: ZeroPointOrder::AfterRounding,
    };
    let view = x.try_readonly()?;
    let gathered;
    let data = match view.is_c_contiguous() {
        true => view.as_slice()?,
        false => {
            gathered = elements(x)?;
            &gathered
        }
    };
    let out = py.detach(|| core::fake_quantize(data, &shape, &encoding, rule)).or_raise(py)?;
    Ok((array(py, shape.clone(), out.values)?, array(py, shape, out.inside)?))
}
