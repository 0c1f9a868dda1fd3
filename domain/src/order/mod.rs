//! An order, from the checkout to the doorstep.
//!
//! `PLACED → RESERVED → CONFIRMED → SHIPPED → DELIVERED`, or `REJECTED` from `PLACED` when stock does not suffice, or
//! `CANCELLED` from any state before `SHIPPED`.

mod command;
mod event;
mod state;

mod decide;
mod error;

mod aggregate;

pub use command::*;
pub use decide::decide;
pub use error::OrderError;
pub use event::*;
pub use state::{Cancellation, Order, OrderStatus, Placement, Shipment};

/// Most lines of one order.
pub const LINES_MAX: usize = 100;
/// Most pieces of one line.
pub const LINE_QUANTITY_MAX: u32 = 1_000_000;
/// Highest price of one piece, in minor units.
pub const UNIT_PRICE_MINOR_MAX: i64 = 1_000_000_000;
/// Highest total of one order, in minor units; the largest charge that card networks take.
pub const TOTAL_MINOR_MAX: i64 = 99_999_999_999;
/// Longest customer name, mail address, payment method, cancellation reason, carrier or tracking number, in characters (Unicode scalar values, as JSON Schema counts).
pub const TEXT_CHARS_MAX: usize = 500;
