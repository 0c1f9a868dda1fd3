//! Holds an answer against the OpenAPI document: what the document does not say must not be answered.

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Map, Value};

/// Panics if `document` does not describe the answer. Answers to undocumented paths and methods are 404 and 405.
pub(crate) fn check(document: &Value, method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let what = format!("{method} {path} answered {status}");
    let Some(operation) = operation(document, method, path) else {
        assert!(status.is_client_error() || status.is_server_error(), "{what}, and is not documented");
        return;
    };
    let response = &operation["responses"][status.as_str()];
    assert!(response.is_object(), "{what}, which is not documented");
    for (name, header) in response["headers"].as_object().unwrap() {
        let header = resolve(document, header);
        let value = headers.get(name);
        assert!(value.is_some() || header["required"] == false, "{what} without {name}");
    }
    let Some(content) = response["content"].as_object() else {
        assert!(body.is_empty(), "{what} with a body");
        return;
    };
    let content_type = headers["content-type"].to_str().unwrap().split(';').next().unwrap();
    let media = content.get(content_type).unwrap_or_else(|| panic!("{what} with {content_type}"));
    if content_type == "application/x-ndjson" {
        let schema = &media["schema"]["contentSchema"]["items"];
        return String::from_utf8_lossy(body).lines().for_each(|line| {
            validate(document, schema, &serde_json::from_str(line).unwrap(), &format!("{what} {line}"));
        });
    }
    if !content_type.ends_with("json") {
        return;
    }
    let body: Value = serde_json::from_slice(body).unwrap();
    validate(document, &media["schema"], &body, &what);
    if content_type == "application/problem+json" {
        let code = body["code"].as_str().unwrap();
        assert!(media["examples"][code].is_object(), "{what} with the problem {code}, which is not documented");
    }
}

fn operation<'a>(document: &'a Value, method: &Method, path: &str) -> Option<&'a Value> {
    let path = path.split('?').next()?;
    let matches = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        let same = |(template, part): (&&str, &&str)| template.starts_with('{') && !part.is_empty() || template == part;
        template.len() == path.len() && template.iter().zip(&path).all(same)
    };
    // What is spelled out goes before what a parameter matches, too.
    let paths = document["paths"].as_object()?;
    let item = paths.get(path).or_else(|| paths.iter().find(|(template, _)| matches(template)).map(|(_, item)| item))?;
    item.get(method.as_str().to_lowercase())
}

/// As much of JSON Schema as the document uses. Objects may not have properties that the schema does not know.
pub(crate) fn validate(document: &Value, schema: &Value, value: &Value, place: &str) {
    let schema = resolve(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let choice = choices.iter().find(|choice| (choice["type"] == "null") == value.is_null());
        return validate(document, choice.unwrap_or_else(|| panic!("{place}: {value}")), value, place);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    assert!(types.is_empty() || types.iter().any(|name| is_of_type(value, name)), "{place}: {value} is no {types:?}");
    if let Some(choices) = schema["enum"].as_array() {
        assert!(choices.contains(value), "{place}: {value} is none of {choices:?}");
    }
    if let Some(minimum) = schema["minimum"].as_i64() {
        assert!(value.is_null() || value.as_i64().unwrap() >= minimum, "{place}: {value} is below {minimum}");
    }
    match (value, schema["properties"].as_object()) {
        (Value::Object(fields), Some(properties)) => validate_fields(document, schema, fields, properties, place),
        (Value::Array(items), _) => {
            for item in items {
                validate(document, &schema["items"], item, &format!("{place}[]"));
            }
        }
        _ => {}
    }
}

fn validate_fields(document: &Value, schema: &Value, fields: &Map<String, Value>, properties: &Map<String, Value>, place: &str) {
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(name.as_str().unwrap()), "{place}: {name} is missing");
    }
    for (name, value) in fields {
        let property = properties.get(name).unwrap_or_else(|| panic!("{place}: {name} is not documented"));
        validate(document, property, value, &format!("{place}.{name}"));
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// What a `$ref` refers to; anything else is itself.
pub(crate) fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let found = document.pointer(reference.strip_prefix('#').unwrap());
            found.unwrap_or_else(|| panic!("{reference} refers to nothing"))
        }
        None => value,
    }
}
