//! The gateway's answers, one by one.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::Request, response::Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    amounts::{from_stripe, to_stripe},
    *,
};

/// A gateway that gives the same answer to everything, and the paths that it was asked for.
async fn answering(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: Value,
) -> (StripeGateway, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let router = Router::new().fallback(move |request: Request| async move {
        log.lock().unwrap().push(request.uri().path().to_owned());
        let answer = headers.iter().fold(Response::builder().status(status), |answer, (name, value)| answer.header(*name, *value));
        answer.body(Body::from(body.to_string())).unwrap()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/mounted/here/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (gateway(&base), asked)
}

fn gateway(base: &str) -> StripeGateway {
    StripeGateway::new(base.parse().unwrap(), ApiKey::new("sk_test_1")).unwrap()
}

fn request() -> ChargeRequest {
    ChargeRequest {
        order_id: Uuid::from_u128(7),
        amount_minor: 1250,
        currency: "EUR".to_owned(),
        payment_method: "pm_card_visa".to_owned(),
    }
}

async fn charge(status: u16, headers: &'static [(&'static str, &'static str)], body: Value) -> Result<ChargeOutcome, GatewayError> {
    answering(status, headers, body).await.0.charge(&request()).await
}

fn error(kind: &str, code: &str) -> Value {
    json!({"error": {"type": kind, "code": code, "message": "Because."}})
}

#[tokio::test]
async fn what_may_pass_is_transient() {
    for status in [408, 409, 424, 425, 429, 500, 502, 503, 504] {
        let error = charge(status, &[("retry-after", "3")], error("api_error", "x")).await.unwrap_err();
        let GatewayError::Transient { retry_after, source: Trouble::Answered { status: answered, .. }, .. } = error else {
            panic!("{status}: {error:?}")
        };
        assert_eq!((retry_after, answered), (Some(Duration::from_secs(3)), status));
    }
}

#[tokio::test]
async fn calls_that_are_too_many_are_told_from_an_object_in_use() {
    for (code, is_too_fast) in [("rate_limit", true), ("", true), ("lock_timeout", false)] {
        let refused = charge(429, &[], error("invalid_request_error", code)).await.unwrap_err();
        assert_eq!((refused.is_too_fast(), refused.is_of_the_gateway()), (is_too_fast, false), "{code}");
    }
}

#[tokio::test]
async fn what_will_not_pass_is_permanent() {
    for status in [400, 401, 402, 403, 404, 422] {
        let error = charge(status, &[], error("invalid_request_error", "amount_too_small")).await.unwrap_err();
        let GatewayError::Permanent { status: answered, code, message, .. } = error else { panic!("{status}: {error:?}") };
        assert_eq!((answered, code.as_str(), message.as_str()), (status, "amount_too_small", "Because."));
    }
}

#[tokio::test]
async fn what_the_gateway_does_not_know_is_no_trouble_of_the_gateway() {
    for (status, code, is_about_the_request) in
        [(404, "resource_missing", true), (404, "", false), (400, "resource_missing", true), (401, "", false), (405, "", false)]
    {
        let error = charge(status, &[], error("invalid_request_error", code)).await.unwrap_err();
        assert_eq!(error.is_about_the_request(), is_about_the_request, "{status} {code}");
        assert_eq!(error.is_of_the_gateway(), !is_about_the_request, "{status} {code}");
    }
}

#[tokio::test]
async fn a_card_error_is_a_decline_and_not_a_failure() {
    let body = json!({"error": {"type": "card_error", "code": "card_declined", "decline_code": "lost_card", "message": "No."}});
    let declined = ChargeOutcome::Declined { code: "lost_card".to_owned(), message: "No.".to_owned() };
    assert_eq!(charge(402, &[], body).await.unwrap(), declined);
}

#[tokio::test]
async fn answers_that_are_not_the_gateways_are_transient() {
    let error = charge(200, &[], json!("welcome")).await.unwrap_err();
    assert!(matches!(error, GatewayError::Transient { source: Trouble::Unreadable { status: 200, .. }, .. }), "{error:?}");
    // Of a proxy, a firewall, a server for something else: what an order must not end by.
    for (status, body) in [(400, json!("<html>")), (402, json!({})), (422, json!({"message": "no", "error": "no"}))] {
        let error = charge(status, &[], body).await.unwrap_err();
        assert!(matches!(error, GatewayError::Transient { source: Trouble::Unreadable { .. }, .. }), "{status}: {error:?}");
        assert!(error.is_of_the_gateway(), "{status}");
    }
    let error = charge(502, &[("retry-after", "Fri, 20 Nov 2026 12:00:00 GMT")], json!("<html>")).await.unwrap_err();
    assert!(matches!(error, GatewayError::Transient { retry_after: None, .. }), "{error:?}");
}

/// A gateway that has refused the refunds under so many keys, and refuses the next if it is not `mended`; and the keys that it was given.
async fn refusing(refused: usize, mended: bool) -> (StripeGateway, Arc<Mutex<Vec<String>>>) {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&keys);
    let router = Router::new().fallback(move |request: Request| async move {
        let Some(key) = request.headers().get("idempotency-key") else {
            let intent = json!({"id": "pi_1", "status": "succeeded", "amount": 1250, "currency": "eur"});
            return Response::new(Body::from(intent.to_string()));
        };
        let mut keys = log.lock().unwrap();
        keys.push(key.to_str().unwrap().to_owned());
        let refusal = Body::from(error("invalid_request_error", "charge_disputed").to_string());
        if keys.len() <= refused {
            return Response::builder().status(400).header("idempotent-replayed", "true").body(refusal).unwrap();
        }
        let refund = Body::from(json!({"id": "re_1", "status": "succeeded", "amount": 1250}).to_string());
        if mended { Response::new(refund) } else { Response::builder().status(400).body(refusal).unwrap() }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (gateway(&base), keys)
}

#[tokio::test]
async fn a_refund_that_was_refused_before_is_asked_for_under_another_key() {
    let order_id = Uuid::from_u128(7);
    let first = format!("refund-{order_id}");
    let (gateway, keys) = refusing(2, true).await;
    assert_eq!(gateway.refund(order_id, "pi_1", 1250).await.unwrap().refund_id, "re_1");
    assert_eq!(keys.lock().unwrap()[..], [first.clone(), format!("{first}-2"), format!("{first}-3")]);
    // What is refused now, somebody has to see to.
    for (refused, asked) in [(0, 1), (1, 2), (1_000, 10)] {
        let (gateway, keys) = refusing(refused, false).await;
        let failed = gateway.refund(order_id, "pi_1", 1250).await.unwrap_err();
        assert!(matches!(&failed, GatewayError::Permanent { code, .. } if code == "charge_disputed"), "{failed:?}");
        assert_eq!(keys.lock().unwrap().len(), asked);
    }
}

#[tokio::test]
async fn an_unreachable_gateway_is_transient() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = gateway(&format!("http://{closed}")).charge(&request()).await.unwrap_err();
    assert!(matches!(error, GatewayError::Transient { source: Trouble::Network(_), .. }), "{error:?}");
}

#[tokio::test]
async fn a_spent_key_makes_it_look_for_the_charge() {
    for (status, headers, kind) in [(400, &[][..], "idempotency_error"), (500, &[("idempotent-replayed", "true")][..], "api_error")]
    {
        let (gateway, asked) = answering(status, headers, error(kind, "x")).await;
        let failed = gateway.charge(&request()).await.unwrap_err();
        assert!(matches!(failed, GatewayError::Transient { .. }), "money may have moved, so it is no decline: {failed:?}");
        let asked = asked.lock().unwrap();
        assert_eq!(asked[..], ["/mounted/here/v1/payment_intents", "/mounted/here/v1/payment_intents/search"]);
    }
}

#[tokio::test]
async fn an_intent_that_is_being_worked_on_is_asked_for_again() {
    let body = json!({"id": "pi_1", "status": "processing", "amount": 1250, "currency": "eur"});
    let (gateway, asked) = answering(200, &[], body).await;
    let error = gateway.charge(&request()).await.unwrap_err();
    assert!(matches!(error, GatewayError::Transient { source: Trouble::Undecided { .. }, .. }), "{error:?}");
    assert_eq!(asked.lock().unwrap()[1], "/mounted/here/v1/payment_intents/pi_1");
}

#[tokio::test]
async fn an_intent_that_waits_for_the_cards_holder_is_cancelled_and_declined() {
    let body = json!({"id": "pi_1", "status": "requires_action", "amount": 1250, "currency": "eur"});
    let (gateway, asked) = answering(200, &[], body).await;
    let declined = gateway.charge(&request()).await.unwrap();
    assert!(matches!(&declined, ChargeOutcome::Declined { code, .. } if code == "authentication_required"), "{declined:?}");
    assert_eq!(asked.lock().unwrap()[1], "/mounted/here/v1/payment_intents/pi_1/cancel");
}

/// A gateway at which a charge is `status` at first, which can be neither cancelled nor, if that is `None`, looked at; and then `later`.
async fn moving(status: &'static str, later: Option<&'static str>) -> StripeGateway {
    let intent = |status: &str| json!({"id": "pi_1", "status": status, "amount": 1250, "currency": "eur"}).to_string();
    let router = Router::new().fallback(move |request: Request| async move {
        match (request.uri().path(), later) {
            ("/v1/payment_intents", _) => Response::new(Body::from(intent(status))),
            ("/v1/payment_intents/pi_1", Some(later)) => Response::new(Body::from(intent(later))),
            _ => {
                let refusal = error("invalid_request_error", "payment_intent_unexpected_state").to_string();
                Response::builder().status(400).body(Body::from(refusal)).unwrap()
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    gateway(&base)
}

#[tokio::test]
async fn a_charge_that_cannot_be_looked_at_or_cancelled_is_not_declined() {
    let captured = ChargeOutcome::Captured { payment_intent_id: "pi_1".to_owned() };
    for status in ["processing", "requires_action"] {
        assert_eq!(moving(status, Some("succeeded")).await.charge(&request()).await.unwrap(), captured, "{status}");
        let declined = moving(status, Some("canceled")).await.charge(&request()).await.unwrap();
        assert!(matches!(declined, ChargeOutcome::Declined { .. }), "{status}: {declined:?}");
        for later in [None, Some("processing")] {
            let failed = moving(status, later).await.charge(&request()).await.unwrap_err();
            assert!(matches!(failed, GatewayError::Transient { .. }), "{status}, {later:?}: {failed:?}");
            assert!(!failed.is_of_the_gateway(), "{status}, {later:?}: {failed:?}");
        }
    }
}

#[tokio::test]
async fn without_a_search_all_charges_are_looked_through() {
    let (gateway, asked) = answering(404, &[], error("invalid_request_error", "")).await;
    let failed = gateway.find_charge(Uuid::from_u128(7)).await.unwrap_err();
    assert!(matches!(failed, GatewayError::Permanent { status: 404, .. }), "{failed:?}");
    assert_eq!(asked.lock().unwrap()[1], "/mounted/here/v1/payment_intents");
}

#[test]
fn amounts_differ_from_iso_4217_where_stripe_says_so() {
    for (iso, currency, stripe) in [(1250, "EUR", 1250), (500, "JPY", 500), (5, "ISK", 500), (5, "UGX", 500), (1200, "MGA", 12)] {
        assert_eq!(to_stripe(iso, currency).unwrap(), stripe);
        assert_eq!(from_stripe(stripe, &currency.to_lowercase()), iso);
    }
    assert!(to_stripe(1, "MGA").is_err());
    assert!(to_stripe(i64::MAX, "ISK").is_err());
}

#[test]
fn the_key_is_not_shown() {
    let shown = format!("{:?} {:?}", ApiKey::new("sk_live_secret"), gateway("http://127.0.0.1:1"));
    assert!(!shown.contains("sk_"), "{shown}");
    assert!(matches!(StripeGateway::new("mailto:a@b".parse().unwrap(), ApiKey::new("k")), Err(ClientError::Base)));
    assert!(matches!(StripeGateway::new("http://h".parse().unwrap(), ApiKey::new("k\n")), Err(ClientError::Key)));
}

/// What becomes of a refund of 1,250 when the gateway says that the charge is refunded, now or `replayed`, and lists one of 5.
async fn refunded_by_hand(replayed: bool) -> Result<RefundOutcome, GatewayError> {
    let router = Router::new().fallback(move |request: Request| async move {
        if request.headers().contains_key("idempotency-key") {
            let mut answer = Response::builder().status(400);
            if replayed {
                answer = answer.header("idempotent-replayed", "true");
            }
            return answer.body(Body::from(error("invalid_request_error", "charge_already_refunded").to_string())).unwrap();
        }
        let answer = match request.uri().path() {
            "/v1/refunds" => json!({"data": [{"id": "re_1", "status": "succeeded", "amount": 5}], "has_more": true}),
            _ => json!({"id": "pi_1", "status": "succeeded", "amount": 1250, "currency": "eur"}),
        };
        Response::new(Body::from(answer.to_string()))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    gateway(&base).refund(Uuid::from_u128(7), "pi_1", 1250).await
}

#[tokio::test]
async fn what_was_given_back_in_more_parts_than_are_listed_is_given_back() {
    assert_eq!(refunded_by_hand(false).await.unwrap().refund_id, "re_1");
    // It was so once. Since then a refund may have failed.
    let failed = refunded_by_hand(true).await.unwrap_err();
    assert!(matches!(failed, GatewayError::Transient { .. }), "{failed:?}");
}

#[test]
fn a_part_that_somebody_gave_back_is_not_what_was_to_be_given_back() {
    let refunds = |amounts: &[(i64, &str)]| -> Vec<Refund> {
        let numbered = amounts.iter().zip(1..);
        let refund =
            |(&(amount, status), n): (&(i64, &str), u32)| json!({"id": format!("re_{n}"), "status": status, "amount": amount});
        numbered.map(|refund_of| serde_json::from_value(refund(refund_of)).unwrap()).collect()
    };
    let found = |amounts: &[(i64, &str)]| given_back(refunds(amounts), 750, 1_000).map(|refund| refund.id);
    assert_eq!(found(&[(250, "succeeded")]), None);
    assert_eq!(found(&[(750, "failed"), (250, "succeeded")]), None);
    assert_eq!(found(&[(250, "succeeded"), (750, "pending")]).as_deref(), Some("re_2"));
    assert_eq!(found(&[(600, "succeeded"), (400, "succeeded")]).as_deref(), Some("re_1"));
    assert_eq!(found(&[]), None);
}
