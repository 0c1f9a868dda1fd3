//! What a payment answers to a command: events, or a rejection.

use super::{
    Payment, PaymentCaptured, PaymentCommand, PaymentDeclined, PaymentError, PaymentEvent, PaymentGivenUp, PaymentRefunded,
    PaymentStatus, RecordCapture, RecordDecline, RecordGivingUp, RecordRefund,
};

/// Longest reason that is kept of why an event was given up.
const REASON_BYTES_MAX: usize = 1_000;

/// Decides `command` on `payment`.
pub fn decide(payment: &Payment, command: PaymentCommand) -> Result<Vec<PaymentEvent>, PaymentError> {
    match command {
        PaymentCommand::RecordCapture(command) => record_capture(payment, command),
        PaymentCommand::RecordDecline(command) => record_decline(payment, command),
        PaymentCommand::RecordRefund(command) => record_refund(payment, command),
        PaymentCommand::RecordGivingUp(command) => Ok(record_giving_up(payment, command)),
    }
}

fn record_capture(payment: &Payment, command: RecordCapture) -> Result<Vec<PaymentEvent>, PaymentError> {
    match (payment.status, &payment.capture) {
        (PaymentStatus::None, _) if command.amount.minor_units <= 0 => Err(PaymentError::Amount),
        (PaymentStatus::None, _) => Ok(vec![
            PaymentCaptured {
                payment_intent_id: command.payment_intent_id,
                amount: command.amount,
                captured_at: command.captured_at,
            }
            .into(),
        ]),
        (PaymentStatus::Captured | PaymentStatus::Refunded, Some(capture)) => {
            if capture.payment_intent_id == command.payment_intent_id {
                return Ok(vec![]);
            }
            Err(PaymentError::SecondCapture { recorded: capture.payment_intent_id.clone(), reported: command.payment_intent_id })
        }
        (status, _) => illegal(status, "captured"),
    }
}

fn record_decline(payment: &Payment, command: RecordDecline) -> Result<Vec<PaymentEvent>, PaymentError> {
    match payment.status {
        PaymentStatus::None => {
            Ok(vec![PaymentDeclined { code: command.code, message: command.message, declined_at: command.declined_at }.into()])
        }
        PaymentStatus::Declined => Ok(vec![]),
        status @ (PaymentStatus::Captured | PaymentStatus::Refunded) => illegal(status, "declined"),
    }
}

fn record_refund(payment: &Payment, command: RecordRefund) -> Result<Vec<PaymentEvent>, PaymentError> {
    match (payment.status, &payment.capture) {
        (PaymentStatus::Captured, Some(capture)) => Ok(vec![
            PaymentRefunded { refund_id: command.refund_id, amount: capture.amount, refunded_at: command.refunded_at }.into(),
        ]),
        (PaymentStatus::Refunded, _) => Ok(vec![]),
        (status, _) => illegal(status, "refunded"),
    }
}

/// Once for each event: however often it is given up, one look at it is what it needs.
fn record_giving_up(payment: &Payment, command: RecordGivingUp) -> Vec<PaymentEvent> {
    let RecordGivingUp { position, mut reason, given_up_at } = command;
    if payment.given_up.as_ref().is_some_and(|given_up| given_up.position >= position) {
        return vec![];
    }
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    vec![PaymentGivenUp { position, reason, given_up_at }.into()]
}

fn illegal(status: PaymentStatus, attempted: &'static str) -> Result<Vec<PaymentEvent>, PaymentError> {
    Err(PaymentError::IllegalTransition { status, attempted })
}
