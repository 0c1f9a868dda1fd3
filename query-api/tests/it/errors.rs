use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use query_api::database::Database;
use query_api::http::Capacity;
use query_api::live::Live;
use query_api::positions::Positions;
use query_api::schema::Sources;
use serde_json::json;

use crate::api::{Api, router};
use crate::rows::{insert_order, order_id, placed};

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_server_is_masked() {
    let mut api = Api::start().await;
    insert_order(&mut api.writer, &placed(1)).await;
    sqlx::query("UPDATE contrail.orders SET payload = '{\"status\": \"SECRET\"}'")
        .execute(&mut api.writer)
        .await
        .expect("a payload that cannot be read");
    let response = api.response("query ($id: ID!) { order(id: $id) { status } }", json!({"id": order_id(1)})).await;
    assert_eq!(
        response,
        json!({"data": {"order": null}, "errors": [{
            "message": "internal error", "locations": [{"line": 1, "column": 20}], "path": ["order"],
            "extensions": {"code": "INTERNAL"},
        }]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_field_fails_and_the_others_are_answered() {
    let mut api = Api::start().await;
    insert_order(&mut api.writer, &placed(1)).await;
    sqlx::query("DROP TABLE contrail.inventory").execute(&mut api.writer).await.expect("a table is dropped");
    let query = "query ($id: ID!) { order(id: $id) { version } stockItem(sku: \"TEA-1\") { sku } }";
    let response = api.response(query, json!({"id": order_id(1)})).await;
    assert_eq!(response["data"], json!({"order": {"version": 1}, "stockItem": null}));
    assert_eq!(response["errors"][0]["extensions"]["code"], "UNAVAILABLE");
    assert_eq!(response["errors"][0]["path"], json!(["stockItem"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_postgres_is_unavailable_and_the_schema_still_answers() {
    // A port that was free a moment ago, on which nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let database = Database::open(&format!("postgres://nobody@127.0.0.1:{port}/nowhere"), 2).expect("a Postgres URL");
    let sources = Sources { database, positions: Positions::default(), min_position_wait: Duration::ZERO, live: Live::default() };
    let mut api = Api::start().await;
    api.router = router(sources, Capacity { deadline: Duration::from_secs(20), requests_in_flight_max: 1 });
    let (code, message) = api.error("{ projections { name } }", json!({})).await;
    assert_eq!((code.as_str(), message.as_str()), ("UNAVAILABLE", "the read models cannot be reached now"));
    assert_eq!(api.data("{ __schema { queryType { name } } }", json!({})).await["__schema"]["queryType"]["name"], "Query");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_does_not_fit_the_schema_has_a_code_and_a_place() {
    let api = Api::start().await;
    let cases = [
        ("{ order(id: \"x\") { colour } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ orders(first: \"many\") { edges { cursor } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ orders(filter: {status: [LOST]}) { edges { cursor } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ order(id: }", "GRAPHQL_PARSE_FAILED"),
        ("query A { __typename } query B { __typename }", "GRAPHQL_VALIDATION_FAILED"),
        ("mutation { placeOrder }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($x: Foo = 1) { __typename }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($x: [[Foo!]] = [1]) { __typename }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { orderUpdated }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ orders(filter: {placedAfter: \"yesterday\"}) { edges { cursor } } }", "BAD_USER_INPUT"),
    ];
    for (query, expected) in cases {
        let response = api.response(query, json!({})).await;
        assert_eq!(response["errors"][0]["extensions"]["code"], expected, "{query}: {response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_have_their_defaults_wherever_they_stand_or_the_query_is_not_executed() {
    let api = Api::start().await;
    let names = |data: &serde_json::Value| data["projections"][0].get("name").is_some();
    let with =
        |variable: &str, directive: &str| format!("query ($x: {variable}) {{ projections {{ state name @{directive}(if: $x) }} }}");
    for (query, told) in [
        (with("Boolean! = true", "include"), true),
        (with("Boolean! = true", "skip"), false),
        (with("Boolean = false", "skip"), true),
    ] {
        let data = api.data(&query, json!({})).await;
        assert_eq!(names(&data), told, "{query}: {data}");
        let data = api.data(&query, json!({"x": told == query.contains("include")})).await;
        assert_eq!(names(&data), told, "{query}: {data}");
    }
    for (variables, reason) in [(json!({}), "has no value"), (json!({"x": null}), "is null")] {
        let response = api.response(&with("Boolean!", "include"), variables).await;
        assert!(response.get("data").is_none(), "{response}");
        assert_eq!(response["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{response}");
        assert!(response["errors"][0]["message"].as_str().is_some_and(|message| message.contains(reason)), "{response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_is_of_its_own_operation() {
    let api = Api::start().await;
    let query = "query Orders($filter: OrderFilter = {sku: \"TEA-1\"}) { orders(filter: $filter) { edges { cursor } } }
                 query Stock($filter: StockFilter) { ...S } fragment S on Query { stockItems(filter: $filter) { edges { cursor } } }";
    for name in ["Orders", "Stock"] {
        let body = json!({"query": query, "operationName": name}).to_string();
        let request = Request::post("/graphql").header("content-type", "application/json");
        let (_, response) = api.send(request.body(Body::from(body)).expect("a request")).await;
        assert_eq!(response.get("errors"), None, "{name}: {response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_written_through_the_pool_of_the_api() {
    let api = Api::start().await;
    let database = Database::open(api.database.url(), 1).expect("a Postgres URL");
    let error = sqlx::query("DELETE FROM contrail.orders").execute(database.pool()).await.expect_err("a read-only transaction");
    assert!(error.to_string().contains("read-only transaction"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_nothing_stored_can_hold_is_refused_in_words_wherever_it_stands() {
    let api = Api::start().await;
    let arguments = [
        "orders(filter: {sku: $text}) { edges { cursor } }",
        "orders(filter: {customerId: $text}) { edges { cursor } }",
        "orders(filter: {customerIdPrefix: $text}) { edges { cursor } }",
        "stockItem(sku: $text) { sku }",
        "stockItems(filter: {skuPrefix: $text}) { edges { cursor } }",
        "auditTrail(filter: {aggregateId: $text}) { edges { cursor } }",
        "auditTrail(filter: {correlationId: $text}) { edges { cursor } }",
        "auditTrail(filter: {actor: $text}) { edges { cursor } }",
    ];
    for field in arguments {
        let (code, message) = api.error(&format!("query ($text: String!) {{ {field} }}"), json!({"text": "a\0b"})).await;
        assert_eq!((code.as_str(), message.contains("U+0000")), ("BAD_USER_INPUT", true), "{field}: {message}");
    }
    let (code, _) = api.error("query ($id: ID!) { node(id: $id) { id } }", json!({"id": BASE64.encode("StockItem:a\0b")})).await;
    assert_eq!(code, "BAD_USER_INPUT");
    let forged = BASE64.encode("order:-377705116800000000:a");
    let (code, message) =
        api.error("query ($after: String) { orders(after: $after) { edges { cursor } } }", json!({"after": forged})).await;
    assert_eq!((code.as_str(), message.contains("-4712")), ("BAD_USER_INPUT", true), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_beyond_all_times_in_utc_is_the_callers_mistake() {
    let api = Api::start().await;
    let arguments = [
        "order(id: \"0197a3c5-7000-7000-8000-000000000001\", asOf: $time) { orderId }",
        "orders(filter: {placedAfter: $time}) { edges { cursor } }",
        "orders(filter: {placedBefore: $time}) { edges { cursor } }",
        "auditTrail(filter: {timeAfter: $time}) { edges { cursor } }",
        "auditTrail(filter: {timeBefore: $time}) { edges { cursor } }",
    ];
    for field in arguments {
        let query = format!("query ($time: DateTime!) {{ {field} }}");
        let (code, message) = api.error(&query, json!({"time": "9999-12-31T23:59:59-23:59"})).await;
        assert_eq!((code.as_str(), message.contains("9999")), ("BAD_USER_INPUT", true), "{field}: {message}");
    }
}
