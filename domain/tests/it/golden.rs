//! Every stored version of every event can be read for ever.
//!
//! A golden file is one stored message, byte for byte. It is never edited: a new shape is a new type name and a new
//! file. `UPDATE_GOLDEN=1` writes the files that are missing, and no others.

use std::{env, fs, path::PathBuf};

use domain::{
    EventPayload,
    envelope::{Metadata, StoredEvent},
    notification::NotificationEvent,
    order::OrderEvent,
    payment::PaymentEvent,
    stock::{StockEvent, StockReceived},
};
use uuid::Uuid;

use crate::given::{
    NOW, adjusted, allocation, cancelled, captured, confirmed, declined, delivered, failed, given_up, placed, received, refunded,
    rejected, reserved, sent, shipped, stock_released, stock_reserved, stock_shipped,
};

fn golden_file(event_type: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{event_type}.json"))
}

fn stored<E: EventPayload>(aggregate_type: &str, event: &E) -> StoredEvent {
    StoredEvent {
        metadata: Metadata {
            event_id: Uuid::from_u128(0x0199_4a10_0000_7000_8000_0000_0000_0001),
            event_type: event.event_type().to_owned(),
            source: "/contrail/golden".to_owned(),
            aggregate_id: "00000000-0000-0000-0000-000000000001".to_owned(),
            time: NOW,
            aggregate_type: aggregate_type.to_owned(),
            version: 1,
            correlation_id: "story-1".to_owned(),
            causation_id: Some("01994a10-0000-7000-8000-000000000000".to_owned()),
            actor: Some("customer:c-42".to_owned()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        },
        data: event.to_data(),
    }
}

/// Checks that each of `samples` is stored as its golden file says, is read back the same, and that none is missing.
fn check<E: EventPayload + PartialEq + std::fmt::Debug>(aggregate_type: &str, samples: &[E]) {
    let sampled: Vec<_> = samples.iter().map(EventPayload::event_type).collect();
    assert_eq!(sampled, E::EVENT_TYPES, "one sample of each event, in the order of the enum");
    for sample in samples {
        let file = golden_file(sample.event_type());
        let bytes = stored(aggregate_type, sample).to_json();
        if !file.exists() && env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, &bytes).unwrap();
        }
        let golden = fs::read(&file)
            .unwrap_or_else(|error| panic!("{}: {error}; for a new event, run once with UPDATE_GOLDEN=1", file.display()));
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&golden),
            "{} is stored in another shape than before; give it a new type name",
            sample.event_type()
        );
        let read: E = StoredEvent::from_json(&golden).unwrap().decode().unwrap();
        assert_eq!(&read, sample);
        assert_eq!(StoredEvent::version_and_event::<E>(&golden).unwrap(), (1, read));
    }
}

#[test]
fn order_events_are_stored_and_read_as_ever() {
    let samples: [OrderEvent; 7] = [
        placed().into(),
        reserved().into(),
        rejected().into(),
        confirmed().into(),
        cancelled().into(),
        shipped().into(),
        delivered().into(),
    ];
    check("order", &samples);
}

#[test]
fn stock_events_are_stored_and_read_as_ever() {
    let allocations = [allocation(1, 2), allocation(2, 3)];
    let samples: [StockEvent; 5] = [
        received(10).into(),
        adjusted(-3).into(),
        stock_reserved(&allocations),
        stock_released(&allocations),
        stock_shipped(&allocations),
    ];
    check("stock", &samples);
}

#[test]
fn payment_events_are_stored_and_read_as_ever() {
    let samples: [PaymentEvent; 4] = [captured().into(), declined().into(), refunded().into(), given_up().into()];
    check("payment", &samples);
}

#[test]
fn notification_events_are_stored_and_read_as_ever() {
    let samples: [NotificationEvent; 2] = [sent().into(), failed().into()];
    check("notification", &samples);
}

#[test]
fn an_event_of_an_older_shape_is_read_as_one_of_today() {
    let golden = fs::read(golden_file("contrail.stock.received.v0")).unwrap();
    let read: StockEvent = StoredEvent::from_json(&golden).unwrap().decode().unwrap();
    let expected = StockReceived { quantity: 10, reference: "DN-7".to_owned(), received_at: NOW, request: None };
    assert_eq!(read, StockEvent::from(expected));
}

#[test]
fn an_unknown_type_is_an_error_that_names_it() {
    let golden = fs::read_to_string(golden_file("contrail.stock.received.v1")).unwrap();
    let unknown = golden.replace("stock.received.v1", "stock.received.v9");
    let error = StoredEvent::from_json(unknown.as_bytes()).unwrap().decode::<StockEvent>().unwrap_err();
    assert_eq!(error.to_string(), "event type contrail.stock.received.v9 is unknown to this build");
}

#[test]
fn what_is_no_envelope_is_an_error_not_a_panic() {
    let golden = fs::read_to_string(golden_file("contrail.stock.received.v1")).unwrap();
    for broken in ["", "{}", "[]", "null", &golden.replace("\"sequence\":\"1\"", "\"sequence\":\"0\""), &golden[..99]] {
        assert!(StoredEvent::from_json(broken.as_bytes()).is_err(), "{broken:?}");
    }
}

#[test]
fn the_trace_id_is_taken_from_the_trace_context() {
    let stored = stored("order", &OrderEvent::from(placed()));
    assert_eq!(stored.metadata.trace_id(), Some("0af7651916cd43dd8448eb211c80319c"));
}
