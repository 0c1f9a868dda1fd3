//! The servers, started, killed and started again.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod nats;
mod orphans;
mod postgres;
mod stack;
