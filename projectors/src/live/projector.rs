//! One projection's loop.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use domain::envelope::StoredEventRef;
use event_store::LogTail;
use read_store::projections::{self, Projection, ProjectionState};
use telemetry::{drain::Drain, health::Component};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::{
    BATCH_EVENTS_MAX, Dependencies, REST_MAX, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, TICK_INTERVAL,
    batch::{self, Outcome},
    traced,
};
use crate::{
    checkpoints,
    feed::{Feed, Source},
    metrics::ProjectionMetrics,
    read_models::{Folded, ReadModel, Unapplicable, chain},
};

/// For how many ticks in a row the log may seem to end before the projection until that is believed: a replicated log's new leader
/// may be a moment behind.
const SHORT_LOG_TICKS_MAX: u32 = 5;

/// Follows the log with `model` until the drain starts.
pub(super) fn run<M: ReadModel>(
    model: M,
    dependencies: Dependencies,
    tail: LogTail,
    metrics: ProjectionMetrics,
) -> impl Future<Output = ()> + Send + use<M> {
    let mut projector = Projector {
        model,
        component: dependencies.health.component(M::NAME.as_str()),
        metrics,
        feed: Feed::new(Source::Tail(tail), BATCH_EVENTS_MAX),
        dependencies,
        position: 0,
        head: 0,
        batch_events_max: BATCH_EVENTS_MAX,
        short_log_ticks: 0,
        rest: Duration::ZERO,
    };
    async move {
        // The drain is the one way out.
        let Err(Draining) = projector.follow().await;
        let position = projector.position;
        info!(projection = %M::NAME, position, "{} stopped at position {position}", M::NAME);
    }
}

struct Projector<M> {
    model: M,
    dependencies: Dependencies,
    component: Component,
    metrics: ProjectionMetrics,
    feed: Feed,
    /// Where the projection is, as far as this process knows.
    position: u64,
    /// The last event of the log, as far as this process knows.
    head: u64,
    /// How many events the next transaction may apply: fewer after Postgres refused a batch, until the event at fault is found.
    batch_events_max: usize,
    /// For how many ticks in a row the log has seemed to end before the projection.
    short_log_ticks: u32,
    /// How long to let messages gather before the next transaction.
    rest: Duration,
}

/// The drain has started.
struct Draining;

impl<M: ReadModel> Projector<M> {
    async fn follow(&mut self) -> Result<Infallible, Draining> {
        let standing = self.find_standing().await?;
        self.position = standing.position;
        info!(projection = %M::NAME, position = self.position, "{} goes on from position {}", M::NAME, self.position);
        match standing.halt {
            // It is tried again now; ready only once that has worked.
            Some(halt) => self.component.not_ready(format!("trying position {} again: {}", halt.position, halt.reason)),
            None => self.report(),
        }
        loop {
            let gap = self.wait().await?.err();
            if let Some(halt) = self.apply(gap).await? {
                self.stand_still(&halt).await?;
            }
        }
    }

    /// Waits for messages, and meanwhile looks after the checkpoint row once per tick.
    async fn wait(&mut self) -> Result<Result<(), Unapplicable>, Draining> {
        // What comes in meanwhile is applied together: the busier the projection, the fewer events cost a transaction, and the more
        // often several events of one row cost one write. An event that comes after a quiet time is applied at once.
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_zero() && self.feed.at_hand(self.position, self.batch_events_max).len() < self.batch_events_max {
            tokio::select! {
                biased;
                () = self.dependencies.drain.started() => return Err(Draining),
                () = tokio::time::sleep(rest) => {}
            }
        }
        let mut ticks = ticks();
        loop {
            tokio::select! {
                biased;
                () = self.dependencies.drain.started() => return Err(Draining),
                waited = self.feed.wait(self.position) => return Ok(waited),
                _ = ticks.tick() => {
                    // It may have been put back by a replay, while no event comes that would show it.
                    self.position = self.look_after().await.unwrap_or(self.position);
                    self.metrics.stands(self.position, self.head, false);
                    if self.short_log_ticks >= SHORT_LOG_TICKS_MAX {
                        return Ok(Err(checkpoints::short_log(self.head, self.position)));
                    }
                }
            }
        }
    }

