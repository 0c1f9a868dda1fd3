//! The adapter with which the payments reactor speaks to Stripe, against this simulator.

use std::time::Duration;

use reactors::payments::{
    gateway::{ChargeOutcome, ChargeRequest, FoundCharge, GatewayError, RefundOutcome, Trouble},
    stripe::{ApiKey, StripeGateway},
};
use serde_json::json;
use uuid::Uuid;

use crate::running::{Api, start};

const ORDER: Uuid = Uuid::from_u128(42);

fn adapter(api: &Api) -> StripeGateway {
    StripeGateway::new(api.base().parse().expect("a URL"), ApiKey::new("sk_test_adapter")).expect("plain http needs nothing")
}

fn request(payment_method: &str) -> ChargeRequest {
    let payment_method = payment_method.to_owned();
    ChargeRequest { order_id: ORDER, amount_minor: 1250, currency: "EUR".to_owned(), payment_method }
}

async fn capture(stripe: &StripeGateway) -> String {
    match stripe.charge(&request("pm_card_visa")).await.expect("no faults") {
        ChargeOutcome::Captured { payment_intent_id } => payment_intent_id,
        ChargeOutcome::Declined { message, .. } => panic!("declined: {message}"),
    }
}

async fn charges(api: &Api) -> usize {
    api.ledger().await["charges"].as_array().expect("a list").len()
}

#[tokio::test]
async fn a_charge_whose_answer_is_lost_is_made_once() {
    let api = start().await;
    let stripe = adapter(&api);
    api.set_faults(json!({"lost_answer_rate": 1.0})).await;
    let error = stripe.charge(&request("pm_card_visa")).await.expect_err("no answer");
    assert!(matches!(error, GatewayError::Transient { source: Trouble::Network(_), .. }), "{error:?}");
    assert_eq!(charges(&api).await, 1);

    api.reset_faults().await;
    let captured = capture(&stripe).await;
    assert_eq!(charges(&api).await, 1);
    assert_eq!(api.ledger().await["charges"][0]["payment_intent"], captured.as_str());
    assert_eq!(api.ledger().await["charges"][0]["order_id"], ORDER.to_string());
}

#[tokio::test]
async fn an_outage_is_transient_and_says_when_to_come_back() {
    let api = start().await;
    let stripe = adapter(&api);
    api.set_faults(json!({"outage": true, "retry_after_s": 2})).await;
    let expected = Some(Duration::from_secs(2));
    for error in [
        stripe.charge(&request("pm_card_visa")).await.expect_err("an outage"),
        stripe.refund(ORDER, "pi_1", 1).await.expect_err("an outage"),
        stripe.find_charge(ORDER).await.expect_err("an outage"),
    ] {
        assert!(matches!(error, GatewayError::Transient { retry_after, .. } if retry_after == expected), "{error:?}");
    }
    api.set_faults(json!({"error_rate": 1.0})).await;
    let error = stripe.charge(&request("pm_card_visa")).await.expect_err("an error");
    assert!(matches!(error, GatewayError::Transient { .. }), "{error:?}");
    assert_eq!(charges(&api).await, 0);
}

#[tokio::test]
async fn a_declined_card_stays_declined() {
    let api = start().await;
    let stripe = adapter(&api);
    for _ in 0..2 {
        let outcome = stripe.charge(&request("pm_card_visa_chargeDeclinedInsufficientFunds")).await.expect("an outcome");
        let ChargeOutcome::Declined { code, message } = outcome else { panic!("{outcome:?}") };
        assert_eq!((code.as_str(), message.as_str()), ("insufficient_funds", "Your card has insufficient funds."));
    }
    assert_eq!(stripe.find_charge(ORDER).await.expect("an answer"), None, "a decline is not a charge");
}

#[tokio::test]
async fn what_stripe_will_never_accept_is_permanent() {
    let api = start().await;
    let stripe = adapter(&api);
    let error = stripe.charge(&request("a card")).await.expect_err("no such payment method");
    assert!(matches!(error, GatewayError::Permanent { status: 400, ref code, .. } if code == "resource_missing"), "{error:?}");
    let tiny = ChargeRequest { amount_minor: 1, ..request("pm_card_visa") };
    let error = stripe.charge(&tiny).await.expect_err("too small");
    assert!(matches!(error, GatewayError::Permanent { ref code, .. } if code == "amount_too_small"), "{error:?}");
}

#[tokio::test]
async fn a_charge_is_found_by_its_order_and_refunded_once() {
    let api = start().await;
    let stripe = adapter(&api);
    assert_eq!(stripe.find_charge(ORDER).await.expect("an answer"), None);
    let intent = capture(&stripe).await;
    let mut expected =
        FoundCharge { payment_intent_id: intent.clone(), amount_minor: 1250, currency: "EUR".to_owned(), refunded: false };
    assert_eq!(stripe.find_charge(ORDER).await.expect("an answer"), Some(expected.clone()));

    let refund = stripe.refund(ORDER, &intent, 1250).await.expect("refunded");
    assert_eq!(stripe.refund(ORDER, &intent, 1250).await.expect("the same refund"), refund);
    expected.refunded = true;
    assert_eq!(stripe.find_charge(ORDER).await.expect("an answer"), Some(expected));
    assert_eq!(api.ledger().await["refunds"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_refund_that_somebody_else_made_is_the_refund() {
    let api = start().await;
    let stripe = adapter(&api);
    let intent = capture(&stripe).await;
    let by_hand = api.post("/v1/refunds", &[("payment_intent", &intent)]).send().await.expect("an answer");
    let by_hand: serde_json::Value = by_hand.json().await.expect("JSON");
    let refund_id = by_hand["id"].as_str().expect("an id").to_owned();
    assert_eq!(stripe.refund(ORDER, &intent, 1250).await.expect("refunded"), RefundOutcome { refund_id });
}

#[tokio::test]
async fn a_key_that_another_request_has_used_leads_to_that_charge() {
    let api = start().await;
    let stripe = adapter(&api);
    let captured = capture(&stripe).await;
    let outcome = stripe.charge(&request("pm_card_mastercard")).await.expect("the charge that was made");
    assert_eq!(outcome, ChargeOutcome::Captured { payment_intent_id: captured });
    assert_eq!(charges(&api).await, 1);
}

#[tokio::test]
async fn currencies_that_stripe_counts_differently_come_back_as_they_went() {
    let api = start().await;
    let stripe = adapter(&api);
    let krona = ChargeRequest { amount_minor: 1500, currency: "ISK".to_owned(), ..request("pm_card_visa") };
    stripe.charge(&krona).await.expect("charged");
    assert_eq!(api.ledger().await["charges"][0]["amount"], 150_000);
    let found = stripe.find_charge(ORDER).await.expect("an answer").expect("found");
    assert_eq!((found.amount_minor, found.currency.as_str()), (1500, "ISK"));
    stripe.refund(ORDER, &found.payment_intent_id, 1500).await.expect("refunded");
    assert_eq!(api.ledger().await["refunds"][0]["amount"], 150_000);
}
