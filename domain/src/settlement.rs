//! What the payments reactor does next for an order, decided from the order and its payment alone.
//!
//! Whatever event, redelivery or restart leads here, the answer depends only on where things stand, so the money ends
//! right: an order that goes on is charged once, an order that is called off is charged nothing or refunded.

use time::OffsetDateTime;

use crate::{
    Money,
    order::{Cancel, Cause, Order, OrderCommand, OrderStatus},
    payment::{Payment, PaymentStatus},
};

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Charge the customer; the gateway's idempotency key is the order id.
    Charge {
        /// How much.
        amount: Money,
        /// The gateway's name of the card or account.
        payment_method: String,
    },
    /// It was not paid in time: call it off. A charge may have been in flight, which [`Step::FindCharge`] finds then.
    CancelUnpaid,
    /// The money is taken and the order does not know it yet.
    Confirm {
        /// The gateway's id of the payment.
        payment_intent_id: String,
    },
    /// The charge was refused and the order does not know it yet.
    CancelDeclined {
        /// The gateway's words.
        message: String,
    },
    /// The order was called off before a payment was recorded. A charge may have been in flight: ask the gateway, and
    /// if it took the money record that, which leads to [`Step::Refund`].
    FindCharge,
    /// The order was called off after the money was taken.
    Refund {
        /// The gateway's id of the payment.
        payment_intent_id: String,
        /// How much to give back.
        amount: Money,
    },
    /// Nothing is owed to anyone.
    Nothing,
}

/// The next step for `order` and its `payment` at the time `now`.
pub fn next_step(order: &Order, payment: &Payment, now: OffsetDateTime) -> Step {
    let (Some(status), Some(placement)) = (order.status, &order.placement) else { return Step::Nothing };
    match (status, payment.status, &payment.capture) {
        (OrderStatus::Reserved, PaymentStatus::None, _) if order.is_overdue(now) => Step::CancelUnpaid,
        (OrderStatus::Reserved, PaymentStatus::None, _) => {
            Step::Charge { amount: placement.total, payment_method: placement.payment_method.clone() }
        }
        (OrderStatus::Reserved, PaymentStatus::Captured, Some(capture)) => {
            Step::Confirm { payment_intent_id: capture.payment_intent_id.clone() }
        }
        (OrderStatus::Reserved, PaymentStatus::Declined, _) => {
            Step::CancelDeclined { message: payment.decline.as_ref().map_or_else(String::new, |(_, m)| m.clone()) }
        }
        // Only a reserved order is ever charged.
        (OrderStatus::Cancelled, PaymentStatus::None, _) if order.was_reserved() => Step::FindCharge,
        (OrderStatus::Cancelled, PaymentStatus::Captured, Some(capture)) => {
            Step::Refund { payment_intent_id: capture.payment_intent_id.clone(), amount: capture.amount }
        }
        _ => Step::Nothing,
    }
}

/// Calls off, at the time `now`, an order that was not paid in time. Does nothing to one that was, or that still may be.
pub fn cancel_unpaid(now: OffsetDateTime) -> OrderCommand {
    let reason = "it was not paid in time".to_owned();
    OrderCommand::Cancel(Cancel { cause: Cause::PaymentDeadline, reason, cancelled_at: now, request: None })
}
