//! Reading a document that looks as [`Document::to_json`] writes it, which halves what it costs to read an event.
//!
//! Whoever loads, projects or replays reads millions of them. Nothing but the pace depends on how they look: what this reader does not
//! take, for whatever reason, the JSON reader reads or refuses, and what it takes, the JSON reader would read the same.

use std::{borrow::Cow, str};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{Document, Sequence};

impl<'a> Document<'a, &'a str> {
    /// The document, if its attributes are in the order in which they are written, with nothing in between and without escapes. Its
    /// data is whatever comes in its place, which need not be JSON.
    pub(super) fn as_written(bytes: &'a [u8]) -> Option<Self> {
        let json = str::from_utf8(bytes).ok()?;
        let mut rest = Rest(json.strip_prefix('{')?);
        let document = Self {
            specversion: rest.attribute("specversion")?.into(),
            id: Uuid::parse_str(rest.attribute("id")?).ok()?,
            event_type: rest.attribute("type")?.into(),
            source: rest.attribute("source")?.into(),
            subject: rest.attribute("subject")?.into(),
            time: OffsetDateTime::parse(rest.attribute("time")?, &Rfc3339).ok()?,
            datacontenttype: rest.attribute("datacontenttype")?.into(),
            aggregatetype: rest.attribute("aggregatetype")?.into(),
            sequence: Sequence::parse(rest.attribute("sequence")?)?,
            correlationid: rest.attribute("correlationid")?.into(),
            causationid: rest.attribute("causationid").map(Cow::Borrowed),
            actor: rest.attribute("actor").map(Cow::Borrowed),
            traceparent: rest.attribute("traceparent").map(Cow::Borrowed),
            data: rest.0.strip_prefix("\"data\":")?.strip_suffix('}')?,
        };
        let attributes = &bytes[..bytes.len() - rest.0.len()];
        is_plain(attributes).then_some(document)
    }
}

/// What is not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// The text of the attribute that comes next, if that is `name`.
    fn attribute(&mut self, name: &str) -> Option<&'a str> {
        let value = self.0.strip_prefix('"')?.strip_prefix(name)?.strip_prefix("\":\"")?;
        let (value, rest) = value.split_once('"')?;
        self.0 = rest.strip_prefix(',')?;
        Some(value)
    }
}

