//! Webhooks: signed, sent again until they are taken, and told apart by their ids.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::post,
};
use domain::{NotificationId, OrderId, notification::Notification};
use reactors::{
    RetryBudget,
    dead_letters::{self, Selection, Verdict},
    notifications::{WebhookSecrets, Webhooks},
};
use ring::hmac;
use serde_json::Value;
use telemetry::drain::Drain;
use tokio::net::TcpListener;

use crate::{
    eventually,
    running::{self, Dashboard, Running},
    shop::{ONE_TEA, PRICE, Shop},
    trail::Trail,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECRET_BYTES: [u8; 24] = [
    0x31, 0xf2, 0x90, 0xf6, 0xbf, 0x06, 0x29, 0x8a, 0xab, 0x4f, 0x08, 0xd4, 0x3c, 0x3f, 0x08, 0x2c, 0xf6, 0x48, 0xa3, 0x62, 0xda,
    0x2d, 0xa4, 0xb0,
];

/// Somebody who receives webhooks, and answers with the status that is set.
#[derive(Clone)]
struct Receiver {
    received: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    status: Arc<Mutex<StatusCode>>,
    /// To whatever holds this text, another status.
    exception: Arc<Mutex<Option<(String, StatusCode)>>>,
    url: String,
}

impl Receiver {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks?key=of-the-receiver", listener.local_addr().unwrap());
        let status = Arc::new(Mutex::new(StatusCode::NO_CONTENT));
        let receiver = Self { received: Arc::default(), status, exception: Arc::default(), url };
        let router = Router::new().route("/hooks", post(receive)).with_state(receiver.clone());
        tokio::spawn(telemetry::http::serve(listener, router, Drain::manual()));
        receiver
    }

    fn answer(&self, status: StatusCode) {
        *self.status.lock().unwrap() = status;
    }

    fn received(&self) -> Vec<(HeaderMap, Bytes)> {
        self.received.lock().unwrap().clone()
    }

    fn webhooks(&self, dashboard: &Dashboard) -> Running {
        let secrets = WebhookSecrets::parse(SECRET).unwrap();
        let webhooks = Webhooks::new(self.url.parse().unwrap(), secrets, &dashboard.surroundings).unwrap();
        running::run_on(webhooks, dashboard.surroundings.clone())
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let text = String::from_utf8_lossy(&body).into_owned();
    receiver.received.lock().unwrap().push((headers, body));
    match &*receiver.exception.lock().unwrap() {
        Some((part, status)) if text.contains(part) => *status,
        _ => *receiver.status.lock().unwrap(),
    }
}

/// As the specification says, without a line of ours.
fn assert_signed(headers: &HeaderMap, body: &[u8]) -> String {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET_BYTES);
    let signature = header("webhook-signature");
    let signature =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature.strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&key, &content, &signature).unwrap();
    id
}

async fn open() -> (Shop, Receiver, Dashboard, Trail) {
    let (shop, receiver) = tokio::join!(Shop::open(), Receiver::open());
    let (dashboard, trail) = (Dashboard::of(&shop.store), Trail::of(&shop.store));
    (shop, receiver, dashboard, trail)
}

async fn confirmed(shop: &Shop, key: &str) -> String {
    let order = shop.place(key, ONE_TEA).await;
    shop.reserve_long_ago(order).await;
    shop.confirm(order).await;
    order.to_string()
}

#[tokio::test]
async fn what_happens_from_now_on_is_told_signed_and_without_personal_data() {
    let (shop, receiver, dashboard, mut trail) = open().await;
    confirmed(&shop, "before").await;
    let _running = receiver.webhooks(&dashboard);
    shop.known("webhooks").await;
    let order = confirmed(&shop, "o").await;
    trail.until("it is recorded", |trail| trail.notifications.len() == 1).await;
    let [(headers, body)] = receiver.received().try_into().unwrap();
    let id = assert_signed(&headers, &body);
    let event = &trail.events.iter().rfind(|(_, event)| event.metadata.event_type == "contrail.order.confirmed.v1").unwrap().1;
    assert_eq!(id, NotificationId::derive(event.metadata.event_id, "webhook").to_string());
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["type"], &body["data"]["order_id"]), (&"order.confirmed".into(), &order.as_str().into()));
    assert_eq!((&body["data"]["status"], &body["data"]["total"]["minor_units"]), (&"CONFIRMED".into(), &PRICE.into()));
    assert!(!body.to_string().contains("ada@") && !body.to_string().contains("Ada"), "{body}");
}

