//! What successful requests are answered: shapes of the API, converted by hand from the domain's.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header::ETAG},
    response::{IntoResponse, Response},
};
use domain::{
    Money, OrderId, Sku,
    order::{self, Order},
    stock::StockLevel,
};
use event_store::Loaded;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    command::Outcome,
    headers::IDEMPOTENT_REPLAYED,
    precondition::{etag, is_known_to_client},
};

/// The answer to a command.
pub(crate) fn answer(status: StatusCode, version: u64, replayed: bool, body: &impl Serialize) -> Response {
    let mut response = (status, [(ETAG, etag(version))], Json(body)).into_response();
    if replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The answer to a query: 304 without a body if the client has this version already.
pub(crate) fn read_answer(headers: &HeaderMap, version: u64, body: &impl Serialize) -> Response {
    if is_known_to_client(headers, version) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, etag(version))]).into_response();
    }
    answer(StatusCode::OK, version, false, body)
}

/// Where an order stands: `PLACED → RESERVED → CONFIRMED → SHIPPED → DELIVERED`, or `REJECTED` (not enough stock), or
/// `CANCELLED` (from any state before `SHIPPED`).
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum OrderStatus {
    Placed,
    Reserved,
    Confirmed,
    Shipped,
    Delivered,
    Rejected,
    Cancelled,
}

impl From<order::OrderStatus> for OrderStatus {
    fn from(status: order::OrderStatus) -> Self {
        match status {
            order::OrderStatus::Placed => Self::Placed,
            order::OrderStatus::Reserved => Self::Reserved,
            order::OrderStatus::Confirmed => Self::Confirmed,
            order::OrderStatus::Shipped => Self::Shipped,
            order::OrderStatus::Delivered => Self::Delivered,
            order::OrderStatus::Rejected => Self::Rejected,
            order::OrderStatus::Cancelled => Self::Cancelled,
        }
    }
}

/// An order right after a command.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "order_id": "3b0e4f6c-5d2a-5c1e-8f7b-0a9d8c7b6a50", "status": "PLACED", "version": 1, "position": 1042,
}))]
pub(crate) struct OrderAnswer {
    /// Derived from the caller and the `Idempotency-Key`.
    order_id: Uuid,
    /// Where it stands.
    status: OrderStatus,
    /// How many events it has; also its `ETag`.
    #[schema(minimum = 1)]
    version: u64,
    /// The position of its last event in the log: give it to the query API as `minPosition` to see at least this.
    #[schema(minimum = 1)]
    position: u64,
}

impl OrderAnswer {
    /// `None` for an order that was never placed.
    pub(crate) fn new(order_id: OrderId, outcome: &Outcome<Order>) -> Option<Self> {
        let status = outcome.answered?.into();
        Some(Self { order_id: order_id.0, status, version: outcome.version, position: outcome.position })
    }
}

/// A SKU's stock.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"sku": "TEA-1", "on_hand": 100, "reserved": 2, "available": 98, "version": 3, "position": 1043}))]
pub(crate) struct StockAnswer {
    /// Which SKU.
    sku: String,
    /// Pieces on the shelf.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    on_hand: i64,
    /// Pieces promised to orders; never more than are on hand.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    reserved: i64,
    /// Pieces that can still be promised: `on_hand − reserved`.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    available: i64,
    /// How many events it has; also its `ETag`.
    #[schema(minimum = 1)]
    version: u64,
    /// The position of its last event in the log.
    #[schema(minimum = 1)]
    position: u64,
}

impl StockAnswer {
    /// `level` is the last event's, and `position` where that is.
    pub(crate) fn new(sku: &Sku, level: StockLevel, position: u64) -> Self {
        let StockLevel { version, on_hand, reserved } = level;
        let available = level.available();
        Self { sku: sku.to_string(), on_hand, reserved, available, version, position }
    }
}

/// An order with everything in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "order_id": "3b0e4f6c-5d2a-5c1e-8f7b-0a9d8c7b6a50", "status": "SHIPPED", "version": 4, "position": 1057,
    "customer": {"id": "c-42", "email": "a@example.com", "name": "A"},
    "lines": [{"sku": "TEA-1", "quantity": 2, "unit_price_minor": 1250}],
    "total": {"minor_units": 2500, "currency": "EUR", "amount": "25.00"},
    "placed_at": "2026-11-20T12:00:00.123456Z", "payment_due_at": "2026-11-20T12:30:00.223456Z", "shortages": [],
    "cancellation": null,
    "shipment": {"carrier": "DHL", "tracking_number": "JD014600003SE", "shipped_at": "2026-11-21T08:00:00.5Z", "delivered_at": null},
}))]
pub(crate) struct OrderState {
    /// Which order.
    order_id: Uuid,
    /// Where it stands.
    status: OrderStatus,
    /// How many events it has; also its `ETag`.
    #[schema(minimum = 1)]
    version: u64,
    /// The position of its last event in the log.
    #[schema(minimum = 1)]
    position: u64,
    /// Who buys.
    customer: CustomerState,
    /// What is bought.
    lines: Vec<LineState>,
    /// What it costs.
    total: TotalState,
    /// When it was placed.
    #[serde(with = "time::serde::rfc3339")]
    placed_at: OffsetDateTime,
    /// Until when it must be paid, once stock is reserved.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required = true)]
    payment_due_at: Option<OffsetDateTime>,
    /// What was short, if it was rejected.
    shortages: Vec<ShortageState>,
    /// How it was called off, if it was.
    #[schema(required = true)]
    cancellation: Option<CancellationState>,
    /// How it was shipped, if it was.
    #[schema(required = true)]
    shipment: Option<ShipmentState>,
}

