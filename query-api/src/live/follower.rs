//! Everything that happens to one order, from its first event on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use domain::OrderId;
use read_store::projections::ProjectionName;
use tokio::time::sleep;

use super::{Listening, Live};
use crate::database::Database;
use crate::error::QueryError;
use crate::positions::Positions;
use crate::reads::{self, AuditRow, EventsOf, Skipped};

/// Pause before what could not be read is read again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pause before what is about to be handed out is looked for again.
const SOON: Duration = Duration::from_millis(20);

/// What an order is followed on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The read models.
    pub database: Database,
    /// How far they are.
    pub positions: Positions,
    /// Who hands out what comes.
    pub live: Live,
    /// How long the read model of orders may be behind the trail.
    pub wait: Duration,
}

/// Which events of an order are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// At least its own and its payment's. Those of its notifications may be among them. Needs the audit trail alone.
    History,
    /// Those of its notifications as well, every one. Needs the read model of orders, too.
    Everything,
}

/// Follows one order; see [`super`].
#[derive(Debug)]
pub struct Follower {
    ground: Ground,
    order_id: OrderId,
    followed: Followed,
    listening: Option<Listening>,
    /// Read and not yet handed out.
    read: VecDeque<Arc<AuditRow>>,
    /// Of the last event that was handed out or read.
    position: i64,
}

impl Follower {
    /// Of an order that need not be placed yet.
    pub fn new(ground: Ground, order_id: OrderId, followed: Followed) -> Self {
        Self { ground, order_id, followed, listening: None, read: VecDeque::new(), position: 0 }
    }

    /// Everything up to now, from the first event on. Waits for as long as the read models cannot be reached.
    pub async fn so_far(&mut self) -> Result<Vec<Arc<AuditRow>>, QueryError> {
        while !self.caught_up().await? {}
        Ok(self.read.drain(..).collect())
    }

    /// The next event: what happened next, or what will. Waits for as long as the read models cannot be reached.
    pub async fn next(&mut self) -> Result<Arc<AuditRow>, QueryError> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Ok(event);
            }
            let Some(listening) = &mut self.listening else {
                self.caught_up().await?;
                continue;
            };
            match listening.events.recv().await {
                Some(event) if event.position > self.position => {
                    self.position = event.position;
                    return Ok(event);
                }
                Some(_) => {}
                // More came than was taken: the rest is in the table.
                None => self.listening = None,
            }
        }
    }

    /// Tries to catch up. `false`, after a pause, if the read models cannot be reached now.
    async fn caught_up(&mut self) -> Result<bool, QueryError> {
        match self.catch_up().await {
            Err(error) if error.is_for_now() => {
                tracing::debug!("a subscription waits: {error}");
                sleep(RETRY_PAUSE).await;
                Ok(false)
            }
            outcome => outcome.map(|()| true),
        }
    }

    /// Listens, and reads what came before.
    async fn catch_up(&mut self) -> Result<(), QueryError> {
        let Ground { database, positions, live, wait } = &self.ground;
        let order_id = self.order_id.to_string();
        loop {
            let known = positions.known(ProjectionName::Audit).await;
            let listening = live.listen(self.order_id, i64::try_from(known).unwrap_or(i64::MAX))?;
            let up_to = listening.after;
            // The others may have been told more than there is now: the trail is being rebuilt.
            positions.reach(ProjectionName::Audit, position(up_to), *wait).await?;
            let (events, skipped) = match self.followed {
                Followed::History => (EventsOf::history(order_id.clone()), Skipped::Included),
                Followed::Everything => {
                    // The order's row says which notifications are the order's, so it must know of all that the trail has.
                    positions.reach(ProjectionName::Orders, position(up_to), *wait).await?;
                    let (events, shown) = EventsOf::order(database, &order_id).await?;
                    if shown > position(up_to) {
                        // Queries show more already, and nobody is to be told less after that.
                        drop(listening);
                        positions.reach(ProjectionName::Audit, shown, *wait).await?;
                        sleep(SOON).await;
                        continue;
                    }
                    (events, Skipped::LeftOut)
                }
            };
            let rows = reads::events_of(database, &events, skipped, self.position, up_to).await?;
            self.read.extend(rows.into_iter().map(Arc::new));
            self.position = self.position.max(up_to);
            self.listening = Some(listening);
            return Ok(());
        }
    }
}

fn position(bigint: i64) -> u64 {
    u64::try_from(bigint).unwrap_or_default()
}
