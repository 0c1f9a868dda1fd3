use domain::order::{OrderEvent, OrderRejected, Shortage};
use serde_json::{Value, json};

use crate::server::{NOW, Server, id_of, order};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_and_can_be_read_at_once() {
    let server = Server::start().await;
    let placed = server.post("/v1/orders", "k", &order()).await;
    assert_eq!(placed.status, 201);
    assert!(!placed.replayed());
    let id = placed.json()["order_id"].as_str().unwrap().to_owned();
    assert_eq!(placed.json(), json!({"order_id": id, "status": "PLACED", "version": 1, "position": 1}));
    assert_eq!(placed.header("location"), format!("/v1/orders/{id}"));
    assert_eq!(placed.header("etag"), "\"1\"");

    let read = server.get(placed.header("location")).await;
    assert_eq!((read.status.as_u16(), read.header("etag")), (200, "\"1\""));
    let mut state = read.json();
    assert!(state["placed_at"].as_str().unwrap().ends_with('Z'));
    state["placed_at"] = Value::Null;
    let expected = json!({
        "order_id": id, "status": "PLACED", "version": 1, "position": 1,
        "customer": {"id": "c-42", "email": "a@example.com", "name": "A"},
        "lines": [{"sku": "TEA-1", "quantity": 2, "unit_price_minor": 1250}],
        "total": {"minor_units": 2500, "currency": "EUR", "amount": "25.00"},
        "placed_at": null, "payment_due_at": null, "shortages": [], "cancellation": null, "shipment": null,
    });
    assert_eq!(state, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_number_is_one_however_it_is_written_and_a_text_is_as_long_as_its_characters() {
    let server = Server::start().await;
    let mut body = order();
    body["lines"][0]["quantity"] = json!(2.0);
    body["customer"]["name"] = json!("é".repeat(500));
    let placed = server.post("/v1/orders", "k", &body).await;
    assert_eq!(placed.status, 201);
    let state = server.get(placed.header("location")).await.json();
    assert_eq!((&state["lines"][0]["quantity"], &state["customer"]["name"]), (&json!(2), &body["customer"]["name"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_all_the_way_to_the_door() {
    let server = Server::start().await;
    let path = server.place_confirmed().await;

    let shipped = server.post(&format!("{path}/ship"), "s", &json!({"carrier": "DHL", "tracking_number": "JD1"})).await;
    assert_eq!(shipped.status, 200);
    let expected = json!({"order_id": id_of(&path), "status": "SHIPPED", "version": 4, "position": 4});
    assert_eq!((shipped.json(), shipped.header("etag")), (expected, "\"4\""));

    let delivered = server.send(reqwest::Method::POST, &format!("{path}/deliver"), &[("idempotency-key", "d")], "").await;
    assert_eq!(delivered.status, 200, "a body is not needed");
    assert_eq!(delivered.json()["status"], "DELIVERED");

    let state = server.get(&path).await.json();
    assert_eq!((&state["status"], &state["version"]), (&json!("DELIVERED"), &json!(5)));
    assert_eq!(state["payment_due_at"], "2026-11-20T12:30:00Z");
    assert_eq!(state["shipment"]["carrier"], "DHL");
    assert!(state["shipment"]["delivered_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_cancelled_by_its_customer() {
    let server = Server::start().await;
    let path = server.place().await;
    let cancelled = server.post(&format!("{path}/cancel"), "c", &json!({"reason": "ordered twice"})).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["status"]), (200, &json!("CANCELLED")));
    let state = server.get(&path).await.json();
    assert_eq!((&state["cancellation"]["cause"], &state["cancellation"]["reason"]), (&json!("customer"), &json!("ordered twice")));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_cancelled_order_again_answers_it_as_it_is() {
    let server = Server::start().await;
    let path = server.place().await;
    let first = server.post(&format!("{path}/cancel"), "c1", &json!({"reason": "ordered twice"})).await;
    for key in ["c2", "c2"] {
        let again = server.post(&format!("{path}/cancel"), key, &json!({"reason": "really"})).await;
        assert_eq!((again.status, &again.body, again.replayed()), (first.status, &first.body, false));
    }
    assert_eq!(server.order_events(&path).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_order_says_what_was_short() {
    let server = Server::start().await;
    let path = server.place().await;
    let shortages = vec![Shortage { sku: "TEA-1".parse().unwrap(), requested: 2, available: 1 }];
    server.append::<domain::order::Order>(id_of(&path), vec![OrderRejected { shortages, rejected_at: NOW }.into()]).await;
    let state = server.get(&path).await.json();
    assert_eq!(state["status"], "REJECTED");
    assert_eq!(state["shortages"], json!([{"sku": "TEA-1", "requested": 2, "available": 1}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_status_does_not_allow_is_409_and_changes_nothing() {
    let server = Server::start().await;
    let placed = server.place().await;
    let ship = json!({"carrier": "DHL", "tracking_number": "JD1"});
    let refused = server.post(&format!("{placed}/ship"), "s", &ship).await;
    assert_eq!(refused.problem(), (409, "illegal-transition".to_owned()));
    assert_eq!(refused.json()["detail"], "an order that is PLACED cannot be shipped");

    let confirmed = server.place_confirmed().await;
    server.post(&format!("{confirmed}/ship"), "s", &ship).await;
    let refused = server.post(&format!("{confirmed}/cancel"), "c", &json!({"reason": "too late"})).await;
    assert_eq!(refused.problem(), (409, "illegal-transition".to_owned()));
    assert_eq!(server.get(&confirmed).await.json()["status"], "SHIPPED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_says_who_asked_and_in_which_story() {
    let server = Server::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [("idempotency-key", "k"), ("x-correlation-id", "cart-99"), ("traceparent", traceparent.as_str())];
    let placed = server.post_with("/v1/orders", &headers, &order()).await;
    let path = placed.header("location").to_owned();
    server.post(&format!("{path}/cancel"), "c", &json!({"reason": "no"})).await;

    let events = server.store.events_of("order", id_of(&path)).await.unwrap();
    let (placed, cancelled) = (&events[0].event.metadata, &events[1].event.metadata);
    assert_eq!((placed.source.as_str(), placed.actor.as_deref()), ("/contrail/command-api", Some("anonymous")));
    assert_eq!((placed.correlation_id.as_str(), placed.traceparent.as_deref()), ("cart-99", Some(traceparent.as_str())));
    assert_eq!((placed.trace_id(), placed.causation_id.as_deref()), (Some(trace), None));
    assert_eq!(placed.time.nanosecond() % 1_000, 0, "Postgres keeps microseconds");
    assert_eq!(cancelled.correlation_id, cancelled.event_id.to_string(), "it began a story of its own");
    let OrderEvent::Cancelled(event) = events[1].event.decode().unwrap() else { panic!("not cancelled") };
    assert!(event.request.is_some());
    assert_eq!(event.cancelled_at, cancelled.time);
}
