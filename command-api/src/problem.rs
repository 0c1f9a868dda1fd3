//! Every error that the API answers: RFC 9457 problem details.
//!
//! A handler returns a [`Problem`]. It becomes a body in one last place, [`observe`](crate::observe), because the trace id
//! is known there.

use std::error::Error;

use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::limits::{
    ECHO_CHARS_MAX, FIELD_ERRORS_BYTES_MAX, FIELD_ERRORS_MAX, PROBLEM_BYTES_MAX, PROBLEM_TEXT_CHARS_MAX, RETRY_AFTER_S,
};

/// The media type of every error (RFC 9457, section 3).
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $status:ident, $title:literal;)+) => {
        /// What went wrong, for programs. A code and its status never change; titles and details may.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code, by status.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code as problems carry it; also the last segment of their `type`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The status that it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// The same few words for every problem of this code.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }

            /// What it means, and what to do about it.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

codes! {
    /// The path names no order or SKU that could exist, because its id is not well formed.
    InvalidParameter = "invalid-parameter", BAD_REQUEST, "A path parameter is not well formed";
    /// A header is missing or not well formed; `errors` names each one. Every POST needs an `Idempotency-Key`.
    InvalidHeader = "invalid-header", BAD_REQUEST, "A header is missing or not well formed";
    /// The body is not JSON, or did not arrive as a whole; `errors` has the line and column.
    InvalidJson = "invalid-json", BAD_REQUEST, "The body is not JSON";
    /// The request says not who sends it, or in a way that is not to be believed. Send `Authorization: Bearer` with a good token.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Who sends this is not known";
    /// The caller's role does not allow it.
    Forbidden = "forbidden", FORBIDDEN, "The caller may not do this";
    /// Nothing is served at this path.
    RouteNotFound = "route-not-found", NOT_FOUND, "No such route";
    /// No order has this id.
    OrderNotFound = "order-not-found", NOT_FOUND, "No such order";
    /// Nothing was ever received of this SKU.
    StockNotFound = "stock-not-found", NOT_FOUND, "No such stock";
    /// The path is right and the method is not; the `Allow` header lists those that are.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// The client of an import neither sent nor read anything for a minute, so the import ended. Send the lines without a result again.
    Idle = "idle", REQUEST_TIMEOUT, "Nothing came from the client for too long";
    /// The order's status does not allow the command.
    IllegalTransition = "illegal-transition", CONFLICT, "The order's status does not allow this";
    /// The stock would leave its bounds: more on hand than can be booked, or less than is reserved.
    StockBounds = "stock-bounds", CONFLICT, "The stock would leave its bounds";
    /// Others kept changing the same order or SKU. Nothing was changed; the same request can be sent again.
    Conflict = "conflict", CONFLICT, "Others kept changing it";
    /// The version is none of those that `If-Match` lists: somebody changed it since. Nothing was changed.
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, "It was changed meanwhile";
    /// The body, or this line of an import, is longer than 256 KiB.
    ContentTooLarge = "content-too-large", PAYLOAD_TOO_LARGE, "The body is too long";
    /// The path and query are longer than 4 KiB.
    UriTooLong = "uri-too-long", URI_TOO_LONG, "The URI is too long";
    /// The body's `Content-Type` is not `application/json`, or, for an import, `application/x-ndjson`.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body is of another media type";
    /// The body is JSON but not what the command needs; `errors` points at every mistake at once.
    InvalidFields = "invalid-fields", UNPROCESSABLE_ENTITY, "Fields are missing or wrong";
    /// The `Idempotency-Key` already stands for a different request. Nothing was changed.
    IdempotencyKeyReused = "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The Idempotency-Key was used before";
    /// The caller makes more requests a second than they may. Nothing was changed; `Retry-After` says when to come again.
    TooManyRequests = "too-many-requests", TOO_MANY_REQUESTS, "Too many requests of this caller";
    /// The headers are longer than 16 KiB.
    HeadersTooLarge = "headers-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too long";
    /// A mistake of ours. It is in the log under the problem's `trace_id`; retrying with the same key is safe.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
    /// The log is away. Whether a command was carried out may be unknown: retry it with the same `Idempotency-Key`.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The log is away";
    /// Too many requests are in flight. Nothing was changed.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too many requests in flight";
    /// This instance is about to end. Nothing was changed; another instance will answer.
    Draining = "draining", SERVICE_UNAVAILABLE, "This instance is about to end";
    /// The keys that callers' tokens are checked with cannot be reached. Nothing was changed.
    AuthUnavailable = "auth-unavailable", SERVICE_UNAVAILABLE, "Callers cannot be checked now";
    /// Ten seconds were not enough. Whether a command was carried out is unknown: retry it with the same `Idempotency-Key`.
    DeadlineExceeded = "deadline-exceeded", SERVICE_UNAVAILABLE, "It took too long";
}

impl Code {
    /// Whether the same request may well succeed a little later, so that the answer says when to try again.
    pub fn has_retry_after(self) -> bool {
        matches!(self, Self::Conflict | Self::TooManyRequests) || self.status() == StatusCode::SERVICE_UNAVAILABLE
    }
}

/// An answer that is an error. However long and whatever the request was, its document has at most [`PROBLEM_BYTES_MAX`] bytes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Problem {
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong this time, for people. Never holds anything that the client may not see.
    pub detail: String,
    /// Where, if it can be said.
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem without places.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: cut(detail.into(), PROBLEM_TEXT_CHARS_MAX), errors: Vec::new() }
    }

    /// A problem in these places; its detail says how many there are.
    pub fn with_errors(code: Code, errors: FieldErrors) -> Self {
        let summary = errors.summary();
        Self { errors: errors.listed, ..Self::new(code, summary) }
    }

    /// A mistake of ours: logged here, once, with its chain; the client learns nothing but that it happened.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::unexpected()
    }

    /// A mistake of ours that is logged elsewhere, as a panic is by the process's panic hook.
    pub(crate) fn unexpected() -> Self {
        Self::new(Code::Internal, "an unexpected error; it is in the log under this trace_id")
    }

    /// Of a part of the body, as a problem of all of it, in which the part is at `pointer`.
    pub(crate) fn within(mut self, pointer: &str) -> Self {
        for place in self.errors.iter_mut().filter_map(|error| error.pointer.as_mut()) {
            // The detail of one mistake begins with its place.
            if self.detail.starts_with(&format!("{place}: ")) {
                self.detail.insert_str(0, pointer);
            }
            place.insert_str(0, pointer);
        }
        self
    }

    /// The body, as it goes to the client.
    pub(crate) fn document(&self, trace_id: &str) -> ProblemDocument {
        ProblemDocument {
            kind: format!("/problems/{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code.as_str(),
            trace_id: trace_id.to_owned(),
            errors: self.errors.clone(),
        }
    }

    /// Makes `response`, which this problem became, complete.
    pub(crate) fn render(&self, trace_id: &str, response: &mut Response) {
        let body = serde_json::to_vec(&self.document(trace_id)).expect("a problem has string keys only, so it always serializes");
        debug_assert!(body.len() <= PROBLEM_BYTES_MAX, "a problem of {} bytes", body.len());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        headers.insert(CONTENT_LENGTH, body.len().into());
        *response.body_mut() = Body::from(body);
    }
}

