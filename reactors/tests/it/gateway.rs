//! The payment simulator in this process, over real HTTP.

use std::collections::BTreeMap;

use domain::OrderId;
use payment_simulator::{Faults, Simulator};
use reactors::payments::stripe::{ApiKey, StripeGateway};
use reqwest::Client;
use serde_json::Value;
use telemetry::drain::Drain;
use tokio::net::TcpListener;

use crate::eventually;

const KEY: &str = "sk_test_reactors";

pub(crate) struct Gateway {
    simulator: Simulator,
    base: String,
    client: Client,
}

/// What the gateway says has happened to money: amounts by order id, one per charge or refund.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Money {
    pub(crate) charges: BTreeMap<String, Vec<i64>>,
    pub(crate) refunds: BTreeMap<String, Vec<i64>>,
}

impl Gateway {
    /// A gateway without faults.
    pub(crate) async fn open() -> Self {
        let simulator = Simulator::open(None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(telemetry::http::serve(listener, simulator.router(), Drain::manual()));
        // An error means that another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().tls_certs_only([]).build().unwrap();
        Self { simulator, base, client }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// What the payments reactor speaks through.
    pub(crate) fn adapter(&self) -> StripeGateway {
        self.adapter_with_key(KEY)
    }

    pub(crate) fn adapter_with_key(&self, key: &str) -> StripeGateway {
        StripeGateway::new(self.base.parse().unwrap(), ApiKey::new(key)).unwrap()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.simulator.set_faults(faults);
    }

    pub(crate) async fn money(&self) -> Money {
        let ledger = self.get("/_control/ledger").await;
        let by_order = |rows: &Value| {
            let mut by_order: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for row in rows.as_array().unwrap() {
                let amounts = by_order.entry(row["order_id"].as_str().unwrap().to_owned()).or_default();
                amounts.push(row["amount"].as_i64().unwrap());
            }
            by_order
        };
        Money { charges: by_order(&ledger["charges"]), refunds: by_order(&ledger["refunds"]) }
    }

    /// Waits until at least `times` requests have ended like this.
    pub(crate) async fn until_counted(&self, ending: &str, times: u64) {
        let counted = async || (self.counted(ending).await >= times).then_some(());
        eventually(&format!("the gateway has {times} requests {ending}"), counted).await;
    }

    /// How many requests have ended like this.
    pub(crate) async fn counted(&self, ending: &str) -> u64 {
        self.get("/_control").await["counts"][ending].as_u64().unwrap()
    }

    /// Waits until a request is being worked on.
    pub(crate) async fn until_in_flight(&self) {
        let in_flight = async || (self.get("/_control").await["in_flight"].as_u64().unwrap() > 0).then_some(());
        eventually("a request is in flight", in_flight).await;
    }

    /// Charges a card, for an order or for something else, past the reactors. Returns the charge's name.
    pub(crate) async fn charge_by_hand(&self, order_id: Option<OrderId>, amount: i64) -> String {
        let (amount, order_id) = (amount.to_string(), order_id.map(|order_id| order_id.to_string()));
        let mut params =
            vec![("amount", amount.as_str()), ("currency", "eur"), ("payment_method", "pm_card_visa"), ("confirm", "true")];
        params.push(("payment_method_types[]", "card"));
        params.extend(order_id.as_deref().map(|order_id| ("metadata[order_id]", order_id)));
        let charge = self.client.post(format!("{}/v1/payment_intents", self.base)).bearer_auth(KEY).form(&params);
        let charge: Value = charge.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
        charge["id"].as_str().unwrap().to_owned()
    }

    /// Gives back part of what an order was charged, by hand.
    pub(crate) async fn refund_by_hand(&self, payment_intent_id: &str, order_id: OrderId, amount: i64) {
        let params =
            [("payment_intent", payment_intent_id), ("amount", &amount.to_string()), ("metadata[order_id]", &order_id.to_string())];
        let refund = self.client.post(format!("{}/v1/refunds", self.base)).bearer_auth(KEY).form(&params);
        refund.send().await.unwrap().error_for_status().unwrap();
    }

    async fn get(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap().json().await.unwrap()
    }
}
