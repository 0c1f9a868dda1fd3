//! What reactors count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use telemetry::metrics::Metrics;

/// Counters of all reactors of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ReactorMetrics {
    events: Family<EventLabels, Counter>,
    in_flight: Family<ReactorLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    reactor: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReactorLabels {
    reactor: &'static str,
}

impl ReactorMetrics {
    /// Counters that `metrics` serves.
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register("contrail_reactor_events", "Events that a reactor finished with, by outcome", this.events.clone());
            registry.register("contrail_reactor_in_flight", "Events that a reactor is working on", this.in_flight.clone());
        });
        this
    }

    pub(crate) fn count(&self, reactor: &'static str, outcome: &'static str, events: usize) {
        self.events.get_or_create(&EventLabels { reactor, outcome }).inc_by(events as u64);
    }

    pub(crate) fn started(&self, reactor: &'static str) {
        self.in_flight.get_or_create(&ReactorLabels { reactor }).inc();
    }

    pub(crate) fn finished(&self, reactor: &'static str) {
        self.in_flight.get_or_create(&ReactorLabels { reactor }).dec();
    }
}
