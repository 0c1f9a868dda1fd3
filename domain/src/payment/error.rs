//! Why a payment refuses a command.

use super::PaymentStatus;

/// A rejection: what the gateway is said to have done does not fit what is recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    /// The payment's status does not allow it.
    #[error("a payment that is {} cannot be {attempted}", status.as_str())]
    IllegalTransition {
        /// Where the payment stands.
        status: PaymentStatus,
        /// What was reported, as a past participle.
        attempted: &'static str,
    },
    /// Two different captures for one order: somebody was charged twice.
    #[error("the order was already paid by {recorded}, and now {reported} is reported")]
    SecondCapture {
        /// The payment that is recorded.
        recorded: String,
        /// The one that is reported.
        reported: String,
    },
    /// Nothing, or less, was taken.
    #[error("a captured amount must be above 0")]
    Amount,
}
