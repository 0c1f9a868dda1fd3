//! A shop's own client: commands over HTTP, with the retries of a checkout, and GraphQL for what became of them.

mod commands;
mod queries;

mod gateway;

mod retry;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::OrderId;
use local_stack::StackInfo;

use crate::http_client;

pub use commands::{Customer, Line, NewOrder, OrderAnswer, RawAnswer, StockAnswer};
pub use gateway::{Charge, GatewayLedger, Refund};
pub use queries::{HistoryEvent, MoneySeen, OrderSeen, ProjectionSeen, StockSeen};
pub use retry::{ShopError, VainTries};

/// How long one try may take: a little more than the server's own deadline, after which it answers 503.
const TRY_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a checkout goes on trying, unless told otherwise.
const PATIENCE: Duration = Duration::from_mins(2);

/// A client of one stack. Clones share their connections and what was acknowledged to them.
#[derive(Clone, Debug)]
pub struct Shop {
    http: reqwest::Client,
    command_api: String,
    query_api: String,
    payment_simulator: String,
    tokens: Arc<BTreeMap<String, String>>,
    patience: Duration,
    acknowledged: Arc<Mutex<BTreeMap<String, Vec<Acknowledged>>>>,
    vain: Arc<retry::Vain>,
}

/// A 2xx answer to a placed order: what the system has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The order.
    pub order_id: OrderId,
    /// Where it stands in the log.
    pub position: u64,
}

impl Shop {
    /// A client of the stack at these URLs.
    pub fn new(info: &StackInfo) -> anyhow::Result<Self> {
        Ok(Self {
            http: http_client::new(TRY_TIMEOUT)?,
            command_api: info.command_api.clone(),
            query_api: info.query_api.clone(),
            payment_simulator: info.payment_simulator.clone(),
            tokens: Arc::new(info.tokens.clone()),
            patience: PATIENCE,
            acknowledged: Arc::default(),
            vain: Arc::default(),
        })
    }

    /// The same, to which is acknowledged what was acknowledged to `earlier` up to this position of the log.
    #[must_use]
    pub fn remembering(self, earlier: &Self, last_position: u64) -> Self {
        let mut known = earlier.acknowledged();
        for answers in known.values_mut() {
            answers.retain(|answer| answer.position <= last_position);
        }
        known.retain(|_, answers| !answers.is_empty());
        Self { acknowledged: Arc::new(Mutex::new(known)), ..self }
    }

    /// Every acknowledged order by its `Idempotency-Key`: one answer each, unless two tries got different ones.
    pub fn acknowledged(&self) -> BTreeMap<String, Vec<Acknowledged>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was tried in vain so far, and tried again.
    pub fn vain_tries(&self) -> VainTries {
        self.vain.so_far()
    }

    /// The request in the name of whoever does such a thing.
    fn sign(&self, request: reqwest::RequestBuilder, role: &str) -> reqwest::RequestBuilder {
        match self.tokens.get(role) {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn acknowledge(&self, key: &str, acknowledged: Acknowledged) {
        let mut known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = known.entry(key.to_owned()).or_default();
        if !answers.contains(&acknowledged) {
            answers.push(acknowledged);
        }
    }
}
