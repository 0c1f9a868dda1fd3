//! What operators look at, as files beside this crate, and what it takes to check them without a Prometheus.
//!
//! * `metrics.txt`: every metric of every service. `e2e` holds it against a running system ([`metrics`] reads and writes it).
//! * `prometheus/`: scrape configuration, recording and alerting rules, and their cases for `promtool test rules` ([`yaml`] reads them).
//! * `grafana/`: dashboards.
//! * `runbooks/`: one page for each alert.
//!
//! The tests of this crate see to it that each of them names only what there is ([`promql`] finds the names).
//!
//! To add an alert: its rule, two cases (firing and not), its page; the tests say what is missing. To add a metric: register it in its
//! service, then `UPDATE_METRICS=1 cargo nextest run --workspace -E 'test(metrics_are_those_of_the_list)'`.

pub mod metrics;
pub mod promql;
pub mod yaml;

use std::path::PathBuf;

/// The folder of the files.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
