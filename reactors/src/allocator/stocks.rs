//! The stock of the SKUs that were needed lately, folded. Optimistic concurrency makes a stale one harmless for a
//! decision that appends to it; for one that does not, [`Stocks::refresh`] asks the log.

use std::collections::{BTreeSet, HashMap, HashSet};

use domain::{Sku, SnapshotState as _, stock::Stock};
use event_store::{JetStreamEventStore, LoadError, Loaded};

use super::{Obstacle, plan::Plan};
use crate::dead_letters::chain;

/// SKUs kept in memory; when there are more, all but those in use are forgotten and loaded again as they are needed.
const SKUS_MAX: usize = 100_000;
/// About how much memory they may take; more is dealt with likewise. Each remembers up to a thousand requests.
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// SKUs loaded at the same time.
const LOADS_IN_FLIGHT_MAX: usize = 16;

pub(crate) struct Stocks {
    store: JetStreamEventStore,
    known: HashMap<Sku, Loaded<Stock>>,
    /// About how much memory these take.
    bytes: usize,
    /// What was known before the plan that is being committed; empty when nothing is.
    before: Vec<(Sku, Option<Loaded<Stock>>)>,
    /// What a conflict has cast doubt on.
    doubted: BTreeSet<Sku>,
}

impl Stocks {
    pub(crate) fn new(store: JetStreamEventStore) -> Self {
        Self { store, known: HashMap::new(), bytes: 0, before: Vec::new(), doubted: BTreeSet::new() }
    }

    /// The stock of `sku`, which was [`ensure`](Self::ensure)d.
    pub(crate) fn get(&self, sku: &Sku) -> Option<&Loaded<Stock>> {
        self.known.get(sku)
    }

    /// Loads those of `skus` that are not known.
    pub(crate) async fn ensure(&mut self, skus: &BTreeSet<Sku>) -> Result<(), Obstacle> {
        if self.known.len() + skus.len() > SKUS_MAX || self.bytes > BYTES_MAX {
            // Of what is being committed nobody else knows yet.
            let committing: HashSet<_> = self.before.iter().map(|(sku, _)| sku).collect();
            self.known.retain(|sku, _| committing.contains(sku) || skus.contains(sku));
            self.bytes = self.known.values().map(bytes_of).sum();
        }
        let unknown: Vec<_> = skus.iter().filter(|sku| !self.known.contains_key(*sku)).cloned().collect();
        for some in unknown.chunks(LOADS_IN_FLIGHT_MAX) {
            let loads = some.iter().map(|sku| async {
                let loaded = self.store.load::<Stock>(sku.as_str()).await.map_err(|error| obstacle(sku, &error))?;
                Ok::<_, Obstacle>((sku.clone(), loaded))
            });
            let loaded = futures::future::try_join_all(loads).await?;
            for (sku, loaded) in loaded {
                self.set(sku, Some(loaded));
            }
        }
        Ok(())
    }

    /// Folds in what the log has of `skus` by now, and returns whether that was anything new. Not to be asked while something is being
    /// committed: the log does not have that yet.
    pub(crate) async fn refresh(&mut self, skus: &[Sku]) -> Result<bool, Obstacle> {
        let mut has_news = false;
        for some in skus.chunks(LOADS_IN_FLIGHT_MAX) {
            let known = some.iter().filter_map(|sku| Some((sku, self.known.get(sku)?.clone())));
            let refreshes = known.map(|(sku, mut loaded)| async {
                let is_new = self.store.refresh(sku.as_str(), &mut loaded).await.map_err(|error| obstacle(sku, &error))?;
                Ok::<_, Obstacle>(is_new.then(|| (sku.clone(), loaded)))
            });
            let refreshed = futures::future::try_join_all(refreshes).await?;
            for (sku, loaded) in refreshed.into_iter().flatten() {
                self.set(sku, Some(loaded));
                has_news = true;
            }
        }
        Ok(has_news)
    }

