//! The log as one AsyncAPI 3.0 document, from the point of view of an application that reads it.
//!
//! Its schemas are those of the files, in the dialect that AsyncAPI has by default and every tool knows: JSON Schema draft 7.

use std::collections::BTreeMap;

use domain::{
    catalogue::{AggregateEvents, EventSchema, OlderEvent, aggregates, envelope},
    envelope::CONTENT_TYPE,
};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    files::{self, FileError},
    schemas,
};

/// The document's parts in the order in which they are read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AsyncApi {
    asyncapi: &'static str,
    id: &'static str,
    info: Value,
    default_content_type: &'static str,
    servers: Value,
    channels: BTreeMap<&'static str, Value>,
    operations: BTreeMap<String, Value>,
    components: Components,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Components {
    messages: BTreeMap<&'static str, Value>,
    message_traits: Value,
    correlation_ids: Value,
    schemas: BTreeMap<String, Schema>,
    security_schemes: Value,
}

/// What a reference to a schema begins with.
const SCHEMAS: &str = "#/components/schemas/";

pub(crate) fn document() -> Result<AsyncApi, FileError> {
    let mut settings = SchemaSettings::draft07();
    settings.definitions_path = "/components/schemas".into();
    // Before a reference's siblings are moved away from it.
    settings.transforms.insert(0, Box::new(schemas::without_null));
    let mut generator = settings.into_generator();

    let aggregates = aggregates();
    let mut messages = BTreeMap::new();
    for aggregate in &aggregates {
        for (event, older) in all_events(aggregate) {
            messages.insert(event.event_type, message(aggregate, event, older, &mut generator)?);
        }
    }
    let channels = aggregates.iter().map(|aggregate| (aggregate.aggregate_type, channel(aggregate, &mut generator))).collect();
    Ok(AsyncApi {
        asyncapi: "3.0.0",
        id: "urn:contrail:events",
        info: json!({
            "title": "Contrail: the events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": include_str!("description.md"),
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        }),
        default_content_type: CONTENT_TYPE,
        servers: json!({ "log": server() }),
        channels,
        operations: aggregates.iter().map(operation).collect(),
        components: Components {
            messages,
            message_traits: json!({ "stored": stored_message() }),
            correlation_ids: json!({ "story": {
                "description": "The story that the event belongs to.",
                "location": "$message.payload#/correlationid",
            } }),
            schemas: definitions(&mut generator),
            security_schemes: json!({ "user": {
                "type": "userPassword",
                "description": "A NATS user that may read the stream; infra/nats/users.conf has those of the services.",
            } }),
        },
    })
}

fn server() -> Value {
    json!({
        "host": "{host}:{port}",
        "protocol": "nats",
        "description": "NATS 2.12 or newer with JetStream; the stream is EVENTS.",
        "variables": {
            "host": { "description": "One of the servers of the cluster.", "default": "localhost" },
            "port": { "description": "Its port for clients.", "default": "4222" },
        },
        "security": [{ "$ref": "#/components/securitySchemes/user" }],
    })
}

/// The subjects of one kind of aggregate, as the crate `event-store` makes them.
fn channel(aggregate: &AggregateEvents, generator: &mut SchemaGenerator) -> Value {
    let AggregateEvents { aggregate_type, summary, id_name, id, .. } = aggregate;
    let id = id(generator);
    let about_id = definition(&id, generator).and_then(|(_, id)| id.get("description").cloned()).unwrap_or_default();
    let messages = event_types(aggregate).map(|name| (name, json!({ "$ref": format!("#/components/messages/{name}") })));
    json!({
        "address": format!("events.{aggregate_type}.{{{id_name}}}"),
        "description": format!("What happened to {summary}."),
        "parameters": { *id_name: { "description": about_id } },
        "messages": messages.collect::<BTreeMap<_, _>>(),
    })
}

fn operation(aggregate: &AggregateEvents) -> (String, Value) {
    let name = aggregate.aggregate_type;
    let messages = event_types(aggregate).map(|event_type| json!({ "$ref": format!("#/channels/{name}/messages/{event_type}") }));
    let operation = json!({
        "action": "receive",
        "channel": { "$ref": format!("#/channels/{name}") },
        "summary": format!("Follow {}.", aggregate.summary),
        "description": format!(
            "A consumer of the stream with the filter subject `events.{name}.*` gets the events of all of them, in the order of their \
             positions; with the subject of one, just its own. Without a filter it gets all events of the log."
        ),
        "messages": messages.collect::<Vec<_>>(),
    });
    (format!("receive_{name}_events"), operation)
}

fn message(
    aggregate: &AggregateEvents,
    event: &EventSchema,
    older: Option<&OlderEvent>,
    generator: &mut SchemaGenerator,
) -> Result<Value, FileError> {
    let data = (event.reference)(generator);
    let (title, summary) = definition(&data, generator)
        .map(|(name, schema)| (name, schema.get("description").cloned().unwrap_or_default()))
        .unwrap_or_default();
    let example = files::golden(event.event_type)?;
    let mut message = json!({
        "name": event.event_type,
        "title": title,
        "summary": summary,
        "traits": [{ "$ref": "#/components/messageTraits/stored" }],
        "payload": { "allOf": [
            envelope(generator),
            { "type": "object", "properties": {
                "type": { "const": event.event_type },
                "aggregatetype": { "const": aggregate.aggregate_type },
                "subject": (aggregate.id)(generator),
                "data": data,
            } },
        ] },
        "examples": [{
            "summary": "A message as it is stored.",
            "headers": { "Nats-Msg-Id": example["id"], "Content-Type": CONTENT_TYPE },
            "payload": example,
        }],
    });
    if let Some(older) = older {
        message["description"] = schemas::no_longer_written(older).into();
    }
    Ok(message)
}

/// What all messages have in common beside their payload.
fn stored_message() -> Value {
    json!({
        "contentType": CONTENT_TYPE,
        "correlationId": { "$ref": "#/components/correlationIds/story" },
        "headers": {
            "type": "object",
            "properties": {
                "Nats-Msg-Id": { "type": "string", "format": "uuid", "description": "The event's `id`." },
                "Content-Type": { "const": CONTENT_TYPE },
            },
            "required": ["Content-Type", "Nats-Msg-Id"],
        },
    })
}

fn all_events(aggregate: &AggregateEvents) -> impl Iterator<Item = (&EventSchema, Option<&OlderEvent>)> {
    let older_events = aggregate.older_events.iter().map(|older| (&older.schema, Some(older)));
    aggregate.events.iter().map(|event| (event, None)).chain(older_events)
}

fn event_types(aggregate: &AggregateEvents) -> impl Iterator<Item = &'static str> {
    all_events(aggregate).map(|(event, _)| event.event_type)
}

/// What a reference refers to, by name.
fn definition(reference: &Schema, generator: &SchemaGenerator) -> Option<(String, Value)> {
    let name = reference.get("$ref")?.as_str()?.strip_prefix(SCHEMAS)?;
    Some((name.to_owned(), generator.definitions().get(name)?.clone()))
}

fn definitions(generator: &mut SchemaGenerator) -> BTreeMap<String, Schema> {
    let definitions = generator.take_definitions(true).into_iter();
    definitions.map(|(name, schema)| (name, Schema::try_from(schema).expect("a definition is a schema"))).collect()
}
