//! One allocator: who gets stock, and when it is given back.

use domain::{
    order::{OrderStatus, Shortage},
    stock::Stock,
};
use event_store::{Expected, Transaction};

use crate::{
    running,
    shop::{Ask, ONE_TEA, Shop, context, placed_unchecked},
    trail::Trail,
};

#[tokio::test]
async fn an_order_gets_all_of_its_lines_or_none() {
    let shop = Shop::open().await;
    shop.receive("TEA", 5).await;
    let greedy = shop.place_lines("greedy", &[("TEA", 1), ("CUP", 1)]).await;
    let modest = shop.place_lines("modest", &[("TEA", 5)]).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    trail.until("both are decided", |trail| trail.status(modest) == Some(OrderStatus::Reserved)).await;
    assert_eq!(trail.status(greedy), Some(OrderStatus::Rejected));
    assert_eq!(trail.stock("TEA").open.into_iter().collect::<Vec<_>>(), [(modest, 5)]);
}

#[tokio::test]
async fn a_sku_that_nobody_ever_received_is_rejected_with_what_was_short() {
    let shop = Shop::open().await;
    shop.receive("TEA", 2).await;
    let _allocator = running::allocator(&shop.store);
    let order = shop.place_lines("o", &[("TEA", 1), ("UNKNOWN", 3)]).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("it is rejected", |trail| trail.status(order) == Some(OrderStatus::Rejected)).await;
    let shortage = Shortage { sku: "UNKNOWN".parse().unwrap(), requested: 3, available: 0 };
    assert_eq!(trail.orders[&order].shortages, [shortage]);
    assert_eq!(trail.stock("TEA").reserved, 0);
}

#[tokio::test]
async fn two_lines_of_one_sku_add_up() {
    let shop = Shop::open().await;
    shop.receive("TEA", 3).await;
    let _allocator = running::allocator(&shop.store);
    let too_many = shop.place_lines("4", &[("TEA", 2), ("TEA", 2)]).await;
    let all = shop.place_lines("3", &[("TEA", 2), ("TEA", 1)]).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("it is reserved", |trail| trail.status(all) == Some(OrderStatus::Reserved)).await;
    assert_eq!((trail.orders[&too_many].shortages[0].requested, trail.orders[&too_many].shortages[0].available), (4, 3));
    assert_eq!(trail.stock("TEA").open[&all], 3);
}

#[tokio::test]
async fn of_200_orders_for_100_pieces_exactly_100_are_reserved_twice() {
    let shop = Shop::open().await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    for sale in ["first", "second"] {
        shop.receive("TEA", 100).await;
        let orders = shop.place_many(sale, 200, ONE_TEA).await;
        trail
            .until("all are decided", |trail| {
                orders.iter().all(|order| trail.status(*order).is_some_and(|status| status != OrderStatus::Placed))
            })
            .await;
        assert_eq!(trail.count(&orders, OrderStatus::Reserved), 100);
        assert_eq!(trail.count(&orders, OrderStatus::Rejected), 100);
        assert_eq!(trail.stock("TEA").available(), 0);
    }
}

#[tokio::test]
async fn stock_that_came_in_after_it_was_seen_at_0_is_given_out() {
    let shop = Shop::open().await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    let early = shop.place("early", ONE_TEA).await;
    trail.until("there is none", |trail| trail.status(early) == Some(OrderStatus::Rejected)).await;
    for quantity in [1, 2] {
        shop.receive("TEA", 1).await;
        let late = shop.place(&format!("late-{quantity}"), ONE_TEA).await;
        trail.until("it is decided", |trail| trail.status(late).is_some_and(|status| status != OrderStatus::Placed)).await;
        assert_eq!(trail.status(late), Some(OrderStatus::Reserved), "piece {quantity}");
    }
}

#[tokio::test]
async fn stock_that_was_counted_away_after_it_was_seen_is_not_given_out() {
    let shop = Shop::open().await;
    shop.receive("TEA", 5).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    let first = shop.place("first", ONE_TEA).await;
    trail.until("it is reserved", |trail| trail.status(first) == Some(OrderStatus::Reserved)).await;
    shop.adjust("TEA", -4).await;
    let second = shop.place("second", ONE_TEA).await;
    trail.until("it is rejected", |trail| trail.status(second) == Some(OrderStatus::Rejected)).await;
    assert_eq!(trail.orders[&second].shortages[0].available, 0);
}

#[tokio::test]
async fn what_a_cancelled_order_had_is_given_to_the_next() {
    let shop = Shop::open().await;
    shop.receive("TEA", 1).await;
    shop.receive("CUP", 1).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    let first = shop.place_lines("first", &[("TEA", 1), ("CUP", 1)]).await;
    trail.until("it is reserved", |trail| trail.status(first) == Some(OrderStatus::Reserved)).await;
    shop.cancel(first).await.unwrap();
    trail.until("it is released", |trail| trail.stock("TEA").reserved == 0 && trail.stock("CUP").reserved == 0).await;
    let second = shop.place("second", ONE_TEA).await;
    trail.until("it is reserved", |trail| trail.status(second) == Some(OrderStatus::Reserved)).await;
    assert_eq!(trail.positions_of("stock.released").len(), 2);
}

