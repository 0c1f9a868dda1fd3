//! Events handed out to reactors, one delivery at a time, until acknowledged.

use std::{
    fmt,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    AckKind, Message,
    consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, PullConsumer, pull},
    context::ConsumerInfoErrorKind,
};
use bytes::Bytes;
use domain::{DecodeError, envelope::StoredEvent};
use futures::{FutureExt, StreamExt};
use tokio::{
    sync::watch,
    task::{JoinSet, unconstrained},
};

use crate::{
    JetStreamEventStore,
    redrive::{Redrive, Redrives},
    timers,
    trouble::Trouble,
    wire::{self, RESTORING, STREAM, TIMER_STREAM},
};

/// Pause after the queue could not be read, before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long the next event of a batch is waited for when the server has more.
const GATHER_LULL: Duration = Duration::from_millis(5);

/// Events that are asked for at once, and so may lie here, taken and not looked at.
const ASKED_MAX: usize = 1_000;

/// How long what an ending instance hands back stays with the server.
pub const HAND_BACK_PAUSE: Duration = Duration::from_secs(1);

/// What a reactor takes from the log, and how.
#[derive(Clone, Debug)]
pub struct WorkQueueOptions {
    /// The durable consumer's name; instances with the same name share the work.
    pub name: &'static str,
    /// What is handed out.
    pub source: WorkSource,
    /// Whether also the events are handed out that somebody wants this reactor to handle again; for one queue of each name.
    pub takes_redrives: bool,
    /// Where it begins.
    pub beginning: Beginning,
    /// After how long without an acknowledgement an event is handed out again.
    pub ack_wait: Duration,
    /// Most events handed out and not acknowledged, over all instances, while none is parked.
    pub in_flight_max: i64,
    /// Events beside those that may wait with the server for the pause after which they were handed back, over all instances. They count as handed
    /// out there: without room for them so many that wait would hold up all others. As the server does not tell one from the other, whoever
    /// takes events has to see to it that it has no more than `in_flight_max` in hand.
    pub parked_max: i64,
    /// Who gets them.
    pub sharing: Sharing,
}

/// What a work queue hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkSource {
    /// The log's events of aggregates of these types.
    Log(&'static [&'static str]),
    /// The events whose timers for this purpose are due.
    Timers(&'static str),
}

impl WorkSource {
    pub(crate) fn stream(self) -> &'static str {
        match self {
            Self::Log(_) => STREAM,
            Self::Timers(_) => TIMER_STREAM,
        }
    }

    pub(crate) fn subjects(self) -> Vec<String> {
        match self {
            Self::Log(types) => types.iter().map(|kind| format!("events.{kind}.*")).collect(),
            Self::Timers(purpose) => vec![format!("{}.*", wire::due_timers(purpose))],
        }
    }
}

/// Where a queue of a new name begins. One that is known goes on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With the first event there is.
    First,
    /// With the next that comes.
    Now,
}

/// How instances with the same name share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each gets some of the events.
    All,
    /// One gets all of them; another one takes over [`TAKEOVER_AFTER`] it was heard of last.
    ///
    /// The server knows no fencing: an instance that was taken for dead may still act. What it appends has to meet optimistic
    /// concurrency (DESIGN §3).
    OneActive,
}

/// After how long without a sign of life the active instance is replaced by a standby.
pub const TAKEOVER_AFTER: Duration = Duration::from_secs(3);
/// How long one request for events stays open: each is a sign of life, so it must be well below [`TAKEOVER_AFTER`].
const ONE_ACTIVE_REQUEST: Duration = Duration::from_secs(1);
/// How long one request for events stays open where instances share the work.
const SHARED_REQUEST: Duration = Duration::from_secs(30);
/// The one priority group of a consumer that has an active instance.
const PRIORITY_GROUP: &str = "active";

/// A durable consumer's events. Reconnects by itself.
pub struct WorkQueue {
    store: JetStreamEventStore,
    options: WorkQueueOptions,
    interruptions: watch::Receiver<Instant>,
    messages: Option<pull::Stream>,
    /// Most events that are asked for at once.
    asked_max: usize,
    trouble: Trouble,
    /// Where the consumer began, once that is known: it cannot be changed, and one that was restored began elsewhere than
    /// [`WorkQueueOptions::beginning`] says.
    begun: Option<DeliverPolicy>,
    /// Events to be handled again.
    redrives: Option<Redrives>,
    /// What was taken from `messages` and not returned yet.
    gathered: Vec<WorkItem>,
    /// Whether the instance has been handed anything since it asked.
    is_active: bool,
    /// Removes timers that were handled, until the queue is dropped.
    _sweeping: JoinSet<()>,
}

