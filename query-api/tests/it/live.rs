//! Subscriptions, over server-sent events and over WebSocket.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use domain::OrderId;
use futures::StreamExt as _;
use query_api::limits::LISTENERS_MAX;
use query_api::live::Live;
use query_api::positions::Positions;
use read_store::projections::ProjectionName;
use read_store::views::OrderView;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::api::Api;
use crate::rows::{advance, insert_event, insert_order, order_id, placed};

const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const UPDATED: &str = "subscription ($id: ID!) { orderUpdated(id: $id) { status position paymentStatus } }";

/// What happens to the order of that number, at these positions of the log: so many events of it.
pub(crate) async fn happen(api: &mut Api, number: u128, positions: [u32; 3], events: usize) {
    insert_events(api, number, positions, 0, events).await;
}

/// The same without so many of the first events.
pub(crate) async fn happen_from(api: &mut Api, number: u128, positions: [u32; 3], skipped: usize) {
    insert_events(api, number, positions, skipped, positions.len()).await;
}

async fn insert_events(api: &mut Api, number: u128, positions: [u32; 3], from: usize, up_to: usize) {
    let order = order_id(number);
    let at = "2026-11-20T12:00:00Z";
    let placed = json!({"customer": {"id": "c-42", "email": "a@example.com", "name": "A"}, "currency": "EUR",
                        "lines": [{"sku": "TEA-1", "quantity": 2, "unit_price_minor": 1250}], "total_minor": 2500,
                        "payment_method": "pm_card_visa", "placed_at": at, "request": {"id": order, "digest": "d"}});
    let amount = json!({"minor_units": 2500, "currency": "EUR"});
    let events = [
        ("order.placed", 1, placed),
        ("order.stock_reserved", 2, json!({"reserved_at": at, "payment_due_at": at})),
        ("payment.captured", 1, json!({"payment_intent_id": "pi_1", "amount": amount, "captured_at": at})),
    ];
    for (position, (event_type, version, data)) in positions.into_iter().zip(&events).take(up_to).skip(from) {
        insert_event(&mut api.writer, position, event_type, &order, *version, data).await;
    }
}

/// Both read models have everything up to here.
pub(crate) async fn reach(api: &mut Api, position: i64) {
    advance(&mut api.writer, "orders", position).await;
    advance(&mut api.writer, "audit", position).await;
}

/// Server-sent events, one by one.
pub(crate) struct Events {
    body: BodyDataStream,
    read: String,
}

impl Events {
    async fn of(api: &Api, query: &str, variables: Value) -> Self {
        Self::as_caller(api, "nobody", query, variables).await
    }

    /// Those that whoever has this token gets.
    pub(crate) async fn as_caller(api: &Api, token: &str, query: &str, variables: Value) -> Self {
        let body = json!({"query": query, "variables": variables}).to_string();
        let request = Request::post("/graphql").header("content-type", "application/json").header("accept", "text/event-stream");
        let request = request.header("authorization", format!("Bearer {token}"));
        let response = api.exchange(request.body(Body::from(body)).expect("a request")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), read: String::new() }
    }

    /// Name and data of the next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                let event: String = self.read.drain(..end + 2).collect();
                let line =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
                return Some((line("event:"), line("data:")));
            }
            let bytes = timeout(PATIENCE, self.body.next()).await.expect("an event in time")?.expect("a whole body");
            self.read.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }

    pub(crate) async fn data(&mut self) -> Value {
        let (event, data) = self.next().await.expect("an event");
        assert_eq!(event, "next");
        let mut response: Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!(response.get("errors"), None, "{response}");
        response["data"].take()
    }

    /// Status and position of the next order.
    async fn order(&mut self) -> (String, String) {
        let data = self.data().await;
        let text = |name: &str| data["orderUpdated"][name].as_str().expect("a text").to_owned();
        (text("status"), text("position"))
    }
}