#[tokio::test]
async fn what_is_cancelled_and_ordered_in_one_batch_changes_hands() {
    let shop = Shop::open().await;
    shop.receive("TEA", 1).await;
    let first_allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    let first = shop.place("first", ONE_TEA).await;
    trail.until("it is reserved", |trail| trail.status(first) == Some(OrderStatus::Reserved)).await;
    first_allocator.drain().await;
    let second = shop.place("second", ONE_TEA).await;
    shop.cancel(first).await.unwrap();
    let _second_allocator = running::allocator(&shop.store);
    trail.until("it is released", |trail| !trail.stock("TEA").open.contains_key(&first)).await;
    trail.until("it is decided", |trail| trail.status(second) != Some(OrderStatus::Placed)).await;
    let (open, status) = (trail.stock("TEA").open, trail.status(second));
    assert_eq!((open.contains_key(&second), status), (status == Some(OrderStatus::Reserved), status));
}

#[tokio::test]
async fn an_order_cancelled_before_the_allocator_saw_it_reserves_nothing() {
    let shop = Shop::open().await;
    shop.receive("TEA", 1).await;
    let cancelled = shop.place("cancelled", ONE_TEA).await;
    shop.cancel(cancelled).await.unwrap();
    let kept = shop.place("kept", ONE_TEA).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    trail.until("the other is reserved", |trail| trail.status(kept) == Some(OrderStatus::Reserved)).await;
    shop.idle("allocator").await;
    trail.catch_up(&shop.store).await;
    assert_eq!(trail.orders[&cancelled].payment_due_at, None, "it was never reserved");
    assert_eq!(trail.positions_of("stock.released").len(), 0);
}

#[tokio::test]
async fn a_shipped_orders_reservation_leaves_the_shelf() {
    let shop = Shop::open().await;
    shop.receive("TEA", 5).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    let order = shop.place_lines("o", &[("TEA", 2)]).await;
    trail.until("it is reserved", |trail| trail.status(order) == Some(OrderStatus::Reserved)).await;
    shop.confirm(order).await;
    shop.ship(order).await;
    trail.until("it has left the shelf", |trail| trail.stock("TEA").on_hand == 3).await;
    assert_eq!((trail.stock("TEA").reserved, trail.stock("TEA").open.len()), (0, 0));
    assert_eq!(trail.positions_of("stock.shipped").len(), 1);
}

#[tokio::test]
async fn a_batch_of_orders_costs_a_sku_one_event() {
    let shop = Shop::open().await;
    shop.receive("TEA", 100).await;
    let orders = shop.place_many("o", 100, ONE_TEA).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    let stock_events = trail.positions_of("stock.reserved").len();
    assert!(stock_events <= 20, "{stock_events} events reserved one SKU for 100 orders that waited together");
}

#[tokio::test]
async fn what_is_reserved_again_and_again_takes_no_room_from_orders() {
    let shop = Shop::open().await;
    shop.receive("TEA", 100).await;
    let store = shop.connect().await;
    let _allocator = running::allocator(&store);
    let mut trail = Trail::of(&shop.store);
    for number in 0..5 {
        let order = shop.place(&number.to_string(), ONE_TEA).await;
        trail.until("it is reserved", |trail| trail.status(order) == Some(OrderStatus::Reserved)).await;
    }
    // The allocator keeps the stock itself; the store's cache has it as it was when it was loaded for the first order.
    assert_eq!(store.recall::<Stock>("TEA").unwrap().version, 1);
    assert_eq!(store.load::<Stock>("TEA").await.unwrap().version, 6);
}

fn distinct_skus(first: usize, count: usize) -> Vec<String> {
    (first..first + count).map(|number| format!("SKU-{number}")).collect()
}

#[tokio::test]
async fn orders_of_100_skus_that_together_exceed_a_transaction_are_all_reserved() {
    let shop = Shop::open().await;
    let skus = distinct_skus(0, 1_200);
    futures::future::join_all(skus.iter().map(|sku| shop.receive(sku, 1))).await;
    let mut orders = Vec::new();
    for (number, skus) in skus.chunks(100).enumerate() {
        let lines: Vec<_> = skus.iter().map(|sku| (sku.as_str(), 1)).collect();
        orders.push(shop.place_lines(&number.to_string(), &lines).await);
    }
    let allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    assert_eq!(trail.positions_of("stock.reserved").len(), 1_200);
    allocator.drain().await;
    // All of them have to be loaded now, and the number of their SKUs is not known before.
    for order in &orders {
        shop.cancel(*order).await.unwrap();
    }
    let _allocator = running::allocator(&shop.store);
    trail.until("all are released", |trail| trail.stocks.values().all(|stock| stock.reserved == 0)).await;
}

#[tokio::test]
async fn an_order_that_no_transaction_can_hold_is_given_up_and_the_others_go_on() {
    let shop = Shop::open().await;
    shop.receive("TEA", 2).await;
    let skus = distinct_skus(0, 1_001);
    let store = &shop.store;
    futures::future::join_all(skus.iter().map(|sku| crate::shop::receive(store, sku, 1))).await;
    let lines: Vec<_> = skus.iter().map(|sku| (sku.as_str(), 1)).collect();
    let before = shop.place("before", ONE_TEA).await;
    let monster = domain::OrderId::derive("shop", "monster").to_string();
    let mut transaction = Transaction::new();
    let placed = placed_unchecked("monster", Ask { lines: &lines, ..ONE_TEA });
    transaction.push::<domain::order::Order>(&monster, Expected::NEW, &[placed], &context(&monster));
    let position = shop.store.append(transaction).await.unwrap().first_position;
    let after = shop.place("after", ONE_TEA).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    trail.until("the others are reserved", |trail| trail.all_are(&[before, after], OrderStatus::Reserved)).await;
    shop.idle("allocator").await;
    let letters = shop.dead_letters().await;
    assert_eq!(letters.iter().map(|letter| letter.position).collect::<Vec<_>>(), [position]);
    assert!(letters[0].error_chain[0].contains("1000 is the limit"), "{:?}", letters[0].error_chain);
}
