//! Tells customers what became of their orders, once each; and other systems, if there is one to tell ([`Webhooks`]).
//!
//! A notification's id is derived from the event that it is about and from the channel, so a redelivered event finds that it was sent.
//! The message's own id is the same on every try: a file is replaced by itself, and a mail server or a receiver of webhooks can tell a
//! repetition, which a crash between sending and recording can lead to.

mod mail;
mod message;
mod webhooks;

use std::time::Duration;

use domain::{
    NotificationId, OrderId,
    envelope::{Metadata, StoredEvent},
    notification::{self, Notification, NotificationCommand, Topic},
    order::Order,
};
use event_store::{AppendError, ExecuteError, JetStreamEventStore, LoadError, Loaded, WorkSource};
use telemetry::{
    drain::Drain,
    trace::{self, Kind, Span},
};
use tokio::sync::Semaphore;

pub use self::{
    mail::{MailError, MailFolder, Mailer, Postbox, SmtpServer, SmtpUrlError},
    webhooks::{WebhookSecrets, Webhooks},
};
use crate::{
    breaker::{Breaker, Limits},
    causation::{Identity, caused_by},
    clock,
    dead_letters::chain,
    reactor::{Failure, News, Reactor, Surroundings},
};

const IDENTITY: Identity = Identity { source: "/contrail/notifications", actor: "system:notifications" };
/// Where the events are that customers are told of.
const SOURCE: WorkSource = WorkSource::Log(&["order", "payment"]);
/// The channel, as it is recorded.
const EMAIL: &str = "email";
/// How long a mail is left alone that the server puts off: it does so to see whether somebody means it.
const PUT_OFF_PAUSE: Duration = Duration::from_secs(60);
/// How long one is left alone that the server may have taken without saying so: each time that it is sent again, it may arrive again.
const UNANSWERED_PAUSE: Duration = Duration::from_mins(5);
/// How long a mail that is being sent may still take once the process has to end: it has more to do after that, within the drain's deadline.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Pauses between attempts to write down what was told.
const RECORD_PAUSE_MIN: Duration = Duration::from_millis(500);
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(15);

/// The notifications reactor.
#[derive(Debug)]
pub struct Notifications {
    store: JetStreamEventStore,
    mailer: Mailer,
    /// Mails on their way at the same time.
    turns: Semaphore,
    breaker: Breaker,
    drain: Drain,
}

impl Notifications {
    /// Sends through `mailer` what the log says has happened.
    pub fn new(mailer: Mailer, surroundings: &Surroundings) -> Self {
        let Surroundings { store, metrics, health, drain, .. } = surroundings.clone();
        let (turns, breaker) = (Semaphore::new(mailer.at_once()), Breaker::new("mail", Limits::default(), &metrics, &health));
        Self { store, mailer, turns, breaker, drain }
    }
}

/// What is told about an event of this type, if anything.
fn topic(event_type: &str) -> Option<Topic> {
    match event_type {
        "contrail.order.confirmed.v1" => Some(Topic::OrderConfirmed),
        "contrail.order.rejected.v1" => Some(Topic::OrderRejected),
        "contrail.order.cancelled.v1" => Some(Topic::OrderCancelled),
        "contrail.order.shipped.v1" => Some(Topic::OrderShipped),
        "contrail.order.delivered.v1" => Some(Topic::OrderDelivered),
        "contrail.payment.refunded.v1" => Some(Topic::PaymentRefunded),
        _ => None,
    }
}

/// Something that is to be told, and was not yet.
struct Due {
    topic: Topic,
    order_id: OrderId,
    id: NotificationId,
}

/// What is to be told over `channel` about `cause`, if anything.
async fn due(store: &JetStreamEventStore, cause: &Metadata, channel: &str, news: News) -> Result<Option<Due>, Failure> {
    let Some(topic) = topic(&cause.event_type) else { return Ok(None) };
    let order_id = cause.aggregate_id.parse().map_err(Failure::permanent)?;
    let id = NotificationId::derive(cause.event_id, channel);
    let is_told = news != News::Fresh && is_recorded(store, id).await?;
    Ok((!is_told).then_some(Due { topic, order_id, id }))
}

impl Reactor for Notifications {
    const NAME: &'static str = "notifications";
    const SOURCE: WorkSource = SOURCE;
    // Most of an event's time is the append, which costs next to nothing while it waits for its group.
    const CONCURRENCY: usize = 1_024;

    fn wants(&self, event_type: &str) -> bool {
        topic(event_type).is_some()
    }

    fn breaker(&self) -> Option<&Breaker> {
        Some(&self.breaker)
    }

