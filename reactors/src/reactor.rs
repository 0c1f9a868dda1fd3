//! The loop of a reactor that handles events one by one, many at a time.

use std::{any::Any, error::Error, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use domain::{envelope::StoredEvent, order::Order};
use event_store::{JetStreamEventStore, Sharing, WorkItem, WorkQueueOptions};
use futures::FutureExt;
use telemetry::{drain::Drain, health::Health};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use crate::{
    clock,
    dead_letter::{self, chain},
    metrics::ReactorMetrics,
};

/// After how long without a sign of life an event is handed to another instance.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(6);
/// How often an event that is in hand says so, whether it is worked on or waits for its turn; well within [`ACK_WAIT`].
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Pause before the first retry after a transient failure; doubles up to [`RETRY_PAUSE_MAX`], with jitter.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two tries.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Events fetched at once.
const FETCH_ITEMS_MAX: usize = 64;

/// Why an event could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Another try may succeed: the log or an outside system is away or busy.
    #[error("a dependency is away")]
    Transient {
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
        /// How long the other side asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// No try will ever succeed: the event goes to the dead letters.
    #[error("the event cannot be handled")]
    Permanent(#[source] Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// See [`Failure::Transient`].
    pub fn transient(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Transient { source: Box::new(source), retry_after: None }
    }

    /// See [`Failure::Permanent`].
    pub fn permanent(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Permanent(Box::new(source))
    }
}

/// A fault of this build, brought out by one event.
#[derive(Debug, thiserror::Error)]
#[error("the reactor panicked: {0}")]
struct Panicked(String);

impl From<Box<dyn Any + Send>> for Panicked {
    fn from(panic: Box<dyn Any + Send>) -> Self {
        let message = panic.downcast_ref::<&str>().map(ToString::to_string);
        Self(message.or_else(|| panic.downcast_ref().cloned()).unwrap_or_default())
    }
}

/// Whether an event has only just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It has, and nobody was handed it before: what this process knows of it is most likely all there is. Whatever is appended on
    /// that alone must meet optimistic concurrency.
    Fresh,
    /// It was tried before, or lay in the log for some time: anything may have happened since.
    Stale,
}

/// How old an event may be to count as [`News::Fresh`].
const FRESH_MAX: Duration = Duration::from_secs(5);

impl News {
    fn of(item: &WorkItem, event: &StoredEvent, attempt: u64) -> Self {
        let is_first = item.deliveries == 1 && attempt == 1;
        if is_first && clock::now() - event.metadata.time <= FRESH_MAX { Self::Fresh } else { Self::Stale }
    }
}

/// One reactor: which events it takes, and what it does about one.
pub trait Reactor: Send + Sync + 'static {
    /// Its name: of its durable consumer, in logs, metrics and dead letters.
    const NAME: &'static str;
    /// The aggregate types whose events it takes.
    const AGGREGATE_TYPES: &'static [&'static str];
    /// How many events it handles at the same time.
    const CONCURRENCY: usize;

    /// Whether it has anything to do for events of this type; the others are only folded into what is known of
    /// their orders.
    fn wants(&self, event_type: &str) -> bool;

    /// Carries out what follows from `event`. A panic counts as [`Failure::Permanent`]. Called again with the same event after a failure, a lost
    /// acknowledgement or a crash, also while an earlier call may still be running elsewhere.
    fn handle(&self, event: &StoredEvent, news: News) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Runs `reactor` until `drain` starts and what was in flight is finished.
pub async fn run<R: Reactor>(reactor: R, store: JetStreamEventStore, metrics: ReactorMetrics, health: Health, drain: Drain) {
    let component = health.component(R::NAME);
    tokio::select! {
        () = drain.started() => return,
        () = store.wait_until_ready(|reason| component.not_ready(reason)) => component.ready(),
    }
    let mut queue = store.work_queue(WorkQueueOptions {
        name: R::NAME,
        aggregate_types: R::AGGREGATE_TYPES,
        ack_wait: ACK_WAIT,
        in_flight_max: i64::try_from(R::CONCURRENCY * 2).unwrap_or(i64::MAX),
        sharing: Sharing::All,
    });
    let shared = Arc::new(Shared { reactor, store, metrics, drain: drain.clone() });
    let slots = Arc::new(Semaphore::new(R::CONCURRENCY));
    let tasks = TaskTracker::new();
    loop {
        let items = tokio::select! {
            biased;
            () = drain.started() => break,
            items = queue.next_batch(FETCH_ITEMS_MAX) => items,
        };
        for item in items {
            let event = item.event();
            if let Ok(event) = &event {
                // Events come in the log's order, so most orders need not be asked for when there is something to do for them.
                shared.store.witness::<Order>(&item, event);
            }
            if event.as_ref().is_ok_and(|event| !shared.reactor.wants(&event.metadata.event_type)) {
                item.done().await;
                continue;
            }
            // There are no more of them than the server hands out without an acknowledgement.
            let (shared, slots) = (Arc::clone(&shared), Arc::clone(&slots));
            tasks.spawn(async move {
                let Some(slot) = shared.wait_for_turn(&item, slots).await else {
                    // Draining: what has not begun is for the next instance, which need not wait for the time-out.
                    return item.hand_back().await;
                };
                shared.metrics.started(R::NAME);
                shared.finish(item, event).await;
                shared.metrics.finished(R::NAME);
                drop(slot);
            });
        }
    }
    queue.close().await;
    tasks.close();
    tasks.wait().await;
    tracing::info!(reactor = R::NAME, "drained");
}