    /// Folds in what `plan` is about to append, so that the next batch can be decided meanwhile. Where its events will be in the log is
    /// not known until [`confirm`](Self::confirm) is told.
    pub(crate) fn anticipate(&mut self, plan: &Plan) {
        for change in &plan.stock_changes {
            let before = self.known.get(&change.sku).cloned();
            let loaded = self.known.entry(change.sku.clone()).or_default();
            for event in &change.events {
                loaded.aggregate.evolve(event);
            }
            loaded.version += change.events.len() as u64;
            self.bytes = self.bytes + bytes_of(loaded) - before.as_ref().map_or(0, bytes_of);
            self.before.push((change.sku.clone(), before));
        }
    }

    /// What was anticipated met a conflict: goes back to what was known before.
    pub(crate) fn take_back(&mut self) {
        for (sku, before) in std::mem::take(&mut self.before).into_iter().rev() {
            self.set(sku, before);
        }
    }

    fn set(&mut self, sku: Sku, loaded: Option<Loaded<Stock>>) {
        self.bytes += loaded.as_ref().map_or(0, bytes_of);
        let before = match loaded {
            Some(loaded) => self.known.insert(sku, loaded),
            None => self.known.remove(&sku),
        };
        self.bytes -= before.as_ref().map_or(0, bytes_of);
    }

    /// A conflict may have been about any of these.
    pub(crate) fn doubt(&mut self, skus: BTreeSet<Sku>) {
        self.doubted.extend(skus);
    }

    /// Of what a conflict has cast doubt on, folds in what the log has by now. Like [`refresh`](Self::refresh), it has to wait while
    /// something is being committed.
    pub(crate) async fn check(&mut self) -> Result<(), Obstacle> {
        let doubted = self.doubted.iter().filter_map(|sku| Some((sku.as_str(), self.known.get(sku)?.expected())));
        let doubted: Vec<_> = doubted.collect();
        if doubted.is_empty() || !self.before.is_empty() {
            return Ok(());
        }
        let moved = self.store.moved::<Stock>(doubted).await;
        let moved: BTreeSet<_> = moved.map_err(|error| Obstacle::Away(chain(&error).join(": ")))?.into_iter().collect();
        let moved: Vec<_> = self.doubted.iter().filter(|sku| moved.contains(sku.as_str())).cloned().collect();
        self.refresh(&moved).await?;
        self.doubted.clear();
        Ok(())
    }

    /// What was anticipated of `plan` has happened, from `first_position` on.
    pub(crate) fn confirm(&mut self, plan: &Plan, first_position: u64) {
        for change in &plan.stock_changes {
            if let Some(loaded) = self.known.get_mut(&change.sku) {
                loaded.position = first_position + change.last_index as u64;
                // The stock of a SKU that sells well is the longest aggregate there is, and the largest: it is kept here, and in the
                // store's cache it would push out hundreds of orders with each batch.
                self.store.consider_snapshot(change.sku.as_str(), loaded);
            }
        }
        self.before.clear();
    }

    /// Forgets everything: what is known may be out of date.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.bytes = 0;
        self.before.clear();
        self.doubted.clear();
    }
}

/// About how much memory one takes, with its place.
fn bytes_of(loaded: &Loaded<Stock>) -> usize {
    size_of::<Sku>() + size_of::<Loaded<Stock>>() - size_of::<Stock>() + loaded.aggregate.approximate_bytes()
}

/// A SKU whose events cannot be read blocks the orders that need it, and nothing may be promised from it. That is a fault
/// of the log, or of this build, which an update in progress may have outdated: waiting, loudly, loses nothing.
fn obstacle(sku: &Sku, error: &LoadError) -> Obstacle {
    match error {
        LoadError::Read(error) => Obstacle::Away(format!("load the stock of {sku}: {}", chain(error).join(": "))),
        other => Obstacle::StockUnreadable { sku: sku.clone(), error_chain: chain(other) },
    }
}
