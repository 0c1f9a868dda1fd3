//! Setting up the streams, and doing so again.

use local_stack::nats::NatsServer;

use crate::{connected, set_up_three};

const STREAMS: [&str; 5] = ["EVENTS", "TIMERS", "DEAD_LETTERS", "DISCARDED_LETTERS", "KV_SNAPSHOTS"];

async fn copies(urls: &str) -> Vec<usize> {
    let jetstream = async_nats::jetstream::new(async_nats::connect(event_store::servers(urls)).await.unwrap());
    let mut copies = Vec::new();
    for stream in STREAMS {
        copies.push(jetstream.get_stream(stream).await.unwrap().cached_info().config.num_replicas);
    }
    copies
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_how_many_copies_there_are_to_be_changes_none() {
    let servers = tokio::task::spawn_blocking(local_stack::testing::nats_cluster).await.unwrap();
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let store = connected(&urls).await;
    set_up_three(&store).await;
    assert_eq!(store.set_up(None).await.unwrap(), 3);
    assert_eq!(copies(&urls).await, [3; 5]);

    // What is new gets as many as the log has.
    let operator = async_nats::jetstream::new(async_nats::connect(event_store::servers(&urls)).await.unwrap());
    operator.delete_stream("DISCARDED_LETTERS").await.unwrap();
    operator.delete_key_value("SNAPSHOTS").await.unwrap();
    assert_eq!(store.set_up(None).await.unwrap(), 3);
    assert_eq!(copies(&urls).await, [3; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_has_one_copy_unless_more_are_asked_for() {
    let server = local_stack::testing::nats();
    let store = connected(server.url()).await;
    assert_eq!(store.set_up(None).await.unwrap(), 1);
    assert_eq!(copies(server.url()).await, [1; 5]);
}
