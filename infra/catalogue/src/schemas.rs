//! One JSON Schema for each version of each event, complete in itself.

use domain::catalogue::{EventSchema, OlderEvent, aggregates};
use schemars::{
    Schema,
    generate::SchemaSettings,
    transform::{RecursiveTransform, Transform as _},
};
use serde_json::Value;

const EVOLUTION: &str = "There may be fields that are not named here, now or later: ignore what you do not know. What is required stays \
                         required and keeps its meaning; anything else would be another event type.";

/// File names and schemas.
pub(crate) fn documents() -> impl Iterator<Item = (String, Schema)> {
    aggregates().into_iter().flat_map(|aggregate| {
        let events = aggregate.events.iter().map(|event| document(event, None));
        let older_events = aggregate.older_events.iter().map(|older| document(&older.schema, Some(older)));
        events.chain(older_events).collect::<Vec<_>>()
    })
}

fn document(event: &EventSchema, older: Option<&OlderEvent>) -> (String, Schema) {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = (event.document)(&mut generator);
    without_null(&mut schema);
    let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let replaced = older.map(|older| format!("\n\n{}", no_longer_written(older))).unwrap_or_default();
    let description = format!("{about}\n\nThe `data` of an event of type `{}`.{replaced}\n\n{EVOLUTION}", event.event_type);
    schema.insert("description".to_owned(), description.into());
    if older.is_some() {
        schema.insert("deprecated".to_owned(), true.into());
    }
    (format!("{}.schema.json", event.event_type), schema)
}

/// What is said of an event in an older shape.
pub(crate) fn no_longer_written(older: &OlderEvent) -> String {
    format!("Not written any more, but what was written stays; it means what `{}` means today.", older.read_as)
}

/// An optional field is left out and never null, which serde would read as well.
pub(crate) fn without_null(schema: &mut Schema) {
    RecursiveTransform(optional_fields_without_null).transform(schema);
}

fn optional_fields_without_null(schema: &mut Schema) {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Object(fields)) = schema.get_mut("properties") else { return };
    let optional = fields.iter_mut().filter(|(name, _)| !required.iter().any(|required| required == name.as_str()));
    for field in optional.filter_map(|(_, field)| field.as_object_mut()) {
        if let Some(Value::Array(types)) = field.get_mut("type") {
            types.retain(|name| name != "null");
            if let [name] = &types[..] {
                let name = name.clone();
                field.insert("type".to_owned(), name);
            }
        }
        let is_null = |alternative: &Value| alternative["type"] == "null";
        if let Some(Value::Array(alternatives)) = field.get("anyOf")
            && let [Value::Object(only), null] | [null, Value::Object(only)] = &alternatives[..]
            && is_null(null)
        {
            let only = only.clone();
            field.remove("anyOf");
            field.extend(only);
        }
    }
}
