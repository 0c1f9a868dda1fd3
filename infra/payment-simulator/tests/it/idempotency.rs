//! An idempotency key works once.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::running::{json, start};

#[tokio::test]
async fn the_same_request_again_gets_the_same_answer_and_no_second_charge() {
    let api = start().await;
    for (order, method) in [("o-1", "pm_card_visa"), ("o-2", "pm_card_chargeDeclined")] {
        let first = api.charge(order, method).send().await.expect("an answer");
        assert!(!first.headers().contains_key("idempotent-replayed"));
        let again = api.charge(order, method).send().await.expect("an answer");
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert_eq!(again.status(), first.status());
        assert_eq!(again.text().await.expect("a body"), first.text().await.expect("a body"));
    }
    let ledger = api.ledger().await;
    assert_eq!(ledger["charges"].as_array().map(Vec::len), Some(1));
    assert_eq!(ledger["declines"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_key_cannot_be_used_for_another_request() {
    let api = start().await;
    json(api.charge("o-1", "pm_card_visa")).await;
    for request in [
        api.charge("o-1", "pm_card_mastercard"),
        api.post("/v1/refunds", &[("payment_intent", "pi_1")]).header("Idempotency-Key", "o-1"),
    ] {
        let (status, body) = json(request).await;
        assert_eq!((status, &body["error"]["type"]), (400, &json!("idempotency_error")));
    }
}

#[tokio::test]
async fn of_concurrent_requests_with_one_key_only_one_goes_ahead() {
    let api = start().await;
    api.set_faults(json!({"latency_ms": 300})).await;
    let mut requests = JoinSet::new();
    for _ in 0..8 {
        requests.spawn(json(api.charge("o-1", "pm_card_visa")));
    }
    let answers: Vec<(u16, Value)> = requests.join_all().await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 1);
    for (_, body) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!(body["error"]["code"], "idempotency_key_in_use");
    }
    api.reset_faults().await;
    let (status, _) = json(api.charge("o-1", "pm_card_visa")).await;
    assert_eq!(status, 200);
    assert_eq!(api.ledger().await["charges"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_request_that_was_refused_leaves_its_key_unused() {
    let api = start().await;
    assert_eq!(json(api.charge("o-1", "no_such_method")).await.0, 400);
    assert_eq!(json(api.charge("o-1", "pm_card_visa")).await.0, 200);
    let refund = |intent: &str| api.post("/v1/refunds", &[("payment_intent", intent)]).header("Idempotency-Key", "r-1");
    assert_eq!(json(refund("pi_none")).await.0, 400);
    let ledger = api.ledger().await;
    let intent = ledger["charges"][0]["payment_intent"].as_str().expect("an id");
    assert_eq!(json(refund(intent)).await.0, 200);
}
