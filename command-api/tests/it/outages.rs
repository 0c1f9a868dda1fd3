use std::{io, time::Duration};

use command_api::limits::Limits;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::server::{PATIENCE, Server, eventually, order};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_is_away_commands_are_503_and_afterwards_they_work() {
    let mut server = Server::start().await;
    let path = server.place().await;
    eventually("readiness", async || server.get("/ready").await.status == 200).await;

    server.kill_nats();
    eventually("unreadiness", async || server.get("/ready").await.status == 503).await;
    let started = Instant::now();
    for answer in [server.post("/v1/orders", "k", &order()).await, server.get(&path).await] {
        assert_eq!(answer.problem(), (503, "unavailable".to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "nobody waited for a log that is known to be away");
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.post("/v1/orders", "k", &json!({})).await.status, 422, "what is wrong is wrong without a log, too");

    server.start_nats_again();
    eventually("recovery", async || server.post("/v1/orders", "k", &order()).await.status == 201).await;
    eventually("readiness", async || server.get("/ready").await.status == 200).await;
    assert_eq!(server.get(&path).await.status, 200, "what was acknowledged before is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_dies_under_a_request_leaves_no_doubt_after_the_retry() {
    let mut server = Server::start().await;
    let order = order();
    for round in 0..3 {
        let key = format!("round-{round}");
        let (url, body) = (format!("{}/v1/orders", server.url), order.to_string());
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        let request =
            client.post(url).header("content-type", "application/json").header("idempotency-key", key.as_str()).body(body);
        let first = tokio::spawn(request.send());
        server.kill_nats();
        server.start_nats_again();
        let first = first.await.unwrap().unwrap();
        assert!(matches!(first.status().as_u16(), 201 | 503), "{first:?}");
        eventually("the retry", async || server.post("/v1/orders", &key, &order).await.status == StatusCode::CREATED).await;
        assert_eq!(server.store.head().await.unwrap(), round + 1, "one order per key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_stream_the_service_is_alive_and_not_ready() {
    let server = Server::start_without_log(Limits::default()).await;
    let says = async |text: &str| {
        let ready = server.send(Method::GET, "/ready", &[], "").await;
        (ready.status, ready.json()["components"]["nats"]["detail"].as_str().unwrap().contains(text))
    };
    eventually("the reason", async || says("projectors migrate").await == (StatusCode::SERVICE_UNAVAILABLE, true)).await;
    assert_eq!(server.get("/health").await.status, 200);
    let answer = server.post("/v1/orders", "k", &order()).await;
    assert_eq!(answer.status, 503);

    server.set_up_log().await;
    eventually("readiness", async || says("").await == (StatusCode::OK, true)).await;
    assert_eq!(server.post("/v1/orders", "k", &order()).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_is_503_not_a_hang() {
    let limits = Limits { request_deadline: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start_with(limits).await;
    // A body that never arrives.
    let mut connection = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    connection
        .write_all(b"POST /v1/orders HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        .await
        .unwrap();
    let answer = read_to_end(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n") && answer.contains("deadline-exceeded"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_too_many_is_503_while_operations_are_answered() {
    let limits = Limits { requests_in_flight_max: 1, ..Limits::default() };
    let mut server = Server::start_with(limits).await;
    let path = "/v1/stock/TEA-1";
    tokio::task::block_in_place(|| server.nats.freeze());
    let mut waiting = connect(&server).await;
    waiting.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    eventually("it to be in flight", async || server.metrics().await.contains("http_requests_in_flight 1")).await;

    assert_eq!(server.get(path).await.problem(), (503, "overloaded".to_owned()));
    assert_eq!(server.get(path).await.header("retry-after"), "1");
    assert_eq!(server.get("/health").await.status, 200);
    tokio::task::block_in_place(|| server.nats.thaw());
    assert!(read_to_end(&mut waiting).await.starts_with("HTTP/1.1 404 "));
    eventually("the door to open", async || server.get(path).await.status == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_slowly_is_in_nobodys_way() {
    let limits = Limits { requests_in_flight_max: 1, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut connection = connect(&server).await;
        connection.write_all(post_head(2).as_bytes()).await.unwrap();
        // The server asks for the body, so it has got as far as a request does whose body does not come.
        let mut interim = [0; 25];
        connection.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        slow.push(connection);
    }
    assert_eq!(server.post("/v1/orders", "k", &order()).await.status, 201);
    for mut connection in slow {
        connection.write_all(b"{}").await.unwrap();
        assert!(read_to_end(&mut connection).await.starts_with("HTTP/1.1 422 "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_an_import_slowly_that_is_refused_is_in_nobodys_way() {
    let limits = Limits { requests_in_flight_max: 1, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let mut slow = connect(&server).await;
    let head = "POST /v1/orders/bulk HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/plain\r\nexpect: 100-continue\r\n\
                content-length: 9\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    slow.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    // What it sends is thrown away, so that it gets to read the answer.
    assert_eq!(server.post("/v1/orders", "k", &order()).await.status, 201);
    assert!(read_to_end(&mut slow).await.starts_with("HTTP/1.1 415 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_being_restored_takes_no_commands() {
    let server = Server::start().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.nats.url()).await.unwrap());
    let mark = async |is_restoring: bool| {
        let mut config = jetstream.get_stream("EVENTS").await.unwrap().cached_info().config.clone();
        config.metadata.remove("contrail-restoring");
        config.metadata.extend(is_restoring.then(|| ("contrail-restoring".to_owned(), "true".to_owned())));
        jetstream.update_stream(config).await.unwrap();
    };
    assert_eq!(server.post("/v1/orders", "before", &order()).await.status, 201);
    eventually("readiness", async || server.get("/ready").await.status == 200).await;
    mark(true).await;
    eventually("it is noticed", async || server.get("/ready").await.status == 503).await;
    let refused = server.post("/v1/orders", "meanwhile", &order()).await;
    assert_eq!(refused.problem(), (503, "unavailable".to_owned()));
    mark(false).await;
    eventually("it is the log again", async || server.post("/v1/orders", "after", &order()).await.status == 201).await;
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// The head of a command whose body is sent once the server asks for it.
fn post_head(content_length: usize) -> String {
    format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\nidempotency-key: slow\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {content_length}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_in_flight_and_then_ends() {
    let server = Server::start().await;
    let mut in_flight = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    let body = order().to_string();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    in_flight.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body, so the request is in flight.
    let mut interim = [0; 25];
    in_flight.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");

    server.drain.start();
    in_flight.write_all(body.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut in_flight).await;
    assert!(answer.starts_with("HTTP/1.1 201 ") && answer.contains("connection: close"), "{answer}");
    server.serving.await.unwrap().unwrap();
    let refused = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await;
    assert_eq!(refused.map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionRefused));
}

async fn read_to_end(connection: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        // Either the server closes the connection, or the problem is whole.
        while !answer.ends_with(b"}") {
            match connection.read(&mut buffer).await.unwrap() {
                0 => break,
                length => answer.extend_from_slice(&buffer[..length]),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer");
    String::from_utf8(answer).unwrap()
}
