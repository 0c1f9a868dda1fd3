use std::collections::BTreeSet;

use domain::stock::{Stock, StockAdjusted, StockEvent};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{NOW, Server, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_order_gets_the_first_answer_whatever_happened_since() {
    let server = Server::start().await;
    let first = server.post("/v1/orders", "k", &order()).await;
    let path = first.header("location").to_owned();
    server.post(&format!("{path}/cancel"), "c", &json!({"reason": "no"})).await;

    let again = server.post("/v1/orders", "k", &order()).await;
    assert_eq!((again.status, &again.body, again.replayed()), (first.status, &first.body, true));
    assert_eq!(again.header("location"), path);
    assert_eq!(again.header("etag"), "\"1\"");
    assert_eq!(server.order_events(&path).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_change_gets_the_first_answer_whatever_happened_since() {
    let server = Server::start().await;
    let path = server.place_confirmed().await;
    let (ship, receive) = (json!({"carrier": "DHL", "tracking_number": "JD1"}), json!({"quantity": 1, "reference": "DN-1"}));
    let ship_path = format!("{path}/ship");
    let shipped = server.post(&ship_path, "s", &ship).await;
    let received = server.post("/v1/stock/TEA-1/receipts", "r", &receive).await;
    server.post(&format!("{path}/deliver"), "d", &json!({})).await;
    server.post("/v1/stock/TEA-1/receipts", "r2", &receive).await;

    for (path, key, body, first) in
        [(ship_path.as_str(), "s", &ship, &shipped), ("/v1/stock/TEA-1/receipts", "r", &receive, &received)]
    {
        let again = server.post(path, key, body).await;
        assert_eq!((again.status, &again.body, again.replayed()), (first.status, &first.body, true), "{path}");
        assert_eq!(again.header("etag"), first.header("etag"));
    }
    assert_eq!(server.get("/v1/stock/TEA-1").await.json()["on_hand"], 2, "two receipts, one of them sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_receipt_gets_the_first_answer_though_thousands_of_events_came_before_and_since() {
    let server = Server::start().await;
    let (path, receive) = ("/v1/stock/TEA-1/receipts", json!({"quantity": 7, "reference": "DN-1"}));
    let counted = StockAdjusted { delta: 1, reason: "r".to_owned(), reference: "c".to_owned(), adjusted_at: NOW, request: None };
    let counted: Vec<StockEvent> = vec![counted.into(); 900];
    server.append::<Stock>("TEA-1", counted.clone()).await;
    let first = server.post(path, "r", &receive).await;
    assert_eq!((first.status.as_u16(), &first.json()["on_hand"], &first.json()["version"]), (201, &json!(907), &json!(901)));
    for _ in 0..3 {
        server.append::<Stock>("TEA-1", counted.clone()).await;
        server.place().await;
    }
    let again = server.post(path, "r", &receive).await;
    assert_eq!((again.status, &again.body, again.replayed()), (first.status, &first.body, true));
    assert_eq!(again.header("etag"), first.header("etag"));
    let other = server.post(path, "r", &json!({"quantity": 8, "reference": "DN-1"})).await;
    assert_eq!(other.problem(), (422, "idempotency-key-reused".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_body_written_differently_is_the_same_request() {
    let server = Server::start().await;
    let first = server.post("/v1/orders", "k", &order()).await;
    let differently = r#" { "payment_method" : "pm_card_visa", "lines" : [ { "unit_price_minor" : 12.5e2, "quantity" : 2.0,
        "sku" : "TEA-1" } ], "currency" : "EUR", "customer" : { "name" : "\u0041", "id" : "c-42", "email" : "a@example.com" } } "#;
    let headers = [("content-type", "application/json; charset=utf-8"), ("idempotency-key", "\"k\"")];
    let again = server.send(Method::POST, "/v1/orders", &headers, differently).await;
    assert_eq!((again.status, &again.body, again.replayed()), (first.status, &first.body, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_not_stand_for_two_requests() {
    let server = Server::start().await;
    let reused = (422, "idempotency-key-reused".to_owned());
    let path = server.place().await;
    let mut other = order();
    other["lines"][0]["quantity"] = json!(3);
    server.post("/v1/orders", "k", &order()).await;
    assert_eq!(server.post("/v1/orders", "k", &other).await.problem(), reused);

    server.post(&format!("{path}/cancel"), "c", &json!({"reason": "no"})).await;
    assert_eq!(server.post(&format!("{path}/cancel"), "c", &json!({"reason": "yes"})).await.problem(), reused);
    let ship = json!({"carrier": "DHL", "tracking_number": "JD1"});
    assert_eq!(server.post(&format!("{path}/ship"), "c", &ship).await.problem(), reused, "another route, the same order");

    server.post("/v1/stock/TEA-1/receipts", "r", &json!({"quantity": 1, "reference": "DN-1"})).await;
    let other = json!({"quantity": 2, "reference": "DN-1"});
    assert_eq!(server.post("/v1/stock/TEA-1/receipts", "r", &other).await.problem(), reused);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_may_be_used_once_per_order_and_sku() {
    let server = Server::start().await;
    let (one, other) = (server.place().await, server.place().await);
    for path in [one, other] {
        let cancelled = server.post(&format!("{path}/cancel"), "same", &json!({"reason": "no"})).await;
        assert_eq!((cancelled.status.as_u16(), cancelled.replayed()), (200, false));
    }
    for sku in ["TEA-1", "TEA-2"] {
        let received =
            server.post(&format!("/v1/stock/{sku}/receipts"), "same", &json!({"quantity": 1, "reference": "DN-1"})).await;
        assert_eq!((received.status.as_u16(), received.replayed()), (201, false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_place_one_order_and_hear_the_same() {
    let server = Server::start().await;
    let order = order();
    let answers = join_all((0..50).map(|_| server.post("/v1/orders", "k", &order))).await;
    let bodies: BTreeSet<_> = answers.iter().map(|answer| &answer.body).collect();
    assert_eq!(bodies.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == StatusCode::CREATED));
    assert_eq!(answers.iter().filter(|answer| !answer.replayed()).count(), 1, "all but one were told that they are retries");
    assert_eq!(server.store.head().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_receive_once_and_hear_the_same() {
    let server = Server::start().await;
    let receive = json!({"quantity": 7, "reference": "DN-1"});
    let answers = join_all((0..50).map(|_| server.post("/v1/stock/TEA-1/receipts", "r", &receive))).await;
    let bodies: BTreeSet<_> = answers.iter().map(|answer| &answer.body).collect();
    assert_eq!(bodies.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == StatusCode::CREATED));
    assert_eq!(server.store.head().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rivals_under_one_key_exactly_one_is_carried_out() {
    let server = Server::start().await;
    let bodies: Vec<Value> = (1..=20).map(|quantity| json!({"quantity": quantity, "reference": "DN-1"})).collect();
    let answers = join_all(bodies.iter().map(|body| server.post("/v1/stock/TEA-1/receipts", "r", body))).await;
    let (carried_out, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == StatusCode::CREATED);
    assert_eq!(carried_out.len(), 1);
    assert!(refused.iter().all(|answer| answer.problem() == (422, "idempotency-key-reused".to_owned())));
    assert_eq!(server.get("/v1/stock/TEA-1").await.json(), carried_out[0].json());
}

#[tokio::test(flavor = "multi_thread")]
async fn different_receipts_at_once_all_count() {
    let server = Server::start().await;
    let receive = json!({"quantity": 1, "reference": "DN-1"});
    let keys: Vec<String> = (0..8).map(|_| server.new_key()).collect();
    join_all(keys.iter().map(async |key| {
        // Others may win too often; the answer says to try again.
        while server.post("/v1/stock/TEA-1/receipts", key, &receive).await.status != StatusCode::CREATED {}
    }))
    .await;
    assert_eq!(server.get("/v1/stock/TEA-1").await.json()["on_hand"], 8);
}
