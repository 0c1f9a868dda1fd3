use command_api::limits::PROBLEM_BYTES_MAX;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, order};

const JSON: (&str, &str) = ("content-type", "application/json");
const KEY: (&str, &str) = ("idempotency-key", "k");
const NO_ORDER: &str = "/v1/orders/3b0e4f6c-5d2a-5c1e-8f7b-0a9d8c7b6a50";

fn problem(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_route_is_404() {
    let server = Server::start().await;
    for path in ["/", "/v1", "/v1/orders/", "/v2/orders", "/problems/unheard-of", "/problems/%FF"] {
        assert_eq!(server.get(path).await.problem(), problem(404, "route-not-found"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_order_is_404() {
    let server = Server::start().await;
    assert_eq!(server.get(NO_ORDER).await.problem(), problem(404, "order-not-found"));
    for (action, body) in
        [("cancel", json!({"reason": "no"})), ("ship", json!({"carrier": "DHL", "tracking_number": "JD1"})), ("deliver", json!({}))]
    {
        let answer = server.post(&format!("{NO_ORDER}/{action}"), "k", &body).await;
        assert_eq!(answer.problem(), problem(404, "order-not-found"), "{action}");
    }
    assert_eq!(server.store.head().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_is_405_and_says_which_are_allowed() {
    let server = Server::start().await;
    for (method, path, allowed) in [
        (Method::GET, "/v1/orders", "POST"),
        (Method::DELETE, NO_ORDER, "GET,HEAD"),
        (Method::PUT, "/v1/stock/TEA-1/receipts", "POST"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::POST, "/openapi.json", "GET,HEAD"),
    ] {
        let answer = server.send(method.clone(), path, &[], "").await;
        assert_eq!(answer.problem(), problem(405, "method-not-allowed"), "{method} {path}");
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_no_id_is_400() {
    let server = Server::start().await;
    let upper_case = NO_ORDER.to_uppercase().replace("/V1/ORDERS", "/v1/orders");
    for path in ["/v1/orders/1", "/v1/orders/%FF", upper_case.as_str()] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.problem(), answer.errors()),
            (problem(400, "invalid-parameter"), vec!["id wrong-format".to_owned()]),
            "{path}"
        );
    }
    for path in ["/v1/stock/a.b", "/v1/stock/%3E", "/v1/stock/a%20b", &format!("/v1/stock/{}", "x".repeat(65))] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.problem(), answer.errors()),
            (problem(400, "invalid-parameter"), vec!["sku wrong-format".to_owned()]),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_good_key_is_400() {
    let server = Server::start().await;
    let too_long = "k".repeat(256);
    for key in ["", "\"\"", "a b", "\"a", too_long.as_str()] {
        let answer = server.post_with("/v1/orders", &[("idempotency-key", key)], &order()).await;
        assert_eq!(answer.problem(), problem(400, "invalid-header"), "{key:?}");
    }
    for path in ["/v1/orders", &format!("{NO_ORDER}/deliver"), "/v1/stock/TEA-1/receipts", "/v1/stock/TEA-1/adjustments"] {
        let answer = server.post_with(path, &[], &order()).await;
        assert_eq!(answer.problem(), problem(400, "invalid-header"), "{path}");
        assert_eq!(answer.errors(), ["Idempotency-Key missing"], "{path}");
    }
    let twice = server.post_with("/v1/orders", &[KEY, KEY], &order()).await;
    assert_eq!(twice.problem(), problem(400, "invalid-header"));
    let both = server.post_with("/v1/stock/TEA-1/receipts", &[("if-match", "1")], &json!({})).await;
    assert_eq!(both.errors(), ["Idempotency-Key missing", "If-Match wrong-format"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_is_400_with_line_and_column() {
    let server = Server::start().await;
    let answer = server.send(Method::POST, "/v1/orders", &[JSON, KEY], "{\n  \"customer\": }").await;
    assert_eq!(answer.problem(), problem(400, "invalid-json"));
    let error = &answer.json()["errors"][0];
    assert_eq!((&error["line"], &error["column"], &error["code"]), (&json!(2), &json!(15), &json!("syntax")));

    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for body in [Vec::new(), b"{".to_vec(), b"{} {}".to_vec(), b"{\"a\":\"\xFF\"}".to_vec(), b"NaN".to_vec(), deep.into_bytes()] {
        let answer = server.send(Method::POST, "/v1/orders", &[JSON, KEY], body.clone()).await;
        assert_eq!(answer.problem(), problem(400, "invalid-json"), "{:?}", String::from_utf8_lossy(&body[..body.len().min(20)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_type_is_415() {
    let server = Server::start().await;
    for content_type in ["text/plain", "application/xml", "application/jsonp", "application/json; charset=latin1", ""] {
        let headers = [("content-type", content_type), KEY];
        let answer = server.send(Method::POST, "/v1/orders", &headers, order().to_string()).await;
        assert_eq!(answer.problem(), problem(415, "unsupported-media-type"), "{content_type}");
    }
    assert_eq!(server.send(Method::POST, "/v1/orders", &[KEY], order().to_string()).await.status, 415);
    let good = [("content-type", "Application/JSON; charset=\"UTF-8\""), KEY];
    assert_eq!(server.send(Method::POST, "/v1/orders", &good, order().to_string()).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_is_413() {
    let server = Server::start().await;
    let mut padded = order().to_string();
    padded.push_str(&" ".repeat(256 * 1024 - padded.len()));
    assert_eq!(server.send(Method::POST, "/v1/orders", &[JSON, KEY], padded.clone()).await.status, 201, "just short enough");
    padded.push(' ');
    assert_eq!(server.send(Method::POST, "/v1/orders", &[JSON, KEY], padded).await.problem(), problem(413, "content-too-large"));
    // So long that the client is still sending when it is refused.
    let answer = server.send(Method::POST, "/v1/orders", &[JSON, KEY], vec![b' '; 3 * 1024 * 1024]).await;
    assert_eq!(answer.problem(), problem(413, "content-too-large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_paths_that_are_too_long_are_431_and_414() {
    let server = Server::start().await;
    let long = "x".repeat(17 * 1024);
    let answer = server.send(Method::GET, NO_ORDER, &[("x-padding", &long)], "").await;
    assert_eq!(answer.problem(), problem(431, "headers-too-large"));
    let answer = server.get(&format!("{NO_ORDER}?{}", "x".repeat(5_000))).await;
    assert_eq!(answer.problem(), problem(414, "uri-too-long"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_of_a_body_is_listed_at_once() {
    let server = Server::start().await;
    let body = json!({
        "customer": {"id": "has spaces", "email": "nobody", "nickname": "B"},
        "currency": "eur",
        "lines": [
            {"sku": "a.b", "quantity": 0, "unit_price_minor": -1},
            {"sku": "TEA-1", "quantity": "2", "unit_price_minor": 1.5},
            "TEA-1",
            {"sku": null, "quantity": 1e20, "unit_price_minor": 1, "colour": "green"},
        ],
        "payment_method": "  ",
        "a/b~c": true,
    });
    let answer = server.post("/v1/orders", "k", &body).await;
    assert_eq!(answer.problem(), problem(422, "invalid-fields"));
    let mut errors = answer.errors();
    errors.sort();
    let expected = [
        "/a~1b~0c unknown-field",
        "/currency wrong-format",
        "/customer/email wrong-format",
        "/customer/id wrong-format",
        "/customer/name missing",
        "/customer/nickname unknown-field",
        "/lines/0/quantity out-of-range",
        "/lines/0/sku wrong-format",
        "/lines/0/unit_price_minor out-of-range",
        "/lines/1/quantity wrong-type",
        "/lines/1/unit_price_minor wrong-type",
        "/lines/2 wrong-type",
        "/lines/3/colour unknown-field",
        "/lines/3/quantity out-of-range",
        "/lines/3/sku wrong-type",
        "/payment_method wrong-format",
    ];
    assert_eq!(errors, expected);
    assert_eq!(answer.json()["detail"], "16 mistakes; all are listed in errors");
    assert_eq!(server.store.head().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mistake_is_told_in_the_detail() {
    let server = Server::start().await;
    let changed = |pointer: &str, value: Value| {
        let mut body = order();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let many_lines = json!(vec![order()["lines"][0].clone(); 101]);
    let cheap_lines = json!([{"sku": "TEA-1", "quantity": 1, "unit_price_minor": 0}]);
    let dear_lines = json!(vec![json!({"sku": "TEA-1", "quantity": 1_000_000, "unit_price_minor": 1_000_000_000}); 100]);
    for (body, detail) in [
        (json!([]), "the body: must be an object, not a list"),
        (changed("/lines", json!([])), "/lines: must have 1 to 100 items, and has 0"),
        (changed("/lines", many_lines), "/lines: must have 1 to 100 items, and has 101"),
        (changed("/lines", cheap_lines), "/lines: must add up to 1 to 99999999999 minor units"),
        (changed("/lines", dear_lines), "/lines: must add up to 1 to 99999999999 minor units"),
        (changed("/lines/0/quantity", json!(1_000_001)), "/lines/0/quantity: must be 1 to 1000000"),
        (changed("/lines/0/quantity", json!(2.5)), "/lines/0/quantity: must be a whole number"),
        (changed("/customer/name", json!("a\u{0}b")), "/customer/name: must not hold control characters"),
        (changed("/customer/name", json!("é".repeat(501))), "/customer/name: must be 1 to 500 characters long, and has 501"),
        (changed("/currency", json!("XXX")), "/currency: \"XXX\" is not an ISO 4217 currency code such as \"EUR\""),
    ] {
        let answer = server.post("/v1/orders", "k", &body).await;
        assert_eq!(answer.problem(), problem(422, "invalid-fields"), "{detail}");
        assert_eq!(answer.json()["detail"], detail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_there_twice_is_refused() {
    let server = Server::start().await;
    let body = order().to_string().replace("\"quantity\":2", "\"quantity\":1,\"quantity\":2");
    let answer = server.send(Method::POST, "/v1/orders", &[JSON, KEY], body.clone()).await;
    assert_eq!(answer.problem(), problem(422, "invalid-fields"));
    assert_eq!(answer.json()["detail"], "/lines/0/quantity: is there more than once");
    assert_eq!(answer.errors(), ["/lines/0/quantity repeated-field"]);
    let line = format!("{{\"idempotency_key\":\"k\",\"order\":{body}}}");
    let answer = server.send(Method::POST, "/v1/orders/bulk", &[("content-type", "application/x-ndjson")], line).await;
    assert_eq!(answer.json()["problem"]["errors"][0]["pointer"], "/order/lines/0/quantity");
    assert_eq!(server.store.head().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_commands_check_their_fields_too() {
    let server = Server::start().await;
    let path = server.place().await;
    for (path, body, errors) in [
        (format!("{path}/cancel"), json!({"reason": ""}), vec!["/reason out-of-range"]),
        (format!("{path}/cancel"), json!({"reason": "x".repeat(501)}), vec!["/reason out-of-range"]),
        (format!("{path}/ship"), json!({"tracking_number": 7}), vec!["/carrier missing", "/tracking_number wrong-type"]),
        (format!("{path}/deliver"), json!({"when": "now"}), vec!["/when unknown-field"]),
        ("/v1/stock/T/receipts".to_owned(), json!({"quantity": 0}), vec!["/quantity out-of-range", "/reference missing"]),
        (
            "/v1/stock/T/adjustments".to_owned(),
            json!({"delta": 0, "reason": "\n", "reference": "x"}),
            vec!["/delta out-of-range", "/reason wrong-format"],
        ),
    ] {
        let answer = server.post(&path, "k", &body).await;
        assert_eq!(answer.problem(), problem(422, "invalid-fields"), "{path}");
        assert_eq!(answer.errors(), errors, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_mistakes_is_counted_but_not_listed() {
    let server = Server::start().await;
    let fields = (0..5_000).map(|number| (format!("field-{number}"), json!(1)));
    let answer = server.post("/v1/orders", "k", &Value::Object(fields.collect())).await;
    assert_eq!(answer.problem(), problem(422, "invalid-fields"));
    assert_eq!(answer.errors().len(), 100);
    assert_eq!(answer.json()["detail"], "5004 mistakes; the first 100 are listed in errors");
}

/// Bodies of nearly 256 KiB that are made to be answered at length.
pub(crate) fn hostile_bodies() -> Vec<Value> {
    let long = 40_000;
    let names = ["~", "/", "\u{0}", "\u{10FFFF}", "\""].map(|char| char.repeat(long));
    let one_long_name = names.iter().map(|name| json!({name: 1}));
    let many_names = (0..400).map(|number| (format!("{number}{}", "\u{0}".repeat(80)), json!(1)));
    let long_values =
        json!({"customer": {"id": "\u{0}".repeat(long / 4)}, "currency": "/".repeat(long), "payment_method": "~".repeat(long)});
    let lines = json!({"lines": vec![json!({"sku": "\u{7f}".repeat(2_000)}); 100]});
    one_long_name.chain([Value::Object(many_names.collect()), long_values, lines]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_a_problem_is_short() {
    let server = Server::start().await;
    for body in hostile_bodies() {
        let answer = server.post("/v1/orders", "k", &body).await;
        assert_eq!(answer.problem(), problem(422, "invalid-fields"));
        assert!(answer.body.len() <= PROBLEM_BYTES_MAX, "{} bytes for {}", answer.body.len(), &body.to_string()[..100]);
    }
    let path = format!("/{}", "x".repeat(4_000));
    assert!(server.get(&path).await.body.len() < 500);
    let method = Method::from_bytes("X".repeat(4_000).as_bytes()).unwrap();
    assert!(server.send(method, "/v1/orders", &[], "").await.body.len() < 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_name_the_beginning_is_repeated() {
    let server = Server::start().await;
    let mut body = order();
    body["~".repeat(262_000 / 2)] = json!(1);
    let answer = server.post("/v1/orders", "k", &body).await;
    assert_eq!(answer.errors(), [format!("/{}… unknown-field", "~0".repeat(80))]);
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("/~0~0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_explains_itself() {
    let server = Server::start().await;
    for code in command_api::problem::Code::ALL {
        let answer = server.get(&format!("/problems/{}", code.as_str())).await;
        assert_eq!(answer.status, 200);
        assert!(String::from_utf8(answer.body).unwrap().contains(code.explanation()));
    }
}
