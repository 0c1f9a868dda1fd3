//! graphql-transport-ws, word by word.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::api::Api;
use crate::live::{UPDATED, happen, reach};
use crate::rows::{insert_order, order_id, placed};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// Serves `api`, and returns its address.
pub(crate) async fn served(api: &Api) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let router = api.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

impl Client {
    pub(crate) async fn connect(address: &str, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let mut request = format!("ws://{address}/graphql/ws").into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        connect_async(request).await.map(|(socket, _)| Self { socket })
    }

    pub(crate) async fn open(address: &str) -> Self {
        let protocol = [("sec-websocket-protocol", "graphql-transport-ws")];
        Self::connect(address, &protocol).await.expect("a connection")
    }

    /// One that has been acknowledged.
    async fn start(address: &str) -> Self {
        let mut client = Self::open(address).await;
        client.say(&json!({"type": "connection_init", "payload": {}})).await;
        assert_eq!(client.hear().await, json!({"type": "connection_ack"}));
        client
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("it is sent");
    }

    pub(crate) async fn subscribe(&mut self, id: &str, query: &str, variables: Value) {
        self.say(&json!({"id": id, "type": "subscribe", "payload": {"query": query, "variables": variables}})).await;
    }

    async fn next(&mut self) -> Message {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a message in time").expect("a message");
            let message = message.expect("a whole message");
            if !message.is_ping() {
                return message;
            }
        }
    }

    pub(crate) async fn hear(&mut self) -> Value {
        let message = self.next().await;
        serde_json::from_str(message.to_text().expect("a text")).unwrap_or_else(|error| panic!("{error}: {message:?}"))
    }

    /// The code with which the connection is closed.
    pub(crate) async fn closed(&mut self) -> u16 {
        let message = self.next().await;
        let Message::Close(Some(frame)) = message else { panic!("not closed: {message:?}") };
        frame.code.into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_and_queries_share_a_connection() {
    let mut api = Api::start().await;
    happen(&mut api, 1, [1, 2, 3], 1).await;
    insert_order(&mut api.writer, &placed(1)).await;
    reach(&mut api, 1).await;
    let mut client = Client::start(&served(&api).await).await;
    client.subscribe("a", UPDATED, json!({"id": order_id(1)})).await;
    let next = client.hear().await;
    assert_eq!((&next["type"], &next["id"]), (&json!("next"), &json!("a")));
    assert_eq!(next["payload"]["data"]["orderUpdated"]["status"], "PLACED");

    client.subscribe("b", "{ order(id: \"x\") { status } }", json!({})).await;
    assert_eq!(client.hear().await, json!({"type": "next", "id": "b", "payload": {"data": {"order": null}}}));
    assert_eq!(client.hear().await, json!({"type": "complete", "id": "b"}));
    client.subscribe("c", "{ colour }", json!({})).await;
    let error = client.hear().await;
    assert_eq!((&error["type"], &error["id"]), (&json!("error"), &json!("c")));
    assert_eq!(error["payload"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED");
    client.subscribe("d", "subscription { orderUpdated(id: 7) { status } }", json!({})).await;
    let next = client.hear().await;
    assert_eq!(next["payload"]["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{next}");
    assert_eq!(client.hear().await, json!({"type": "complete", "id": "d"}));
    client.say(&json!({"type": "ping", "payload": {"n": 1}})).await;
    assert_eq!(client.hear().await, json!({"type": "pong", "payload": {"n": 1}}));

    // What a client has completed is over, and its id is free again.
    client.say(&json!({"type": "complete", "id": "a"})).await;
    client.subscribe("a", UPDATED, json!({"id": order_id(1)})).await;
    assert_eq!(client.hear().await["payload"]["data"]["orderUpdated"]["position"], "1");
    happen_more(&mut api).await;
    for position in ["2", "3"] {
        let next = client.hear().await;
        assert_eq!((&next["id"], &next["payload"]["data"]["orderUpdated"]["position"]), (&json!("a"), &json!(position)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_is_counted_until_it_is_closed() {
    let mut api = Api::start().await;
    happen(&mut api, 1, [1, 2, 3], 1).await;
    insert_order(&mut api.writer, &placed(1)).await;
    reach(&mut api, 1).await;
    let counted = |sockets: u32, subscriptions: u32, updates: u32| {
        let text = api.metrics.openmetrics();
        let has = |name: &str, value: u32| text.lines().any(|line| line.ends_with(&format!("graphql_{name} {value}")));
        has("sockets", sockets) && has("subscriptions", subscriptions) && has("subscription_updates_total", updates)
    };
    let until = async |sockets, subscriptions, updates| {
        let until = async {
            while !counted(sockets, subscriptions, updates) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, until).await.unwrap_or_else(|_| panic!("{}", api.metrics.openmetrics()));
    };
    until(0, 0, 0).await;
    let mut client = Client::start(&served(&api).await).await;
    client.subscribe("a", UPDATED, json!({"id": order_id(1)})).await;
    client.subscribe("b", UPDATED, json!({"id": order_id(2)})).await;
    assert_eq!(client.hear().await["id"], "a");
    until(1, 2, 1).await;
    client.say(&json!({"type": "complete", "id": "a"})).await;
    until(1, 1, 1).await;
    drop(client);
    until(0, 0, 1).await;
}

/// The rest of what [`happen`] lets happen.
async fn happen_more(api: &mut Api) {
    crate::live::happen_from(api, 1, [1, 2, 3], 1).await;
    reach(api, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_closes_the_connection_with_its_code() {
    let api = Api::start().await;
    let address = served(&api).await;
    let subscribe = json!({"id": "a", "type": "subscribe", "payload": {"query": UPDATED, "variables": {"id": order_id(1)}}});
    let init = json!({"type": "connection_init"});
    for (said, code) in [
        (vec![subscribe.clone()], 4401),
        (vec![init.clone(), init.clone()], 4429),
        (vec![init.clone(), subscribe.clone(), subscribe.clone()], 4409),
        (vec![init.clone(), json!({"type": "subscribe", "id": "a"})], 4400),
        (vec![init.clone(), json!({"type": "hello"})], 4400),
        (vec![json!("hello")], 4400),
    ] {
        let mut client = Client::open(&address).await;
        for message in &said {
            client.say(message).await;
        }
        if said[0] == init {
            assert_eq!(client.hear().await, json!({"type": "connection_ack"}));
        }
        assert_eq!(client.closed().await, code, "{said:?}");
    }
    let mut silent = Client::open(&address).await;
    assert_eq!(silent.closed().await, 4408, "it never says connection_init");
    let mut other = Client::connect(&address, &[]).await.expect("a connection");
    assert_eq!(other.closed().await, 4406, "it does not speak the protocol");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_and_requests_that_are_no_websocket_are_refused() {
    let api = Api::start().await;
    let address = served(&api).await;
    let protocol = ("sec-websocket-protocol", "graphql-transport-ws");
    let refused = Client::connect(&address, &[protocol, ("origin", "https://evil.example")]).await.err();
    assert!(matches!(&refused, Some(Error::Http(response)) if response.status() == 403), "{refused:?}");
    let own = format!("http://{address}");
    assert!(Client::connect(&address, &[protocol, ("origin", &own)]).await.is_ok());
    let request = axum::http::Request::get("/graphql/ws").body(axum::body::Body::empty()).expect("a request");
    let (status, body) = api.send(request).await;
    assert_eq!(status, 426);
    assert!(body["errors"][0]["message"].as_str().is_some_and(|message| message.contains("graphql-transport-ws")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_takes_so_many_operations_and_one_more_is_refused_alone() {
    let api = Api::start().await;
    let mut client = Client::start(&served(&api).await).await;
    for number in 0..=128 {
        client.subscribe(&number.to_string(), UPDATED, json!({"id": order_id(number)})).await;
    }
    let error = client.hear().await;
    assert_eq!((&error["type"], &error["id"]), (&json!("error"), &json!("128")));
    assert_eq!(error["payload"][0]["extensions"]["code"], "LIMIT_EXCEEDED");
}