fn is(order: &(String, String), status: &str, position: &str) -> bool {
    (order.0.as_str(), order.1.as_str()) == (status, position)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_told_as_it_is_and_then_after_each_of_its_events() {
    let mut api = Api::start().await;
    happen(&mut api, 1, [2, 4, 5], 1).await;
    insert_order(&mut api.writer, &placed(1)).await;
    reach(&mut api, 3).await;
    let mut events = Events::of(&api, UPDATED, json!({"id": order_id(1)})).await;
    let now = events.order().await;
    assert!(is(&now, "PLACED", "2"), "{now:?}");
    // Two events that come at once are told one by one; those of others are not told.
    happen(&mut api, 2, [3, 6, 7], 3).await;
    happen_from(&mut api, 1, [2, 4, 5], 1).await;
    advance(&mut api.writer, "audit", 7).await;
    let then = [events.order().await, events.order().await];
    assert!(is(&then[0], "RESERVED", "4") && is(&then[1], "RESERVED", "5"), "{then:?}");
    let at = "2026-11-20T12:00:00Z";
    let sent = json!({"order_id": order_id(1), "topic": "order_confirmed", "channel": "email", "sent_at": at});
    insert_event(&mut api.writer, 8, "notification.sent", &order_id(99), 1, &sent).await;
    advance(&mut api.writer, "audit", 8).await;
    let told = events.order().await;
    assert!(is(&told, "RESERVED", "8"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_placed_yet_is_waited_for() {
    let mut api = Api::start().await;
    let mut events = Events::of(&api, UPDATED, json!({"id": order_id(1)})).await;
    let mut own =
        Events::of(&api, "subscription ($id: ID!) { orderEvents(id: $id) { type version } }", json!({"id": order_id(1)})).await;
    // They begin when they are first listened to.
    for events in [&mut events, &mut own] {
        assert!(timeout(Duration::from_millis(300), events.next()).await.is_err(), "nothing has happened yet");
    }
    happen(&mut api, 1, [1, 2, 3], 3).await;
    reach(&mut api, 3).await;
    for (status, position) in [("PLACED", "1"), ("RESERVED", "2"), ("RESERVED", "3")] {
        let order = events.order().await;
        assert!(is(&order, status, position), "{order:?}");
    }
    for event_type in ["order.placed", "order.stock_reserved", "payment.captured"] {
        let event = own.data().await["orderEvents"].take();
        assert_eq!(event["type"], format!("contrail.{event_type}.v1"));
    }
    // Whoever comes later hears of all of it, too.
    let mut late =
        Events::of(&api, "subscription ($id: ID!) { orderEvents(id: $id) { version } }", json!({"id": order_id(1)})).await;
    for version in [1, 2, 1] {
        assert_eq!(late.data().await["orderEvents"]["version"], version);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_listen_for_a_while_misses_nothing() {
    const EVENTS: u32 = 500;
    let mut api = Api::start().await;
    let mut events =
        Events::of(&api, "subscription ($id: ID!) { orderEvents(id: $id) { position } }", json!({"id": order_id(1)})).await;
    for position in 1..=EVENTS {
        insert_event(&mut api.writer, position, "order.note", &order_id(1), position, &json!({})).await;
        if position % 7 == 0 || position == EVENTS {
            reach(&mut api, position.into()).await;
        }
    }
    for position in 1..=EVENTS {
        assert_eq!(events.data().await["orderEvents"]["position"], position.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_told_also_to_who_asks_for_it_by_a_fragment() {
    let mut api = Api::start().await;
    happen(&mut api, 1, [2, 4, 5], 1).await;
    insert_order(&mut api.writer, &placed(1)).await;
    reach(&mut api, 3).await;
    let spread = "subscription ($id: ID!) { ...F } fragment F on Subscription { orderUpdated(id: $id) { ...O } } \
                  fragment O on Order { status position }";
    let inline = "subscription ($id: ID!, $x: Boolean! = true) { ... on Subscription @include(if: $x) { orderUpdated(id: $id) { status position } } }";
    let halves = "subscription ($id: ID!) { ...A ...B ...A } fragment A on Subscription { orderUpdated(id: $id) { status } } \
                  fragment B on Subscription { orderUpdated(id: $id) { position } }";
    let twice = "subscription ($id: ID!, $x: Boolean! = true) { ...F @include(if: $x) } \
                 fragment F on Subscription { orderUpdated(id: $id) @include(if: $x) { status position } }";
    for query in [spread, inline, halves, twice] {
        let mut events = Events::of(&api, query, json!({"id": order_id(1)})).await;
        let now = events.order().await;
        assert!(is(&now, "PLACED", "2"), "{query}: {now:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_subscribed_to_is_refused() {
    let api = Api::start().await;
    let post = |query: &str, accept: &str| {
        let body = json!({"query": query}).to_string();
        let request = Request::post("/graphql").header("content-type", "application/json").header("accept", accept);
        request.body(Body::from(body)).expect("a request")
    };
    let (status, body) = api.send(post("subscription { orderUpdated(id: 7, no: 1) { status } }", "text/event-stream")).await;
    assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (StatusCode::BAD_REQUEST, &json!("GRAPHQL_VALIDATION_FAILED")));
    let (status, body) = api.send(post("subscription { orderUpdated(id: 7) { status } }", "application/json")).await;
    assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (StatusCode::OK, &json!("BAD_REQUEST")));
    assert!(body["errors"][0]["message"].as_str().is_some_and(|message| message.contains("/graphql/ws")), "{body}");

    let two =
        "subscription { a: orderUpdated(id: 7) { status } ...B } fragment B on Subscription { b: orderUpdated(id: 8) { status } }";
    let (status, body) = api.send(post(two, "text/event-stream")).await;
    assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (StatusCode::BAD_REQUEST, &json!("GRAPHQL_VALIDATION_FAILED")));

    let mut events = Events::of(&api, "subscription { orderUpdated(id: \"7\") { status } }", json!({})).await;
    let (event, data) = events.next().await.expect("an event");
    assert!(event == "next" && data.contains("BAD_USER_INPUT") && data.contains("is not the id of an order"), "{event}: {data}");
    assert_eq!(events.next().await, Some(("complete".to_owned(), String::new())));
    assert_eq!(events.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_answered_by_one_event() {
    let api = Api::start().await;
    let mut events = Events::of(&api, "{ projections { name } }", json!({})).await;
    assert!(events.data().await["projections"].is_array());
    assert_eq!(events.next().await, Some(("complete".to_owned(), String::new())));
    assert_eq!(events.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_are_answered_by_events_are_counted_and_subscriptions_are_not() {
    let api = Api::start().await;
    let counted = |name: &str, value: u32| {
        let text = api.metrics.openmetrics();
        assert!(text.lines().any(|line| line.ends_with(&format!("{name} {value}"))), "{name} {value}: {text}");
    };
    Events::of(&api, "{ __typename }", json!({})).await;
    Events::of(&api, "{ orders(first: 101) { edges { cursor } } }", json!({})).await;
    let subscription = Events::of(&api, UPDATED, json!({"id": order_id(1)})).await;
    counted("graphql_requests_total{outcome=\"ok\"}", 1);
    counted("graphql_requests_total{outcome=\"failed\"}", 1);
    counted("graphql_requests_total{outcome=\"refused\"}", 0);
    counted("graphql_request_duration_seconds_count", 2);
    drop(subscription);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_events_but_prefers_json_gets_json() {
    let api = Api::start().await;
    for accept in ["application/json, text/event-stream;q=0", "application/json, text/event-stream, multipart/mixed"] {
        let request = Request::post("/graphql").header("content-type", "application/json").header("accept", accept);
        let request = request.body(Body::from(json!({"query": "{ __typename }"}).to_string())).expect("a request");
        assert_eq!(api.send(request).await, (StatusCode::OK, json!({"data": {"__typename": "Query"}})), "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_an_order_are_told_from_the_trail_alone() {
    let mut api = Api::start().await;
    happen(&mut api, 1, [1, 2, 3], 2).await;
    advance(&mut api.writer, "audit", 2).await;
    api.positions.reach(ProjectionName::Audit, 2, PATIENCE).await.expect("the position is heard of");
    // The read model of orders stands still at 0.
    let query = "subscription ($id: ID!) { orderEvents(id: $id) { position } }";
    let mut events = Events::of(&api, query, json!({"id": order_id(1)})).await;
    for position in ["1", "2"] {
        assert_eq!(events.data().await["orderEvents"]["position"], position);
    }
    happen_from(&mut api, 1, [1, 2, 3], 2).await;
    advance(&mut api.writer, "audit", 3).await;
    assert_eq!(events.data().await["orderEvents"]["position"], "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_followed_while_the_orders_are_behind_is_told_when_they_are_not() {
    let mut api = Api::start_with(Duration::from_millis(50)).await;
    happen(&mut api, 1, [1, 2, 3], 1).await;
    insert_order(&mut api.writer, &placed(1)).await;
    advance(&mut api.writer, "audit", 1).await;
    api.positions.reach(ProjectionName::Audit, 1, PATIENCE).await.expect("the position is heard of");
    let mut events = Events::of(&api, UPDATED, json!({"id": order_id(1)})).await;
    // Longer than one wait for the orders.
    assert!(timeout(Duration::from_millis(500), events.next()).await.is_err(), "nothing can be told yet");
    advance(&mut api.writer, "orders", 1).await;
    let order = events.order().await;
    assert!(is(&order, "PLACED", "1"), "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_followed_before_anything_is_known_of_the_read_models_is_told_as_it_is_now() {
    let mut api = Api::start().await;
    happen(&mut api, 1, [1, 2, 3], 3).await;
    insert_order(&mut api.writer, &OrderView { version: 2, position: 3, ..placed(1) }).await;
    reach(&mut api, 3).await;
    let positions = Positions::default();
    api.serve_with(positions.clone(), Live::default());
    let mut events = Events::of(&api, UPDATED, json!({"id": order_id(1)})).await;
    assert!(timeout(Duration::from_millis(300), events.next()).await.is_err(), "nothing can be told yet");
    for name in ProjectionName::ALL {
        positions.set(name, 3);
    }
    let order = events.order().await;
    assert_eq!(order.1, "3", "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_not_told_as_it_was_before_what_queries_show() {
    let mut api = Api::start().await;
    happen(&mut api, 1, [1, 2, 3], 3).await;
    insert_order(&mut api.writer, &OrderView { version: 2, position: 3, ..placed(1) }).await;
    advance(&mut api.writer, "orders", 3).await;
    advance(&mut api.writer, "audit", 1).await;
    api.positions.reach(ProjectionName::Audit, 1, PATIENCE).await.expect("the position is heard of");
    let mut events = Events::of(&api, UPDATED, json!({"id": order_id(1)})).await;
    assert!(timeout(Duration::from_millis(300), events.next()).await.is_err(), "the trail is behind");
    advance(&mut api.writer, "audit", 3).await;
    let order = events.order().await;
    assert_eq!(order.1, "3", "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscription_too_many_is_told_so() {
    let mut api = Api::start().await;
    let live = Live::default();
    let others: Vec<_> = (0..LISTENERS_MAX).map(|_| live.listen(OrderId(Uuid::from_u128(2)), 0).expect("there is room")).collect();
    api.serve_with(api.positions.clone(), live);
    let mut events = Events::of(&api, UPDATED, json!({"id": order_id(1)})).await;
    let (event, data) = events.next().await.expect("an event");
    assert!(event == "next" && data.contains("UNAVAILABLE") && data.contains("too many subscriptions"), "{event}: {data}");
    assert_eq!(events.next().await, Some(("complete".to_owned(), String::new())));
    drop(others);
}
