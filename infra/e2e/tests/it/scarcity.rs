//! More orders than pieces: exactly those that fit are served.

use std::time::Duration;

use domain::order::OrderEvent;
use domain::stock::{Stock, StockEvent};
use e2e::settle::settle;
use e2e::shop::Shop;
use event_store::JetStreamEventStore;
use futures::future::join_all;

use crate::running::{Running, order_of};

const PIECES: u32 = 100;
const ORDERS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_orders_at_once_for_a_hundred_pieces_exactly_a_hundred_are_reserved_twice_in_a_row() {
    let running = Running::start();
    let shop = &running.shop;
    for round in 1..=2 {
        shop.receive("TEA-RARE", PIECES, &format!("receipt-{round}")).await.unwrap();
        let order_ids = place_at_once(shop, "TEA-RARE", round, |_| 1).await;
        settle(running.info(), shop).await.unwrap();
        let confirmed = with_status(shop, &order_ids, "CONFIRMED").await;
        let rejected = with_status(shop, &order_ids, "REJECTED").await;
        assert_eq!((confirmed.len(), rejected.len()), (PIECES as usize, ORDERS - PIECES as usize), "round {round}");
        let stock = shop.stock_item("TEA-RARE", None).await.unwrap().unwrap();
        assert_eq!((stock.on_hand, stock.reserved), (100, 100));

        // Out of the house, so that the next round begins with an empty shelf.
        for order_id in confirmed {
            shop.ship(order_id.parse().unwrap(), "CT-1", &format!("{order_id}-ship")).await.unwrap();
        }
        settle(running.info(), shop).await.unwrap();
        let stock = shop.stock_item("TEA-RARE", None).await.unwrap().unwrap();
        assert_eq!((stock.on_hand, stock.reserved), (0, 0));
    }
    let report = running.check_invariants().await;
    assert_eq!((report.confirmed, report.rejected), (200, 200));
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_orders_for_one_to_three_pieces_no_rejected_one_would_have_fitted() {
    let running = Running::start();
    let shop = &running.shop;
    for (round, sku) in [(1, "TEA-RARE-1"), (2, "TEA-RARE-2")] {
        shop.receive(sku, PIECES, sku).await.unwrap();
        let order_ids = place_at_once(shop, sku, round, |index| 1 + u32::try_from(index % 3).unwrap()).await;
        assert_eq!(order_ids.len(), ORDERS);
    }
    let report = running.check_invariants().await;
    assert_eq!(report.orders, 2 * ORDERS as u64);
    assert_eq!(report.confirmed + report.rejected, report.orders);

    let store = JetStreamEventStore::connect(&running.info().nats, "scarcity").await.unwrap();
    for sku in ["TEA-RARE-1", "TEA-RARE-2"] {
        check_rejections(&store, sku, report.events).await;
    }
    running.finish();
}

async fn place_at_once(shop: &Shop, sku: &str, round: u32, quantity: impl Fn(usize) -> u32) -> Vec<String> {
    let orders: Vec<_> = (0..ORDERS).map(|index| (format!("{sku}-{round}-{index}"), order_of(sku, quantity(index)))).collect();
    let answers = join_all(orders.iter().map(|(key, order)| shop.place(order, key))).await;
    answers.into_iter().map(|answer| answer.unwrap().order_id.to_string()).collect()
}

async fn with_status(shop: &Shop, order_ids: &[String], status: &str) -> Vec<String> {
    let mut found = Vec::new();
    for some in order_ids.chunks(50) {
        let seen = shop.orders(some).await.unwrap();
        found.extend(seen.into_iter().filter(|order| order.status == status).map(|order| order.order_id));
    }
    found
}

/// Goes through the log: whoever was rejected wanted more than was there at its turn, and more than was there at the end.
async fn check_rejections(store: &JetStreamEventStore, sku: &str, head: u64) {
    let mut stock = Stock::default();
    let mut short_by = Vec::new();
    let mut reader = store.read_from(1);
    let mut position = 0;
    while position < head {
        let batch = tokio::time::timeout(Duration::from_secs(10), reader.next_batch(1_000)).await.expect("the log goes on");
        for message in batch.unwrap() {
            position = message.position;
            let event = message.event().unwrap();
            match event.metadata.aggregate_type.as_str() {
                "stock" if event.metadata.aggregate_id == sku => stock.evolve(&event.decode::<StockEvent>().unwrap()),
                "order" => {
                    let OrderEvent::Rejected(rejected) = event.decode().unwrap() else { continue };
                    let [shortage] = rejected.shortages.as_slice() else { panic!("there is one line: {rejected:?}") };
                    if shortage.sku.as_str() == sku {
                        let requested = i64::try_from(shortage.requested).unwrap();
                        assert!(requested > shortage.available && shortage.available >= 0, "{shortage:?}");
                        assert!(requested > stock.available(), "{shortage:?} with {} to be had", stock.available());
                        short_by.push(requested);
                    }
                }
                _ => {}
            }
        }
    }
    assert_eq!((stock.on_hand, stock.reserved), (100, stock.open.values().sum::<i64>()));
    let smallest = short_by.into_iter().min().expect("200 orders want about 400 pieces");
    assert!(smallest > stock.available(), "an order for {smallest} was rejected and {} are left", stock.available());
}
