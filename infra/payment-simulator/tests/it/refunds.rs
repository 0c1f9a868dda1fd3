//! Refunds.

use serde_json::json;

use crate::running::{json, start};

#[tokio::test]
async fn a_charge_is_refunded_once_and_never_beyond_its_amount() {
    let api = start().await;
    let (_, intent) = json(api.charge("o-1", "pm_card_visa")).await;
    let intent = intent["id"].as_str().expect("an id");
    let refund = |amount: Option<&str>, key: &str| {
        let params: Vec<_> = [("payment_intent", intent)].into_iter().chain(amount.map(|amount| ("amount", amount))).collect();
        api.post("/v1/refunds", &params).header("Idempotency-Key", key)
    };

    let (status, first) = json(refund(Some("250"), "refund-a")).await;
    assert_eq!((status, &first["object"], &first["amount"]), (200, &json!("refund"), &json!(250)));
    assert_eq!(first["status"], "succeeded");
    assert_eq!(json(refund(Some("250"), "refund-a")).await.1, first, "the key gives the first answer again");

    let (status, _) = json(refund(Some("1001"), "refund-b")).await;
    assert_eq!(status, 400);
    let (status, rest) = json(refund(None, "refund-c")).await;
    assert_eq!((status, &rest["amount"]), (200, &json!(1000)));
    let (status, body) = json(refund(None, "refund-d")).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("charge_already_refunded")));

    let (_, list) = json(api.get(&format!("/v1/refunds?payment_intent={intent}"))).await;
    assert_eq!(list["data"], json!([rest, first]));
    let ledger = api.ledger().await;
    let refunded: i64 = ledger["refunds"].as_array().expect("a list").iter().filter_map(|row| row["amount"].as_i64()).sum();
    assert_eq!(refunded, 1250);
    assert_eq!(ledger["refunds"][0]["order_id"], "o-1");
}

#[tokio::test]
async fn what_was_not_charged_cannot_be_refunded() {
    let api = start().await;
    let (_, body) = json(api.charge("o-1", "pm_card_chargeDeclined")).await;
    let intent = body["error"]["payment_intent"]["id"].as_str().expect("an id");
    for (id, code) in [(intent, "payment_intent_unexpected_state"), ("pi_none", "resource_missing")] {
        let (status, body) = json(api.post("/v1/refunds", &[("payment_intent", id)])).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some(code)));
    }
}
