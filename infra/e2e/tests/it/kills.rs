//! SIGKILL, one process after the other, while orders flow.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::Info};
use e2e::eventually::eventually;
use e2e::load::{self, Counters, Load};
use e2e::workload::Workload;
use local_stack::Durability;
use serde_json::json;

use crate::running::{Running, orders_flow};

const ORDERS: u64 = 1_500;
const ORDERS_PER_S: f64 = 30.0;
/// Orders that are placed between one process's return and the next one's death.
const ORDERS_BETWEEN_KILLS: u64 = 120;

const VICTIMS: [&str; 6] = ["command-api", "reactors", "projectors", "query-api", "nats", "postgres"];

#[tokio::test(flavor = "multi_thread")]
async fn each_process_can_be_killed_while_orders_flow_and_no_order_is_lost_or_doubled() {
    // As in production: what was acknowledged is on disk.
    let mut running = Running::start_with(Durability::Disk);
    let workload = Workload::new("kills", 11, ORDERS);
    // Charges take their time, so that some are in flight whenever somebody dies.
    running.shop.set_gateway_faults(&json!({ "latency_ms": {"min": 50, "max": 400} })).await.unwrap();
    load::receive_stock(&running.shop, &workload).await.unwrap();
    let counters = Arc::<Counters>::default();
    let load = Load { rate: Some(ORDERS_PER_S), counters: counters.clone(), ..Load::default() };
    let shop = running.shop.clone();
    let placing = tokio::spawn(async move { load::run(&shop, &workload, &load).await });

    for victim in VICTIMS {
        orders_flow(&counters, &placing, ORDERS_BETWEEN_KILLS).await;
        running.kill(victim);
        running.start_again(victim);
    }

    let placed = placing.await.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(placed.orders.len() as u64, ORDERS);
    let report = running.check_invariants().await;
    assert_eq!(report.orders, ORDERS);
    assert!(report.confirmed > 0 && report.rejected > 0 && report.cancelled > 0, "{report:?}");
    running.finish();
}

/// How long after the allocator was handed a batch it dies, in milliseconds: from before the batch is decided until after it is
/// committed.
const DEATHS_AFTER_MS: [u64; 4] = [0, 10, 20, 40];
/// Of these deaths, how many must surely have been amid a batch, whatever the machine is doing.
const DEATHS_AMID_MIN: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn the_reactors_can_be_killed_amid_the_allocators_batches() {
    let mut running = Running::start();
    let workload = Workload::new("batches", 12, ORDERS);
    load::receive_stock(&running.shop, &workload).await.unwrap();
    let counters = Arc::<Counters>::default();
    let load = Load { rate: Some(ORDERS_PER_S * 2.0), counters: counters.clone(), ..Load::default() };
    let shop = running.shop.clone();
    let placing = tokio::spawn(async move { load::run(&shop, &workload, &load).await });

    let nats = running.info().nats.clone();
    let mut deaths_amid = 0;
    for after_ms in DEATHS_AFTER_MS {
        orders_flow(&counters, &placing, ORDERS_BETWEEN_KILLS).await;
        // Orders wait while nobody allocates, so that whoever comes next has its hands full at once.
        running.kill("reactors");
        orders_flow(&counters, &placing, ORDERS_BETWEEN_KILLS).await;
        let handed_out_before = allocator(&nats).await.delivered.consumer_sequence;
        running.spawn("reactors");
        eventually("the allocator has a batch in hand", Duration::from_secs(30), async || {
            Ok((allocator(&nats).await.delivered.consumer_sequence > handed_out_before).then_some(()))
        })
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        running.kill("reactors");
        deaths_amid += usize::from(allocator(&nats).await.num_ack_pending > 0);
        running.start_again("reactors");
    }
    assert!(deaths_amid >= DEATHS_AMID_MIN, "only {deaths_amid} deaths were amid a batch");

    let placed = placing.await.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(placed.orders.len() as u64, ORDERS);
    let report = running.check_invariants().await;
    assert_eq!(report.orders, ORDERS);
    assert!(report.confirmed > 0 && report.rejected > 0 && report.cancelled > 0, "{report:?}");
    running.finish();
}

/// What the server says of the allocator's durable consumer.
async fn allocator(nats: &str) -> Info {
    let client = event_store::options(nats).connect(nats).await.unwrap();
    let stream = jetstream::new(client).get_stream("EVENTS").await.unwrap();
    let mut consumer = stream.get_consumer::<jetstream::consumer::pull::Config>("allocator").await.unwrap();
    consumer.info().await.unwrap().clone()
}

/// How often the projectors die, and how many orders are placed between one's return and its death.
const DEATHS_OF_PROJECTORS: usize = 10;
const ORDERS_BETWEEN_DEATHS: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn the_projectors_can_be_killed_ten_times_and_the_read_models_agree_with_the_log() {
    let mut running = Running::start();
    let workload = Workload::new("projections", 13, ORDERS);
    load::receive_stock(&running.shop, &workload).await.unwrap();
    let counters = Arc::<Counters>::default();
    let load = Load { rate: Some(2.0 * ORDERS_PER_S), counters: counters.clone(), ships: true, ..Load::default() };
    let shop = running.shop.clone();
    let placing = tokio::spawn(async move { load::run(&shop, &workload, &load).await });
    for _ in 0..DEATHS_OF_PROJECTORS {
        orders_flow(&counters, &placing, ORDERS_BETWEEN_DEATHS).await;
        running.kill("projectors");
        running.start_again("projectors");
    }
    let placed = placing.await.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(placed.orders.len() as u64, ORDERS);
    // Among them that every read model equals a fresh replay of the log.
    assert_eq!(running.check_invariants().await.orders, ORDERS);
    running.finish();
}
