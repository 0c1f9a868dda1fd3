//! One batch: rows and checkpoint in one transaction.

use event_store::LogMessage;
use sqlx::PgPool;

use crate::{
    checkpoints::{self, Standing},
    read_models::{ApplyError, Folded, ReadModel, Tables, Unapplicable},
};

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// As many messages as it says are applied and will never be again.
    Applied(Folded),
    /// Nothing was applied: another instance, a replay, or this one by a commit whose answer was lost, has moved the projection.
    Moved {
        /// Where it is now.
        position: u64,
    },
}

/// Applies `messages`, which follow on `position`, unless the projection is elsewhere by now.
pub(super) async fn apply<M: ReadModel>(
    model: &mut M,
    pool: &PgPool,
    position: u64,
    messages: &[LogMessage],
    head: u64,
) -> Result<Outcome, ApplyError> {
    let tables = Tables::live();
    let mut transaction = pool.begin().await?;
    // First of all the row's lock: a replay that is swapping the tables holds it.
    let (checkpoint, skips) = checkpoints::lock(&mut transaction, M::NAME).await?;
    if checkpoint.position != position {
        transaction.rollback().await?;
        return Ok(Outcome::Moved { position: checkpoint.position });
    }
    model.resume(&checkpoint)?;
    let folded = model.fold_but(&mut transaction, &tables, messages, &skips).await?;
    model.write(&mut transaction, &tables).await?;
    model.seal(&mut transaction, false).await?;
    let standing = Standing { checkpoint: &model.checkpoint(), head, halt: folded.halt.as_ref() };
    // The row is locked, so this can only be refused by a row that somebody has removed meanwhile.
    if !checkpoints::advance(&mut transaction, M::NAME, position, &standing).await? {
        return Err(sqlx::Error::RowNotFound.into());
    }
    transaction.commit().await?;
    model.committed();
    Ok(Outcome::Applied(folded))
}

/// Writes down that the projection stands at `position` and cannot go past `halt`.
pub(super) async fn halt<M: ReadModel>(pool: &PgPool, position: u64, halt: Unapplicable, head: u64) -> Result<Outcome, ApplyError> {
    let mut transaction = pool.begin().await?;
    let (checkpoint, _) = checkpoints::lock(&mut transaction, M::NAME).await?;
    let standing = Standing { checkpoint: &checkpoint, head, halt: Some(&halt) };
    if checkpoint.position != position || !checkpoints::advance(&mut transaction, M::NAME, position, &standing).await? {
        transaction.rollback().await?;
        return Ok(Outcome::Moved { position: checkpoint.position });
    }
    transaction.commit().await?;
    Ok(Outcome::Applied(Folded { messages: 0, halt: Some(halt) }))
}

/// True if Postgres refused a value or a row (SQLSTATE classes 22 and 23) or finds it too large (54), so that the same batch would be refused again.
pub(super) fn is_refused(error: &ApplyError) -> bool {
    let ApplyError::Postgres(sqlx::Error::Database(error)) = error else { return false };
    error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}

/// True if Postgres did not take it for a reason that may pass.
pub(super) fn is_away(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Postgres(_)) && !is_refused(error)
}
