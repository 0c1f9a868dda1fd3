//! How far the read models are, known without asking the database for each query.
//!
//! [`Positions`] is what queries wait on; `follow` keeps it up to date from Postgres.

mod follow;

use std::sync::Arc;
use std::time::Duration;

use read_store::projections::ProjectionName;
use tokio::sync::watch;

pub use follow::follow;

/// The read model did not get where the caller wants it in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the projection {projection} is at position {position} and did not reach {min_position} within {} ms", waited.as_millis())]
pub struct StaleRead {
    /// Which read model.
    pub projection: ProjectionName,
    /// Where it is.
    pub position: u64,
    /// Where it should be.
    pub min_position: u64,
    /// How long it was waited for.
    pub waited: Duration,
}

/// The position of each read model. Clones share one state.
#[derive(Clone, Debug)]
pub struct Positions {
    // In the order of ProjectionName::ALL; `None` until anything was heard of it.
    watched: Arc<[watch::Sender<Option<u64>>; ProjectionName::ALL.len()]>,
}

impl Default for Positions {
    fn default() -> Self {
        Self { watched: Arc::new(ProjectionName::ALL.map(|_| watch::Sender::new(None))) }
    }
}

impl Positions {
    /// The position as it was last heard of; 0 before anything was.
    pub fn current(&self, projection: ProjectionName) -> u64 {
        self.of(projection).borrow().unwrap_or_default()
    }

    /// The position, once anything was heard of it.
    pub async fn known(&self, projection: ProjectionName) -> u64 {
        let mut watched = self.of(projection).subscribe();
        // The sender lives as long as self.
        watched.wait_for(Option::is_some).await.ok().and_then(|known| *known).unwrap_or_default()
    }

    /// Completes when the read model has `min_position`, so that a statement that begins afterwards sees everything up to there;
    /// or fails after `wait`. Costs no SQL however many wait.
    pub async fn reach(&self, projection: ProjectionName, min_position: u64, wait: Duration) -> Result<(), StaleRead> {
        let mut position = self.of(projection).subscribe();
        let reached = position.wait_for(|position| position.unwrap_or_default() >= min_position);
        match tokio::time::timeout(wait, reached).await {
            Ok(Ok(_)) => Ok(()),
            // The sender lives as long as self, so an error can only be the timeout.
            Ok(Err(_)) | Err(_) => Err(StaleRead { projection, position: self.current(projection), min_position, waited: wait }),
        }
    }

    /// Completes with the position once it is beyond `position`, at which the caller is.
    pub async fn beyond(&self, projection: ProjectionName, position: i64) -> i64 {
        let bigint = |now: Option<u64>| i64::try_from(now.unwrap_or_default()).unwrap_or(i64::MAX);
        let mut watched = self.of(projection).subscribe();
        // The sender lives as long as self.
        let now = watched.wait_for(|now| bigint(*now) > position).await.map_or(None, |now| *now);
        bigint(now)
    }

    /// What the table itself says: replaces what was known, even by less, for instance after a restore.
    pub fn set(&self, projection: ProjectionName, position: u64) {
        self.of(projection).send_if_modified(|known| known.replace(position) != Some(position));
    }

    /// What a notification says. Notifications may be older than what is known already, so they only ever raise it. `false` if this one says less:
    /// it is such a one, or the read model was replaced by an older one.
    pub fn raise(&self, projection: ProjectionName, position: u64) -> bool {
        let mut says_less = false;
        self.of(projection).send_if_modified(|known| {
            let is_news = *known < Some(position);
            says_less = *known > Some(position);
            *known = Some(position).max(*known);
            is_news
        });
        !says_less
    }

    fn of(&self, projection: ProjectionName) -> &watch::Sender<Option<u64>> {
        &self.watched[projection as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_waiter_wakes_when_its_position_is_reached_and_not_before() {
        let positions = Positions::default();
        let waiter = tokio::spawn({
            let positions = positions.clone();
            async move { positions.reach(ProjectionName::Orders, 7, LONG).await }
        });
        positions.raise(ProjectionName::Inventory, 9);
        positions.raise(ProjectionName::Orders, 6);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        positions.raise(ProjectionName::Orders, 8);
        waiter.await.expect("no panic").expect("reached");
    }

    #[tokio::test]
    async fn a_position_that_is_not_reached_says_where_the_projection_is() {
        let positions = Positions::default();
        assert!(positions.raise(ProjectionName::Inventory, 4));
        assert!(positions.raise(ProjectionName::Inventory, 4));
        assert!(!positions.raise(ProjectionName::Inventory, 3));
        let stale = positions.reach(ProjectionName::Inventory, 5, Duration::from_millis(1)).await.expect_err("not reached");
        assert_eq!(stale.to_string(), "the projection inventory is at position 4 and did not reach 5 within 1 ms");
    }

    #[tokio::test]
    async fn what_nothing_was_heard_of_is_not_taken_for_the_beginning() {
        let positions = Positions::default();
        let known = tokio::time::timeout(Duration::from_millis(1), positions.known(ProjectionName::Audit)).await;
        assert!(known.is_err(), "{known:?}");
        positions.set(ProjectionName::Audit, 0);
        assert_eq!(positions.known(ProjectionName::Audit).await, 0);
    }

    #[tokio::test]
    async fn what_is_reached_already_is_not_waited_for() {
        let positions = Positions::default();
        positions.set(ProjectionName::Orders, 5);
        positions.reach(ProjectionName::Orders, 5, Duration::ZERO).await.expect("reached");
        positions.set(ProjectionName::Orders, 2);
        assert_eq!(positions.current(ProjectionName::Orders), 2);
    }
}
