//! What the notifications reactor reports of a channel.

use time::OffsetDateTime;

use super::Topic;
use crate::OrderId;

/// Any command to a notification.
#[derive(Clone, Debug, PartialEq)]
pub enum NotificationCommand {
    /// See [`RecordSent`].
    RecordSent(RecordSent),
    /// See [`RecordFailed`].
    RecordFailed(RecordFailed),
}

/// The channel took the message.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordSent {
    /// The order that it is about.
    pub order_id: OrderId,
    /// What it says.
    pub topic: Topic,
    /// How it went, for example `email`.
    pub channel: String,
    /// When.
    pub sent_at: OffsetDateTime,
}

/// The channel refused the message for good.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordFailed {
    /// The order that it is about.
    pub order_id: OrderId,
    /// What it says.
    pub topic: Topic,
    /// How it would have gone, for example `email`.
    pub channel: String,
    /// Why it could not be sent.
    pub reason: String,
    /// When.
    pub failed_at: OffsetDateTime,
}
