//! One read model that is rebuilt.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use event_store::{JetStreamEventStore, LogMessage};
use read_store::projections::ProjectionName;
use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};
use tokio::sync::mpsc;
use tracing::info;

use super::{
    DifferenceLog, Purpose, Report,
    beside::Beside,
    build::{BULK_EVENTS_MAX, Build},
    compare, swap,
};
use crate::{
    audit::merkle::Hash,
    checkpoints,
    failure::Failure,
    feed::{Feed, Source},
    progress::Board,
    read_models::{AuditTrail, Checkpoint, Inventory, Orders, ReadModel},
    skips,
};

/// Most rows that a rebuild keeps in memory, at some 2 KiB each, so that an order's events need not load it each time.
const CACHED_ROWS_MAX: usize = 20_000;
/// How long a replay waits for another one to be gone: of one that was just killed, Postgres still has to notice it.
const LOCK_WAIT: Duration = Duration::from_secs(3);
/// Pause between two looks.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// First half of the advisory locks' keys, the letters "cont"; the second half is the projection's number.
const LOCK_CLASS: i32 = 0x636f_6e74;

/// A place to build in: locked, with tables that are empty or that an interrupted replay has left.
pub(super) struct Site {
    name: ProjectionName,
    purpose: Purpose,
    options: PgConnectOptions,
    connection: PgConnection,
    beside: Beside,
    /// Events that were skipped, and are again.
    skips: BTreeSet<u64>,
    /// Where the tables are.
    checkpoint: Checkpoint,
    /// The log's end.
    head: u64,
    /// How far is built in bulk, before what came in meanwhile is caught up with.
    target: u64,
    /// Takes what a comparison finds.
    differences: Option<DifferenceLog>,
}

impl Site {
    pub(super) async fn prepare(
        options: &PgConnectOptions,
        store: &JetStreamEventStore,
        name: ProjectionName,
        purpose: Purpose,
        differences: Option<&DifferenceLog>,
    ) -> Result<Self, Failure> {
        let mut connection = PgConnection::connect_with(options).await.map_err(Failure::postgres("connect to Postgres"))?;
        lock(&mut connection, name).await?;
        match Self::survey(&mut connection, store, name, purpose).await {
            Ok((beside, skips, checkpoint, head, target)) => {
                let options = options.clone();
                let differences = differences.cloned();
                Ok(Self { name, purpose, options, connection, beside, skips, checkpoint, head, target, differences })
            }
            Err(failure) => {
                leave(connection, name).await;
                Err(failure)
            }
        }
    }

