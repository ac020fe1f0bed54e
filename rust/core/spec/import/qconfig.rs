//! A qconfig with templates: one qconfig for everything, and templates that set data types per kind of operator. Templates
//! lie over each other in their order.
//!
//! ```json
//! { "reference_qconfig": { "in_dtype": "qint8", "weight_dtype": "qint8", "out_dtype": "qint8" },
//!   "templates": [ { "ModuleNameTemplate": { "": "torch.float16" } },
//!                  { "ConvDtypeTemplate": { "input_dtype": "qint16", "weight_dtype": "qint8" } },
//!                  { "MatmulDtypeTemplate": { "input_dtypes": ["qint16", "qint8"] } } ] }
//! ```

use super::{Finding, Imported, Source};
use crate::error::Result;
use crate::spec::placement::{OperandPair, Placement, Precision};
use serde_json::{Map, Value};

/// ONNX operators that a convolution template covers: convolutions and linear layers.
const CONVOLUTIONS: [&str; 3] = ["Conv", "ConvTranspose", "Gemm"];

type Object = Map<String, Value>;

pub(super) fn read(source: &Source<'_>, map: &Object) -> Result<Imported> {
    source.keys(&[], map, &["reference_qconfig", "templates"])?;
    let mut out = Imported { placement: Placement::default(), parents: Vec::new(), findings: Vec::new() };
    let defaults = &mut out.placement.defaults;
    // Quantization is symmetric with signed codes, and weights have a scale per output channel.
    (defaults.activations.symmetric, defaults.activations.signed) = (Some(true), Some(true));
    (defaults.parameters.symmetric, defaults.parameters.signed) = (Some(true), Some(true));
    defaults.parameters.per_channel = Some(true);
    if let Some(reference) = source.object(&[], map, "reference_qconfig")? {
        let path = ["reference_qconfig"];
        source.keys(&path, reference, &["in_dtype", "weight_dtype", "out_dtype"])?;
        if let Some(format) = dtype(source, &path, reference, "out_dtype")? {
            activations(&mut out.placement, format);
        }
        if let Some(format) = dtype(source, &path, reference, "weight_dtype")? {
            let parameters = &mut out.placement.defaults.parameters;
            parameters.quantized = Some(!format.float);
            parameters.bitwidth = (!format.float).then_some(format.bits);
        }
        if let Some(format) = dtype(source, &path, reference, "in_dtype")? {
            out.placement.model_input.quantized = Some(!format.float);
            let outputs = out.placement.defaults.activations.bitwidth;
            if !format.float && outputs.is_some_and(|bits| bits != format.bits) {
                out.findings.push(Finding {
                    place: "reference_qconfig.in_dtype".into(),
                    message: format!("inputs take the format of outputs, not {format}"),
                });
            }
        }
    }
    for (i, template) in source.array(&[], map, "templates")?.unwrap_or_default().iter().enumerate() {
        let Value::Object(template) = template else { return Err(source.wrong(&[], "templates", "objects")) };
        let [(name, arguments)] = &template.iter().collect::<Vec<_>>()[..] else {
            return Err(source.wrong(&[], "templates", "objects with one template each"));
        };
        let known = ["ModuleNameTemplate", "ConvDtypeTemplate", "MatmulDtypeTemplate", "SensitivityTemplate"];
        source.keys(&["templates"], template, &known)?;
        let Value::Object(arguments) = arguments else { return Err(source.wrong(&["templates"], name, "an object")) };
        let path = ["templates", name.as_str()];
        let place = format!("templates[{i}].{name}");
        match name.as_str() {
            "ModuleNameTemplate" => modules(source, &path, &place, arguments, &mut out)?,
            "ConvDtypeTemplate" => convolutions(source, &path, arguments, &mut out.placement)?,
            "MatmulDtypeTemplate" => products(source, &path, arguments, &mut out.placement)?,
            _ => out.findings.push(Finding {
                place,
                message: "a table of sensitivities belongs to one model, not to a target".into(),
            }),
        }
    }
    Ok(out)
}

/// A data type by name: `qint8`, `torch.float16`.
fn dtype(source: &Source<'_>, path: &[&str], map: &Object, key: &str) -> Result<Option<Precision>> {
    match map.get(key) {
        None => Ok(None),
        Some(value) => {
            format(value).map(Some).ok_or_else(|| source.wrong(path, key, "qint8, qint16, float16 or float32"))
        }
    }
}

fn format(value: &Value) -> Option<Precision> {
    let word = value.as_str()?;
    let word = word.strip_prefix("torch.").unwrap_or(word);
    Precision::parse(word.strip_prefix('q').unwrap_or(word))
}

fn activations(placement: &mut Placement, format: Precision) {
    placement.defaults.activations.quantized = Some(!format.float);
    placement.defaults.activations.bitwidth = (!format.float).then_some(format.bits);
}

fn modules(source: &Source<'_>, path: &[&str], place: &str, map: &Object, out: &mut Imported) -> Result<()> {
    for module in map.keys() {
        let Some(format) = dtype(source, path, map, module)? else { continue };
        match module.is_empty() {
            true => activations(&mut out.placement, format),
            false => out.findings.push(Finding {
                place: format!("{place}.{module}"),
                message: "the name of a module belongs to one model, not to a target".into(),
            }),
        }
    }
    Ok(())
}

fn convolutions(source: &Source<'_>, path: &[&str], map: &Object, placement: &mut Placement) -> Result<()> {
    source.keys(path, map, &["input_dtype", "weight_dtype"])?;
    let (input, weight) = (dtype(source, path, map, "input_dtype")?, dtype(source, path, map, "weight_dtype")?);
    for op_type in CONVOLUTIONS {
        let rule = placement.ops.entry(op_type.into()).or_default();
        if let Some(input) = input {
            rule.input_quantized = Some(!input.float);
            rule.input_bitwidth = (!input.float).then_some(input.bits);
        }
        if let Some(weight) = weight {
            let rule = rule.params.entry("weight".into()).or_default();
            rule.quantized = Some(!weight.float);
            rule.bitwidth = (!weight.float).then_some(weight.bits);
        }
    }
    Ok(())
}

fn products(source: &Source<'_>, path: &[&str], map: &Object, placement: &mut Placement) -> Result<()> {
    source.keys(path, map, &["input_dtypes"])?;
    let wrong = || source.wrong(path, "input_dtypes", "a data type, or a list of two");
    let (first, second) = match map.get("input_dtypes") {
        None => return Ok(()),
        Some(Value::Array(pair)) => match &pair[..] {
            [a, b] => (format(a).ok_or_else(wrong)?, format(b).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        },
        Some(value) => {
            let both = format(value).ok_or_else(wrong)?;
            (both, both)
        }
    };
    let rule = placement.ops.entry("MatMul".into()).or_default();
    rule.input_quantized = Some(!(first.float || second.float));
    rule.input_bitwidth = (!first.float).then_some(first.bits);
    rule.second_operand = Some(vec![OperandPair { first, second, symmetric: true }]);
    Ok(())
}
