//! The event store against a real nats-server.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod append;
mod cache;
mod cqrs;
mod faults;
mod proxy;
mod read;
mod rivals;
mod set_up;
mod snapshots;
mod work;

use std::time::Duration;

use domain::{
    Currency, OrderId, Request,
    order::{Customer, Line, Order, OrderCommand, OrderEvent, Place},
    stock::{Stock, StockEvent, StockReceived},
};
use event_store::{EventContext, JetStreamEventStore, Loaded, Transaction};
use local_stack::nats::NatsServer;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00 UTC);

/// A server of its own, with the streams set up.
async fn log() -> (NatsServer, JetStreamEventStore) {
    let server = local_stack::testing::nats();
    let store = connected(server.url()).await;
    store.set_up(Some(1)).await.unwrap();
    store.wait_until_ready(|_| ()).await;
    (server, store)
}

/// Sets up the streams on three servers, as `migrate` does: until these have found one another, and agreed.
async fn set_up_three(store: &JetStreamEventStore) {
    while store.set_up(Some(3)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn connected(url: &str) -> JetStreamEventStore {
    let store = JetStreamEventStore::connect(url, "test").await.unwrap();
    while !store.is_connected() {
        tokio::task::yield_now().await;
    }
    store
}

fn context() -> EventContext {
    EventContext {
        source: "/contrail/test",
        event_id: None,
        correlation_id: "story-1".to_owned(),
        causation_id: None,
        actor: Some("customer:c-42".to_owned()),
        traceparent: None,
        time: NOW,
    }
}

fn received(quantity: u32) -> StockEvent {
    StockReceived { quantity, reference: "DN-1".to_owned(), received_at: NOW, request: None }.into()
}

fn placed() -> OrderEvent {
    let command = OrderCommand::Place(Place {
        customer: Customer { id: "c-42".parse().unwrap(), email: "a@example.com".to_owned(), name: "A".to_owned() },
        currency: "EUR".parse::<Currency>().unwrap(),
        lines: vec![Line { sku: "TEA-1".parse().unwrap(), quantity: 2, unit_price_minor: 1250 }],
        payment_method: "pm_card_visa".to_owned(),
        placed_at: NOW,
        request: Request { id: Uuid::from_u128(1), digest: "d".to_owned() },
    });
    domain::order::decide(&Order::default(), command).unwrap().remove(0)
}

async fn receive(store: &JetStreamEventStore, sku: &str, quantity: u32) -> Loaded<Stock> {
    let executed =
        store.execute::<Stock, std::convert::Infallible>(sku, &context(), |_| Ok(vec![received(quantity)])).await.unwrap();
    Loaded { aggregate: executed.aggregate, version: executed.version, position: executed.position }
}

fn order_id(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(number))
}

fn one(sku: &str, loaded: &Loaded<Stock>, quantity: u32) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.push::<Stock>(sku, loaded.expected(), &[received(quantity)], &context());
    transaction
}
