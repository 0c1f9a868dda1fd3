//! The stock of one SKU: what is on the shelf, and how much of it is promised to orders.
//!
//! `available = on_hand − reserved`, and never `reserved > on_hand`.

mod command;
mod event;
mod state;

mod decide;
mod error;

mod aggregate;

pub use command::*;
pub use decide::decide;
pub use error::StockError;
pub use event::*;
pub use state::{Stock, StockLevel};

/// Most pieces of one SKU on hand; GraphQL's `Int` has 32 bits.
pub const ON_HAND_MAX: i64 = i32::MAX as i64;
/// Longest reference or reason, in characters (Unicode scalar values, as JSON Schema counts).
pub const TEXT_CHARS_MAX: usize = 500;
