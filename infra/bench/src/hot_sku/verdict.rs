//! What the log says afterwards.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, ensure};
use domain::{OrderId, order::OrderEvent, stock::StockEvent};
use event_store::{JetStreamEventStore, LogMessage};

const READ_MESSAGES_MAX: usize = 10_000;

/// The log, folded: what there was, and what was promised to whom.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    on_hand: HashMap<String, u64>,
    promised: HashMap<String, u64>,
    /// Orders by what they were promised, and those that know it.
    promised_to: HashSet<OrderId>,
    told: HashSet<String>,
    stock_events: u64,
    /// The position of the last `order.stock_reserved`.
    pub(super) last_reserved_position: u64,
}

impl Verdict {
    /// Reads the log up to `head`. Fails where, at any position, more is promised than there is, or something is promised twice.
    pub(super) async fn read(store: &JetStreamEventStore, head: u64) -> anyhow::Result<Self> {
        let mut verdict = Self::default();
        let mut reader = store.read_from(1);
        let mut read = 0;
        while read < head {
            for message in reader.next_batch(READ_MESSAGES_MAX).await.context("read the log")? {
                verdict.take(&message).with_context(|| format!("the event at position {}", message.position))?;
                read = message.position;
            }
        }
        Ok(verdict)
    }

    fn take(&mut self, message: &LogMessage) -> anyhow::Result<()> {
        let event = message.event()?;
        let id = &event.metadata.aggregate_id;
        match event.metadata.aggregate_type.as_str() {
            "stock" => self.take_stock(id, &event.decode()?),
            "order" => match event.decode()? {
                OrderEvent::Placed(_) => Ok(()),
                OrderEvent::StockReserved(_) => {
                    ensure!(self.told.insert(id.clone()), "order {id} is reserved for the second time");
                    self.last_reserved_position = message.position;
                    Ok(())
                }
                other => anyhow::bail!("order {id} came to an unexpected turn: {other:?}"),
            },
            other => anyhow::bail!("it is of an unexpected kind of aggregate, {other}"),
        }
    }

    fn take_stock(&mut self, sku: &str, event: &StockEvent) -> anyhow::Result<()> {
        match event {
            StockEvent::Received(received) => *self.on_hand.entry(sku.to_owned()).or_default() += u64::from(received.quantity),
            StockEvent::Reserved(reserved) => {
                self.stock_events += 1;
                let promised = self.promised.entry(sku.to_owned()).or_default();
                for allocation in &reserved.allocations {
                    let order_id = allocation.order_id;
                    ensure!(self.promised_to.insert(order_id), "order {order_id} is promised stock for the second time");
                    ensure!(allocation.quantity == 1, "order {order_id} is promised {} pieces", allocation.quantity);
                    *promised += allocation.quantity;
                }
                let on_hand = self.on_hand.get(sku).copied().unwrap_or_default();
                ensure!(*promised <= on_hand, "{sku} is oversold: {promised} pieces of {on_hand} are promised");
            }
            other => anyhow::bail!("{sku} came to an unexpected turn: {other:?}"),
        }
        Ok(())
    }

    /// Orders that know that they have stock.
    pub(super) fn reserved_orders(&self) -> u64 {
        self.told.len() as u64
    }

    /// How many orders share a `stock.reserved` event, on average.
    #[expect(clippy::cast_precision_loss, reason = "a number of orders is far below 2^53")]
    pub(super) fn orders_per_stock_event(&self) -> f64 {
        self.told.len() as f64 / (self.stock_events.max(1) as f64)
    }

    /// Every order was promised what it wanted, and all stock is promised.
    pub(super) fn ensure_right(&self, orders: u64) -> anyhow::Result<()> {
        ensure!(self.promised_to.len() as u64 == orders, "{} of {orders} orders are promised stock", self.promised_to.len());
        let unknown = self.told.iter().find(|id| id.parse().is_ok_and(|id: OrderId| !self.promised_to.contains(&id)));
        ensure!(unknown.is_none(), "order {unknown:?} is reserved, and no stock is promised to it");
        ensure!(self.promised == self.on_hand, "there is as much stock as is wanted, and it is not all promised");
        Ok(())
    }
}
