//! What a SKU's stock is now: the fold of its events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Allocation, StockEvent};
use crate::{OrderId, RecentRequests};

/// The stock of one SKU; [`Stock::default`] is one of which nothing ever came in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Pieces on the shelf.
    pub on_hand: i64,
    /// Pieces promised to orders; the sum over `open`.
    pub reserved: i64,
    /// How many pieces each order still has a promise of.
    pub open: BTreeMap<OrderId, i64>,
    /// The client requests that led here.
    pub requests: RecentRequests,
}

impl Stock {
    /// Pieces that can still be promised.
    pub fn available(&self) -> i64 {
        self.on_hand.saturating_sub(self.reserved)
    }

    /// Folds one event in. Total: whatever the log holds, in whatever order, gives a state.
    pub fn evolve(&mut self, event: &StockEvent) {
        match event {
            StockEvent::Received(received) => {
                self.on_hand = self.on_hand.saturating_add(i64::from(received.quantity));
                self.requests.remember(received.request.as_ref());
            }
            StockEvent::Adjusted(adjusted) => {
                self.on_hand = self.on_hand.saturating_add(adjusted.delta);
                self.requests.remember(adjusted.request.as_ref());
            }
            StockEvent::Reserved(reserved) => {
                for allocation in &reserved.allocations {
                    let quantity = pieces(allocation);
                    let open = self.open.entry(allocation.order_id).or_default();
                    *open = open.saturating_add(quantity);
                    self.reserved = self.reserved.saturating_add(quantity);
                }
            }
            StockEvent::Released(released) => {
                for allocation in &released.allocations {
                    self.close(allocation);
                }
            }
            StockEvent::Shipped(shipped) => {
                for allocation in &shipped.allocations {
                    self.close(allocation);
                    self.on_hand = self.on_hand.saturating_sub(pieces(allocation));
                }
            }
        }
    }

    fn close(&mut self, allocation: &Allocation) {
        self.open.remove(&allocation.order_id);
        self.reserved = self.reserved.saturating_sub(pieces(allocation));
    }
}

fn pieces(allocation: &Allocation) -> i64 {
    i64::try_from(allocation.quantity).unwrap_or(i64::MAX)
}
