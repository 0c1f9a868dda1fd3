//! Events as a running shop appends them, made up here, and the same for the same numbers, but for [`Ids`].

use std::time::Instant;

use bytes::Bytes;
use domain::{
    Currency, EventPayload as _, OrderId, Request,
    envelope::{Metadata, StoredEvent},
    order::{Customer, Line, Order, OrderCommand, OrderEvent, Place},
    stock::{StockEvent, StockReceived},
};
use e2e::random::Random;
use event_store::EventContext;
use time::{OffsetDateTime, macros::datetime};
use uuid::{Builder, Uuid};

/// When everything here happens: no benchmark depends on the time of day.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00.123456 UTC);
/// As long as a real one: SHA-256 in hex.
pub(crate) const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const SOURCE: &str = "/contrail/command-api";
const ACTOR: &str = "service:checkout";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// An order of one piece of `sku`, as the command API decides it.
pub(crate) fn placed(sku: &str) -> OrderEvent {
    let command = OrderCommand::Place(Place {
        customer: Customer {
            id: "c-42".parse().expect("a customer id"),
            email: "a@example.com".to_owned(),
            name: "Ada's Tea Room".to_owned(),
        },
        currency: "EUR".parse::<Currency>().expect("a currency"),
        lines: vec![Line { sku: sku.parse().expect("a SKU"), quantity: 1, unit_price_minor: 1_250 }],
        payment_method: "pm_card_visa".to_owned(),
        placed_at: NOW,
        request: Request { id: Uuid::from_u128(42), digest: DIGEST.to_owned() },
    });
    domain::order::decide(&Order::default(), command).expect("a new order can be placed").remove(0)
}

/// A delivery.
pub(crate) fn received(quantity: u32) -> StockEvent {
    StockReceived { quantity, reference: "DN-1".to_owned(), received_at: NOW, request: None }.into()
}

/// Makes ids of version 7, as the command API does: those of the same time begin alike.
#[derive(Clone)]
pub(crate) struct Ids {
    random: Random,
    begun: Instant,
    /// When it was begun, in milliseconds since 1970.
    begun_ms: u64,
}

impl Ids {
    #[expect(clippy::disallowed_methods, reason = "a benchmark stands where the command API does, at an edge")]
    pub(crate) fn of(seed: u64, number: usize) -> Self {
        let (seconds, nanos) = Uuid::now_v7().get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        let begun_ms = seconds * 1_000 + u64::from(nanos / 1_000_000);
        Self { random: Random::of(seed, number as u64), begun: Instant::now(), begun_ms }
    }

    pub(crate) fn next(&mut self) -> Uuid {
        let now_ms = self.begun_ms + u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let random = random_id(&mut self.random).into_bytes();
        let random = random.first_chunk().expect("an id has 16 bytes");
        Builder::from_unix_timestamp_millis(now_ms, random).into_uuid()
    }
}

/// 128 random bits as an id.
pub(crate) fn random_id(ids: &mut Random) -> Uuid {
    Uuid::from_u128((u128::from(ids.next()) << 64) | u128::from(ids.next()))
}

/// What the command API says about an event that begins a story.
pub(crate) fn context(correlation_id: String, event_id: Option<Uuid>) -> EventContext {
    EventContext {
        source: SOURCE,
        event_id,
        correlation_id,
        causation_id: None,
        actor: Some(ACTOR.to_owned()),
        traceparent: Some(TRACEPARENT.to_owned()),
        time: NOW,
    }
}

/// The bytes that the event store would append for `event` as the first one of an order.
pub(crate) fn stored_bytes(order_id: OrderId, event: &OrderEvent) -> Bytes {
    let stored = StoredEvent {
        metadata: Metadata {
            event_id: order_id.0,
            event_type: event.event_type().to_owned(),
            source: SOURCE.to_owned(),
            aggregate_id: order_id.to_string(),
            time: NOW,
            aggregate_type: "order".to_owned(),
            version: 1,
            correlation_id: order_id.to_string(),
            causation_id: None,
            actor: Some(ACTOR.to_owned()),
            traceparent: Some(TRACEPARENT.to_owned()),
        },
        data: event.to_data(),
    };
    stored.to_json().into()
}