impl IntoResponse for Problem {
    /// Status, headers and this value as an extension; [`Problem::render`] adds the body.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        if self.code.has_retry_after() {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S.into());
        }
        if self.code == Code::Forbidden {
            // RFC 6750, section 3: whoever the token is of may not.
            let challenge = HeaderValue::from_static("Bearer realm=\"contrail\", error=\"insufficient_scope\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Problem details as RFC 9457 has them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// Where this kind of problem is explained: a URI reference relative to this API.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/problems/invalid-fields")]
    kind: String,
    /// The same few words for every problem of this code.
    title: &'static str,
    /// The response's status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What went wrong this time, for people.
    detail: String,
    /// What went wrong, for programs: the last segment of `type`.
    code: &'static str,
    /// Under this id the request is found in logs and traces: the trace id of the request's `traceparent`, or a new one.
    #[schema(pattern = "^[0-9a-f]{32}$", example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: String,
    /// Where exactly, if it can be said; at most 100. Of a client's long name or value, the beginning is repeated.
    errors: Vec<FieldError>,
}

/// Every code that a [`FieldError`] can have.
pub const FIELD_ERROR_CODES: &[&str] =
    &["missing", "unknown-field", "repeated-field", "wrong-type", "wrong-format", "out-of-range", "syntax"];

/// One mistake and its place: a field of the body, a header, or a path parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field, as a JSON Pointer (RFC 6901) into the body; empty for the body as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "/lines/0/quantity")]
    pub pointer: Option<String>,
    /// The header's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub header: Option<&'static str>,
    /// The path parameter's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<&'static str>,
    /// What is wrong there, for people.
    #[schema(example = "must be 1 to 1000000")]
    pub detail: String,
    /// What is wrong there, for programs.
    #[schema(example = "out-of-range")]
    pub code: &'static str,
    /// Where the JSON ends to be JSON, from 1 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub line: Option<u32>,
    /// The byte in that line, from 1 on; 0 if the line is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub column: Option<u32>,
}

