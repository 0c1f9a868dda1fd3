//! One API with its own nats-server, and a client that holds every answer against the OpenAPI document.

use std::{
    convert::Infallible,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use auth::{
    AuthSettings, Door,
    settings::{KeySource, RateLimits},
};
use command_api::{api, limits::Limits, openapi, readiness};
use domain::{
    SnapshotState,
    order::{Order, OrderConfirmed, OrderEvent, OrderStockReserved},
};
use event_store::{EventContext, JetStreamEventStore};
use local_stack::{
    nats::NatsServer,
    tokens::{AUDIENCE, TokenIssuer},
};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use telemetry::{drain::Drain, health::Health, metrics::Metrics};
use time::{OffsetDateTime, macros::datetime};
use tokio::{net::TcpListener, task::JoinHandle};

/// When what a test appends by itself happened.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00 UTC);
/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);

/// See the module.
pub(crate) struct Server {
    pub(crate) nats: NatsServer,
    pub(crate) store: JetStreamEventStore,
    pub(crate) url: String,
    pub(crate) drain: Drain,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
    client: reqwest::Client,
    keys: AtomicU64,
}

/// An answer, already held against the document.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> Self {
        let server = Self::start_without_log(limits).await;
        server.set_up_log().await;
        server
    }

    /// Everything but the streams.
    pub(crate) async fn start_without_log(limits: Limits) -> Self {
        Self::start_behind(|_| Door::open(), limits).await
    }

    /// One that asks callers for tokens of `issuer`, with these limits for each.
    pub(crate) async fn start_guarded(issuer: &TokenIssuer, rates: RateLimits) -> Self {
        Self::start_guarded_with(issuer, rates, Limits::default()).await
    }

    pub(crate) async fn start_guarded_with(issuer: &TokenIssuer, rates: RateLimits, limits: Limits) -> Self {
        let key_set = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&key_set, issuer.key_set().to_string()).unwrap();
        let settings = AuthSettings::Keys {
            source: KeySource::File(key_set.path().to_owned()),
            audience: AUDIENCE.to_owned(),
            issuer: None,
            limits: rates,
        };
        let server = Self::start_behind(|health| Door::new(settings, health).unwrap(), limits).await;
        server.set_up_log().await;
        eventually("the keys are read", async || server.get("/ready").await.status == StatusCode::OK).await;
        server
    }

    async fn start_behind(door: impl FnOnce(&Health) -> Door, limits: Limits) -> Self {
        // Without a provider the client refuses to be made; none is used, for there is no TLS here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nats = tokio::task::block_in_place(local_stack::testing::nats);
        let store = JetStreamEventStore::connect(nats.url(), "command-api").await.unwrap();
        let (health, metrics, drain) = (Health::new("command-api"), Metrics::new("command-api"), Drain::manual());
        let door = door(&health);
        health.drain_with(&drain);
        tokio::spawn(readiness::watch(store.clone(), health.component("nats"), drain.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = api::router(store.clone(), door, health, metrics, drain.clone(), &limits);
        let serving = tokio::spawn(telemetry::http::serve(listener, router, drain.clone()));
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { nats, store, url, drain, serving, client, keys: AtomicU64::new(0) }
    }

    pub(crate) async fn set_up_log(&self) {
        eventually("a connection", async || self.store.is_connected()).await;
        self.store.set_up(Some(1)).await.unwrap();
        self.store.wait_until_ready(|_| ()).await;
    }

    /// A key that no request of this test has used yet.
    pub(crate) fn new_key(&self) -> String {
        format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// A well-formed command under this key.
    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.post_with(path, &[("idempotency-key", key)], body).await
    }

    /// A command with these headers, and the right content type.
    pub(crate) async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send(Method::POST, path, &all, body.to_string()).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap().to_vec();
        crate::contract::check(&DOCUMENT, &method, path, status, &headers, &body);
        assert_eq!(headers["cache-control"], "no-store");
        assert!(headers.contains_key("x-request-id"));
        let answer = Answer { status, headers, body };
        // `/ready` says in its own words why it is not.
        if (status.is_client_error() || status.is_server_error()) && path != "/ready" {
            answer.assert_is_problem();
        }
        answer
    }

    /// Places an order and answers with its path.
    pub(crate) async fn place(&self) -> String {
        let answer = self.post("/v1/orders", &self.new_key(), &order()).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        answer.header("location").to_owned()
    }

    /// Places an order and takes it as far as the reactors would.
    pub(crate) async fn place_confirmed(&self) -> String {
        let path = self.place().await;
        let reserved = OrderStockReserved { reserved_at: NOW, payment_due_at: NOW + Duration::from_secs(1_800) };
        let confirmed = OrderConfirmed { payment_intent_id: "pi_1".to_owned(), confirmed_at: NOW };
        self.append::<Order>(id_of(&path), vec![reserved.into(), confirmed.into()]).await;
        path
    }

    /// Appends what another service would.
    pub(crate) async fn append<A: SnapshotState>(&self, id: &str, events: Vec<A::Event>) {
        let context = EventContext {
            source: "/contrail/test",
            event_id: None,
            correlation_id: "test".to_owned(),
            causation_id: None,
            actor: None,
            traceparent: None,
            time: NOW,
        };
        self.store.execute::<A, Infallible>(id, &context, |_| Ok(events.clone())).await.unwrap();
    }

    pub(crate) async fn order_events(&self, path: &str) -> Vec<OrderEvent> {
        let events = self.store.events_of("order", id_of(path)).await.unwrap();
        events.iter().map(|recorded| recorded.event.decode().unwrap()).collect()
    }

    /// What /metrics says.
    pub(crate) async fn metrics(&self) -> String {
        String::from_utf8(self.get("/metrics").await.body).unwrap()
    }

    pub(crate) fn kill_nats(&mut self) {
        tokio::task::block_in_place(|| self.nats.kill());
    }

    pub(crate) fn start_nats_again(&mut self) {
        tokio::task::block_in_place(|| self.nats.start_again()).unwrap();
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }

    pub(crate) fn replayed(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    /// Status and code, the two things that a client's program looks at.
    pub(crate) fn problem(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["code"].as_str().unwrap().to_owned())
    }

    /// `place code` of every error, where the place is a pointer or the name of a header or parameter.
    pub(crate) fn errors(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().unwrap().clone();
        let place =
            |error: &Value| ["pointer", "header", "parameter"].iter().find_map(|kind| error[kind].as_str().map(str::to_owned));
        errors.iter().map(|error| format!("{} {}", place(error).unwrap(), error["code"].as_str().unwrap())).collect()
    }

    fn assert_is_problem(&self) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["type"], format!("/problems/{}", problem["code"].as_str().unwrap()));
        assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);
        assert!(problem["title"].is_string() && problem["detail"].is_string() && problem["errors"].is_array());
    }
}

/// The id at the end of an order's path.
pub(crate) fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// A good order.
pub(crate) fn order() -> Value {
    json!({
        "customer": {"id": "c-42", "email": "a@example.com", "name": "A"}, "currency": "EUR",
        "lines": [{"sku": "TEA-1", "quantity": 2, "unit_price_minor": 1250}], "payment_method": "pm_card_visa",
    })
}

/// Waits until `condition` holds; panics after [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}
