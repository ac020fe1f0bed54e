//! AIMET's quantsim configuration: `defaults`, `params`, `op_type`, `supergroups`, `model_input`, `model_output`; booleans are
//! the strings `"True"` and `"False"`. Facts: aimet-onnx 2.42.0 `common/quantsim_config/quantsim_config_schema.py`.

use super::{Finding, Imported, Source, embedded_alias};
use crate::error::Result;
use crate::spec::nearest_help;
use crate::spec::placement::{Combination, Constraint, OpRule, ParameterRule, Pattern, Placement, Precision};
use serde_json::{Map, Value};

/// The rules that AIMET has in its code, whatever the file says.
const PARENT: &str = "base/quantsim.toml";

type Object = Map<String, Value>;

pub(super) fn read(source: &Source<'_>, map: &Object) -> Result<Imported> {
    let known = ["defaults", "params", "op_type", "supergroups", "supergroup_pass_list", "model_input", "model_output"];
    source.keys(&[], map, &known)?;
    for section in known.iter().filter(|k| **k != "supergroup_pass_list") {
        if !map.contains_key(*section) {
            return Err(source.error(&[], "config_value", format!("the section '{section}' is missing")));
        }
    }
    let mut out = Imported { placement: Placement::default(), parents: vec![PARENT.to_string()], findings: Vec::new() };
    defaults(source, map, &mut out)?;
    for (role, rule) in objects(source, &[], map, "params")? {
        out.placement.params.insert(role.into(), parameter(source, &["params", role], rule)?);
    }
    for (op_type, rule) in objects(source, &[], map, "op_type")? {
        let rule = operator(source, &["op_type", op_type], rule)?;
        out.placement.ops.insert(op_type.into(), rule);
    }
    supergroups(source, map, &mut out)?;
    for (section, key) in [("model_input", "is_input_quantized"), ("model_output", "is_output_quantized")] {
        let object = source.object(&[], map, section)?.into_iter().flatten().collect::<Vec<_>>();
        let object: Object = object.into_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        source.keys(&[section], &object, &[key])?;
        let quantized = boolean(source, &[section], &object, key)?;
        match section {
            // Graph inputs have a quantizer only where the file asks for it.
            "model_input" => out.placement.model_input.quantized = Some(quantized.unwrap_or(false)),
            _ => out.placement.model_output.quantized = quantized,
        }
    }
    Ok(out)
}

/// The entries of a section, each an object.
fn objects<'v>(source: &Source<'_>, path: &[&str], map: &'v Object, key: &str) -> Result<Vec<(&'v str, &'v Object)>> {
    let Some(section) = source.object(path, map, key)? else { return Ok(Vec::new()) };
    let path: Vec<&str> = path.iter().copied().chain([key]).collect();
    section
        .iter()
        .map(|(name, value)| match value {
            Value::Object(object) => Ok((name.as_str(), object)),
            _ => Err(source.wrong(&path, name, "an object")),
        })
        .collect()
}

fn boolean(source: &Source<'_>, path: &[&str], map: &Object, key: &str) -> Result<Option<bool>> {
    match map.get(key).map(Value::as_str) {
        None => Ok(None),
        Some(Some("True")) => Ok(Some(true)),
        Some(Some("False")) => Ok(Some(false)),
        Some(_) => Err(source.wrong(path, key, "the string \"True\" or \"False\"")),
    }
}

fn defaults(source: &Source<'_>, map: &Object, out: &mut Imported) -> Result<()> {
    let path = ["defaults"];
    let empty = Object::new();
    let section = source.object(&[], map, "defaults")?.unwrap_or(&empty);
    let known = [
        "ops",
        "params",
        "strict_symmetric",
        "unsigned_symmetric",
        "per_channel_quantization",
        "supported_kernels",
        "hw_version",
    ];
    source.keys(&path, section, &known)?;
    let defaults = &mut out.placement.defaults;
    let ops = source.object(&path, section, "ops")?.unwrap_or(&empty);
    let in_ops = ["defaults", "ops"];
    source.keys(&in_ops, ops, &["is_output_quantized", "is_symmetric"])?;
    defaults.activations.quantized = Some(boolean(source, &in_ops, ops, "is_output_quantized")?.unwrap_or(false));
    defaults.activations.symmetric = Some(boolean(source, &in_ops, ops, "is_symmetric")?.unwrap_or(false));
    let params = source.object(&path, section, "params")?.unwrap_or(&empty);
    let in_params = ["defaults", "params"];
    source.keys(&in_params, params, &["is_quantized", "is_symmetric"])?;
    defaults.parameters.quantized = Some(boolean(source, &in_params, params, "is_quantized")?.unwrap_or(false));
    defaults.parameters.symmetric = Some(boolean(source, &in_params, params, "is_symmetric")?.unwrap_or(false));
    defaults.parameters.per_channel =
        Some(boolean(source, &path, section, "per_channel_quantization")?.unwrap_or(false));
    defaults.strict_symmetric = boolean(source, &path, section, "strict_symmetric")?;
    defaults.unsigned_symmetric = boolean(source, &path, section, "unsigned_symmetric")?;
    out.placement.supported = kernels(source, &path, section)?;
    if let Some(version) = source.string(&path, section, "hw_version")? {
        match embedded_alias(version) {
            Some(parent) => out.parents = vec![parent.to_string()],
            None => out.findings.push(Finding {
                place: "defaults.hw_version".into(),
                message: format!("nothing is known of hardware version '{version}': rules of no version are used"),
            }),
        }
    }
    Ok(())
}

