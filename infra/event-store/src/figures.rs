//! What a store can say of itself, for whatever serves metrics: this crate knows none of them.

use crate::JetStreamEventStore;

/// One number about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// As a metric is named; of a counter, without `_total`.
    pub name: &'static str,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// Whether it only grows.
    pub is_counter: bool,
    /// How much it is now.
    pub value: u64,
}

impl JetStreamEventStore {
    /// Every number there is, at this moment: always the same ones in the same order.
    pub fn figures(&self) -> [Figure; 9] {
        let (cache, snapshots) = (self.cache_stats(), self.snapshot_stats());
        let counter = |name, help, value| Figure { name, help, is_counter: true, value };
        let gauge = |name, help, value: usize| Figure { name, help, is_counter: false, value: value as u64 };
        [
            counter("aggregate_cache_hits", "Loads of an aggregate that was cached.", cache.hits),
            counter("aggregate_cache_misses", "Loads of an aggregate that exists and was not cached.", cache.misses),
            counter("aggregate_cache_evictions", "Aggregates dropped from the cache to bound its memory.", cache.evictions),
            gauge("aggregate_cache_bytes", "About how much memory the cached aggregates take.", cache.bytes),
            gauge("aggregate_cache_aggregates", "Aggregates in the cache.", cache.aggregates),
            counter("aggregate_snapshots_used", "Loads that began with a snapshot.", snapshots.used),
            counter("aggregate_snapshots_ignored", "Snapshots found and not used.", snapshots.ignored),
            counter("aggregate_snapshots_taken", "Snapshots taken.", snapshots.taken),
            counter("aggregate_snapshots_failed", "Snapshots that could not be read or taken.", snapshots.failed),
        ]
    }
}
