//! Group commit: transactions that wait at the same time go out together, so that they share what it costs to be on disk.
//!
//! With `sync_interval: always` the server fsyncs once for each plain publish, and a handful of times for a batch of up to
//! 1,000 messages. So what comes while one round is being written goes out together as the next: its batch is open, and the
//! server stages what is in it, until the one before is answered (ADR 0025). A transaction that finds nobody waiting goes
//! out at once, from the task that brought it. How many go together follows from what the server's answers cost
//! ([`costs`]); who may go at the same time, from the aggregates that they touch ([`queue`]): two transactions on one
//! aggregate are never in flight at the same time.
//!
//! Each transaction gets its own outcome ([`outcome`], ADR 0007). One that expects less than is known to be in the log, or
//! that made the server refuse a batch, leaves the others and is looked up by itself.

mod batch;
mod costs;
mod known;
mod member;
mod outcome;
mod queue;
mod stats;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

pub(crate) use stats::AppendFigures;
pub use stats::AppendStats;

use self::{
    member::{Member, Waiting},
    outcome::{is_taken, resolve},
    queue::{Admission, Queue},
};
use crate::{AppendError, Appended, connection::Connection, publish::Found, transaction::PreparedEvent};

/// What may be in the appender, waiting or in flight, in slots. A transaction takes one, and one more for each further
/// [`SLOT_BYTES`] of its payloads: so this many transactions, and no more than 64 MiB.
const SLOTS_MAX: u32 = 4_096;
/// Bytes of payloads that one slot stands for.
const SLOT_BYTES: usize = 16 * 1024;
/// Transactions that may stand at the door for a slot; one more is turned away at once.
const AT_DOOR_MAX: usize = 4_096;
/// How long a transaction waits at the door.
const DOOR_DEADLINE: Duration = Duration::from_secs(2);
/// How long an append goes on looking for its outcome before it gives up as [`AppendError::Unavailable`].
pub(crate) const OUTCOME_DEADLINE: Duration = Duration::from_secs(8);
/// Pause before the first repetition of an attempt whose answer was lost; doubles up to [`REPEAT_PAUSE_MAX`].
const REPEAT_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between repetitions.
const REPEAT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// The appender of one store.
pub(crate) struct Appender {
    connection: Connection,
    slots: Arc<Semaphore>,
    at_door: AtomicUsize,
    queue: Mutex<Queue>,
    figures: AppendFigures,
    /// Wakes an open batch: others came who may join it, or a commit was answered.
    stir: Notify,
    /// Where rounds run, whoever lets them go.
    runtime: Handle,
}