struct Shared<R> {
    reactor: R,
    store: JetStreamEventStore,
    metrics: ReactorMetrics,
    drain: Drain,
}

impl<R: Reactor> Shared<R> {
    /// Waits until `item` may be worked on, and says meanwhile that it is in hand; `None` as soon as the process drains.
    async fn wait_for_turn(&self, item: &WorkItem, slots: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let mut slot = std::pin::pin!(slots.acquire_owned());
        loop {
            tokio::select! {
                biased;
                () = self.drain.started() => return None,
                slot = &mut slot => return slot.ok(),
                () = tokio::time::sleep(PROGRESS_INTERVAL) => item.in_progress().await,
            }
        }
    }

    async fn finish(&self, item: WorkItem, event: Result<StoredEvent, domain::DecodeError>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.give_up(item, chain(&error), 1).await,
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let outcome = self.handle_with_progress(&item, &event, News::of(&item, &event, attempt)).await;
            match outcome {
                Ok(()) => {
                    self.metrics.count(R::NAME, "done", 1);
                    return item.done().await;
                }
                Err(Failure::Permanent(error)) => return self.give_up(item, chain(&*error), attempt).await,
                Err(Failure::Transient { source, retry_after }) => {
                    self.metrics.count(R::NAME, "retried", 1);
                    let pause = pause_before_retry(attempt, retry_after);
                    tracing::warn!(
                        reactor = R::NAME,
                        position = item.position,
                        event_type = event.metadata.event_type,
                        attempt,
                        retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                        "trying again: {}",
                        chain(&*source).join(": "),
                    );
                    if !self.wait(&item, pause).await {
                        // Draining: hand the event back, so that the next instance need not wait for the time-out.
                        return item.hand_back().await;
                    }
                }
            }
        }
    }

    async fn handle_with_progress(&self, item: &WorkItem, event: &StoredEvent, news: News) -> Result<(), Failure> {
        // An event that makes a reactor panic would do so again, on every delivery and without a word to anybody.
        let handling = AssertUnwindSafe(self.reactor.handle(event, news)).catch_unwind();
        let mut handling = std::pin::pin!(handling);
        loop {
            tokio::select! {
                outcome = &mut handling => return outcome.unwrap_or_else(|panic| Err(Failure::permanent(Panicked::from(panic)))),
                () = tokio::time::sleep(PROGRESS_INTERVAL) => item.in_progress().await,
            }
        }
    }

    /// Waits for `pause`; returns `false` as soon as the process drains.
    async fn wait(&self, item: &WorkItem, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            item.in_progress().await;
            tokio::select! {
                biased;
                () = self.drain.started() => return false,
                () = tokio::time::sleep_until(until) => return true,
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {}
            }
        }
    }

    async fn give_up(&self, item: WorkItem, error_chain: Vec<String>, attempts: u64) {
        dead_letter::give_up(R::NAME, &self.store, &self.metrics, item, error_chain, attempts).await;
    }
}

/// Exponential with jitter, at least what the other side asked for, and at most [`RETRY_PAUSE_MAX`] in any case.
fn pause_before_retry(attempt: u64, retry_after: Option<Duration>) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1).min(16)).unwrap_or(16);
    let ceiling = RETRY_PAUSE_MAX.min(RETRY_PAUSE * 2_u32.pow(doublings));
    let jitter = clock::now().nanosecond() / 1_000 % 1_000;
    let pause = ceiling / 2 + ceiling / 2 * jitter / 1_000;
    retry_after.map_or(pause, |asked| pause.max(asked.min(RETRY_PAUSE_MAX)))
}
