//! What the projections report to Prometheus.

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Unit,
};
use read_store::projections::ProjectionName;
use telemetry::{gauges::Age, metrics::Metrics};

type Labels = [(&'static str, &'static str); 1];

/// The metrics of one projection.
#[derive(Clone, Debug)]
pub(crate) struct ProjectionMetrics {
    pub(crate) events_applied: Counter,
    pub(crate) position: Gauge,
    pub(crate) head: Gauge,
    pub(crate) lag: Gauge,
    pub(crate) lag_age: Age,
    pub(crate) halted: Gauge,
    pub(crate) batch_events: Histogram,
    pub(crate) batch_seconds: Histogram,
}

impl ProjectionMetrics {
    /// Registers the metrics of every projection.
    pub(crate) fn register(metrics: &Metrics) -> impl Fn(ProjectionName) -> Self + use<> {
        let events_applied = Family::<Labels, Counter>::default();
        let position = Family::<Labels, Gauge>::default();
        let head = Family::<Labels, Gauge>::default();
        let lag = Family::<Labels, Gauge>::default();
        let lag_age = Family::<Labels, Age>::default();
        let halted = Family::<Labels, Gauge>::default();
        let batch_events = Family::<Labels, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 11)));
        let batch_seconds =
            Family::<Labels, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 13)));
        metrics.register(|registry| {
            registry.register("projection_events_applied", "Events applied by this process", events_applied.clone());
            registry.register("projection_position", "The last event that is applied", position.clone());
            registry.register("projection_head", "The last event of the log", head.clone());
            registry.register("projection_lag_events", "Events of the log that are not yet applied", lag.clone());
            let help = "How long ago the oldest of those was appended; 0 if there are none";
            registry.register("projection_lag_seconds", help, lag_age.clone());
            registry.register(
                "projection_halted",
                "1 if the projection stands before an event that it cannot apply",
                halted.clone(),
            );
            registry.register("projection_batch_events", "Events applied in one transaction", batch_events.clone());
            let help = "How long the transaction of one batch took";
            registry.register_with_unit("projection_batch_duration", help, Unit::Seconds, batch_seconds.clone());
        });
        move |name| {
            let labels = [("projection", name.as_str())];
            Self {
                events_applied: events_applied.get_or_create_owned(&labels),
                position: position.get_or_create_owned(&labels),
                head: head.get_or_create_owned(&labels),
                lag: lag.get_or_create_owned(&labels),
                lag_age: lag_age.get_or_create_owned(&labels),
                halted: halted.get_or_create_owned(&labels),
                batch_events: batch_events.get_or_create_owned(&labels),
                batch_seconds: batch_seconds.get_or_create_owned(&labels),
            }
        }
    }

    /// Sets where the projection is.
    pub(crate) fn stands(&self, position: u64, head: u64, is_halted: bool) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.position.set(gauge(position));
        self.head.set(gauge(head.max(position)));
        self.lag.set(gauge(head.saturating_sub(position)));
        self.halted.set(i64::from(is_halted));
        if position >= head {
            self.lag_age.set(None);
        } else {
            // Unless it is known since when.
            self.lag_age.begin();
        }
    }
}