fn parameter(source: &Source<'_>, path: &[&str], map: &Object) -> Result<ParameterRule> {
    source.keys(path, map, &["is_quantized", "is_symmetric"])?;
    Ok(ParameterRule {
        quantized: boolean(source, path, map, "is_quantized")?,
        symmetric: boolean(source, path, map, "is_symmetric")?,
        ..ParameterRule::default()
    })
}

fn operator(source: &Source<'_>, path: &[&str], map: &Object) -> Result<OpRule> {
    let known = [
        "is_input_quantized",
        "is_output_quantized",
        "is_symmetric",
        "params",
        "supported_kernels",
        "per_channel_quantization",
        "encoding_constraints",
    ];
    source.keys(path, map, &known)?;
    let mut rule = OpRule {
        input_quantized: boolean(source, path, map, "is_input_quantized")?,
        output_quantized: boolean(source, path, map, "is_output_quantized")?,
        symmetric: boolean(source, path, map, "is_symmetric")?,
        per_channel: boolean(source, path, map, "per_channel_quantization")?,
        supported: kernels(source, path, map)?,
        ..OpRule::default()
    };
    if let Some(constraint) = source.object(path, map, "encoding_constraints")? {
        let inner: Vec<&str> = path.iter().copied().chain(["encoding_constraints"]).collect();
        source.keys(&inner, constraint, &["min", "max"])?;
        let min = source.number(&inner, constraint, "min")?;
        if min.is_none() {
            return Err(source.wrong(path, "encoding_constraints", "a 'min'"));
        }
        rule.constraint = Some(Constraint { min, max: source.number(&inner, constraint, "max")? });
    }
    for (role, parameters) in objects(source, path, map, "params")? {
        let inner: Vec<&str> = path.iter().copied().chain(["params", role]).collect();
        rule.params.insert(role.into(), parameter(source, &inner, parameters)?);
    }
    Ok(rule)
}

fn kernels(source: &Source<'_>, path: &[&str], map: &Object) -> Result<Option<Vec<Combination>>> {
    let Some(items) = source.array(path, map, "supported_kernels")? else { return Ok(None) };
    let inner: Vec<&str> = path.iter().copied().chain(["supported_kernels"]).collect();
    let format = |object: &Object| -> Result<Precision> {
        source.keys(&inner, object, &["bitwidth", "dtype"])?;
        let bits = source.number(&inner, object, "bitwidth")?.map(|b| format!("{b}")).unwrap_or_default();
        let dtype = source.string(&inner, object, "dtype")?.unwrap_or_default();
        Precision::parse(&format!("{dtype}{bits}"))
            .ok_or_else(|| source.wrong(&inner, "dtype", "int of 2 to 32 bits, or float of 16 or 32"))
    };
    let combination = |item: &Value| -> Result<Combination> {
        let Value::Object(kernel) = item else { return Err(source.wrong(path, "supported_kernels", "objects")) };
        source.keys(&inner, kernel, &["activation", "param"])?;
        let Some(activation) = source.object(&inner, kernel, "activation")? else {
            return Err(source.wrong(path, "supported_kernels", "an 'activation' in each"));
        };
        let weight = source.object(&inner, kernel, "param")?.map(&format).transpose()?;
        Ok(Combination { activation: format(activation)?, weight })
    };
    let list: Vec<Combination> = items.iter().map(combination).collect::<Result<_>>()?;
    match list.is_empty() {
        true => Err(source.wrong(path, "supported_kernels", "one kernel or more")),
        false => Ok(Some(list)),
    }
}

fn supergroups(source: &Source<'_>, map: &Object, out: &mut Imported) -> Result<()> {
    let chain = |item: &Value| -> Result<Vec<String>> {
        let Value::Object(group) = item else { return Err(source.wrong(&[], "supergroups", "objects")) };
        source.keys(&["supergroups"], group, &["op_list"])?;
        let ops = source.array(&["supergroups"], group, "op_list")?.unwrap_or_default();
        let names: Option<Vec<String>> = ops.iter().map(|op| op.as_str().map(String::from)).collect();
        names.filter(|n| n.len() > 1).ok_or_else(|| {
            source.wrong(&["supergroups"], "op_list", "a list of two operators or more in each supergroup")
        })
    };
    let groups = source.array(&[], map, "supergroups")?.unwrap_or_default();
    out.placement.supergroups = Some(groups.iter().map(chain).collect::<Result<_>>()?);
    let mut patterns = Vec::new();
    for name in source.array(&[], map, "supergroup_pass_list")?.unwrap_or_default() {
        let known = ["LayerNormalization", "RMSNormalization", "MatmulAdd", "MaskedSoftmax"];
        patterns.push(match name.as_str() {
            Some("LayerNormalization") => Pattern::LayerNormalization,
            Some("RMSNormalization") => Pattern::RmsNormalization,
            Some("MatmulAdd") => Pattern::MatmulAdd,
            Some("MaskedSoftmax") => Pattern::MaskedSoftmax,
            Some(other) => {
                out.findings.push(Finding {
                    place: "supergroup_pass_list".into(),
                    message: format!(
                        "nothing is known of the pass '{other}'; {}",
                        nearest_help(other, known.into_iter())
                    ),
                });
                continue;
            }
            None => return Err(source.wrong(&[], "supergroup_pass_list", "names")),
        });
    }
    out.placement.patterns = Some(patterns);
    Ok(())
}
