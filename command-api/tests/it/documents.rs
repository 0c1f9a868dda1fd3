use std::collections::BTreeSet;

use command_api::{openapi, problem::Code};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    contract,
    server::{Server, id_of},
};

const COMMITTED: &str = include_str!("../../openapi.json");

#[test]
fn the_committed_document_is_the_one_that_is_served() {
    let committed: Value = serde_json::from_str(COMMITTED).unwrap();
    assert!(committed == openapi::document(), "run: cargo run -p command-api -- openapi > command-api/openapi.json");
}

#[test]
fn every_reference_in_the_document_refers_to_something() {
    let document = openapi::document();
    let mut found = 0;
    for_each_reference(&document, &mut |reference| {
        found += 1;
        contract::resolve(&document, reference);
    });
    assert!(found > 100);
}

fn for_each_reference(value: &Value, each: &mut impl FnMut(&Value)) {
    match value {
        Value::Object(fields) => {
            if fields.get("$ref").is_some_and(Value::is_string) {
                each(value);
            }
            fields.values().for_each(|field| for_each_reference(field, each));
        }
        Value::Array(items) => items.iter().for_each(|item| for_each_reference(item, each)),
        _ => {}
    }
}

#[test]
fn the_document_has_every_route_and_every_problem() {
    let document = openapi::document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let operations: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect();
    let expected = [
        "get /docs",
        "get /health",
        "get /metrics",
        "get /openapi.json",
        "get /problems/{code}",
        "get /ready",
        "get /v1/orders/{id}",
        "get /v1/stock/{sku}",
        "post /v1/orders",
        "post /v1/orders/bulk",
        "post /v1/orders/{id}/cancel",
        "post /v1/orders/{id}/deliver",
        "post /v1/orders/{id}/ship",
        "post /v1/stock/{sku}/adjustments",
        "post /v1/stock/{sku}/receipts",
    ];
    assert_eq!(operations, expected.map(str::to_owned).into());
    let text = COMMITTED;
    // A method that is not documented has no answers, and only a line within an answer says that its client was idle.
    for code in Code::ALL.iter().filter(|code| !matches!(code, Code::MethodNotAllowed | Code::Idle)) {
        assert!(text.contains(&format!("\"$ref\": \"#/components/examples/{}\"", code.as_str())), "{code:?} occurs nowhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_a_request_is_accepted() {
    let server = Server::start().await;
    let document = openapi::document();
    let example = |path: &str| {
        let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let schema = contract::resolve(&document, schema);
        contract::validate(&document, schema, &schema["example"], path);
        schema["example"].clone()
    };
    let order = server.place_confirmed().await;
    for template in
        ["/v1/orders", "/v1/orders/{id}/ship", "/v1/orders/{id}/deliver", "/v1/stock/{sku}/receipts", "/v1/stock/{sku}/adjustments"]
    {
        let path = template.replace("{id}", id_of(&order)).replace("{sku}", "TEA-1");
        let answer = server.post(&path, &server.new_key(), &example(template)).await;
        assert!(answer.status.is_success(), "{template}: {answer:?}");
    }
    let import = document["paths"]["/v1/orders/bulk"]["post"]["requestBody"]["content"].as_object().unwrap();
    let items = &import["application/x-ndjson"]["schema"]["contentSchema"]["items"];
    let line = &document["components"]["schemas"]["BulkLine"]["example"];
    contract::validate(&document, items, line, "BulkLine");
    for (number, media_type) in import.keys().enumerate() {
        let answer = server.send(Method::POST, "/v1/orders/bulk", &[("content-type", media_type)], line.to_string()).await;
        assert_eq!((&answer.json()["status"], &answer.json()["replayed"]), (&json!(201), &json!(number > 0)), "{answer:?}");
    }
    let path = server.place().await;
    let answer = server.post(&format!("{path}/cancel"), "c", &example("/v1/orders/{id}/cancel")).await;
    assert!(answer.status.is_success(), "{answer:?}");
}

#[test]
fn every_example_of_an_answer_fits_its_schema() {
    let document = openapi::document();
    for name in ["OrderAnswer", "OrderState", "StockAnswer", "BulkResult"] {
        let schema = &document["components"]["schemas"][name];
        contract::validate(&document, schema, &schema["example"], name);
    }
    for (code, example) in document["components"]["examples"].as_object().unwrap() {
        contract::validate(&document, &document["components"]["schemas"]["Problem"], &example["value"], code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_are_served_and_load_nothing_from_elsewhere() {
    let server = Server::start().await;
    let served = server.get("/openapi.json").await;
    assert_eq!(served.header("content-type"), "application/json");
    assert_eq!(served.json(), openapi::document());

    let page = server.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    );
    let page = String::from_utf8(page.body).unwrap();
    for file in ["/docs/page.js", "/docs/page.css"] {
        assert!(page.contains(&format!("=\"{file}\"")));
        let text = reqwest::get(format!("{}{file}", server.url)).await.unwrap().text().await.unwrap();
        assert!(!text.contains("://"), "{file} names another host");
    }
    assert!(!page.contains("://"));
}
