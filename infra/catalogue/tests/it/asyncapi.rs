//! The AsyncAPI document holds together, and describes whole stored messages. Whether it is AsyncAPI at all, the parser of that
//! project decides: `infra/e2e/independent/asyncapi_parse.mjs`.

use serde_json::{Value, json};

use crate::validator::{Validator, golden, golden_types};

fn document() -> Value {
    serde_json::from_str(&catalogue::documents().unwrap()["asyncapi.json"]).unwrap()
}

/// Every value of every `$ref` within `value`.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100, "{}", found.len());
    for reference in found {
        let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        assert!(target.is_some(), "{reference}");
    }
}

#[test]
fn every_event_is_a_message_of_one_channel_and_its_operation() {
    let document = document();
    let mut messages = Vec::new();
    for (name, channel) in document["channels"].as_object().unwrap() {
        let ours: Vec<_> = channel["messages"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(ours.iter().all(|event_type| event_type.starts_with(&format!("contrail.{name}."))), "{ours:?}");
        let received = document["operations"][format!("receive_{name}_events")]["messages"].as_array().unwrap();
        assert_eq!(received.len(), ours.len());
        messages.extend(ours);
    }
    messages.sort_unstable();
    assert!(golden_types().iter().eq(messages), "each golden file's type is in one channel");
}

#[test]
fn every_golden_file_is_what_its_message_says_and_its_example() {
    let document = document();
    for event_type in golden_types() {
        let stored = golden(&event_type);
        Validator::of_message(&event_type).check(&stored).unwrap_or_else(|why| panic!("{event_type}: {why}"));
        assert_eq!(document["components"]["messages"][&event_type]["examples"][0]["payload"], stored);
    }
}

#[test]
fn a_message_is_refused_if_its_envelope_is_not_as_the_log_writes_it() {
    let message = Validator::of_message("contrail.stock.received.v1");
    let stored = golden("contrail.stock.received.v1");
    let wrong = [
        ("type", json!("contrail.stock.received.v0")),
        ("aggregatetype", json!("order")),
        ("subject", json!("a.b")),
        ("specversion", json!("0.3")),
        ("id", json!("1")),
        ("time", json!("noon")),
        ("datacontenttype", json!("text/plain")),
        ("sequence", json!("0")),
        ("sequence", json!(1)),
        ("causationid", Value::Null),
        ("data", json!({})),
    ];
    for (attribute, wrong) in wrong {
        let mut stored = stored.clone();
        stored[attribute] = wrong;
        assert!(!message.takes(&stored), "{stored}");
    }
    for attribute in stored.as_object().unwrap().keys() {
        let mut stored = stored.clone();
        stored.as_object_mut().unwrap().remove(attribute);
        let is_optional = ["causationid", "actor", "traceparent"].contains(&attribute.as_str());
        assert_eq!(message.takes(&stored), is_optional, "without {attribute}");
    }
    let mut stored = stored;
    stored["addedlater"] = json!("by somebody");
    assert!(message.takes(&stored));
}
