//! The routes of orders.

use auth::{Action, Role};
use axum::{
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, StatusCode, header::LOCATION, request::Parts},
    response::Response,
};
use domain::{
    Currency, CustomerId, IdError, OrderId, Request, Sku,
    order::{
        Cancel, Cause, Customer, Deliver, LINE_QUANTITY_MAX, LINES_MAX, Line, Order, OrderCommand, OrderError, Place, Ship,
        TEXT_CHARS_MAX, TOTAL_MINOR_MAX, UNIT_PRICE_MINOR_MAX, decide,
    },
};
use event_store::Loaded;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    answers::{OrderAnswer, OrderState, answer, read_answer},
    api::Api,
    command::{Command, CommandBody, Expectation, Outcome, Remembers as _, now, order_not_found},
    fields::Fields,
    identity::Identity,
    log,
    problem::{Code, FieldError, Problem},
};

/// All of them.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(place_order))
        .routes(routes!(get_order))
        .routes(routes!(cancel_order))
        .routes(routes!(ship_order))
        .routes(routes!(deliver_order))
}

/// A checkout's order.
#[derive(Debug, ToSchema)]
#[schema(example = json!({
    "customer": {"id": "c-42", "email": "a@example.com", "name": "A"}, "currency": "EUR",
    "lines": [{"sku": "TEA-1", "quantity": 2, "unit_price_minor": 1250}], "payment_method": "pm_card_visa",
}))]
pub(crate) struct PlaceOrder {
    /// Who buys.
    customer: CustomerFields,
    /// The ISO 4217 code of every price's currency, in capitals.
    #[schema(value_type = String)]
    currency: Currency,
    /// What is bought. The sum over the lines must be 1 to 99999999999 minor units.
    #[schema(min_items = 1, max_items = 100)]
    lines: Vec<LineFields>,
    /// The payment gateway's name of the card or account to charge.
    #[schema(min_length = 1, max_length = 500)]
    payment_method: String,
}

/// Who buys.
#[derive(Debug, ToSchema)]
#[schema(as = PlaceOrderCustomer)]
pub(crate) struct CustomerFields {
    /// The shop's id of the customer: printable ASCII characters without spaces.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    id: CustomerId,
    /// Where notifications go.
    #[schema(min_length = 3, max_length = 500, format = "email")]
    email: String,
    /// How to address them.
    #[schema(min_length = 1, max_length = 500)]
    name: String,
}

/// So many pieces of one SKU at one price.
#[derive(Debug, ToSchema)]
#[schema(as = PlaceOrderLine)]
pub(crate) struct LineFields {
    /// What.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9_-]{1,64}$")]
    sku: Sku,
    /// How many pieces.
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: u32,
    /// The price of one piece in minor units of the currency: cents for EUR.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    unit_price_minor: i64,
}

impl CommandBody for PlaceOrder {
    const ROUTE: &'static str = "POST /v1/orders";
    const ACTION: Action = Action::PlaceOrder;
    const BEGINS_AGGREGATE: bool = true;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let customer = fields.object("customer", |fields| {
            let (id, email, name) = (fields.parsed("id"), read_email(fields), fields.text("name", TEXT_CHARS_MAX));
            Some(CustomerFields { id: id?, email: email?, name: name? })
        });
        let currency = fields.parsed("currency");
        let lines = fields.list("lines", 1..=LINES_MAX, |fields| {
            let sku = fields.parsed("sku");
            let quantity = fields.integer("quantity", 1..=LINE_QUANTITY_MAX.into());
            let unit_price_minor = fields.integer("unit_price_minor", 0..=UNIT_PRICE_MINOR_MAX);
            let quantity = u32::try_from(quantity?).expect("the range fits 32 bits");
            Some(LineFields { sku: sku?, quantity, unit_price_minor: unit_price_minor? })
        });
        let lines = lines.and_then(|lines| if total_is_chargeable(&lines) { Some(lines) } else { refuse_total(fields) });
        let payment_method = fields.text("payment_method", TEXT_CHARS_MAX);
        Some(Self { customer: customer?, currency: currency?, lines: lines?, payment_method: payment_method? })
    }
}

/// No more than a glance: whether mail arrives is known only by sending it.
fn read_email(fields: &mut Fields<'_>) -> Option<String> {
    let email = fields.text("email", TEXT_CHARS_MAX)?;
    let looks_good = !email.contains(char::is_whitespace)
        && email.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if looks_good { Some(email) } else { fields.refuse("email", "wrong-format", "must be a mail address such as a@example.com") }
}

fn total_is_chargeable(lines: &[LineFields]) -> bool {
    let total: i128 = lines.iter().map(|line| i128::from(line.quantity) * i128::from(line.unit_price_minor)).sum();
    (1..=i128::from(TOTAL_MINOR_MAX)).contains(&total)
}

fn refuse_total<T>(fields: &mut Fields<'_>) -> Option<T> {
    fields.refuse("lines", "out-of-range", format!("must add up to 1 to {TOTAL_MINOR_MAX} minor units"))
}

