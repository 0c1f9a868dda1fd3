//! The loop of a reactor that handles events one by one, many at a time.

use std::{
    any::Any,
    collections::HashSet,
    error::Error,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{DecodeError, envelope::StoredEvent, order::Order};
use event_store::{Beginning, JetStreamEventStore, LoadError, STREAM, Sharing, WorkItem, WorkQueue, WorkQueueOptions, WorkSource};
use futures::{
    FutureExt,
    future::{BoxFuture, select_all},
};
use telemetry::{
    drain::Drain,
    health::Health,
    trace::{self, Span},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::task::TaskTracker;

use crate::{
    breaker::{Breaker, Phase},
    clock,
    dead_letters::{self, chain},
    metrics::ReactorMetrics,
    retry::{HandedBack, RetryBudget},
};

/// Events of one reactor that may wait with the server for another try: more than one mail server that puts off, or one SKU that cannot be
/// read, should ever gather. A further one holds up the reactor, until one of them is tried.
pub(crate) const PARKED_MAX: i64 = 65_536;

/// After how long without a sign of life an event is handed to another instance.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(6);
/// How often an event that is in hand says so, whether it is worked on or waits for its turn; well within [`ACK_WAIT`].
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Events fetched at once.
const FETCH_ITEMS_MAX: usize = 64;
/// The longest pause after which an event is tried again without having been handed back.
const IN_PLACE_MAX: Duration = Duration::from_secs(2);
/// How long after the breaker's next probe an event comes again that has failed, for each time that it has, ...
const BEHIND_OTHERS: Duration = Duration::from_secs(2);
/// ... up to so many.
const BEHIND_OTHERS_TIMES_MAX: u64 = 5;
/// Events that one instance has in hand at least, if there are so many: begun, or waiting for their turn or to be tried again. One that handles many
/// at a time has twice as many in hand as it handles.
const IN_HAND_MIN: usize = 1_024;
/// How long an instance that has no place left keeps what it has fetched; well within [`ACK_WAIT`].
const FULL_MAX: Duration = Duration::from_secs(1);
/// Events fetched to see whether an outside system is back, ...
const PROBES_FETCHED_MAX: usize = FETCH_ITEMS_MAX;
/// ... and of these as many are begun.
const PROBES_MAX: usize = 4;

/// What the work on one event may take at most before it is begun: it is moved several times until then, and many may wait.
/// What is larger has to be boxed.
const WORK_BYTES_MAX: usize = 4_096;

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
    /// It was not tried, because this is not the time or not the instance: the event is handed back.
    #[error("not tried")]
    NotTried(#[source] Box<dyn Error + Send + Sync>),
    /// No try will ever succeed: the event goes to the dead letters.
    #[error("the event cannot be handled")]
    Permanent(#[source] Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// See [`Failure::Transient`].
    pub fn transient(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Transient { source: Box::new(source), retry_after: None }
    }

    /// What cannot be read by this build never will be; a log that does not answer may.
    pub(crate) fn of_load(error: LoadError) -> Self {
        match error {
            LoadError::Read(_) => Self::transient(error),
            _ => Self::permanent(error),
        }
    }

    /// See [`Failure::NotTried`].
    pub fn not_tried(reason: impl Error + Send + Sync + 'static) -> Self {
        Self::NotTried(Box::new(reason))
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
    /// Of an event that comes for the `nth` time, `age` after it has happened, where nothing has interrupted the server for a while.
    ///
    /// A server alone hands out an event before it has on disk that it has: killed and started again, it hands it out as if for the first time.
    fn of(nth: u64, age: time::Duration, uninterrupted: Duration) -> Self {
        if nth == 1 && age <= FRESH_MAX && uninterrupted > FRESH_MAX { Self::Fresh } else { Self::Stale }
    }
}

/// One reactor: which events it takes, and what it does about one.
pub trait Reactor: Send + Sync + 'static {
    /// Its name: of its durable consumer, in logs, metrics and dead letters.
    const NAME: &'static str;
    /// Where the events come from that it takes.
    const SOURCE: WorkSource;
    /// Where it begins when it is started for the first time.
    const BEGINNING: Beginning = Beginning::First;
    /// Whether it is the one to handle dead letters of this name again; only one of several parts of a reactor is.
    const TAKES_REDRIVES: bool = true;
    /// How many events it handles at the same time.
    const CONCURRENCY: usize;

    /// Whether it has anything to do for events of this type; the others are only folded into what is known of
    /// their orders.
    fn wants(&self, event_type: &str) -> bool;

    /// The breaker of the outside system without which it can do nothing: while that is open it takes no events.
    fn breaker(&self) -> Option<&Breaker> {
        None
    }

    /// Records, where others see it, that the event at `position` was given up, if that concerns anybody. Called before the event is
    /// acknowledged, once its dead letter is kept; and again, should that fail.
    fn gave_up(
        &self,
        _event: &StoredEvent,
        _position: u64,
        _error_chain: &[String],
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        std::future::ready(Ok(()))
    }

    /// Carries out what follows from `event`. A panic counts as [`Failure::Permanent`]. Called again with the same event after a failure, a lost
    /// acknowledgement or a crash, also while an earlier call may still be running elsewhere.
    fn handle(&self, event: &StoredEvent, news: News) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl<R: Reactor> Reactor for Arc<R> {
    const NAME: &'static str = R::NAME;
    const SOURCE: WorkSource = R::SOURCE;
    const BEGINNING: Beginning = R::BEGINNING;
    const TAKES_REDRIVES: bool = R::TAKES_REDRIVES;
    const CONCURRENCY: usize = R::CONCURRENCY;

    fn wants(&self, event_type: &str) -> bool {
        R::wants(self, event_type)
    }

    fn breaker(&self) -> Option<&Breaker> {
        R::breaker(self)
    }

    fn gave_up(
        &self,
        event: &StoredEvent,
        position: u64,
        error_chain: &[String],
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        R::gave_up(self, event, position, error_chain)
    }

    fn handle(&self, event: &StoredEvent, news: News) -> impl Future<Output = Result<(), Failure>> + Send {
        R::handle(self, event, news)
    }
}

/// What a reactor runs on.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The log.
    pub store: JetStreamEventStore,
    /// What it counts.
    pub metrics: ReactorMetrics,
    /// Whether it can work.
    pub health: Health,
    /// When it has to end.
    pub drain: Drain,
    /// How often an event is tried.
    pub budget: RetryBudget,
}

/// Runs `reactor` until the drain starts and what was in flight is finished.
pub async fn run<R: Reactor>(reactor: R, surroundings: Surroundings) {
    let Surroundings { store, health, drain, .. } = surroundings.clone();
    let component = health.component(R::NAME);
    tokio::select! {
        () = drain.started() => return,
        () = store.wait_until_ready(|reason| component.not_ready(reason)) => component.ready(),
    }
    let in_hand_max = (R::CONCURRENCY * 2).max(IN_HAND_MIN);
    let mut queue = store.work_queue(WorkQueueOptions {
        name: R::NAME,
        source: R::SOURCE,
        takes_redrives: R::TAKES_REDRIVES,
        beginning: R::BEGINNING,
        ack_wait: ACK_WAIT,
        in_flight_max: i64::try_from(in_hand_max).unwrap_or(i64::MAX),
        parked_max: PARKED_MAX,
        sharing: Sharing::All,
    });
    let (handed_back, finished) = (HandedBack::default(), AtomicU64::new(0));
    let shared = Arc::new(Shared { reactor, surroundings, handed_back, in_hand: InHand::default(), finished });
    let slots = Arc::new(Semaphore::new(R::CONCURRENCY));
    let places = Arc::new(Semaphore::new(in_hand_max));
    let tasks = TaskTracker::new();
    loop {
        let batch = async {
            let phase = shared.may_take(&mut queue).await;
            tokio::select! {
                () = shared.opened() => (Phase::Open, Vec::new()),
                items = take(&mut queue, &places, in_hand_max) => (phase, items),
            }
        };
        let (phase, items) = tokio::select! {
            biased;
            () = drain.started() => break,
            batch = batch => batch,
        };
        let mut taken = Vec::new();
        for item in items {
            let event = item.event().and_then(|event| readable(event, &shared.reactor));
            if let Ok(event) = &event {
                // Events come in the log's order, so most orders need not be asked for when there is something to do for them.
                store.witness::<Order>(&item, event);
            }
            if event.as_ref().is_ok_and(|event| !shared.reactor.wants(&event.metadata.event_type)) {
                item.done().await;
                continue;
            }
            // While the connection was broken nobody heard that it is in hand.
            let Some(held) = shared.in_hand.hold(item.position) else {
                item.leave_to_the_other().await;
                continue;
            };
            taken.push(Taken { item, event, held });
        }
        if phase == Phase::HalfOpen {
            taken = shared.probes_among(taken).await;
        }
        let mut begun = Vec::new();
        for Taken { item, event, held } in taken {
            // No more were taken than there are places.
            let place = Arc::clone(&places).try_acquire_owned();
            let (shared, slots) = (Arc::clone(&shared), Arc::clone(&slots));
            let work = async move {
                let (_place, _held) = (place, held);
                let Some(slot) = shared.wait_for_turn(&item, slots).await else {
                    // Not begun: it is for the next instance, which need not wait for the time-out.
                    return item.hand_back().await;
                };
                shared.surroundings.metrics.started(R::NAME);
                shared.finish(item, event).await;
                shared.surroundings.metrics.finished(R::NAME);
                drop(slot);
            };
            debug_assert!(size_of_val(&work) <= WORK_BYTES_MAX, "{}: {} bytes for each event", R::NAME, size_of_val(&work));
            begun.push(tasks.spawn(work));
        }
        if phase == Phase::HalfOpen {
            // No more than these are taken until they have told how the outside system is.
            tokio::select! {
                () = drain.started() => break,
                () = shared.not_half_open() => {}
                () = first_of(begun) => {}
            }
        }
    }
    queue.close().await;
    tasks.close();
    tasks.wait().await;
    tracing::info!(reactor = R::NAME, "drained");
}

/// `event`, unless this build does not know what it is: then it cannot tell whether something is to be done.
fn readable(event: StoredEvent, reactor: &impl Reactor) -> Result<StoredEvent, DecodeError> {
    let event_type = &event.metadata.event_type;
    if reactor.wants(event_type) || domain::is_known(event_type) {
        return Ok(event);
    }
    Err(DecodeError::UnknownType { event_type: event_type.clone() })
}

/// Takes events for which there are places. Those that were fetched for none are left to other instances.
async fn take(queue: &mut WorkQueue, places: &Semaphore, in_hand_max: usize) -> Vec<WorkItem> {
    if places.available_permits() == 0 {
        // Those that were fetched are not begun one by one, as the last of them would be taken for forgotten by then.
        let half = u32::try_from(in_hand_max / 2).unwrap_or(u32::MAX);
        if tokio::time::timeout(FULL_MAX, places.acquire_many(half)).await.is_err() {
            queue.pause().await;
            drop(places.acquire_many(half).await);
        }
    }
    queue.next_batch(FETCH_ITEMS_MAX.min(places.available_permits())).await
}

/// See [`BEHIND_OTHERS`].
fn behind_others(failures: u64) -> Duration {
    BEHIND_OTHERS * u32::try_from(failures.min(BEHIND_OTHERS_TIMES_MAX)).unwrap_or(1)
}

/// Completes when one of them has ended; at once, if there is none.
async fn first_of(tasks: Vec<JoinHandle<()>>) {
    if !tasks.is_empty() {
        // However it has ended.
        let _ = select_all(tasks).await;
    }
}

/// An event that this instance has in hand.
struct Taken {
    item: WorkItem,
    event: Result<StoredEvent, DecodeError>,
    held: Held,
}

struct Shared<R> {
    reactor: R,
    surroundings: Surroundings,
    /// What is known of events that were tried and are not in hand.
    handed_back: HandedBack,
    in_hand: InHand,
    /// How many events have come to an end, with a call that worked where there is an outside system.
    finished: AtomicU64,
}

/// The positions of the events that are in hand, so that none is twice: the second would do what the first is about to have done.
#[derive(Clone, Default)]
struct InHand(Arc<Mutex<HashSet<u64>>>);

/// In hand until this is dropped.
struct Held {
    position: u64,
    all: InHand,
}

impl InHand {
    /// `None` if it is in hand already.
    fn hold(&self, position: u64) -> Option<Held> {
        self.positions().insert(position).then(|| Held { position, all: self.clone() })
    }

    fn positions(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.positions().remove(&self.position);
    }
}

/// Why an event is no longer waited with.
enum Interruption {
    /// The process is ending.
    Drain,
    /// The outside system is left alone.
    LeftAlone,
}

impl<R: Reactor> Shared<R> {
    /// Waits until events may be taken, and meanwhile leaves those that were fetched to other instances.
    async fn may_take(&self, queue: &mut WorkQueue) -> Phase {
        let Some(breaker) = self.reactor.breaker() else { return Phase::Closed };
        if breaker.phase() == Phase::Open {
            queue.pause().await;
        }
        let phase = breaker.not_open().await;
        queue.ask_for((phase == Phase::HalfOpen).then_some(PROBES_FETCHED_MAX)).await;
        phase
    }

    /// Completes when the outside system is to be left alone.
    async fn opened(&self) {
        match self.reactor.breaker() {
            Some(breaker) => breaker.opened().await,
            None => std::future::pending().await,
        }
    }

    /// Those of `taken` that are to tell whether the outside system is back: such as have not failed before, if there are any, as what has may be
    /// at fault itself, and would keep all others waiting with each probe that it is. The rest comes again, what has failed behind the others.
    async fn probes_among(&self, taken: Vec<Taken>) -> Vec<Taken> {
        let mut taken: Vec<_> = taken.into_iter().map(|taken| (self.handed_back.count(taken.item.position), taken)).collect();
        taken.sort_by_key(|&(failures, _)| failures);
        let fresh = taken.partition_point(|&(failures, _)| failures == 0);
        let probes = if fresh > 0 { fresh } else { taken.len() };
        for (failures, Taken { item, .. }) in taken.split_off(probes.min(PROBES_MAX)) {
            match failures {
                0 => item.hand_back().await,
                _ => item.again_after(behind_others(failures)).await,
            }
        }
        taken.into_iter().map(|(_, taken)| taken).collect()
    }

    /// How many calls to the outside system have worked; `None` if there is none.
    fn calls_worked(&self) -> Option<u64> {
        self.reactor.breaker().map(Breaker::worked)
    }

    async fn not_half_open(&self) {
        match self.reactor.breaker() {
            Some(breaker) => breaker.not_half_open().await,
            None => std::future::pending().await,
        }
    }

    async fn interrupted(&self) -> Interruption {
        tokio::select! {
            biased;
            () = self.surroundings.drain.started() => Interruption::Drain,
            () = self.opened() => Interruption::LeftAlone,
        }
    }

    /// Waits until `item` may be worked on, and says meanwhile that it is in hand; `None` as soon as this instance will not get to it.
    async fn wait_for_turn(&self, item: &WorkItem, slots: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let mut slot = std::pin::pin!(slots.acquire_owned());
        let mut interrupted = std::pin::pin!(self.interrupted());
        loop {
            tokio::select! {
                biased;
                _ = &mut interrupted => return None,
                slot = &mut slot => return slot.ok(),
                () = tokio::time::sleep(PROGRESS_INTERVAL) => item.in_progress().await,
            }
        }
    }

    async fn finish(&self, item: WorkItem, event: Result<StoredEvent, DecodeError>) {
        let metrics = &self.surroundings.metrics;
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.give_up(item, chain(&error), 1).await,
        };
        let mut tries = self.handed_back.take(item.position);
        loop {
            tries.count += 1;
            let age = clock::now() - event.metadata.time;
            let news = News::of(item.deliveries.max(tries.count), age, self.surroundings.store.uninterrupted());
            let before = self.calls_worked();
            let outcome = self.traced(&item, &event, news).await;
            match outcome {
                Ok(()) => {
                    metrics.count(R::NAME, "done", 1);
                    // What came to its end without the outside system says nothing about that.
                    if before.is_none_or(|before| self.calls_worked() > Some(before)) {
                        self.finished.fetch_add(1, Ordering::Relaxed);
                    }
                    return item.done().await;
                }
                Err(Failure::Permanent(error)) => return self.give_up(item, chain(&*error), tries.count).await,
                Err(Failure::NotTried(reason)) => {
                    tracing::debug!(reactor = R::NAME, position = item.position, "handed back: {reason}");
                    tries.count -= 1;
                    if tries.count > 0 {
                        self.handed_back.keep(item.position, tries);
                    }
                    return item.hand_back().await;
                }
                Err(Failure::Transient { source, retry_after }) => {
                    metrics.count(R::NAME, "retried", 1);
                    if tries.failed(Instant::now(), self.finished.load(Ordering::Relaxed), self.surroundings.budget) {
                        return self.give_up(item, chain(&*source), tries.count).await;
                    }
                    let pause = tries.pause(retry_after);
                    tracing::warn!(
                        reactor = R::NAME,
                        position = item.position,
                        event_type = event.metadata.event_type,
                        attempt = tries.count,
                        retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                        "trying again: {}",
                        chain(&*source).join(": "),
                    );
                    if pause > IN_PLACE_MAX && self.reactor.breaker().is_none_or(|breaker| breaker.phase() == Phase::Closed) {
                        // Whoever waits for long must not keep others from their turns.
                        self.handed_back.keep(item.position, tries);
                        return item.again_after(pause).await;
                    }
                    match self.wait(&item, pause).await {
                        None => {}
                        // The next instance need not wait for the time-out, nor for this event's pause.
                        Some(Interruption::Drain) => return item.hand_back().await,
                        // It lets others be the next to see whether the system is back: the server hands out first what is due again.
                        Some(Interruption::LeftAlone) => {
                            let open_for = self.reactor.breaker().map_or(Duration::ZERO, Breaker::open_for);
                            let behind = open_for + behind_others(tries.count);
                            self.handed_back.keep(item.position, tries);
                            return item.again_after(pause.max(behind)).await;
                        }
                    }
                }
            }
        }
    }

    /// One try, as an operation of the trace that the event is of.
    async fn traced(&self, item: &WorkItem, event: &StoredEvent, news: News) -> Result<(), Failure> {
        let mut span = Span::process(STREAM, R::NAME, event.metadata.traceparent.as_deref())
            .with_display("messaging.message.id", event.metadata.event_id)
            .with_display("contrail.event.type", &event.metadata.event_type)
            .with_display("contrail.event.position", item.position);
        let outcome = trace::within(span.context(), self.handle_with_progress(item, event, news)).await;
        if let Err(failure) = &outcome {
            span.fail(chain(failure).join(": "));
        }
        outcome
    }

    async fn handle_with_progress(&self, item: &WorkItem, event: &StoredEvent, news: News) -> Result<(), Failure> {
        // An event that makes a reactor panic would do so again, on every delivery and without a word to anybody.
        // Boxed, as it is large: else each event that waits for its turn would be, and be moved about with it.
        let mut handling = AssertUnwindSafe(self.reactor.handle(event, news)).catch_unwind().boxed();
        loop {
            tokio::select! {
                outcome = &mut handling => return outcome.unwrap_or_else(|panic| Err(Failure::permanent(Panicked::from(panic)))),
                () = tokio::time::sleep(PROGRESS_INTERVAL) => item.in_progress().await,
            }
        }
    }

    /// Waits for `pause`, or until something tells that this instance should not try again.
    async fn wait(&self, item: &WorkItem, pause: Duration) -> Option<Interruption> {
        let until = Instant::now() + pause;
        let mut interrupted = std::pin::pin!(self.interrupted());
        loop {
            item.in_progress().await;
            tokio::select! {
                biased;
                interruption = &mut interrupted => return Some(interruption),
                () = tokio::time::sleep_until(until) => return None,
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {}
            }
        }
    }

    /// Boxed, as it is large and rare.
    fn give_up(&self, item: WorkItem, error_chain: Vec<String>, attempts: u64) -> BoxFuture<'_, ()> {
        self.keep_letter(item, error_chain, attempts).boxed()
    }

    async fn keep_letter(&self, item: WorkItem, error_chain: Vec<String>, attempts: u64) {
        let Surroundings { store, metrics, .. } = &self.surroundings;
        let is_ours = |event: &StoredEvent| item.is_in_its_place(event) && self.reactor.wants(&event.metadata.event_type);
        let event = item.event().ok().filter(is_ours);
        let (position, is_redriven) = (item.position, item.is_redriven());
        let Some(item) = dead_letters::keep(R::NAME, store, metrics, item, &error_chain, attempts).await else { return };
        if let Some(event) = event.filter(|_| !is_redriven)
            && let Err(error) = self.reactor.gave_up(&event, position, &error_chain).await
        {
            // Not acknowledged: it comes again.
            tracing::warn!(reactor = R::NAME, position, "record that an event was given up: {}", chain(&error).join(": "));
            return;
        }
        item.given_up(error_chain, attempts).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_for_the_first_time_and_soon_and_of_a_server_that_was_there_before_is_fresh() {
        let (soon, late) = (time::Duration::seconds(1), time::Duration::seconds(6));
        let (before, just_now) = (Duration::from_secs(6), Duration::from_secs(1));
        assert_eq!(News::of(1, soon, before), News::Fresh);
        for stale in [News::of(2, soon, before), News::of(1, late, before), News::of(1, soon, just_now)] {
            assert_eq!(stale, News::Stale);
        }
    }
}
