//! The JSON Schema of spec files: completion and checks in editors. It is made of the types that the loader reads, so that
//! neither knows a key that the other does not.

use super::names;
use super::schema::RawSpec;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// The JSON Schema (draft 2020-12) of a spec file. Names of rules complete to the given operators; any other name of an operator
/// is allowed, as in [`Spec::load`](super::Spec::load).
pub fn json_schema<'a>(operators: impl IntoIterator<Item = &'a str>) -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(NoNull);
    let mut schema = settings.into_generator().into_root_schema_for::<RawSpec>().to_value();
    let known: Map<String, Value> = names::ALL
        .into_iter()
        .chain(operators)
        .map(|name| (name.to_string(), json!({ "$ref": "#/$defs/Rule" })))
        .collect();
    let rules = &mut schema["properties"]["rules"];
    rules["properties"] = Value::Object(known);
    // Names of operators begin with a capital letter, and those of other rules are known.
    rules["propertyNames"] = json!({ "anyOf": [{ "pattern": "^[^a-z]" }, { "enum": names::ALL }] });
    schema
}

/// TOML has no null: what may be left out is not required, and has one type. Formats of numbers (`uint32`) are no vocabulary of JSON
/// Schema.
#[derive(Debug, Clone)]
struct NoNull;

impl Transform for NoNull {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(object) = schema.as_object_mut() {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|c| *c != json!({ "type": "null" }));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            object.remove("format");
        }
        transform_subschemas(self, schema);
    }
}

impl JsonSchema for super::placement::Precision {
    fn schema_name() -> Cow<'static, str> {
        "Precision".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A number format: int2 to int32, float16 or float32.",
            "pattern": "^(int([2-9]|[12][0-9]|3[0-2])|float(16|32))$",
        })
    }
}
