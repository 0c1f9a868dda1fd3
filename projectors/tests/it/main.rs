//! The projections on a real NATS and a real Postgres, and the program as a process.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

mod story;
mod waiting;
mod world;

mod live;

mod audit;
mod audit_live;
mod replay;

mod backup;

mod program;
