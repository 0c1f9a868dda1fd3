use cqrs_es::test::TestFramework;
use domain::payment::{Payment, PaymentCommand, PaymentError, PaymentStatus, RecordCapture, RecordDecline, RecordRefund};

use crate::given::{NOW, captured, declined, euros, refunded};

fn payment() -> TestFramework<Payment> {
    TestFramework::with(())
}

fn capture(payment_intent_id: &str) -> PaymentCommand {
    PaymentCommand::RecordCapture(RecordCapture {
        payment_intent_id: payment_intent_id.to_owned(),
        amount: euros(2900),
        captured_at: NOW,
    })
}

fn decline() -> PaymentCommand {
    PaymentCommand::RecordDecline(RecordDecline {
        code: "card_declined".to_owned(),
        message: "Your card was declined.".to_owned(),
        declined_at: NOW,
    })
}

fn refund() -> PaymentCommand {
    PaymentCommand::RecordRefund(RecordRefund { refund_id: "re_1".to_owned(), refunded_at: NOW })
}

#[test]
fn a_payment_is_captured_once() {
    payment().given_no_previous_events().when(capture("pi_1")).then_expect_events(vec![captured().into()]);
    payment().given(vec![captured().into()]).when(capture("pi_1")).then_expect_events(vec![]);
    payment().given(vec![captured().into(), refunded().into()]).when(capture("pi_1")).then_expect_events(vec![]);
}

#[test]
fn a_second_charge_for_one_order_is_noticed() {
    let expected = PaymentError::SecondCapture { recorded: "pi_1".to_owned(), reported: "pi_2".to_owned() };
    payment().given(vec![captured().into()]).when(capture("pi_2")).then_expect_error(expected);
}

#[test]
fn a_refund_gives_back_what_was_captured_once() {
    payment().given(vec![captured().into()]).when(refund()).then_expect_events(vec![refunded().into()]);
    payment().given(vec![captured().into(), refunded().into()]).when(refund()).then_expect_events(vec![]);
}

#[test]
fn what_was_not_captured_cannot_be_refunded() {
    let expected = PaymentError::IllegalTransition { status: PaymentStatus::None, attempted: "refunded" };
    payment().given_no_previous_events().when(refund()).then_expect_error(expected);
}

#[test]
fn a_decline_is_final() {
    payment().given_no_previous_events().when(decline()).then_expect_events(vec![declined().into()]);
    payment().given(vec![declined().into()]).when(decline()).then_expect_events(vec![]);
    let expected = PaymentError::IllegalTransition { status: PaymentStatus::Declined, attempted: "captured" };
    payment().given(vec![declined().into()]).when(capture("pi_1")).then_expect_error(expected);
}