impl fmt::Debug for WorkQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue").field("options", &self.options).finish_non_exhaustive()
    }
}

/// One delivery of one event. Dropped without acknowledgement, it is delivered again after `ack_wait`.
pub struct WorkItem {
    /// The event's stream sequence.
    pub position: u64,
    /// How often it was delivered, this time included. Deliveries while an outside system was away count, so this is
    /// no retry budget (DESIGN §3).
    pub deliveries: u64,
    origin: Origin,
}

/// Where an event came from, and so who is told what became of it. The messages are boxed, as they are large and change hands often.
enum Origin {
    /// The queue.
    Queue(Box<Message>),
    /// A timer.
    Timer(Box<Message>),
    /// Somebody who wants it handled again.
    Redrive(Box<Redrive>),
}

impl fmt::Debug for WorkItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkItem").field("position", &self.position).field("deliveries", &self.deliveries).finish_non_exhaustive()
    }
}

impl JetStreamEventStore {
    /// The events or timers that `options` name, from where they say it begins, each until it is acknowledged.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn work_queue(&self, options: WorkQueueOptions) -> WorkQueue {
        let mut sweeping = JoinSet::new();
        if let WorkSource::Timers(purpose) = options.source {
            sweeping.spawn(timers::sweep(self.clone(), options.name, purpose));
        }
        WorkQueue {
            store: self.clone(),
            asked_max: usize::try_from(options.in_flight_max).unwrap_or(1).clamp(1, ASKED_MAX),
            interruptions: self.connection.interruptions.clone(),
            messages: None,
            trouble: Trouble::default(),
            begun: None,
            redrives: options.takes_redrives.then(|| Redrives::new(self.clone(), options.name)),
            gathered: Vec::new(),
            is_active: false,
            options,
            _sweeping: sweeping,
        }
    }
}