    /// Applies what is at hand, or writes down the halt; tries for ever. Returns the event that the projection stands before.
    async fn apply(&mut self, mut halt: Option<Unapplicable>) -> Result<Option<Unapplicable>, Draining> {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let started = Instant::now();
            self.tell_lag_age();
            let messages = self.feed.at_hand(self.position, self.batch_events_max);
            if let Some(last) = messages.last() {
                self.head = self.head.max(last.position + last.pending);
            }
            let pool = &self.dependencies.pool;
            let outcome = match halt.clone() {
                Some(halt) => batch::halt::<M>(pool, self.position, halt, self.head).await,
                None => batch::apply(&mut self.model, pool, self.position, messages, self.head).await,
            };
            match outcome {
                Ok(Outcome::Applied(folded)) => {
                    traced::applied(M::NAME.as_str(), &messages[..folded.messages], started.elapsed());
                    return Ok(self.applied(folded, started.elapsed()));
                }
                Ok(Outcome::Moved { position }) => {
                    info!(projection = %M::NAME, position, "{} was moved to position {position} by another", M::NAME);
                    self.position = position;
                    self.report();
                    return Ok(None);
                }
                // Nothing but the halt was written, so that nothing smaller can be tried, nor anything else be said of it.
                Err(error) if halt.is_some() || batch::is_away(&error) => {
                    self.component.not_ready(chain(&error));
                    rest(pause, &self.dependencies.drain).await?;
                    pause = RETRY_PAUSE_MAX.min(pause * 2);
                }
                Err(error) if batch::is_refused(&error) && messages.len() > 1 => {
                    self.batch_events_max = messages.len() / 2;
                }
                Err(error) => {
                    let first = messages.first();
                    let event = first.and_then(|message| StoredEventRef::from_json(&message.bytes).ok());
                    halt = Some(Unapplicable::new(self.position + 1, event.as_ref(), chain(&error)));
                }
            }
        }
    }

    fn applied(&mut self, folded: Folded, duration: Duration) -> Option<Unapplicable> {
        let Folded { messages, halt } = folded;
        self.position += messages as u64;
        let is_full = messages >= self.batch_events_max;
        // As long as the work took: half of a busy projection's time, unless it falls behind.
        self.rest = if is_full { Duration::ZERO } else { duration.min(REST_MAX) };
        self.batch_events_max = (self.batch_events_max * 2).min(BATCH_EVENTS_MAX);
        self.metrics.events_applied.inc_by(messages as u64);
        // What is told next is about what comes after these.
        self.metrics.lag_age.set(None);
        self.metrics.batch_events.observe(u32::try_from(messages).map_or(f64::INFINITY, f64::from));
        self.metrics.batch_seconds.observe(duration.as_secs_f64());
        if halt.is_none() {
            self.report();
        }
        halt
    }

    /// Stays before the event that cannot be applied until somebody moves the projection: a replay, or an instance of another build.
    async fn stand_still(&mut self, halt: &Unapplicable) -> Result<(), Draining> {
        let (position, reason) = (halt.position, halt.reason.as_str());
        error!(projection = %M::NAME, position, event_type = halt.event_type, reason, "{} halts: {halt}", M::NAME);
        self.component.not_ready(format!("halted: {halt}"));
        self.tell_lag_age();
        let mut ticks = ticks();
        loop {
            self.metrics.stands(self.position, self.head, true);
            tokio::select! {
                biased;
                () = self.dependencies.drain.started() => return Err(Draining),
                _ = ticks.tick() => drop(self.look_after().await),
            }
            match projections::one(&self.dependencies.pool, M::NAME).await {
                Ok(Some(now)) if now.position != self.position || now.state == ProjectionState::Running => {
                    info!(projection = %M::NAME, position = now.position, "{} goes on from position {}", M::NAME, now.position);
                    self.position = now.position;
                    self.short_log_ticks = 0;
                    self.report();
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => warn!(error = &error as &dyn std::error::Error, "cannot read the checkpoint of {}", M::NAME),
            }
        }
    }

    /// Keeps the head true while no events come, and lets the read model finish what it leaves for idle times.
    /// Returns where the projection is, if that can be told.
    async fn look_after(&mut self) -> Option<u64> {
        let Dependencies { store, pool, .. } = &self.dependencies;
        // NATS being away is reported by the component of that name.
        if let Ok(head) = store.head().await {
            self.head = head;
            self.short_log_ticks = if head < self.position { self.short_log_ticks + 1 } else { 0 };
        }
        let looked_after = async {
            let mut connection = pool.acquire().await?;
            // What it has in memory may be of a batch that was not committed, or of long ago.
            let checkpoint = checkpoints::peek(&mut *connection, M::NAME).await?;
            // From a checkpoint that cannot be gone on from nothing is applied either, which then says why.
            if self.model.resume(&checkpoint).is_ok() {
                self.model.seal(&mut connection, true).await?;
            }
            checkpoints::set_head(&mut *connection, M::NAME, self.head).await
        };
        match looked_after.await {
            Ok(position) => Some(position),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot look after the checkpoint of {}", M::NAME);
                None
            }
        }
    }

    fn report(&mut self) {
        self.component.ready_with(format!("at position {}", self.position));
        self.metrics.stands(self.position, self.head, false);
        self.tell_lag_age();
    }

    /// Tells how old the first event is that is at hand and not applied. One that cannot be read counts from when it was met, and one
    /// that is not at hand from when it was heard of.
    fn tell_lag_age(&mut self) {
        let first = self.feed.at_hand(self.position, 1).first();
        if let Some(event) = first.and_then(|first| StoredEventRef::from_json(&first.bytes).ok()) {
            self.metrics.lag_age.set(Some(event.metadata.time.into()));
        }
    }

    async fn find_standing(&mut self) -> Result<Projection, Draining> {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            match projections::one(&self.dependencies.pool, M::NAME).await {
                Ok(Some(projection)) => return Ok(projection),
                Ok(None) => self.component.not_ready("the projection has no row: run `projectors migrate`"),
                Err(error) => self.component.not_ready(chain(&error)),
            }
            rest(pause, &self.dependencies.drain).await?;
            pause = RETRY_PAUSE_MAX.min(pause * 2);
        }
    }
}

async fn rest(pause: Duration, drain: &Drain) -> Result<(), Draining> {
    tokio::select! {
        () = drain.started() => Err(Draining),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(TICK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    ticks.reset();
    ticks
}
