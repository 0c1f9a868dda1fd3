//! How an aggregate's event enum maps to event types and their JSON.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::catalogue::EventSchema;

/// The events of one aggregate, each with the type name under which the log stores it.
///
/// Implemented by [`event_enum!`](crate::codec::event_enum); never by hand.
pub trait EventPayload: Sized {
    /// Every stored type name of this aggregate, current versions only; older ones are in [`crate::upcast`].
    const EVENT_TYPES: &'static [&'static str];

    /// What the catalogue says of each of [`EVENT_TYPES`](Self::EVENT_TYPES), in that order.
    const EVENT_SCHEMAS: &'static [EventSchema];

    /// The CloudEvents `type`, for example `contrail.order.placed.v1`.
    fn event_type(&self) -> &'static str;

    /// The CloudEvents `data` as compact JSON.
    fn to_data(&self) -> Box<RawValue> {
        serde_json::value::to_raw_value(&DataOf(self)).expect(SERIALIZES)
    }

    /// Writes the CloudEvents `data` with `serializer`.
    fn serialize_data<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Reads `data`, which is JSON stored under `event_type`, upcasting older types first.
    fn from_data(event_type: &str, data: &str) -> Result<Self, DecodeError>;
}

/// Why writing an event as JSON cannot fail.
pub(crate) const SERIALIZES: &str = "an event holds no map with keys that are not strings, so it always serializes";

/// An event's data, to be serialized.
pub(crate) struct DataOf<'a, E>(pub(crate) &'a E);

impl<E: EventPayload> Serialize for DataOf<'_, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_data(serializer)
    }
}

/// Why stored bytes could not be read as an event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The document is not a CloudEvents envelope with the attributes that the log requires.
    #[error("read the event's envelope")]
    Envelope(#[source] serde_json::Error),
    /// This build has no event of that type; a newer build wrote it, or something else did.
    #[error("event type {event_type} is unknown to this build")]
    UnknownType {
        /// The stored type.
        event_type: String,
    },
    /// The type is known but its data does not have the right shape.
    #[error("read the data of an event of type {event_type}")]
    Data {
        /// The stored type.
        event_type: String,
        /// What the JSON reader said.
        #[source]
        source: serde_json::Error,
    },
}

/// Declares an aggregate's event enum: one variant per event, each with its stored type name.
macro_rules! event_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident($payload:ident) = $event_type:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "type", content = "data")]
        pub enum $name {
            $(
                $(#[$variant_doc])*
                #[serde(rename = $event_type)]
                $variant($payload),
            )+
        }

        $(
            impl From<$payload> for $name {
                fn from(payload: $payload) -> Self {
                    Self::$variant(payload)
                }
            }
        )+

        impl crate::EventPayload for $name {
            const EVENT_TYPES: &'static [&'static str] = &[$($event_type),+];
            const EVENT_SCHEMAS: &'static [crate::catalogue::EventSchema] =
                &[$(crate::catalogue::EventSchema::of::<$payload>($event_type)),+];

            fn event_type(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $event_type,)+
                }
            }

            fn serialize_data<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(payload) => serde::Serialize::serialize(payload, serializer),)+
                }
            }

            fn from_data(event_type: &str, data: &str) -> Result<Self, crate::DecodeError> {
                let upcast = crate::upcast::to_current(event_type, data)?;
                let (event_type, data) = match &upcast {
                    Some((current_type, current_data)) => (*current_type, current_data.get()),
                    None => (event_type, data),
                };
                match event_type {
                    $($event_type => serde_json::from_str(data).map(Self::$variant).map_err(|source| {
                        crate::DecodeError::Data { event_type: event_type.to_owned(), source }
                    }),)+
                    _ => Err(crate::DecodeError::UnknownType { event_type: event_type.to_owned() }),
                }
            }
        }

        impl cqrs_es::DomainEvent for $name {
            fn event_type(&self) -> String {
                crate::EventPayload::event_type(self).to_owned()
            }

            fn event_version(&self) -> String {
                let event_type = crate::EventPayload::event_type(self);
                event_type.rsplit('.').next().unwrap_or(event_type).to_owned()
            }
        }
    };
}
pub(crate) use event_enum;
