//! What `/ready` says of the log.

use std::time::Duration;

use event_store::JetStreamEventStore;
use telemetry::{drain::Drain, health::Component};

use crate::limits::READINESS_INTERVAL_S;

/// Pause between two looks until the log is there.
const FIRST_LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Looks at the log every second and tells `component` how it is, until the drain starts.
pub async fn watch(store: JetStreamEventStore, component: Component, drain: Drain) {
    loop {
        match store.check().await {
            Ok(()) => component.ready(),
            Err(reason) => component.not_ready(reason),
        }
        // No command is let in before the log was seen for the first time.
        let pause = if store.has_log() { Duration::from_secs(READINESS_INTERVAL_S) } else { FIRST_LOOK_PAUSE };
        tokio::select! {
            () = drain.started() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
