//! One event as one CloudEvents 1.0 document in structured JSON: the bytes that the log stores and never rewrites.
//!
//! Source of the rules: CloudEvents 1.0.2 with its JSON format and its `sequence` extension, and DESIGN §3.

mod as_written;

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    DecodeError, EventPayload,
    codec::{DataOf, SERIALIZES},
    rfc3339::Rfc3339,
};

/// The media type of a stored message.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
const SPEC_VERSION: &str = "1.0";
const DATA_CONTENT_TYPE: &str = "application/json";

/// Room made at first for what is written of the attributes, and of the data where nobody knows how long it is: about what an order's
/// first event takes, which is the longest.
const ATTRIBUTES_BYTES_EXPECTED: usize = 576;
const DATA_BYTES_EXPECTED: usize = 448;

/// The context attributes of an event: everything about it but its data. Its texts are its own, or borrowed by whoever only writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata<T = String> {
    /// CloudEvents `id`; also the message's `Nats-Msg-Id`.
    pub event_id: Uuid,
    /// CloudEvents `type`, for example `contrail.order.placed.v1`.
    pub event_type: T,
    /// CloudEvents `source`: which program appended it, for example `/contrail/command-api`.
    pub source: T,
    /// CloudEvents `subject`.
    pub aggregate_id: T,
    /// CloudEvents `time`: when it was appended, by the appender's clock, in UTC.
    pub time: OffsetDateTime,
    /// Which kind of aggregate, for example `order`.
    pub aggregate_type: T,
    /// The aggregate's own version after this event: 1, 2, 3, …
    pub version: u64,
    /// The story that the event belongs to.
    pub correlation_id: T,
    /// The event that led to this one; none if it began the story.
    pub causation_id: Option<T>,
    /// Who asked, as `role:subject`; none if nobody but the system did.
    pub actor: Option<T>,
    /// The W3C trace context of the operation that appended it.
    pub traceparent: Option<T>,
}

impl<T: AsRef<str>> Metadata<T> {
    /// The bytes to store of an event with these attributes and the data of `event`: what [`StoredEvent::to_json`] gives, without
    /// writing the data twice.
    pub fn to_json_with<E: EventPayload>(&self, event: &E) -> Vec<u8> {
        self.document(DataOf(event)).to_json(DATA_BYTES_EXPECTED)
    }

    fn document<D>(&self, data: D) -> Document<'_, D> {
        Document {
            specversion: Cow::Borrowed(SPEC_VERSION),
            id: self.event_id,
            event_type: borrowed(&self.event_type),
            source: borrowed(&self.source),
            subject: borrowed(&self.aggregate_id),
            time: self.time,
            datacontenttype: Cow::Borrowed(DATA_CONTENT_TYPE),
            aggregatetype: borrowed(&self.aggregate_type),
            sequence: Sequence(self.version),
            correlationid: borrowed(&self.correlation_id),
            causationid: self.causation_id.as_ref().map(borrowed),
            actor: self.actor.as_ref().map(borrowed),
            traceparent: self.traceparent.as_ref().map(borrowed),
            data,
        }
    }

    /// The trace id within `traceparent`, if it has one.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_ref()?.as_ref().split('-').nth(1).filter(|id| id.len() == 32)
    }
}

fn borrowed(text: &impl AsRef<str>) -> Cow<'_, str> {
    Cow::Borrowed(text.as_ref())
}

/// An event as it is stored: its attributes, and its data still as JSON.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// The attributes.
    pub metadata: Metadata,
    /// The data, undecoded.
    pub data: Box<RawValue>,
}

impl StoredEvent {
    /// Reads of one stored message just what a fold needs: the aggregate's version and the event. As strict as
    /// [`from_json`](Self::from_json) and [`decode`](Self::decode), and quicker.
    pub fn version_and_event<E: EventPayload>(bytes: &[u8]) -> Result<(u64, E), DecodeError> {
        // The data need not be read twice where it can be told from the attributes without being read.
        let as_written = Document::as_written(bytes);
        let quickly = as_written.and_then(|read| Some((read.sequence.0, E::from_data(&read.event_type, read.data).ok()?)));
        if let Some(read) = quickly {
            return Ok(read);
        }
        let document = Document::from_json(bytes)?;
        Ok((document.sequence.0, E::from_data(&document.event_type, document.data.get())?))
    }

    /// Reads one stored message. Unknown attributes are ignored, as CloudEvents asks.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DecodeError> {
        StoredEventRef::from_json(bytes).map(StoredEventRef::into_owned)
    }

    /// The bytes to store: compact JSON, in one line.
    pub fn to_json(&self) -> Vec<u8> {
        self.metadata.document(&*self.data).to_json(self.data.get().len())
    }

    /// Decodes the data, upcasting it if it was stored in an older shape.
    pub fn decode<E: EventPayload>(&self) -> Result<E, DecodeError> {
        E::from_data(&self.metadata.event_type, self.data.get())
    }
}

/// A [`StoredEvent`] that borrows from the stored bytes: for whoever is done with an event before the next.
#[derive(Clone, Debug)]
pub struct StoredEventRef<'a> {
    /// The attributes.
    pub metadata: Metadata<Cow<'a, str>>,
    /// The data, undecoded.
    pub data: &'a RawValue,
}

