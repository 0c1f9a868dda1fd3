//! A payment gateway with the shape of Stripe's API, a ledger that outlives it, and faults on demand.
//!
//! It is what the demo and the tests charge. The part of the API that a server-side integration needs is there, with
//! Stripe's parameter names, objects, errors and idempotency:
//!
//! | route | does |
//! | --- | --- |
//! | `POST /v1/payment_intents` | creates, and with `confirm=true` charges |
//! | `GET /v1/payment_intents[/{id}]` | lists newest first, retrieves |
//! | `GET /v1/payment_intents/search` | finds by metadata, status, amount and currency; at once unless told otherwise; Stripe takes up to a minute |
//! | `POST /v1/refunds`, `GET /v1/refunds[/{id}]` | refunds in whole or in part, lists, retrieves |
//! | `GET`, `PUT`, `DELETE /_control` | shows, replaces, resets the faults |
//! | `GET /_control/ledger` | every charge, decline and refund: what the money did, to compare with what others believe |
//!
//! Guarantees:
//!
//! - A charge or refund that was answered is in the ledger file, and its idempotency key with it, even if the process
//!   is killed right after. (Not if the machine loses power: the file is written, not synced.)
//! - An idempotency key works once, whatever happens at the same time or in between.
//! - A request that has begun is finished even if the client goes away, like at a real gateway.
//!
//! Two simplifications: keys never expire, and a request that failed without moving money (4xx, injected 500) leaves
//! its key unused, where Stripe would replay some of those failures for a day.
//!
//! To add an endpoint that moves money: give `ledger::Command` a variant, parse its parameters in a file of its own,
//! and route it in `api.rs`.

mod api;
mod api_error;
mod params;

mod currency;
mod payment_intent;
mod payment_method;
mod refund;

mod gateway;
mod journal;
mod ledger;
mod listing;

mod control;
mod counts;
mod faults;

use std::path::Path;

use axum::Router;
use telemetry::metrics::Metrics;

pub use faults::{Faults, Latency};
pub use journal::LedgerError;

/// A gateway and its ledger. Clones are the same gateway.
#[derive(Clone, Debug)]
pub struct Simulator {
    gateway: std::sync::Arc<gateway::Gateway>,
}

impl Simulator {
    /// A gateway without faults. With a ledger file it knows what it did in earlier runs; without one it starts empty.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, is in use by another simulator, or is not a ledger.
    pub fn open(ledger_file: Option<&Path>) -> Result<Self, LedgerError> {
        let ledger = ledger::Ledger::open(ledger_file)?;
        Ok(Self { gateway: gateway::Gateway::new(ledger) })
    }

    /// The routes under `/v1` and `/_control`.
    ///
    /// Must be served over real connections: an answer that is lost on purpose unwinds the connection's task.
    pub fn router(&self) -> Router {
        api::routes(self.gateway.clone()).merge(control::routes(self.gateway.clone()))
    }

    /// Adds the gateway's counts to the process's metrics.
    pub fn register_metrics(&self, metrics: &Metrics) {
        metrics.register(|registry| self.gateway.counts().register(registry));
    }

    /// Replaces the faults, like `PUT /_control`.
    pub fn set_faults(&self, faults: Faults) {
        self.gateway.set_faults(faults);
    }
}
