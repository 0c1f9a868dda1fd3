//! What this service counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use telemetry::exemplars::{TraceId, TracedHistogram};
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
    const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::Refused];

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

/// The counters of GraphQL requests and subscriptions. Clones count together.
#[derive(Clone, Debug)]
pub struct QueryMetrics {
    requests: Family<Labels, Counter>,
    durations: TracedHistogram,
    in_flight: Gauge,
    in_flight_limit: Gauge,
    sockets: Gauge,
    subscriptions: Gauge,
    updates: Counter,
}

/// Something that is open, and counted until it is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl QueryMetrics {
    /// Registers the counters.
    pub fn new(metrics: &Metrics) -> Self {
        let requests = Family::<Labels, Counter>::default();
        // What was never answered is zero: where there is nothing at all, no rate can be told from its first increase.
        for outcome in Outcome::ALL {
            requests.get_or_create_owned(&Labels { outcome: outcome.as_str() });
        }
        let durations = TracedHistogram::new(DURATION_BUCKETS_S.into_iter());
        let (in_flight, in_flight_limit) = (Gauge::default(), Gauge::default());
        let (sockets, subscriptions, updates) = (Gauge::default(), Gauge::default(), Counter::default());
        metrics.register(|registry| {
            registry.register("graphql_requests", "GraphQL requests by how they ended", requests.clone());
            let help = "Time from the head of a GraphQL request to its answer, waits for minPosition included";
            registry.register_with_unit("graphql_request_duration", help, Unit::Seconds, durations.clone());
            registry.register("graphql_requests_in_flight", "GraphQL requests that are being answered", in_flight.clone());
            let help = "How many of those there may be; one more is answered 503";
            registry.register("graphql_requests_in_flight_limit", help, in_flight_limit.clone());
            registry.register("graphql_sockets", "Connections of /graphql/ws that are open", sockets.clone());
            registry.register(
                "graphql_subscriptions",
                "Subscriptions that are open, on any kind of connection",
                subscriptions.clone(),
            );
            registry.register("graphql_subscription_updates", "What subscribers were told", updates.clone());
        });
        Self { requests, durations, in_flight, in_flight_limit, sockets, subscriptions, updates }
    }

    /// So many requests may be in flight.
    pub fn limit_is(&self, requests_in_flight_max: usize) {
        self.in_flight_limit.set(i64::try_from(requests_in_flight_max).unwrap_or(i64::MAX));
    }

    /// Counts a request while it is being answered.
    pub fn in_flight(&self) -> Open {
        Open::new(&self.in_flight)
    }

    /// Counts a connection of `/graphql/ws` while it lasts.
    pub fn socket(&self) -> Open {
        Open::new(&self.sockets)
    }

    /// Counts a subscription while it lasts.
    pub fn subscription(&self) -> Open {
        Open::new(&self.subscriptions)
    }

    /// Counts one thing that a subscriber was told.
    pub fn told(&self) {
        self.updates.inc();
    }

    /// Counts one request, which belongs to `trace` if it said so.
    pub fn answered(&self, outcome: Outcome, duration: Duration, trace: Option<TraceId>) {
        self.requests.get_or_create(&Labels { outcome: outcome.as_str() }).inc();
        self.durations.observe(duration.as_secs_f64(), trace, None);
    }
}
