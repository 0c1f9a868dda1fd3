//! A reactor with an outside system that one SKU is too much for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use domain::envelope::StoredEvent;
use event_store::WorkSource;
use reactors::{Failure, News, Reactor, breaker::Breaker};

/// Something outside that one SKU is too much for.
pub(crate) struct Squeamish {
    pub(crate) breaker: Breaker,
    /// Set once it can take anything.
    pub(crate) is_well: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("not that again")]
struct NotThat;

impl Reactor for Squeamish {
    const NAME: &'static str = "squeamish";
    const SOURCE: WorkSource = WorkSource::Log(&["stock"]);
    const CONCURRENCY: usize = 4;

    fn wants(&self, _: &str) -> bool {
        true
    }

    fn breaker(&self) -> Option<&Breaker> {
        Some(&self.breaker)
    }

    async fn handle(&self, event: &StoredEvent, _: News) -> Result<(), Failure> {
        let call = self.breaker.admit().await.map_err(Failure::not_tried)?;
        if event.metadata.aggregate_id == "EEL" && !self.is_well.load(Ordering::Relaxed) {
            call.failed(None);
            return Err(Failure::transient(NotThat));
        }
        call.worked();
        Ok(())
    }
}
