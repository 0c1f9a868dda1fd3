//! The log that is loaded from.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream;
use domain::{
    OrderId, Request,
    stock::{Allocation, Stock, StockEvent, StockReceived, StockReleased, StockReserved},
};
use event_store::{Expected, JetStreamEventStore, SNAPSHOT_BUCKET, TRANSACTION_EVENTS_MAX, Transaction};
use uuid::Uuid;

use crate::{
    shop::{self, NOW},
    workplace::Log,
};

/// The SKU with very many events.
pub(super) const LONG: &str = "TEA-BESTSELLER";
/// Events of each of the other SKUs.
pub(super) const SHORT_EVENTS: u64 = 10;

/// The bulk of the long aggregate's events is appended in pieces, between which it is loaded, as it was again and again in the
/// months in which a real one grew.
const PIECE_EVENTS: u64 = 50_000;
/// Orders that have pieces of the long SKU set aside at any time.
const OPEN_ORDERS: usize = 200;
/// SKUs that are worked on in turns: so many events of others lie between one event of a short aggregate and its next.
const NEAR: usize = 100;
const FAR: usize = 1_000;
/// How long snapshots may take to be written.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(5);

/// What is in the log.
pub(super) struct Contents {
    /// The long aggregate as its events have made it.
    pub(super) long: Stock,
    pub(super) long_version: u64,
    /// SKUs with [`SHORT_EVENTS`] events each, next to one another.
    pub(super) adjoining: Vec<String>,
    /// SKUs with as many, between each two of which lie [`NEAR`] of others.
    pub(super) apart_100: Vec<String>,
    /// The same with [`FAR`].
    pub(super) apart_1000: Vec<String>,
}

/// Fills the log: first the bulk of the long aggregate, then the short ones, and between their events the long one's last.
pub(super) async fn fill(log: &Log, long_events: u64, short: usize) -> anyhow::Result<Contents> {
    let store = log.open().await?;
    eprintln!("filling the log: {long_events} events of one SKU, and three times {short} SKUs with {SHORT_EVENTS} each");
    let mut shelf = Shelf::default();
    let mut at = Expected::NEW;
    // The rest of them comes between the events of the short ones.
    let rounds = (short.div_ceil(NEAR) + short.div_ceil(FAR)) as u64 * SHORT_EVENTS;
    let bulk = long_events.saturating_sub(rounds);
    while at.version < bulk {
        let piece_ends = bulk.min(at.version + PIECE_EVENTS);
        while at.version < piece_ends {
            let count = (piece_ends - at.version).min(TRANSACTION_EVENTS_MAX as u64);
            let events: Vec<_> = (0..count).map(|_| shelf.next_event()).collect();
            let mut transaction = Transaction::new();
            transaction.push::<Stock>(LONG, at, &events, &shop::context(shelf.story(), None));
            let appended = store.append(transaction).await.context("append the long aggregate's bulk")?;
            at = Expected { version: at.version + count, position: appended.last_position };
        }
        store.load::<Stock>(LONG).await.context("load the long aggregate while it grows")?;
    }
    let apart_100 = append_apart(&store, "TEA", short, NEAR, &mut shelf).await?;
    let apart_1000 = append_apart(&store, "COCOA", short, FAR, &mut shelf).await?;
    let adjoining: Vec<_> = (0..short).map(|number| format!("COFFEE-{number}")).collect();
    for some in adjoining.chunks(TRANSACTION_EVENTS_MAX / usize::try_from(SHORT_EVENTS).context("count events")?) {
        append_adjoining(&store, some).await?;
    }
    await_snapshots(log).await?;
    Ok(Contents { long: shelf.stock, long_version: shelf.events, adjoining, apart_100, apart_1000 })
}

/// At least `count` short aggregates that are worked on in turns, so that `distance` events of others lie between one event and the next.
async fn append_apart(
    store: &JetStreamEventStore,
    name: &str,
    count: usize,
    distance: usize,
    long: &mut Shelf,
) -> anyhow::Result<Vec<String>> {
    let skus: Vec<_> = (0..count.next_multiple_of(distance)).map(|number| format!("{name}-{number}")).collect();
    for some in skus.chunks(distance) {
        append_together(store, some, long).await?;
    }
    Ok(skus)
}

