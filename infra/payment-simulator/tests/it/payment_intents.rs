//! Charges: made, declined, refused, found again.

use serde_json::json;

use crate::running::{json, start};

#[tokio::test]
async fn a_confirmed_intent_charges_the_card() {
    let api = start().await;
    let (status, intent) = json(api.charge("o-1", "pm_card_visa")).await;
    assert_eq!(status, 200);
    assert_eq!(intent["object"], "payment_intent");
    assert_eq!(intent["status"], "succeeded");
    assert_eq!(intent["amount"], 1250);
    assert_eq!(intent["amount_received"], 1250);
    assert_eq!(intent["currency"], "eur");
    assert_eq!(intent["metadata"], json!({"order_id": "o-1"}));

    let id = intent["id"].as_str().expect("an id");
    assert!(id.starts_with("pi_"));
    assert_eq!(json(api.get(&format!("/v1/payment_intents/{id}"))).await, (200, intent.clone()));

    let ledger = api.ledger().await;
    let [charge] = &ledger["charges"].as_array().expect("a list")[..] else { panic!("{ledger}") };
    assert_eq!(charge["payment_intent"], intent["id"]);
    assert_eq!(charge["order_id"], "o-1");
    assert_eq!(charge["amount"], 1250);
    assert!(charge["created_at"].as_str().expect("a time").ends_with('Z'));
}

#[tokio::test]
async fn a_declined_card_is_not_charged() {
    let api = start().await;
    let (status, body) = json(api.charge("o-1", "pm_card_chargeDeclinedInsufficientFunds")).await;
    assert_eq!(status, 402);
    let error = &body["error"];
    assert_eq!(error["type"], "card_error");
    assert_eq!(error["code"], "card_declined");
    assert_eq!(error["decline_code"], "insufficient_funds");
    assert_eq!(error["payment_intent"]["amount_received"], 0);

    let ledger = api.ledger().await;
    assert_eq!(ledger["charges"], json!([]));
    assert_eq!(ledger["declines"][0]["decline_code"], "insufficient_funds");
    assert_eq!(ledger["declines"][0]["order_id"], "o-1");
}

#[tokio::test]
async fn a_key_is_needed() {
    let api = start().await;
    let paths = ["/v1/payment_intents", "/v1/nothing"];
    let keys = [None, Some(""), Some("Bearer pk_test_1"), Some("Bearer sk_"), Some("Basic sk_test_1")];
    for (path, key) in paths.into_iter().flat_map(|path| keys.map(|key| (path, key))) {
        let request = key.into_iter().fold(api.anonymous(path), |request, key| request.header("Authorization", key));
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 401);
        assert!(response.headers()["request-id"].to_str().expect("text").starts_with("req_"));
        let body: serde_json::Value = response.json().await.expect("JSON");
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_with_what_is_wrong() {
    let api = start().await;
    let (status, body) = json(api.charge("o-1", "card_visa")).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("resource_missing")));

    let params = [("amount", "10"), ("currency", "eur")];
    let (status, body) = json(api.post("/v1/payment_intents", &params)).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("amount_too_small")));
    assert_eq!(body["error"]["param"], "amount");

    let (status, body) = json(api.get("/v1/payment_intents/pi_none")).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("resource_missing")));

    for request in [api.get("/v1/charges"), api.post("/v1/refunds/re_1", &[])] {
        let (status, body) = json(request).await;
        assert_eq!((status, &body["error"]["type"]), (404, &json!("invalid_request_error")));
    }
    let long = "x".repeat(100_000);
    let (status, body) = json(api.post("/v1/payment_intents", &[("description", &long)])).await;
    assert_eq!((status, &body["error"]["type"]), (413, &json!("invalid_request_error")));
}

#[tokio::test]
async fn lists_go_from_the_newest_to_the_oldest_in_pages() {
    let api = start().await;
    for order in ["o-1", "o-2", "o-3"] {
        assert_eq!(json(api.charge(order, "pm_card_visa")).await.0, 200);
    }
    let orders = |page: &serde_json::Value| -> Vec<_> {
        let data = page["data"].as_array().expect("a list");
        data.iter().map(|intent| intent["metadata"]["order_id"].as_str().expect("text").to_owned()).collect()
    };
    let (_, first) = json(api.get("/v1/payment_intents?limit=2")).await;
    assert_eq!((orders(&first), &first["has_more"]), (vec!["o-3".to_owned(), "o-2".to_owned()], &json!(true)));
    let last = first["data"][1]["id"].as_str().expect("an id");
    let (_, second) = json(api.get(&format!("/v1/payment_intents?limit=2&starting_after={last}"))).await;
    assert_eq!((orders(&second), &second["has_more"]), (vec!["o-1".to_owned()], &json!(false)));
}

#[tokio::test]
async fn intents_are_found_by_the_order_in_their_metadata() {
    let api = start().await;
    json(api.charge("o-1", "pm_card_visa")).await;
    json(api.charge("o-2", "pm_card_visa")).await;
    let search = |query: &str| api.get("/v1/payment_intents/search").query(&[("query", query)]);
    let (status, found) = json(search("metadata['order_id']:'o-2'")).await;
    assert_eq!((status, &found["object"]), (200, &json!("search_result")));
    assert_eq!(found["data"].as_array().expect("a list").len(), 1);
    assert_eq!(found["data"][0]["metadata"]["order_id"], "o-2");

    let (_, none) = json(search("metadata['order_id']:'o-2' AND status:'requires_payment_method'")).await;
    assert_eq!(none["data"], json!([]));
    assert_eq!(json(search("order_id=o-2")).await.0, 400);
}
