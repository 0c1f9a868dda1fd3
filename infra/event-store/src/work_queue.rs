//! Events handed out to reactors, one delivery at a time, until acknowledged.

use std::{fmt, time::Duration};

use async_nats::jetstream::{
    AckKind, Message,
    consumer::{AckPolicy, DeliverPolicy, PriorityPolicy, PullConsumer, pull},
};
use domain::{DecodeError, envelope::StoredEvent};
use futures::{FutureExt, StreamExt};
use tokio::{sync::watch, task::unconstrained};

use crate::{
    JetStreamEventStore,
    trouble::Trouble,
    wire::{self, STREAM},
};

/// Pause after the queue could not be read, before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long the next event of a batch is waited for when the server has more.
const GATHER_LULL: Duration = Duration::from_millis(5);

/// How long what an ending instance hands back stays with the server.
pub const HAND_BACK_PAUSE: Duration = Duration::from_secs(1);

/// What a reactor takes from the log, and how.
#[derive(Clone, Debug)]
pub struct WorkQueueOptions {
    /// The durable consumer's name; instances with the same name share the work.
    pub name: &'static str,
    /// The aggregate types whose events are handed out.
    pub aggregate_types: &'static [&'static str],
    /// After how long without an acknowledgement an event is handed out again.
    pub ack_wait: Duration,
    /// Most events handed out and not acknowledged, over all instances.
    pub in_flight_max: i64,
    /// Who gets them.
    pub sharing: Sharing,
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
    connections: watch::Receiver<u64>,
    messages: Option<pull::Stream>,
    trouble: Trouble,
    /// What was taken from `messages` and not returned yet.
    gathered: Vec<WorkItem>,
    /// Whether the instance has been handed anything since it asked.
    is_active: bool,
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
    message: Message,
}

impl fmt::Debug for WorkItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkItem").field("position", &self.position).field("deliveries", &self.deliveries).finish_non_exhaustive()
    }
}

