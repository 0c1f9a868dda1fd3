//! What an outside system is told of the trace that a request belongs to, and what the trace is told of the request.

use reqwest::{Request, header::HeaderValue};
use telemetry::trace::{Kind, Span, TRACEPARENT, TraceContext};

/// The span of sending `request` because of `cause`. The request carries it on.
pub(crate) fn span(request: &mut Request, cause: Option<TraceContext>) -> Span {
    let mut span = Span::after(Kind::Client, "request", cause);
    if let Some(traceparent) = span.traceparent()
        && let Ok(traceparent) = HeaderValue::try_from(traceparent)
    {
        request.headers_mut().insert(TRACEPARENT, traceparent);
    }
    if span.is_recorded() {
        // Of the URL no more than the host: it may hold ids or, from a careless setting, a password.
        span.rename(request.method());
        span.set("http.request.method", request.method().to_string());
        span.set("server.address", request.url().host_str().unwrap_or_default().to_owned());
        span.set("server.port", i64::from(request.url().port_or_known_default().unwrap_or_default()));
    }
    span
}
