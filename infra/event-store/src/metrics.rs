//! What a store says of itself on `/metrics`.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{TypedMetric, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
};

use crate::JetStreamEventStore;

/// A collector for a registry: the store's appender, its cache of aggregates, its snapshots, all read when they are asked for; and what
/// [`LogMetrics`] tells.
#[derive(Debug)]
pub struct StoreMetrics(JetStreamEventStore);

/// A collector for the registry of a process that only reads the log: how far the log is, as of the last look at it
/// ([`check`](JetStreamEventStore::check) or [`head`](JetStreamEventStore::head)).
#[derive(Debug)]
pub struct LogMetrics(JetStreamEventStore);

enum Figure {
    Counter(u64),
    Seconds(f64),
    Gauge(u64),
}

/// A metric's name (a counter's without `_total`), what it says, and its value.
type Named = (&'static str, &'static str, Figure);

impl JetStreamEventStore {
    /// What this store says of itself.
    pub fn metrics(&self) -> StoreMetrics {
        StoreMetrics(self.clone())
    }

    /// What this store says of the log alone.
    pub fn log_metrics(&self) -> LogMetrics {
        LogMetrics(self.clone())
    }

    fn log_figures(&self) -> [Named; 2] {
        let seen = &self.connection.seen;
        [
            (
                "log_head_position",
                "The position of the log's last event, as of the last look, about a second ago.",
                Figure::Gauge(seen.head()),
            ),
            ("log_size_bytes", "What the log takes on each server that has it, as of the last look.", Figure::Gauge(seen.bytes())),
        ]
    }

    fn figures(&self) -> [Named; 21] {
        use Figure::{Counter, Gauge, Seconds};
        let (append, cache, snapshots) = (self.append_stats(), self.cache_stats(), self.snapshot_stats());
        [
            ("append_transactions", "Transactions that were appended.", Counter(append.appended)),
            ("append_seconds", "How long those took together, waiting included.", Seconds(append.appended_time.as_secs_f64())),
            ("append_waiting", "Transactions that wait for their turn.", Gauge(append.waiting as u64)),
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
            ("aggregate_cache_bytes", "About how much memory the cached aggregates take.", Gauge(cache.bytes as u64)),
            ("aggregate_cache_aggregates", "Aggregates in the cache.", Gauge(cache.aggregates as u64)),
            ("aggregate_snapshots_used", "Loads that began with a snapshot.", Counter(snapshots.used)),
            ("aggregate_snapshots_ignored", "Snapshots found and not used.", Counter(snapshots.ignored)),
            ("aggregate_snapshots_taken", "Snapshots taken.", Counter(snapshots.taken)),
            ("aggregate_snapshots_failed", "Snapshots that could not be read or taken.", Counter(snapshots.failed)),
        ]
    }
}

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for figure in self.0.log_figures().into_iter().chain(self.0.figures()) {
            tell(&mut encoder, figure)?;
        }
        let figures = self.0.appender.figures();
        encode(&mut encoder, "append_batch_size_events", "Events of one atomic batch that was appended.", &figures.batch_events)?;
        let help = "From sending to the server's acknowledgement, which it gives once the events are on disk: of one event by itself (plain), or \
                    of an atomic batch.";
        let mut family = encoder.encode_descriptor("append_acknowledgement_seconds", help, None, Histogram::TYPE)?;
        for (kind, waits) in [("plain", &figures.plain_wait), ("batch", &figures.batch_wait)] {
            waits.encode(family.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }
}

impl Collector for LogMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.log_figures().into_iter().try_for_each(|figure| tell(&mut encoder, figure))
    }
}

fn tell(encoder: &mut DescriptorEncoder<'_>, (name, help, figure): Named) -> fmt::Result {
    match figure {
        Figure::Counter(value) => encode(encoder, name, help, &ConstCounter::new(value)),
        Figure::Seconds(value) => encode(encoder, name, help, &ConstCounter::new(value)),
        Figure::Gauge(value) => encode(encoder, name, help, &ConstGauge::new(value)),
    }
}

fn encode(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