impl JetStreamEventStore {
    /// The events of some aggregate types, from the log's beginning, each until it is acknowledged.
    pub fn work_queue(&self, options: WorkQueueOptions) -> WorkQueue {
        WorkQueue {
            store: self.clone(),
            options,
            connections: self.connection.connections.clone(),
            messages: None,
            trouble: Trouble::default(),
            gathered: Vec::new(),
            is_active: false,
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
                return std::mem::take(&mut self.gathered);
            }
            let Some(messages) = &mut self.messages else {
                self.start().await;
                continue;
            };
            let first = tokio::select! {
                biased;
                _ = self.connections.changed() => None,
                message = messages.next() => message,
            };
            let Some(Ok(first)) = first else {
                if let Some(Err(error)) = first {
                    tracing::debug!(queue = self.options.name, "read the work queue: {error}");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                self.messages = None;
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
                        self.messages = None;
                        break;
                    }
                    None => break,
                }
            }
            if !self.gathered.is_empty() {
                self.is_active = true;
                return std::mem::take(&mut self.gathered);
            }
        }
    }

    /// Hands back what was fetched and not returned yet, and lets a standby be the active one. To be called before a process
    /// ends: what it still holds would otherwise wait for `ack_wait`, and a standby for [`TAKEOVER_AFTER`].
    pub async fn close(mut self) {
        for item in std::mem::take(&mut self.gathered) {
            item.hand_back().await;
        }
        let Some(mut messages) = self.messages.take() else { return };
        let options = &self.options;
        if options.sharing == Sharing::OneActive
            && self.is_active
            && let Ok(stream) = self.store.connection.jetstream.get_stream_no_info(STREAM).await
            && let Err(error) = stream.unpin_consumer(options.name, PRIORITY_GROUP).await
        {
            tracing::debug!(queue = options.name, "make way for a standby: {error}");
        }
        for _ in 0..self.options.in_flight_max {
            let Some(Some(Ok(message))) = unconstrained(messages.next()).now_or_never() else { break };
            if let Some(item) = WorkItem::read(message) {
                item.hand_back().await;
            }
        }
    }

    async fn start(&mut self) {
        self.connections.mark_unchanged();
        let options = &self.options;
        let has_one_active = options.sharing == Sharing::OneActive;
        let config = pull::Config {
            durable_name: Some(options.name.to_owned()),
            filter_subjects: options.aggregate_types.iter().map(|kind| format!("events.{kind}.*")).collect(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: options.ack_wait,
            max_ack_pending: options.in_flight_max,
            priority_policy: if has_one_active { PriorityPolicy::PinnedClient } else { PriorityPolicy::None },
            priority_groups: has_one_active.then(|| PRIORITY_GROUP.to_owned()).into_iter().collect(),
            priority_timeout: if has_one_active { TAKEOVER_AFTER } else { Duration::ZERO },
            ..pull::Config::default()
        };
        let started = async {
            let stream = self.store.connection.jetstream.get_stream_no_info(STREAM).await.map_err(|error| error.to_string())?;
            // Creating an existing consumer again with the same settings does nothing.
            let consumer: PullConsumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
            let batch = usize::try_from(options.in_flight_max).unwrap_or(1).clamp(1, 1_000);
            let messages = consumer.stream().max_messages_per_batch(batch);
            let messages = if has_one_active {
                messages.group(PRIORITY_GROUP).expires(ONE_ACTIVE_REQUEST).heartbeat(ONE_ACTIVE_REQUEST / 2)
            } else {
                messages.expires(SHARED_REQUEST).heartbeat(SHARED_REQUEST / 6)
            };
            messages.messages().await.map_err(|error| error.to_string())
        };
        let what = format!("open the work queue {}", options.name);
        match started.await {
            Ok(messages) => {
                self.messages = Some(messages);
                self.is_active = false;
                self.trouble.over(&what);
            }
            Err(error) => {
                self.trouble.met(&what, error);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

impl WorkItem {
    fn read(message: Message) -> Option<Self> {
        let info = message.info().ok()?;
        let (position, deliveries) = (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1));
        Some(Self { position, deliveries, message })
    }

    /// The event.
    pub fn event(&self) -> Result<StoredEvent, DecodeError> {
        StoredEvent::from_json(&self.message.message.payload)
    }

    /// Whether `event`, which is this item's, lies on the subject of the aggregate that it names. One that somebody else than this
    /// store has put elsewhere is part of no aggregate.
    pub fn is_in_its_place(&self, event: &StoredEvent) -> bool {
        let metadata = &event.metadata;
        self.message.message.subject.as_str() == wire::subject(&metadata.aggregate_type, &metadata.aggregate_id)
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.message.message.payload
    }

    /// Done: not to be delivered again. Call it only once what followed from the event is in the log. A lost
    /// acknowledgement means one more delivery, which must find nothing to do.
    pub async fn done(self) {
        if let Err(error) = self.message.ack().await {
            tracing::debug!(position = self.position, "acknowledge: {error}");
        }
    }

    /// Not done: to be delivered again after `pause`.
    pub async fn again_after(self, pause: Duration) {
        if let Err(error) = self.message.ack_with(AckKind::Nak(Some(pause))).await {
            tracing::debug!(position = self.position, "hand back: {error}");
        }
    }

    /// Not done, and this instance is ending: to be delivered to another one after [`HAND_BACK_PAUSE`], by when this one's
    /// queue is closed. At once would be too soon: the server would deliver it to this instance again.
    pub async fn hand_back(self) {
        self.again_after(HAND_BACK_PAUSE).await;
    }

    /// Still being worked on: starts `ack_wait` anew.
    pub async fn in_progress(&self) {
        if let Err(error) = self.message.ack_with(AckKind::Progress).await {
            tracing::debug!(position = self.position, "report progress: {error}");
        }
    }
}
