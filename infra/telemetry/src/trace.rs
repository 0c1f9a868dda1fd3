//! Traces: which operation led to which, across processes, for an OpenTelemetry collector.
//!
//! A trace follows a request into the log and from there to everything that it leads to, because every event carries the
//! [`TraceContext`] of whoever appended it. Spans are begun with the context that they follow on, never with what happens to be current
//! on a thread: what handles an event has no other link to its cause than the event, and one batch serves many traces.
//!
//! Where no collector is set ([`settings::TraceFlags`]) nothing is recorded, and a [`Span`] costs a look at one static. Contexts are then
//! handed on as they came, so that other people's traces stay connected.
//!
//! Names and attributes follow OpenTelemetry's semantic conventions for HTTP, messaging and databases.

mod context;
mod export;
mod recorder;
mod sampler;
pub mod settings;
mod span;

pub use self::{
    context::{TRACEPARENT, TraceContext},
    recorder::{Flush, is_on, start},
    span::{Kind, Span, current, within},
};
