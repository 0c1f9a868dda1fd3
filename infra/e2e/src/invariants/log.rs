//! The log, read once from the first event to the last, and folded.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, ensure};
use cqrs_es::View as _;
use domain::envelope::{Metadata, StoredEvent};
use domain::notification::{Notification, NotificationEvent};
use domain::order::{Order, OrderEvent};
use domain::payment::{Payment, PaymentEvent};
use domain::stock::{Stock, StockEvent};
use domain::{OrderId, Sku};
use event_store::{JetStreamEventStore, LogMessage};
use read_store::views::{OrderView, StockView, envelope};

use super::merkle::{self, Hash};
use super::stock::{Reservations, is_oversold};
use super::violations::Violations;

const BATCH_MESSAGES_MAX: usize = 1_000;
/// How long the log may take to deliver the next batch.
const READ_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// Everything that the log says.
#[derive(Default)]
pub(super) struct LogFold {
    pub(super) orders: BTreeMap<OrderId, FoldedOrder>,
    pub(super) stocks: BTreeMap<Sku, FoldedStock>,
    pub(super) notifications: BTreeMap<String, Notification>,
    /// Ids of the events that a customer is told of.
    pub(super) told_of: Vec<uuid::Uuid>,
    /// SKUs of which, at some position, more was promised than there was.
    pub(super) oversold: BTreeSet<Sku>,
    /// The audit tree's leaf of each position, from 1 on.
    pub(super) leaves: Vec<Hash>,
    versions: HashMap<(String, String), u64>,
    event_ids: HashSet<String>,
    stories: HashSet<String>,
}

/// One order, its payment, and what the customer was told.
#[derive(Default)]
pub(super) struct FoldedOrder {
    pub(super) order: Order,
    pub(super) version: u64,
    /// Positions of its `order.placed` events; one, if all is well.
    pub(super) placed_at: Vec<u64>,
    pub(super) payment: Payment,
    /// Amounts that were taken and given back, in minor units.
    pub(super) captured: Vec<i64>,
    pub(super) refunded: Vec<i64>,
    /// What the read model should hold.
    pub(super) view: OrderView,
}

/// One SKU.
#[derive(Default)]
pub(super) struct FoldedStock {
    pub(super) stock: Stock,
    pub(super) reservations: Reservations,
    /// What the read model should hold.
    pub(super) view: StockView,
}

impl LogFold {
    /// Reads up to `head`, noting what is wrong with single events and with their order.
    pub(super) async fn read(store: &JetStreamEventStore, head: u64, violations: &mut Violations) -> anyhow::Result<Self> {
        let mut fold = Self::default();
        let mut reader = store.read_from(1);
        while (fold.leaves.len() as u64) < head {
            let batch = tokio::time::timeout(READ_DEADLINE, reader.next_batch(BATCH_MESSAGES_MAX)).await;
            for message in batch.context("the log does not go on")?.context("read the log")? {
                fold.take(&message, violations)?;
            }
        }
        Ok(fold)
    }

    /// Folds the next message in.
    pub(super) fn take(&mut self, message: &LogMessage, violations: &mut Violations) -> anyhow::Result<()> {
        let position = message.position;
        ensure!(position == self.leaves.len() as u64 + 1, "position {position} follows position {}", self.leaves.len());
        self.leaves.push(merkle::leaf(&message.bytes));
        violations.require(!message.bytes.contains(&b'\n'), "envelope", || format!("the event at {position} holds a newline"));
        match message.event() {
            Ok(event) => {
                self.check_metadata(position, &event.metadata, violations);
                if let Err(error) = self.fold(position, &event, violations) {
                    violations.add("envelope", format!("the event at {position}: {error:#}"));
                }
            }
            Err(error) => violations.add("envelope", format!("the event at {position} cannot be read: {error}")),
        }
        Ok(())
    }

