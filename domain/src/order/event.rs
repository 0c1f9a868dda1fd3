//! What can have happened to an order. These shapes are stored for ever: see `domain/tests/golden/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{Currency, CustomerId, Money, Request, Sku, codec::event_enum, rfc3339::Rfc3339};

event_enum! {
    /// Any event of an order.
    ///
    /// An order's story grows more chapters over time: whoever is outside of the domain says what it does about those that
    /// it does not name. (Stock and payments are sums, of which nobody may leave out a term; their events are exhaustive.)
    #[non_exhaustive]
    pub enum OrderEvent {
        /// See [`OrderPlaced`].
        Placed(OrderPlaced) = "contrail.order.placed.v1",
        /// See [`OrderStockReserved`].
        StockReserved(OrderStockReserved) = "contrail.order.stock_reserved.v1",
        /// See [`OrderRejected`].
        Rejected(OrderRejected) = "contrail.order.rejected.v1",
        /// See [`OrderConfirmed`].
        Confirmed(OrderConfirmed) = "contrail.order.confirmed.v1",
        /// See [`OrderCancelled`].
        Cancelled(OrderCancelled) = "contrail.order.cancelled.v1",
        /// See [`OrderShipped`].
        Shipped(OrderShipped) = "contrail.order.shipped.v1",
        /// See [`OrderDelivered`].
        Delivered(OrderDelivered) = "contrail.order.delivered.v1",
    }
}

/// Who buys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Customer {
    /// The shop's id of the customer.
    pub id: CustomerId,
    /// Where notifications go.
    pub email: String,
    /// How to address them.
    pub name: String,
}

/// So many pieces of one SKU at one price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// What.
    pub sku: Sku,
    /// How many, at least 1.
    pub quantity: u32,
    /// The price of one, in minor units of the order's currency.
    pub unit_price_minor: i64,
}

/// A checkout placed the order; the money is not yet taken, the stock not yet reserved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderPlaced {
    /// Who buys.
    pub customer: Customer,
    /// The currency of every price.
    pub currency: Currency,
    /// What is bought.
    pub lines: Vec<Line>,
    /// The sum over the lines, in minor units.
    pub total_minor: i64,
    /// The gateway's name of the card or account to charge.
    pub payment_method: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub placed_at: OffsetDateTime,
    /// The client request that placed it.
    pub request: Request,
}

impl OrderPlaced {
    /// What the customer owes.
    pub fn total(&self) -> Money {
        Money::new(self.total_minor, self.currency)
    }
}

/// Stock for every line is set aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderStockReserved {
    /// When.
    #[serde(with = "Rfc3339")]
    pub reserved_at: OffsetDateTime,
    /// Until when the order must be paid.
    #[serde(with = "Rfc3339")]
    pub payment_due_at: OffsetDateTime,
}

/// Too little of one SKU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shortage {
    /// Of what.
    pub sku: Sku,
    /// How many the order wanted.
    pub requested: u64,
    /// How many could be had when it was decided.
    pub available: i64,
}

/// Stock did not suffice; nothing is reserved, nothing will be charged. Final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderRejected {
    /// What was short.
    pub shortages: Vec<Shortage>,
    /// When.
    #[serde(with = "Rfc3339")]
    pub rejected_at: OffsetDateTime,
}

/// The payment is captured; the order can be shipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderConfirmed {
    /// The gateway's id of the payment.
    pub payment_intent_id: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub confirmed_at: OffsetDateTime,
}

/// Who or what called an order off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The customer, or a checkout on their behalf.
    Customer,
    /// Somebody of the shop.
    Operator,
    /// The card or account was refused.
    PaymentDeclined,
    /// It was not paid in time.
    PaymentDeadline,
}

/// The order is called off; its stock is released and its money given back. Final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCancelled {
    /// Who or what.
    pub cause: Cause,
    /// Why, in words for people.
    pub reason: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub cancelled_at: OffsetDateTime,
    /// The client request, if a client asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// The parcel is with a carrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderShipped {
    /// Who carries it.
    pub carrier: String,
    /// The carrier's number.
    pub tracking_number: String,
    /// When.
    #[serde(with = "Rfc3339")]
    pub shipped_at: OffsetDateTime,
    /// The client request, if a client asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// The parcel arrived. Final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrderDelivered {
    /// When.
    #[serde(with = "Rfc3339")]
    pub delivered_at: OffsetDateTime,
    /// The client request, if a client asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}
