//! Why a SKU's stock refuses a command.

use super::{ON_HAND_MAX, TEXT_CHARS_MAX};

/// A rejection: the command was understood and may not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StockError {
    /// The Idempotency-Key already stands for another request.
    #[error("this Idempotency-Key was used before for a different request")]
    KeyReused,
    /// Nothing to receive, nothing to correct.
    #[error("{field} must not be 0")]
    Zero {
        /// Which field.
        field: &'static str,
    },
    /// More than the books can hold.
    #[error("no more than {ON_HAND_MAX} pieces of one SKU can be on hand")]
    TooMany,
    /// The correction would take away what is promised.
    #[error("on hand would become {on_hand}, below the {reserved} that are reserved")]
    BelowReserved {
        /// What on hand would become.
        on_hand: i64,
        /// What is promised.
        reserved: i64,
    },
    /// Not enough to promise.
    #[error("{requested} pieces are wanted and {available} are available")]
    Insufficient {
        /// How many were wanted in all.
        requested: u64,
        /// How many could be had.
        available: i64,
    },
    /// A text that is empty or too long.
    #[error("{field} must be 1 to {TEXT_CHARS_MAX} characters long")]
    Text {
        /// Which one.
        field: &'static str,
    },
}
