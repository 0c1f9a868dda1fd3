//! The running projections: each follows the log and keeps one read model up to date, exactly once per event.

mod batch;

mod projector;

mod traced;

use std::time::Duration;

use event_store::JetStreamEventStore;
use read_store::projections::ProjectionName;
use sqlx::PgPool;
use telemetry::{drain::Drain, health::Health, metrics::Metrics};
use tokio::task::JoinSet;

use crate::{
    audit::key::Signer,
    metrics::ProjectionMetrics,
    read_models::{AuditTrail, Inventory, OrderFigures, Orders},
};

/// Most events applied in one transaction.
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// Rows that a live projection keeps in memory, at about 1 KiB each, so that the next events about them need not load them.
const CACHED_ROWS_MAX: usize = 20_000;
/// Longest rest between two transactions of a busy projection.
const REST_MAX: Duration = Duration::from_millis(100);
/// How often a projection looks how far the log is, signs what is unsigned, and, while it is halted, whether it may go on.
pub const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a failed transaction, doubled with each further one.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What the projections work with.
#[derive(Clone, Debug)]
pub struct Dependencies {
    /// The log.
    pub store: JetStreamEventStore,
    /// The read models; each projection holds at most two connections at a time.
    pub pool: PgPool,
    /// Signs the audit trail's heads.
    pub signer: Signer,
    /// Gets one component per projection.
    pub health: Health,
    /// Gets the metrics of each projection.
    pub metrics: Metrics,
    /// Ends the projections after the batch that each is at.
    pub drain: Drain,
}

/// Starts every projection, independent of the others. Each ends when the drain starts, and only then.
pub fn spawn(dependencies: &Dependencies) -> JoinSet<()> {
    let metrics = ProjectionMetrics::register(&dependencies.metrics);
    // The log is read once for all of them.
    let tail = dependencies.store.tail();
    let mut projections = JoinSet::new();
    for name in ProjectionName::ALL {
        let (dependencies, tail, metrics) = (dependencies.clone(), tail.clone(), metrics(name));
        match name {
            ProjectionName::Orders => {
                let orders = Orders::new(CACHED_ROWS_MAX).counted_by(OrderFigures::register(&dependencies.metrics));
                projections.spawn(projector::run(orders, dependencies, tail, metrics))
            }
            ProjectionName::Inventory => {
                projections.spawn(projector::run(Inventory::new(CACHED_ROWS_MAX), dependencies, tail, metrics))
            }
            ProjectionName::Audit => {
                let audit = AuditTrail::signed_by(dependencies.signer.clone());
                projections.spawn(projector::run(audit, dependencies, tail, metrics))
            }
        };
    }
    projections
}
