//! How a time is stored.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserializer, Serializer};
use time::{OffsetDateTime, serde::rfc3339};

/// Has a field of an event stored as RFC 3339 writes times, and says so in the catalogue: `#[serde(with = "Rfc3339")]`. A type
/// and not a module, because a schema belongs to a type.
pub(crate) struct Rfc3339;

impl Rfc3339 {
    pub(crate) fn serialize<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        rfc3339::serialize(time, serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
        rfc3339::deserialize(deserializer)
    }
}

impl JsonSchema for Rfc3339 {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Rfc3339".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}
