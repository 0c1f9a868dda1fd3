//! The stock of the SKUs that were needed lately, folded. Optimistic concurrency makes a stale one harmless for a
//! decision that appends to it; for one that does not, [`Stocks::refresh`] asks the log.

use std::collections::{BTreeSet, HashMap};

use domain::{Sku, stock::Stock};
use event_store::{JetStreamEventStore, LoadError, Loaded};

use super::{Obstacle, plan::Plan};
use crate::dead_letter::chain;

/// SKUs kept in memory; when there are more, all are forgotten and loaded again as they are needed.
const SKUS_MAX: usize = 100_000;
/// SKUs loaded at the same time.
const LOADS_IN_FLIGHT_MAX: usize = 16;

pub(crate) struct Stocks {
    store: JetStreamEventStore,
    known: HashMap<Sku, Loaded<Stock>>,
}

impl Stocks {
    pub(crate) fn new(store: JetStreamEventStore) -> Self {
        Self { store, known: HashMap::new() }
    }

    /// The stock of `sku`, which was [`ensure`](Self::ensure)d.
    pub(crate) fn get(&self, sku: &Sku) -> Option<&Loaded<Stock>> {
        self.known.get(sku)
    }

    /// Loads those of `skus` that are not known.
    pub(crate) async fn ensure(&mut self, skus: &BTreeSet<Sku>) -> Result<(), Obstacle> {
        if self.known.len() + skus.len() > SKUS_MAX {
            self.known.clear();
        }
        let unknown: Vec<_> = skus.iter().filter(|sku| !self.known.contains_key(*sku)).cloned().collect();
        for some in unknown.chunks(LOADS_IN_FLIGHT_MAX) {
            let loads = some.iter().map(|sku| async {
                let loaded = self.store.load::<Stock>(sku.as_str()).await.map_err(|error| obstacle(sku, &error))?;
                Ok::<_, Obstacle>((sku.clone(), loaded))
            });
            let loaded = futures::future::try_join_all(loads).await?;
            self.known.extend(loaded);
        }
        Ok(())
    }

    /// Folds in what the log has of `skus` by now. Returns `false` if there was nothing to ask.
    pub(crate) async fn refresh(&mut self, skus: &[Sku]) -> Result<bool, Obstacle> {
        for sku in skus {
            if let Some(loaded) = self.known.get_mut(sku) {
                self.store.refresh(sku.as_str(), loaded).await.map_err(|error| obstacle(sku, &error))?;
            }
        }
        Ok(!skus.is_empty())
    }

    /// Folds in what `plan` has appended from `first_position` on.
    pub(crate) fn advance(&mut self, plan: &Plan, first_position: u64) {
        for change in &plan.stock_changes {
            let Some(loaded) = self.known.get_mut(&change.sku) else { continue };
            for event in &change.events {
                loaded.aggregate.evolve(event);
            }
            loaded.version += change.events.len() as u64;
            loaded.position = first_position + change.last_index as u64;
        }
    }

    /// Forgets everything: what is known may be out of date.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}

/// A SKU whose events cannot be read blocks the orders that need it, and nothing may be promised from it. That is a fault
/// of the log, or of this build, which an update in progress may have outdated: waiting, loudly, loses nothing.
fn obstacle(sku: &Sku, error: &LoadError) -> Obstacle {
    match error {
        LoadError::Read(error) => Obstacle::Away(format!("load the stock of {sku}: {}", chain(error).join(": "))),
        other => Obstacle::StockUnreadable { sku: sku.clone(), error_chain: chain(other) },
    }
}
