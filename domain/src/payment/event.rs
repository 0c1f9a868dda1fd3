//! What can have happened to a payment. These shapes are stored for ever: see `domain/tests/golden/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{Money, codec::event_enum, rfc3339::Rfc3339};

event_enum! {
    /// Any event of a payment.
    pub enum PaymentEvent {
        /// See [`PaymentCaptured`].
        Captured(PaymentCaptured) = "contrail.payment.captured.v1",
        /// See [`PaymentDeclined`].
        Declined(PaymentDeclined) = "contrail.payment.declined.v1",
        /// See [`PaymentRefunded`].
        Refunded(PaymentRefunded) = "contrail.payment.refunded.v1",
        /// See [`PaymentGivenUp`].
        GivenUp(PaymentGivenUp) = "contrail.payment.given_up.v1",
    }
}

/// The gateway took the money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentCaptured {
    /// The gateway's id of the payment.
    pub payment_intent_id: String,
    /// How much.
    pub amount: Money,
    /// When.
    #[serde(with = "Rfc3339")]
    pub captured_at: OffsetDateTime,
}

/// The gateway, or the bank behind it, refused for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentDeclined {
    /// The gateway's code, for example `card_declined`.
    pub code: String,
    /// The gateway's words.
    pub message: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub declined_at: OffsetDateTime,
}

/// The gateway gave the money back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRefunded {
    /// The gateway's id of the refund.
    pub refund_id: String,
    /// How much.
    pub amount: Money,
    /// When.
    #[serde(with = "Rfc3339")]
    pub refunded_at: OffsetDateTime,
}

/// The payments reactor gave up on an event of the order: somebody has to look into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentGivenUp {
    /// The event's place in the log.
    pub position: u64,
    /// Why, in words for people.
    pub reason: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub given_up_at: OffsetDateTime,
}
