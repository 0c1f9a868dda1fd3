use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::api::Api;

const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";

fn post() -> Builder {
    Request::post("/graphql").header("content-type", "application/json")
}

/// Status, content type and body.
async fn exchange(api: &Api, request: Builder, body: impl Into<Body>) -> (u16, String, Value) {
    let response = api.exchange(request.body(body.into()).expect("a request")).await;
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().expect("a text").to_owned();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    (status, content_type, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_has_the_media_type_that_is_asked_for() {
    let api = Api::start().await;
    let query = r#"{"query":"{ __typename }"}"#;
    let cases = [
        (None, "application/json; charset=utf-8"),
        (Some("*/*"), "application/json; charset=utf-8"),
        (Some("application/json"), "application/json; charset=utf-8"),
        (Some(GRAPHQL_RESPONSE), "application/graphql-response+json; charset=utf-8"),
        (Some("application/json, application/graphql-response+json"), "application/graphql-response+json; charset=utf-8"),
    ];
    for (accept, expected) in cases {
        let request = accept.map_or_else(post, |accept| post().header("accept", accept));
        let (status, content_type, body) = exchange(&api, request, query).await;
        assert_eq!((status, content_type.as_str()), (200, expected), "{accept:?}");
        assert_eq!(body, json!({"data": {"__typename": "Query"}}));
    }
    let (status, content_type, body) = exchange(&api, post().header("accept", "text/html"), query).await;
    assert_eq!((status, content_type.as_str()), (406, "application/json; charset=utf-8"));
    assert_eq!(body["errors"][0]["extensions"]["code"], "BAD_REQUEST");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_executed_is_400_or_200_by_the_media_type_and_has_no_data() {
    let api = Api::start().await;
    for query in [r#"{"query":"{"}"#, r#"{"query":"{ nothing }"}"#] {
        let (status, _, body) = exchange(&api, post().header("accept", GRAPHQL_RESPONSE), query).await;
        assert_eq!((status, body.get("data")), (400, None));
        let (status, _, body) = exchange(&api, post().header("accept", "application/json"), query).await;
        assert_eq!((status, body.get("data")), (200, None));
        assert!(body["errors"][0]["message"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_fails_is_no_request_error() {
    let api = Api::start().await;
    let query = r#"{"query":"{ orders(first: 101) { edges { cursor } } }"}"#;
    let (status, _, body) = exchange(&api, post().header("accept", GRAPHQL_RESPONSE), query).await;
    assert_eq!((status, &body["data"]), (200, &json!(null)));
    assert_eq!(body["errors"][0]["path"], json!(["orders"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_graphql_request_is_refused() {
    let api = Api::start().await;
    let cases = [
        ("", "the body is not the JSON of a GraphQL request"),
        ("{", "the body is not the JSON of a GraphQL request"),
        ("{}", "the query is missing"),
        (r#"{"query":null}"#, "the query is missing"),
        (r#"{"query":""}"#, "the query is missing"),
        (r#"{"query":7}"#, "the body is not the JSON of a GraphQL request"),
        (r#"{"query":"{ __typename }","variables":[]}"#, "the body is not the JSON of a GraphQL request"),
        (r#"{"query":"{ __typename }","operationName":7}"#, "the body is not the JSON of a GraphQL request"),
        (r#"{"query":"{ __typename }","extensions":"x"}"#, "the body is not the JSON of a GraphQL request"),
        (r#" [{"query":"{ __typename }"}]"#, "batches of requests are not supported"),
    ];
    for (body, message) in cases {
        for accept in ["application/json", GRAPHQL_RESPONSE] {
            let (status, _, answer) = exchange(&api, post().header("accept", accept), body).await;
            assert_eq!(status, 400, "{body}");
            let said = answer["errors"][0]["message"].as_str().expect("a message");
            assert!(said.starts_with(message), "{body}: {said}");
            assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_REQUEST");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_be_plain_json_in_utf_8() {
    let api = Api::start().await;
    let query = r#"{"query":"{ __typename }"}"#;
    for content_type in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
        let request = Request::post("/graphql").header("content-type", content_type);
        assert_eq!(exchange(&api, request, query).await.0, 200, "{content_type}");
    }
    for content_type in
        ["text/plain", "application/json; charset=utf-16", "application/x-www-form-urlencoded", "application/graphql"]
    {
        let request = Request::post("/graphql").header("content-type", content_type);
        assert_eq!(exchange(&api, request, query).await.0, 415, "{content_type}");
    }
    assert_eq!(exchange(&api, Request::post("/graphql"), query).await.0, 415);
    assert_eq!(exchange(&api, post().header("content-encoding", "gzip"), query).await.0, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_may_come_by_get_and_nothing_else_may() {
    let api = Api::start().await;
    let get = |parameters: &str| Request::get(format!("/graphql?{parameters}"));
    let (status, _, body) = exchange(&api, get("query=%7B__typename%7D"), Body::empty()).await;
    assert_eq!((status, body), (200, json!({"data": {"__typename": "Query"}})));

    let query = "query=query%20Q(%24sku%3AString!)%7BstockItem(sku%3A%24sku)%7Bsku%7D%7D&operationName=Q";
    let (status, _, body) = exchange(&api, get(&format!("{query}&variables=%7B%22sku%22%3A%22TEA-1%22%7D")), Body::empty()).await;
    assert_eq!((status, body), (200, json!({"data": {"stockItem": null}})));

    for bad in ["", "query=", "query=%7B__typename%7D&variables=%5B", "query=%7B__typename%7D&extensions=7"] {
        assert_eq!(exchange(&api, get(bad), Body::empty()).await.0, 400, "{bad}");
    }
    let response = api.exchange(get("query=mutation%7B__typename%7D").body(Body::empty()).expect("a request")).await;
    assert_eq!(
        (response.status(), &response.headers()["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().expect("a value"))
    );
    let response = api.exchange(Request::put("/graphql").body(Body::empty()).expect("a request")).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, POST");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operation_of_that_name_is_executed() {
    let api = Api::start().await;
    let document = "query A { a: __typename } query B { b: __typename }";
    let body = json!({"query": document, "operationName": "B"}).to_string();
    assert_eq!(exchange(&api, post(), body).await.2, json!({"data": {"b": "Query"}}));
    let body = json!({"query": document, "operationName": "C"}).to_string();
    assert_eq!(exchange(&api, post().header("accept", GRAPHQL_RESPONSE), body).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_answered_in_the_order_of_the_query() {
    let api = Api::start().await;
    let query = r#"{"query":"{ b: projections { name } a: __typename d: stockItem(sku: \"x\") { sku } c: __typename }"}"#;
    let response = api.exchange(post().body(Body::from(query)).expect("a request")).await;
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("UTF-8");
    let places: Vec<_> = ["\"b\":", "\"a\":", "\"d\":", "\"c\":"].iter().map(|key| body.find(key)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_which_every_field_is_skipped_has_data_without_any() {
    let api = Api::start().await;
    let query = r#"{"query": "{ __typename @skip(if: true) orders(first: 1) @include(if: false) { edges { cursor } } }"}"#;
    let (status, _, answer) = exchange(&api, post(), query).await;
    assert_eq!((status, answer), (200, json!({"data": {}})));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_path_is_not_found() {
    let api = Api::start().await;
    assert_eq!(exchange(&api, Request::get("/graphq"), Body::empty()).await.0, 404);
}
