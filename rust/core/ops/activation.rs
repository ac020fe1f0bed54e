//! Activations with attributes or a second input, on reals. Evaluated in f64, rounded once.

use super::broadcast::Broadcast;
use super::cast::cast;
use super::closure::{input, kernel, shaped};
use super::element::{Element, Real, by_class};
use super::elementwise::{reals, sigmoid};
use super::{Facts, Inferred, Kernel, Op, floats, signature};
use crate::error::{Error, Result};
use crate::kernels::Engine;
use crate::tensor::{DType, Data, Tensor};

/// A function of reals with float attributes.
pub struct Parametric {
    /// Names and defaults of the attributes.
    pub attributes: &'static [(&'static str, f32)],
    /// The function of the element and the attributes in their order.
    pub function: fn(f64, &[f64]) -> f64,
}

impl Op for Parametric {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        let names: Vec<&str> = self.attributes.iter().map(|a| a.0).collect();
        signature::check(facts, 1..=1, 1..=1, &names)?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        self.values(facts)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let values = self.values(facts)?;
        let function = self.function;
        reals(move |x| function(x, &values))
    }
}

impl Parametric {
    fn values(&self, facts: &Facts<'_>) -> Result<Vec<f64>> {
        self.attributes.iter().map(|&(name, default)| Ok(facts.node.float(name, default)?.into())).collect()
    }
}

/// `x` where `x ≥ 0`, else `alpha · x`.
pub fn leaky_relu(x: f64, a: &[f64]) -> f64 {
    if x < 0.0 { a[0] * x } else { x }
}

/// `x` where `x > 0`, else `alpha · (e^x - 1)`.
pub fn elu(x: f64, a: &[f64]) -> f64 {
    if x < 0.0 { a[0] * libm::expm1(x) } else { x }
}

/// `gamma · x` where `x > 0`, else `gamma · alpha · (e^x - 1)`.
pub fn selu(x: f64, a: &[f64]) -> f64 {
    a[1] * elu(x, &a[..1])
}

/// `max(0, x) + min(0, alpha · (e^(x / alpha) - 1))`.
pub fn celu(x: f64, a: &[f64]) -> f64 {
    if x < 0.0 { a[0] * libm::expm1(x / a[0]) } else { x }
}

/// `max(0, min(1, alpha · x + beta))`.
pub fn hard_sigmoid(x: f64, a: &[f64]) -> f64 {
    (a[0] * x + a[1]).clamp(0.0, 1.0)
}

/// `x` where `x > alpha`, else 0.
pub fn thresholded_relu(x: f64, a: &[f64]) -> f64 {
    if x > a[0] { x } else { 0.0 }
}

/// `x / (1 + e^(-alpha · x))`.
pub fn swish(x: f64, a: &[f64]) -> f64 {
    x * sigmoid(a[0] * x)
}

/// Gelu: exact, or with the tanh approximation.
pub struct Gelu;

