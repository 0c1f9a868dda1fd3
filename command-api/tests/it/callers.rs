//! Who may do what.

use std::{num::NonZeroU32, time::Duration};

use auth::settings::RateLimits;
use command_api::limits::Limits;
use domain::order::{Cause, OrderEvent};
use local_stack::tokens::{AUDIENCE, Claims, ROLES, TokenIssuer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Answer, Server, eventually, id_of, order};

const UNLIMITED: RateLimits = RateLimits { customer: None, staff: None };
/// A time in the distant future, and one that is over.
const LATER: u64 = 4_000_000_000;
const EARLIER: u64 = 1_700_000_000;

fn token(issuer: &TokenIssuer, role: &str, subject: &str) -> String {
    issuer.token(Claims { role, subject, audience: AUDIENCE, lifetime: Duration::from_secs(600) })
}

async fn get(server: &Server, token: &str, path: &str) -> Answer {
    server.send(Method::GET, path, &[("authorization", &format!("Bearer {token}"))], "").await
}

async fn post(server: &Server, token: &str, path: &str, key: &str, body: &Value) -> Answer {
    server.post_with(path, &[("authorization", &format!("Bearer {token}")), ("idempotency-key", key)], body).await
}

fn order_of(customer: &str) -> Value {
    let mut order = order();
    order["customer"]["id"] = json!(customer);
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_good_is_refused_and_nothing_happens() {
    let issuer = TokenIssuer::generate().unwrap();
    let server = Server::start_guarded(&issuer, UNLIMITED).await;
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": issuer.key_id()});
    let good = json!({"sub": "checkout", "role": "service", "aud": AUDIENCE, "exp": LATER});
    let with = |name: &str, value: Value| {
        let mut payload = good.clone();
        payload[name] = value;
        issuer.sign(&header, &payload)
    };
    let without = |name: &str| {
        let mut payload = good.clone();
        payload.as_object_mut().unwrap().remove(name);
        issuer.sign(&header, &payload)
    };
    let headed = |header: Value| issuer.sign(&header, &good);
    let accepted = issuer.sign(&header, &good);
    let (signed, _) = accepted.rsplit_once('.').unwrap();
    let stranger = TokenIssuer::generate().unwrap();
    let bad = [
        ("expired", with("exp", json!(EARLIER)), "it has expired"),
        ("without an end", without("exp"), "claim"),
        ("for somebody else", with("aud", json!("another shop")), "it is for another audience"),
        ("for nobody", without("aud"), "claim aud"),
        ("of nobody", without("sub"), "claim"),
        ("of an empty name", with("sub", json!("")), "its sub"),
        ("of a name that is none", with("sub", json!("a b")), "its sub"),
        ("of no role", without("role"), "claims need"),
        ("of an unknown role", with("role", json!("admin")), "its role must be one of customer"),
        ("not yet good", with("nbf", json!(LATER)), "it is not valid yet"),
        ("signed by somebody else", stranger.sign(&header, &good), "its signature is wrong"),
        ("with a foreign key", stranger.sign(&json!({"alg": "EdDSA", "kid": stranger.key_id()}), &good), "its key is not one"),
        ("not signed", format!("{signed}."), "signature"),
        ("with alg none", headed(json!({"alg": "none"})), "it is not a JSON Web Token"),
        ("with a secret's algorithm", headed(json!({"alg": "HS256", "kid": issuer.key_id()})), "its key is not one"),
        ("with unknown extensions", headed(json!({"alg": "EdDSA", "crit": ["b64"], "b64": false})), "critical extensions"),
        ("no token", "nothing".to_owned(), "it is not a JSON Web Token"),
        ("very long", "x".repeat(9_000), "it is longer than"),
    ];
    for (what, token, reason) in &bad {
        let answer = post(&server, token, "/v1/orders", &server.new_key(), &order()).await;
        assert_eq!(answer.problem(), (401, "unauthenticated".to_owned()), "{what}");
        assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""), "{what}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(reason), "{what}: {}", answer.json());
    }
    let anonymous = server.post("/v1/orders", &server.new_key(), &order()).await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    assert_eq!(anonymous.header("www-authenticate"), "Bearer realm=\"contrail\"");
    assert_eq!(server.store.head().await.unwrap(), 0);
    let placed = post(&server, &accepted, "/v1/orders", &server.new_key(), &order()).await;
    assert_eq!(placed.status, StatusCode::CREATED);
    // What is not about the shop's business asks nobody.
    for path in ["/health", "/ready", "/metrics", "/openapi.json", "/docs"] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_takes_no_place() {
    let issuer = TokenIssuer::generate().unwrap();
    let limits = Limits { requests_in_flight_max: 0, ..Limits::default() };
    let server = Server::start_guarded_with(&issuer, UNLIMITED, limits).await;
    let stranger = TokenIssuer::generate().unwrap();
    let refused = post(&server, &token(&stranger, "service", "s"), "/v1/orders", "k", &order()).await;
    assert_eq!(refused.problem(), (401, "unauthenticated".to_owned()), "though there is no place");
    let known = post(&server, &token(&issuer, "service", "s"), "/v1/orders", "k", &order()).await;
    assert_eq!(known.problem(), (503, "overloaded".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_is_its_own() {
    let issuer = TokenIssuer::generate().unwrap();
    let server = Server::start_guarded(&issuer, UNLIMITED).await;
    let [customer, service, operator, auditor] = ROLES.map(|role| token(&issuer, role, "c-42"));
    let placed = post(&server, &service, "/v1/orders", "first", &order_of("c-42")).await;
    let path = placed.header("location").to_owned();
    let stocked = post(&server, &operator, "/v1/stock/TEA-1/receipts", "stock", &json!({"quantity": 5, "reference": "DN-1"})).await;
    assert_eq!(stocked.status, StatusCode::CREATED);

    let parcel = json!({"carrier": "DHL", "tracking_number": "1"});
    let receipt = json!({"quantity": 1, "reference": "DN-2"});
    let count = json!({"delta": 1, "reason": "found", "reference": "C-1"});
    let called_off = json!({"reason": "ordered twice"});
    // What each is answered: customer, service, operator, auditor. An order that is only placed cannot be shipped (409), which is found
    // out after the role.
    let matrix = [
        (Method::GET, path.clone(), json!(null), [200, 200, 200, 200]),
        (Method::GET, "/v1/stock/TEA-1".to_owned(), json!(null), [403, 200, 200, 200]),
        (Method::POST, "/v1/orders".to_owned(), order_of("c-42"), [201, 201, 403, 403]),
        (Method::POST, format!("{path}/ship"), parcel, [403, 403, 409, 403]),
        (Method::POST, format!("{path}/deliver"), json!({}), [403, 403, 409, 403]),
        (Method::POST, "/v1/stock/TEA-1/receipts".to_owned(), receipt, [403, 403, 201, 403]),
        (Method::POST, "/v1/stock/TEA-1/adjustments".to_owned(), count, [403, 403, 201, 403]),
        (Method::POST, format!("{path}/cancel"), called_off, [200, 200, 200, 403]),
    ];
    for (method, path, body, expected) in matrix {
        for (token, expected) in [&customer, &service, &operator, &auditor].into_iter().zip(expected) {
            let answer = match method {
                Method::GET => get(&server, token, &path).await,
                _ => post(&server, token, &path, &server.new_key(), &body).await,
            };
            assert_eq!(answer.status.as_u16(), expected, "{method} {path}: {:?}", answer.headers);
        }
    }
    // Who did it is in the log, and an operator's cancellation is the shop's.
    let cancelled = post(&server, &service, "/v1/orders", "second", &order_of("c-42")).await.header("location").to_owned();
    post(&server, &operator, &format!("{cancelled}/cancel"), "off", &json!({"reason": "damaged"})).await;
    let events = server.store.events_of("order", id_of(&cancelled)).await.unwrap();
    let actors: Vec<_> = events.iter().map(|recorded| recorded.event.metadata.actor.as_deref().unwrap()).collect();
    assert_eq!(actors, ["service:c-42", "operator:c-42"]);
    let OrderEvent::Cancelled(cancellation) = events[1].event.decode().unwrap() else { panic!("it was cancelled last") };
    assert_eq!(cancellation.cause, Cause::Operator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_neither_sees_nor_changes_what_is_anothers() {
    let issuer = TokenIssuer::generate().unwrap();
    let server = Server::start_guarded(&issuer, UNLIMITED).await;
    let [one, other] = ["c-1", "c-2"].map(|customer| token(&issuer, "customer", customer));
    let path = post(&server, &one, "/v1/orders", "k", &order_of("c-1")).await.header("location").to_owned();
    let cancel = format!("{path}/cancel");

    let forged = post(&server, &other, "/v1/orders", "k2", &order_of("c-1")).await;
    assert_eq!(forged.problem(), (403, "forbidden".to_owned()));
    assert_eq!(forged.header("www-authenticate"), "Bearer realm=\"contrail\", error=\"insufficient_scope\"");
    // The same answer as for an order that does not exist.
    let nowhere = "/v1/orders/00000000-0000-5000-8000-000000000000";
    let reason = json!({"reason": "I can"});
    for (theirs, nobodys) in [
        (get(&server, &other, &path).await, get(&server, &other, nowhere).await),
        (
            post(&server, &other, &cancel, "k3", &reason).await,
            post(&server, &other, &format!("{nowhere}/cancel"), "k3", &reason).await,
        ),
    ] {
        assert_eq!(theirs.problem(), (404, "order-not-found".to_owned()));
        assert_eq!(theirs.json()["detail"], nobodys.json()["detail"]);
    }
    // Neither does a request that was carried out for one answer another: same key, same body, and another body.
    let reason = json!({"reason": "mine"});
    assert_eq!(post(&server, &one, &cancel, "k4", &reason).await.status, StatusCode::OK);
    assert_eq!(post(&server, &one, &cancel, "k4", &reason).await.header("idempotent-replayed"), "true");
    for body in [reason, json!({"reason": "another"})] {
        assert_eq!(post(&server, &other, &cancel, "k4", &body).await.status, StatusCode::NOT_FOUND);
    }
    // One's key is not another's: both have an order under it.
    let others = post(&server, &other, "/v1/orders", "k", &order_of("c-2")).await;
    assert_eq!(others.status, StatusCode::CREATED);
    assert_ne!(others.header("location"), path);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_often_is_told_when_to_come_again() {
    let issuer = TokenIssuer::generate().unwrap();
    let rates = RateLimits { customer: NonZeroU32::new(2), staff: None };
    let server = Server::start_guarded(&issuer, rates).await;
    let [one, other] = ["c-1", "c-2"].map(|customer| token(&issuer, "customer", customer));
    let nowhere = "/v1/orders/00000000-0000-5000-8000-000000000000";
    // Half a second makes good for one request, so a burst is over after some.
    let mut answers = Vec::new();
    while answers.last().is_none_or(|answer: &Answer| answer.status == StatusCode::NOT_FOUND) && answers.len() < 1_000 {
        answers.push(get(&server, &one, nowhere).await);
    }
    let refused = answers.pop().unwrap();
    assert_eq!(refused.problem(), (429, "too-many-requests".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    assert!(answers.len() >= 2);
    assert_eq!(get(&server, &other, nowhere).await.status, StatusCode::NOT_FOUND);
    eventually("they may come again", async || get(&server, &one, nowhere).await.status == StatusCode::NOT_FOUND).await;
}