    async fn handle(&self, event: &StoredEvent, news: News) -> Result<(), Failure> {
        let cause = &event.metadata;
        let Some(Due { topic, order_id, id }) = due(&self.store, cause, EMAIL, news).await? else { return Ok(()) };
        let is_fresh = news == News::Fresh;
        let order = self.order_after(cause, topic, is_fresh).await?;
        let message = message::compose(id, order_id, &order, topic).ok_or_else(|| Failure::permanent(NotPlaced))?;
        let mail = match self.mailer.compose(&message) {
            Ok(mail) => mail,
            // Nobody needs to be asked about that.
            Err(error) => {
                return record(&self.store, &self.drain, id, cause, outcome(order_id, topic, EMAIL, Some(error.to_string()))).await;
            }
        };
        // The breaker may have opened while this waited for its turn.
        let turn = tokio::select! {
            biased;
            () = self.drain.started() => return Err(Failure::not_tried(Draining)),
            turn = self.turns.acquire() => turn.expect("the semaphore is never closed"),
        };
        // Another instance may have been handed it, too, and have told it while this one waited.
        if !is_fresh && is_recorded(&self.store, id).await? {
            return Ok(());
        }
        let call = self.breaker.admit().await.map_err(Failure::not_tried)?;
        if self.drain.is_started() {
            return Err(Failure::not_tried(Draining));
        }
        let mut sending = Span::after(Kind::Client, "send mail", trace::current()).with("contrail.notification.channel", EMAIL);
        let ending = async {
            self.drain.started().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        let sent = tokio::select! {
            sent = self.mailer.send(&mail) => sent,
            // Whoever comes next sends it again, under the same id.
            () = ending => return Err(Failure::not_tried(Draining)),
        };
        if let Err(error) = &sent {
            sending.fail(error);
        }
        drop(sending);
        drop(turn);
        match &sent {
            Err(error) if error.is_of_the_postbox() => call.failed(None),
            _ => call.worked(),
        }
        let reason = match sent {
            Ok(()) => None,
            Err(error @ (MailError::Unaddressable(_) | MailError::Refused { .. })) => Some(error.to_string()),
            Err(error @ MailError::PutOff { .. }) => {
                return Err(Failure::Transient { source: Box::new(error), retry_after: Some(PUT_OFF_PAUSE) });
            }
            Err(error @ MailError::Unanswered(_)) => {
                return Err(Failure::Transient { source: Box::new(error), retry_after: Some(UNANSWERED_PAUSE) });
            }
            Err(error @ MailError::Away { .. }) => return Err(Failure::transient(error)),
        };
        record(&self.store, &self.drain, id, cause, outcome(order_id, topic, EMAIL, reason)).await
    }
}

impl Notifications {
    /// The order as it was after the event at least: one that is behind may lack the parcel's number.
    async fn order_after(&self, cause: &Metadata, topic: Topic, is_fresh: bool) -> Result<Order, Failure> {
        let id = &cause.aggregate_id;
        // Only the order's own events say how far the order must be.
        if is_fresh
            && topic != Topic::PaymentRefunded
            && let Some(order) = self.store.recall::<Order>(id).filter(|order| order.version >= cause.version)
        {
            return Ok(order.aggregate);
        }
        let mut order = Loaded::default();
        self.store.refresh(id, &mut order).await.map_err(Failure::of_load)?;
        Ok(order.aggregate)
    }
}

/// Whether it was told already, by the leader's account: a follower that is behind may lack it.
async fn is_recorded(store: &JetStreamEventStore, id: NotificationId) -> Result<bool, Failure> {
    let mut known = Loaded::<Notification>::default();
    store.refresh(&id.to_string(), &mut known).await.map_err(Failure::of_load)?;
    Ok(known.aggregate != Notification::Pending)
}

/// That it was told, or the reason why it cannot be.
fn outcome(order_id: OrderId, topic: Topic, channel: &str, reason: Option<String>) -> NotificationCommand {
    let (channel, now) = (channel.to_owned(), clock::now());
    match reason {
        None => NotificationCommand::RecordSent(notification::RecordSent { order_id, topic, channel, sent_at: now }),
        Some(reason) => {
            NotificationCommand::RecordFailed(notification::RecordFailed { order_id, topic, channel, reason, failed_at: now })
        }
    }
}

/// Writes down what came of it, however long the log does not take that: to begin again with the event would be to tell it again, each
/// time. Only the end of the process ends this.
async fn record(
    store: &JetStreamEventStore,
    drain: &Drain,
    id: NotificationId,
    cause: &Metadata,
    command: NotificationCommand,
) -> Result<(), Failure> {
    let (context, _sending) = caused_by(cause, &IDENTITY, clock::now());
    let mut pause = RECORD_PAUSE_MIN;
    loop {
        let decide = |loaded: &Loaded<Notification>| notification::decide(&loaded.aggregate, command.clone());
        let error = match store.execute_new(&id.to_string(), &context, decide).await {
            Ok(_) | Err(ExecuteError::Rejected(_)) => return Ok(()),
            // Neither goes by.
            Err(ExecuteError::Load(error @ (LoadError::Decode { .. } | LoadError::Version { .. } | LoadError::InvalidId(_)))) => {
                return Err(Failure::permanent(error));
            }
            Err(ExecuteError::Append(error @ AppendError::Invalid(_))) => return Err(Failure::permanent(error)),
            Err(error) => error,
        };
        tracing::warn!(notification = %id, "{} was told, and the log does not take that: {}", cause.event_type, chain(&error).join(": "));
        tokio::select! {
            biased;
            () = drain.started() => return Err(Failure::not_tried(error)),
            () = tokio::time::sleep(pause) => pause = RECORD_PAUSE_MAX.min(pause * 2),
        }
    }
}

/// Whoever comes next has to do it.
#[derive(Debug, thiserror::Error)]
#[error("the reactor is draining and tells nobody any more")]
struct Draining;

#[derive(Debug, thiserror::Error)]
#[error("the order was never placed")]
struct NotPlaced;
