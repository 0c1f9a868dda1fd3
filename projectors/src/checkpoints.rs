//! The rows of `contrail.projections` as their owner handles them: locked first, moved last, both in the transaction of the batch.
//!
//! Every transaction that changes a read model takes the row's lock before it touches the read model's table. That is why a replay
//! can swap the tables under a running projector: whoever comes second sees the position that the first one left.

use std::collections::BTreeSet;

use event_store::STREAM;
use read_store::{
    notices::{self, Notice},
    projections::{Halt, ProjectionName},
};
use sqlx::{
    PgConnection, PgExecutor, Row,
    postgres::{PgRow, types::Oid},
};

use crate::read_models::{Checkpoint, Tables, Unapplicable, signed};

/// How a projection stands after a transaction.
#[derive(Debug)]
pub(crate) struct Standing<'a> {
    /// Where it is.
    pub(crate) checkpoint: &'a Checkpoint,
    /// The last event of the log, as far as is known.
    pub(crate) head: u64,
    /// The event that it stands before, if it cannot go past it.
    pub(crate) halt: Option<&'a Unapplicable>,
}

/// Most events to skip that are read with the row; the rest come with the next batches.
const SKIPS_MAX: u32 = 1_000;

/// Locks the row until the transaction ends, and reads where the projection is, and which of the next events it is to skip.
pub(crate) async fn lock(transaction: &mut PgConnection, name: ProjectionName) -> Result<(Checkpoint, BTreeSet<u64>), sqlx::Error> {
    let mut row = read(&mut *transaction, name, "FOR UPDATE").await?;
    // Who had to wait for the lock gets the row as it is now, and everything else as it was before: the table that a replay has just
    // exchanged, and the skips without the one that was the reason to wait. From here on nobody changes them.
    if !row.try_get::<bool, _>("is_as_seen")? {
        row = read(transaction, name, "").await?;
    }
    let skips: Vec<i64> = row.try_get("skips")?;
    Ok((checkpoint(&row)?, skips.into_iter().map(i64::unsigned_abs).collect()))
}

/// Where the projection is at this moment; another may move it on right after.
pub(crate) async fn peek(executor: impl PgExecutor<'_>, name: ProjectionName) -> Result<Checkpoint, sqlx::Error> {
    checkpoint(&read(executor, name, "").await?)
}

async fn read(executor: impl PgExecutor<'_>, name: ProjectionName, locking: &str) -> Result<PgRow, sqlx::Error> {
    let tables = Tables::live();
    // Names are looked up in pg_class and not by to_regclass, whose own memory of them may be older than the statement.
    let sql = format!(
        "SELECT position, frontier, \
         (SELECT oid FROM pg_class WHERE relname = $1 AND relnamespace = '{schema}'::regnamespace) AS live_table, \
         ARRAY(SELECT position FROM contrail.skips WHERE projection = $1 AND position > projections.position \
         ORDER BY position LIMIT {SKIPS_MAX}) AS skips, \
         xmin = (SELECT seen.xmin FROM contrail.projections AS seen WHERE seen.name = $1) AS is_as_seen \
         FROM contrail.projections WHERE name = $1 {locking}",
        schema = tables.schema(),
    );
    sqlx::query(&sql).bind(name.as_str()).fetch_one(executor).await
}

fn checkpoint(row: &PgRow) -> Result<Checkpoint, sqlx::Error> {
    let position: i64 = row.try_get("position")?;
    let table: Option<Oid> = row.try_get("live_table")?;
    let table = table.map_or(0, |oid| oid.0);
    Ok(Checkpoint { position: position.unsigned_abs(), frontier: row.try_get("frontier")?, table })
}

/// Moves the projection on from `expected` and tells listeners. False if it is not at `expected` (any more): then nothing
/// is changed, and the transaction must be rolled back.
pub(crate) async fn advance(
    transaction: &mut PgConnection,
    name: ProjectionName,
    expected: u64,
    standing: &Standing<'_>,
) -> Result<bool, sqlx::Error> {
    let Standing { checkpoint, head, halt } = standing;
    let moved = sqlx::query(
        "UPDATE contrail.projections SET position = $3, head = GREATEST($4, $3), frontier = $5, updated_at = now(), \
         state = CASE WHEN $6::bigint IS NULL THEN 'running' ELSE 'halted' END, \
         halt_position = $6, halt_event_type = $7, halt_reason = $8, \
         halted_at = CASE WHEN $6::bigint IS NULL THEN NULL WHEN halt_position = $6 THEN halted_at ELSE now() END \
         WHERE name = $1 AND position = $2",
    )
    .bind(name.as_str())
    .bind(signed(expected))
    .bind(signed(checkpoint.position))
    .bind(signed(*head))
    .bind(&checkpoint.frontier)
    .bind(halt.map(|halt| signed(halt.position)))
    .bind(halt.and_then(|halt| halt.event_type.as_deref()))
    .bind(halt.map(|halt| halt.reason.as_str()))
    .execute(&mut *transaction)
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    notify(transaction, name, checkpoint.position).await?;
    Ok(true)
}

/// Writes down how far the log goes, if that is news. Returns where the projection is.
pub(crate) async fn set_head(executor: impl PgExecutor<'_>, name: ProjectionName, head: u64) -> Result<u64, sqlx::Error> {
    let position: i64 = sqlx::query_scalar(
        "WITH news AS (UPDATE contrail.projections SET head = $2, updated_at = now() WHERE name = $1 AND head < $2) \
         SELECT position FROM contrail.projections WHERE name = $1",
    )
    .bind(name.as_str())
    .bind(signed(head))
    .fetch_one(executor)
    .await?;
    Ok(position.unsigned_abs())
}

async fn notify(transaction: &mut PgConnection, name: ProjectionName, position: u64) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(notices::CHANNEL)
        .bind(Notice { name, position }.to_payload())
        .execute(transaction)
        .await?;
    Ok(())
}

/// The reason of a halt at a position that the log does not have.
pub(crate) fn gap(expected: u64, found: u64) -> Unapplicable {
    let reason = format!("{}, the next one is {found}", is_missing(expected));
    Unapplicable { position: expected, event_type: None, reason }
}

/// The reason of a halt at the end of a log that ends at `head`, before what is applied already. What comes next in it is not what comes
/// next here.
pub(crate) fn short_log(head: u64, applied: u64) -> Unapplicable {
    let reason = format!("{ENDS_AT} {head}, before position {applied}: it is not the one that was applied");
    Unapplicable { position: applied + 1, event_type: None, reason }
}

/// Whether the halt is not about an event, but about there being none.
pub(crate) fn is_without_event(halt: &Halt) -> bool {
    halt.reason.starts_with(&is_missing(halt.position)) || halt.reason.starts_with(ENDS_AT)
}

const ENDS_AT: &str = "the log ends at";

fn is_missing(position: u64) -> String {
    format!("position {position} is missing from the stream {STREAM}")
}
