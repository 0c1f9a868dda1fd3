use std::time::Duration;

use read_store::projections::ProjectionName;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::api::Api;
use crate::rows::{advance, eventful, insert_event, insert_order, order_id};

/// An order that was placed, reserved, paid, confirmed and announced, at positions 2, 4, 5, 6 and 8; the log goes on to 9.
async fn start() -> Api {
    let mut api = Api::start_with(Duration::from_secs(5)).await;
    let (order, notification) = (order_id(1), order_id(99));
    let at = "2026-11-20T12:00:00Z";
    let placed = json!({"customer": {"id": "c-42", "email": "a@example.com", "name": "A"}, "currency": "EUR",
                        "lines": [{"sku": "TEA-1", "quantity": 2, "unit_price_minor": 1250}], "total_minor": 2500,
                        "payment_method": "pm_card_visa", "placed_at": at, "request": {"id": order, "digest": "d"}});
    let amount = json!({"minor_units": 2500, "currency": "EUR"});
    let events = [
        (2, "order.placed", &order, 1, placed),
        (4, "order.stock_reserved", &order, 2, json!({"reserved_at": at, "payment_due_at": at})),
        (5, "payment.captured", &order, 1, json!({"payment_intent_id": "pi_1", "amount": amount, "captured_at": at})),
        (6, "order.confirmed", &order, 3, json!({"payment_intent_id": "pi_1", "confirmed_at": at})),
        (
            8,
            "notification.sent",
            &notification,
            1,
            json!({"order_id": order, "topic": "order_confirmed", "channel": "email", "sent_at": at}),
        ),
    ];
    for (position, event_type, id, version, data) in &events {
        insert_event(&mut api.writer, *position, event_type, id, *version, data).await;
    }
    // What the read model has now differs, so that an answer from it would show.
    insert_order(&mut api.writer, &eventful(1)).await;
    reach(&mut api.writer, 9).await;
    api
}

/// Both read models that the past is told from have everything up to here.
async fn reach(writer: &mut PgConnection, position: i64) {
    advance(writer, "orders", position).await;
    advance(writer, "audit", position).await;
}

async fn as_of(api: &Api, arguments: &str) -> Value {
    let query = format!(
        "query ($id: ID!) {{ order(id: $id, {arguments}) {{ status paymentStatus version position total {{ amount }}
             notifications {{ topic }} history {{ edges {{ node {{ position }} }} }} }} }}"
    );
    api.data(&query, json!({"id": order_id(1)})).await["order"].take()
}

