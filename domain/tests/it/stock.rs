use cqrs_es::test::TestFramework;
use domain::stock::{Adjust, ON_HAND_MAX, Receive, Release, Reserve, Ship, Stock, StockCommand, StockError};

use crate::given::{NOW, adjusted, allocation, order_id, received, request, stock_released, stock_reserved, stock_shipped};

fn stock() -> TestFramework<Stock> {
    TestFramework::with(())
}

fn receive(quantity: u32) -> StockCommand {
    StockCommand::Receive(Receive { quantity, reference: "DN-7".to_owned(), received_at: NOW, request: Some(request(5)) })
}

fn adjust(delta: i64) -> StockCommand {
    StockCommand::Adjust(Adjust {
        delta,
        reason: "broken in the store".to_owned(),
        reference: "COUNT-3".to_owned(),
        adjusted_at: NOW,
        request: Some(request(6)),
    })
}

fn reserve(allocations: &[(u128, u64)]) -> StockCommand {
    let allocations = allocations.iter().map(|(order, quantity)| allocation(*order, *quantity)).collect();
    StockCommand::Reserve(Reserve { allocations, reserved_at: NOW })
}

fn release(orders: &[u128]) -> StockCommand {
    let order_ids = orders.iter().map(|order| order_id(*order)).collect();
    StockCommand::Release(Release { order_ids, released_at: NOW })
}

fn ship(orders: &[u128]) -> StockCommand {
    let order_ids = orders.iter().map(|order| order_id(*order)).collect();
    StockCommand::Ship(Ship { order_ids, shipped_at: NOW })
}

#[test]
fn goods_come_in() {
    stock().given_no_previous_events().when(receive(10)).then_expect_events(vec![received(10).into()]);
    stock().given(vec![received(10).into()]).when(receive(10)).then_expect_events(vec![]);
}

#[test]
fn more_than_the_books_can_hold_is_rejected() {
    let full = adjusted(ON_HAND_MAX).into();
    stock().given(vec![full]).when(receive(1)).then_expect_error(StockError::TooMany);
}

#[test]
fn a_count_corrects_the_books() {
    stock().given(vec![received(10).into()]).when(adjust(-3)).then_expect_events(vec![adjusted(-3).into()]);
}

#[test]
fn a_correction_below_what_is_reserved_is_rejected() {
    let given = vec![received(10).into(), stock_reserved(&[allocation(1, 8)])];
    stock().given(given).when(adjust(-3)).then_expect_error(StockError::BelowReserved { on_hand: 7, reserved: 8 });
}

#[test]
fn one_event_reserves_for_many_orders() {
    let expected = stock_reserved(&[allocation(1, 2), allocation(2, 3)]);
    stock().given(vec![received(5).into()]).when(reserve(&[(1, 2), (2, 3)])).then_expect_events(vec![expected]);
}

#[test]
fn reserving_more_than_is_available_is_rejected() {
    stock()
        .given(vec![received(5).into(), stock_reserved(&[allocation(1, 2)])])
        .when(reserve(&[(2, 3), (3, 1)]))
        .then_expect_error(StockError::Insufficient { requested: 4, available: 3 });
}

#[test]
fn an_order_is_not_given_its_stock_twice() {
    let given = vec![received(5).into(), stock_reserved(&[allocation(1, 2)])];
    stock().given(given.clone()).when(reserve(&[(1, 2)])).then_expect_events(vec![]);
    let expected = stock_reserved(&[allocation(2, 1)]);
    stock().given(given).when(reserve(&[(1, 2), (2, 1), (2, 1)])).then_expect_events(vec![expected]);
}

#[test]
fn releasing_gives_back_what_is_still_open_once() {
    let given = vec![received(5).into(), stock_reserved(&[allocation(1, 2)])];
    let released = stock_released(&[allocation(1, 2)]);
    stock().given(given.clone()).when(release(&[1, 9, 1])).then_expect_events(vec![released.clone()]);
    stock().given([given, vec![released]].concat()).when(release(&[1])).then_expect_events(vec![]);
}

#[test]
fn shipping_takes_the_reserved_pieces_off_the_shelf() {
    let given = vec![received(5).into(), stock_reserved(&[allocation(1, 2)])];
    let shipped = stock_shipped(&[allocation(1, 2)]);
    stock().given(given.clone()).when(ship(&[1])).then_expect_events(vec![shipped.clone()]);
    let mut state = Stock::default();
    for event in [given, vec![shipped]].concat() {
        state.evolve(&event);
    }
    assert_eq!((state.on_hand, state.reserved, state.available()), (3, 0, 3));
}
