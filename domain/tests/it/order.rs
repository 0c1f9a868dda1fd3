use cqrs_es::test::TestFramework;
use domain::order::{
    Cancel, Cause, Confirm, Deliver, LINES_MAX, Order, OrderCommand, OrderError, OrderStatus, Place, RecordReservation, Reject,
    Ship,
};

use crate::given::{
    LATER, NOW, cancelled, confirmed, customer, delivered, first, line, placed, rejected, request, reserved, shipped,
};

fn order() -> TestFramework<Order> {
    TestFramework::with(())
}

fn place() -> Place {
    Place {
        customer: customer(),
        currency: "EUR".parse().unwrap(),
        lines: vec![line("TEA-1", 2, 1250), line("CUP-1", 1, 400)],
        payment_method: "pm_card_visa".to_owned(),
        placed_at: NOW,
        request: request(1),
    }
}

fn record_reservation() -> OrderCommand {
    OrderCommand::RecordReservation(RecordReservation { reserved_at: NOW, payment_due_at: LATER })
}

fn reject() -> OrderCommand {
    OrderCommand::Reject(Reject { shortages: rejected().shortages, rejected_at: NOW })
}

fn confirm(payment_intent_id: &str) -> OrderCommand {
    OrderCommand::Confirm(Confirm { payment_intent_id: payment_intent_id.to_owned(), confirmed_at: NOW })
}

fn cancel() -> OrderCommand {
    OrderCommand::Cancel(Cancel {
        cause: Cause::Customer,
        reason: "changed my mind".to_owned(),
        cancelled_at: NOW,
        request: Some(request(2)),
    })
}

fn ship() -> OrderCommand {
    OrderCommand::Ship(Ship {
        carrier: "DHL".to_owned(),
        tracking_number: "JD01".to_owned(),
        shipped_at: NOW,
        request: Some(request(3)),
    })
}

fn deliver() -> OrderCommand {
    OrderCommand::Deliver(Deliver { delivered_at: NOW, request: Some(request(4)) })
}

fn illegal(status: OrderStatus, attempted: &'static str) -> OrderError {
    OrderError::IllegalTransition { status, attempted }
}

#[test]
fn placing_an_order_sums_up_its_lines() {
    order().given_no_previous_events().when(OrderCommand::Place(place())).then_expect_events(vec![placed().into()]);
}

#[test]
fn placing_the_same_order_again_changes_nothing() {
    order().given(first(1)).when(OrderCommand::Place(place())).then_expect_events(vec![]);
    order().given(first(5)).when(OrderCommand::Place(place())).then_expect_events(vec![]);
}

#[test]
fn placing_another_order_under_the_same_key_is_rejected() {
    let mut other = place();
    other.request.digest = "another".to_owned();
    order().given(first(1)).when(OrderCommand::Place(other)).then_expect_error(OrderError::KeyReused);
}

#[test]
fn an_order_without_lines_or_with_too_many_is_rejected() {
    for count in [0, LINES_MAX + 1] {
        let place = Place { lines: vec![line("TEA-1", 1, 1); count], ..place() };
        order().given_no_previous_events().when(OrderCommand::Place(place)).then_expect_error(OrderError::LineCount(count));
    }
}

#[test]
fn a_total_that_cannot_be_charged_is_rejected() {
    for lines in [vec![line("TEA-1", 1, 0)], vec![line("TEA-1", 1_000_000, 1_000_000_000); LINES_MAX]] {
        let place = Place { lines, ..place() };
        order().given_no_previous_events().when(OrderCommand::Place(place)).then_expect_error(OrderError::Total);
    }
}

#[test]
fn quantities_and_prices_out_of_range_are_rejected() {
    let place_line = |line| OrderCommand::Place(Place { lines: vec![line], ..place() });
    let new_order = || order().given_no_previous_events();
    new_order().when(place_line(line("TEA-1", 0, 1))).then_expect_error(OrderError::Quantity(0));
    new_order().when(place_line(line("TEA-1", 1_000_001, 1))).then_expect_error(OrderError::Quantity(1_000_001));
    new_order().when(place_line(line("TEA-1", 1, -1))).then_expect_error(OrderError::UnitPrice(-1));
    new_order().when(place_line(line("TEA-1", 1, i64::MAX))).then_expect_error(OrderError::UnitPrice(i64::MAX));
}

