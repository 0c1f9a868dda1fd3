//! What reactors count.

use std::fmt;

use event_store::{Figure, JetStreamEventStore};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
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

/// What the event store says of itself: its cache of aggregates, its snapshots.
#[derive(Debug)]
pub struct StoreMetrics(JetStreamEventStore);

impl StoreMetrics {
    /// Lets `metrics` serve what `store` says.
    pub fn register(metrics: &Metrics, store: JetStreamEventStore) {
        metrics.register(|registry| registry.register_collector(Box::new(Self(store))));
    }
}

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Figure { name, help, is_counter, value } in self.0.figures() {
            if is_counter {
                let counter = ConstCounter::new(value);
                counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
            } else {
                let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
            }
        }
        Ok(())
    }
}
