//! What can be asked of a SKU's stock.

use time::OffsetDateTime;

use super::Allocation;
use crate::{OrderId, Request};

/// Any command to a SKU's stock.
#[derive(Clone, Debug, PartialEq)]
pub enum StockCommand {
    /// See [`Receive`].
    Receive(Receive),
    /// See [`Adjust`].
    Adjust(Adjust),
    /// See [`Reserve`].
    Reserve(Reserve),
    /// See [`Release`].
    Release(Release),
    /// See [`Ship`].
    Ship(Ship),
}

/// Goods came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Receive {
    /// How many pieces, at least 1.
    pub quantity: u32,
    /// The delivery note.
    pub reference: String,
    /// When.
    pub received_at: OffsetDateTime,
    /// The client request, if a client asked.
    pub request: Option<Request>,
}

/// Somebody counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Adjust {
    /// Pieces more (or, below zero, fewer) than the books had; not 0.
    pub delta: i64,
    /// Why the books were wrong.
    pub reason: String,
    /// The count's number.
    pub reference: String,
    /// When.
    pub adjusted_at: OffsetDateTime,
    /// The client request, if a client asked.
    pub request: Option<Request>,
}

/// Promise pieces to orders: all of them, or a rejection.
#[derive(Clone, Debug, PartialEq)]
pub struct Reserve {
    /// How many to which order.
    pub allocations: Vec<Allocation>,
    /// When.
    pub reserved_at: OffsetDateTime,
}

/// Take back what was promised to orders that no longer need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// Whose promise ends.
    pub order_ids: Vec<OrderId>,
    /// When.
    pub released_at: OffsetDateTime,
}

/// What was promised to these orders has left the shelf.
#[derive(Clone, Debug, PartialEq)]
pub struct Ship {
    /// Whose parcels left.
    pub order_ids: Vec<OrderId>,
    /// When.
    pub shipped_at: OffsetDateTime,
}
