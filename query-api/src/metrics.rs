//! What this service counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use telemetry::metrics::Metrics;

/// The upper bounds of the duration buckets, in seconds.
const DURATION_BUCKETS_S: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Executed without an error.
    Ok,
    /// Executed, with at least one error.
    Failed,
    /// Not executed.
    Refused,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
}

/// The counters of GraphQL requests. Clones count together.
#[derive(Clone, Debug)]
pub struct QueryMetrics {
    requests: Family<Labels, Counter>,
    durations: Histogram,
}

impl QueryMetrics {
    /// Registers the counters.
    pub fn new(metrics: &Metrics) -> Self {
        let requests = Family::default();
        let durations = Histogram::new(DURATION_BUCKETS_S);
        metrics.register(|registry| {
            registry.register("graphql_requests", "GraphQL requests by how they ended", requests.clone());
            let help = "Time from the head of a GraphQL request to its answer, waits for minPosition included";
            registry.register_with_unit("graphql_request_duration", help, Unit::Seconds, durations.clone());
        });
        Self { requests, durations }
    }

    /// Counts one request.
    pub fn answered(&self, outcome: Outcome, duration: Duration) {
        self.requests.get_or_create(&Labels { outcome: outcome.as_str() }).inc();
        self.durations.observe(duration.as_secs_f64());
    }
}
