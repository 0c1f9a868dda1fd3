//! Folding the log into tables that nobody reads yet.

use std::collections::BTreeSet;

use sqlx::{Connection, PgConnection};

use super::beside::Beside;
use crate::{
    failure::Failure,
    feed::Feed,
    progress::Progress,
    read_models::{ApplyError, Checkpoint, ReadModel},
    skips,
};

/// Most events folded at a time.
pub(super) const BULK_EVENTS_MAX: usize = 5_000;
/// How many changed rows are gathered in memory before they are written.
const WRITE_ROWS_MIN: usize = 10_000;
/// After how many events the state is written down at the latest, for an interrupted replay to go on from.
const SAVE_EVENTS_MAX: u64 = 100_000;

/// A read model on its way through the log.
#[derive(Debug)]
pub(super) struct Build<'a, M> {
    model: M,
    beside: &'a Beside,
    feed: Feed,
    progress: Progress,
    /// Events that were skipped, and are again.
    skips: BTreeSet<u64>,
    /// What is committed in the tables.
    saved: Checkpoint,
}

impl<'a, M: ReadModel> Build<'a, M> {
    /// Goes on from `checkpoint`, where the tables are.
    pub(super) fn start(
        mut model: M,
        beside: &'a Beside,
        feed: Feed,
        progress: Progress,
        skips: BTreeSet<u64>,
        checkpoint: &Checkpoint,
    ) -> Result<Self, Failure> {
        model.resume(checkpoint).map_err(failed::<M>)?;
        progress.begin_at(checkpoint.position);
        Ok(Self { model, beside, feed, progress, skips, saved: checkpoint.clone() })
    }

    /// The last event that is folded in.
    pub(super) fn position(&self) -> u64 {
        self.model.checkpoint().position
    }

    /// Where the read model is, with what belongs to that.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.model.checkpoint()
    }

    /// Whether it has gone past the same events as whoever goes past `skips`.
    pub(super) fn has_skipped(&self, skips: &BTreeSet<u64>) -> bool {
        let position = self.position();
        skips::up_to(position, &self.skips).eq(skips::up_to(position, skips))
    }

    /// The tables that it is built in.
    pub(super) fn beside(&self) -> &Beside {
        self.beside
    }

    /// Brings the tables to `target`, if they are not there yet, saving now and then and at the end.
    pub(super) async fn advance(&mut self, connection: &mut PgConnection, target: u64) -> Result<(), Failure> {
        self.progress.extend_to(target);
        while self.position() < target {
            self.fold(connection, target).await?;
            let is_done = self.position() >= target;
            if is_done || self.model.unwritten() >= WRITE_ROWS_MIN || self.position() - self.saved.position >= SAVE_EVENTS_MAX {
                self.save(connection).await?;
            }
        }
        Ok(())
    }

    /// As [`Build::advance`], within a transaction of the caller's. If that is rolled back, [`Build::roll_back`] must be called.
    pub(super) async fn advance_within(&mut self, transaction: &mut PgConnection, target: u64) -> Result<(), Failure> {
        while self.position() < target {
            self.fold(transaction, target).await?;
        }
        self.model.write(transaction, self.beside.tables()).await.map_err(failed::<M>)
    }

    /// Forgets what was not committed.
    pub(super) fn roll_back(&mut self) -> Result<(), Failure> {
        self.model.resume(&self.saved).map_err(failed::<M>)
    }

    async fn fold(&mut self, connection: &mut PgConnection, target: u64) -> Result<(), Failure> {
        let position = self.position();
        let missing = usize::try_from(target - position).unwrap_or(usize::MAX);
        self.feed.wait(position).await.map_err(|gap| Failure::Integrity(gap.reason))?;
        let messages = self.feed.at_hand(position, missing.min(BULK_EVENTS_MAX));
        let folded = self.model.fold_but(connection, self.beside.tables(), messages, &self.skips).await.map_err(failed::<M>)?;
        if let Some(halt) = folded.halt {
            return Err(Failure::Other { doing: format!("rebuild {}", M::NAME), cause: halt.to_string().into() });
        }
        self.progress.at(self.position());
        Ok(())
    }

    async fn save(&mut self, connection: &mut PgConnection) -> Result<(), Failure> {
        let doing = "write what was rebuilt";
        let mut transaction = connection.begin().await.map_err(Failure::postgres(doing))?;
        self.model.write(&mut transaction, self.beside.tables()).await.map_err(failed::<M>)?;
        let checkpoint = self.model.checkpoint();
        self.beside.save(&mut transaction, &checkpoint).await.map_err(Failure::postgres(doing))?;
        transaction.commit().await.map_err(Failure::postgres(doing))?;
        self.saved = checkpoint;
        Ok(())
    }
}

fn failed<M: ReadModel>(error: ApplyError) -> Failure {
    match error {
        ApplyError::Postgres(error) => Failure::postgres("rebuild the read model")(error),
        ApplyError::Unusable(reason) => Failure::Other { doing: format!("rebuild {}", M::NAME), cause: reason.into() },
        ApplyError::Contradiction(reason) => Failure::Integrity(reason),
    }
}