#[tokio::test]
async fn webhooks_wait_while_the_receiver_is_away_and_come_under_the_same_ids() {
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::NOT_FOUND, StatusCode::MOVED_PERMANENTLY] {
        let (shop, receiver, dashboard, mut trail) = open().await;
        receiver.answer(status);
        let _running = receiver.webhooks(&dashboard);
        shop.known("webhooks").await;
        for number in 0..15 {
            confirmed(&shop, &format!("o-{number}")).await;
        }
        let opened = async || (dashboard.breaker_changes("webhook-receiver", "open") >= 1).then_some(());
        eventually("it is left alone", opened).await;
        receiver.answer(StatusCode::OK);
        trail.until("all are told", |trail| trail.notifications.len() == 15).await;
        let ids: std::collections::BTreeSet<_> =
            receiver.received().iter().map(|(headers, body)| assert_signed(headers, body)).collect();
        assert_eq!((ids.len(), receiver.received().len() >= 25), (15, true), "{status}: the same id on every try");
        assert!(trail.notifications.values().all(|notification| *notification == Notification::Sent));
        assert_eq!(shop.dead_letters().await, []);
    }
}

#[tokio::test]
async fn a_webhook_that_the_receiver_refuses_is_recorded_and_the_next_one_is_told() {
    let (shop, receiver, dashboard, mut trail) = open().await;
    receiver.answer(StatusCode::UNPROCESSABLE_ENTITY);
    let _running = receiver.webhooks(&dashboard);
    shop.known("webhooks").await;
    confirmed(&shop, "refused").await;
    trail.until("it is recorded", |trail| trail.notifications.len() == 1).await;
    receiver.answer(StatusCode::ACCEPTED);
    confirmed(&shop, "good").await;
    trail.until("the next one is told", |trail| trail.notifications.len() == 2).await;
    let failed = trail.notifications.values().filter(|notification| **notification == Notification::Failed);
    assert_eq!((failed.count(), receiver.received().len()), (1, 2));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(receiver.received().len(), 2, "what was refused is not sent again");
}

#[tokio::test]
async fn a_webhook_that_was_given_up_is_sent_once_the_receiver_is_mended_and_it_is_redriven() {
    let (shop, receiver, mut dashboard, mut trail) = open().await;
    dashboard.surroundings.budget = RetryBudget { failures: 2, time: Duration::ZERO };
    let poison = OrderId::derive("shop", "poison").to_string();
    *receiver.exception.lock().unwrap() = Some((poison.clone(), StatusCode::INTERNAL_SERVER_ERROR));
    let _running = receiver.webhooks(&dashboard);
    shop.known("webhooks").await;
    assert_eq!(confirmed(&shop, "poison").await, poison);
    let select = async || dead_letters::select(&shop.store, &Selection::default()).await.unwrap();
    let mut others = 0;
    // What others are told shows that it is not the receiver that is away.
    let given_up = async || {
        others += 1;
        confirmed(&shop, &format!("o-{others}")).await;
        select().await.pop().map(|kept| kept.letter)
    };
    let letter = eventually("it is given up", given_up).await;
    assert_eq!((letter.reactor.as_str(), letter.aggregate_id.as_deref()), ("webhooks", Some(poison.as_str())));
    assert!(letter.error_chain.concat().contains("500"), "{letter:?}");
    trail.until("the others are told", |trail| trail.notifications.len() == others).await;

    *receiver.exception.lock().unwrap() = None;
    let sent_before = receiver.received().len();
    let outcomes = dead_letters::redrive(&shop.store, &select().await).await;
    assert_eq!((outcomes.len(), outcomes[0].outcome), (1, Verdict::Done));
    trail.until("it is told, too", |trail| trail.notifications.len() == others + 1).await;
    let [(headers, body)] = &receiver.received()[sent_before..] else { panic!("it is sent once") };
    assert_signed(headers, body);
    assert!(String::from_utf8_lossy(body).contains(&poison));
    assert_eq!(select().await, []);
}
