//! Attributes of nodes.

use super::proto::{AttributeProto, NodeProto, attribute_type as ty};
use super::tensor;
use crate::error::{Error, Result};
use crate::graph::Attribute;
use crate::tensor::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// All attributes of a node.
pub fn decode(attributes: Vec<AttributeProto>, base_dir: Option<&Path>) -> Result<BTreeMap<String, Attribute>> {
    let mut out = BTreeMap::new();
    for attribute in attributes {
        let name = attribute.name.clone().unwrap_or_default();
        if name.is_empty() {
            return Err(Error::invalid("attribute_name", "an attribute has no name"));
        }
        let value = value(attribute, &name, base_dir)?;
        if out.insert(name.clone(), value).is_some() {
            return Err(Error::invalid("attribute_twice", format!("attribute '{name}' is given twice")));
        }
    }
    Ok(out)
}

/// Type of an attribute; files before IR version 2 do not say it.
fn type_of(a: &AttributeProto) -> i32 {
    match a.r#type {
        Some(declared) if declared != 0 => declared,
        _ if a.f.is_some() => ty::FLOAT,
        _ if a.i.is_some() => ty::INT,
        _ if a.s.is_some() => ty::STRING,
        _ if a.t.is_some() => ty::TENSOR,
        _ if a.g.is_some() => ty::GRAPH,
        _ if !a.floats.is_empty() => ty::FLOATS,
        _ if !a.ints.is_empty() => ty::INTS,
        _ if !a.strings.is_empty() => ty::STRINGS,
        _ if !a.tensors.is_empty() => ty::TENSORS,
        _ if !a.graphs.is_empty() => ty::GRAPHS,
        _ if a.sparse_tensor.is_some() => ty::SPARSE_TENSOR,
        _ => 0,
    }
}

fn value(a: AttributeProto, name: &str, base_dir: Option<&Path>) -> Result<Attribute> {
    if a.ref_attr_name.as_deref().is_some_and(|r| !r.is_empty()) {
        return Err(Error::invalid(
            "attribute_reference",
            format!("attribute '{name}' refers to a function's attribute, outside of a function"),
        ));
    }
    let missing = || Error::invalid("attribute_empty", format!("attribute '{name}' has no value of its type"));
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes)
            .map_err(|_| Error::invalid("attribute_text", format!("attribute '{name}' is not UTF-8 text")))
    };
    Ok(match type_of(&a) {
        ty::FLOAT => Attribute::Float(a.f.unwrap_or_default()),
        ty::INT => Attribute::Int(a.i.unwrap_or_default()),
        ty::STRING => Attribute::String(text(a.s.unwrap_or_default())?),
        ty::TENSOR => {
            let (dtype, tensor) = tensor::decode(a.t.ok_or_else(missing)?, base_dir)?;
            if dtype.packed_bits().is_some() {
                let message = format!("attribute '{name}' holds a tensor of {dtype}");
                return Err(Error::unsupported("attribute_tensor", message));
            }
            Attribute::Tensor(Arc::new(tensor))
        }
        ty::FLOATS => Attribute::Floats(a.floats),
        ty::INTS => Attribute::Ints(a.ints),
        ty::STRINGS => Attribute::Strings(a.strings.into_iter().map(text).collect::<Result<_>>()?),
        ty::GRAPH | ty::GRAPHS => {
            return Err(Error::unsupported("subgraph", format!("attribute '{name}' is a graph"))
                .help("unroll loops and fold constant conditions before quantizing the model"));
        }
        0 => return Err(missing()),
        other @ (ty::TENSORS | ty::SPARSE_TENSOR | 12..=14) => {
            let message = format!("attribute '{name}' of type {other} (lists of tensors, sparse tensors, types)");
            return Err(Error::unsupported("attribute_type", message));
        }
        other => {
            let message = format!("attribute '{name}' has type {other}, which does not exist in ONNX");
            return Err(Error::invalid("attribute_type", message));
        }
    })
}

/// The value of a `Constant` node, and its type.
pub fn constant(node: NodeProto, base_dir: Option<&Path>) -> Result<(DType, Tensor)> {
    let [attribute] = <[AttributeProto; 1]>::try_from(node.attribute)
        .map_err(|all| Error::invalid("constant_value", format!("{} values for one constant", all.len())))?;
    let name = attribute.name.clone().unwrap_or_default();
    if name == "value" {
        let missing = || Error::invalid("attribute_empty", "attribute 'value' has no value of its type");
        return tensor::decode(attribute.t.ok_or_else(missing)?, base_dir);
    }
    let tensor = match (name.as_str(), value(attribute, &name, base_dir)?) {
        ("value_float", Attribute::Float(v)) => Tensor::f32(&[], vec![v]),
        ("value_floats", Attribute::Floats(v)) => Tensor::f32(&[v.len()], v),
        ("value_int", Attribute::Int(v)) => Tensor::i64(&[], vec![v]),
        ("value_ints", Attribute::Ints(v)) => Tensor::i64(&[v.len()], v),
        ("value_string" | "value_strings", _) => {
            return Err(Error::unsupported("tensor_type_unsupported", "elements of type string"));
        }
        _ => {
            let message = format!("attribute '{name}' is not a value of its type");
            return Err(Error::invalid("constant_value", message));
        }
    };
    Ok((tensor.dtype(), tensor))
}

/// The message of an attribute.
pub fn encode(name: &str, value: &Attribute) -> Result<AttributeProto> {
    let empty = AttributeProto { name: Some(name.to_string()), ..AttributeProto::default() };
    let bytes = |s: &String| s.clone().into_bytes();
    Ok(match value {
        Attribute::Float(v) => AttributeProto { r#type: Some(ty::FLOAT), f: Some(*v), ..empty },
        Attribute::Int(v) => AttributeProto { r#type: Some(ty::INT), i: Some(*v), ..empty },
        Attribute::String(v) => AttributeProto { r#type: Some(ty::STRING), s: Some(bytes(v)), ..empty },
        Attribute::Floats(v) => AttributeProto { r#type: Some(ty::FLOATS), floats: v.clone(), ..empty },
        Attribute::Ints(v) => AttributeProto { r#type: Some(ty::INTS), ints: v.clone(), ..empty },
        Attribute::Strings(v) => {
            AttributeProto { r#type: Some(ty::STRINGS), strings: v.iter().map(bytes).collect(), ..empty }
        }
        Attribute::Tensor(v) => {
            AttributeProto { r#type: Some(ty::TENSOR), t: Some(tensor::encode("", v.dtype(), v)?), ..empty }
        }
    })
}
