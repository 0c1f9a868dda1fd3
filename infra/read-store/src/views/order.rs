//! An order as queries see it: the order itself, its payment, and what the customer was told.

use cqrs_es::{EventEnvelope, View};
use domain::{
    Money,
    notification::{Notification, NotificationEvent, Topic},
    order::{Cancellation, Order, OrderEvent, OrderStatus, Shipment, Shortage},
    payment::{Payment, PaymentEvent, PaymentStatus},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::envelope::Stamp;

/// The payload of a row of `contrail.orders`.
///
/// Version 0 is an order that was never placed; no such row is stored, and its other fields mean nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderView {
    /// Which order.
    pub order_id: String,
    /// Where it stands. Never goes backwards.
    pub status: OrderStatus,
    /// Where its payment stands. Never goes backwards.
    pub payment_status: PaymentStatus,
    /// Who buys.
    pub customer: CustomerView,
    /// What is bought.
    pub lines: Vec<LineView>,
    /// What it costs.
    pub total: Money,
    /// When it was placed.
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
    /// When the last event was appended that is folded in: the order's, its payment's or a notification's.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// The order's own version: the last of its own events that is folded in.
    pub version: u64,
    /// Where the last event that is folded in stands in the log: the order's, its payment's or a notification's.
    pub position: u64,
    /// When stock was set aside, if it was.
    #[serde(with = "time::serde::rfc3339::option")]
    pub reserved_at: Option<OffsetDateTime>,
    /// Until when it must be paid, once stock is set aside.
    #[serde(with = "time::serde::rfc3339::option")]
    pub payment_due_at: Option<OffsetDateTime>,
    /// When it was confirmed, if it was.
    #[serde(with = "time::serde::rfc3339::option")]
    pub confirmed_at: Option<OffsetDateTime>,
    /// Why it was rejected, if it was.
    pub rejection: Option<RejectionView>,
    /// How it was called off, if it was.
    pub cancellation: Option<Cancellation>,
    /// How it was shipped, if it was.
    pub shipment: Option<Shipment>,
    /// What the gateway did, if it answered.
    pub payment: Option<PaymentView>,
    /// What the customer was told, or could not be told, oldest first.
    pub notifications: Vec<NotificationView>,
}

/// Who buys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerView {
    /// The shop's id of the customer.
    pub id: String,
    /// How to address them.
    pub name: String,
    /// Where notifications go.
    pub email: String,
}

/// So many pieces of one SKU at one price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineView {
    /// What.
    pub sku: String,
    /// How many.
    pub quantity: u32,
    /// The price of one, in minor units of the currency of [`OrderView::total`].
    pub unit_price_minor: i64,
}

/// Why an order was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectionView {
    /// What was short.
    pub shortages: Vec<Shortage>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub rejected_at: OffsetDateTime,
}

/// What the gateway did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PaymentView {
    /// The payment's own version: the last of its events that is folded in.
    pub version: u64,
    /// The gateway's id of the payment, if the money was taken.
    pub payment_intent_id: Option<String>,
    /// How much was taken.
    pub amount: Option<Money>,
    /// When it was taken.
    #[serde(with = "time::serde::rfc3339::option")]
    pub captured_at: Option<OffsetDateTime>,
    /// The gateway's code, if it was refused.
    pub decline_code: Option<String>,
    /// The gateway's words, if it was refused.
    pub decline_message: Option<String>,
    /// When it was refused.
    #[serde(with = "time::serde::rfc3339::option")]
    pub declined_at: Option<OffsetDateTime>,
    /// The gateway's id of the refund, if the money was given back.
    pub refund_id: Option<String>,
    /// How much was given back.
    pub refunded_amount: Option<Money>,
    /// When it was given back.
    #[serde(with = "time::serde::rfc3339::option")]
    pub refunded_at: Option<OffsetDateTime>,
    /// Why the payments reactor gave up, unless the gateway has answered since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<PaymentFailureView>,
}

/// What the payments reactor gave up on: there is a dead letter about it, unless somebody has discarded that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentFailureView {
    /// The event's place in the log.
    pub position: u64,
    /// Why.
    pub reason: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub given_up_at: OffsetDateTime,
}

/// One message to the customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationView {
    /// Which notification.
    pub id: String,
    /// The notification's own version.
    pub version: u64,
    /// What it says.
    pub topic: Topic,
    /// How it went, for example `email`.
    pub channel: String,
    /// Whether it went.
    pub status: Notification,
    /// Why it did not go, if it did not.
    pub reason: Option<String>,
    /// When it went or was refused.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl Default for OrderView {
    fn default() -> Self {
        Self {
            order_id: String::new(),
            status: OrderStatus::Placed,
            payment_status: PaymentStatus::None,
            customer: CustomerView::default(),
            lines: Vec::new(),
            total: Money::new(0, "EUR".parse().expect("EUR is a currency of ISO 4217")),
            placed_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            version: 0,
            position: 0,
            reserved_at: None,
            payment_due_at: None,
            confirmed_at: None,
            rejection: None,
            cancellation: None,
            shipment: None,
            payment: None,
            notifications: Vec::new(),
        }
    }
}

impl OrderView {
    /// The notification of that id.
    pub fn notification(&self, id: &str) -> Option<&NotificationView> {
        self.notifications.iter().find(|notification| notification.id == id)
    }

    /// The SKUs of its lines, each once, sorted.
    pub fn skus(&self) -> Vec<&str> {
        let mut skus: Vec<_> = self.lines.iter().map(|line| &*line.sku).collect();
        skus.sort_unstable();
        skus.dedup();
        skus
    }
}

