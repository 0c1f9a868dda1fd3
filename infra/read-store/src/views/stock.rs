//! The stock of one SKU as queries see it.

use cqrs_es::{EventEnvelope, View};
use domain::stock::{Allocation, Stock, StockEvent};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::envelope::Stamp;

/// The payload of a row of `contrail.inventory`. The reservations behind `reserved` are not repeated here: their events hold them.
///
/// Version 0 is a SKU of which nothing ever came in; no such row is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StockView {
    /// Which SKU.
    pub sku: String,
    /// Pieces on the shelf.
    pub on_hand: i64,
    /// Pieces promised to orders.
    pub reserved: i64,
    /// The stock's own version: the last of its events that is folded in.
    pub version: u64,
    /// Where that event stands in the log.
    pub position: u64,
    /// When it was appended.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl Default for StockView {
    fn default() -> Self {
        Self { sku: String::new(), on_hand: 0, reserved: 0, version: 0, position: 0, updated_at: OffsetDateTime::UNIX_EPOCH }
    }
}

impl StockView {
    /// Pieces that can still be promised.
    pub fn available(&self) -> i64 {
        self.on_hand.saturating_sub(self.reserved)
    }
}

impl StockView {
    /// Folds an event of the stock in.
    pub fn fold(&mut self, sku: &str, event: &StockEvent, stamp: &Stamp) {
        if stamp.version <= self.version {
            return;
        }
        match event {
            StockEvent::Received(received) => self.on_hand = self.on_hand.saturating_add(i64::from(received.quantity)),
            StockEvent::Adjusted(adjusted) => self.on_hand = self.on_hand.saturating_add(adjusted.delta),
            StockEvent::Reserved(reserved) => self.reserved = self.reserved.saturating_add(pieces(&reserved.allocations)),
            StockEvent::Released(released) => self.reserved = self.reserved.saturating_sub(pieces(&released.allocations)),
            StockEvent::Shipped(shipped) => {
                let pieces = pieces(&shipped.allocations);
                self.reserved = self.reserved.saturating_sub(pieces);
                self.on_hand = self.on_hand.saturating_sub(pieces);
            }
        }
        if self.version == 0 {
            sku.clone_into(&mut self.sku);
        }
        self.version = stamp.version;
        stamp.mark(&mut self.position, &mut self.updated_at);
    }
}

impl View<Stock> for StockView {
    fn update(&mut self, envelope: &EventEnvelope<Stock>) {
        self.fold(&envelope.aggregate_id, &envelope.payload, &Stamp::of(envelope));
    }
}

fn pieces(allocations: &[Allocation]) -> i64 {
    allocations.iter().fold(0_i64, |sum, allocation| sum.saturating_add(i64::try_from(allocation.quantity).unwrap_or(i64::MAX)))
}