/// Place an order
///
/// The order's id is derived from the caller and the `Idempotency-Key`, so a retry finds the first answer for as long as the log
/// lives. The order is `PLACED` then; stock and payment follow by themselves.
#[utoipa::path(
    post, path = "/v1/orders", operation_id = "placeOrder", tag = "orders", request_body = PlaceOrder,
    responses((status = CREATED, description = "The order is in the log, or was already, by this very request.", body = OrderAnswer)),
)]
async fn place_order(State(api): State<Api>, command: Command<PlaceOrder>) -> Result<Response, Problem> {
    let (order_id, outcome) = place(&api, &command).await?;
    let mut response = order_answer(StatusCode::CREATED, order_id, &outcome)?;
    let location = format!("/v1/orders/{order_id}").parse().expect("a path with a UUID is a header value");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Places an order, whichever route it came by.
pub(crate) async fn place(api: &Api, command: &Command<PlaceOrder>) -> Result<(OrderId, Outcome<Order>), Problem> {
    if !command.caller.may(Action::PlaceOrder, command.body.customer.id.as_str()) {
        let detail = "customers place orders for themselves: /customer/id must be the sub of the caller's token";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let order_id = OrderId::derive(&command.caller.actor(), command.key.as_str());
    let now = now();
    let decide = |loaded: &Loaded<Order>, request| {
        let PlaceOrder { customer, currency, lines, payment_method } = &command.body;
        let place = Place {
            customer: Customer { id: customer.id.clone(), email: customer.email.clone(), name: customer.name.clone() },
            currency: *currency,
            lines: lines.iter().map(line).collect(),
            payment_method: payment_method.clone(),
            placed_at: now,
            request,
        };
        decide(&loaded.aggregate, OrderCommand::Place(place)).map_err(|error| rejection(&error))
    };
    let outcome = command.carry_out(log::connected(&api.store)?, &order_id.to_string(), Expectation::Begins, now, decide).await?;
    Ok((order_id, outcome))
}

fn line(line: &LineFields) -> Line {
    Line { sku: line.sku.clone(), quantity: line.quantity, unit_price_minor: line.unit_price_minor }
}

/// An order as it is
///
/// Strongly consistent: it includes everything that was acknowledged before the request.
#[utoipa::path(
    get, path = "/v1/orders/{id}", operation_id = "getOrder", tag = "orders",
    responses((status = OK, description = "The order.", body = OrderState)),
)]
async fn get_order(
    State(api): State<Api>,
    Identity(caller): Identity,
    id: OrderPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.whose(Action::ReadOrders)?;
    let loaded = log::current::<Order>(log::connected(&api.store)?, &id.0.to_string()).await?;
    loaded.aggregate.check_caller(&caller, Action::ReadOrders)?;
    let state = OrderState::new(id.0, &loaded).ok_or_else(order_not_found)?;
    Ok(read_answer(&headers, loaded.version, &state))
}

/// Why an order is called off.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"reason": "ordered twice"}))]
pub(crate) struct CancelOrder {
    /// In words for people.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

impl CommandBody for CancelOrder {
    const ROUTE: &'static str = "POST /v1/orders/{id}/cancel";
    const ACTION: Action = Action::CancelOrder;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { reason: fields.text("reason", TEXT_CHARS_MAX)? })
    }
}

/// Cancel an order
///
/// Possible until it is shipped. Reserved stock is released and captured money given back. Cancelling a cancelled order changes
/// nothing and answers the order as it is.
#[utoipa::path(
    post, path = "/v1/orders/{id}/cancel", operation_id = "cancelOrder", tag = "orders", request_body = CancelOrder,
    responses((status = OK, description = "The order is cancelled.", body = OrderAnswer)),
)]
async fn cancel_order(State(api): State<Api>, id: OrderPath, command: Command<CancelOrder>) -> Result<Response, Problem> {
    let now = now();
    let cause = if command.caller.role() == Some(Role::Operator) { Cause::Operator } else { Cause::Customer };
    let outcome = change(&api, id.0, &command, now, |request| {
        let reason = command.body.reason.clone();
        OrderCommand::Cancel(Cancel { cause, reason, cancelled_at: now, request: Some(request) })
    });
    order_answer(StatusCode::OK, id.0, &outcome.await?)
}

/// Who carries the parcel.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"carrier": "DHL", "tracking_number": "JD014600003SE"}))]
pub(crate) struct ShipOrder {
    /// The carrier's name.
    #[schema(min_length = 1, max_length = 500)]
    carrier: String,
    /// The carrier's number.
    #[schema(min_length = 1, max_length = 500)]
    tracking_number: String,
}

impl CommandBody for ShipOrder {
    const ROUTE: &'static str = "POST /v1/orders/{id}/ship";
    const ACTION: Action = Action::ShipOrder;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (carrier, tracking_number) = (fields.text("carrier", TEXT_CHARS_MAX), fields.text("tracking_number", TEXT_CHARS_MAX));
        Some(Self { carrier: carrier?, tracking_number: tracking_number? })
    }
}

