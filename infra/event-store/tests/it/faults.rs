//! Appending while connections break, servers die and leaders change: nothing is lost, doubled or half there, and nobody is
//! told what is not so.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use async_nats::jetstream::Context;
use event_store::{JetStreamEventStore, LogReader};
use futures::TryStreamExt;
use local_stack::nats::NatsServer;

use crate::{
    connected, log,
    proxy::{Fault, Proxy},
    rivals::{Random, Rivals, check},
    set_up_three,
};

const CALLERS: u64 = 48;
/// For how long faults are inflicted.
const TROUBLE: Duration = Duration::from_secs(2);

/// Waits until something more was appended, so that a fault meets work in flight.
async fn appended_more(store: &JetStreamEventStore, transactions: u64) {
    let (enough, deadline) = (store.append_stats().appended + transactions, Instant::now() + Duration::from_secs(20));
    while store.append_stats().appended < enough {
        assert!(Instant::now() < deadline, "nothing is appended any more: {:?}", store.append_stats());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_told_what_is_so_while_rivals_meet() {
    let (_server, store) = log().await;
    let rivals = Rivals::start(&store, CALLERS, 1);
    appended_more(&store, 3_000).await;
    let acknowledged = check(&store, &rivals.end().await).await;
    let stats = store.append_stats();
    assert!(acknowledged as u64 <= stats.appended && stats.conflicts > 0 && stats.batches > 0, "{stats:?}");
    assert_eq!((stats.waiting, stats.unavailable), (0, 0), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_connections_break_and_answers_are_lost() {
    let (server, direct) = log().await;
    let proxy = Proxy::before(server.port()).await;
    let store = connected(proxy.url()).await;
    let rivals = Rivals::start(&store, CALLERS, 2);
    let (mut random, end) = (Random::of(2), Instant::now() + TROUBLE);
    while Instant::now() < end {
        appended_more(&store, 50 + random.below(300)).await;
        let lost_for = Duration::from_millis(random.below(40));
        proxy.inflict(if random.below(2) == 0 { Fault::Cut } else { Fault::LoseAnswers(lost_for) });
    }
    appended_more(&store, 100).await;
    let acknowledged = check(&direct, &rivals.end().await).await;
    assert!(acknowledged > 500, "only {acknowledged} were acknowledged: {:?}", store.append_stats());
    assert!(store.append_stats().answers_lost > 0, "no answer was lost: {:?}", store.append_stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_the_server_is_killed() {
    let connecting = Instant::now();
    let (mut server, store) = log().await;
    let connected = Instant::now();
    let rivals = Rivals::start(&store, CALLERS, 3);
    let mut killed = connecting;
    for _ in 0..3 {
        appended_more(&store, 400).await;
        assert!(store.uninterrupted() < killed.elapsed(), "it has begun since");
        assert!(killed > connecting || store.uninterrupted() >= connected.elapsed(), "nothing has happened since");
        killed = Instant::now();
        server.kill();
        server = tokio::task::spawn_blocking(move || {
            server.start_again().unwrap();
            server
        })
        .await
        .unwrap();
    }
    appended_more(&store, 400).await;
    let acknowledged = check(&store, &rivals.end().await).await;
    assert!(acknowledged > 1_000, "only {acknowledged} were acknowledged: {:?}", store.append_stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_leaders_change() {
    let mut servers = tokio::task::spawn_blocking(local_stack::testing::nats_cluster).await.unwrap();
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(", ");
    let store = connected(&urls).await;
    set_up_three(&store).await;
    store.wait_until_ready(|_| ()).await;
    let rivals = Rivals::start(&store, CALLERS, 4);
    let operator = async_nats::connect(event_store::servers(&urls)).await.unwrap();
    let end = Instant::now() + TROUBLE;
    while Instant::now() < end {
        appended_more(&store, 200).await;
        operator.request("$JS.API.STREAM.LEADER.STEPDOWN.EVENTS", "".into()).await.unwrap();
    }
    // One to which a client may be connected, whoever leads.
    servers[0].kill();
    appended_more(&store, 200).await;
    let acknowledged = check(&store, &rivals.end().await).await;
    assert!(acknowledged > 500, "only {acknowledged} were acknowledged: {:?}", store.append_stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_left_for_another() {
    let mut servers = tokio::task::spawn_blocking(local_stack::testing::nats_cluster).await.unwrap();
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let store = connected(&urls).await;
    set_up_three(&store).await;
    store.wait_until_ready(|_| ()).await;
    let rivals = Rivals::start(&store, CALLERS, 5);
    appended_more(&store, 200).await;
    // One of them is the one to which the client is connected. Its own pings would notice after 20 s at the earliest.
    for server in &mut servers {
        server.freeze();
        appended_more(&store, 200).await;
        server.thaw();
        appended_more(&store, 200).await;
    }
    check(&store, &rivals.end().await).await;
}

/// A reader, and the server that reads for it.
async fn reader(store: &JetStreamEventStore, operator: &Context) -> (LogReader, String) {
    let stream = operator.get_stream("EVENTS").await.unwrap();
    let before: HashSet<_> = stream.consumer_names().try_collect().await.unwrap();
    let mut reader = store.read_from(1);
    reader.next_batch(1).await.unwrap();
    let names: HashSet<String> = stream.consumer_names().try_collect().await.unwrap();
    let consumer = names.difference(&before).next().expect("it has a consumer");
    let info = stream.consumer_info(consumer).await.unwrap();
    (reader, info.cluster.unwrap().leader.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_goes_on_when_the_server_that_reads_for_it_is_gone() {
    let mut servers = tokio::task::spawn_blocking(local_stack::testing::nats_cluster).await.unwrap();
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let set_up = connected(&urls).await;
    set_up_three(&set_up).await;
    set_up.wait_until_ready(|_| ()).await;
    let operator = async_nats::jetstream::new(async_nats::connect(event_store::servers(&urls)).await.unwrap());
    let leader = operator.get_stream("EVENTS").await.unwrap().cached_info().cluster.clone().unwrap().leader.unwrap();
    // Connected to the leader, so that another server's death is nothing that the connection or an election would tell.
    let store = connected(servers.iter().find(|server| server.name() == leader).unwrap().url()).await;
    store.wait_until_ready(|_| ()).await;
    let watching = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                drop(store.check().await);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    });
    let rivals = Rivals::start(&store, 2, 6);
    appended_more(&store, 20).await;
    let (mut reader, by) = loop {
        let (reader, by) = reader(&store, &operator).await;
        if by != leader {
            break (reader, by);
        }
    };
    servers.iter_mut().find(|server| server.name() == by).unwrap().kill();
    appended_more(&store, 200).await;
    let head = store.head().await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(20), async {
        while reader.next_batch(1_000).await.unwrap().last().is_none_or(|message| message.position < head) {}
    });
    read.await.expect("what was appended is read");
    watching.abort();
    check(&store, &rivals.end().await).await;
}
