//! A position in a trace, as it travels between processes.

use std::fmt;

use opentelemetry::{
    SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

/// The HTTP header's name, and that of the CloudEvents extension.
pub const TRACEPARENT: &str = "traceparent";

/// Its only flag in use: the trace is recorded.
const SAMPLED: u8 = 1;
/// The flags that there are (W3C Trace Context, levels 1 and 2): that one, and that the trace's id is random. Others must not be passed on.
const KNOWN_FLAGS: u8 = 0b11;

/// A position in a distributed trace. Its `Display` is the `traceparent` of W3C Trace Context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// The root of a new trace that nobody records.
    pub fn new() -> Self {
        let ids = RandomIdGenerator::default();
        Self { trace_id: u128::from_be_bytes(ids.new_trace_id().to_bytes()), span_id: new_span_id(), flags: 0 }
    }

    /// Section 3.2 of the recommendation: four fields of lower-case hex. A later version may have more; we speak version 00.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.trim_matches([' ', '\t']).split('-');
        let version = fields.next().filter(|field| is_hex(field, 2) && *field != "ff")?;
        let trace_id = fields.next().filter(|field| is_hex(field, 32))?;
        let span_id = fields.next().filter(|field| is_hex(field, 16))?;
        let flags = fields.next().filter(|field| is_hex(field, 2))?;
        if version == "00" && fields.next().is_some() {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace_id, 16).ok()?,
            span_id: u64::from_str_radix(span_id, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()? & KNOWN_FLAGS,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// The trace's id: 32 digits of lower-case hex.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The id of the span that this is the context of: 16 digits of lower-case hex.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    /// Whether somebody upstream records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace's id as a number.
    pub(super) fn trace_number(&self) -> u128 {
        self.trace_id
    }

    /// A new span of the same trace.
    pub(super) fn child(&self, sampled: bool) -> Self {
        Self { span_id: new_span_id(), ..self.with_sampled(sampled) }
    }

    /// The same position, and whether the trace is recorded.
    pub(super) fn with_sampled(self, sampled: bool) -> Self {
        Self { flags: if sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED }, ..self }
    }

    pub(super) fn to_open_telemetry(self, is_remote: bool) -> SpanContext {
        let (trace_id, span_id) = (TraceId::from_bytes(self.trace_id.to_be_bytes()), self.open_telemetry_span_id());
        SpanContext::new(trace_id, span_id, TraceFlags::new(self.flags), is_remote, TraceState::NONE)
    }

    pub(super) fn open_telemetry_span_id(self) -> SpanId {
        SpanId::from_bytes(self.span_id.to_be_bytes())
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

fn new_span_id() -> u64 {
    u64::from_be_bytes(RandomIdGenerator::default().new_span_id().to_bytes())
}

fn is_hex(field: &str, length: usize) -> bool {
    field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_good_traceparent_is_taken_over() {
        let context = TraceContext::parse(GOOD).expect("it is good");
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id(), "00f067aa0ba902b7");
        assert!(context.is_sampled());
        assert_eq!(TraceContext::parse(&format!(" {GOOD}\t")), Some(context));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let context = TraceContext::parse(&format!("cc{}-what-the-future-brings", &GOOD[2..])).expect("it is good");
        assert_eq!(context.to_string(), GOOD);
        let context = TraceContext::parse(&format!("{}fe", &GOOD[..53])).expect("it is good");
        assert_eq!(context.to_string(), format!("{}02", &GOOD[..53]));
    }

    #[test]
    fn a_bad_traceparent_is_not() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_child_is_another_span_of_the_same_trace() {
        let root = TraceContext::new();
        assert!(!root.is_sampled());
        let child = root.child(true);
        assert_eq!((child.trace_id(), child.is_sampled()), (root.trace_id(), true));
        assert_ne!(child.span_id(), root.span_id());
        assert_eq!(TraceContext::parse(&root.to_string()), Some(root));
    }
}
