//! Errors with the shape of Stripe's.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// An error as a client sees it: a status, and a body `{"error":{"type","code","message",…}}`.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    fields: Map<String, Value>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        let mut fields = Map::new();
        fields.insert("type".to_owned(), kind.into());
        fields.insert("message".to_owned(), message.into().into());
        Self { status, fields }
    }

    /// 400: the request is wrong, and will be wrong again.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 404: the URL names something that does not exist.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 401: no key, or not one of ours.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
    }

    /// 402: the card was declined.
    pub(crate) fn card(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, "card_error", message)
    }

    /// 400: the idempotency key was used for another request.
    pub(crate) fn idempotency(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "idempotency_error", message)
    }

    /// 409: a request with the same idempotency key is being worked on.
    pub(crate) fn key_in_use(key: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "invalid_request_error",
            format!(
                "There is currently another in-progress request using this Idempotent Key \
                 (that probably means you submitted twice, and the other request is still going through): {key}. \
                 Please try again later."
            ),
        )
        .code("idempotency_key_in_use")
    }

    /// 429: more requests than are taken.
    pub(crate) fn too_many() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "invalid_request_error", "Request rate limit exceeded.").code("rate_limit")
    }

    /// 500: something went wrong on our side.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "api_error", message)
    }

    /// 503: the gateway is down.
    pub(crate) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "api_error", "The gateway is unavailable.")
    }

    /// 413: the body is larger than any real request.
    pub(crate) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "The request is too large.")
    }

    /// "No such …" for something that a parameter names.
    pub(crate) fn no_such(kind: &str, id: &str, param: &str) -> Self {
        Self::invalid(format!("No such {kind}: '{id}'")).code("resource_missing").param(param)
    }

    pub(crate) fn code(self, code: &str) -> Self {
        self.with("code", code)
    }

    pub(crate) fn param(self, param: &str) -> Self {
        self.with("param", param)
    }

    /// Adds any other field of the error object.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn body(&self) -> Value {
        json!({ "error": self.fields })
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        self.fields["message"].as_str().expect("a message is text")
    }
}
