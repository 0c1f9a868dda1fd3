//! Several allocators, customers who change their minds, and deliveries, all at the same time.

use std::collections::BTreeMap;

use domain::{
    OrderId,
    order::{OrderCommand, OrderStatus},
};
use futures::future::join_all;

use crate::{
    PATIENCE_BEYOND_ACK_WAIT, running,
    shop::{ONE_TEA, Shop},
    trail::Trail,
};

fn is_decided(trail: &Trail, order: OrderId) -> bool {
    trail.status(order).is_some_and(|status| status != OrderStatus::Placed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_while_stock_is_being_reserved_leaves_no_reservation() {
    let shop = Shop::open().await;
    shop.receive("TEA", 1_000).await;
    let _allocator = running::allocator(&shop.store);
    let keys: Vec<_> = (0..150).map(|number| format!("o-{number}")).collect();
    let orders = join_all(keys.iter().map(|key| async {
        let order = shop.place(key, ONE_TEA).await;
        shop.cancel(order).await.unwrap();
        order
    }))
    .await;
    let mut trail = Trail::of(&shop.store);
    let all_cancelled = |trail: &Trail| trail.all_are(&orders, OrderStatus::Cancelled);
    trail.until("all are cancelled", all_cancelled).await;
    trail.until("nothing is reserved", |trail| trail.stock("TEA").reserved == 0).await;
    shop.idle("allocator").await;
    trail.catch_up(&shop.store).await;
    assert!(all_cancelled(&trail));
    assert_eq!((trail.stock("TEA").reserved, trail.stock("TEA").on_hand), (0, 1_000));
    assert_eq!(shop.dead_letters().await, []);
}

/// What every order must have come to: all of its lines are reserved, or none.
fn assert_reserved_as_decided(trail: &Trail, orders: &[OrderId]) {
    for order_id in orders {
        let order = &trail.orders[order_id];
        let quantities = order.placement.as_ref().unwrap().quantities();
        let held: BTreeMap<_, _> = trail
            .stocks
            .iter()
            .filter_map(|(sku, stock)| Some((sku.clone(), u64::try_from(*stock.open.get(order_id)?).unwrap())))
            .collect();
        match order.status.unwrap() {
            OrderStatus::Reserved => assert_eq!(held, quantities, "{order_id}"),
            OrderStatus::Rejected | OrderStatus::Cancelled => assert!(held.is_empty(), "{order_id} holds {held:?}"),
            status => panic!("{order_id} is {status:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_allocators_never_oversell_and_lose_nothing() {
    const SKUS: usize = 5;
    let shop = Shop::open().await;
    let skus: Vec<_> = (0..SKUS).map(|number| format!("SKU-{number}")).collect();
    for sku in &skus {
        shop.receive(sku, 60).await;
    }
    let _first = running::allocator(&shop.connect().await);
    let _second = running::allocator(&shop.connect().await);
    let place = |number: usize| {
        let (shop, skus) = (&shop, &skus);
        async move {
            let lines = [(skus[number % SKUS].as_str(), 1), (skus[(number / SKUS + 1) % SKUS].as_str(), 2)];
            let order = shop.place_lines(&format!("o-{number}"), &lines).await;
            if number.is_multiple_of(7) {
                // Some are too late: that order was rejected.
                let _ = shop.cancel(order).await;
            }
            if number.is_multiple_of(11) {
                shop.receive(lines[0].0, 1).await;
            }
            order
        }
    };
    let orders = join_all((0..300).map(place)).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("all are decided", |trail| orders.iter().all(|order| is_decided(trail, *order))).await;
    shop.idle("allocator").await;
    trail.catch_up(&shop.store).await;
    assert_reserved_as_decided(&trail, &orders);
    let reserved = trail.count(&orders, OrderStatus::Reserved);
    assert!(reserved >= 60, "{reserved} of 300 are reserved, and there was stock for at least 60");
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_allocator_left_undone_a_second_one_does() {
    let shop = Shop::open().await;
    shop.receive("TEA", 500).await;
    let orders = shop.place_many("o", 700, ONE_TEA).await;
    let first = running::allocator(&shop.connect().await);
    let mut trail = Trail::of(&shop.store);
    trail.until("it has begun", |trail| trail.count(&orders, OrderStatus::Reserved) > 0).await;
    first.kill().await;
    let _second = running::allocator(&shop.connect().await);
    let decided = |trail: &Trail| orders.iter().all(|order| is_decided(trail, *order));
    trail.until_within(PATIENCE_BEYOND_ACK_WAIT, "no order is left as it was placed", decided).await;
    assert_eq!(trail.count(&orders, OrderStatus::Reserved), 500);
    assert_reserved_as_decided(&trail, &orders);
}

#[tokio::test]
async fn orders_that_are_paid_shipped_and_cancelled_at_once_end_with_the_right_stock() {
    let shop = Shop::open().await;
    shop.receive("TEA", 60).await;
    let allocator = running::allocator(&shop.store);
    let orders = shop.place_many("o", 60, ONE_TEA).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    allocator.drain().await;
    let (shipped, cancelled) = orders.split_at(25);
    join_all(shipped.iter().map(|order| async {
        shop.confirm(*order).await;
        shop.ship(*order).await;
    }))
    .await;
    join_all(cancelled.iter().map(|order| shop.cancel(*order))).await;
    let more = shop.place_many("more", 40, ONE_TEA).await;
    let delivered = OrderCommand::Deliver(domain::order::Deliver { delivered_at: crate::shop::NOW, request: None });
    shop.order(shipped[0], delivered).await.unwrap();
    let _allocator = running::allocator(&shop.store);
    trail.until("the new ones are decided", |trail| more.iter().all(|order| is_decided(trail, *order))).await;
    shop.idle("allocator").await;
    trail.catch_up(&shop.store).await;
    let tea = trail.stock("TEA");
    let reserved = trail.count(&more, OrderStatus::Reserved);
    assert_eq!((tea.on_hand, tea.reserved), (35, i64::try_from(reserved).unwrap()));
    assert_eq!(tea.open.len(), reserved);
}
