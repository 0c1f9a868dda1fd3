//! What a request says about itself besides its content: its names, and the trace it belongs to.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use uuid::Uuid;

use crate::{
    headers::{TRACEPARENT, X_CORRELATION_ID, X_REQUEST_ID},
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
            trace: TraceContext::read(headers).unwrap_or_else(TraceContext::new),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::read(&parts.headers)))
    }
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

/// A position in a distributed trace, as W3C Trace Context's `traceparent` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    traceparent: String,
}

impl TraceContext {
    /// The root of a new trace, not sampled.
    fn new() -> Self {
        // The last 62 bits of a UUID v7 are random, and its variant bits keep them from being all zero.
        let (trace_id, parent) = (new_id(), new_id());
        let parent_id: String = parent.simple().to_string()[16..].to_owned();
        Self { traceparent: format!("00-{}-{parent_id}-00", trace_id.simple()) }
    }

    fn read(headers: &HeaderMap) -> Option<Self> {
        Self::parse(only(headers, TRACEPARENT)?)
    }

    /// Section 3.2 of the recommendation: four fields of lower-case hex. A later version may have more; we speak version 00.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.trim_matches([' ', '\t']).split('-');
        let version = fields.next().filter(|field| is_hex(field, 2) && *field != "ff")?;
        let trace_id = fields.next().filter(|field| is_hex(field, 32) && !is_zero(field))?;
        let parent_id = fields.next().filter(|field| is_hex(field, 16) && !is_zero(field))?;
        let flags = fields.next().filter(|field| is_hex(field, 2))?;
        if version == "00" && fields.next().is_some() {
            return None;
        }
        Some(Self { traceparent: format!("00-{trace_id}-{parent_id}-{flags}") })
    }

    /// The header's value.
    pub(crate) fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// 32 hex digits.
    pub(crate) fn trace_id(&self) -> &str {
        &self.traceparent[3..35]
    }
}

fn is_hex(field: &str, length: usize) -> bool {
    field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(field: &str) -> bool {
    field.bytes().all(|byte| byte == b'0')
}

#[expect(clippy::disallowed_methods, reason = "the edge where a request that nobody named gets its ids")]
pub(crate) fn new_id() -> Uuid {
    Uuid::now_v7()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_good_traceparent_is_taken_over() {
        let trace = TraceContext::parse(GOOD).unwrap();
        assert_eq!(trace.traceparent(), GOOD);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        let trace = TraceContext::parse(&format!("cc{}-what-the-future-brings", &GOOD[2..])).unwrap();
        assert_eq!(trace.traceparent(), GOOD);
    }

    #[test]
    fn a_bad_traceparent_is_not() {
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &GOOD.replace("00-4bf", "ff-4bf"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            &GOOD.replace("-01", "-1"),
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_new_trace_is_well_formed_and_its_own() {
        let (one, other) = (TraceContext::new(), TraceContext::new());
        assert_eq!(TraceContext::parse(one.traceparent()), Some(one.clone()));
        assert_ne!(one, other);
    }

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