impl<'a> StoredEventRef<'a> {
    /// Reads one stored message, as strictly as [`StoredEvent::from_json`].
    pub fn from_json(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let document = Document::from_json(bytes)?;
        let metadata = Metadata {
            event_id: document.id,
            event_type: document.event_type,
            source: document.source,
            aggregate_id: document.subject,
            time: document.time,
            aggregate_type: document.aggregatetype,
            version: document.sequence.0,
            correlation_id: document.correlationid,
            causation_id: document.causationid,
            actor: document.actor,
            traceparent: document.traceparent,
        };
        Ok(Self { metadata, data: document.data })
    }

    /// Decodes the data, upcasting it if it was stored in an older shape.
    pub fn decode<E: EventPayload>(&self) -> Result<E, DecodeError> {
        E::from_data(&self.metadata.event_type, self.data.get())
    }

    /// The same with texts of its own.
    pub fn into_owned(self) -> StoredEvent {
        let Self { metadata, data } = self;
        let metadata = Metadata {
            event_id: metadata.event_id,
            event_type: metadata.event_type.into_owned(),
            source: metadata.source.into_owned(),
            aggregate_id: metadata.aggregate_id.into_owned(),
            time: metadata.time,
            aggregate_type: metadata.aggregate_type.into_owned(),
            version: metadata.version,
            correlation_id: metadata.correlation_id.into_owned(),
            causation_id: metadata.causation_id.map(Cow::into_owned),
            actor: metadata.actor.map(Cow::into_owned),
            traceparent: metadata.traceparent.map(Cow::into_owned),
        };
        StoredEvent { metadata, data: data.to_owned() }
    }
}

/// One event as the log stores it: a CloudEvents 1.0 document in structured JSON, with the extension attributes that every event has.
/// There may be further attributes; whoever does not know one ignores it.
// The attributes in the order in which they are written, with what the catalogue says of them.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "CloudEvent")]
pub(crate) struct Document<'a, D> {
    /// The version of CloudEvents.
    #[serde(borrow)]
    #[schemars(extend("const" = SPEC_VERSION))]
    specversion: Cow<'a, str>,
    /// Identifies the event; also the message's `Nats-Msg-Id`. Whoever sees an id again has seen the event before.
    id: Uuid,
    /// What happened, and in which version of its shape.
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    /// Which program appended it, for example `/contrail/command-api`.
    #[serde(borrow)]
    #[schemars(extend("format" = "uri-reference", "minLength" = 1))]
    source: Cow<'a, str>,
    /// The aggregate's id.
    #[serde(borrow)]
    subject: Cow<'a, str>,
    /// When it was appended, by the appender's clock, in UTC.
    #[serde(with = "Rfc3339")]
    time: OffsetDateTime,
    /// The media type of `data`.
    #[serde(borrow)]
    #[schemars(extend("const" = DATA_CONTENT_TYPE))]
    datacontenttype: Cow<'a, str>,
    /// Which kind of aggregate, for example `order`.
    #[serde(borrow)]
    aggregatetype: Cow<'a, str>,
    /// The aggregate's own version after this event: 1, 2, 3, … without a gap. Not its position in the log.
    sequence: Sequence,
    /// The story that the event belongs to: the same for all that followed from one request.
    #[serde(borrow)]
    correlationid: Cow<'a, str>,
    /// The `id` of the event that led to this one; left out if it began the story.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    causationid: Option<Cow<'a, str>>,
    /// Who asked, as `role:subject`; left out if nobody but the system did.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
    /// The W3C trace context of the operation that appended it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    /// The event itself; its `type` says in which shape.
    data: D,
}

impl<D: Serialize> Document<'_, D> {
    fn to_json(&self, data_bytes: usize) -> Vec<u8> {
        let mut json = Vec::with_capacity(ATTRIBUTES_BYTES_EXPECTED + data_bytes);
        serde_json::to_writer(&mut json, self).expect(SERIALIZES);
        json
    }
}

impl<'a> Document<'a, &'a RawValue> {
    fn from_json(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let as_written = Document::as_written(bytes);
        let quickly = as_written.and_then(|read| Some((serde_json::from_str(read.data).ok()?, read)));
        match quickly {
            Some((data, read)) => Ok(read.with_data(data)),
            None => serde_json::from_slice(bytes).map_err(|error| DecodeError::Envelope(error.into())),
        }
    }
}

impl<'a, D> Document<'a, D> {
    /// The same attributes with other data.
    fn with_data<T>(self, data: T) -> Document<'a, T> {
        Document {
            specversion: self.specversion,
            id: self.id,
            event_type: self.event_type,
            source: self.source,
            subject: self.subject,
            time: self.time,
            datacontenttype: self.datacontenttype,
            aggregatetype: self.aggregatetype,
            sequence: self.sequence,
            correlationid: self.correlationid,
            causationid: self.causationid,
            actor: self.actor,
            traceparent: self.traceparent,
            data,
        }
    }
}

/// A version as the CloudEvents sequence extension writes it: a string.
struct Sequence(u64);

impl Sequence {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|version| *version > 0).map(Self)
    }
}

impl Serialize for Sequence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Sequence;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version from 1 on, as a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Sequence, E> {
                Sequence::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for Sequence {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Sequence".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[1-9][0-9]*$" })
    }
}
