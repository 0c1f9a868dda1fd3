//! `projectors replay` as its users run it, on a log of some length, and killed.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use e2e::{
    history,
    random::Random,
    replay_under_load::{self, Outcome, Traffic},
    settle,
    workload::Workload,
};
use event_store::JetStreamEventStore;
use local_stack::stack::SERVICES;
use tokio::task::block_in_place;

use crate::running::Running;

const EVENTS: u64 = 30_000;
const KILLS: u64 = 10;
/// A replay is killed within this time; less where that is enough for all of it.
const KILLED_WITHIN_MS: u64 = 1_500;

/// A stack whose services are stopped, and the last position of its log.
async fn with_a_long_log() -> (Running, u64) {
    let mut running = Running::start();
    for service in SERVICES {
        running.stop(service);
    }
    let store = JetStreamEventStore::connect(&running.info().nats, "test").await.unwrap();
    store.wait_until_ready(|_| {}).await;
    let end = history::write(&store, EVENTS).await.unwrap();
    (running, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_again_and_again_completes_and_agrees_with_the_log() {
    let (running, end) = with_a_long_log().await;

    let replay = |arguments: &[&str]| -> Command {
        let mut command = running.stack().command("projectors").unwrap();
        command.arg("replay").args(arguments).args(["--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    let mut random = Random::new(EVENTS);
    let (mut killed, mut within_ms) = (0, KILLED_WITHIN_MS);
    while killed < KILLS {
        let mut child = replay(&["all"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(random.between(1, within_ms))).await;
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        } else {
            within_ms = (within_ms / 2).max(2);
        }
        block_in_place(|| child.wait()).unwrap();
    }

    // The lock of one that was killed is free as soon as Postgres notices.
    let rebuilt = e2e::eventually::eventually("the last replay's locks to be free", Duration::from_mins(1), async || {
        let Output { status, stdout, .. } = block_in_place(|| replay(&["all"]).output())?;
        Ok(status.success().then_some(stdout))
    });
    let rebuilt: serde_json::Value = serde_json::from_slice(&rebuilt.await.unwrap()).unwrap();
    for report in rebuilt["replays"].as_array().unwrap() {
        assert_eq!((report["position"].as_u64(), report["swapped"].as_bool()), (Some(end), Some(true)), "{report}");
    }
    let verified = block_in_place(|| replay(&["all", "--verify"]).output()).unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    running.finish();
}

const ORDERS: u64 = 600;
const ORDERS_PER_S: f64 = 40.0;
const QUERIES_PER_S: f64 = 50.0;

#[tokio::test(flavor = "multi_thread")]
async fn no_query_fails_or_sees_less_than_before_while_replays_swap_under_load() {
    let (mut running, _) = with_a_long_log().await;
    for service in SERVICES {
        running.start_again(service);
    }
    settle::settle(running.info(), &running.shop).await.unwrap();

    let workload = Workload::new("replayed", 14, ORDERS);
    let traffic = Traffic { workload, orders_per_s: ORDERS_PER_S, queries_per_s: QUERIES_PER_S };
    let outcome = replay_under_load::run(running.stack(), &running.shop, traffic).await;
    let Outcome { replays, seen } = outcome.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!replays.is_empty() && replays.iter().all(|report| report["swapped"] == true), "{replays:?}");
    assert!(seen.latencies.count() > 100, "{} queries were answered", seen.latencies.count());
    assert_eq!((seen.failures, seen.setbacks), (vec![], vec![]));
    running.finish();
}
