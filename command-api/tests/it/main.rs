//! The command API over real HTTP, against a real nats-server.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod contract;
mod server;

mod bulk;
mod orders;
mod stock;

mod idempotency;
mod preconditions;

mod callers;
mod problems;
mod requests;

mod outages;

mod documents;
mod process;
