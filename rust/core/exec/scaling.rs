//! Products with a positive constant scalar where the target scales the grid: the codes stay, the scale changes.

use crate::encoding::{Encoding, Granularity};
use crate::graph::{Graph, Node, TensorId};
use crate::spec::Placement;
use crate::tensor::Tensor;

/// Relative difference below which two scales are one: files hold them with the digits of float32.
const NEAR: f64 = 1e-6;

/// What a node scales, and by how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// The tensor that is scaled.
    pub from: TensorId,
    /// The constant.
    pub constant: TensorId,
    /// What the scale is multiplied with.
    pub factor: f64,
}

impl Scaling {
    /// The scaling that a node is, where the placement says that its operator scales grids. `value` gives constants; one with
    /// an encoding of its own is no number but an operand.
    pub fn of<'v>(
        graph: &Graph,
        placement: &Placement,
        node: &Node,
        value: impl Fn(TensorId) -> Option<&'v Tensor>,
    ) -> Option<Scaling> {
        if !placement.scales_grid(&node.op_type) || !node.domain.is_empty() || node.clamp.is_some() {
            return None;
        }
        let [Some(a), Some(b)] = node.inputs[..] else { return None };
        let number = |t: TensorId| {
            let tensor = value(t).filter(|v| v.len() == 1 && v.shape().len() < 2 && v.dtype().is_float())?;
            let number = tensor.to_f64()[0];
            (graph.tensors[t].encoding.is_none() && number.is_finite() && number > 0.0).then_some(number)
        };
        let (from, constant, factor) = match (node.op_type.as_str(), number(a), number(b)) {
            ("Mul", None, Some(b_value)) => (a, b, b_value),
            ("Mul", Some(a_value), None) => (b, a, a_value),
            ("Div", None, Some(b_value)) => (a, b, 1.0 / b_value),
            _ => return None,
        };
        value(from).is_none().then_some(Scaling { from, constant, factor })
    }

    /// The encoding of the result; `None` where its scale is none, or where channels have scales of their own.
    pub fn encoding(&self, from: &Encoding) -> Option<Encoding> {
        let scaled = Encoding { scale: from.scale.iter().map(|s| s * self.factor).collect(), ..from.clone() };
        (from.granularity == Granularity::PerTensor && scaled.validate().is_ok()).then_some(scaled)
    }

    /// Whether codes of `from` are codes of `to`.
    pub fn keeps_codes(&self, from: &Encoding, to: &Encoding) -> bool {
        self.encoding(from).is_some_and(|scaled| {
            let near = (scaled.scale[0] / to.scale[0] - 1.0).abs() <= NEAR;
            near && scaled.same_grid(&Encoding { scale: scaled.scale.clone(), ..to.clone() })
        })
    }
}
