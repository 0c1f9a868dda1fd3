//! The read models' schema on a real Postgres, and the folds of the views.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

mod schema;
mod views;
