//! What an order is made of.

use async_graphql::{Enum, ID, SimpleObject};
use domain::Currency;
use domain::notification::{Notification as DomainNotification, Topic};
use domain::order::{self, Cause, Shortage as DomainShortage};
use read_store::views::{CustomerView, LineView, NotificationView, PaymentView, RejectionView};
use time::OffsetDateTime;

use super::PaymentStatus;
use crate::schema::arguments::inner_list_cost;
use crate::schema::money::Money;
use crate::schema::scalars::{Position, int};

/// Who buys.
#[derive(SimpleObject)]
pub(super) struct Customer {
    /// The shop's own id of the customer.
    id: ID,
    /// Where notifications go.
    email: String,
    /// How to address them.
    name: String,
}

impl From<&CustomerView> for Customer {
    fn from(customer: &CustomerView) -> Self {
        Self { id: ID(customer.id.clone()), email: customer.email.clone(), name: customer.name.clone() }
    }
}

/// So many pieces of one SKU at one price.
#[derive(SimpleObject)]
pub(super) struct OrderLine {
    /// What, by its stock keeping unit.
    sku: String,
    /// How many pieces.
    quantity: i32,
    /// The price of one piece.
    unit_price: Money,
    /// The price of all of them.
    total: Money,
}

impl OrderLine {
    pub(super) fn new(line: &LineView, currency: Currency) -> Self {
        let unit_price = domain::Money::new(line.unit_price_minor, currency);
        // An order is refused when it is placed if a line's total does not fit.
        let total = line.unit_price_minor.saturating_mul(i64::from(line.quantity));
        Self {
            sku: line.sku.clone(),
            quantity: int(line.quantity),
            unit_price: unit_price.into(),
            total: domain::Money::new(total, currency).into(),
        }
    }
}

/// Why an order was rejected.
#[derive(SimpleObject)]
pub(super) struct Rejection {
    /// What was short, at least one.
    #[graphql(complexity = "inner_list_cost(child_complexity)")]
    shortages: Vec<Shortage>,
    /// When it was rejected.
    rejected_at: OffsetDateTime,
}

/// Too little of one SKU.
#[derive(SimpleObject)]
pub(super) struct Shortage {
    /// Of what.
    sku: String,
    /// How many pieces the order wanted.
    requested: i32,
    /// How many could be had when it was decided.
    available: i32,
}

impl From<&RejectionView> for Rejection {
    fn from(rejection: &RejectionView) -> Self {
        let shortages = rejection.shortages.iter().map(Shortage::from).collect();
        Self { shortages, rejected_at: rejection.rejected_at }
    }
}

impl From<&DomainShortage> for Shortage {
    fn from(shortage: &DomainShortage) -> Self {
        Self { sku: shortage.sku.to_string(), requested: int(shortage.requested), available: int(shortage.available) }
    }
}

/// How an order was called off.
#[derive(SimpleObject)]
pub(super) struct Cancellation {
    /// Who or what called it off.
    cause: CancellationCause,
    /// Why, in words for people.
    reason: String,
    /// When.
    cancelled_at: OffsetDateTime,
}

/// Who or what called an order off.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Cause")]
pub(super) enum CancellationCause {
    /// The customer, or a checkout on their behalf.
    Customer,
    /// Somebody of the shop.
    Operator,
    /// The card or account was refused.
    PaymentDeclined,
    /// It was not paid in time.
    PaymentDeadline,
}

impl From<&order::Cancellation> for Cancellation {
    fn from(cancellation: &order::Cancellation) -> Self {
        Self { cause: cancellation.cause.into(), reason: cancellation.reason.clone(), cancelled_at: cancellation.cancelled_at }
    }
}

/// How an order was shipped.
#[derive(SimpleObject)]
pub(super) struct Shipment {
    /// Who carries it.
    carrier: String,
    /// The carrier's number.
    tracking_number: String,
    /// When it left.
    shipped_at: OffsetDateTime,
    /// When it arrived; null while it is on its way.
    delivered_at: Option<OffsetDateTime>,
}

impl From<&order::Shipment> for Shipment {
    fn from(shipment: &order::Shipment) -> Self {
        Self {
            carrier: shipment.carrier.clone(),
            tracking_number: shipment.tracking_number.clone(),
            shipped_at: shipment.shipped_at,
            delivered_at: shipment.delivered_at,
        }
    }
}

/// What the payment gateway did.
#[derive(SimpleObject)]
#[expect(clippy::struct_field_names, reason = "a payment intent is what the gateway calls it")]
pub(super) struct Payment {
    /// Where the payment stands.
    status: PaymentStatus,
    /// The gateway's id of the payment, if the money was taken.
    payment_intent_id: Option<String>,
    /// How much was taken.
    amount: Option<Money>,
    /// When it was taken.
    captured_at: Option<OffsetDateTime>,
    /// The gateway's code, for example card_declined, if it was refused.
    decline_code: Option<String>,
    /// The gateway's words, if it was refused.
    decline_message: Option<String>,
    /// When it was refused.
    declined_at: Option<OffsetDateTime>,
    /// The gateway's id of the refund, if the money was given back.
    refund_id: Option<String>,
    /// How much was given back.
    refunded_amount: Option<Money>,
    /// When it was given back.
    refunded_at: Option<OffsetDateTime>,
    /// Why it does not go on, if it does not: somebody has to look into it. Null as soon as the gateway has answered after all.
    failure: Option<PaymentFailure>,
}

/// Why a payment does not go on.
#[derive(SimpleObject)]
pub(super) struct PaymentFailure {
    /// Why, in words for people.
    reason: String,
    /// When it was given up.
    given_up_at: OffsetDateTime,
    /// Which event of the order could not be handled; part of the name of its dead letter.
    position: Position,
}

impl Payment {
    pub(super) fn new(payment: &PaymentView, status: PaymentStatus) -> Self {
        Self {
            status,
            payment_intent_id: payment.payment_intent_id.clone(),
            amount: payment.amount.map(Money::from),
            captured_at: payment.captured_at,
            decline_code: payment.decline_code.clone(),
            decline_message: payment.decline_message.clone(),
            declined_at: payment.declined_at,
            refund_id: payment.refund_id.clone(),
            refunded_amount: payment.refunded_amount.map(Money::from),
            refunded_at: payment.refunded_at,
            failure: payment.failure.as_ref().map(|failure| PaymentFailure {
                reason: failure.reason.clone(),
                given_up_at: failure.given_up_at,
                position: Position(failure.position),
            }),
        }
    }
}

/// One message to the customer over one channel.
#[derive(SimpleObject)]
pub(super) struct Notification {
    /// The notification's own id, a UUID; its events in the audit trail have it as aggregateId.
    id: ID,
    /// What it says.
    topic: NotificationTopic,
    /// How it went, for example email.
    channel: String,
    /// Whether it went.
    status: NotificationStatus,
    /// Why it did not go; null if it went.
    reason: Option<String>,
    /// When it went, or was refused.
    at: OffsetDateTime,
}

/// What a message tells the customer.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Topic")]
pub(super) enum NotificationTopic {
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

/// Whether a message went.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "DomainNotification")]
pub(super) enum NotificationStatus {
    /// It is not yet recorded.
    Pending,
    /// The channel took it. Final.
    Sent,
    /// The channel refused it for good.
    Failed,
}

impl From<&NotificationView> for Notification {
    fn from(notification: &NotificationView) -> Self {
        Self {
            id: ID(notification.id.clone()),
            topic: notification.topic.into(),
            channel: notification.channel.clone(),
            status: notification.status.into(),
            reason: notification.reason.clone(),
            at: notification.at,
        }
    }
}
