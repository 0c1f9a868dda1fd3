//! Faults on demand.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::running::{json, start};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_outage_answers_503_until_it_is_over() {
    let api = start().await;
    api.set_faults(json!({"outage": true, "retry_after_s": 7})).await;
    for request in [api.charge("o-1", "pm_card_visa"), api.charge("o-2", "not_valid"), api.get("/v1/payment_intents")] {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "7");
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body["error"]["type"], "api_error");
    }
    let state = api.reset_faults().await;
    assert_eq!(state["faults"]["outage"], false);
    assert_eq!(state["counts"]["unavailable"], 3);
    assert_eq!(json(api.charge("o-1", "pm_card_visa")).await.0, 200);
}

#[tokio::test]
async fn an_injected_error_charges_nothing() {
    let api = start().await;
    api.set_faults(json!({"error_rate": 1.0})).await;
    let (status, body) = json(api.charge("o-1", "pm_card_visa")).await;
    assert_eq!((status, &body["error"]["type"]), (500, &json!("api_error")));
    assert_eq!(api.ledger().await["charges"], json!([]));
    api.reset_faults().await;
    assert_eq!(json(api.charge("o-1", "pm_card_visa")).await.0, 200);
}

#[tokio::test]
async fn a_lost_answer_means_charged_but_not_told() {
    let api = start().await;
    api.set_faults(json!({"lost_answer_rate": 1.0})).await;
    let error = api.charge("o-1", "pm_card_visa").send().await.expect_err("the connection is cut");
    assert!(error.is_request(), "{error:?}");
    assert_eq!(api.ledger().await["charges"].as_array().map(Vec::len), Some(1));
    assert_eq!(api.count("lost_answers").await, 1);

    api.reset_faults().await;
    let again = api.charge("o-1", "pm_card_visa").send().await.expect("an answer");
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(api.ledger().await["charges"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_client_that_hangs_up_is_charged_all_the_same() {
    let api = start().await;
    api.set_faults(json!({"latency_ms": 100})).await;
    let hung_up = api.charge("o-1", "pm_card_visa").timeout(Duration::from_millis(20)).send().await;
    assert!(hung_up.expect_err("too slow").is_timeout());
    timeout(PATIENCE, async {
        while api.ledger().await["charges"] == json!([]) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the charge goes on without the client");
}

#[tokio::test]
async fn latency_delays_the_answer() {
    let api = start().await;
    api.set_faults(json!({"latency_ms": {"min": 60, "max": 80}})).await;
    let started = Instant::now();
    assert_eq!(json(api.charge("o-1", "pm_card_visa")).await.0, 200);
    assert!(started.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn good_cards_can_be_declined_at_random() {
    let api = start().await;
    api.set_faults(json!({"decline_rate": 1})).await;
    let (status, body) = json(api.charge("o-1", "pm_card_visa")).await;
    assert_eq!((status, &body["error"]["decline_code"]), (402, &json!("generic_decline")));
}

#[tokio::test]
async fn wrong_faults_are_refused_and_change_nothing() {
    let api = start().await;
    api.set_faults(json!({"outage": true})).await;
    for wrong in [json!({"error_rate": 2}), json!({"outtage": true}), json!([]), json!({"latency_ms": {"min": 2, "max": 1}})] {
        assert_eq!(api.set_faults(wrong).await.status(), 400);
    }
    let (_, state) = json(api.get("/_control")).await;
    assert_eq!(state["faults"]["outage"], true);
}

#[tokio::test]
async fn of_more_requests_than_a_second_takes_the_rest_is_refused() {
    let api = start().await;
    api.set_faults(json!({"requests_per_s_max": 2})).await;
    let mut answered = Vec::new();
    for number in 0..4 {
        answered.push(json(api.charge(&format!("o-{number}"), "pm_card_visa")).await);
    }
    let too_many = answered.iter().find(|(status, _)| *status == 429).expect("four within two seconds are too many");
    assert_eq!(too_many.1["error"]["code"], "rate_limit");
    assert_eq!(api.count("charged").await + api.count("too_many").await, 4);
}