/// `x / 2 · (1 + erf(x / √2))`.
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`.
pub fn gelu_tanh(x: f64) -> f64 {
    let root = (2.0 * std::f64::consts::FRAC_1_PI).sqrt();
    0.5 * x * (1.0 + libm::tanh(root * (x + 0.044715 * x * x * x)))
}

impl Gelu {
    fn function(facts: &Facts<'_>) -> Result<fn(f64) -> f64> {
        match facts.node.string("approximate", "none")? {
            "none" => Ok(gelu),
            "tanh" => Ok(gelu_tanh),
            other => Err(facts.invalid(format!("approximate '{other}' is neither 'none' nor 'tanh'"))),
        }
    }
}

impl Op for Gelu {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["approximate"])?;
        let x = facts.input(0)?;
        signature::float(facts, x)?;
        Self::function(facts)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        reals(Self::function(facts)?)
    }
}

/// Shrink: `x + bias` below `-lambd`, `x - bias` above `lambd`, 0 between. Integers are computed as reals and truncated.
pub struct Shrink;

impl Op for Shrink {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 1..=1, 1..=1, &["bias", "lambd"])?;
        let x = facts.input(0)?;
        if x.dtype == DType::Bool {
            return Err(facts.invalid("booleans have no arithmetic"));
        }
        facts.node.float("bias", 0.0)?;
        facts.node.float("lambd", 0.5)?;
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let (bias, limit) = (f64::from(facts.node.float("bias", 0.0)?), f64::from(facts.node.float("lambd", 0.5)?));
        kernel(move |context, inputs| {
            let x = input(inputs, 0)?;
            let f = |v: f64| match v {
                _ if v < -limit => v + bias,
                _ if v > limit => v - bias,
                _ => 0.0,
            };
            let values = Data::F64(x.to_f64().into_iter().map(f).collect());
            Ok([Tensor::new(x.shape(), cast(context.engine(), &values, x.dtype())?)?].into())
        })
    }
}

/// SwiGLU: `a · sigmoid(alpha · a) · b`; both inputs have one shape.
pub struct SwiGlu;

impl Op for SwiGlu {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &["alpha"])?;
        let (a, b) = (facts.input(0)?, facts.input(1)?);
        signature::float(facts, a)?;
        signature::same_dtype(facts, a, b)?;
        signature::shape(facts, b, &a.shape)?;
        facts.node.float("alpha", 1.0)?;
        Ok(vec![(a.dtype, a.shape.clone())])
    }

    fn float(&self, facts: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        let alpha = f64::from(facts.node.float("alpha", 1.0)?);
        let shape = facts.input(0)?.shape.clone();
        kernel(move |_, inputs| {
            let (a, b) = (shaped(inputs, 0, &shape)?, shaped(inputs, 1, &shape)?);
            let y = a.to_f64().iter().zip(b.to_f64()).map(|(&a, b)| swish(a, &[alpha]) * b).collect();
            Ok([floats::write_f64(&shape, y, a.dtype())?].into())
        })
    }
}

/// PRelu: `x` where `x ≥ 0`, else `slope · x`; the slope broadcasts to `x`.
pub struct PRelu;

impl Op for PRelu {
    fn infer(&self, facts: &Facts<'_>) -> Result<Vec<Inferred>> {
        signature::check(facts, 2..=2, 1..=1, &[])?;
        let (x, slope) = (facts.input(0)?, facts.input(1)?);
        signature::float(facts, x)?;
        signature::same_dtype(facts, x, slope)?;
        if Broadcast::new(&[&x.shape, &slope.shape])?.shape() != x.shape {
            return Err(facts.invalid(format!("slope of {:?} does not broadcast to {:?}", slope.shape, x.shape)));
        }
        Ok(vec![(x.dtype, x.shape.clone())])
    }

    fn float(&self, _: &Facts<'_>) -> Result<Box<dyn Kernel>> {
        fn typed<T: Real>(engine: Engine<'_>, plan: &Broadcast, x: &[T], slope: &Data) -> Option<Data> {
            let f = |x: T, s: T| {
                let v = x.to_f64();
                if v < 0.0 { T::from_f64(s.to_f64() * v) } else { x }
            };
            Some(T::wrap(plan.zip(engine, x, <T as Element>::view(slope)?, f)))
        }
        kernel(|context, inputs| {
            let (x, slope) = (input(inputs, 0)?, input(inputs, 1)?);
            let plan = Broadcast::new(&[x.shape(), slope.shape()])?;
            let data = by_class!(x.data(), v =>
                real typed(context.engine(), &plan, v, slope.data()),
                integer v.first().and(None),
                boolean v.first().and(None),
            );
            let data = data.ok_or_else(|| Error::invalid("tensor_dtype", "PRelu needs floats of one type"))?;
            Ok([Tensor::new(plan.shape(), data)?].into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_gelu() {
        assert_eq!((gelu(0.0), gelu_tanh(0.0)), (0.0, 0.0));
        assert!((gelu(1.0) - 0.841344746068543).abs() < 1e-15);
        assert!((gelu_tanh(1.0) - 0.8411919906082768).abs() < 1e-15);
        assert_eq!(gelu(-50.0), 0.0);
    }
}
