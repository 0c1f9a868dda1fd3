//! What an order is now: the fold of its events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Cause, Customer, Line, OrderEvent, Shortage};
use crate::{Money, RecentRequests, Sku};

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Accepted; stock not yet decided.
    Placed,
    /// Stock is set aside; payment outstanding.
    Reserved,
    /// Paid.
    Confirmed,
    /// With the carrier.
    Shipped,
    /// Arrived. Final.
    Delivered,
    /// Not enough stock. Final.
    Rejected,
    /// Called off. Final.
    Cancelled,
}

impl OrderStatus {
    /// As the APIs write it: `PLACED`, `RESERVED`, ….
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "PLACED",
            Self::Reserved => "RESERVED",
            Self::Confirmed => "CONFIRMED",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
            Self::Rejected => "REJECTED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// An order; [`Order::default`] is one that was never placed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Where it stands; `None` before it is placed.
    pub status: Option<OrderStatus>,
    /// What was placed.
    pub placement: Option<Placement>,
    /// Until when it must be paid, once stock is reserved.
    #[serde(with = "time::serde::rfc3339::option")]
    pub payment_due_at: Option<OffsetDateTime>,
    /// The gateway's id of the captured payment, once confirmed.
    pub payment_intent_id: Option<String>,
    /// What was short, if rejected.
    pub shortages: Vec<Shortage>,
    /// How it was called off, if it was.
    pub cancellation: Option<Cancellation>,
    /// How it was shipped, if it was.
    pub shipment: Option<Shipment>,
    /// The client requests that led here.
    pub requests: RecentRequests,
}

/// What the checkout asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// Who buys.
    pub customer: Customer,
    /// What is bought.
    pub lines: Vec<Line>,
    /// What it costs.
    pub total: Money,
    /// The gateway's name of the card or account to charge.
    pub payment_method: String,
    /// When it was placed.
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
}

impl Placement {
    /// How many pieces of each SKU the order needs; two lines of one SKU add up.
    pub fn quantities(&self) -> BTreeMap<Sku, u64> {
        let mut quantities = BTreeMap::new();
        for line in &self.lines {
            let quantity: &mut u64 = quantities.entry(line.sku.clone()).or_default();
            *quantity = quantity.saturating_add(u64::from(line.quantity));
        }
        quantities
    }
}

/// How an order was called off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Who or what.
    pub cause: Cause,
    /// Why, in words for people.
    pub reason: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub cancelled_at: OffsetDateTime,
}

/// How an order was shipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipment {
    /// Who carries it.
    pub carrier: String,
    /// The carrier's number.
    pub tracking_number: String,
    /// When it left.
    #[serde(with = "time::serde::rfc3339")]
    pub shipped_at: OffsetDateTime,
    /// When it arrived.
    #[serde(with = "time::serde::rfc3339::option")]
    pub delivered_at: Option<OffsetDateTime>,
}

impl Order {
    /// Whether stock was ever set aside for it: that is when it is told until when to pay.
    pub const fn was_reserved(&self) -> bool {
        self.payment_due_at.is_some()
    }

    /// Whether, at the time `now`, it should have been paid and is not.
    pub fn is_overdue(&self, now: OffsetDateTime) -> bool {
        self.status == Some(OrderStatus::Reserved) && self.payment_due_at.is_some_and(|due_at| now >= due_at)
    }

    /// Folds one event in. Total: whatever the log holds, in whatever order, gives a state.
    pub fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed(placed) => {
                self.status = Some(OrderStatus::Placed);
                self.placement = Some(Placement {
                    customer: placed.customer.clone(),
                    lines: placed.lines.clone(),
                    total: placed.total(),
                    payment_method: placed.payment_method.clone(),
                    placed_at: placed.placed_at,
                });
                self.requests.remember(Some(&placed.request), ());
            }
            OrderEvent::StockReserved(reserved) => {
                self.status = Some(OrderStatus::Reserved);
                self.payment_due_at = Some(reserved.payment_due_at);
            }
            OrderEvent::Rejected(rejected) => {
                self.status = Some(OrderStatus::Rejected);
                self.shortages.clone_from(&rejected.shortages);
            }
            OrderEvent::Confirmed(confirmed) => {
                self.status = Some(OrderStatus::Confirmed);
                self.payment_intent_id = Some(confirmed.payment_intent_id.clone());
            }
            OrderEvent::Cancelled(cancelled) => {
                self.status = Some(OrderStatus::Cancelled);
                self.cancellation = Some(Cancellation {
                    cause: cancelled.cause,
                    reason: cancelled.reason.clone(),
                    cancelled_at: cancelled.cancelled_at,
                });
                self.requests.remember(cancelled.request.as_ref(), ());
            }
            OrderEvent::Shipped(shipped) => {
                self.status = Some(OrderStatus::Shipped);
                self.shipment = Some(Shipment {
                    carrier: shipped.carrier.clone(),
                    tracking_number: shipped.tracking_number.clone(),
                    shipped_at: shipped.shipped_at,
                    delivered_at: None,
                });
                self.requests.remember(shipped.request.as_ref(), ());
            }
            OrderEvent::Delivered(delivered) => {
                self.status = Some(OrderStatus::Delivered);
                if let Some(shipment) = &mut self.shipment {
                    shipment.delivered_at = Some(delivered.delivered_at);
                }
                self.requests.remember(delivered.request.as_ref(), ());
            }
        }
    }
}