#[test]
fn an_order_goes_from_placed_to_delivered() {
    let steps = [record_reservation(), confirm("pi_1"), ship(), deliver()];
    for (done, step) in (1..).zip(steps) {
        order().given(first(done)).when(step).then_expect_events(vec![first(5)[done].clone()]);
    }
}

#[test]
fn every_step_taken_twice_changes_nothing() {
    let steps = [record_reservation(), confirm("pi_1"), ship(), deliver()];
    for (done, step) in (2..).zip(steps) {
        order().given(first(done)).when(step).then_expect_events(vec![]);
    }
    let rejected = vec![placed().into(), rejected().into()];
    order().given(rejected).when(reject()).then_expect_events(vec![]);
    let cancelled = vec![placed().into(), cancelled().into()];
    order().given(cancelled).when(cancel()).then_expect_events(vec![]);
}

#[test]
fn nothing_can_be_done_with_an_order_that_does_not_exist() {
    for command in [record_reservation(), reject(), confirm("pi_1"), cancel(), ship(), deliver()] {
        order().given_no_previous_events().when(command).then_expect_error(OrderError::NotFound);
    }
}

#[test]
fn an_order_can_be_cancelled_until_it_is_shipped() {
    for done in 1..=3 {
        order().given(first(done)).when(cancel()).then_expect_events(vec![cancelled().into()]);
    }
}

#[test]
fn cancelling_a_shipped_order_is_rejected() {
    order().given(first(4)).when(cancel()).then_expect_error(illegal(OrderStatus::Shipped, "cancelled"));
    order().given(first(5)).when(cancel()).then_expect_error(illegal(OrderStatus::Delivered, "cancelled"));
}

#[test]
fn cancelling_a_rejected_order_is_rejected() {
    let given = vec![placed().into(), rejected().into()];
    order().given(given).when(cancel()).then_expect_error(illegal(OrderStatus::Rejected, "cancelled"));
}

#[test]
fn a_cancelled_order_is_neither_reserved_nor_confirmed() {
    let given = vec![placed().into(), reserved().into(), cancelled().into()];
    order().given(given.clone()).when(record_reservation()).then_expect_error(illegal(OrderStatus::Cancelled, "reserved"));
    order().given(given).when(confirm("pi_1")).then_expect_error(illegal(OrderStatus::Cancelled, "confirmed"));
}

#[test]
fn an_order_is_shipped_only_once_it_is_paid() {
    order().given(first(1)).when(ship()).then_expect_error(illegal(OrderStatus::Placed, "shipped"));
    order().given(first(2)).when(ship()).then_expect_error(illegal(OrderStatus::Reserved, "shipped"));
}

#[test]
fn a_confirmed_order_is_not_confirmed_by_another_payment() {
    order().given(first(3)).when(confirm("pi_2")).then_expect_error(illegal(OrderStatus::Confirmed, "confirmed"));
}

#[test]
fn the_key_of_an_earlier_command_with_another_body_is_rejected() {
    let mut reused = request(3);
    reused.digest = "another".to_owned();
    let deliver = OrderCommand::Deliver(Deliver { delivered_at: NOW, request: Some(reused) });
    order().given(first(4)).when(deliver).then_expect_error(OrderError::KeyReused);
}

#[test]
fn two_lines_of_one_sku_add_up() {
    let mut order = Order::default();
    let mut event = placed();
    event.lines = vec![line("TEA-1", 2, 1), line("TEA-1", 3, 2)];
    order.evolve(&event.into());
    let quantities = order.placement.unwrap().quantities();
    assert_eq!(quantities.into_values().collect::<Vec<_>>(), [5]);
}

#[test]
fn a_delivered_order_knows_when_it_arrived() {
    let mut order = Order::default();
    for event in [placed().into(), reserved().into(), confirmed().into(), shipped().into(), delivered().into()] {
        order.evolve(&event);
    }
    assert_eq!(order.status, Some(OrderStatus::Delivered));
    assert_eq!(order.shipment.unwrap().delivered_at, Some(NOW));
}
