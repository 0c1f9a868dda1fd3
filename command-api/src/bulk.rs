//! The route for imports: any number of orders in one request, each on a line of its own, and one line of result for each.

use std::{sync::Arc, time::Duration};

use auth::{Action, Caller, Door};
use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, EXPECT},
    },
    response::{IntoResponse as _, Response},
};
use prometheus_client::metrics::{counter::Counter, family::Family};
use serde::Serialize;
use telemetry::metrics::Metrics;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    admission::Admission,
    answers::OrderAnswer,
    api::Api,
    command::{Command, CommandBody as _, is_of_media_type},
    context::{RequestContext, is_name},
    fields::{Fields, read_object},
    idempotency::IdempotencyKey,
    identity::Identity,
    json,
    limits::{
        BODY_BYTES_MAX, BULK_IDLE_S, BULK_LINES_IN_FLIGHT_MAX, BULK_RESULTS_WAITING_MAX, Limits, REQUEST_ID_CHARS_MAX,
        RETRY_AFTER_S,
    },
    log,
    orders::PlaceOrder,
    problem::{Code, FieldError, FieldErrors, Problem, ProblemDocument},
};

mod import;
mod lines;

use lines::{Line, Lines};

/// What an import is sent as, and answered.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// What is sent by who has no name for the format.
pub(crate) const BYTES: &str = "application/octet-stream";
/// Other names that the same format goes by; none of them is registered.
const ACCEPTED: [&str; 4] = [NDJSON, "application/ndjson", "application/jsonl", BYTES];

/// What the route's description says in words.
const _: () = assert!(BULK_RESULTS_WAITING_MAX + BULK_LINES_IN_FLIGHT_MAX == 1_280 && BULK_IDLE_S == 60);

/// The one route.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(place_orders))
}

/// What imports need besides the log.
#[derive(Clone, Debug)]
pub(crate) struct Bulk {
    door: Door,
    admission: Admission,
    idle: Duration,
    lines: Arc<Family<[(&'static str, String); 1], Counter>>,
}

impl Bulk {
    pub(crate) fn new(limits: &Limits, door: Door, admission: Admission, metrics: &Metrics) -> Self {
        let lines = Family::default();
        // So that there is a rate from the first import on.
        lines.get_or_create_owned(&[("status", "201".to_owned())]);
        metrics.register(|registry| registry.register("bulk_lines", "Lines of imports answered", lines.clone()));
        Self { door, admission, idle: limits.bulk_idle, lines: lines.into() }
    }

    /// Waits until the caller may make one more request: each line is one, or an import would be a way around the caller's rate.
    async fn count_line(&self, caller: &Caller) {
        self.door.turn(caller).await;
    }
}

/// One order of an import.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"idempotency_key": "order-4711", "order": {
    "customer": {"id": "c-42", "email": "a@example.com", "name": "A"}, "currency": "EUR",
    "lines": [{"sku": "TEA-1", "quantity": 2, "unit_price_minor": 1250}], "payment_method": "pm_card_visa",
}}))]
pub(crate) struct BulkLine {
    /// The client's name for this order, as the header `Idempotency-Key` of `POST /v1/orders` has it, without quotes around it.
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    idempotency_key: IdempotencyKey,
    /// The client's name of the story that this order belongs to; without it, the request's `X-Correlation-Id`.
    #[schema(nullable = false, min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    correlation_id: Option<String>,
    /// What `POST /v1/orders` takes.
    order: PlaceOrder,
}

impl BulkLine {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let idempotency_key = fields.string("idempotency_key").map(|key| IdempotencyKey::new(key.to_owned()));
        let idempotency_key = match idempotency_key {
            Some(Err((code, detail))) => fields.refuse("idempotency_key", code, detail),
            good_or_none => good_or_none.and_then(Result::ok),
        };
        let correlation_id = if fields.has("correlation_id") { read_correlation_id(fields) } else { None };
        let order = fields.object("order", PlaceOrder::read);
        Some(Self { idempotency_key: idempotency_key?, correlation_id, order: order? })
    }
}

/// In a header, a bad name is left out: who sets headers is often not who places the order. In a line it is a mistake like any
/// other, and nothing is lost by saying so.
fn read_correlation_id(fields: &mut Fields<'_>) -> Option<String> {
    let name = fields.string("correlation_id")?;
    if is_name(name) {
        return Some(name.to_owned());
    }
    let detail = format!("must be 1 to {REQUEST_ID_CHARS_MAX} visible ASCII characters");
    fields.refuse("correlation_id", "wrong-format", detail)
}

