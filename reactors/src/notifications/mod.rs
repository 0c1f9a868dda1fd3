//! Tells customers what became of their orders, once each.
//!
//! A notification's id is derived from the event that it is about, so a redelivered event finds that it was sent. The
//! message's own id is the same on every try, and a file is replaced by itself, so even a crash between sending and
//! recording shows the customer one message.

mod mail;
mod message;

use domain::{
    NotificationId,
    envelope::StoredEvent,
    notification::{self, Notification, NotificationCommand, Topic},
    order::Order,
};
use event_store::{ExecuteError, JetStreamEventStore, LoadError, Loaded};

pub use self::mail::{MailError, MailFolder};
use crate::{
    causation::{Identity, caused_by},
    clock,
    reactor::{Failure, Reactor},
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
    const CONCURRENCY: usize = 32;

    fn wants(&self, event_type: &str) -> bool {
        topic(event_type).is_some()
    }

    async fn handle(&self, event: &StoredEvent) -> Result<(), Failure> {
        let cause = &event.metadata;
        let Some(topic) = topic(&cause.event_type) else { return Ok(()) };
        let order_id = cause.aggregate_id.parse().map_err(Failure::permanent)?;
        let id = NotificationId::derive(cause.event_id, EMAIL);
        let aggregate_id = id.to_string();
        // By the leader's account: a follower that is behind may lack the parcel's number, or that this was sent before.
        let (mut order, mut known) = (Loaded::<Order>::default(), Loaded::<Notification>::default());
        let refreshed =
            tokio::try_join!(self.store.refresh(&cause.aggregate_id, &mut order), self.store.refresh(&aggregate_id, &mut known),);
        refreshed.map_err(load_failure)?;
        if known.aggregate != Notification::Pending {
            return Ok(());
        }
        let message = message::compose(id, order_id, &order.aggregate, topic).ok_or_else(|| Failure::permanent(NotPlaced))?;
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
        match self.store.execute(&aggregate_id, &context, decide).await {
            Ok(_) | Err(ExecuteError::Rejected(_)) => Ok(()),
            Err(error) => Err(Failure::transient(error)),
        }
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
