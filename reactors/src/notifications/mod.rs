//! Tells customers what became of their orders, once each.
//!
//! A notification's id is derived from the event that it is about, so a redelivered event finds that it was sent. The
//! message's own id is the same on every try, and a file is replaced by itself, so even a crash between sending and
//! recording shows the customer one message.

mod mail;
mod message;

use domain::{
    NotificationId,
    envelope::{Metadata, StoredEvent},
    notification::{self, Notification, NotificationCommand, Topic},
    order::Order,
};
use event_store::{ExecuteError, JetStreamEventStore, LoadError, Loaded};

pub use self::mail::{MailError, MailFolder};
use crate::{
    causation::{Identity, caused_by},
    clock,
    reactor::{Failure, News, Reactor},
};

const IDENTITY: Identity = Identity { source: "/contrail/notifications", actor: "system:notifications" };
/// The one channel so far.
const EMAIL: &str = "email";

/// The notifications reactor.
#[derive(Debug)]
pub struct Notifications {
    store: JetStreamEventStore,
    mail: MailFolder,
}

impl Notifications {
    /// Sends through `mail` what `store` says has happened.
    pub fn new(store: JetStreamEventStore, mail: MailFolder) -> Self {
        Self { store, mail }
    }
}

/// What a customer is told about an event of this type, if anything.
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

impl Reactor for Notifications {
    const NAME: &'static str = "notifications";
    const AGGREGATE_TYPES: &'static [&'static str] = &["order", "payment"];
    // Most of an event's time is the append, which costs next to nothing while it waits for its group.
    const CONCURRENCY: usize = 1_024;

    fn wants(&self, event_type: &str) -> bool {
        topic(event_type).is_some()
    }

    async fn handle(&self, event: &StoredEvent, news: News) -> Result<(), Failure> {
        let cause = &event.metadata;
        let Some(topic) = topic(&cause.event_type) else { return Ok(()) };
        let order_id = cause.aggregate_id.parse().map_err(Failure::permanent)?;
        let id = NotificationId::derive(cause.event_id, EMAIL);
        let aggregate_id = id.to_string();
        let is_fresh = news == News::Fresh;
        if !is_fresh && self.is_recorded(&aggregate_id).await? {
            return Ok(());
        }
        let order = self.order_after(cause, topic, is_fresh).await?;
        let message = message::compose(id, order_id, &order, topic).ok_or_else(|| Failure::permanent(NotPlaced))?;
        let command = match self.mail.send(&message).await {
            Ok(()) => NotificationCommand::RecordSent(notification::RecordSent {
                order_id,
                topic,
                channel: EMAIL.to_owned(),
                sent_at: clock::now(),
            }),
            Err(error @ MailError::Message(_)) => NotificationCommand::RecordFailed(notification::RecordFailed {
                order_id,
                topic,
                channel: EMAIL.to_owned(),
                reason: error.to_string(),
                failed_at: clock::now(),
            }),
            Err(error @ MailError::Folder(_)) => return Err(Failure::transient(error)),
        };
        let context = caused_by(cause, &IDENTITY, clock::now());
        let decide = |loaded: &Loaded<Notification>| notification::decide(&loaded.aggregate, command.clone());
        match self.store.execute_new(&aggregate_id, &context, decide).await {
            Ok(_) | Err(ExecuteError::Rejected(_)) => Ok(()),
            Err(error) => Err(Failure::transient(error)),
        }
    }
}

impl Notifications {
    /// Whether the customer was told already, by the leader's account: a follower that is behind may lack it.
    async fn is_recorded(&self, id: &str) -> Result<bool, Failure> {
        let mut known = Loaded::<Notification>::default();
        self.store.refresh(id, &mut known).await.map_err(load_failure)?;
        Ok(known.aggregate != Notification::Pending)
    }

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
        self.store.refresh(id, &mut order).await.map_err(load_failure)?;
        Ok(order.aggregate)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the order was never placed")]
struct NotPlaced;

fn load_failure(error: LoadError) -> Failure {
    match error {
        LoadError::Read(_) => Failure::transient(error),
        _ => Failure::permanent(error),
    }
}