/// A line as the command that `POST /v1/orders` would have read, under the same key and with the same digest.
fn read_line(line: &Line, caller: &Caller, context: &RequestContext) -> Result<Command<PlaceOrder>, Problem> {
    let Line::Whole(bytes) = line else {
        return Err(Problem::new(Code::ContentTooLarge, format!("the line is longer than {BODY_BYTES_MAX} bytes")));
    };
    let mut errors = FieldErrors::default();
    let value = json::read(bytes, &mut errors).map_err(|error| Problem {
        code: Code::InvalidJson,
        detail: format!("the line is not JSON: {error}"),
        errors: vec![FieldError::syntax(&error)],
    })?;
    let line = read_object(&value, String::new(), &mut errors, BulkLine::read);
    let BulkLine { idempotency_key, correlation_id, order } = errors.finish(Code::InvalidFields, line)?;
    let mut context = context.clone();
    context.correlation_id = correlation_id.or(context.correlation_id);
    Ok(Command::one_of_many(order, &value["order"], idempotency_key, caller.clone(), context))
}

/// What became of one line: what `POST /v1/orders` would have answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"line": 1, "status": 201, "replayed": false, "order": {
    "order_id": "3b0e4f6c-5d2a-5c1e-8f7b-0a9d8c7b6a50", "status": "PLACED", "version": 1, "position": 1042,
}}))]
pub(crate) struct BulkResult {
    /// The line's number in the request's body, from 1 on; blank lines count.
    #[schema(minimum = 1)]
    line: u64,
    /// 201 if the order is in the log; else the problem's status.
    #[schema(minimum = 201, maximum = 599)]
    status: u16,
    /// The order, if it is in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    order: Option<OrderAnswer>,
    /// With `order`: whether this is the first answer again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    replayed: Option<bool>,
    /// What went wrong, if something did; its pointers are into the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<ProblemDocument>,
    /// With a `problem` that may pass: seconds until a retry makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_after_s: Option<u64>,
}

impl BulkResult {
    fn new(line: u64, outcome: Result<(OrderAnswer, bool), Problem>, trace_id: &str) -> Self {
        let problem = match outcome {
            Ok((order, replayed)) => {
                let status = StatusCode::CREATED.as_u16();
                return Self { line, status, order: Some(order), replayed: Some(replayed), problem: None, retry_after_s: None };
            }
            Err(problem) => problem,
        };
        Self {
            line,
            status: problem.code.status().as_u16(),
            order: None,
            replayed: None,
            retry_after_s: problem.code.has_retry_after().then_some(RETRY_AFTER_S),
            problem: Some(problem.document(trace_id)),
        }
    }
}

/// Place orders in bulk
///
/// For imports: newline-delimited JSON in both directions. Each line of the body is a `BulkLine`, 256 KiB long at most; blank lines are
/// skipped. Each is carried out as `POST /v1/orders` would under the same key and body, so either can be the retry of the other, and is
/// answered with a line, a `BulkResult`, in the order of the lines. One bad line does not stop the others. The same key on several
/// lines is one order, of which the first of these lines has the result and the others its replay.
///
/// Results come while the body is still being sent, and the body may go on for hours. Read them meanwhile: a client that does not
/// may send 1,280 lines, or fewer if their results list many mistakes, and is then not read from until it does.
///
/// Should the answer end early, its last line has the number of the first line that was not looked at, and says why: the instance is
/// about to end (503 `draining`), the client sent or read nothing for a minute (408 `idle`), its token has expired (401
/// `unauthenticated`), or the body broke off (400 `invalid-json`). Send that line and those after it again. An answer that breaks
/// off without such a line says nothing of the lines that it has no result for: send them again.
#[utoipa::path(
    post, path = "/v1/orders/bulk", operation_id = "placeOrders", tag = "orders",
    request_body(
        content = String, content_type = "application/x-ndjson",
        description = "One `BulkLine` on each line. `application/ndjson`, `application/jsonl` and, from clients that have no name for it, `application/octet-stream` are the same.",
    ),
    responses((
        status = OK, content_type = "application/x-ndjson", body = String,
        description = "One `BulkResult` on each line, for each line of the body that is not blank.",
    )),
)]
async fn place_orders(
    State(api): State<Api>,
    Identity(caller): Identity,
    context: RequestContext,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut lines = Lines::new(body, api.bulk.idle);
    let place = match begin(&api, &caller, &headers) {
        Ok(place) => place,
        Err(problem) => {
            lines.discard().await;
            return Err(problem);
        }
    };
    if headers.contains_key(EXPECT) {
        lines.expect().await;
    }
    let results = import::start(api, caller, context, place, lines);
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(NDJSON))], results).into_response())
}

/// All that can be refused before the first line is looked at.
fn begin(api: &Api, caller: &Caller, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Problem> {
    caller.check(Action::ImportOrders)?;
    if !is_of_media_type(headers, &ACCEPTED) {
        let detail = format!("send one JSON object on each line, with Content-Type: {NDJSON}");
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    log::connected(&api.store)?;
    api.bulk.admission.admit_import()
}
