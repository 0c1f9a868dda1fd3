//! Why an order refuses a command.

use super::{LINE_QUANTITY_MAX, LINES_MAX, OrderStatus, TEXT_CHARS_MAX, TOTAL_MINOR_MAX, UNIT_PRICE_MINOR_MAX};

/// A rejection: the command was understood and may not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No such order.
    #[error("the order does not exist")]
    NotFound,
    /// The Idempotency-Key already stands for another request.
    #[error("this Idempotency-Key was used before for a different request")]
    KeyReused,
    /// The order's status does not allow it.
    #[error("an order that is {} cannot be {attempted}", status.as_str())]
    IllegalTransition {
        /// Where the order stands.
        status: OrderStatus,
        /// What was asked, as a past participle.
        attempted: &'static str,
    },
    /// No line, or too many.
    #[error("an order needs 1 to {LINES_MAX} lines, not {0}")]
    LineCount(usize),
    /// Nothing, or too much, of one SKU.
    #[error("a line's quantity must be 1 to {LINE_QUANTITY_MAX}, not {0}")]
    Quantity(u32),
    /// A price below zero, or absurd.
    #[error("a unit price must be 0 to {UNIT_PRICE_MINOR_MAX} minor units, not {0}")]
    UnitPrice(i64),
    /// A total that cannot be charged.
    #[error("an order's total must be 1 to {TOTAL_MINOR_MAX} minor units")]
    Total,
    /// A text that is empty or too long.
    #[error("{field} must be 1 to {TEXT_CHARS_MAX} characters long")]
    Text {
        /// Which one.
        field: &'static str,
    },
}
