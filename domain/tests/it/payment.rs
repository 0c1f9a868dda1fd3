use cqrs_es::test::TestFramework;
use domain::payment::{
    Payment, PaymentCommand, PaymentError, PaymentGivenUp, PaymentStatus, RecordCapture, RecordDecline, RecordGivingUp,
    RecordRefund,
};

use crate::given::{NOW, captured, declined, euros, given_up, refunded};

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

#[test]
fn what_was_given_up_is_recorded_once_for_each_event_and_over_once_the_gateway_has_answered() {
    let record = |position, reason: &str| {
        let reason = reason.to_owned();
        PaymentCommand::RecordGivingUp(RecordGivingUp { position, reason, given_up_at: NOW })
    };
    let reason = given_up().reason;
    payment().given_no_previous_events().when(record(17, &reason)).then_expect_events(vec![given_up().into()]);
    payment().given(vec![given_up().into()]).when(record(17, "again")).then_expect_events(vec![]);
    let later = PaymentGivenUp { position: 18, reason: "later".to_owned(), ..given_up() };
    payment().given(vec![given_up().into()]).when(record(18, "later")).then_expect_events(vec![later.into()]);
    let long = PaymentGivenUp { reason: "ö".repeat(500), ..given_up() };
    payment().given_no_previous_events().when(record(17, &"ö".repeat(501))).then_expect_events(vec![long.into()]);
    payment().given(vec![given_up().into()]).when(capture("pi_1")).then_expect_events(vec![captured().into()]);
    let mut state = Payment::default();
    for (event, is_given_up) in
        [(given_up().into(), true), (captured().into(), false), (given_up().into(), true), (refunded().into(), false)]
    {
        state.evolve(&event);
        assert_eq!(state.given_up.is_some(), is_given_up, "{event:?}");
    }
}
