//! Who may see what.

use std::num::NonZeroU32;
use std::time::Duration;

use auth::settings::RateLimits;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use local_stack::tokens::{AUDIENCE, Claims, ROLES, TokenIssuer};
use read_store::projections::ProjectionName;
use read_store::views::OrderView;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;

use crate::api::Api;
use crate::live::{Events, UPDATED, happen, happen_from, reach};
use crate::rows::{insert_order, insert_stock, order_id, placed};
use crate::socket::{Client, served};

const UNLIMITED: RateLimits = RateLimits { customer: None, staff: None };
const EVENTS: &str = "subscription ($id: ID!) { orderEvents(id: $id) { type data } }";
/// Long enough for what is not told to have been told.
const SILENCE: Duration = Duration::from_millis(500);

fn token(issuer: &TokenIssuer, role: &str, subject: &str) -> String {
    token_for(issuer, role, subject, Duration::from_secs(600))
}

fn token_for(issuer: &TokenIssuer, role: &str, subject: &str, lifetime: Duration) -> String {
    issuer.token(Claims { role, subject, audience: AUDIENCE, lifetime })
}

/// Order 1 is customer c-42's; it is placed, reserved and paid. There is stock of TEA-1.
async fn shop(issuer: &TokenIssuer, limits: RateLimits) -> Api {
    let mut api = Api::start_guarded(issuer, limits).await;
    happen(&mut api, 1, [1, 2, 3], 3).await;
    insert_order(&mut api.writer, &placed(1)).await;
    insert_stock(&mut api.writer, "TEA-1", 5, 2).await;
    reach(&mut api, 3).await;
    api.positions.reach(ProjectionName::Audit, 3, Duration::from_secs(10)).await.expect("it is known in time");
    api
}

