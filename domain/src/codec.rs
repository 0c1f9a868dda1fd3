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
    Envelope(#[source] Malformed),
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
        /// What does not fit.
        #[source]
        source: Malformed,
    },
}

/// Where JSON does not have the right shape, and what would be right; not what is there instead, which may be somebody's name: errors go
/// into logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// What is between what was found and what should be there.
const EXPECTED: &str = ", expected ";
/// How serde begins to tell of both.
const EXPECTATIONS: [&str; 5] = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant ", "unknown field "];

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        let said = error.to_string();
        // The JSON reader itself repeats nothing, and neither does serde where something is missing or there twice.
        let is_without_values =
            !error.is_data() || ["missing field", "duplicate field"].iter().any(|start| said.starts_with(start));
        if is_without_values {
            return Self(said);
        }
        // Line 0 is where the JSON reader has lost its place.
        let place = if error.line() == 0 { String::new() } else { format!(" at line {} column {}", error.line(), error.column()) };
        let told = said.strip_suffix(&place).unwrap_or(&said);
        // What was found comes first, in quotation marks, and may hold anything. What our own types say ends with it.
        let has_expectation = EXPECTATIONS.iter().any(|start| told.starts_with(start));
        let (found, expected) = told.rsplit_once(EXPECTED).filter(|_| has_expectation).unwrap_or((told, ""));
        let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
        let kind = kind.strip_suffix(", not").unwrap_or(kind);
        let kind = if kind.is_empty() { "invalid value" } else { kind };
        let expected = if expected.is_empty() { String::new() } else { format!("{EXPECTED}{expected}") };
        Self(format!("{kind}{expected}{place}"))
    }
}

/// Whether this build can read events of that type, of any aggregate, in a shape of today or an older one.
pub fn is_known(event_type: &str) -> bool {
    let all = [
        crate::order::OrderEvent::EVENT_TYPES,
        crate::stock::StockEvent::EVENT_TYPES,
        crate::payment::PaymentEvent::EVENT_TYPES,
        crate::notification::NotificationEvent::EVENT_TYPES,
        crate::upcast::OLDER_TYPES,
    ];
    all.into_iter().flatten().any(|known| *known == event_type)
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
                        crate::DecodeError::Data { event_type: event_type.to_owned(), source: source.into() }
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{Malformed, is_known};
    use crate::{Currency, Sku};

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "none is ever read")]
    enum One {
        Number(u8),
        Text(String),
        Sku(Sku),
        Currency(Currency),
        Fields { a: u8 },
    }

    #[test]
    fn what_an_event_says_is_not_repeated() {
        for (json, told) in [
            (r#"{"number": "Ann \", expected Ann"}"#, "invalid type: string, expected u8 at line 1 column 33"),
            (r#"{"number": 300}"#, "invalid value: integer, expected u8 at line 1 column 14"),
            (r#"{"number": 1.5}"#, "invalid type: floating point, expected u8 at line 1 column 14"),
            (r#"{"text": {"Ann": 1}}"#, "invalid type: map, expected a string at line 1 column 9"),
            (
                r#"{"Ann`, expected Ann": 1}"#,
                "unknown variant, expected one of `number`, `text`, `sku`, `currency`, `fields` at line 1 column 21",
            ),
            (r#"{"sku": "Ann, expected Ann"}"#, "a SKU must be 1 to 64 letters, digits, '_' or '-'"),
            (r#"{"currency": "Ann"}"#, "invalid value"),
            (r#"{"fields": {}}"#, "missing field `a` at line 1 column 13"),
            (r#"{"fields": Ann}"#, "expected value at line 1 column 12"),
        ] {
            let error = serde_json::from_str::<One>(json).expect_err("a shape that does not fit");
            let malformed = Malformed::from(error);
            assert_eq!(malformed.to_string(), told, "{json}");
            assert!(!format!("{malformed:?}").contains("Ann"), "{malformed:?}");
        }
    }

    #[test]
    fn older_shapes_are_known_and_newer_ones_are_not() {
        for (event_type, known) in [
            ("contrail.order.placed.v1", true),
            ("contrail.stock.received.v0", true),
            ("contrail.payment.captured.v1", true),
            ("contrail.notification.sent.v1", true),
            ("contrail.order.placed.v2", false),
            ("", false),
        ] {
            assert_eq!(is_known(event_type), known, "{event_type}");
        }
    }
}
