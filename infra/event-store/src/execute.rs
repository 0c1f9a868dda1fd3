//! Load, decide, append; and again, if somebody else was faster.

use std::time::Duration;

use domain::SnapshotState;

use crate::{
    AppendError, EventContext, Expected, JetStreamEventStore, LoadError, Loaded, ReadError, Transaction, load::STALE_PAUSE, wire,
};

/// How often a decision is taken again because the aggregate moved meanwhile.
const ATTEMPTS_MAX: u32 = 12;
/// Longest pause before the first of those attempts; doubles up to [`RETRY_PAUSE_MAX`]. The pause is jittered.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// Longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);

/// An aggregate after a decision.
#[derive(Clone, Debug)]
pub struct Executed<A> {
    /// Its state, with the new events folded in.
    pub aggregate: A,
    /// Its version.
    pub version: u64,
    /// The position of its last event.
    pub position: u64,
    /// How many events the decision appended; 0 if there was nothing to do.
    pub appended: usize,
}

impl<A> Executed<A> {
    /// Where the aggregate ended then: the condition under which more may be appended.
    pub fn expected(&self) -> Expected {
        Expected { version: self.version, position: self.position }
    }
}

/// Why a decision was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<E> {
    /// The aggregate refused.
    #[error("the command was rejected")]
    Rejected(E),
    /// Others were faster every time; nothing was appended.
    #[error("the aggregate kept changing: gave up after {ATTEMPTS_MAX} attempts")]
    Conflict,
    /// The aggregate could not be loaded; nothing was appended.
    #[error("load the aggregate")]
    Load(#[from] LoadError),
    /// The events could not be appended, or may have been; see [`AppendError`].
    #[error("append the decision")]
    Append(#[source] AppendError),
}

impl JetStreamEventStore {
    /// Loads aggregate `id`, lets `decide` decide on it, and appends what it decided.
    ///
    /// When the aggregate moved meanwhile, loads and decides again, up to a bound, with jittered pauses; `decide` must
    /// therefore be free of side effects. A decision that appends nothing is taken on a state that the leader confirms.
    pub async fn execute<A, E>(
        &self,
        id: &str,
        context: &EventContext,
        decide: impl FnMut(&Loaded<A>) -> Result<Vec<A::Event>, E>,
    ) -> Result<Executed<A>, ExecuteError<E>>
    where
        A: SnapshotState,
    {
        self.execute_from(None, id, context, decide).await
    }

    /// As [`execute`](Self::execute), for an aggregate that most likely has no event yet: decides on that at first, without
    /// asking the log. Should it have any, optimistic concurrency shows it.
    pub async fn execute_new<A, E>(
        &self,
        id: &str,
        context: &EventContext,
        decide: impl FnMut(&Loaded<A>) -> Result<Vec<A::Event>, E>,
    ) -> Result<Executed<A>, ExecuteError<E>>
    where
        A: SnapshotState,
    {
        let is_known = self.recall::<A>(id).is_some();
        self.execute_from((!is_known).then(Loaded::default), id, context, decide).await
    }

    /// Decides on `assumed` first, if there is such, and then on what the log has.
    async fn execute_from<A, E>(
        &self,
        mut assumed: Option<Loaded<A>>,
        id: &str,
        context: &EventContext,
        mut decide: impl FnMut(&Loaded<A>) -> Result<Vec<A::Event>, E>,
    ) -> Result<Executed<A>, ExecuteError<E>>
    where
        A: SnapshotState,
    {
        let subject = wire::subject(A::TYPE, id);
        let mut pause = RETRY_PAUSE;
        // Where the leader said that the aggregate ends, when less was loaded; and whether that was so at the last attempt.
        let (mut leaders_end, mut was_behind) = (None, false);
        for _ in 0..ATTEMPTS_MAX {
            let (loaded, is_assumed) = match assumed.take() {
                Some(assumed) => (assumed, true),
                None => (self.load::<A>(id).await?, false),
            };
            let decision = decide(&loaded);
            let events = match decision {
                Ok(events) if !events.is_empty() => events,
                // What is not appended, the log cannot refuse: it has to be asked.
                _ if is_assumed => continue,
                without_events => {
                    // A state that has all that the leader had since this was asked for is no older than the question.
                    let is_recent = leaders_end.is_some_and(|end| loaded.position >= end);
                    if self.connection.may_be_stale() && !is_recent {
                        let end = self.connection.end_at_leader(&subject).await.map_err(LoadError::from)?;
                        if loaded.position != end {
                            // What is ahead of the leader is none of its log.
                            leaders_end = (loaded.position < end).then_some(end);
                            was_behind = true;
                            tokio::time::sleep(STALE_PAUSE).await;
                            continue;
                        }
                    }
                    without_events.map_err(ExecuteError::Rejected)?;
                    let Loaded { aggregate, version, position } = loaded;
                    return Ok(Executed { aggregate, version, position, appended: 0 });
                }
            };
            let mut transaction = Transaction::new();
            transaction.push::<A>(id, loaded.expected(), &events, context);
            match self.append(transaction).await {
                Ok(appended) => {
                    let mut after = loaded;
                    after.advance(&events, appended.last_position);
                    self.remember(id, &after);
                    let Loaded { aggregate, version, position } = after;
                    return Ok(Executed { aggregate, version, position, appended: events.len() });
                }
                Err(AppendError::Conflict { .. }) => {
                    was_behind = false;
                    tokio::time::sleep(jittered(pause)).await;
                    pause = RETRY_PAUSE_MAX.min(pause * 2);
                }
                Err(error) => return Err(ExecuteError::Append(error)),
            }
        }
        if was_behind {
            // It may have been done before, which those who answer do not know yet.
            let reason = format!("those who answer are behind the leader at {subject}");
            return Err(LoadError::from(ReadError::Unavailable(reason)).into());
        }
        Err(ExecuteError::Conflict)
    }
}

/// Between half of `pause` and all of it, so that rivals do not meet again at once.
#[expect(clippy::disallowed_methods, reason = "jitter, on which no decision depends")]
fn jittered(pause: Duration) -> Duration {
    // The low bits of a UUID v7 are random; a dependency for one random byte would be one too many.
    let random = uuid::Uuid::now_v7().as_bytes()[15];
    pause / 2 + pause / 2 * u32::from(random) / 255
}
