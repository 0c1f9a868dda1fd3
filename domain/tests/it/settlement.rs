use domain::{
    order::{Cause, Order, OrderEvent, decide},
    payment::{Payment, PaymentEvent},
    settlement::{Step, cancel_unpaid, next_step},
};
use time::OffsetDateTime;

use crate::given::{LATER, NOW, cancelled, captured, confirmed, declined, euros, placed, refunded, rejected, reserved};

#[expect(clippy::needless_pass_by_value, reason = "the tests read better without references")]
fn step_at(now: OffsetDateTime, order_events: Vec<OrderEvent>, payment_events: Vec<PaymentEvent>) -> Step {
    let (mut order, mut payment) = (Order::default(), Payment::default());
    for event in &order_events {
        order.evolve(event);
    }
    for event in &payment_events {
        payment.evolve(event);
    }
    next_step(&order, &payment, now)
}

fn step(order_events: Vec<OrderEvent>, payment_events: Vec<PaymentEvent>) -> Step {
    step_at(NOW, order_events, payment_events)
}

#[test]
fn an_order_is_charged_until_its_deadline_and_called_off_from_then_on_unless_it_is_paid() {
    let reserved_order = || vec![placed().into(), reserved().into()];
    let just_in_time = LATER - time::Duration::MICROSECOND;
    assert!(matches!(step_at(just_in_time, reserved_order(), vec![]), Step::Charge { .. }));
    assert_eq!(step_at(LATER, reserved_order(), vec![]), Step::CancelUnpaid);
    assert!(matches!(step_at(LATER, reserved_order(), vec![captured().into()]), Step::Confirm { .. }));
    let cancelled_order = vec![placed().into(), reserved().into(), cancelled().into()];
    assert_eq!(step_at(LATER, cancelled_order, vec![]), Step::FindCharge);

    let order_of = |events: Vec<OrderEvent>| {
        let mut order = Order::default();
        for event in &events {
            order.evolve(event);
        }
        order
    };
    let decided = |order: &Order, now| decide(order, cancel_unpaid(now)).unwrap();
    let order = order_of(reserved_order());
    assert_eq!(decided(&order, just_in_time), []);
    let [OrderEvent::Cancelled(event)] = &decided(&order, LATER)[..] else { panic!() };
    assert_eq!((event.cause, event.cancelled_at), (Cause::PaymentDeadline, LATER));
    let paid = order_of(vec![placed().into(), reserved().into(), confirmed().into()]);
    for order in [paid, order_of(vec![placed().into()])] {
        assert_eq!(decided(&order, LATER), []);
    }
}

#[test]
fn a_reserved_order_is_charged_its_total() {
    let expected = Step::Charge { amount: euros(2900), payment_method: "pm_card_visa".to_owned() };
    assert_eq!(step(vec![placed().into(), reserved().into()], vec![]), expected);
}

#[test]
fn an_order_that_is_not_reserved_or_is_already_paid_is_not_charged() {
    assert_eq!(step(vec![], vec![]), Step::Nothing);
    assert_eq!(step(vec![placed().into()], vec![]), Step::Nothing);
    assert_eq!(step(vec![placed().into(), rejected().into()], vec![]), Step::Nothing);
    assert_eq!(step(vec![placed().into(), cancelled().into()], vec![]), Step::Nothing);
    let confirmed = vec![placed().into(), reserved().into(), confirmed().into()];
    assert_eq!(step(confirmed, vec![captured().into()]), Step::Nothing);
}

#[test]
fn what_the_order_does_not_know_yet_it_is_told() {
    let reserved = || vec![placed().into(), reserved().into()];
    let expected = Step::Confirm { payment_intent_id: "pi_1".to_owned() };
    assert_eq!(step(reserved(), vec![captured().into()]), expected);
    let expected = Step::CancelDeclined { message: "Your card was declined.".to_owned() };
    assert_eq!(step(reserved(), vec![declined().into()]), expected);
}

#[test]
fn a_cancelled_order_ends_with_nothing_charged() {
    let cancelled = || vec![placed().into(), reserved().into(), cancelled().into()];
    assert_eq!(step(cancelled(), vec![]), Step::FindCharge, "a charge may have been in flight");
    let expected = Step::Refund { payment_intent_id: "pi_1".to_owned(), amount: euros(2900) };
    assert_eq!(step(cancelled(), vec![captured().into()]), expected);
    assert_eq!(step(cancelled(), vec![captured().into(), refunded().into()]), Step::Nothing);
    assert_eq!(step(cancelled(), vec![declined().into()]), Step::Nothing);
}