fn positions(order: &Value) -> Vec<&str> {
    let events = order["history"]["edges"].as_array().expect("edges").iter();
    events.map(|edge| edge["node"]["position"].as_str().expect("a position")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_shown_as_it_was_right_after_a_position() {
    let api = start().await;
    assert_eq!(as_of(&api, "asOfPosition: 1").await, json!(null), "it was not yet placed");
    let cases = [
        ("2", "PLACED", "NONE", 1, "2", 0, vec!["2"]),
        ("3", "PLACED", "NONE", 1, "2", 0, vec!["2"]),
        ("4", "RESERVED", "NONE", 2, "4", 0, vec!["2", "4"]),
        ("5", "RESERVED", "CAPTURED", 2, "5", 0, vec!["2", "4", "5"]),
        ("7", "CONFIRMED", "CAPTURED", 3, "6", 0, vec!["2", "4", "5", "6"]),
        ("9", "CONFIRMED", "CAPTURED", 3, "8", 1, vec!["2", "4", "5", "6"]),
    ];
    for (at, status, payment_status, version, position, notifications, history) in cases {
        let order = as_of(&api, &format!("asOfPosition: \"{at}\"")).await;
        assert_eq!(order["status"], status, "as of {at}");
        assert_eq!(order["paymentStatus"], payment_status, "as of {at}");
        assert_eq!(order["version"], version, "as of {at}");
        assert_eq!(order["position"], position, "as of {at}");
        assert_eq!(order["total"]["amount"], "25.00", "as of {at}");
        assert_eq!(order["notifications"].as_array().map(Vec::len), Some(notifications), "as of {at}");
        assert_eq!(positions(&order), history, "as of {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_shown_as_it_was_at_a_time() {
    let api = start().await;
    // The event at position n was appended n seconds after 12:00:00.123456.
    let cases =
        [("12:00:01", None), ("12:00:03", Some("PLACED")), ("12:00:04.123456", Some("RESERVED")), ("23:00:00", Some("CONFIRMED"))];
    for (time, status) in cases {
        let order = as_of(&api, &format!("asOf: \"2026-11-20T{time}Z\"")).await;
        assert_eq!(order["status"].as_str(), status, "as of {time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_audit_trail_does_not_have_is_waited_for_and_then_stale() {
    let mut api = start().await;
    let mut writer = api.connect().await;
    let (order, ()) = tokio::join!(as_of(&api, "asOfPosition: 12"), reach(&mut writer, 12));
    assert_eq!(order["status"], "CONFIRMED");
    api = Api::start_with(Duration::from_millis(50)).await;
    let (code, _) = api.error("{ order(id: \"x\", asOfPosition: 1) { status } }", json!({})).await;
    assert_eq!(code, "STALE_READ");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_stale_while_the_orders_do_not_know_of_every_notification_that_the_trail_has() {
    let mut api = Api::start_with(Duration::from_millis(50)).await;
    advance(&mut api.writer, "audit", 9).await;
    api.positions.reach(ProjectionName::Audit, 9, Duration::from_secs(10)).await.expect("the position is heard of");
    let queries = ["asOfPosition: 9", "asOf: \"2027-01-01T00:00:00Z\""]
        .map(|moment| format!("{{ order(id: \"{}\", {moment}) {{ status }} }}", order_id(1)));
    for query in &queries {
        let response = api.response(query, json!({})).await;
        let stale = json!({"code": "STALE_READ", "projection": "orders", "position": "0", "minPosition": "9"});
        assert_eq!(response["errors"][0]["extensions"], stale, "{query}");
    }
    advance(&mut api.writer, "orders", 9).await;
    api.positions.reach(ProjectionName::Orders, 9, Duration::from_secs(10)).await.expect("the position is heard of");
    for query in &queries {
        assert_eq!(api.data(query, json!({})).await, json!({"order": null}), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_and_a_position_together_are_refused_and_nobody_is_null() {
    let api = start().await;
    let query = "{ order(id: \"x\", asOfPosition: 1, asOf: \"2026-11-20T12:00:00Z\") { status } }";
    assert_eq!(api.error(query, json!({})).await.0, "BAD_USER_INPUT");
    for id in [order_id(7), "x".to_owned()] {
        let query = "query ($id: ID!) { order(id: $id, asOfPosition: 9) { status } }";
        assert_eq!(api.data(query, json!({"id": id})).await, json!({"order": null}));
    }
}

const OTHERS: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_events_are_found_among_many_also_by_a_plan_made_when_there_were_few() {
    let mut api = start().await;
    // Often enough for the server to keep a plan, for each of the connections.
    for _ in 0..40 {
        assert_eq!(as_of(&api, "asOfPosition: 9").await["status"], "CONFIRMED");
        assert_eq!(as_of(&api, "asOf: \"2027-01-01T00:00:00Z\"").await["position"], "8");
    }
    let others = "INSERT INTO contrail.audit SELECT position + 100, event_id, event_type, aggregate_type, gen_random_uuid()::text, version, time, \
                  actor, correlation_id, causation_id, trace_id, bytes, leaf_hash FROM generate_series(1, $1) AS position, \
                  (SELECT event_id, event_type, aggregate_type, version, time, actor, correlation_id, causation_id, trace_id, bytes, leaf_hash \
                   FROM contrail.audit WHERE position = 2) AS event";
    sqlx::query(others).bind(OTHERS).execute(&mut api.writer).await.expect("they are inserted");
    reach(&mut api.writer, OTHERS + 100).await;
    for _ in 0..10 {
        assert_eq!(as_of(&api, &format!("asOfPosition: {}", OTHERS + 100)).await["status"], "CONFIRMED");
        assert_eq!(as_of(&api, "asOf: \"2027-01-01T00:00:00Z\"").await["position"], "8");
    }
    let entries = api.entries_read("audit").await;
    assert!(entries < OTHERS, "{entries} entries of indexes were read for an order of 5 events");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_read_model_goes_past_is_no_part_of_the_past_either() {
    let mut api = start().await;
    insert_event(&mut api.writer, 9, "order.unheard_of", &order_id(1), 4, &json!({})).await;
    let query = "query ($id: ID!) { order(id: $id, asOfPosition: \"9\") { status } }";
    let response = api.response(query, json!({"id": order_id(1)})).await;
    assert_eq!(response["errors"][0]["extensions"]["code"], "INTERNAL", "{response}");
    sqlx::query(
        "INSERT INTO contrail.skips (projection, position, halt_reason, reason) VALUES ('orders', 9, 'unknown', 'not ours')",
    )
    .execute(&mut api.writer)
    .await
    .expect("a skip");
    let order = as_of(&api, "asOfPosition: \"9\"").await;
    assert_eq!((&order["status"], &order["version"]), (&json!("CONFIRMED"), &json!(3)), "{order}");
    // The trail has it all the same.
    assert_eq!(positions(&order), ["2", "4", "5", "6", "9"]);
}
