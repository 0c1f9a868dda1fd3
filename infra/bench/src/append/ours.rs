//! The event store: each transaction is one event of an aggregate that is new.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use domain::{
    OrderId,
    order::{Order, OrderEvent},
};
use event_store::{Expected, JetStreamEventStore, Transaction};

use crate::{
    closed_loop::{Client, Step},
    shop::{self, Ids},
};

const SEED: u64 = 2;

/// So many callers of one event store, as the requests of a service are; those of different runs place different orders.
pub(super) fn appenders(store: &JetStreamEventStore, concurrency: usize, run: usize) -> Vec<Appender> {
    let appender = |number| Appender {
        store: store.clone(),
        placed: shop::placed("TEA-1"),
        ids: Ids::of(SEED, run * concurrency + number),
        appended: 0,
    };
    (0..concurrency).map(appender).collect()
}

pub(super) struct Appender {
    store: JetStreamEventStore,
    placed: OrderEvent,
    ids: Ids,
    /// How many of its events are in the log.
    pub(super) appended: u64,
}

impl Client for Appender {
    async fn step(&mut self) -> anyhow::Result<Step> {
        let order_id = OrderId(self.ids.next()).to_string();
        let context = shop::context(order_id.clone(), None);
        let mut transaction = Transaction::new();
        transaction.push::<Order>(&order_id, Expected::NEW, std::slice::from_ref(&self.placed), &context);
        let started = Instant::now();
        self.store.append(transaction).await?;
        let took = started.elapsed();
        self.appended += 1;
        Ok(Step { took, counts: true })
    }
}

/// The comparison is only fair if both sides append as many bytes.
pub(super) async fn ensure_same_size(store: &JetStreamEventStore, bytes: usize) -> anyhow::Result<()> {
    let first = store.read_from(1).next_batch(1).await.context("read the log")?.remove(0);
    ensure!(first.bytes.len() == bytes, "our events have {} bytes, those of the plain publisher {bytes}", first.bytes.len());
    Ok(())
}
