//! The business of Contrail: what may happen to orders, stock, payments and notifications.
//!
//! Everything here is a plain function of its arguments. Ids and times come in with the command; nothing reads a
//! clock, draws a random number, touches a file or a socket, or needs an async runtime.
//!
//! Each aggregate is a folder of the same six files, in reading order: `command`, `event`, `state` (with a total
//! `evolve`), `decide` (a command and a state in, events or a rejection out; the same command twice returns no
//! events), `error`, and `aggregate` (the thin [`cqrs_es::Aggregate`] implementation).
//!
//! * [`order`], [`stock`], [`payment`], [`notification`]: the aggregates.
//! * [`allocation`], [`settlement`]: the decisions that span aggregates, taken here and carried out by `reactors`.
//! * [`SnapshotState`]: what keeping an aggregate's state takes, in memory and in snapshots.
//! * [`envelope`]: one event as one CloudEvents document, the bytes that the log stores.
//! * [`upcast`]: how events stored in an older shape are read today.
//! * [`catalogue`]: what the stored events are, for those who read them without this crate.
//!
//! To add an event: a payload struct and a line in `event_enum!`, which also puts it into the catalogue of `docs/events/`; the rest is
//! under "A new event and command" in `ARCHITECTURE.md`, and what to do when a shape changes under "A new shape of an event".

mod codec;

pub mod order;
pub mod payment;
pub mod stock;

pub mod notification;

pub mod allocation;
pub mod settlement;

pub mod catalogue;
pub mod envelope;
pub mod upcast;

mod ids;
mod money;
mod request;
mod rfc3339;
mod shared_map;
mod snapshot;

pub use codec::{DecodeError, EventPayload, Malformed, is_known};
pub use ids::{CUSTOMER_ID_CHARS_MAX, CustomerId, IdError, NotificationId, OrderId, SKU_CHARS_MAX, Sku};
pub use money::{Currency, Money, MoneyError};
pub use request::{REMEMBERED_REQUESTS_MAX, RecentRequests, Request, RequestMemory};
pub use shared_map::SharedMap;
pub use snapshot::SnapshotState;
