//! What a request says about itself besides its content: its names, and the trace it belongs to.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use telemetry::trace::{TRACEPARENT, TraceContext};
use uuid::Uuid;

use crate::{
    headers::{X_CORRELATION_ID, X_REQUEST_ID},
    limits::REQUEST_ID_CHARS_MAX,
    problem::Problem,
};

/// The identity of one request, made by [`observe`](crate::observe) before anything else looks at it.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    /// The client's `X-Request-Id`, or a new one; every answer carries it.
    pub(crate) request_id: String,
    /// The client's `X-Correlation-Id`, if it sent a good one.
    pub(crate) correlation_id: Option<String>,
    /// Where the request belongs in a distributed trace.
    pub(crate) trace: TraceContext,
}

impl RequestContext {
    /// Reads the headers. A name that is not good is replaced or left out, never refused: it is not worth an order.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        Self {
            request_id: name(headers, X_REQUEST_ID).unwrap_or_else(|| new_id().to_string()),
            correlation_id: name(headers, X_CORRELATION_ID),
            trace: trace(headers).unwrap_or_default(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::read(&parts.headers)))
    }
}

/// The operation at the client that the request is part of, if it says so.
pub(crate) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(only(headers, TRACEPARENT)?)
}

/// The one value of this header if it is 1 to [`REQUEST_ID_CHARS_MAX`] visible ASCII characters.
fn name(headers: &HeaderMap, header: &str) -> Option<String> {
    let value = only(headers, header)?;
    is_name(value).then(|| value.to_owned())
}

/// Whether this is 1 to [`REQUEST_ID_CHARS_MAX`] visible ASCII characters.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=REQUEST_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn only<'a>(headers: &'a HeaderMap, header: &str) -> Option<&'a str> {
    let mut values = headers.get_all(header).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[expect(clippy::disallowed_methods, reason = "the edge where a request that nobody named gets its ids")]
pub(crate) fn new_id() -> Uuid {
    Uuid::now_v7()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_good_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, "has spaces in it".parse().unwrap());
        headers.insert(X_CORRELATION_ID, "x".repeat(REQUEST_ID_CHARS_MAX + 1).parse().unwrap());
        let context = RequestContext::read(&headers);
        assert!(Uuid::try_parse(&context.request_id).is_ok());
        assert_eq!(context.correlation_id, None);

        headers.insert(X_REQUEST_ID, "r-1".parse().unwrap());
        assert_eq!(RequestContext::read(&headers).request_id, "r-1");
    }
}
