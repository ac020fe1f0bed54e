//! The 32-bit bias of a QLinear operator: its integers count units of `scale_x · scale_w`.

use super::QlinearWriter;
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::graph::TensorId;
use crate::tensor::{DType, Data, Tensor};

impl QlinearWriter<'_> {
    /// The name of the bias in units of `unit`, one per channel or one for all. The graph's integers serve where they
    /// count those units; else its reals are rounded half to even.
    ///
    /// # Errors
    /// `write_bias` where the shape of the bias does not fit the units or a real is not finite.
    pub(super) fn bias(&mut self, t: TensorId, unit: &[f64]) -> Result<String> {
        let info = &self.graph.tensors[t];
        if let (Some(codes), Some(encoding)) = (&info.codes, &info.encoding)
            && codes.dtype() == DType::I32
            && counts(encoding, unit)
        {
            return self.codes(t);
        }
        let wrong = |message: String| Error::unsupported("write_bias", message).at_tensor(&info.name);
        let Some(constant) = &info.constant else { return Err(wrong("the bias is not constant".into())) };
        if unit.len() > 1 && constant.shape().last() != Some(&unit.len()) {
            return Err(wrong(format!("a bias of shape {:?} for {} channels", constant.shape(), unit.len())));
        }
        let values = constant.as_f32()?;
        if let Some(v) = values.iter().find(|v| !v.is_finite()) {
            return Err(wrong(format!("bias {v}")));
        }
        let code = |(i, v): (usize, &f32)| {
            let exact = f64::from(*v) / unit[i % unit.len()];
            exact.round_ties_even().clamp(i32::MIN.into(), i32::MAX.into()) as i32
        };
        let codes = Data::I32(values.iter().enumerate().map(code).collect());
        let codes = Tensor::new(constant.shape(), codes)?;
        self.initializer(format!("{}_quantized", info.name), DType::I32, &codes)
    }
}

/// Whether integers of `encoding` count units of `unit`. Files hold the product of two scales as a float32 near it.
fn counts(encoding: &Encoding, unit: &[f64]) -> bool {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= b.abs() * f64::from(f32::EPSILON);
    encoding.zero_point.iter().all(|&z| z == 0)
        && encoding.scale.len() == unit.len()
        && encoding.scale.iter().zip(unit).all(near)
}