impl Appender {
    /// Must be called on a tokio runtime, which is where rounds will run.
    pub(crate) fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self {
            connection,
            slots: Arc::new(Semaphore::new(SLOTS_MAX as usize)),
            at_door: AtomicUsize::new(0),
            queue: Mutex::new(Queue::new(Instant::now())),
            figures: AppendFigures::new(),
            stir: Notify::new(),
            runtime: Handle::current(),
        })
    }

    pub(crate) fn stats(&self) -> AppendStats {
        let queue = self.queue();
        AppendStats {
            waiting: queue.len() + self.at_door.load(Ordering::Relaxed),
            plains_max: queue.costs.plains_max(),
            next_batch_events_min: queue.costs.next_batch_events_min(),
            ..queue.stats
        }
    }

    pub(crate) fn figures(&self) -> &AppendFigures {
        &self.figures
    }

    /// Appends the events of one transaction.
    pub(crate) async fn append(self: &Arc<Self>, events: Vec<PreparedEvent>) -> Result<Appended, AppendError> {
        let came = Instant::now();
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        let Some(slots) = self.pass_door(bytes).await else {
            self.queue().stats.count(&Err(AppendError::Overloaded), came.elapsed());
            return Err(AppendError::Overloaded);
        };
        self.carry(Member { events, bytes, came, deadline: came + OUTCOME_DEADLINE, unsure: false, _slots: Some(slots) }).await
    }

    async fn pass_door(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(bytes / SLOT_BYTES + 1).unwrap_or(SLOTS_MAX).min(SLOTS_MAX);
        if let Ok(slots) = Arc::clone(&self.slots).try_acquire_many_owned(wanted) {
            return Some(slots);
        }
        let _here = AtDoor::step_up(&self.at_door)?;
        let slots = Arc::clone(&self.slots).acquire_many_owned(wanted);
        tokio::time::timeout(DOOR_DEADLINE, slots).await.ok()?.ok()
    }

    async fn carry(self: &Arc<Self>, mut member: Member) -> Result<Appended, AppendError> {
        let (mut now, deadline) = (member.came, member.deadline);
        loop {
            let admission = {
                let mut queue = self.queue();
                let admission = queue.admit(member, now);
                self.go_on(&mut queue);
                admission
            };
            match admission {
                Admission::Go(member) => return Flight { appender: self, member, has_landed: false }.land().await,
                Admission::Wait(outcome) => return self.wait(outcome, deadline).await,
                Admission::Look(stale) => {
                    if let Some(outcome) = self.look(&stale).await {
                        return outcome;
                    }
                    (member, now) = (stale, Instant::now());
                }
            }
        }
    }

    /// The outcome of a transaction in the queue. It is left alone there when it takes too long: what has not gone out by then
    /// does not go out any more.
    async fn wait(
        &self,
        outcome: oneshot::Receiver<Result<Appended, AppendError>>,
        deadline: Instant,
    ) -> Result<Appended, AppendError> {
        if let Ok(outcome) = tokio::time::timeout_at(deadline, outcome).await {
            // The appender answers everything that it took, so a dropped answer means that the process is ending.
            return outcome.unwrap_or(Err(AppendError::Unavailable));
        }
        self.queue().stats.count(&Err(AppendError::Unavailable), OUTCOME_DEADLINE);
        Err(AppendError::Unavailable)
    }

    /// The outcome of a transaction that seems to be stale, by what the log says; none if it is not stale after all.
    async fn look(&self, member: &Member) -> Option<Result<Appended, AppendError>> {
        let moved = self.queue().moved(member);
        if let Some(moved) = moved
            && is_taken(&self.connection, moved).await
        {
            let outcome = Err(outcome::conflict(moved));
            self.queue().stats.count(&outcome, member.came.elapsed());
            return Some(outcome);
        }
        let found = self.connection.look(&member.events).await;
        let mut queue = self.queue();
        let outcome = match found {
            Ok(Found::Ours { first_position }) => Ok(outcome::beginning_at(&member.events, first_position)),
            Ok(Found::Others { index }) => Err(outcome::conflict(&member.events[index])),
            Ok(Found::Nothing) | Err(_) => {
                for (subject, _) in member.expectations() {
                    queue.known.forget(subject);
                }
                return None;
            }
        };
        queue.stats.count(&outcome, member.came.elapsed());
        Some(outcome)
    }

    /// Somebody has seen that the subject with this hash has an event at `position`: whoever waits and expects less need not go out.
    pub(crate) fn saw(&self, subject: u64, position: u64) {
        self.queue().known.saw(subject, position);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a round if somebody waits who may go.
    fn go_on(self: &Arc<Self>, queue: &mut Queue) {
        if queue.is_to_be_woken() {
            self.stir.notify_one();
        }
        if !queue.gathering && queue.may_take() {
            queue.gathering = true;
            self.runtime.spawn(Arc::clone(self).run_round());
        }
    }

    async fn run_round(self: Arc<Self>) {
        self.gather().await;
        let round = {
            let mut queue = self.queue();
            queue.costs.is_replicated = self.connection.may_be_stale();
            let round = queue.take(Instant::now());
            self.go_on(&mut queue);
            round
        };
        let plains = self.each_alone(round.plains);
        let stale = self.each_looked_up(round.stale);
        futures::future::join3(plains, stale, self.together(round.batch, round.is_open)).await;
    }

    /// Waits until those are here who come back from the last round, but not for long: alone, nobody is waited for.
    async fn gather(&self) {
        let begun = Instant::now();
        let (mut waiting, mut since) = (0, begun);
        loop {
            {
                let queue = self.queue();
                let now = Instant::now();
                if queue.len() != waiting {
                    (waiting, since) = (queue.len(), now);
                }
                let is_late = now.duration_since(since) >= queue.lull() || now.duration_since(begun) >= queue.costs.gather_max(0);
                if queue.is_complete() || is_late || queue.is_sure_to_be_batch(now) {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    async fn each_alone(self: &Arc<Self>, members: Vec<Waiting>) {
        let alone = members.into_iter().map(|Waiting { member, answer }| async {
            let outcome = Flight { appender: self, member, has_landed: false }.land().await;
            // Whoever asked may have gone; the log does not depend on it.
            let _ = answer.send(outcome);
        });
        alone.collect::<FuturesUnordered<_>>().collect::<()>().await;
    }

    async fn each_looked_up(self: &Arc<Self>, members: Vec<Waiting>) {
        let looked_up = members.into_iter().map(|waiting| async {
            if let Some(outcome) = self.look(&waiting.member).await {
                let _ = waiting.answer.send(outcome);
                return;
            }
            let mut queue = self.queue();
            queue.wait(waiting);
            self.go_on(&mut queue);
        });
        looked_up.collect::<FuturesUnordered<_>>().collect::<()>().await;
    }
}

/// A transaction in flight by itself. When it is dropped before it has landed, its aggregates are free for others all the
/// same: optimistic concurrency keeps them right even if what was sent is still on its way.
struct Flight<'a> {
    appender: &'a Arc<Appender>,
    member: Member,
    has_landed: bool,
}

impl Flight<'_> {
    async fn land(mut self) -> Result<Appended, AppendError> {
        let (outcome, answer) = resolve(&self.appender.connection, &mut self.member).await;
        let now = Instant::now();
        if let Some(sent) = answer.sent {
            self.appender.figures.plain_wait.observe(now.duration_since(sent).as_secs_f64());
        }
        let mut queue = self.appender.queue();
        queue.stats.answers_lost += answer.lost;
        if let Some(sent) = answer.sent {
            queue.plain_answered(sent, now);
        }
        queue.settle(&self.member, &outcome, now);
        queue.plain_landed();
        self.appender.go_on(&mut queue);
        drop(queue);
        self.has_landed = true;
        outcome
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.has_landed {
            return;
        }
        let mut queue = self.appender.queue();
        queue.release(&self.member);
        queue.plain_landed();
        self.appender.go_on(&mut queue);
    }
}

/// A place at the door, left when it is dropped.
struct AtDoor<'a>(&'a AtomicUsize);

impl<'a> AtDoor<'a> {
    fn step_up(at_door: &'a AtomicUsize) -> Option<Self> {
        if at_door.fetch_add(1, Ordering::Relaxed) >= AT_DOOR_MAX {
            at_door.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(at_door))
    }
}

impl Drop for AtDoor<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