/// Ship an order
///
/// Possible once it is confirmed. Shipping it again with the same carrier and number changes nothing.
#[utoipa::path(
    post, path = "/v1/orders/{id}/ship", operation_id = "shipOrder", tag = "orders", request_body = ShipOrder,
    responses((status = OK, description = "The order is shipped.", body = OrderAnswer)),
)]
async fn ship_order(State(api): State<Api>, id: OrderPath, command: Command<ShipOrder>) -> Result<Response, Problem> {
    let now = now();
    let outcome = change(&api, id.0, &command, now, |request| {
        let ShipOrder { carrier, tracking_number } = &command.body;
        let (carrier, tracking_number) = (carrier.clone(), tracking_number.clone());
        OrderCommand::Ship(Ship { carrier, tracking_number, shipped_at: now, request: Some(request) })
    });
    order_answer(StatusCode::OK, id.0, &outcome.await?)
}

/// Nothing: that the parcel arrived is all there is to say.
#[derive(Debug, ToSchema)]
#[schema(example = json!({}))]
pub(crate) struct DeliverOrder {}

impl CommandBody for DeliverOrder {
    const ROUTE: &'static str = "POST /v1/orders/{id}/deliver";
    const ACTION: Action = Action::DeliverOrder;
    const MAY_BE_EMPTY: bool = true;

    fn read(_: &mut Fields<'_>) -> Option<Self> {
        Some(Self {})
    }
}

/// Deliver an order
///
/// Possible once it is shipped. Delivering it again changes nothing. The body can be left out.
#[utoipa::path(
    post, path = "/v1/orders/{id}/deliver", operation_id = "deliverOrder", tag = "orders", request_body = DeliverOrder,
    responses((status = OK, description = "The order is delivered.", body = OrderAnswer)),
)]
async fn deliver_order(State(api): State<Api>, id: OrderPath, command: Command<DeliverOrder>) -> Result<Response, Problem> {
    let now = now();
    let outcome =
        change(&api, id.0, &command, now, |request| OrderCommand::Deliver(Deliver { delivered_at: now, request: Some(request) }));
    order_answer(StatusCode::OK, id.0, &outcome.await?)
}

/// Carries out a command on an order that must exist.
async fn change<B: CommandBody>(
    api: &Api,
    order_id: OrderId,
    command: &Command<B>,
    now: OffsetDateTime,
    to_command: impl Fn(Request) -> OrderCommand,
) -> Result<Outcome<Order>, Problem> {
    let store = log::connected(&api.store)?;
    let decide = |loaded: &Loaded<Order>, request| {
        if loaded.version == 0 {
            return Err(order_not_found());
        }
        let decided = decide(&loaded.aggregate, to_command(request));
        // What is so already may be answered whatever `If-Match` says (RFC 9110, section 13.1.1). It has to be: a command that
        // changed nothing is not remembered, so its retry cannot be told from it, and others may have moved the order on
        // meanwhile.
        if !decided.as_ref().is_ok_and(Vec::is_empty) {
            command.check_precondition(loaded.version)?;
        }
        decided.map_err(|error| rejection(&error))
    };
    command.carry_out(store, &order_id.to_string(), Expectation::Exists, now, decide).await
}

fn order_answer(status: StatusCode, order_id: OrderId, outcome: &Outcome<Order>) -> Result<Response, Problem> {
    let body = OrderAnswer::new(order_id, outcome).ok_or_else(order_not_found)?;
    Ok(answer(status, outcome.version, outcome.replayed, &body))
}

/// What a refusal of the domain is to a client.
fn rejection(error: &OrderError) -> Problem {
    let detail = error.to_string();
    let field =
        |pointer: String| Problem::with_errors(Code::InvalidFields, FieldError::at(pointer, "out-of-range", &detail).into());
    match error {
        OrderError::NotFound => order_not_found(),
        OrderError::KeyReused => Problem::new(Code::IdempotencyKeyReused, detail),
        OrderError::IllegalTransition { .. } => Problem::new(Code::IllegalTransition, detail),
        OrderError::LineCount(_) | OrderError::Quantity(_) | OrderError::UnitPrice(_) | OrderError::Total => {
            field("/lines".to_owned())
        }
        OrderError::Text { field: name } => field(format!("/{}", name.replace('.', "/"))),
    }
}

/// The order that the path names.
struct OrderPath(OrderId);

impl<S: Send + Sync> FromRequestParts<S> for OrderPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |detail: String| Problem::with_errors(Code::InvalidParameter, FieldError::in_parameter("id", detail).into());
        let Path(id) = Path::<String>::from_request_parts(parts, state).await.map_err(|error| refused(error.to_string()))?;
        id.parse().map(Self).map_err(|error: IdError| refused(error.to_string()))
    }
}
