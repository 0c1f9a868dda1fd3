use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;

use crate::api::Api;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_and_needs_nothing_from_elsewhere() {
    let api = Api::start().await;
    let response = api.exchange(Request::get("/").body(Body::empty()).expect("a request")).await;
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let policy = response.headers()["content-security-policy"].to_str().expect("a text").to_owned();
    assert!(policy.starts_with("default-src 'none';") && policy.contains("connect-src 'self'"), "{policy}");
    let page = response.into_body().collect().await.expect("a body").to_bytes();
    let page = std::str::from_utf8(&page).expect("UTF-8");
    assert!(page.contains("<title>GraphiQL – Contrail</title>"));
    for foreign in ["http://", "https://", "src=\"//", "href=\"//", "@import", "<link"] {
        assert!(!page.contains(foreign), "the page mentions {foreign}");
    }
}

/// The page's example queries, each between backquotes after `query:`.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_on_the_page_is_a_query_of_this_schema() {
    let api = Api::start().await;
    let page = include_str!("../../assets/graphiql.html");
    let examples: Vec<_> = page.split("query: `").skip(1).map(|rest| rest.split('`').next().expect("an end")).collect();
    assert!(examples.len() >= 5, "{} examples", examples.len());
    for example in examples {
        let variables = serde_json::json!({"id": "x", "orderId": "x", "sku": "TEA-1", "position": "0"});
        api.data(example, variables).await;
    }
}