/// Whether texts in quotes mean what stands there: no escapes, and nothing that would have to be escaped.
fn is_plain(json: &[u8]) -> bool {
    // Looks at every byte, because then it can look at many at once.
    let found = json.iter().fold(0, |found, byte| found | u8::from(*byte == b'\\') | u8::from(*byte < b' '));
    found == 0
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        option,
        prelude::*,
        sample::{Index, select},
    };
    use serde_json::value::{RawValue, to_raw_value};

    use super::*;
    use crate::{
        EventPayload,
        envelope::{Metadata, StoredEvent},
        stock::StockEvent,
    };

    const GOLDEN: &[&[u8]] = &[
        include_bytes!("../../tests/golden/contrail.stock.received.v0.json"),
        include_bytes!("../../tests/golden/contrail.stock.received.v1.json"),
        include_bytes!("../../tests/golden/contrail.stock.reserved.v1.json"),
    ];

    /// What an attribute could be: as they are, and as somebody might wish they were not.
    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-zA-Z0-9:/_-]{0,40}", "\\PC{0,8}", any::<String>(), Just("\",\"data\":{}}".to_owned())]
    }

    fn any_data() -> impl Strategy<Value = Box<RawValue>> {
        let json = prop_oneof![Just("{}"), Just("{\"a\": [1, \"\\n\u{e4}}\"]}"), Just("null"), Just("\"\\u0000\""), Just("1e999")];
        json.prop_map(|json| RawValue::from_string(json.to_owned()).unwrap())
    }

    prop_compose! {
        fn any_event()(
            texts in vec(any_text(), 5),
            optional in vec(option::of(any_text()), 3),
            (id, version, seconds) in (any::<u128>(), 1..=u64::MAX, 0..4_000_000_000_i64),
            data in any_data(),
        ) -> StoredEvent {
            let [event_type, source, aggregate_id, aggregate_type, correlation_id] = texts.try_into().unwrap();
            let [causation_id, actor, traceparent] = optional.try_into().unwrap();
            let (event_id, time) = (Uuid::from_u128(id), OffsetDateTime::from_unix_timestamp(seconds).unwrap());
            let metadata = Metadata {
                event_id, event_type, source, aggregate_id, time, aggregate_type, version, correlation_id, causation_id, actor, traceparent,
            };
            StoredEvent { metadata, data }
        }
    }

    /// One thing done to the bytes of a document.
    #[derive(Clone, Debug)]
    enum Damage {
        Set(Index, u8),
        Remove(Index),
        Insert(Index, Vec<u8>),
        CutOff(Index),
        Repeat(Index, Index),
    }

    fn any_damage() -> impl Strategy<Value = Damage> {
        const PIECES: &[&str] =
            &["\"", "\\", "\\\"", ",", " ", "\n", "\0", "{", "}", "0", "\"x\":1,", "\"data\":{},", "\"subject\":\"s\",", "\u{e4}"];
        let piece = select(PIECES).prop_map(|piece| piece.as_bytes().to_vec());
        prop_oneof![
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
            any::<Index>().prop_map(Damage::Remove),
            (any::<Index>(), piece).prop_map(|(at, piece)| Damage::Insert(at, piece)),
            any::<Index>().prop_map(Damage::CutOff),
            (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        ]
    }

    fn damage(bytes: &mut Vec<u8>, damage: Damage) {
        if bytes.is_empty() {
            return;
        }
        match damage {
            Damage::Set(at, byte) => *at.get_mut(bytes) = byte,
            Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Damage::Insert(at, piece) => drop(bytes.splice(at.index(bytes.len())..at.index(bytes.len()), piece)),
            Damage::CutOff(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                bytes.extend_from_within(from.min(to)..from.max(to));
            }
        }
    }

    /// What the JSON reader makes of it, attributes and data, as JSON again.
    fn read(bytes: &[u8]) -> Option<String> {
        let document: Document<'_, &RawValue> = serde_json::from_slice(bytes).ok()?;
        Some(to_raw_value(&document).unwrap().get().to_owned())
    }

    /// The same by way of this reader, if it takes it.
    fn read_as_written(bytes: &[u8]) -> Option<String> {
        let document = Document::as_written(bytes)?;
        let data: &RawValue = serde_json::from_str(document.data).ok()?;
        Some(to_raw_value(&document.with_data(data)).unwrap().get().to_owned())
    }

    proptest! {
        #[test]
        fn what_is_taken_means_what_the_json_reader_says(event in any_event(), damages in vec(any_damage(), 0..4)) {
            let mut bytes = event.to_json();
            for one in damages {
                damage(&mut bytes, one);
            }
            if let Some(taken) = read_as_written(&bytes) {
                prop_assert_eq!(Some(taken), read(&bytes), "{}", String::from_utf8_lossy(&bytes));
            }
        }

        #[test]
        fn an_event_is_folded_or_refused_as_the_json_reader_says(golden in select(GOLDEN), damages in vec(any_damage(), 0..4)) {
            let mut bytes = golden.to_vec();
            for one in damages {
                damage(&mut bytes, one);
            }
            let document: Option<Document<'_, &RawValue>> = serde_json::from_slice(&bytes).ok();
            let expected = document.and_then(|document| {
                let event = StockEvent::from_data(&document.event_type, document.data.get()).ok()?;
                Some((document.sequence.0, event))
            });
            let read = StoredEvent::version_and_event::<StockEvent>(&bytes).ok();
            prop_assert_eq!(read, expected, "{}", String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn what_is_written_without_escapes_is_taken(mut event in any_event()) {
            event.metadata.source = "/contrail/test".to_owned();
            let json = event.to_json();
            let attributes = &json[..json.len() - event.data.get().len() - "}".len()];
            prop_assert_eq!(Document::as_written(&json).is_some(), !attributes.contains(&b'\\'));
        }
    }
}
