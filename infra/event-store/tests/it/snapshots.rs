use std::time::Duration;

use async_nats::jetstream::{self, kv};
use domain::{
    OrderId, Request, SnapshotState,
    stock::{Allocation, Stock, StockEvent, StockReceived, StockReleased, StockReserved},
};
use event_store::{Expected, JetStreamEventStore, Loaded, SNAPSHOT_BUCKET, SnapshotStats, Transaction};
use local_stack::nats::NatsServer;
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{NOW, context, log, received};

const KEY: &str = "stock.TEA";

/// Appends `events` to TEA, with an event of another SKU between the transactions, and returns what they add up to.
async fn append(store: &JetStreamEventStore, before: &Loaded<Stock>, events: &[StockEvent]) -> Loaded<Stock> {
    let mut loaded = before.clone();
    for some in events.chunks(500) {
        let mut transaction = Transaction::new();
        transaction.push::<Stock>("TEA", loaded.expected(), some, &context());
        transaction.push::<Stock>(&format!("OTHER-{}", loaded.version), Expected::NEW, &[received(1)], &context());
        let appended = store.append(transaction).await.unwrap();
        loaded.advance(some, appended.last_position - 1);
    }
    loaded
}

/// A store that has loaded nothing yet.
async fn fresh(server: &NatsServer) -> JetStreamEventStore {
    let store = JetStreamEventStore::connect(server.url(), "test").await.unwrap();
    store.wait_until_ready(|_| ()).await;
    store
}

async fn until(store: &JetStreamEventStore, what: &str, is_so: impl Fn(SnapshotStats) -> bool) {
    for _ in 0..400 {
        if is_so(store.snapshot_stats()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}: {:?}", store.snapshot_stats());
}

async fn bucket(server: &NatsServer) -> kv::Store {
    let client = async_nats::connect(server.url()).await.unwrap();
    jetstream::new(client).get_key_value(SNAPSHOT_BUCKET).await.unwrap()
}

/// TEA with so many events, and a snapshot of it.
async fn with_snapshot(events: &[StockEvent]) -> (NatsServer, Loaded<Stock>) {
    let (server, writer) = log().await;
    let tea = append(&writer, &Loaded::default(), events).await;
    assert_same(&writer.load("TEA").await.unwrap(), &tea);
    until(&writer, "a snapshot is taken", |stats| stats.taken == 1).await;
    (server, tea)
}

#[track_caller]
fn assert_same(one: &Loaded<Stock>, other: &Loaded<Stock>) {
    assert_eq!((one.version, one.position), (other.version, other.position));
    assert_eq!(one.aggregate, other.aggregate);
}

fn requested(number: u128) -> StockEvent {
    let request = Request { id: Uuid::from_u128(number), digest: "d".repeat(64) };
    StockReceived { quantity: 1, reference: "DN".to_owned(), received_at: NOW, request: Some(request) }.into()
}

/// Loads TEA by a process that starts, and says what it did with the snapshot.
async fn load(server: &NatsServer) -> (Loaded<Stock>, SnapshotStats) {
    let store = fresh(server).await;
    let loaded = store.load("TEA").await.unwrap();
    (loaded, store.snapshot_stats())
}

#[tokio::test]
async fn a_new_process_starts_from_the_snapshot_and_adds_what_came_after() {
    let (server, mut tea) = with_snapshot(&vec![received(1); 1_000]).await;
    for new in [0, 1, 150, 400] {
        tea = append(&fresh(&server).await, &tea, &vec![received(2); new]).await;
        let (loaded, stats) = load(&server).await;
        assert_same(&loaded, &tea);
        assert_eq!((stats.used, stats.ignored), (1, 0), "with {new} new events");
    }
}

#[tokio::test]
async fn a_short_aggregate_has_no_snapshot_and_none_is_looked_for() {
    let (server, writer) = log().await;
    let tea = append(&writer, &Loaded::default(), &vec![received(1); 150]).await;
    let store = fresh(&server).await;
    assert_same(&store.load("TEA").await.unwrap(), &tea);
    assert_eq!(store.snapshot_stats(), SnapshotStats::default());
    assert!(bucket(&server).await.entry(KEY).await.unwrap().is_none());
}

#[tokio::test]
async fn appends_take_the_next_snapshot_when_many_events_have_come() {
    let (server, writer) = log().await;
    let mut tea = append(&writer, &Loaded::default(), &vec![received(1); 250]).await;
    writer.remember("TEA", &tea);
    until(&writer, "the first", |stats| stats.taken == 1).await;
    for _ in 0..3 {
        tea = append(&writer, &tea, &vec![received(1); 60]).await;
        writer.remember("TEA", &tea);
    }
    assert_eq!(writer.snapshot_stats().taken, 1, "180 events are not enough");
    tea = append(&writer, &tea, &vec![received(1); 60]).await;
    writer.remember("TEA", &tea);
    until(&writer, "the second", |stats| stats.taken == 2).await;
    let revision = bucket(&server).await.entry(KEY).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&revision.value).contains("\"version\":490"));
}

