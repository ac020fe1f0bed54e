//! The JSON Schema of spec files says what the loader says.

use nputwin::spec::{EMBEDDED, Spec, json_schema, placement::Precision};
use serde_json::{Value, json};

/// Where a schema refuses a value: the keywords that these schemas have, each with the meaning that the standard gives it.
fn refused(root: &Value, schema: &Value, value: &Value, place: &str, out: &mut Vec<String>) {
    let Value::Object(schema) = schema else {
        if schema == &json!(false) {
            out.push(format!("{place}: nothing is allowed here"));
        }
        return;
    };
    let accepts = |sub: &Value| {
        let mut faults = Vec::new();
        refused(root, sub, value, place, &mut faults);
        faults.is_empty()
    };
    for (keyword, argument) in schema {
        let holds = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "items" => true,
            "properties" | "additionalProperties" => true,
            "propertyNames" => {
                let names = value.as_object().into_iter().flat_map(|o| o.keys());
                names.for_each(|name| refused(root, argument, &json!(name), &format!("{place} {name}"), out));
                true
            }
            "$ref" => {
                let name = argument.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                refused(root, &root["$defs"][name], value, place, out);
                true
            }
            "oneOf" => argument.as_array().unwrap().iter().filter(|s| accepts(s)).count() == 1,
            "anyOf" => argument.as_array().unwrap().iter().any(accepts),
            "const" => value == argument,
            "enum" => argument.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|v| v >= argument.as_f64().unwrap()),
            "pattern" => match (argument.as_str().unwrap(), value.as_str().unwrap()) {
                ("^[^a-z]", name) => name.starts_with(|c: char| !c.is_ascii_lowercase()),
                (_, format) => Precision::parse(format).is_some(),
            },
            "required" => argument.as_array().unwrap().iter().all(|k| value.get(k.as_str().unwrap()).is_some()),
            "type" => match argument.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                other => panic!("type {other}"),
            },
            other => panic!("this test knows no keyword {other}"),
        };
        if !holds {
            out.push(format!("{place}: {keyword} {argument} refuses {value}"));
        }
    }
    if let (Some(items), Value::Array(values)) = (schema.get("items"), value) {
        for (i, item) in values.iter().enumerate() {
            refused(root, items, item, &format!("{place}[{i}]"), out);
        }
    }
    let Value::Object(entries) = value else { return };
    for (key, item) in entries {
        let place = format!("{place}.{key}");
        let named = schema.get("properties").and_then(|p| p.get(key));
        if let Some(sub) = named.or_else(|| schema.get("additionalProperties")) {
            refused(root, sub, item, &place, out);
        }
    }
}

fn faults(toml: &str) -> Vec<String> {
    let schema = json_schema(["Conv"]);
    let value: Value = toml::from_str(toml).unwrap();
    let mut out = Vec::new();
    refused(&schema, &schema, &value, "", &mut out);
    out
}

#[test]
fn every_shipped_file_is_as_the_schema_says() {
    for shipped in EMBEDDED {
        assert_eq!(faults(shipped.toml), Vec::<String>::new(), "{}", shipped.file);
    }
}

#[test]
fn what_the_loader_refuses_the_schema_refuses() {
    let good = "schema_version = 1\nname = \"x\"\n[rules.Conv]\nfloat = true\nevidence = { status = \"source\" }\n";
    assert_eq!(faults(good), Vec::<String>::new());
    for bad in [
        good.replace("name", "nmae"),
        good.replace("= 1\n", "= 2\n"),
        good.replace("schema_version = 1", ""),
        good.replace("Conv", "conv"),
        good.replace("float", "flaot"),
        good.replace("\"source\"", "\"sauce\""),
        good.replace("float = true", "y = \"acc\"\naccumulator = { width = 48 }"),
        good.replace("float = true", "y = \"acc\"\nlet.a = 1"),
        format!("{good}[placement]\nsupergroup_breaks = [\"branchng\"]\n"),
        format!("{good}[placement]\nsupported = [{{ activation = \"int99\" }}]\n"),
        format!("{good}[placement.ops.Conv.params.weight]\nbitwdth = 8\n"),
        format!("{good}[[conformance]]\nfamly = \"a\"\n"),
    ] {
        assert!(!faults(&bad).is_empty(), "{bad}");
        assert!(Spec::parse(&bad, "bad.toml").is_err(), "{bad}");
    }
}

#[test]
fn every_key_has_a_description() {
    let schema = json_schema([]);
    let definitions = schema["$defs"].as_object().unwrap();
    for (name, definition) in definitions.iter().chain([(&"spec".to_string(), &schema)]) {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{key}: {property}");
        }
    }
}
