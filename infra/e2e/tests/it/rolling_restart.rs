//! Every service is replaced, and nobody notices.

use std::time::Duration;

use e2e::rolling_restart::{self, Plan};

use crate::running::Running;

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_is_restarted_and_no_request_fails() {
    let mut running = Running::start();
    let plan = Plan { orders_per_s: 40.0, queries_per_s: 40.0, duration: Duration::from_secs(40) };
    let restarted = rolling_restart::run(running.stack.as_mut().unwrap(), "rolling", &plan).await;
    let outcome = restarted.unwrap_or_else(|error| panic!("{error:#}"));
    outcome.ensure_nothing_failed().unwrap_or_else(|error| panic!("{error:#}"));
    let report = &outcome.report;
    assert_eq!((report.orders, report.lost, report.duplicated, report.oversold), (1_600, 0, 0, 0));
    assert!(outcome.queries > 0 && outcome.restarts.values().all(|times| *times >= 2), "{outcome}");
    running.finish();
}