/// Changes the stored manifest's field, or the state behind it.
async fn tamper(server: &NatsServer, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let bucket = bucket(server).await;
    let stored = bucket.get(KEY).await.unwrap().unwrap();
    let end = stored.iter().position(|byte| *byte == b'\n').unwrap();
    let (mut manifest, mut state) = (serde_json::from_slice(&stored[..end]).unwrap(), stored[end + 1..].to_vec());
    change(&mut manifest, &mut state);
    let mut bytes = serde_json::to_vec(&manifest).unwrap();
    bytes.push(b'\n');
    bytes.extend(state);
    bucket.put(KEY, bytes.into()).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_is_not_what_it_says_is_ignored() {
    type Change = fn(&mut Value, &mut Vec<u8>);
    let changes: [(&str, Change); 9] = [
        ("an older build's", |manifest, _| manifest["snapshot_version"] = (Stock::SNAPSHOT_VERSION - 1).into()),
        ("another type's", |manifest, _| manifest["aggregate_type"] = "order".into()),
        ("another SKU's", |manifest, _| manifest["aggregate_id"] = "CUP".into()),
        ("another version", |manifest, _| manifest["version"] = 399.into()),
        ("another position", |manifest, _| manifest["position"] = 399.into()),
        ("a position beyond the log", |manifest, _| manifest["position"] = 999_999.into()),
        ("another log's", |manifest, _| manifest["event_id"] = Uuid::from_u128(7).to_string().into()),
        ("a flipped bit", |_, state| state[11] ^= 1),
        ("cut short", |_, state| state.truncate(40)),
    ];
    let (server, tea) = with_snapshot(&vec![received(1); 400]).await;
    let good = bucket(&server).await.get(KEY).await.unwrap().unwrap();
    for (what, change) in changes {
        bucket(&server).await.put(KEY, good.clone()).await.unwrap();
        assert_eq!(load(&server).await.1.used, 1, "the snapshot is good before it is made {what}");
        tamper(&server, change).await;
        let (loaded, stats) = load(&server).await;
        assert_same(&loaded, &tea);
        assert_eq!((stats.used, stats.ignored), (0, 1), "{what}");
    }
    for nonsense in ["", "\n", "{}\n{}", "nonsense"] {
        bucket(&server).await.put(KEY, nonsense.into()).await.unwrap();
        let (loaded, stats) = load(&server).await;
        assert_same(&loaded, &tea);
        assert_eq!(stats.used, 0, "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_snapshot_that_was_ignored_is_replaced() {
    let (server, _) = with_snapshot(&vec![received(1); 400]).await;
    tamper(&server, |manifest, _| manifest["snapshot_version"] = 0.into()).await;
    let store = fresh(&server).await;
    store.load::<Stock>("TEA").await.unwrap();
    until(&store, "a new snapshot is taken", |stats| stats.taken == 1).await;
    assert_eq!(load(&server).await.1.used, 1);
}

#[tokio::test]
async fn the_bucket_can_be_deleted_at_any_time() {
    let (server, mut tea) = with_snapshot(&vec![received(1); 400]).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    jetstream::new(client).delete_key_value(SNAPSHOT_BUCKET).await.unwrap();
    let store = fresh(&server).await;
    assert_same(&store.load("TEA").await.unwrap(), &tea);
    until(&store, "the missing bucket is noticed", |stats| stats.failed == 2).await;
    tea = append(&store, &tea, &vec![received(1); 300]).await;
    store.remember("TEA", &tea);
    until(&store, "and noticed again", |stats| stats.failed == 3).await;
    store.set_up(Some(1)).await.unwrap();
    tea = append(&store, &tea, &vec![received(1); 300]).await;
    store.remember("TEA", &tea);
    until(&store, "a snapshot is taken", |stats| stats.taken == 1).await;
    let (loaded, stats) = load(&server).await;
    assert_same(&loaded, &tea);
    assert_eq!(stats.used, 1);
}

/// Orders that have a promise of TEA.
fn reserved(orders: std::ops::Range<u128>) -> Vec<StockEvent> {
    let allocations = orders.map(|order| Allocation { order_id: OrderId(Uuid::from_u128(order << 64)), quantity: 1 });
    let allocations: Vec<_> = allocations.collect();
    let event = |some: &[Allocation]| StockReserved { allocations: some.to_vec(), reserved_at: NOW }.into();
    allocations.chunks(500).map(event).collect()
}

/// Parts of TEA's snapshot that are in the bucket.
async fn parts(server: &NatsServer) -> Vec<String> {
    use futures::TryStreamExt as _;

    let keys: Vec<_> = bucket(server).await.keys().await.unwrap().try_collect().await.unwrap();
    keys.into_iter().filter(|key| key.starts_with("stock.TEA.")).collect()
}

#[tokio::test]
async fn a_large_state_is_in_parts_that_are_whole_or_ignored_and_go_with_the_next_snapshot() {
    let mut events = vec![received(1); 200];
    events.extend(reserved(0..40_000));
    let (server, mut tea) = with_snapshot(&events).await;
    let before = parts(&server).await;
    assert!(before.len() >= 4, "{before:?}");
    let (loaded, stats) = load(&server).await;
    assert_same(&loaded, &tea);
    assert_eq!(stats.used, 1);

    let (part, bucket) = (&before[1], bucket(&server).await);
    let good = bucket.get(part).await.unwrap().unwrap();
    for bad in [Some(good.slice(..good.len() - 1)), Some("x".into()), None] {
        match bad {
            Some(bad) => bucket.put(part, bad).await.map(drop).unwrap(),
            None => bucket.delete(part).await.unwrap(),
        }
        let (loaded, stats) = load(&server).await;
        assert_same(&loaded, &tea);
        assert_eq!((stats.used, stats.ignored), (0, 1));
    }

    let store = fresh(&server).await;
    tea = append(&store, &tea, &reserved(40_000..41_000)).await;
    tea = append(&store, &tea, &vec![received(1); 400]).await;
    store.remember("TEA", &tea);
    until(&store, "the next snapshot is taken", |stats| stats.taken == 1).await;
    let (loaded, stats) = load(&server).await;
    assert_same(&loaded, &tea);
    assert_eq!(stats.used, 1);
    let after = parts(&server).await;
    assert!(!after.is_empty() && after.iter().all(|part| !before.contains(part)), "{after:?}");
}

#[tokio::test]
async fn an_earlier_version_is_loaded_from_a_snapshot_only_if_that_is_earlier_still() {
    let (server, mut tea) = with_snapshot(&vec![received(1); 500]).await;
    tea = append(&fresh(&server).await, &tea, &vec![received(1); 600]).await;
    for (version, used) in [(1, 0), (32, 0), (33, 0), (499, 0), (500, 1), (501, 1), (800, 1), (1_100, 1), (5_000, 1)] {
        let store = fresh(&server).await;
        let loaded = store.load_at::<Stock>("TEA", version).await.unwrap();
        assert_eq!(loaded.version, version.min(tea.version));
        assert_eq!(u64::try_from(loaded.aggregate.on_hand).unwrap(), loaded.version);
        assert_eq!(store.snapshot_stats().used, used, "at version {version}");
        let event = store.event_at::<Stock>("TEA", loaded.version, tea.expected()).await.unwrap().unwrap();
        assert_eq!(event.position, loaded.position);
    }
}

#[tokio::test]
async fn an_event_is_found_by_its_version_wherever_it_is() {
    let (_server, store) = log().await;
    let mut tea = Loaded::default();
    let mut expected = Vec::new();
    // Dense and sparse by turns, so that no even spread leads there.
    for round in 0..6 {
        let before = tea.version;
        tea = append(&store, &tea, &vec![received(1); if round % 2 == 0 { 700 } else { 3 }]).await;
        expected.extend(before + 1..=tea.version);
        let mut others = Transaction::new();
        others.push::<Stock>(&format!("BULK-{round}"), Expected::NEW, &vec![received(1); 900], &context());
        store.append(others).await.unwrap();
    }
    let positions: Vec<_> = store.events_of("stock", "TEA").await.unwrap().iter().map(|event| event.position).collect();
    assert_eq!(expected.len(), positions.len());
    for (version, position) in expected.iter().zip(positions).step_by(13) {
        let found = store.event_at::<Stock>("TEA", *version, tea.expected()).await.unwrap().unwrap();
        assert_eq!((found.position, found.event.metadata.version), (position, *version));
    }
    for none in [0, tea.version + 1] {
        assert!(store.event_at::<Stock>("TEA", none, tea.expected()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn processes_that_take_snapshots_at_the_same_time_leave_a_good_one() {
    let (server, mut tea) = with_snapshot(&reserved(0..150_000)).await;
    let stores = futures::future::join_all((0..4).map(|_| fresh(&server))).await;
    for round in 0..6_u128 {
        tea = append(&stores[0], &tea, &vec![received(1); 600]).await;
        tea = append(&stores[0], &tea, &reserved(150_000 + round * 100..150_100 + round * 100)).await;
        for store in &stores {
            store.remember("TEA", &tea);
        }
        let (loaded, _) = load(&server).await;
        assert_same(&loaded, &tea);
    }
    until(&stores[0], "one is taken", |stats| stats.taken + stats.failed > 0).await;
    let (loaded, stats) = load(&server).await;
    assert_same(&loaded, &tea);
    assert_eq!(stats.ignored, 0);
}

fn any_event() -> impl Strategy<Value = StockEvent> {
    let allocations = || {
        vec((0..40_u128, 1..5_u64), 1..4).prop_map(|some| {
            let allocation = |(order, quantity)| Allocation { order_id: OrderId(Uuid::from_u128(order)), quantity };
            some.into_iter().map(allocation).collect::<Vec<_>>()
        })
    };
    prop_oneof![
        (1..9_u32).prop_map(received),
        (0..9_999_u128).prop_map(requested),
        allocations().prop_map(|allocations| StockReserved { allocations, reserved_at: NOW }.into()),
        allocations().prop_map(|allocations| StockReleased { allocations, released_at: NOW }.into()),
    ]
}

/// Whatever happened, and whenever snapshots were taken of it, every process loads what all events add up to.
#[tokio::test]
async fn a_load_is_the_fold_of_all_events() {
    let mut runner = TestRunner::new(Config::default());
    for _ in 0..6 {
        let (server, writer) = log().await;
        let histories = vec((vec(any_event(), 0..350), any::<bool>(), any::<bool>()), 3..8);
        let mut tea = Loaded::default();
        let mut folded = Stock::default();
        for (events, by_load, wait) in histories.new_tree(&mut runner).unwrap().current() {
            for event in &events {
                folded.evolve(event);
            }
            tea = append(&writer, &tea, &events).await;
            if by_load {
                assert_same(&writer.load("TEA").await.unwrap(), &tea);
            } else {
                writer.remember("TEA", &tea);
            }
            if wait {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            let (loaded, stats) = load(&server).await;
            assert_same(&loaded, &tea);
            assert_eq!((&loaded.aggregate, stats.ignored), (&folded, 0));
        }
    }
}

#[tokio::test]
async fn what_was_read_of_a_long_aggregate_is_not_read_again_by_whoever_asks_next() {
    let (server, writer) = log().await;
    append(&writer, &Loaded::default(), &vec![received(1); 9_000]).await;
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context.publish("events.stock.TEA", "not an event".into()).await.unwrap().await.unwrap();
    let store = fresh(&server).await;
    assert!(store.load::<Stock>("TEA").await.is_err());
    // The first page has 32, and every 500 another SKU has one.
    let known = store.recall::<Stock>("TEA").expect("what was read before it went wrong");
    assert_eq!((known.version, known.position), (7_032, 7_046));
    assert_eq!(known.aggregate.on_hand, 7_032);
}
