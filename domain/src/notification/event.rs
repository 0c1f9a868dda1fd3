//! What can have happened to a notification. These shapes are stored for ever: see `domain/tests/golden/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{OrderId, codec::event_enum, rfc3339::Rfc3339};

event_enum! {
    /// Any event of a notification.
    pub enum NotificationEvent {
        /// See [`NotificationSent`].
        Sent(NotificationSent) = "contrail.notification.sent.v1",
        /// See [`NotificationFailed`].
        Failed(NotificationFailed) = "contrail.notification.failed.v1",
    }
}

/// What a message tells the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// The order is paid and will be shipped.
    OrderConfirmed,
    /// Stock did not suffice.
    OrderRejected,
    /// The order was called off.
    OrderCancelled,
    /// The parcel is on its way.
    OrderShipped,
    /// The parcel arrived.
    OrderDelivered,
    /// The money was given back.
    PaymentRefunded,
}

/// The channel took the message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationSent {
    /// The order that it is about.
    pub order_id: OrderId,
    /// What it says.
    pub topic: Topic,
    /// How it went, for example `email`.
    pub channel: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub sent_at: OffsetDateTime,
}

/// The channel refused the message for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationFailed {
    /// The order that it is about.
    pub order_id: OrderId,
    /// What it would have said.
    pub topic: Topic,
    /// How it would have gone, for example `email`.
    pub channel: String,
    /// Why it could not be sent.
    pub reason: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub failed_at: OffsetDateTime,
}
