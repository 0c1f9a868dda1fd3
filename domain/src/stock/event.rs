//! What can have happened to a SKU's stock. These shapes are stored for ever: see `domain/tests/golden/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{OrderId, Request, codec::event_enum, rfc3339::Rfc3339};

event_enum! {
    /// Any event of a SKU's stock.
    pub enum StockEvent {
        /// See [`StockReceived`].
        Received(StockReceived) = "contrail.stock.received.v1",
        /// See [`StockAdjusted`].
        Adjusted(StockAdjusted) = "contrail.stock.adjusted.v1",
        /// See [`StockReserved`].
        Reserved(StockReserved) = "contrail.stock.reserved.v1",
        /// See [`StockReleased`].
        Released(StockReleased) = "contrail.stock.released.v1",
        /// See [`StockShipped`].
        Shipped(StockShipped) = "contrail.stock.shipped.v1",
    }
}

/// So many pieces for one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Allocation {
    /// Which order.
    pub order_id: OrderId,
    /// How many pieces.
    pub quantity: u64,
}

/// Goods came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StockReceived {
    /// How many pieces.
    pub quantity: u32,
    /// The delivery note.
    pub reference: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub received_at: OffsetDateTime,
    /// The client request, if a client asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// A count corrected the books.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StockAdjusted {
    /// Pieces more, or fewer when below zero.
    pub delta: i64,
    /// Why the books were wrong.
    pub reason: String,
    /// The count's number.
    pub reference: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub adjusted_at: OffsetDateTime,
    /// The client request, if a client asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// Pieces are promised to orders; one event serves a whole batch of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StockReserved {
    /// How many to which order.
    pub allocations: Vec<Allocation>,
    /// When.
    #[serde(with = "Rfc3339")]
    pub reserved_at: OffsetDateTime,
}

/// Promises ended without a parcel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StockReleased {
    /// How many of which order.
    pub allocations: Vec<Allocation>,
    /// When.
    #[serde(with = "Rfc3339")]
    pub released_at: OffsetDateTime,
}

/// Promised pieces left the shelf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StockShipped {
    /// How many of which order.
    pub allocations: Vec<Allocation>,
    /// When.
    #[serde(with = "Rfc3339")]
    pub shipped_at: OffsetDateTime,
}