/// The events of some short aggregates, in turns, and after each round a decision on the long one.
async fn append_together(store: &JetStreamEventStore, skus: &[String], long: &mut Shelf) -> anyhow::Result<()> {
    let mut shelves: Vec<_> = skus.iter().map(|sku| (sku, Shelf::default(), Expected::NEW)).collect();
    for _ in 0..SHORT_EVENTS {
        let mut transaction = Transaction::new();
        for (sku, shelf, at) in &mut shelves {
            transaction.push::<Stock>(sku, *at, &[shelf.next_event()], &shop::context(shelf.story(), None));
        }
        let appended = store.append(transaction).await.context("append the short aggregates")?;
        for ((_, _, at), position) in shelves.iter_mut().zip(appended.first_position..) {
            *at = Expected { version: at.version + 1, position };
        }
        decide(store, long).await?;
    }
    Ok(())
}

/// The events of some short aggregates, one aggregate after the other.
async fn append_adjoining(store: &JetStreamEventStore, skus: &[String]) -> anyhow::Result<()> {
    let mut transaction = Transaction::new();
    for sku in skus {
        let mut shelf = Shelf::default();
        let events: Vec<_> = (0..SHORT_EVENTS).map(|_| shelf.next_event()).collect();
        transaction.push::<Stock>(sku, Expected::NEW, &events, &shop::context(shelf.story(), None));
    }
    store.append(transaction).await.context("append short aggregates whose events adjoin").map(drop)
}

/// The long aggregate's next event as it comes about in a service: loaded, decided, appended.
async fn decide(store: &JetStreamEventStore, shelf: &mut Shelf) -> anyhow::Result<()> {
    let event = shelf.next_event();
    let context = shop::context(shelf.story(), None);
    let decided = store.execute::<Stock, Infallible>(LONG, &context, |_| Ok(vec![event.clone()])).await;
    decided.map(drop).context("decide on the long aggregate")
}

/// Snapshots may be written a moment after what they are of. That there are none is told, and no error: loads work without.
async fn await_snapshots(log: &Log) -> anyhow::Result<()> {
    let client = async_nats::connect(log.url()).await.context("connect to NATS")?;
    let jetstream = jetstream::new(client);
    let found = e2e::eventually::eventually("a snapshot is there", SNAPSHOT_DEADLINE, async || {
        let bucket = jetstream.get_stream(format!("KV_{SNAPSHOT_BUCKET}")).await.context("look for snapshots")?;
        let count = bucket.cached_info().state.messages;
        Ok((count > 0).then_some(count))
    });
    match found.await {
        Ok(count) => eprintln!("{count} snapshots are there"),
        Err(error) => eprintln!("no snapshots: {error:#}"),
    }
    Ok(())
}

/// One SKU's life: pieces come in on request of a client, are set aside for orders, and released again.
#[derive(Default)]
struct Shelf {
    stock: Stock,
    events: u64,
    open: VecDeque<OrderId>,
}

impl Shelf {
    fn next_event(&mut self) -> StockEvent {
        let number = u128::from(self.events);
        let event: StockEvent = match self.events % 3 {
            0 => {
                let request = Some(Request { id: Uuid::from_u128((number << 64) | 1), digest: shop::DIGEST.to_owned() });
                StockReceived { quantity: 2, reference: format!("DN-{number}"), received_at: NOW, request }.into()
            }
            2 if self.open.len() > OPEN_ORDERS => {
                let order_id = self.open.pop_front().expect("there are open orders");
                StockReleased { allocations: one_piece(order_id), released_at: NOW }.into()
            }
            _ => {
                let order_id = OrderId(Uuid::from_u128((number << 64) | 2));
                self.open.push_back(order_id);
                StockReserved { allocations: one_piece(order_id), reserved_at: NOW }.into()
            }
        };
        self.stock.evolve(&event);
        self.events += 1;
        event
    }

    fn story(&self) -> String {
        format!("story-{}", self.events)
    }
}

fn one_piece(order_id: OrderId) -> Vec<Allocation> {
    vec![Allocation { order_id, quantity: 1 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_never_promises_more_than_it_has_and_its_open_orders_are_bounded() {
        let mut shelf = Shelf::default();
        for _ in 0..5_000 {
            shelf.next_event();
            assert!(shelf.stock.available() >= 0, "after {} events", shelf.events);
        }
        assert!(shelf.open.len().abs_diff(OPEN_ORDERS) <= 1, "{} are open", shelf.open.len());
    }
}
