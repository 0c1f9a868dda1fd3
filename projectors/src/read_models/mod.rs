//! The read models: how events become rows.
//!
//! A [`ReadModel`] folds messages in memory and writes the rows that changed. Who calls it owns the transaction and the checkpoint:
//! `live` for the tables that queries read, `replay` for tables that are built beside them. So both apply
//! events by the same code.

mod tables;
mod unapplicable;

mod generations;
mod view_table;

mod inventory;
mod orders;

mod order_figures;

mod audit;

use std::collections::BTreeSet;

use event_store::LogMessage;
use read_store::projections::ProjectionName;
use sqlx::PgConnection;

pub(crate) use audit::{AuditTrail, attributes};
pub(crate) use order_figures::OrderFigures;
pub use tables::Tables;
pub use unapplicable::Unapplicable;
pub(crate) use unapplicable::chain;
pub(crate) use view_table::ViewTable;

/// Orders as queries see them.
pub(crate) type Orders = ViewTable<read_store::views::OrderView>;
/// Stock as queries see it.
pub(crate) type Inventory = ViewTable<read_store::views::StockView>;

/// What stands in a projection's row beside its position, for the read model's own use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last event that is applied; 0 before the first.
    pub position: u64,
    /// The audit tree up to there; other read models have none.
    pub frontier: Option<Vec<u8>>,
    /// Which table it is about: Postgres' number of the live one, which a replay replaces by another; 0 for any other table.
    pub table: u32,
}

/// How many of the messages were folded in.
#[derive(Debug)]
pub(crate) struct Folded {
    /// The first so many.
    pub(crate) messages: usize,
    /// What is wrong with the one after them, if they are not all.
    pub(crate) halt: Option<Unapplicable>,
}

/// Why messages could not be folded in, or rows not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Postgres failed or refused.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// What the read model has stored cannot be gone on from; a replay helps.
    #[error("{0}")]
    Unusable(String),
    /// The log is not the one of which this was recorded.
    #[error("{0}")]
    Contradiction(String),
}

/// One read model.
pub(crate) trait ReadModel: Send + 'static {
    /// Its name.
    const NAME: ProjectionName;

    /// Goes on from `checkpoint`, whatever was folded before. What is in memory of that very table at that very position may be kept.
    fn resume(&mut self, checkpoint: &Checkpoint) -> Result<(), ApplyError>;

    /// Folds `messages` in, which follow on what was folded before without gap; loads the rows that they touch, writes none.
    fn fold(
        &mut self,
        connection: &mut PgConnection,
        tables: &Tables,
        messages: &[LogMessage],
    ) -> impl Future<Output = Result<Folded, ApplyError>> + Send;

    /// Goes past `message`, which follows on what was folded before, without applying it. An aggregate that it belongs to, as far as that
    /// can be read, counts it all the same, so that what comes next of it follows on it.
    fn skip(
        &mut self,
        connection: &mut PgConnection,
        tables: &Tables,
        message: &LogMessage,
    ) -> impl Future<Output = Result<(), ApplyError>> + Send;

    /// Folds `messages` in, as [`fold`](Self::fold) does, but for those at the positions in `skips`.
    fn fold_but(
        &mut self,
        connection: &mut PgConnection,
        tables: &Tables,
        messages: &[LogMessage],
        skips: &BTreeSet<u64>,
    ) -> impl Future<Output = Result<Folded, ApplyError>> + Send {
        async move {
            let mut done = 0;
            while done < messages.len() {
                let rest = &messages[done..];
                let until = rest.iter().position(|message| skips.contains(&message.position)).unwrap_or(rest.len());
                let folded = self.fold(&mut *connection, tables, &rest[..until]).await?;
                done += folded.messages;
                if folded.halt.is_some() {
                    return Ok(Folded { messages: done, ..folded });
                }
                if let Some(message) = rest.get(until) {
                    self.skip(&mut *connection, tables, message).await?;
                    done += 1;
                }
            }
            Ok(Folded { messages: done, halt: None })
        }
    }

    /// Writes every row that was changed by folding.
    fn write(&mut self, connection: &mut PgConnection, tables: &Tables) -> impl Future<Output = Result<(), ApplyError>> + Send;

    /// Where it is. True of the tables once what was written is committed.
    fn checkpoint(&self) -> Checkpoint;

    /// Called for the live tables once what was written is committed.
    fn committed(&mut self) {}

    /// How many rows wait to be written.
    fn unwritten(&self) -> usize;

    /// Called for the live tables after a batch is written, in its transaction, and about every second without one.
    fn seal(&mut self, connection: &mut PgConnection, is_idle: bool) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        let _ = (connection, is_idle);
        async { Ok(()) }
    }
}

/// Why serializing a row's payload cannot fail.
const SERIALIZES: &str = "a view has string keys and times within RFC 3339's range, so it always serializes";

/// Postgres has no unsigned integers; versions and positions count events, of which there are never 2⁶³.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
