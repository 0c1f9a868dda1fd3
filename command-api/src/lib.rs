//! The command API: HTTP in, events out.
//!
//! A command is read and validated, recognised if it is a retry, decided by `domain` on the aggregate's state, and appended to
//! the log; nothing else holds state. There is no database here but the log, not even for idempotency: an order's id is derived
//! from its key, and every aggregate remembers the requests that led to it.
//!
//! In reading order: [`settings`] and [`limits`]; [`api`] with the routes; `orders`, `bulk` and `stock`, the handlers; `command`,
//! which all of them share; what they are made of (`json`, `fields`, `idempotency`, `precondition`, `answers`, `log`); what
//! surrounds them (`observe`, `admission`, `identity`, `body`, `context`); [`problem`], the errors; [`openapi`] and `docs`,
//! which describe it all.
//!
//! To add a command: a body type with `CommandBody` and a handler with `#[utoipa::path]` in `orders` or `stock`, a line in that
//! module's `routes`, and `command-api openapi > command-api/openapi.json`.

pub mod settings;

pub mod limits;

pub mod api;

mod orders;

mod bulk;

mod stock;

mod command;

mod fields;
mod idempotency;
mod json;
mod precondition;

mod log;

mod answers;

mod admission;
mod body;
mod context;
mod headers;
mod identity;
mod observe;

pub mod problem;

pub mod docs;
pub mod openapi;

pub mod readiness;
