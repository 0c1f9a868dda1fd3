use std::time::Duration;

use domain::stock::Stock;
use event_store::{Expected, Loaded, Transaction};

use crate::{context, log, receive, received};

/// More than one page of a direct get.
const MANY: u32 = 2_500;

async fn append_many(store: &event_store::JetStreamEventStore, sku: &str) {
    let mut expected = Expected::NEW;
    while expected.version < u64::from(MANY) {
        let mut transaction = Transaction::new();
        transaction.push::<Stock>(sku, expected, &vec![received(1); 500], &context());
        let appended = store.append(transaction).await.unwrap();
        expected = Expected { version: expected.version + 500, position: appended.last_position };
    }
}

#[tokio::test]
async fn a_long_aggregate_is_loaded_page_by_page() {
    let (_server, store) = log().await;
    receive(&store, "OTHER", 1).await;
    append_many(&store, "TEA").await;
    receive(&store, "OTHER", 1).await;
    let tea = store.load::<Stock>("TEA").await.unwrap();
    assert_eq!((tea.version, tea.aggregate.on_hand), (u64::from(MANY), i64::from(MANY)));
    let earlier = store.load_at::<Stock>("TEA", 1_700).await.unwrap();
    assert_eq!((earlier.version, earlier.aggregate.on_hand, earlier.position), (1_700, 1_700, 1_701));
}

#[tokio::test]
async fn an_aggregate_without_events_is_the_default_at_version_0() {
    let (_server, store) = log().await;
    let loaded = store.load::<Stock>("TEA").await.unwrap();
    assert_eq!((loaded.version, loaded.position, loaded.aggregate), (0, 0, Stock::default()));
}

#[tokio::test]
async fn a_refresh_folds_in_only_what_is_new() {
    let (_server, store) = log().await;
    let mut loaded = receive(&store, "TEA", 5).await;
    assert!(!store.refresh("TEA", &mut loaded).await.unwrap());
    receive(&store, "TEA", 2).await;
    assert!(store.refresh("TEA", &mut loaded).await.unwrap());
    assert_eq!((loaded.version, loaded.aggregate.on_hand), (2, 7));
    let mut unknown = Loaded::<Stock>::default();
    assert!(!store.refresh("NONE", &mut unknown).await.unwrap());
}

#[tokio::test]
async fn a_reader_gets_every_position_in_order_from_where_it_asked() {
    let (_server, store) = log().await;
    append_many(&store, "TEA").await;
    let mut reader = store.read_from(1_000);
    let mut expected = 1_000;
    while expected <= u64::from(MANY) {
        for message in reader.next_batch(300).await.unwrap() {
            assert_eq!(message.position, expected);
            assert_eq!(message.pending, u64::from(MANY) - expected);
            expected += 1;
        }
    }
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_after_the_server_was_killed() {
    let (mut server, store) = log().await;
    receive(&store, "TEA", 1).await;
    let mut reader = store.read_from(1);
    assert_eq!(reader.next_batch(10).await.unwrap()[0].position, 1);
    server.kill();
    server.start_again().unwrap();
    receive(&store, "TEA", 1).await;
    let next = tokio::time::timeout(Duration::from_secs(10), reader.next_batch(10)).await;
    assert_eq!(next.expect("the reader found the new server").unwrap()[0].position, 2);
}
