//! A short look at what `cargo xtask chaos` does for longer: that it works, and what it finds.

use std::time::Duration;

use e2e::chaos::{self, Options, Outcome};
use e2e::load;

use crate::running::Running;

/// Within it, NATS, Postgres and the reactors are killed, NATS is frozen, the reactors hear nothing from it, and the gateway loses answers.
const SEED: u64 = 76;
/// Within it, the server that leads is killed and frozen, and another one is killed.
const SEED_OF_SERVERS: u64 = 152;
const ORDERS_PER_S: f64 = 30.0;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_minute_of_chaos_all_invariants_hold() {
    let mut running = Running::start();
    let options = Options { duration: Duration::from_mins(1), seed: SEED, orders_per_s: ORDERS_PER_S, only: &[] };
    let outcome = chaos(&mut running, options).await;
    assert_eq!(outcome.replicas, 1);
    assert!(outcome.fault_count() >= 10, "{outcome}");
    running.finish();
    chaos::remove_leftovers();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_lose_nothing_with_any_one_of_them() {
    let mut running = Running::start_as(|options| options.replicates = true);
    let only = ["leader".to_owned(), "follower".to_owned()];
    let options = Options { duration: Duration::from_secs(40), seed: SEED_OF_SERVERS, orders_per_s: ORDERS_PER_S, only: &only };
    let outcome = chaos(&mut running, options).await;
    assert_eq!(outcome.replicas, 3);
    for fault in ["kill nats leader", "freeze nats leader", "kill nats follower"] {
        assert!(outcome.faults.contains_key(fault), "{outcome}");
    }
    running.finish();
    chaos::remove_leftovers();
}

async fn chaos(running: &mut Running, options: Options<'_>) -> Outcome {
    let outcome = chaos::run(running.stack.as_mut().unwrap(), options, |_| {}).await.unwrap_or_else(|error| panic!("{error:#}"));
    outcome.ensure_none_violated().unwrap_or_else(|error| panic!("{error:#}"));
    let report = &outcome.report;
    let orders = load::orders_in(options.orders_per_s, options.duration);
    assert_eq!((report.orders, report.lost, report.duplicated, report.oversold), (orders, 0, 0, 0), "{outcome}");
    outcome
}
