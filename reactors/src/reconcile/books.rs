//! What the log says of each order's money.

use std::{collections::BTreeMap, time::Duration};

use domain::{
    OrderId,
    envelope::StoredEvent,
    order::{Order, OrderEvent},
    payment::{Payment, PaymentEvent},
};
use event_store::JetStreamEventStore;
use time::OffsetDateTime;

use super::ReconcileError;

/// Messages read at once.
const BATCH_MESSAGES_MAX: usize = 1_000;
/// How long the log may take to go on.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// The money of all orders.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) orders: BTreeMap<OrderId, Account>,
}

/// The money of one order.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) order: Order,
    pub(super) payment: Payment,
    /// The event after which the payments reactor acts: that the stock was reserved, or that the order was called off.
    pub(super) acted_on: Option<u64>,
    /// When the order or its payment moved last.
    pub(super) moved_at: Option<OffsetDateTime>,
}

impl Books {
    /// Folds the log as it is now. An event that this build cannot read is passed over, as the order then looks to the reactors.
    pub(super) async fn read(store: &JetStreamEventStore) -> Result<Self, ReconcileError> {
        let mut books = Self::default();
        let head = store.last_readable().await?;
        let mut reader = store.read_from(1);
        let mut position = 0;
        while position < head {
            let batch = tokio::time::timeout(READ_DEADLINE, reader.next_batch(BATCH_MESSAGES_MAX)).await;
            for message in batch.map_err(|_| ReconcileError::LogStalled)?? {
                position = message.position;
                if matches!(message.aggregate_type(), "order" | "payment")
                    && let Ok(event) = message.event()
                {
                    books.take(position, &event);
                }
            }
        }
        Ok(books)
    }

    pub(super) fn take(&mut self, position: u64, event: &StoredEvent) {
        let Ok(order_id) = event.metadata.aggregate_id.parse::<OrderId>() else { return };
        let account = self.orders.entry(order_id).or_default();
        match event.metadata.aggregate_type.as_str() {
            "order" => {
                let Ok(change) = event.decode::<OrderEvent>() else { return };
                if matches!(change, OrderEvent::StockReserved(_) | OrderEvent::Cancelled(_)) {
                    account.acted_on = Some(position);
                }
                account.order.evolve(&change);
            }
            "payment" => {
                let Ok(change) = event.decode::<PaymentEvent>() else { return };
                account.payment.evolve(&change);
            }
            _ => return,
        }
        account.moved_at = Some(event.metadata.time);
    }
}
