//! A reactor with an outside system that one SKU is too much for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::envelope::StoredEvent;
use event_store::WorkSource;
use reactors::{Failure, News, Reactor, breaker::Breaker};

/// Something outside that one SKU is too much for.
pub(crate) struct Squeamish {
    pub(crate) breaker: Breaker,
    /// Set once it can take anything.
    pub(crate) is_well: Arc<AtomicBool>,
    /// After what time it would rather be asked again.
    pub(crate) retry_after: Option<Duration>,
}

impl Squeamish {
    pub(crate) fn new(breaker: &Breaker) -> Self {
        Self { breaker: breaker.clone(), is_well: Arc::default(), retry_after: None }
    }
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
            return Err(Failure::Transient { source: NotThat.into(), retry_after: self.retry_after });
        }
        call.worked();
        Ok(())
    }
}
