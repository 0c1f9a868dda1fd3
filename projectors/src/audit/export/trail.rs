//! The rows of `contrail.audit` as an export reads them.

use bytes::Bytes;
use sqlx::{Connection, PgConnection, PgPool};

use super::filter::Filter;
use crate::{
    audit::{
        formats::Sink,
        merkle::Hash,
        row::{Attributes, TrailRow},
    },
    copy::{CopiedRow, CopyOut},
    failure::Failure,
};

/// Positions that are asked for at a time; between two pages no lock is held, so that an export does not hold up the swap of a replay.
const PAGE_POSITIONS: u64 = 20_000;

const DOING: &str = "read the audit trail";

/// Which columns are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// The position and the leaf.
    Leaves,
    /// And the stored bytes.
    Bytes,
    /// And what the table repeats of the attributes.
    All,
}

impl Columns {
    /// Those that decide what is in an export, and what it says; only these can be wrong without the tree showing it.
    pub(super) fn needed_by(filter: &Filter, sink: &Sink) -> Self {
        if sink.is_in_lines() && !filter.asks_for_attributes() { Self::Bytes } else { Self::All }
    }

    pub(super) const fn names(self) -> &'static str {
        match self {
            Self::Leaves => "position, leaf_hash",
            Self::Bytes => "position, leaf_hash, bytes",
            Self::All => {
                "position, leaf_hash, bytes, event_id, event_type, aggregate_type, aggregate_id, version, time, actor, correlation_id, \
                 causation_id, trace_id"
            }
        }
    }
}

/// Hands every event that `filter` wants, up to `to`, to `take`, in the order of the log. `passed` is told up to where all are handed.
pub(super) async fn read(
    pool: &PgPool,
    filter: &Filter,
    columns: Columns,
    to: u64,
    mut take: impl AsyncFnMut(TrailRow) -> Result<(), Failure>,
    passed: impl Fn(u64),
) -> Result<(), Failure> {
    // A connection of its own, since one on which a COPY was given up is of no use any more.
    let mut connection = pool.acquire().await.map_err(Failure::postgres(DOING))?.detach();
    let mut after = filter.from_position.unwrap_or_default().saturating_sub(1);
    while after < to {
        let page_end = to.min(after + PAGE_POSITIONS);
        let statement = filter.statement(&mut connection, columns, after, page_end).await.map_err(Failure::postgres(DOING))?;
        let mut rows = CopyOut::start(&mut connection, &statement).await.map_err(Failure::postgres(DOING))?;
        while let Some(row) = rows.next().await.map_err(Failure::postgres(DOING))? {
            take(decode(row, columns)?).await?;
        }
        after = page_end;
        passed(after);
    }
    // The server notices an unclean end as well.
    let _ = connection.close().await;
    Ok(())
}

/// Hands the position and the leaf of every event up to `to` to `take`.
pub(in crate::audit) async fn read_leaves(
    pool: &PgPool,
    to: u64,
    take: impl AsyncFnMut(TrailRow) -> Result<(), Failure>,
    passed: impl Fn(u64),
) -> Result<(), Failure> {
    read(pool, &Filter::default(), Columns::Leaves, to, take, passed).await
}

/// All columns of the events after `after`, up to `to`.
pub(in crate::audit) async fn page(connection: &mut PgConnection, after: u64, to: u64) -> Result<Vec<TrailRow>, Failure> {
    let statement =
        Filter::default().statement(&mut *connection, Columns::All, after, to).await.map_err(Failure::postgres(DOING))?;
    let mut copied = CopyOut::start(connection, &statement).await.map_err(Failure::postgres(DOING))?;
    let mut rows = Vec::new();
    while let Some(row) = copied.next().await.map_err(Failure::postgres(DOING))? {
        rows.push(decode(row, Columns::All)?);
    }
    Ok(rows)
}

/// The leaves after `after`, up to `to`.
pub(in crate::audit) async fn leaves(pool: &PgPool, after: u64, to: u64) -> Result<Vec<Hash>, Failure> {
    let leaves: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT leaf_hash FROM contrail.audit WHERE position > $1 AND position <= $2 ORDER BY position")
            .bind(crate::read_models::signed(after))
            .bind(crate::read_models::signed(to))
            .fetch_all(pool)
            .await
            .map_err(Failure::postgres(DOING))?;
    leaves.iter().zip(after + 1..).map(|(leaf, position)| hash(position, leaf)).collect()
}

/// The hash that a row holds.
pub(in crate::audit) fn hash(position: u64, leaf: &[u8]) -> Result<Hash, Failure> {
    leaf.try_into().map_err(|_| Failure::Integrity(format!("position {position} was altered: its leaf hash is none")))
}

fn decode(mut row: CopiedRow, columns: Columns) -> Result<TrailRow, Failure> {
    let position = row.bigint().map_err(Failure::postgres(DOING))?.unsigned_abs();
    // The row came whole, so that what cannot be read is its own.
    rest_of(row, position, columns).map_err(|error| Failure::Integrity(format!("position {position} was altered: {error}")))
}

/// The row of which the position is read.
fn rest_of(mut row: CopiedRow, position: u64, columns: Columns) -> Result<TrailRow, sqlx::Error> {
    let leaf_hash = row.bytes()?;
    let bytes = if columns == Columns::Leaves { Bytes::new() } else { row.bytes()? };
    if columns != Columns::All {
        return Ok(TrailRow { position, leaf_hash, bytes, attributes: None });
    }
    let attributes = Attributes {
        event_id: row.uuid()?,
        event_type: row.text()?,
        aggregate_type: row.text()?,
        aggregate_id: row.text()?,
        version: row.bigint()?,
        time: row.time()?,
        actor: row.optional_text()?,
        correlation_id: row.text()?,
        causation_id: row.optional_text()?,
        trace_id: row.optional_text()?,
    };
    Ok(TrailRow { position, leaf_hash, bytes, attributes: Some(attributes) })
}
