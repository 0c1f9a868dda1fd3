//! A running simulator, and how the tests talk to it.

use payment_simulator::Simulator;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use telemetry::drain::Drain;
use tokio::net::TcpListener;

/// A client of a simulator. Made by [`start`], it takes the simulator down when it is dropped.
pub(crate) struct Api {
    base: String,
    client: Client,
    drain: Drain,
}

/// A simulator without faults and without a file, in this process, on a free port.
pub(crate) async fn start() -> Api {
    let simulator = Simulator::open(None).expect("needs nothing");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    let api = Api::at(address);
    tokio::spawn(telemetry::http::serve(listener, simulator.router(), api.drain.clone()));
    api
}

impl Api {
    /// A client of whatever listens there.
    pub(crate) fn at(address: impl std::fmt::Display) -> Self {
        // An error means that another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { base: format!("http://{address}"), client: Client::new(), drain: Drain::manual() }
    }

    /// Where it listens, as a URL without a path.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.anonymous(path).bearer_auth("sk_test_simulator")
    }

    /// A GET without a key.
    pub(crate) fn anonymous(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    pub(crate) fn post(&self, path: &str, params: &[(&str, &str)]) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base)).bearer_auth("sk_test_simulator").form(params)
    }

    /// A confirmed charge of 12.50 EUR.
    pub(crate) fn charge(&self, order_id: &str, payment_method: &str) -> RequestBuilder {
        let params = [
            ("amount", "1250"),
            ("currency", "eur"),
            ("payment_method", payment_method),
            ("confirm", "true"),
            ("metadata[order_id]", order_id),
        ];
        self.post("/v1/payment_intents", &params).header("Idempotency-Key", order_id)
    }

    pub(crate) async fn set_faults(&self, faults: Value) -> Response {
        let request = self.client.put(format!("{}/_control", self.base)).json(&faults);
        request.send().await.expect("the control routes have no faults")
    }

    pub(crate) async fn reset_faults(&self) -> Value {
        let request = self.client.delete(format!("{}/_control", self.base));
        json(request).await.1
    }

    pub(crate) async fn ledger(&self) -> Value {
        json(self.get("/_control/ledger")).await.1
    }

    /// How many requests ended like this.
    pub(crate) async fn count(&self, ending: &str) -> u64 {
        let state = json(self.get("/_control")).await.1;
        state["counts"][ending].as_u64().expect("every ending is counted")
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.drain.start();
    }
}

/// The status and the body of the answer.
pub(crate) async fn json(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.expect("a JSON body"))
}
