//! The whole system, each test on a stack of its own.

#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

mod running;

mod consistency;
mod flow;
mod idempotency;
mod scarcity;
mod secure_cluster;

mod cancellation;
mod chaos;
mod deadlines;
mod gateway_outage;

mod least_privilege;
mod operations;

mod backup;
mod drain;
mod kills;
mod logs;
mod poison;
mod replay;
mod rolling_restart;
mod start;
mod subscriptions;
mod tour;
mod traces;

mod cloudevents;
mod commands;
mod interop;
mod metrics;