impl FieldError {
    /// A mistake in the field at `pointer`.
    pub fn at(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: Some(cut(pointer.into(), PROBLEM_TEXT_CHARS_MAX)), ..Self::nowhere(code, detail) }
    }

    /// A mistake in the header `name`.
    pub fn in_header(name: &'static str, code: &'static str, detail: impl Into<String>) -> Self {
        Self { header: Some(name), ..Self::nowhere(code, detail) }
    }

    /// A mistake in the path parameter `name`.
    pub fn in_parameter(name: &'static str, detail: impl Into<String>) -> Self {
        Self { parameter: Some(name), ..Self::nowhere("wrong-format", detail) }
    }

    /// The body stopped being JSON at this line and column.
    pub(crate) fn syntax(error: &serde_json::Error) -> Self {
        let place = Self::at("", "syntax", error.to_string());
        let (line, column) = (u32::try_from(error.line()).ok(), u32::try_from(error.column()).ok());
        Self { line, column, ..place }
    }

    fn nowhere(code: &'static str, detail: impl Into<String>) -> Self {
        let detail = cut(detail.into(), PROBLEM_TEXT_CHARS_MAX);
        Self { pointer: None, header: None, parameter: None, detail, code, line: None, column: None }
    }

    /// How many bytes of an answer it takes.
    fn length(&self) -> usize {
        serde_json::to_vec(self).expect("a mistake has string keys only, so it always serializes").len()
    }
}

/// Every mistake of one request. Lists the first ones, as many as fit [`FIELD_ERRORS_MAX`] and [`FIELD_ERRORS_BYTES_MAX`], and
/// counts the rest.
#[derive(Debug, Default)]
pub struct FieldErrors {
    listed: Vec<FieldError>,
    listed_bytes: usize,
    count: usize,
}

impl FieldErrors {
    /// Adds one.
    pub fn push(&mut self, error: FieldError) {
        self.push_with(|| error);
    }

    /// Adds one, which is made only if it is listed: there may be as many as the body has bytes.
    pub(crate) fn push_with(&mut self, error: impl FnOnce() -> FieldError) {
        self.count += 1;
        // Once one did not fit, none is listed any more: those that are listed are the first ones.
        let is_listing = self.listed.len() == self.count - 1 && self.listed.len() < FIELD_ERRORS_MAX;
        if !is_listing {
            return;
        }
        let error = error();
        let length = error.length();
        if self.listed_bytes + length <= FIELD_ERRORS_BYTES_MAX {
            self.listed_bytes += length;
            self.listed.push(error);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value if it is one and nothing is wrong; else all that is wrong, as a problem of this code.
    pub fn finish<T>(self, code: Code, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => Err(Problem::with_errors(code, self)),
        }
    }

    fn summary(&self) -> String {
        match (self.listed.as_slice(), self.count) {
            ([only], 1) => match (&only.pointer, only.header, only.parameter) {
                (Some(pointer), ..) if !pointer.is_empty() => format!("{pointer}: {}", only.detail),
                (Some(_), ..) => format!("the body: {}", only.detail),
                (None, Some(name), _) | (None, None, Some(name)) => format!("{name}: {}", only.detail),
                (None, None, None) => only.detail.clone(),
            },
            (listed, count) if count > listed.len() => format!("{count} mistakes; the first {} are listed in errors", listed.len()),
            (_, count) => format!("{count} mistakes; all are listed in errors"),
        }
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self { listed_bytes: error.length(), listed: vec![error], count: 1 }
    }
}

/// A name or value of the client's own choice, as an answer may repeat it: of a long one, the beginning.
pub(crate) fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text, if it has no more characters; else as many, of which the last says that there were more.
fn cut(mut text: String, chars_max: usize) -> String {
    if text.chars().nth(chars_max).is_some() {
        let end = text.char_indices().nth(chars_max - 1).map_or(0, |(end, _)| end);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_a_part_names_its_place_in_the_whole() {
        let problem = Problem::with_errors(Code::InvalidFields, FieldError::at("/lines", "out-of-range", "too many").into());
        let problem = problem.within("/order");
        assert_eq!(problem.detail, "/order/lines: too many");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/order/lines"));
    }
}
