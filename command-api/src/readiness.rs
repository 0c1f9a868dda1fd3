//! What `/ready` says of the log.

use std::time::Duration;

use event_store::JetStreamEventStore;
use telemetry::{drain::Drain, health::Component};

use crate::limits::READINESS_INTERVAL_S;

/// Looks at the log every second and tells `component` how it is, until the drain starts.
pub async fn watch(store: JetStreamEventStore, component: Component, drain: Drain) {
    let mut ticks = tokio::time::interval(Duration::from_secs(READINESS_INTERVAL_S));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.started() => return,
            _ = ticks.tick() => {}
        }
        match store.check().await {
            Ok(()) => component.ready(),
            Err(reason) => component.not_ready(reason),
        }
    }
}