impl OrderView {
    /// Folds an event of the order itself in.
    pub fn fold_order(&mut self, order_id: &str, event: &OrderEvent, stamp: &Stamp) {
        if stamp.version <= self.version {
            return;
        }
        match event {
            OrderEvent::Placed(placed) => {
                order_id.clone_into(&mut self.order_id);
                self.status = OrderStatus::Placed;
                self.customer = CustomerView {
                    id: placed.customer.id.to_string(),
                    name: placed.customer.name.clone(),
                    email: placed.customer.email.clone(),
                };
                self.lines = placed
                    .lines
                    .iter()
                    .map(|line| LineView {
                        sku: line.sku.to_string(),
                        quantity: line.quantity,
                        unit_price_minor: line.unit_price_minor,
                    })
                    .collect();
                self.total = placed.total();
                self.placed_at = placed.placed_at;
            }
            OrderEvent::StockReserved(reserved) => {
                self.status = OrderStatus::Reserved;
                self.reserved_at = Some(reserved.reserved_at);
                self.payment_due_at = Some(reserved.payment_due_at);
            }
            OrderEvent::Rejected(rejected) => {
                self.status = OrderStatus::Rejected;
                self.rejection = Some(RejectionView { shortages: rejected.shortages.clone(), rejected_at: rejected.rejected_at });
            }
            OrderEvent::Confirmed(confirmed) => {
                self.status = OrderStatus::Confirmed;
                self.confirmed_at = Some(confirmed.confirmed_at);
            }
            OrderEvent::Cancelled(cancelled) => {
                self.status = OrderStatus::Cancelled;
                self.cancellation = Some(Cancellation {
                    cause: cancelled.cause,
                    reason: cancelled.reason.clone(),
                    cancelled_at: cancelled.cancelled_at,
                });
            }
            OrderEvent::Shipped(shipped) => {
                self.status = OrderStatus::Shipped;
                self.shipment = Some(Shipment {
                    carrier: shipped.carrier.clone(),
                    tracking_number: shipped.tracking_number.clone(),
                    shipped_at: shipped.shipped_at,
                    delivered_at: None,
                });
            }
            OrderEvent::Delivered(delivered) => {
                self.status = OrderStatus::Delivered;
                if let Some(shipment) = &mut self.shipment {
                    shipment.delivered_at = Some(delivered.delivered_at);
                }
            }
            // It has no place in the view yet; the order's history, from the audit trail, has every event.
            _ => {}
        }
        self.version = stamp.version;
        stamp.mark(&mut self.position, &mut self.updated_at);
    }

    /// Folds an event of its payment in.
    pub fn fold_payment(&mut self, event: &PaymentEvent, stamp: &Stamp) {
        let payment = self.payment.get_or_insert_default();
        if stamp.version <= payment.version {
            return;
        }
        payment.failure = None;
        match event {
            PaymentEvent::Captured(captured) => {
                self.payment_status = PaymentStatus::Captured;
                payment.payment_intent_id = Some(captured.payment_intent_id.clone());
                payment.amount = Some(captured.amount);
                payment.captured_at = Some(captured.captured_at);
            }
            PaymentEvent::Declined(declined) => {
                self.payment_status = PaymentStatus::Declined;
                payment.decline_code = Some(declined.code.clone());
                payment.decline_message = Some(declined.message.clone());
                payment.declined_at = Some(declined.declined_at);
            }
            PaymentEvent::Refunded(refunded) => {
                self.payment_status = PaymentStatus::Refunded;
                payment.refund_id = Some(refunded.refund_id.clone());
                payment.refunded_amount = Some(refunded.amount);
                payment.refunded_at = Some(refunded.refunded_at);
            }
            PaymentEvent::GivenUp(given_up) => {
                payment.failure = Some(PaymentFailureView {
                    position: given_up.position,
                    reason: given_up.reason.clone(),
                    given_up_at: given_up.given_up_at,
                });
            }
        }
        payment.version = stamp.version;
        stamp.mark(&mut self.position, &mut self.updated_at);
    }

    /// Folds an event of one of its notifications in.
    pub fn fold_notification(&mut self, notification_id: &str, event: &NotificationEvent, stamp: &Stamp) {
        let known = self.notifications.iter().position(|notification| notification.id == notification_id);
        if known.is_some_and(|known| stamp.version <= self.notifications[known].version) {
            return;
        }
        let (topic, channel, status, reason, at) = match event {
            NotificationEvent::Sent(sent) => (sent.topic, &sent.channel, Notification::Sent, None, sent.sent_at),
            NotificationEvent::Failed(failed) => {
                (failed.topic, &failed.channel, Notification::Failed, Some(failed.reason.clone()), failed.failed_at)
            }
        };
        let notification = NotificationView {
            id: notification_id.to_owned(),
            version: stamp.version,
            topic,
            channel: channel.clone(),
            status,
            reason,
            at,
        };
        match known {
            Some(known) => self.notifications[known] = notification,
            None => self.notifications.push(notification),
        }
        stamp.mark(&mut self.position, &mut self.updated_at);
    }
}

impl View<Order> for OrderView {
    fn update(&mut self, envelope: &EventEnvelope<Order>) {
        self.fold_order(&envelope.aggregate_id, &envelope.payload, &Stamp::of(envelope));
    }
}

impl View<Payment> for OrderView {
    fn update(&mut self, envelope: &EventEnvelope<Payment>) {
        self.fold_payment(&envelope.payload, &Stamp::of(envelope));
    }
}

impl View<Notification> for OrderView {
    fn update(&mut self, envelope: &EventEnvelope<Notification>) {
        self.fold_notification(&envelope.aggregate_id, &envelope.payload, &Stamp::of(envelope));
    }
}