/// Who buys.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Customer)]
pub(crate) struct CustomerState {
    /// The shop's id of the customer.
    id: String,
    /// Where notifications go.
    email: String,
    /// How to address them.
    name: String,
}

/// So many pieces of one SKU at one price.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Line)]
pub(crate) struct LineState {
    /// What.
    sku: String,
    /// How many pieces.
    quantity: u32,
    /// The price of one piece in minor units of the currency.
    unit_price_minor: i64,
}

/// An amount of money.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Money)]
pub(crate) struct TotalState {
    /// Cents for EUR, yen for JPY.
    minor_units: i64,
    /// The ISO 4217 code.
    currency: &'static str,
    /// The same as a decimal, with the currency's own number of digits.
    #[schema(example = "25.00")]
    amount: String,
}

/// Too little of one SKU.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shortage)]
pub(crate) struct ShortageState {
    /// Of what.
    sku: String,
    /// How many the order wanted.
    requested: u64,
    /// How many could be had when it was decided.
    available: i64,
}

/// Who or what called an order off.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CancellationCause {
    Customer,
    Operator,
    PaymentDeclined,
    PaymentDeadline,
}

/// How an order was called off.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cancellation)]
pub(crate) struct CancellationState {
    /// Who or what.
    cause: CancellationCause,
    /// Why, in words for people.
    reason: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    cancelled_at: OffsetDateTime,
}

/// How an order was shipped.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shipment)]
pub(crate) struct ShipmentState {
    /// Who carries it.
    carrier: String,
    /// The carrier's number.
    tracking_number: String,
    /// When it left.
    #[serde(with = "time::serde::rfc3339")]
    shipped_at: OffsetDateTime,
    /// When it arrived, if it did.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required = true)]
    delivered_at: Option<OffsetDateTime>,
}

impl OrderState {
    /// `None` for an order that was never placed.
    pub(crate) fn new(order_id: OrderId, loaded: &Loaded<Order>) -> Option<Self> {
        let order = &loaded.aggregate;
        let (status, placement) = (order.status?, order.placement.as_ref()?);
        let (customer, lines) = (&placement.customer, &placement.lines);
        Some(Self {
            order_id: order_id.0,
            status: status.into(),
            version: loaded.version,
            position: loaded.position,
            customer: CustomerState { id: customer.id.to_string(), email: customer.email.clone(), name: customer.name.clone() },
            lines: lines.iter().map(LineState::new).collect(),
            total: TotalState::new(placement.total),
            placed_at: placement.placed_at,
            payment_due_at: order.payment_due_at,
            shortages: order.shortages.iter().map(ShortageState::new).collect(),
            cancellation: order.cancellation.as_ref().map(CancellationState::new),
            shipment: order.shipment.as_ref().map(ShipmentState::new),
        })
    }
}

impl LineState {
    fn new(line: &order::Line) -> Self {
        Self { sku: line.sku.to_string(), quantity: line.quantity, unit_price_minor: line.unit_price_minor }
    }
}

impl TotalState {
    fn new(total: Money) -> Self {
        let currency = total.currency.code();
        // Money's text is the decimal, a space and the code.
        let text = total.to_string();
        let amount = text.strip_suffix(currency).unwrap_or(&text).trim_end().to_owned();
        Self { minor_units: total.minor_units, currency, amount }
    }
}

impl ShortageState {
    fn new(shortage: &order::Shortage) -> Self {
        Self { sku: shortage.sku.to_string(), requested: shortage.requested, available: shortage.available }
    }
}

impl CancellationState {
    fn new(cancellation: &order::Cancellation) -> Self {
        let cause = match cancellation.cause {
            order::Cause::Customer => CancellationCause::Customer,
            order::Cause::Operator => CancellationCause::Operator,
            order::Cause::PaymentDeclined => CancellationCause::PaymentDeclined,
            order::Cause::PaymentDeadline => CancellationCause::PaymentDeadline,
        };
        Self { cause, reason: cancellation.reason.clone(), cancelled_at: cancellation.cancelled_at }
    }
}

impl ShipmentState {
    fn new(shipment: &order::Shipment) -> Self {
        Self {
            carrier: shipment.carrier.clone(),
            tracking_number: shipment.tracking_number.clone(),
            shipped_at: shipment.shipped_at,
            delivered_at: shipment.delivered_at,
        }
    }
}
