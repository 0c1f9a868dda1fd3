//! The read models in Postgres: what they are called, how to reach them, what a row of them holds.
//!
//! * [`pool`]: connections that wait for an absent server and give up on a stuck statement.
//! * [`schema`]: the names of the tables, and the migrations that make them.
//! * [`projections`]: how far each read model is.
//! * [`notices`]: how a reader learns that one moved.
//! * [`views`]: the order and the stock item as the read models keep them, and how events fold into them.
//!
//! `projectors` writes these tables and nobody else does. This crate knows no NATS, so that `query-api` links none.
//!
//! To change a table: add a migration, never edit one; add the field to its view with a serde default; then
//! `projectors replay` the read model.

pub mod pool;
pub mod schema;

pub mod projections;

pub mod notices;

pub mod views;