    /// Versions without gap, stories with a beginning.
    fn check_metadata(&mut self, position: u64, metadata: &Metadata, violations: &mut Violations) {
        let version = self.versions.entry((metadata.aggregate_type.clone(), metadata.aggregate_id.clone())).or_default();
        *version += 1;
        violations.require(metadata.version == *version, "versions", || {
            format!(
                "the event at {position} is version {} of {} {}, after {} others",
                metadata.version,
                metadata.aggregate_type,
                metadata.aggregate_id,
                *version - 1
            )
        });
        *version = metadata.version;
        let is_new = self.event_ids.insert(metadata.event_id.to_string());
        violations.require(is_new, "event ids", || format!("the id of the event at {position} was there before"));
        violations
            .require(!metadata.correlation_id.is_empty(), "stories", || format!("the event at {position} has no correlation id"));
        let begins = self.stories.insert(metadata.correlation_id.clone());
        match &metadata.causation_id {
            None => violations.require(begins, "stories", || {
                format!("the event at {position} ({}) goes on with a story and names no cause", metadata.event_type)
            }),
            Some(cause) => violations.require(self.event_ids.contains(cause), "stories", || {
                format!("the event at {position} ({}) names a cause that is not before it", metadata.event_type)
            }),
        }
    }

    fn fold(&mut self, position: u64, event: &StoredEvent, violations: &mut Violations) -> anyhow::Result<()> {
        let metadata = &event.metadata;
        match metadata.aggregate_type.as_str() {
            "order" => {
                let order = self.orders.entry(metadata.aggregate_id.parse()?).or_default();
                let decoded: OrderEvent = event.decode()?;
                if let OrderEvent::Placed(_) = &decoded {
                    order.placed_at.push(position);
                }
                if is_told(&decoded) {
                    self.told_of.push(metadata.event_id);
                }
                order.order.evolve(&decoded);
                order.version = metadata.version;
                order.view.update(&envelope::<Order>(position, event)?);
            }
            "payment" => {
                let order = self.orders.entry(metadata.aggregate_id.parse()?).or_default();
                let decoded: PaymentEvent = event.decode()?;
                match &decoded {
                    PaymentEvent::Captured(captured) => order.captured.push(captured.amount.minor_units),
                    PaymentEvent::Refunded(refunded) => {
                        order.refunded.push(refunded.amount.minor_units);
                        self.told_of.push(metadata.event_id);
                    }
                    PaymentEvent::Declined(_) | PaymentEvent::GivenUp(_) => {}
                }
                order.payment.evolve(&decoded);
                order.view.update(&envelope::<Payment>(position, event)?);
            }
            "notification" => {
                let decoded: NotificationEvent = event.decode()?;
                let order_id = match &decoded {
                    NotificationEvent::Sent(sent) => sent.order_id,
                    NotificationEvent::Failed(failed) => failed.order_id,
                };
                self.notifications.entry(metadata.aggregate_id.clone()).or_default().evolve(&decoded);
                let order = self.orders.entry(order_id).or_default();
                order.view.update(&envelope::<Notification>(position, event)?);
            }
            "stock" => self.fold_stock(position, event, violations)?,
            other => violations.add("envelope", format!("the event at {position} is of an unknown kind of aggregate, {other}")),
        }
        Ok(())
    }

    fn fold_stock(&mut self, position: u64, event: &StoredEvent, violations: &mut Violations) -> anyhow::Result<()> {
        let sku: Sku = event.metadata.aggregate_id.parse()?;
        let decoded: StockEvent = event.decode()?;
        let stock = self.stocks.entry(sku.clone()).or_default();
        stock.stock.evolve(&decoded);
        stock.reservations.evolve(&decoded, |what| violations.add("reservations", format!("{sku} at {position}: {what}")));
        stock.view.update(&envelope::<Stock>(position, event)?);
        let Stock { on_hand, reserved, .. } = stock.stock;
        violations.require(reserved == stock.reservations.sum(), "reservations", || {
            format!("{sku} at {position}: reserved is {reserved}, its open reservations add up to {}", stock.reservations.sum())
        });
        if is_oversold(on_hand, reserved) {
            violations.add("oversold", format!("{sku} at {position}: {reserved} of {on_hand} pieces are promised"));
            self.oversold.insert(sku);
        }
        Ok(())
    }
}

/// Whether the customer gets a message about it.
fn is_told(event: &OrderEvent) -> bool {
    matches!(
        event,
        OrderEvent::Confirmed(_)
            | OrderEvent::Rejected(_)
            | OrderEvent::Cancelled(_)
            | OrderEvent::Shipped(_)
            | OrderEvent::Delivered(_)
    )
}
