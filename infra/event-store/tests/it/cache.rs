use std::time::Duration;

use domain::{
    OrderId,
    order::Order,
    stock::{Allocation, Stock, StockReserved},
};
use event_store::{Beginning, Expected, JetStreamEventStore, Loaded, Sharing, Transaction, WorkQueueOptions, WorkSource};
use uuid::Uuid;

use crate::{NOW, context, log, receive, received};

/// A SKU that so many orders have a promise of, in one event for each 2,000 of them.
async fn reserve(store: &JetStreamEventStore, sku: &str, orders: u128) {
    let mut expected = Expected::NEW;
    let orders: Vec<_> = (0..orders).map(|order| Allocation { order_id: OrderId(Uuid::from_u128(order)), quantity: 1 }).collect();
    for allocations in orders.chunks(2_000) {
        let mut transaction = Transaction::new();
        let event = StockReserved { allocations: allocations.to_vec(), reserved_at: NOW };
        transaction.push::<Stock>(sku, expected, &[event.into()], &context());
        let appended = store.append(transaction).await.unwrap();
        expected = Expected { version: expected.version + 1, position: appended.last_position };
    }
}

/// A store that has loaded nothing yet, with so much room for what it will load.
async fn fresh(url: &str, cache_bytes: usize) -> JetStreamEventStore {
    let store = JetStreamEventStore::connect(url, "test").await.unwrap().with_cache_bytes(cache_bytes);
    store.wait_until_ready(|_| ()).await;
    store
}

#[tokio::test]
async fn hits_and_misses_are_counted_and_what_does_not_exist_is_neither() {
    let (server, writer) = log().await;
    receive(&writer, "TEA", 5).await;
    let store = fresh(server.url(), 1024 * 1024).await;
    for _ in 0..3 {
        assert_eq!(store.load::<Stock>("TEA").await.unwrap().version, 1);
        assert_eq!(store.load::<Stock>("NONE").await.unwrap().version, 0);
    }
    let stats = store.cache_stats();
    assert_eq!((stats.hits, stats.misses, stats.aggregates, stats.evictions), (2, 1, 1, 0));
    assert!((100..2_000).contains(&stats.bytes), "{stats:?}");
}

#[tokio::test]
async fn memory_is_bounded_and_what_is_used_stays() {
    let (server, writer) = log().await;
    for number in 0..200 {
        receive(&writer, &format!("SKU-{number}"), 1).await;
    }
    let store = fresh(server.url(), 20_000).await;
    for number in 0..200 {
        store.load::<Stock>(&format!("SKU-{number}")).await.unwrap();
        store.load::<Stock>("SKU-0").await.unwrap();
        assert!(store.cache_stats().bytes <= 20_000, "{:?}", store.cache_stats());
    }
    let stats = store.cache_stats();
    assert_eq!((stats.misses, stats.hits), (200, 200), "the one that is used again and again was never dropped");
    assert!(stats.evictions > 100 && stats.evictions + stats.aggregates as u64 == 200, "{stats:?}");
}

#[tokio::test]
async fn one_huge_aggregate_does_not_push_out_the_others() {
    let (server, writer) = log().await;
    reserve(&writer, "HUGE", 20_000).await;
    receive(&writer, "TEA", 1).await;
    let store = fresh(server.url(), 1024 * 1024).await;
    store.load::<Stock>("TEA").await.unwrap();
    for _ in 0..3 {
        let huge = store.load::<Stock>("HUGE").await.unwrap();
        assert_eq!((huge.version, huge.aggregate.open.len()), (10, 20_000));
    }
    store.load::<Stock>("TEA").await.unwrap();
    let stats = store.cache_stats();
    assert_eq!((stats.hits, stats.misses, stats.aggregates, stats.evictions), (1, 4, 1, 3));
}

#[tokio::test]
async fn a_cached_aggregate_is_brought_up_to_date_however_much_is_new() {
    let (server, writer) = log().await;
    receive(&writer, "TEA", 1).await;
    let store = fresh(server.url(), 1024 * 1024).await;
    let mut pieces = 1;
    for new in [0, 1, 2, 40, 1_100] {
        let mut left = new;
        while left > 0 {
            let some = left.min(900);
            let tea = writer.load::<Stock>("TEA").await.unwrap();
            let mut transaction = Transaction::new();
            transaction.push::<Stock>("TEA", tea.expected(), &vec![received(1); some], &context());
            transaction.push::<Stock>(&format!("OTHER-{new}-{left}"), Expected::NEW, &[received(1)], &context());
            writer.append(transaction).await.unwrap();
            left -= some;
        }
        pieces += i64::try_from(new).unwrap();
        let (ours, theirs): (Loaded<Stock>, Loaded<Stock>) =
            (store.load("TEA").await.unwrap(), fresh(server.url(), 0).await.load("TEA").await.unwrap());
        assert_eq!(ours.aggregate.on_hand, pieces);
        assert_eq!((ours.position, ours.version, ours.aggregate), (theirs.position, theirs.version, theirs.aggregate));
    }
}

#[tokio::test]
async fn what_a_queue_hands_out_makes_the_cache_follow_the_log() {
    let (server, writer) = log().await;
    let store = fresh(server.url(), 1024 * 1024).await;
    let options = WorkQueueOptions {
        name: "tester",
        source: WorkSource::Log(&["stock"]),
        takes_redrives: true,
        beginning: Beginning::First,
        ack_wait: Duration::from_secs(10),
        in_flight_max: 100,
        parked_max: 0,
        sharing: Sharing::All,
    };
    let mut queue = store.work_queue(options);
    for quantity in [3, 4] {
        receive(&writer, "TEA", quantity).await;
        let item = queue.next_batch(1).await.remove(0);
        let event = item.event().unwrap();
        // Twice, as two readers of one process would.
        store.witness::<Stock>(&item, &event);
        store.witness::<Stock>(&item, &event);
        store.witness::<Order>(&item, &event);
        item.done().await;
    }
    let known = store.recall::<Stock>("TEA").unwrap();
    assert_eq!((known.version, known.position, known.aggregate.on_hand), (2, 2, 7));
    // A gap is not leapt over, and what lies on another subject is nobody's.
    receive(&writer, "TEA", 5).await;
    receive(&writer, "TEA", 6).await;
    let skipped = queue.next_batch(1).await;
    let item = queue.next_batch(1).await.remove(0);
    assert_eq!((skipped.len(), item.position), (1, 4));
    store.witness::<Stock>(&item, &item.event().unwrap());
    let mut elsewhere = item.event().unwrap();
    elsewhere.metadata.aggregate_id = "COFFEE".to_owned();
    elsewhere.metadata.version = 1;
    store.witness::<Stock>(&item, &elsewhere);
    assert_eq!(store.recall::<Stock>("TEA").unwrap().version, 2);
    assert!(store.recall::<Stock>("COFFEE").is_none());
}
