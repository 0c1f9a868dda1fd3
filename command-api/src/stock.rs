//! The routes of stock.

use auth::Action;
use axum::{
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, StatusCode, request::Parts},
    response::Response,
};
use domain::{
    IdError, Request, Sku,
    stock::{Adjust, ON_HAND_MAX, Receive, Stock, StockCommand, StockError, TEXT_CHARS_MAX, decide},
};
use event_store::Loaded;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    answers::{StockAnswer, answer, read_answer},
    api::Api,
    command::{Command, CommandBody, Expectation, now},
    fields::Fields,
    identity::Identity,
    log,
    problem::{Code, FieldError, Problem},
};

/// All of them.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_stock)).routes(routes!(receive_stock)).routes(routes!(adjust_stock))
}

/// A SKU's stock as it is
///
/// Strongly consistent: it includes everything that was acknowledged before the request.
#[utoipa::path(
    get, path = "/v1/stock/{sku}", operation_id = "getStock", tag = "stock",
    responses((status = OK, description = "The stock.", body = StockAnswer)),
)]
async fn get_stock(
    State(api): State<Api>,
    Identity(caller): Identity,
    sku: SkuPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.check(Action::ReadStock)?;
    let loaded = log::current::<Stock>(log::connected(&api.store)?, sku.0.as_str()).await?;
    if loaded.version == 0 {
        return Err(Problem::new(Code::StockNotFound, "nothing was ever received of this SKU"));
    }
    let body = StockAnswer::new(&sku.0, loaded.aggregate.level(), loaded.position);
    Ok(read_answer(&headers, loaded.version, &body))
}

/// Goods that came in.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"quantity": 100, "reference": "DN-2026-0042"}))]
pub(crate) struct ReceiveStock {
    /// How many pieces.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    quantity: u32,
    /// The delivery note.
    #[schema(min_length = 1, max_length = 500)]
    reference: String,
}

impl CommandBody for ReceiveStock {
    const ROUTE: &'static str = "POST /v1/stock/{sku}/receipts";
    const ACTION: Action = Action::ChangeStock;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (quantity, reference) = (fields.integer("quantity", 1..=ON_HAND_MAX), fields.text("reference", TEXT_CHARS_MAX));
        let quantity = u32::try_from(quantity?).expect("the range fits 32 bits");
        Some(Self { quantity, reference: reference? })
    }
}

/// Receive goods
///
/// Adds to what is on hand. The first receipt makes the SKU known.
#[utoipa::path(
    post, path = "/v1/stock/{sku}/receipts", operation_id = "receiveStock", tag = "stock", request_body = ReceiveStock,
    responses((status = CREATED, description = "The goods are booked.", body = StockAnswer)),
)]
async fn receive_stock(State(api): State<Api>, sku: SkuPath, command: Command<ReceiveStock>) -> Result<Response, Problem> {
    let now = now();
    let to_command = |request| {
        let ReceiveStock { quantity, reference } = &command.body;
        StockCommand::Receive(Receive {
            quantity: *quantity,
            reference: reference.clone(),
            received_at: now,
            request: Some(request),
        })
    };
    book(&api, &sku.0, &command, now, to_command).await
}

/// A count that differs from the books.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"delta": -2, "reason": "damaged", "reference": "COUNT-7"}))]
pub(crate) struct AdjustStock {
    /// Pieces more than the books have, or fewer when below zero; not 0.
    #[schema(minimum = -2_147_483_647, maximum = 2_147_483_647)]
    delta: i64,
    /// Why the books were wrong, in words for people.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// The count's number.
    #[schema(min_length = 1, max_length = 500)]
    reference: String,
}

impl CommandBody for AdjustStock {
    const ROUTE: &'static str = "POST /v1/stock/{sku}/adjustments";
    const ACTION: Action = Action::ChangeStock;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let delta = fields.integer("delta", -ON_HAND_MAX..=ON_HAND_MAX).and_then(|delta| match delta {
            0 => fields.refuse("delta", "out-of-range", "must not be 0"),
            delta => Some(delta),
        });
        let (reason, reference) = (fields.text("reason", TEXT_CHARS_MAX), fields.text("reference", TEXT_CHARS_MAX));
        Some(Self { delta: delta?, reason: reason?, reference: reference? })
    }
}

/// Correct the books
///
/// Changes what is on hand by a number of pieces. What is reserved for orders cannot be taken away.
#[utoipa::path(
    post, path = "/v1/stock/{sku}/adjustments", operation_id = "adjustStock", tag = "stock", request_body = AdjustStock,
    responses((status = CREATED, description = "The correction is booked.", body = StockAnswer)),
)]
async fn adjust_stock(State(api): State<Api>, sku: SkuPath, command: Command<AdjustStock>) -> Result<Response, Problem> {
    let now = now();
    let to_command = |request| {
        let AdjustStock { delta, reason, reference } = &command.body;
        StockCommand::Adjust(Adjust {
            delta: *delta,
            reason: reason.clone(),
            reference: reference.clone(),
            adjusted_at: now,
            request: Some(request),
        })
    };
    book(&api, &sku.0, &command, now, to_command).await
}

async fn book<B: CommandBody>(
    api: &Api,
    sku: &Sku,
    command: &Command<B>,
    now: OffsetDateTime,
    to_command: impl Fn(Request) -> StockCommand,
) -> Result<Response, Problem> {
    let decide = |loaded: &Loaded<Stock>, request| {
        command.check_precondition(loaded.version)?;
        decide(&loaded.aggregate, to_command(request)).map_err(|error| rejection(&error))
    };
    let outcome = command.carry_out(log::connected(&api.store)?, sku.as_str(), Expectation::Exists, now, decide).await?;
    let body = StockAnswer::new(sku, outcome.answered, outcome.position);
    Ok(answer(StatusCode::CREATED, outcome.version, outcome.replayed, &body))
}

/// What a refusal of the domain is to a client.
fn rejection(error: &StockError) -> Problem {
    let detail = error.to_string();
    match error {
        StockError::KeyReused => Problem::new(Code::IdempotencyKeyReused, detail),
        StockError::TooMany | StockError::BelowReserved { .. } | StockError::Insufficient { .. } => {
            Problem::new(Code::StockBounds, detail)
        }
        StockError::Zero { field } | StockError::Text { field } => {
            Problem::with_errors(Code::InvalidFields, FieldError::at(format!("/{field}"), "out-of-range", detail).into())
        }
    }
}

/// The SKU that the path names.
struct SkuPath(Sku);

impl<S: Send + Sync> FromRequestParts<S> for SkuPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refused = |detail: String| Problem::with_errors(Code::InvalidParameter, FieldError::in_parameter("sku", detail).into());
        let Path(sku) = Path::<String>::from_request_parts(parts, state).await.map_err(|error| refused(error.to_string()))?;
        Sku::try_from(sku).map(Self).map_err(|error: IdError| refused(error.to_string()))
    }
}
