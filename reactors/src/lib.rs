//! The side effects: allocate stock, charge, call off what is not paid in time, notify. Never replayed.
//!
//! Each reactor takes events from a durable queue, carries out what the domain decides, appends the outcome, and only
//! then acknowledges. Whatever dies in between, the event is delivered again and finds what was already done: appends
//! are conditional, effects carry an idempotency key.
//!
//! This crate links no SQL client: a reactor reads the log, never a read model, so it cannot act on what is late.
//!
//! To add a reactor: see "A new reactor" in `ARCHITECTURE.md`.

pub mod allocator;
pub mod deadlines;
pub mod notifications;
pub mod payments;

pub mod breaker;
mod reactor;
mod retry;

pub mod dead_letters;
pub mod reconcile;

mod causation;
mod clock;
mod metrics;
mod outgoing;

pub mod settings;

pub use metrics::ReactorMetrics;
pub use reactor::{Failure, News, Reactor, Surroundings, run};
pub use retry::RetryBudget;