impl WorkQueue {
    /// Waits for at least one event and returns those at hand, up to `items_max`.
    ///
    /// While the server is away this waits; it can be dropped at any await: what was not returned comes next time.
    pub async fn next_batch(&mut self, items_max: usize) -> Vec<WorkItem> {
        loop {
            if !self.gathered.is_empty() {
                return self.take(items_max);
            }
            let Some(messages) = &mut self.messages else {
                // Boxed, as it is rare: what waits for the next event would else be five times as large.
                Box::pin(self.start()).await;
                continue;
            };
            let first = tokio::select! {
                biased;
                _ = self.interruptions.changed() => None,
                asked_for = next_redrive(&mut self.redrives) => return vec![asked_for],
                message = messages.next() => message,
            };
            let Some(Ok(first)) = first else {
                if let Some(Err(error)) = first {
                    tracing::debug!(queue = self.options.name, "read the work queue: {error}");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                self.abandon();
                continue;
            };
            let mut next = Some(first);
            // Kept here, so that nothing is lost when the caller does not wait to the end.
            while let Some(message) = next.take() {
                let has_more = message.info().is_ok_and(|info| info.pending > 0);
                self.gathered.extend(WorkItem::read(message));
                if self.gathered.len() >= items_max {
                    break;
                }
                // Without tokio's budget, which would end the batch after some sixty messages though more are at hand.
                let at_hand = match unconstrained(messages.next()).now_or_never() {
                    // The server has more, and it is on its way: a batch that is too small costs more than a moment.
                    None if has_more => tokio::time::timeout(GATHER_LULL, messages.next()).await.ok(),
                    at_hand => at_hand,
                };
                match at_hand {
                    Some(Some(Ok(message))) => next = Some(message),
                    Some(Some(Err(_)) | None) => {
                        self.abandon();
                        break;
                    }
                    None => break,
                }
            }
            if !self.gathered.is_empty() {
                self.is_active = true;
                return self.take(items_max);
            }
        }
    }

    fn take(&mut self, items_max: usize) -> Vec<WorkItem> {
        if self.gathered.len() <= items_max {
            return std::mem::take(&mut self.gathered);
        }
        self.gathered.drain(..items_max).collect()
    }

    /// Asks nothing more of a server that may have forgotten what it was asked. What it has handed out by then would otherwise not come again
    /// before `ack_wait` has passed.
    fn abandon(&mut self) {
        let Some(mut messages) = self.messages.take() else { return };
        // Errors may stand between.
        for _ in 0..self.asked_max * 2 {
            match unconstrained(messages.next()).now_or_never() {
                Some(Some(Ok(message))) => self.gathered.extend(WorkItem::read(message)),
                Some(Some(Err(_))) => {}
                Some(None) | None => break,
            }
        }
    }

    /// The events that have come, up to `items_max`, without waiting for any.
    pub fn at_hand(&mut self, items_max: usize) -> Vec<WorkItem> {
        if self.messages.is_none() && self.gathered.is_empty() {
            return Vec::new();
        }
        // What was taken and would have to be waited with is kept there.
        unconstrained(self.next_batch(items_max)).now_or_never().unwrap_or_else(|| self.take(items_max))
    }

    /// Asks for no more than `items` at once from now on; for as many as it may if that is `None`.
    pub async fn ask_for(&mut self, items: Option<usize>) {
        let all = usize::try_from(self.options.in_flight_max).unwrap_or(1).clamp(1, ASKED_MAX);
        let asked_max = items.map_or(all, |items| items.clamp(1, all));
        if self.asked_max != asked_max {
            self.pause().await;
            self.asked_max = asked_max;
        }
    }

    /// Hands back what was fetched and not returned yet, for other instances, and asks for nothing until the next call of
    /// [`Self::next_batch`].
    pub async fn pause(&mut self) {
        while let Some(item) = self.gathered.pop() {
            item.hand_back().await;
        }
        for _ in 0..self.options.in_flight_max {
            let next = self.messages.as_mut().and_then(|messages| unconstrained(messages.next()).now_or_never());
            let Some(Some(Ok(message))) = next else { break };
            if let Some(item) = WorkItem::read(message) {
                item.hand_back().await;
            }
        }
        self.messages = None;
    }

    /// Hands back what was fetched and not returned yet, and lets a standby be the active one. To be called before a process
    /// ends: what it still holds would otherwise wait for `ack_wait`, and a standby for [`TAKEOVER_AFTER`].
    pub async fn close(mut self) {
        let options = &self.options;
        if options.sharing == Sharing::OneActive
            && self.is_active
            && self.messages.is_some()
            && let Ok(stream) = self.store.connection.jetstream.get_stream_no_info(options.source.stream()).await
            && let Err(error) = stream.unpin_consumer(options.name, PRIORITY_GROUP).await
        {
            tracing::debug!(queue = options.name, "make way for a standby: {error}");
        }
        self.pause().await;
    }

    async fn start(&mut self) {
        self.interruptions.mark_unchanged();
        let options = &self.options;
        let has_one_active = options.sharing == Sharing::OneActive;
        let config = pull::Config {
            durable_name: Some(options.name.to_owned()),
            filter_subjects: options.source.subjects(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: options.ack_wait,
            max_ack_pending: options.in_flight_max.saturating_add(options.parked_max),
            priority_policy: if has_one_active { PriorityPolicy::PinnedClient } else { PriorityPolicy::None },
            priority_groups: has_one_active.then(|| PRIORITY_GROUP.to_owned()).into_iter().collect(),
            priority_timeout: if has_one_active { TAKEOVER_AFTER } else { Duration::ZERO },
            ..pull::Config::default()
        };
        let started = async {
            let jetstream = &self.store.connection.jetstream;
            let stream = jetstream.get_stream(options.source.stream()).await.map_err(|error| error.to_string())?;
            if stream.cached_info().config.metadata.contains_key(RESTORING) {
                return Err("it is being restored".to_owned());
            }
            let deliver_policy = match self.begun {
                Some(begun) => begun,
                None => match stream.consumer_info(options.name).await {
                    Ok(info) => info.config.deliver_policy,
                    Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => match options.beginning {
                        Beginning::First => DeliverPolicy::All,
                        Beginning::Now => DeliverPolicy::New,
                    },
                    Err(error) => return Err(error.to_string()),
                },
            };
            let config = pull::Config { deliver_policy, ..config };
            // Creating an existing consumer again with the same settings does nothing.
            let consumer: PullConsumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
            let messages = consumer.stream().max_messages_per_batch(self.asked_max);
            let messages = if has_one_active {
                messages.group(PRIORITY_GROUP).expires(ONE_ACTIVE_REQUEST).heartbeat(ONE_ACTIVE_REQUEST / 2)
            } else {
                messages.expires(SHARED_REQUEST).heartbeat(SHARED_REQUEST / 6)
            };
            let messages = messages.messages().await.map_err(|error| error.to_string())?;
            Ok((messages, deliver_policy))
        };
        let what = format!("open the work queue {}", options.name);
        match started.await {
            Ok((messages, begun)) => {
                self.messages = Some(messages);
                self.begun = Some(begun);
                self.is_active = false;
                self.trouble.over(&what);
            }
            Err(error) => {
                // Somebody may have made another consumer of that name.
                self.begun = None;
                self.trouble.met(&what, error);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// The next event that somebody wants handled again; never, where that is another queue's affair.
async fn next_redrive(redrives: &mut Option<Redrives>) -> WorkItem {
    match redrives {
        Some(redrives) => redrives.next().await,
        None => std::future::pending().await,
    }
}

impl WorkItem {
    fn read(message: Message) -> Option<Self> {
        let info = message.info().ok()?;
        let (sequence, deliveries) = (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1));
        if !wire::is_timer(&message.subject) {
            return Some(Self { position: sequence, deliveries, origin: Origin::Queue(Box::new(message)) });
        }
        // Nobody but us sets timers; one without a position is not about an event.
        let position = message.headers.as_ref().and_then(|headers| headers.get(wire::POSITION)?.as_str().parse().ok()).unwrap_or(0);
        Some(Self { position, deliveries, origin: Origin::Timer(Box::new(message)) })
    }

    pub(crate) fn asked_for(position: u64, redrive: Redrive) -> Self {
        // It was handed out before, or it would not be asked for.
        Self { position, deliveries: 2, origin: Origin::Redrive(Box::new(redrive)) }
    }

    /// The event.
    pub fn event(&self) -> Result<StoredEvent, DecodeError> {
        StoredEvent::from_json(self.bytes())
    }

    /// Whether `event`, which is this item's, lies on the subject of the aggregate that it names. One that somebody else than this
    /// store has put elsewhere is part of no aggregate.
    pub fn is_in_its_place(&self, event: &StoredEvent) -> bool {
        self.is_of(&event.metadata.aggregate_type, &event.metadata.aggregate_id)
    }

    /// Whether it lies on the subject of this aggregate.
    pub fn is_of(&self, aggregate_type: &str, aggregate_id: &str) -> bool {
        let subject = match &self.origin {
            Origin::Queue(message) => &message.message.subject,
            // It was in its place when its timer was set.
            Origin::Timer(_) => return true,
            Origin::Redrive(redrive) => &redrive.subject,
        };
        subject.as_str() == wire::subject(aggregate_type, aggregate_id)
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.origin {
            Origin::Queue(message) | Origin::Timer(message) => &message.message.payload,
            Origin::Redrive(redrive) => &redrive.payload,
        }
    }

    /// The stored bytes, shared.
    pub fn stored(&self) -> Bytes {
        match &self.origin {
            Origin::Queue(message) | Origin::Timer(message) => message.message.payload.clone(),
            Origin::Redrive(redrive) => redrive.payload.clone(),
        }
    }

    /// Whether somebody has asked for it, who has its dead letter.
    pub fn is_redriven(&self) -> bool {
        matches!(self.origin, Origin::Redrive(_))
    }

    /// Done: not to be delivered again. Call it only once what followed from the event is in the log. A lost
    /// acknowledgement means one more delivery, which must find nothing to do.
    pub async fn done(self) {
        match &self.origin {
            Origin::Redrive(redrive) => redrive.done().await,
            Origin::Queue(message) | Origin::Timer(message) => {
                if let Err(error) = message.ack().await {
                    tracing::debug!(position = self.position, "acknowledge: {error}");
                }
            }
        }
    }

    /// Given up, and kept where it is found again: not to be delivered again. Whoever has asked for it is told why.
    pub async fn given_up(self, error_chain: Vec<String>, attempts: u64) {
        match &self.origin {
            Origin::Redrive(redrive) => redrive.failed(error_chain, attempts).await,
            Origin::Queue(_) | Origin::Timer(_) => self.done().await,
        }
    }

    /// Not done: to be delivered again after `pause`; whoever has asked for it may ask again.
    pub async fn again_after(self, pause: Duration) {
        match &self.origin {
            Origin::Redrive(redrive) => redrive.not_now().await,
            Origin::Queue(message) | Origin::Timer(message) => {
                if let Err(error) = message.ack_with(AckKind::Nak(Some(pause))).await {
                    tracing::debug!(position = self.position, "hand back: {error}");
                }
            }
        }
    }

    /// Not done, and this instance is ending: to be delivered to another one after [`HAND_BACK_PAUSE`], by when this one's
    /// queue is closed. At once would be too soon: the server would deliver it to this instance again.
    pub async fn hand_back(self) {
        self.again_after(HAND_BACK_PAUSE).await;
    }

    /// Handed out once more while it is in hand here: what becomes of it there is what becomes of it here. Whoever has asked for it may ask
    /// again.
    pub async fn leave_to_the_other(self) {
        if let Origin::Redrive(redrive) = &self.origin {
            redrive.not_now().await;
        }
    }

    /// Still being worked on: starts `ack_wait` anew.
    pub async fn in_progress(&self) {
        match &self.origin {
            Origin::Redrive(redrive) => redrive.working().await,
            Origin::Queue(message) | Origin::Timer(message) => {
                if let Err(error) = message.ack_with(AckKind::Progress).await {
                    tracing::debug!(position = self.position, "report progress: {error}");
                }
            }
        }
    }
}
