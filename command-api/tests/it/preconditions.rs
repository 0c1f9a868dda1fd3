use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Server};

async fn receive(server: &Server, key: &str, if_match: &str) -> Answer {
    let headers = [("idempotency-key", key), ("if-match", if_match)];
    server.post_with("/v1/stock/TEA-1/receipts", &headers, &receipt()).await
}

fn receipt() -> Value {
    json!({"quantity": 1, "reference": "DN-1"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_on_the_version_that_the_client_saw_or_not_at_all() {
    let server = Server::start().await;
    server.post("/v1/stock/TEA-1/receipts", "r", &receipt()).await;
    assert_eq!(receive(&server, "a", "\"1\"").await.status, 201);
    let moved = receive(&server, "b", "\"1\"").await;
    assert_eq!(moved.problem(), (412, "precondition-failed".to_owned()));
    assert_eq!(moved.json()["detail"], "the version is 2 and If-Match does not list it");
    assert_eq!(receive(&server, "c", "\"1\", \"2\"").await.status, 201);
    assert_eq!(receive(&server, "d", "*").await.status, 201);
    assert_eq!(receive(&server, "e", "W/\"4\"").await.status, 412, "weak tags never match");
    assert_eq!(server.get("/v1/stock/TEA-1").await.json()["version"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_heed_if_match_too() {
    let server = Server::start().await;
    let path = server.place_confirmed().await;
    for (action, body) in
        [("cancel", json!({"reason": "no"})), ("ship", json!({"carrier": "DHL", "tracking_number": "JD1"})), ("deliver", json!({}))]
    {
        let headers = [("idempotency-key", action), ("if-match", "\"1\"")];
        let moved = server.post_with(&format!("{path}/{action}"), &headers, &body).await;
        assert_eq!(moved.problem(), (412, "precondition-failed".to_owned()), "{action}");
    }
    let headers = [("idempotency-key", "c"), ("if-match", "\"3\"")];
    assert_eq!(server.post_with(&format!("{path}/cancel"), &headers, &json!({"reason": "no"})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_excluded_is_not_changed() {
    let server = Server::start().await;
    let receive = async |key: &str, excluded: &str| {
        let headers = [("idempotency-key", key), ("if-none-match", excluded)];
        server.post_with("/v1/stock/TEA-1/receipts", &headers, &receipt()).await
    };
    assert_eq!(receive("a", "*").await.status, 201, "there is none yet");
    assert_eq!(receive("b", "*").await.problem(), (412, "precondition-failed".to_owned()));
    assert_eq!(receive("c", "W/\"1\"").await.problem(), (412, "precondition-failed".to_owned()));
    assert_eq!(receive("d", "\"2\"").await.status, 201);
    assert_eq!(receive("a", "*").await.status, 201, "a retry");
    let refused = receive("e", "2").await;
    assert_eq!(
        (refused.problem(), refused.errors()),
        ((400, "invalid-header".to_owned()), vec!["If-None-Match wrong-format".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_whatever_if_match_says() {
    let server = Server::start().await;
    server.post("/v1/stock/TEA-1/receipts", "r", &receipt()).await;
    let first = receive(&server, "a", "\"1\"").await;
    let again = receive(&server, "a", "\"1\"").await;
    assert_eq!((again.status, &again.body, again.replayed()), (first.status, &first.body, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_so_already_is_answered_whatever_if_match_says() {
    let server = Server::start().await;
    let path = server.place_confirmed().await;
    let ship = async |key: &str, if_match: &str, carrier: &str| {
        let headers = [("idempotency-key", key), ("if-match", if_match)];
        let parcel = json!({"carrier": carrier, "tracking_number": "JD1"});
        server.post_with(&format!("{path}/ship"), &headers, &parcel).await
    };
    assert_eq!(ship("a", "\"3\"", "DHL").await.json()["status"], "SHIPPED");
    assert_eq!(ship("b", "\"4\"", "DHL").await.status, 200, "another one who ships the same parcel");
    assert_eq!(server.post(&format!("{path}/deliver"), "d", &json!({})).await.status, 200);

    let again = ship("b", "\"4\"", "DHL").await;
    assert_eq!((again.status.as_u16(), again.replayed()), (200, false));
    assert_eq!((&again.json()["status"], &again.json()["version"]), (&json!("DELIVERED"), &json!(5)));
    assert_eq!(ship("c", "\"4\"", "UPS").await.problem(), (412, "precondition-failed".to_owned()), "that is not so");
    assert_eq!(server.order_events(&path).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_matches_nothing() {
    let server = Server::start().await;
    assert_eq!(receive(&server, "a", "*").await.problem(), (412, "precondition-failed".to_owned()));
    let headers = [("idempotency-key", "c"), ("if-match", "*")];
    let missing = "/v1/orders/3b0e4f6c-5d2a-5c1e-8f7b-0a9d8c7b6a50/cancel";
    let answer = server.post_with(missing, &headers, &json!({"reason": "no"})).await;
    assert_eq!(answer.problem(), (404, "order-not-found".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_if_match_is_400() {
    let server = Server::start().await;
    for malformed in ["1", "\"1", "\"1\" \"2\"", "*, \"1\""] {
        let refused = receive(&server, "a", malformed).await;
        assert_eq!(refused.problem(), (400, "invalid-header".to_owned()), "{malformed}");
        assert_eq!(refused.errors(), ["If-Match wrong-format"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_up_to_date_gets_304() {
    let server = Server::start().await;
    let path = server.place().await;
    for known in ["\"1\"", "W/\"1\"", "\"7\", \"1\"", "*"] {
        let answer = server.send(Method::GET, &path, &[("if-none-match", known)], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("etag"), answer.body.len()), (304, "\"1\"", 0), "{known}");
    }
    for unknown in ["\"2\"", "1", ""] {
        let answer = server.send(Method::GET, &path, &[("if-none-match", unknown)], "").await;
        assert_eq!(answer.status, 200, "{unknown}");
    }
}
