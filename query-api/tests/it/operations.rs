//! Servers that execute listed operations alone, or do not tell their schema.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use query_api::http::Policy;
use query_api::operations::Operations;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::api::Api;
use crate::rows::{insert_order, order_id, placed};

const LISTED: &str = "query Order($id: ID!) { order(id: $id) { status } }";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

async fn start_with_a_list() -> Api {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), json!({"order": LISTED}).to_string()).expect("it is written");
    let operations = Operations::listed(file.path()).expect("a good list");
    let mut api = Api::start_under(Policy { operations, introspection: true }).await;
    insert_order(&mut api.writer, &placed(1)).await;
    api
}

async fn ask(api: &Api, mut body: Value) -> Result<Value, String> {
    body["variables"] = json!({"id": order_id(1)});
    let request = Request::post("/graphql").header("content-type", "application/json").body(Body::from(body.to_string()));
    let (status, mut response) = api.send(request.expect("a request")).await;
    match response["errors"][0]["extensions"]["code"].as_str() {
        Some(code) => Err(format!("{} {code}", status.as_u16())),
        None => Ok(response["data"]["order"]["status"].take()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_list_only_what_is_on_it_is_executed() {
    let api = start_with_a_list().await;
    let hash = hex(&Sha256::digest(LISTED));
    let by_hash = json!({"persistedQuery": {"version": 1, "sha256Hash": hash}});
    for body in [
        json!({"query": LISTED}),
        json!({"documentId": "order"}),
        json!({"documentId": format!("sha256:{hash}")}),
        json!({"extensions": by_hash}),
        json!({"query": LISTED, "extensions": by_hash}),
    ] {
        assert_eq!(ask(&api, body.clone()).await, Ok(json!("PLACED")), "{body}");
    }
    let get = format!("/graphql?documentId=order&variables=%7B%22id%22:%22{}%22%7D", order_id(1));
    let (status, response) = api.send(Request::get(get).body(Body::empty()).expect("a request")).await;
    assert_eq!((status, &response["data"]["order"]["status"]), (StatusCode::OK, &json!("PLACED")));

    let unlisted = "query Order($id: ID!) { order(id: $id) { status version } }";
    for (body, refused) in [
        (json!({"query": unlisted}), "200 OPERATION_NOT_ALLOWED"),
        (json!({"query": "{ __schema { types { name } } }"}), "200 OPERATION_NOT_ALLOWED"),
        (json!({"documentId": "other"}), "200 PERSISTED_QUERY_NOT_FOUND"),
        (json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0"}}}), "200 PERSISTED_QUERY_NOT_FOUND"),
        (json!({"query": LISTED, "documentId": "order"}), "400 BAD_REQUEST"),
        (json!({"extensions": {"persistedQuery": "order"}}), "400 BAD_REQUEST"),
    ] {
        assert_eq!(ask(&api, body.clone()).await, Err(refused.to_owned()), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_list_clients_are_told_to_send_the_query_itself() {
    let api = Api::start().await;
    for body in [json!({"documentId": "order"}), json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0"}}})] {
        assert_eq!(ask(&api, body).await, Err("200 PERSISTED_QUERY_NOT_SUPPORTED".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_told_is_told_by_no_fragment_either() {
    let api = Api::start_under(Policy { operations: Operations::any(), introspection: false }).await;
    for query in [
        "{ __schema { types { name } } }",
        "{ __type(name: \"Order\") { name } }",
        "{ ... on Query { __schema { types { name } } } }",
        "{ ...Hidden } fragment Hidden on Query { s: __schema { types { name } } }",
    ] {
        assert_eq!(api.error(query, json!({})).await.0, "INTROSPECTION_DISABLED", "{query}");
    }
    let data = api.data("{ __typename projections { __typename } }", json!({})).await;
    assert_eq!(data["__typename"], "Query");
}
