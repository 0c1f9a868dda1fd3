//! What a store says of itself on `/metrics`.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use crate::JetStreamEventStore;

/// A collector for a registry: the store's appender, its cache of aggregates, its snapshots, all read when they are asked for.
#[derive(Debug)]
pub struct StoreMetrics(JetStreamEventStore);

enum Figure {
    Counter(u64),
    Seconds(f64),
    Gauge(usize),
}

impl JetStreamEventStore {
    /// What this store says of itself.
    pub fn metrics(&self) -> StoreMetrics {
        StoreMetrics(self.clone())
    }

    /// Every figure, with the metric's name (a counter's without `_total`) and what it says.
    fn figures(&self) -> [(&'static str, &'static str, Figure); 21] {
        use Figure::{Counter, Gauge, Seconds};
        let (append, cache, snapshots) = (self.append_stats(), self.cache_stats(), self.snapshot_stats());
        [
            ("append_transactions", "Transactions that were appended.", Counter(append.appended)),
            ("append_seconds", "How long those took together, waiting included.", Seconds(append.appended_time.as_secs_f64())),
            ("append_waiting", "Transactions that wait for their turn.", Gauge(append.waiting)),
            ("append_conflicts", "Transactions that were answered with a conflict.", Counter(append.conflicts)),
            ("append_unavailable", "Transactions of which nobody knows whether they were appended.", Counter(append.unavailable)),
            ("append_overloaded", "Transactions turned away because too many waited.", Counter(append.overloaded)),
            ("append_plain_publishes", "Transactions that went out by themselves.", Counter(append.plains)),
            ("append_batches", "Atomic batches that went out.", Counter(append.batches)),
            ("append_batch_transactions", "Transactions in those batches.", Counter(append.batch_transactions)),
            ("append_batch_events", "Events in those batches.", Counter(append.batch_events)),
            ("append_batches_refused", "Batches refused because of one of their members.", Counter(append.batches_refused)),
            ("append_answers_lost", "Attempts whose answer was lost.", Counter(append.answers_lost)),
            ("aggregate_cache_hits", "Loads of an aggregate that was cached.", Counter(cache.hits)),
            ("aggregate_cache_misses", "Loads of an aggregate that exists and was not cached.", Counter(cache.misses)),
            ("aggregate_cache_evictions", "Aggregates dropped from the cache to bound its memory.", Counter(cache.evictions)),
            ("aggregate_cache_bytes", "About how much memory the cached aggregates take.", Gauge(cache.bytes)),
            ("aggregate_cache_aggregates", "Aggregates in the cache.", Gauge(cache.aggregates)),
            ("aggregate_snapshots_used", "Loads that began with a snapshot.", Counter(snapshots.used)),
            ("aggregate_snapshots_ignored", "Snapshots found and not used.", Counter(snapshots.ignored)),
            ("aggregate_snapshots_taken", "Snapshots taken.", Counter(snapshots.taken)),
            ("aggregate_snapshots_failed", "Snapshots that could not be read or taken.", Counter(snapshots.failed)),
        ]
    }
}

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, figure) in self.0.figures() {
            match figure {
                Figure::Counter(value) => encode(&mut encoder, name, help, &ConstCounter::new(value))?,
                Figure::Seconds(value) => encode(&mut encoder, name, help, &ConstCounter::new(value))?,
                Figure::Gauge(value) => {
                    encode(&mut encoder, name, help, &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))?;
                }
            }
        }
        Ok(())
    }
}

fn encode(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
