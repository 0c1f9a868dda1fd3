//! GraphQL over the read models of Contrail.
//!
//! * [`schema`]: what can be asked. `query-api/schema.graphql` is its text.
//! * [`reads`]: the SQL behind it; nothing else here speaks SQL.
//! * [`positions`]: how far the read models are, which is what `minPosition` waits for.
//! * [`live`]: what happens to orders, as it happens, which is what subscriptions tell.
//! * [`http`]: GraphQL over HTTP, and the page at `/`.
//! * [`operations`]: which queries are executed, if not any. [`document`]: reading one.
//! * [`error`]: how a caller hears of what went wrong. [`limits`]: every limit by name.
//!
//! This crate links no NATS client and changes nothing: its connections are read-only, and it has no mutation.
//!
//! To add a field: give it a docstring in [`schema`], read what it needs in [`reads`], then run
//! `cargo run -p query-api -- schema > query-api/schema.graphql`.

pub mod settings;

pub mod schema;

pub mod reads;

pub mod paging;

pub mod positions;

pub mod live;

pub mod http;

pub mod completion;
pub mod database;
pub mod document;
pub mod error;
pub mod limits;
pub mod metrics;
pub mod operations;

mod opaque;

/// The name of this service in logs and metrics.
pub const SERVICE: &str = "query-api";
