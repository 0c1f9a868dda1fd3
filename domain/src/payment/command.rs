//! What the payments reactor reports of the gateway.

use time::OffsetDateTime;

use crate::Money;

/// Any command to a payment.
#[derive(Clone, Debug, PartialEq)]
pub enum PaymentCommand {
    /// See [`RecordCapture`].
    RecordCapture(RecordCapture),
    /// See [`RecordDecline`].
    RecordDecline(RecordDecline),
    /// See [`RecordRefund`].
    RecordRefund(RecordRefund),
    /// See [`RecordGivingUp`].
    RecordGivingUp(RecordGivingUp),
}

/// The gateway took the money.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordCapture {
    /// The gateway's id of the payment.
    pub payment_intent_id: String,
    /// How much.
    pub amount: Money,
    /// When.
    pub captured_at: OffsetDateTime,
}

/// The gateway, or the bank behind it, refused for good.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordDecline {
    /// The gateway's code, for example `card_declined`.
    pub code: String,
    /// The gateway's words.
    pub message: String,
    /// When.
    pub declined_at: OffsetDateTime,
}

/// The gateway gave the whole captured amount back.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRefund {
    /// The gateway's id of the refund.
    pub refund_id: String,
    /// When.
    pub refunded_at: OffsetDateTime,
}

/// The payments reactor gave up on an event of the order: somebody has to look into it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordGivingUp {
    /// The event's place in the log, which is part of its dead letter's name.
    pub position: u64,
    /// Why, in words for people.
    pub reason: String,
    /// When.
    pub given_up_at: OffsetDateTime,
}
