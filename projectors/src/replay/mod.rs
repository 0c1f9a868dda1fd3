//! `projectors replay`: a read model built anew from the log, beside the live one.
//!
//! The new tables grow in a schema of their own while queries read the old ones and the live projection goes on. Then one
//! transaction either swaps them, together with the checkpoint, or (with `--verify`) compares them and changes nothing.
//!
//! What is built is kept when the command is interrupted, and gone on with when the same program is started again; another build of
//! it may fold differently, so that one begins anew.

mod beside;
mod build;

mod compare;
mod swap;

mod report;

use std::time::{Duration, Instant};

use event_store::JetStreamEventStore;
use read_store::projections::ProjectionName;
use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};
use tracing::info;

pub use compare::{Comparison, DIFFERENCES_MAX, Difference, DifferenceKind};
pub use report::{Report, render};

use self::{beside::Beside, build::Build};
use crate::{
    audit::merkle::Hash,
    checkpoints,
    failure::Failure,
    read_models::{AuditTrail, Inventory, Orders, ReadModel},
    settings::SERVICE,
};

/// How long to wait for NATS before giving up, in seconds.
const NATS_WAIT_S: u64 = 10;
/// Most rows that a rebuild keeps in memory, so that an order's events need not load it each time.
const CACHED_ROWS_MAX: usize = 50_000;
/// First half of the advisory locks' keys, the letters "cont"; the second half is the projection's number.
const LOCK_CLASS: i32 = 0x636f_6e74;

/// What becomes of the tables that were built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They take the place of the live ones. Ends a halt, too.
    Swap,
    /// They are compared with the live ones and dropped.
    Verify,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Replayer {
    store: JetStreamEventStore,
    options: PgConnectOptions,
}

impl Replayer {
    /// Connects to the log; fails with [`Failure::Away`] if it is not there within some seconds.
    pub async fn connect(nats_url: &str, options: PgConnectOptions) -> Result<Self, Failure> {
        let store = JetStreamEventStore::connect(nats_url, SERVICE).await.map_err(Failure::other("connect to NATS"))?;
        let mut reason = String::new();
        let ready = store.wait_until_ready(|waits_for| waits_for.clone_into(&mut reason));
        if tokio::time::timeout(Duration::from_secs(NATS_WAIT_S), ready).await.is_err() {
            return Err(Failure::Away(reason));
        }
        Ok(Self { store, options })
    }

    /// Rebuilds one read model. Can be dropped at any time; see the module about what is kept.
    ///
    /// Fails with [`Failure::Conflict`] while another replay of it runs, and with [`Failure::Integrity`] if the log does not agree
    /// with what was recorded of it: then nothing is swapped.
    pub async fn replay(&self, name: ProjectionName, purpose: Purpose) -> Result<Report, Failure> {
        let mut connection = PgConnection::connect_with(&self.options).await.map_err(Failure::postgres("connect to Postgres"))?;
        lock(&mut connection, name).await?;
        let report = match name {
            ProjectionName::Orders => self.rebuild(&mut connection, Orders::new(CACHED_ROWS_MAX), purpose).await,
            ProjectionName::Inventory => self.rebuild(&mut connection, Inventory::new(CACHED_ROWS_MAX), purpose).await,
            ProjectionName::Audit => {
                let recorded = last_recorded_head(&mut connection).await?;
                self.rebuild(&mut connection, AuditTrail::rebuilt(recorded), purpose).await
            }
        };
        // The lock ends with the connection in any case, but only some time after the goodbye.
        let _ = unlock(&mut connection, name).await;
        let _ = connection.close().await;
        report
    }

    async fn rebuild<M: ReadModel>(&self, connection: &mut PgConnection, model: M, purpose: Purpose) -> Result<Report, Failure> {
        let started = Instant::now();
        let live = checkpoints::peek(&mut *connection, M::NAME).await.map_err(Failure::postgres("read the live checkpoint"))?;
        // Asked after the read model, which may be moving on.
        let head = self.store.head().await.map_err(Failure::other("ask the log how far it is"))?;
        if live.position > head {
            return Err(Failure::Integrity(format!(
                "{} is at position {} and the log ends at {head}: this is not the log that it was built from",
                M::NAME,
                live.position
            )));
        }
        let beside = Beside::of(M::NAME, purpose);
        let checkpoint = beside.prepare(connection).await.map_err(Failure::postgres("prepare the tables to build"))?;
        let resumed_from = checkpoint.position;
        let mut build = Build::start(model, &beside, self.store.clone(), &checkpoint)?;
        info!(projection = %M::NAME, head, resumed_from, "rebuilding {} from position {} of {head}", M::NAME, resumed_from + 1);

        let comparison = match purpose {
            Purpose::Swap => {
                // To the end of the log: a halted projection is to get past what it stands before.
                build.advance(connection, head).await?;
                swap::swap(connection, &mut build).await?;
                None
            }
            Purpose::Verify => {
                build.advance(connection, live.position).await?;
                let comparison = compare::compare(connection, &mut build).await?;
                beside.discard(connection).await.map_err(Failure::postgres("drop what was built"))?;
                Some(comparison)
            }
        };
        let report = Report::new(M::NAME, resumed_from, build.position(), started.elapsed(), comparison);
        info!(projection = %M::NAME, position = report.position, "{report}");
        Ok(report)
    }
}

/// Keeps other replays of the read model out for as long as the connection lives.
async fn lock(connection: &mut PgConnection, name: ProjectionName) -> Result<(), Failure> {
    let is_locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(name as i32)
        .fetch_one(connection)
        .await
        .map_err(Failure::postgres("lock the read model against other replays"))?;
    if is_locked { Ok(()) } else { Err(Failure::Conflict(format!("another replay of {name} is running"))) }
}

async fn unlock(connection: &mut PgConnection, name: ProjectionName) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock($1, $2)").bind(LOCK_CLASS).bind(name as i32).execute(connection).await?;
    Ok(())
}

/// The last tree head that was signed: the log must still have it.
async fn last_recorded_head(connection: &mut PgConnection) -> Result<Option<(u64, Hash)>, Failure> {
    let row = sqlx::query("SELECT size, root FROM contrail.audit_checkpoints ORDER BY size DESC LIMIT 1")
        .fetch_optional(connection)
        .await
        .map_err(Failure::postgres("read the signed checkpoints"))?;
    let Some(row) = row else { return Ok(None) };
    let (size, root): (i64, &[u8]) = (row.get("size"), row.get("root"));
    let root = root.try_into().map_err(|_| Failure::Integrity(format!("the recorded root of {size} events is no hash")))?;
    Ok(Some((size.unsigned_abs(), root)))
}