    async fn survey(
        connection: &mut PgConnection,
        store: &JetStreamEventStore,
        name: ProjectionName,
        purpose: Purpose,
    ) -> Result<(Beside, BTreeSet<u64>, Checkpoint, u64, u64), Failure> {
        let live = checkpoints::peek(&mut *connection, name).await.map_err(Failure::postgres("read the live checkpoint"))?;
        // Asked after the read model, which may be moving on.
        let head = store.head().await.map_err(Failure::log("ask the log how far it is"))?;
        if live.position > head {
            return Err(Failure::Integrity(format!(
                "{name} is at position {} and the log ends at {head}: this is not the log that it was built from",
                live.position
            )));
        }
        let target = match purpose {
            // To the end of the log: a halted projection is to get past what it stands before.
            Purpose::Swap => head,
            Purpose::SwapAt(position) if position > head => {
                return Err(Failure::Away(format!("the log ends at position {head}, not yet at {position}")));
            }
            Purpose::SwapAt(position) => position,
            Purpose::Verify => live.position,
        };
        let beside = Beside::of(name, purpose);
        let skips = skips::all(&mut *connection, name).await.map_err(Failure::postgres("read which events are skipped"))?;
        let checkpoint =
            beside.prepare(connection, target, &skips).await.map_err(Failure::postgres("prepare the tables to build"))?;
        Ok((beside, skips, checkpoint, head, target))
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(super) fn target(&self) -> u64 {
        self.target
    }

    /// Rebuilds the read model from what is handed in `batches`, and from the log once they have ended.
    pub(super) async fn rebuild(
        mut self,
        store: JetStreamEventStore,
        batches: mpsc::Receiver<Vec<LogMessage>>,
        board: &Board,
    ) -> Result<Report, Failure> {
        let feed = Feed::new(Source::Log(store), BULK_EVENTS_MAX).handed(self.checkpoint.position, batches);
        let report = match self.name {
            ProjectionName::Orders => self.rebuild_as(Orders::new(CACHED_ROWS_MAX), feed, board).await,
            ProjectionName::Inventory => self.rebuild_as(Inventory::new(CACHED_ROWS_MAX), feed, board).await,
            ProjectionName::Audit => match last_recorded_head(&mut self.connection).await {
                Ok(recorded) => self.rebuild_as(AuditTrail::rebuilt(recorded), feed, board).await,
                Err(failure) => Err(failure),
            },
        };
        self.leave().await;
        report
    }

    /// Lets others replay the read model.
    pub(super) async fn leave(self) {
        leave(self.connection, self.name).await;
    }

    async fn rebuild_as<M: ReadModel>(&mut self, model: M, feed: Feed, board: &Board) -> Result<Report, Failure> {
        let Self { purpose, options, connection, beside, skips, checkpoint, head, target, differences, .. } = self;
        let (started, resumed_from) = (Instant::now(), checkpoint.position);
        info!(projection = %M::NAME, target_position = *target, resumed_from, "rebuilding {} from position {} to {target}", M::NAME, resumed_from + 1);
        let progress = board.add(format!("rebuilding {}", M::NAME), *target);
        let mut build = Build::start(model, beside, feed, progress, skips.clone(), checkpoint)?;
        build.advance(connection, *target).await?;
        let comparison = match *purpose {
            Purpose::Swap | Purpose::SwapAt(_) => {
                info!(projection = %M::NAME, "making the indexes of {}", M::NAME);
                beside.add_indexes(connection, options).await.map_err(Failure::postgres("make the indexes of what was rebuilt"))?;
                let end = if *purpose == Purpose::Swap { None } else { Some(*target) };
                swap::swap(connection, &mut build, *head, end).await?;
                None
            }
            Purpose::Verify => {
                let comparison = compare::compare(connection, &mut build, differences.as_ref()).await?;
                beside.discard(connection).await.map_err(Failure::postgres("drop what was built"))?;
                Some(comparison)
            }
        };
        let report = Report::new(M::NAME, resumed_from, build.position(), started.elapsed(), comparison);
        info!(projection = %M::NAME, position = report.position, "{report}");
        Ok(report)
    }
}

/// Drops what an interrupted replay of the read model has left. False if there was nothing.
pub(super) async fn abandon(options: &PgConnectOptions, name: ProjectionName) -> Result<bool, Failure> {
    const DOING: &str = "drop what an interrupted replay has left";
    let mut connection = PgConnection::connect_with(options).await.map_err(Failure::postgres("connect to Postgres"))?;
    lock(&mut connection, name).await?;
    let mut was_there = false;
    let mut dropped = Ok(());
    for purpose in [Purpose::Swap, Purpose::Verify] {
        let beside = Beside::of(name, purpose);
        dropped = match beside.exists(&mut connection).await {
            Ok(true) => {
                was_there |= purpose == Purpose::Swap;
                beside.discard(&mut connection).await
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if dropped.is_err() {
            break;
        }
    }
    leave(connection, name).await;
    dropped.map_err(Failure::postgres(DOING))?;
    Ok(was_there)
}

/// Keeps other replays of the read model out for as long as the connection lives.
async fn lock(connection: &mut PgConnection, name: ProjectionName) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let is_locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK_CLASS)
            .bind(name as i32)
            .fetch_one(&mut *connection)
            .await
            .map_err(Failure::postgres("lock the read model against other replays"))?;
        if is_locked {
            return Ok(());
        }
        if began.elapsed() >= LOCK_WAIT {
            return Err(Failure::Conflict(format!("another replay of {name} is running")));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

async fn leave(mut connection: PgConnection, name: ProjectionName) {
    // The lock ends with the connection in any case, but only some time after the goodbye.
    let _ = sqlx::query("SELECT pg_advisory_unlock($1, $2)").bind(LOCK_CLASS).bind(name as i32).execute(&mut connection).await;
    let _ = connection.close().await;
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