/// `ok`, `null`, or the code of the error.
fn outcome(response: &Value, field: &str) -> String {
    match (response["errors"][0]["extensions"]["code"].as_str(), &response["data"][field]) {
        (Some(code), _) => code.to_owned(),
        (None, Value::Null) => "null".to_owned(),
        (None, Value::Object(connection)) if connection.get("edges") == Some(&json!([])) => "empty".to_owned(),
        (None, _) => "ok".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_nothing_is_answered() {
    let issuer = TokenIssuer::generate().expect("a key");
    let api = shop(&issuer, UNLIMITED).await;
    let stranger = TokenIssuer::generate().expect("another key");
    let claims = Claims { role: "auditor", subject: "a", audience: "another shop", lifetime: Duration::from_secs(60) };
    let bad = [
        ("expired", token_for(&issuer, "auditor", "a", Duration::ZERO)),
        ("for another audience", issuer.token(claims)),
        ("of a stranger", token(&stranger, "auditor", "a")),
        ("of no role", token(&issuer, "admin", "a")),
        ("not signed", format!("{}.", token(&issuer, "auditor", "a").rsplit_once('.').expect("three parts").0)),
        (
            "alg none",
            issuer
                .sign(&json!({"alg": "none"}), &json!({"sub": "a", "role": "auditor", "aud": AUDIENCE, "exp": 4_000_000_000_u64})),
        ),
    ];
    for (what, token) in bad {
        let (status, response) = api.ask_as(&token, "{ orders { edges { node { orderId } } } }", json!({})).await;
        assert_eq!((status, outcome(&response, "orders").as_str()), (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"), "{what}");
        assert_eq!(response.get("data"), None);
    }
    for (method, uri, accept) in [
        ("POST", "/graphql", "application/json"),
        ("GET", "/graphql?query=%7Bprojections%7Bname%7D%7D", "application/graphql-response+json"),
        ("POST", "/graphql", "text/event-stream"),
    ] {
        let request =
            Request::builder().method(method).uri(uri).header("accept", accept).header("content-type", "application/json");
        let response = api.exchange(request.body(Body::from("{\"query\": \"{ __typename }\"}")).expect("a request")).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {accept}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"contrail\"");
    }
    // The page holds nothing but an editor, in which one can enter one's token.
    let page = api.exchange(Request::get("/").body(Body::empty()).expect("a request")).await;
    assert_eq!(page.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_sees_what_is_its_own_to_see() {
    let issuer = TokenIssuer::generate().expect("a key");
    let api = shop(&issuer, UNLIMITED).await;
    let [customer, service, operator, auditor] = ROLES.map(|role| token(&issuer, role, "c-42"));
    let all = json!({"id": order_id(1)});
    let nodes = "{ orders { edges { node { id history { edges { node { id } } } } } } }";
    let (_, found) = api.ask_as(&auditor, nodes, json!({})).await;
    let order_node = found["data"]["orders"]["edges"][0]["node"].clone();
    let event_node = json!({"id": order_node["history"]["edges"][0]["node"]["id"]});
    let (_, stock) = api.ask_as(&auditor, "{ stockItem(sku: \"TEA-1\") { id } }", json!({})).await;
    let stock_node = json!({"id": stock["data"]["stockItem"]["id"]});
    let node = "query ($id: ID!) { node(id: $id) { id } }";
    let payload = "query ($id: ID!) { node(id: $id) { ... on AuditEvent { data } } }";
    // What each gets: customer, service, operator, auditor.
    let matrix = [
        ("order", "query ($id: ID!) { order(id: $id) { status customer { name } } }", &all, ["ok", "ok", "ok", "ok"]),
        ("order", "query ($id: ID!) { order(id: $id, asOfPosition: \"2\") { status } }", &all, ["ok", "ok", "ok", "ok"]),
        ("orders", "{ orders { edges { node { orderId } } } }", &all, ["ok", "ok", "ok", "ok"]),
        ("order", "query ($id: ID!) { order(id: $id) { history { edges { node { type } } } } }", &all, ["ok", "ok", "ok", "ok"]),
        (
            "order",
            "query ($id: ID!) { order(id: $id) { history { edges { node { data } } } } }",
            &all,
            ["ok", "ok", "FORBIDDEN", "ok"],
        ),
        ("stockItem", "{ stockItem(sku: \"TEA-1\") { onHand } }", &all, ["FORBIDDEN", "ok", "ok", "ok"]),
        ("stockItems", "{ stockItems { edges { node { sku } } } }", &all, ["FORBIDDEN", "ok", "ok", "ok"]),
        ("auditTrail", "{ auditTrail { edges { node { type } } } }", &all, ["FORBIDDEN", "FORBIDDEN", "ok", "ok"]),
        ("auditTrail", "{ auditTrail { edges { node { data } } } }", &all, ["FORBIDDEN", "FORBIDDEN", "FORBIDDEN", "ok"]),
        ("projections", "{ projections { name } }", &all, ["FORBIDDEN", "ok", "ok", "ok"]),
        ("node", node, &order_node, ["ok", "ok", "ok", "ok"]),
        ("node", node, &event_node, ["ok", "ok", "ok", "ok"]),
        ("node", payload, &event_node, ["ok", "ok", "FORBIDDEN", "ok"]),
        ("node", node, &stock_node, ["FORBIDDEN", "ok", "ok", "ok"]),
    ];
    for (field, query, variables, expected) in matrix {
        for (token, expected) in [&customer, &service, &operator, &auditor].into_iter().zip(expected) {
            let (status, response) = api.ask_as(token, query, variables.clone()).await;
            assert_eq!((status, outcome(&response, field).as_str()), (StatusCode::OK, expected), "{query}: {response}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_sees_nothing_of_anothers_order_by_any_way() {
    let issuer = TokenIssuer::generate().expect("a key");
    let mut api = shop(&issuer, UNLIMITED).await;
    let own = OrderView { customer: read_store::views::CustomerView { id: "c-1".to_owned(), ..placed(2).customer }, ..placed(2) };
    insert_order(&mut api.writer, &own).await;
    let auditor = token(&issuer, "auditor", "a");
    let customer = token(&issuer, "customer", "c-1");
    let (_, all) = api
        .ask_as(&auditor, "{ orders { edges { cursor node { id orderId history { edges { node { id } } } } } } }", json!({}))
        .await;
    let edges = all["data"]["orders"]["edges"].as_array().expect("edges");
    assert_eq!(edges.len(), 2);
    let anothers = edges.iter().find(|edge| edge["node"]["orderId"] == order_id(1)).expect("order 1");
    let (cursor, node_id) = (&anothers["cursor"], &anothers["node"]["id"]);
    let event_ids: Vec<_> =
        anothers["node"]["history"]["edges"].as_array().expect("edges").iter().map(|edge| &edge["node"]["id"]).collect();
    assert_eq!(event_ids.len(), 3);

    let order = "query ($id: ID!) { order(id: $id) { orderId } }";
    let node = "query ($id: ID!) { node(id: $id) { id } }";
    for (field, query, id) in [("order", order, &json!(order_id(1))), ("order", order, node_id), ("node", node, node_id)]
        .into_iter()
        .chain(event_ids.iter().map(|id| ("node", node, *id)))
    {
        let (_, response) = api.ask_as(&customer, query, json!({"id": id})).await;
        assert_eq!(outcome(&response, field), "null", "{query}: {response}");
    }
    for query in [
        "query ($id: ID!) { order(id: $id, asOf: \"2030-01-01T00:00:00Z\") { orderId } }",
        "query ($id: ID!) { order(id: $id, asOfPosition: \"3\") { orderId } }",
        "query ($id: ID!) { order(id: $id, minPosition: \"3\") { orderId } }",
    ] {
        let (_, response) = api.ask_as(&customer, query, json!({"id": order_id(1)})).await;
        assert_eq!(outcome(&response, "order"), "null", "{query}: {response}");
    }
    // Of all orders, in whichever way they are walked, there is one's own.
    for (query, variables) in [
        ("{ orders { edges { node { orderId } } } }", json!({})),
        ("{ orders(last: 5) { edges { node { orderId } } } }", json!({})),
        ("{ orders(filter: {status: [PLACED]}) { edges { node { orderId } } } }", json!({})),
        ("query ($at: String) { orders(first: 5, after: $at) { edges { node { orderId } } } }", json!({"at": cursor})),
        ("query ($at: String) { orders(last: 5, before: $at) { edges { node { orderId } } } }", json!({"at": cursor})),
        ("{ orders(filter: {customerId: \"c-42\"}) { edges { node { orderId } } } }", json!({})),
    ] {
        let (_, response) = api.ask_as(&customer, query, variables).await;
        let seen = response["data"]["orders"]["edges"].as_array().unwrap_or_else(|| panic!("{query}: {response}"));
        assert!(seen.iter().all(|edge| edge["node"]["orderId"] == order_id(2)), "{query}: {response}");
        assert_eq!(seen.is_empty(), query.contains("c-42") || query.contains("before"), "{query}: {response}");
    }

    // Subscriptions say nothing, as if the order were not placed yet; the customer whose order it is hears of it.
    let mut silent = [
        Events::as_caller(&api, &customer, UPDATED, json!({"id": order_id(1)})).await,
        Events::as_caller(&api, &customer, EVENTS, json!({"id": order_id(1)})).await,
        Events::as_caller(&api, &customer, EVENTS, json!({"id": order_id(3)})).await,
    ];
    let buyer = token(&issuer, "customer", "c-42");
    let mut told = Events::as_caller(&api, &buyer, EVENTS, json!({"id": order_id(3)})).await;
    happen_from(&mut api, 3, [4, 5, 6], 0).await;
    reach(&mut api, 6).await;
    for event_type in ["order.placed", "order.stock_reserved", "payment.captured"] {
        assert_eq!(told.data().await["orderEvents"]["type"], format!("contrail.{event_type}.v1"));
    }
    for events in &mut silent {
        assert!(timeout(SILENCE, events.next()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_for_those_who_say_who_they_are_and_for_as_long_as_they_may() {
    let issuer = TokenIssuer::generate().expect("a key");
    let api = shop(&issuer, UNLIMITED).await;
    let address = served(&api).await;
    for payload in [json!(null), json!({}), json!({"Authorization": "Bearer nothing"}), json!({"Authorization": 7})] {
        let mut client = Client::open(&address).await;
        client.say(&json!({"type": "connection_init", "payload": payload})).await;
        assert_eq!(client.closed().await, 4403, "{payload}");
    }
    let protocol = ("sec-websocket-protocol", "graphql-transport-ws");
    let refused = Client::connect(&address, &[protocol, ("authorization", "Bearer nothing")]).await;
    let Err(Error::Http(response)) = refused else { panic!("a connection of nobody") };
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);

    let bearer = |token: &str| format!("Bearer {token}");
    let customer = bearer(&token_for(&issuer, "customer", "c-42", Duration::from_secs(8)));
    let mut client = Client::open(&address).await;
    client.say(&json!({"type": "connection_init", "payload": {"authorization": customer}})).await;
    assert_eq!(client.hear().await, json!({"type": "connection_ack"}));
    client.subscribe("a", UPDATED, json!({"id": order_id(1)})).await;
    assert_eq!(client.hear().await["payload"]["data"]["orderUpdated"]["status"], "RESERVED");
    assert_eq!(client.closed().await, 4401, "when the token expires");

    let mut client =
        Client::connect(&address, &[protocol, ("authorization", &bearer(&token(&issuer, "auditor", "a")))]).await.expect("in");
    client.say(&json!({"type": "connection_init"})).await;
    assert_eq!(client.hear().await, json!({"type": "connection_ack"}));
    client.subscribe("a", "{ projections { name } }", json!({})).await;
    assert_eq!(client.hear().await["payload"]["data"]["projections"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_ask_again() {
    let issuer = TokenIssuer::generate().expect("a key");
    let api = shop(&issuer, RateLimits { customer: NonZeroU32::new(1), staff: None }).await;
    let customer = token(&issuer, "customer", "c-42");
    let mut refused = None;
    for _ in 0..1_000 {
        let request = Request::get("/graphql?query=%7B__typename%7D").header("authorization", format!("Bearer {customer}"));
        let response = api.exchange(request.body(Body::empty()).expect("a request")).await;
        if response.status() != StatusCode::OK {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("one request in a second is less than a thousand at once");
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().expect("a header"))
    );
    let (status, _) = api.ask_as(&token(&issuer, "customer", "c-1"), "{ __typename }", json!({})).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_has_so_many_subscriptions_and_sockets_and_leaves_the_rest_to_others() {
    let issuer = TokenIssuer::generate().expect("a key");
    let api = shop(&issuer, UNLIMITED).await;
    let address = served(&api).await;
    let connect = async |token: &str| {
        let mut client = Client::open(&address).await;
        client.say(&json!({"type": "connection_init", "payload": {"Authorization": format!("Bearer {token}")}})).await;
        client
    };
    let (greedy, modest) = (token(&issuer, "customer", "c-1"), token(&issuer, "customer", "c-2"));
    // Nobody's order, of which nothing is told.
    let silent = json!({"id": order_id(99)});
    let mut clients = Vec::new();
    for subscriptions in [100, 101] {
        let mut client = connect(&greedy).await;
        assert_eq!(client.hear().await["type"], "connection_ack");
        for number in 0..subscriptions {
            client.subscribe(&number.to_string(), UPDATED, silent.clone()).await;
        }
        if subscriptions == 100 {
            // Answered once all before it was heard.
            client.say(&json!({"type": "ping"})).await;
            assert_eq!(client.hear().await["type"], "pong");
        }
        clients.push(client);
    }
    let refused = clients[1].hear().await;
    assert_eq!((&refused["id"], &refused["payload"][0]["extensions"]["code"]), (&json!("100"), &json!("TOO_MANY_REQUESTS")));
    let by_events = async |token: &str| {
        let query = json!({"query": UPDATED, "variables": silent});
        let request = Request::post("/graphql").header("authorization", format!("Bearer {token}"));
        let request = request.header("accept", "text/event-stream").header("content-type", "application/json");
        api.exchange(request.body(Body::from(query.to_string())).expect("a request")).await
    };
    assert_eq!(by_events(&greedy).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(by_events(&modest).await.status(), StatusCode::OK);

    while clients.len() < 100 {
        let mut client = connect(&greedy).await;
        assert_eq!(client.hear().await["type"], "connection_ack");
        clients.push(client);
    }
    assert_eq!(connect(&greedy).await.closed().await, 4429);
    assert_eq!(connect(&modest).await.hear().await["type"], "connection_ack");

    clients.clear();
    let is_free = async {
        while by_events(&greedy).await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), is_free).await.expect("what is closed is not counted any more");
}
