//! What a SKU's stock is now: the fold of its events.

use serde::{Deserialize, Serialize};

use super::{Allocation, StockEvent};
use crate::{OrderId, RecentRequests, Request, SharedMap};

/// The stock of one SKU; [`Stock::default`] is one of which nothing ever came in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Pieces on the shelf.
    pub on_hand: i64,
    /// Pieces promised to orders; the sum over `open`.
    pub reserved: i64,
    /// How many pieces each order still has a promise of. Shared between clones: a popular SKU has very many.
    pub open: SharedMap<OrderId, i64>,
    /// How many events led here.
    pub version: u64,
    /// The client requests that led here, each with what it left.
    pub requests: RecentRequests<StockLevel>,
}

/// How much there was right after an event. Remembered with each request, because the stock as it was cannot be folded again
/// for every retry where a SKU has a million events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLevel {
    /// How many events there were.
    pub version: u64,
    /// Pieces on the shelf.
    pub on_hand: i64,
    /// Pieces promised to orders.
    pub reserved: i64,
}

impl StockLevel {
    /// Pieces that could still be promised.
    pub fn available(&self) -> i64 {
        self.on_hand.saturating_sub(self.reserved)
    }
}

impl Stock {
    /// Pieces that can still be promised.
    pub fn available(&self) -> i64 {
        self.level().available()
    }

    /// How much there is now.
    pub fn level(&self) -> StockLevel {
        let Self { version, on_hand, reserved, .. } = *self;
        StockLevel { version, on_hand, reserved }
    }

    /// Folds one event in. Total: whatever the log holds, in whatever order, gives a state.
    pub fn evolve(&mut self, event: &StockEvent) {
        self.version = self.version.saturating_add(1);
        match event {
            StockEvent::Received(received) => {
                self.on_hand = self.on_hand.saturating_add(i64::from(received.quantity));
                self.remember(received.request.as_ref());
            }
            StockEvent::Adjusted(adjusted) => {
                self.on_hand = self.on_hand.saturating_add(adjusted.delta);
                self.remember(adjusted.request.as_ref());
            }
            StockEvent::Reserved(reserved) => {
                for allocation in &reserved.allocations {
                    let quantity = pieces(allocation);
                    let open = self.open.get_or_insert_default(allocation.order_id);
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

    fn remember(&mut self, request: Option<&Request>) {
        self.requests.remember(request, self.level());
    }

    fn close(&mut self, allocation: &Allocation) {
        self.open.remove(&allocation.order_id);
        self.reserved = self.reserved.saturating_sub(pieces(allocation));
    }
}

fn pieces(allocation: &Allocation) -> i64 {
    i64::try_from(allocation.quantity).unwrap_or(i64::MAX)
}
