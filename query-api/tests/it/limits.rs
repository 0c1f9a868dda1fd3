use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::stream;
use query_api::database::Database;
use query_api::http::Capacity;
use query_api::limits::{FIELD_DIRECTIVES_MAX, QUERY_DEPTH_MAX, QUERY_FIELDS_MAX, REQUEST_BYTES_MAX, TYPENAME_ALIASES_MAX};
use query_api::live::Live;
use query_api::positions::Positions;
use query_api::schema::Sources;
use serde_json::json;
use tower::ServiceExt as _;

use crate::api::{Api, router};

const TOO_COSTLY: &str = "the query costs more than 10000: ask for fewer fields or smaller pages";

/// `{ __schema { types { fields { type { ofType { … name … } } } } } }` with `depth` levels of fields.
fn nested(depth: usize) -> String {
    let inner = depth.checked_sub(5).expect("a depth of at least 5");
    format!("{{ __schema {{ types {{ fields {{ type {{ {} name {} }} }} }} }} }}", "ofType { ".repeat(inner), "} ".repeat(inner))
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_is_limited() {
    let api = Api::start().await;
    api.data(&nested(QUERY_DEPTH_MAX), json!({})).await;
    let (code, message) = api.error(&nested(QUERY_DEPTH_MAX + 1), json!({})).await;
    assert_eq!((code.as_str(), message.as_str()), ("LIMIT_EXCEEDED", "the query nests fields more than 16 deep"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cost_is_limited_and_counts_pages_within_pages() {
    let api = Api::start().await;
    let query = |orders: usize, events: usize| {
        format!(
            "{{ orders(first: {orders}) {{ edges {{ node {{ history(first: {events}) {{ edges {{ node {{ position }} }} }} }} }} }} }}"
        )
    };
    api.data(&query(20, 100), json!({})).await;
    let (code, message) = api.error(&query(100, 100), json!({})).await;
    assert_eq!((code.as_str(), message.as_str()), ("LIMIT_EXCEEDED", TOO_COSTLY));
}

#[tokio::test(flavor = "multi_thread")]
async fn cost_counts_what_is_within_the_lists_of_an_order() {
    let api = Api::start().await;
    let orders = |selection: &str| format!("{{ orders(first: 100) {{ edges {{ node {{ {selection} }} }} }} }}");
    let of_a_list =
        "orderId status placedAt customer { name } total { amount currencyCode } lines { sku quantity unitPrice { amount } }";
    api.data(&orders(of_a_list), json!({})).await;
    api.data(&orders("lines { sku quantity unitPrice { amount currencyCode } total { amount currencyCode } }"), json!({})).await;
    api.data(&orders("notifications { id topic channel status reason at }"), json!({})).await;
    api.data(&orders("rejection { shortages { sku requested available } }"), json!({})).await;
    let many = |field: &str| (0..10).fold(String::new(), |fields, n| format!("{fields} a{n}: {field}"));
    for selection in [
        format!("lines {{ {} }}", many("sku")),
        format!("notifications {{ {} }}", many("id")),
        format!("rejection {{ shortages {{ {} }} }}", many("sku")),
    ] {
        let (code, message) = api.error(&orders(&selection), json!({})).await;
        assert_eq!((code.as_str(), message.as_str()), ("LIMIT_EXCEEDED", TOO_COSTLY), "{selection}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_by_alias_are_limited_by_their_cost() {
    let api = Api::start().await;
    let lookups =
        |count: usize| (0..count).fold("{".to_owned(), |query, n| format!("{query} a{n}: order(id: \"x\") {{ version }}")) + " }";
    api.data(&lookups(500), json!({})).await;
    assert_eq!(api.error(&lookups(1_000), json!({})).await.0, "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_of_the_cheapest_field_are_limited_by_their_number() {
    let api = Api::start().await;
    let aliases = |count: usize| (0..count).fold("{".to_owned(), |query, n| format!("{query} a{n}: __typename")) + " }";
    api.data(&aliases(TYPENAME_ALIASES_MAX), json!({})).await;
    assert_eq!(api.error(&aliases(TYPENAME_ALIASES_MAX + 1), json!({})).await.0, "LIMIT_EXCEEDED");
    let names = |count: usize| (1..count).fold("{ projections {".to_owned(), |query, n| format!("{query} a{n}: name")) + " } }";
    api.data(&names(900), json!({})).await;
    assert_eq!(api.error(&names(QUERY_FIELDS_MAX + 1), json!({})).await.0, "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn directives_are_limited_wherever_they_stand() {
    let api = Api::start().await;
    let many = "@a ".repeat(FIELD_DIRECTIVES_MAX + 1);
    for query in [
        format!("{{ __typename {many} }}"),
        format!("subscription {{ ... {many} {{ orderUpdated(id: \"x\") {{ status }} }} }}"),
        format!("subscription {{ ...F {many} }} fragment F on Subscription {{ orderUpdated(id: \"x\") {{ status }} }}"),
    ] {
        assert_eq!(api.error(&query, json!({})).await.0, "LIMIT_EXCEEDED", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_the_schema_is_limited_by_what_it_lists() {
    let api = Api::start().await;
    let names = (0..20).fold(String::new(), |query, n| format!("{query} a{n}: name"));
    let (open, close) = ("possibleTypes { interfaces { ".repeat(6), "} } ".repeat(6));
    let query = format!("{{ __type(name: \"Node\") {{ {open} possibleTypes {{ fields {{ {names} }} }} {close} }} }}");
    let (code, message) = api.error(&query, json!({})).await;
    assert_eq!(code, "LIMIT_EXCEEDED", "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_documents_are_refused_at_once() {
    let api = Api::start().await;
    let mut doubling = "{ ...F0 }".to_owned();
    for n in 1..=28 {
        write!(doubling, " fragment F{} on Query {{ ...F{n} ...F{n} }}", n - 1).expect("a string takes everything");
    }
    doubling.push_str(" fragment F28 on Query { __typename }");
    let cases = [
        doubling,
        "{a".repeat(30_000),
        format!("{{ orders(filter: {} }}", "[".repeat(90_000)),
        format!("query ($v: {}Int) {{ __typename }}", "[".repeat(90_000)),
        "{ ...A } fragment A on Query { ...B ...B } fragment B on Query { ...A ...A }".to_owned(),
    ];
    for query in cases {
        let (code, message) = api.error(&query, json!({})).await;
        assert_eq!(code, "LIMIT_EXCEEDED", "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abusive_query_costs_no_statement() {
    let mut api = Api::start().await;
    // Where the database should be, somebody counts who comes.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("postgres://nobody@{}/nothing", listener.local_addr().expect("it is bound"));
    let came = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&came);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let database = Database::open(&url, 4).expect("a Postgres URL");
    let (positions, live) = (Positions::default(), Live::default());
    let sources = Sources { database, positions, min_position_wait: Duration::ZERO, live };
    api.router = router(sources, Capacity { deadline: Duration::from_mins(1), requests_in_flight_max: 100 });

    // Each of them begins with what does cost a statement.
    let list = "orders { edges { cursor } }";
    let many = |field: &str, count: usize| (0..count).fold(String::new(), |text, n| format!("{text} a{n}: {field}"));
    let deep = nested(QUERY_DEPTH_MAX + 1).replacen('{', &format!("{{ {list}"), 1);
    let wide = "{ orders(first: 100) { edges { node { history(first: 100) { edges { node { position } } } } } } }".to_owned();
    let aliased = format!("{{ {list} {} }}", many("order(id: \"x\") { version }", 1_000));
    let aliased_cheaply = format!("{{ {list} {} }}", many("__typename", QUERY_FIELDS_MAX + 1));
    let circular = format!("{{ {list} ...A }} fragment A on Query {{ ...B }} fragment B on Query {{ ...A }}");
    let bracketed = format!("{{ {list} {} }}", "a { ".repeat(10_000));
    let directed = format!("{{ orders {} {{ edges {{ cursor }} }} }}", "@include(if: true) ".repeat(5));
    for (what, query, expected) in [
        ("deep", deep, "LIMIT_EXCEEDED"),
        ("wide", wide, "LIMIT_EXCEEDED"),
        ("aliased", aliased, "LIMIT_EXCEEDED"),
        ("aliased cheaply", aliased_cheaply, "LIMIT_EXCEEDED"),
        ("circular", circular, "LIMIT_EXCEEDED"),
        ("bracketed", bracketed, "LIMIT_EXCEEDED"),
        ("directed", directed, "LIMIT_EXCEEDED"),
    ] {
        let (code, message) = api.error(&query, json!({})).await;
        assert_eq!(code, expected, "{what}: {message}");
    }
    let batch = json!([{"query": format!("{{ {list} }}")}, {"query": format!("{{ {list} }}")}]);
    let request = Request::post("/graphql").header("content-type", "application/json").body(batch.to_string().into());
    let (status, body) = api.send(request.expect("a request")).await;
    assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (StatusCode::BAD_REQUEST, &json!("BAD_REQUEST")));
    assert_eq!(came.load(Ordering::Relaxed), 0);

    // One that is not abusive comes.
    let asked = tokio::spawn(api.router.clone().oneshot(post(&format!("{{ {list} }}"))));
    while came.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    asked.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_request_is_limited() {
    let api = Api::start().await;
    let body = format!("{{\"query\":\"{{ __typename }} # {}\"}}", "x".repeat(REQUEST_BYTES_MAX));
    let request = Request::post("/graphql").header("content-type", "application/json").body(body.into()).expect("a request");
    let (status, body) = api.send(request).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body["errors"][0]["message"], format!("the request is larger than {REQUEST_BYTES_MAX} bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_at_the_deadline_even_if_its_answer_does_not_come() {
    let mut api = Api::start().await;
    api.router = waiting_for_ever(&api, Capacity { deadline: Duration::from_millis(50), requests_in_flight_max: 1 });
    let (status, body) = api.send(post(WAITING)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["errors"][0]["extensions"]["code"], "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_events_has_as_long_to_say_what_for_and_is_in_flight_meanwhile() {
    let mut api = Api::start().await;
    let endless = || {
        let request = Request::post("/graphql").header("content-type", "application/json").header("accept", "text/event-stream");
        request.body(Body::from_stream(stream::pending::<Result<Vec<u8>, Infallible>>())).expect("a request")
    };
    api.router = waiting_for_ever(&api, Capacity { deadline: Duration::from_millis(50), requests_in_flight_max: 1 });
    let (status, body) = api.send(endless()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["errors"][0]["extensions"]["code"], "DEADLINE_EXCEEDED");

    api.router = waiting_for_ever(&api, Capacity { deadline: Duration::from_mins(1), requests_in_flight_max: 1 });
    // In this order, so that the first is in flight when the second comes.
    let (status, body) = tokio::select! {
        biased;
        _ = api.exchange(endless()) => unreachable!("it has no end"),
        refused = api.send(endless()) => refused,
    };
    assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("UNAVAILABLE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_limited_and_the_next_one_is_told_when_to_come_again() {
    let mut api = Api::start().await;
    api.router = waiting_for_ever(&api, Capacity { deadline: Duration::from_mins(1), requests_in_flight_max: 3 });
    let waiting = || api.exchange(post(WAITING));
    // In this order, so that the three are in flight when the fourth comes.
    let refused = tokio::select! {
        biased;
        _ = waiting() => unreachable!("it waits"),
        _ = waiting() => unreachable!("it waits"),
        _ = waiting() => unreachable!("it waits"),
        refused = api.exchange(post("{ __typename }")) => refused,
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    // The three have gone away, which makes room.
    api.data("{ __typename }", json!({})).await;
}

const WAITING: &str = "{ orders(minPosition: 1) { edges { cursor } } }";

/// A server of which no read model ever moves.
fn waiting_for_ever(api: &Api, capacity: Capacity) -> Router {
    let database = Database::open(api.database.url(), 1).expect("a Postgres URL");
    router(
        Sources { database, positions: Positions::default(), min_position_wait: Duration::from_mins(1), live: Live::default() },
        capacity,
    )
}

fn post(query: &str) -> Request<Body> {
    let request = Request::post("/graphql").header("content-type", "application/json");
    request.body(Body::from(json!({"query": query}).to_string())).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_introspection_query_of_the_common_tools_is_within_every_limit() {
    let api = Api::start().await;
    // What getIntrospectionQuery() of graphql-js 16 returns, with every option on.
    let query = include_str!("introspection.graphql");
    let data = api.data(query, json!({})).await;
    assert_eq!(data["__schema"]["queryType"]["name"], "Query");
    assert_eq!(data["__schema"]["mutationType"], json!(null));
}
