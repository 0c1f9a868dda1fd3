//! What stands in the way of something that is tried again until it works.

/// Warned of once for each reason, however many attempts meet it.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    reason: Option<String>,
}

impl Trouble {
    /// An attempt at `what` has failed for this reason.
    pub(crate) fn met(&mut self, what: &str, reason: String) {
        if self.reason.as_ref() != Some(&reason) {
            tracing::warn!("{what}, trying again: {reason}");
            self.reason = Some(reason);
        }
    }

    /// An attempt at `what` has worked.
    pub(crate) fn over(&mut self, what: &str) {
        if self.reason.take().is_some() {
            tracing::info!("{what}: works again");
        }
    }
}
