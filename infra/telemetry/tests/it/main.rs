//! The operations routes and the drain, over real connections.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header::ACCEPT},
    response::Response,
    routing::get,
};
use http_body_util::BodyExt;
use telemetry::{drain::Drain, health::Health, http, metrics::Metrics};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(10);

async fn ask(router: &Router, path: &str, accept: &str) -> Response {
    let request = Request::get(path).header(ACCEPT, accept).body(Body::empty()).expect("a valid request");
    router.clone().oneshot(request).await.expect("a router never fails")
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(body.into()).expect("utf-8")
}

#[tokio::test]
async fn ready_follows_the_components_while_health_stays_alive() {
    let health = Health::new("test");
    let router = http::operations(health.clone(), Metrics::new("test"));
    let nats = health.component("nats");

    let response = ask(&router, "/ready", "*/*").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        text(response).await,
        r#"{"components":{"nats":{"detail":"starting","ready":false}},"draining":false,"ready":false}"#
    );

    nats.ready();
    assert_eq!(ask(&router, "/ready", "*/*").await.status(), StatusCode::OK);

    health.drain();
    let response = ask(&router, "/ready", "*/*").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(response).await.contains(r#""draining":true"#));

    let response = ask(&router, "/health", "*/*").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, r#"{"status":"alive"}"#);
}

#[tokio::test]
async fn metrics_come_in_the_format_that_the_scraper_accepts() {
    let router = http::operations(Health::new("test"), Metrics::new("test"));

    let plain = ask(&router, "/metrics", "*/*").await;
    assert_eq!(plain.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(!text(plain).await.contains("# EOF"));

    let open = ask(&router, "/metrics", "application/openmetrics-text").await;
    assert_eq!(open.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text(open).await.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_drain_refuses_new_connections_and_finishes_requests_in_flight() {
    let (entered, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (entered, finish) = (Arc::clone(&entered), Arc::clone(&finish));
        get(move || async move {
            entered.notify_one();
            finish.notified().await;
            "finished"
        })
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    let drain = Drain::manual();
    let server = tokio::spawn(http::serve(listener, Router::new().route("/slow", slow), drain.clone()));
    let mut idle = TcpStream::connect(address).await.expect("it listens");
    let mut client = TcpStream::connect(address).await.expect("it listens");
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it reads");
    entered.notified().await;

    drain.start();
    timeout(PATIENCE, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("new connections are refused");
    assert!(!server.is_finished(), "the request in flight holds the server");
    finish.notify_one();

    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.expect("an answer in time").expect("a whole answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("finished"), "{answer}");
    let served = timeout(PATIENCE, server).await.expect("it ends");
    served.expect("no panic").expect("no error");
    assert_eq!(idle.read(&mut [0; 1]).await.expect("closed in order"), 0, "idle connections are closed");
}
