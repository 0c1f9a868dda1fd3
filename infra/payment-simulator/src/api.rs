//! The routes under `/v1`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, RawQuery, Request, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Uri,
        header::{AUTHORIZATION, RETRY_AFTER},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use crate::{
    api_error::ApiError,
    gateway::{Answer, Gateway, Reply, stamp},
    journal::UsedKey,
    ledger::{Command, Ledger},
    listing,
    params::Params,
    payment_intent::NewIntent,
    refund::NewRefund,
};

/// Far more than any real request needs.
const BODY_BYTES_MAX: usize = 64 * 1024;
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

pub(crate) fn routes(gateway: Arc<Gateway>) -> Router {
    let v1 = Router::new()
        .route("/payment_intents", post(create_intent).get(list_intents))
        .route("/payment_intents/search", get(search_intents))
        .route("/payment_intents/{id}", get(retrieve_intent))
        .route("/refunds", post(create_refund).get(list_refunds))
        .route("/refunds/{id}", get(retrieve_refund))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_route)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), authenticate));
    Router::new().nest("/v1", v1).with_state(gateway)
}

/// Lets only requests with a secret key in, and gives every answer a request id.
async fn authenticate(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let mut response = match secret_key(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => gateway.refuse(error).into_response(),
    };
    let id = format!("req_{}", stamp().unique.simple());
    let id = HeaderValue::try_from(id).expect("hexadecimal digits are a header value");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn secret_key(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Err(ApiError::unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using \
             Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        ));
    };
    let (scheme, key) = header.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && key.trim().len() > "sk_".len() && key.trim().starts_with("sk_") {
        Ok(())
    } else {
        Err(ApiError::unauthorized("Invalid API Key provided"))
    }
}

async fn unknown_route(State(gateway): State<Arc<Gateway>>, method: Method, uri: Uri) -> Response {
    let path = uri.path();
    gateway.refuse(ApiError::not_found(format!("Unrecognized request URL ({method}: /v1{path})."))).into_response()
}

async fn create_intent(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let parse = |params: &Params| NewIntent::parse(params).map(Command::CreateIntent);
    submit(gateway, "/v1/payment_intents", &headers, body, parse).await
}

async fn create_refund(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let parse = |params: &Params| NewRefund::parse(params).map(Command::CreateRefund);
    submit(gateway, "/v1/refunds", &headers, body, parse).await
}

async fn submit(
    gateway: Arc<Gateway>,
    endpoint: &str,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    parse: impl FnOnce(&Params) -> Result<Command, ApiError>,
) -> Response {
    if let Some(unavailable) = gateway.outage() {
        return unavailable.into_response();
    }
    let parsed = (|| {
        let params = form(body)?;
        let idempotency = idempotency_key(headers)?
            .map(|key| UsedKey { key: key.to_owned(), params: format!("{endpoint} {}", params.fingerprint()) });
        Ok((parse(&params)?, idempotency))
    })();
    match parsed {
        Err(error) => gateway.refuse(error).into_response(),
        Ok((command, idempotency)) => {
            // A task of its own: it goes on if the client hangs up and this handler is dropped.
            let submitted = tokio::spawn(async move { gateway.submit(command, idempotency).await });
            match submitted.await {
                Ok(reply) => answer(reply),
                Err(_) => Answer::from(ApiError::internal("The request could not be finished.")).into_response(),
            }
        }
    }
}

fn form(body: Result<Bytes, BytesRejection>) -> Result<Params, ApiError> {
    let body = body.map_err(|rejection| {
        if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::too_large()
        } else {
            ApiError::invalid("The request's body could not be read.")
        }
    })?;
    let body = std::str::from_utf8(&body).map_err(|_| ApiError::invalid("The request is not valid form encoding."))?;
    Params::parse(body)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = key.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_CHARS_MAX {
        return Err(ApiError::invalid(format!(
            "Idempotency keys must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters."
        )));
    }
    Ok(Some(key))
}

async fn list_intents(State(gateway): State<Arc<Gateway>>, query: RawQuery) -> Response {
    look_up(gateway, query, listing::intents).await
}

async fn search_intents(State(gateway): State<Arc<Gateway>>, query: RawQuery) -> Response {
    let lag = Duration::from_millis(gateway.faults().search_lag_ms);
    let indexed_until = stamp().at - lag;
    look_up(gateway, query, |ledger, params| listing::search(ledger, params, indexed_until)).await
}

async fn list_refunds(State(gateway): State<Arc<Gateway>>, query: RawQuery) -> Response {
    look_up(gateway, query, listing::refunds).await
}

async fn retrieve_intent(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Response {
    look_up(gateway, query, |ledger, _| {
        let id = id.map(|Path(id)| id).unwrap_or_default();
        let intent = ledger.intent(&id).ok_or_else(|| missing("payment_intent", &id, "intent"))?;
        Ok(intent.object())
    })
    .await
}

async fn retrieve_refund(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Response {
    look_up(gateway, query, |ledger, _| {
        let id = id.map(|Path(id)| id).unwrap_or_default();
        let refund = ledger.refund(&id).ok_or_else(|| missing("refund", &id, "id"))?;
        Ok(refund.object())
    })
    .await
}

fn missing(kind: &str, id: &str, param: &str) -> ApiError {
    ApiError::not_found(format!("No such {kind}: '{id}'")).code("resource_missing").param(param)
}

async fn look_up(
    gateway: Arc<Gateway>,
    RawQuery(query): RawQuery,
    read: impl FnOnce(&Ledger, &Params) -> Result<serde_json::Value, ApiError>,
) -> Response {
    let reply = gateway.read(|ledger| read(ledger, &Params::parse(&query.unwrap_or_default())?)).await;
    answer(reply)
}

/// Sends the answer, or cuts the connection.
fn answer(reply: Reply) -> Response {
    match reply {
        Reply::Answer(answer) => answer.into_response(),
        // The server runs each connection as a task. Unwinding that task closes the socket with nothing written, which
        // no response value can do; `resume_unwind` is the way that does not report a panic.
        Reply::Lost => std::panic::resume_unwind(Box::new("the answer is lost on purpose")),
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if self.replayed {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
