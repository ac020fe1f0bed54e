//! Comparing the shapes that a file declares with those that its operators give.

use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, TensorInfo};
use crate::ops::{Fact, Facts, registry};
use crate::tensor::DType;

/// Fails where an operator gives a tensor another shape than the file declares. Operators whose shape depends on values are
/// taken at the file's word.
pub fn shapes(graph: &Graph) -> Result<()> {
    let mut facts: Vec<Option<Fact>> = graph.tensors.iter().map(constant).collect();
    for port in &graph.inputs {
        facts[port.tensor] = declared(&graph.tensors[port.tensor]);
    }
    for node in &graph.nodes {
        let at = |e: Error| e.at_node(&node.name, &node.op_type);
        let Some(op) = registry::find(&node.domain, &node.op_type) else {
            return Err(at(Error::unsupported("op_unknown", format!("operator {} is not implemented", node.op_type))));
        };
        let inputs: Vec<Option<Fact>> = node.inputs.iter().map(|t| t.and_then(|t| facts[t].clone())).collect();
        let known = inputs.iter().zip(&node.inputs).all(|(fact, t)| fact.is_some() == t.is_some());
        let opset = graph.opset(&node.domain);
        let inferred = match known {
            true => match op.infer(&Facts { node, opset, inputs: &inputs, outputs: &[] }) {
                Ok(inferred) => Some(inferred),
                Err(e) if e.code() == "input_not_constant" => None,
                Err(e) => return Err(at(e)),
            },
            false => None,
        };
        for (i, t) in node.outputs.iter().enumerate() {
            let Some(t) = *t else { continue };
            let info = &graph.tensors[t];
            let Some((dtype, shape)) = inferred.as_ref().and_then(|all| all.get(i)) else {
                facts[t] = declared(info);
                continue;
            };
            let dims = info.shape.iter().flatten();
            let fits = info.shape.as_ref().is_none_or(|d| d.len() == shape.len())
                && dims.zip(shape).all(|(d, n)| !matches!(d, Dim::Fixed(v) if v != n));
            if !fits {
                let message = format!("the file declares {:?}, the operator gives {shape:?}", info.shape);
                return Err(at(Error::invalid("tensor_shape_conflict", message)));
            }
            facts[t] = Some(fact(info, *dtype, shape.clone()));
        }
    }
    Ok(())
}

fn fact(info: &TensorInfo, dtype: DType, shape: Vec<usize>) -> Fact {
    Fact { name: info.name.clone(), dtype, shape, constant: None, codes: None, encoding: info.encoding.clone() }
}

fn constant(info: &TensorInfo) -> Option<Fact> {
    let constant = info.constant.as_ref()?;
    let known = fact(info, constant.dtype(), constant.shape().to_vec());
    Some(Fact { constant: Some(constant.clone()), codes: info.codes.clone(), ..known })
}

/// The fact of a tensor by the file's word, with 1 for open dimensions.
fn declared(info: &TensorInfo) -> Option<Fact> {
    let size = |d: &Dim| if let Dim::Fixed(n) = d { *n } else { 1 };
    let shape = info.shape.as_ref()?.iter().map(size).collect();
    Some(fact(info, info.dtype?, shape))
}
