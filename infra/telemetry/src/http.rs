//! The operations routes, and serving HTTP until the drain.

mod connections;
mod stalling;

use std::{io, time::Duration};

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Version,
        header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{net::TcpListener, time::sleep};
use tracing::info;

use self::connections::Connections;
use crate::{
    drain::{DRAIN_DEADLINE, Drain},
    health::Health,
    metrics::Metrics,
    process,
    trace::{self, Span, TRACEPARENT, TraceContext},
};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes that every service has:
///
/// - `GET /health`: 200 as long as the process answers at all;
/// - `GET /ready`: 200 if it can serve, else 503; the body names every component and its condition;
/// - `GET /metrics`: OpenMetrics if the `Accept` header prefers it, else the Prometheus text format. To what is registered it adds what every
///   process says of itself, so it is to be called once in a process.
pub fn operations(health: Health, metrics: Metrics) -> Router {
    process::tell(&health, &metrics);
    Router::new()
        .route("/health", get(alive))
        .route("/ready", get(ready))
        .with_state(health)
        .merge(Router::new().route("/metrics", get(scrape)).with_state(metrics))
}

/// A layer that records each request as an operation of the trace that its `traceparent` names, or of a new one, by the conventions for HTTP
/// servers.
pub async fn traced(request: Request, next: Next) -> Response {
    let parent = request.headers().get(TRACEPARENT).and_then(|value| TraceContext::parse(value.to_str().ok()?));
    let mut span = Span::server("request", parent);
    if span.is_recorded() {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
        span.rename(format_args!("{} {route}", request.method()));
        span.set("http.request.method", request.method().to_string());
        span.set("http.route", route);
    }
    let response = trace::within(span.context(), next.run(request)).await;
    span.set("http.response.status_code", i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        span.fail(response.status());
    }
    response
}

/// Serves until the drain starts, then stops accepting, lets the requests in flight finish and returns. Their answers over HTTP/1 say that their
/// connections close, so that nobody sends another request into one. A connection that has begun no request, or whose client has read
/// nothing of its answer for 5 s, is not waited for.
///
/// There are at most 16,384 connections, and at most three quarters of the files that the process may have open; more wait. One ends that has
/// begun its first request and not sent it within 10 s, has none for 120 s, or leaves an answer unread for 60 s.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`] if requests are still in work [`DRAIN_DEADLINE`] after the drain has started; they
/// end with the runtime.
pub async fn serve(listener: TcpListener, router: Router, drain: Drain) -> io::Result<()> {
    let ending = drain.clone();
    serve_with_deadline(listener, router, drain, async move { ending.started().await }, DRAIN_DEADLINE).await
}

/// As [`serve`], but goes on accepting and answering for `linger` after the drain has started.
///
/// A balancer learns only after a while that an instance is not ready any more, and sends it requests until then: they are answered, and not
/// refused as a closed port would. Meanwhile every answer over HTTP/1 closes its connection, so that the next request goes elsewhere.
pub async fn serve_and_linger(listener: TcpListener, router: Router, drain: Drain, linger: Duration) -> io::Result<()> {
    let ending = {
        let drain = drain.clone();
        async move {
            drain.started().await;
            sleep(linger).await;
        }
    };
    serve_with_deadline(listener, router, drain, ending, DRAIN_DEADLINE).await
}

async fn close_while_draining(State(drain): State<Drain>, request: Request, next: Next) -> Response {
    let version = request.version();
    let mut response = next.run(request).await;
    if drain.is_started() && version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn serve_with_deadline(
    mut listener: TcpListener,
    router: Router,
    drain: Drain,
    ending: impl Future<Output = ()> + Send + 'static,
    deadline: Duration,
) -> io::Result<()> {
    if let Ok(listen_addr) = listener.local_addr() {
        info!(%listen_addr, "listening on http://{listen_addr}");
    }
    let router = router.layer(middleware::from_fn_with_state(drain.clone(), close_while_draining));
    let mut connections = Connections::new(router);
    let served = async {
        tokio::select! {
            () = connections.accept(&mut listener) => {}
            () = ending => {}
        }
        // Nobody is let in any more.
        drop(listener);
        connections.end().await;
    };
    let overdue = async {
        drain.started().await;
        sleep(deadline).await;
    };
    tokio::select! {
        () = served => return Ok(()),
        () = overdue => {}
    }
    connections::overdue(&connections, deadline)
}

async fn alive() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(json!({"status": "alive"})))
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    let (ready, body) = health.report();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CACHE_CONTROL, "no-store")], Json(body))
}

async fn scrape(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    if prefers_openmetrics(&headers) {
        ([(CONTENT_TYPE, OPENMETRICS)], metrics.openmetrics()).into_response()
    } else {
        ([(CONTENT_TYPE, PLAIN_TEXT)], metrics.plain_text()).into_response()
    }
}

/// Whether the `Accept` header (RFC 9110, section 12.5.1) names OpenMetrics and does not weigh plain text higher.
/// Wildcards mean plain text, because that is what a person with curl wants to see.
fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    let mut openmetrics = 0.0_f32;
    let mut plain = 0.0_f32;
    let ranges = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let quality =
            parts.find_map(|parameter| parameter.strip_prefix("q=")).map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        if media.eq_ignore_ascii_case("application/openmetrics-text") {
            openmetrics = openmetrics.max(quality);
        } else if media.eq_ignore_ascii_case("text/plain") {
            plain = plain.max(quality);
        }
    }
    openmetrics > 0.0 && openmetrics >= plain
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::pending,
        net::SocketAddr,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use axum::body::{Body, Bytes};
    use http_body::{Body as HttpBody, Frame};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::Notify,
        time::Instant,
    };

    use super::*;

    fn accepting(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, value.parse().expect("a header value"))])
    }

    #[test]
    fn openmetrics_only_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert!(prefers_openmetrics(&accepting(prometheus)));
        assert!(prefers_openmetrics(&accepting("application/openmetrics-text")));
        assert!(!prefers_openmetrics(&HeaderMap::new()));
        assert!(!prefers_openmetrics(&accepting("*/*")));
        assert!(!prefers_openmetrics(&accepting("application/openmetrics-text;q=0")));
        assert!(!prefers_openmetrics(&accepting("text/plain, application/openmetrics-text;q=0.5")));
    }

    #[tokio::test]
    async fn a_request_that_never_ends_cannot_hold_up_the_drain() {
        let entered = Arc::new(Notify::new());
        let signal = Arc::clone(&entered);
        let stuck = get(move || async move {
            signal.notify_one();
            pending::<()>().await;
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let drain = Drain::manual();
        let (router, ending) = (Router::new().route("/", stuck), drain.clone());
        let ending = async move { ending.started().await };
        let server = tokio::spawn(serve_with_deadline(listener, router, drain.clone(), ending, Duration::from_millis(20)));
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it reads");
        entered.notified().await;

        drain.start();

        let error = server.await.expect("no panic").expect_err("it was cut short");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// An answer that is made for as long as it is read.
    struct Endless;

    impl HttpBody for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1 << 12])))))
        }
    }

    /// A server that answers `/` with a megabyte, which no socket takes at once.
    async fn serving(drain: &Drain) -> (SocketAddr, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let router =
            Router::new().route("/", get(async || "x".repeat(1 << 20))).route("/endless", get(async || Body::new(Endless)));
        (address, tokio::spawn(serve(listener, router, drain.clone())))
    }

    #[tokio::test]
    async fn who_has_asked_for_nothing_or_reads_no_answer_cannot_hold_up_the_drain() {
        let drain = Drain::manual();
        let (address, server) = serving(&drain).await;
        let mut clients = Vec::new();
        let endless = "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n";
        for said in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\n", endless, &"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200)] {
            let mut client = TcpStream::connect(address).await.expect("it listens");
            client.write_all(said.as_bytes()).await.expect("it reads");
            clients.push(client);
        }
        // The answers of the last two are being written.
        clients[3].readable().await.expect("it answers");
        clients[4].readable().await.expect("it answers");
        let began = Instant::now();

        drain.start();

        server.await.expect("no panic").expect("nothing is in work");
        assert!(began.elapsed() < DRAIN_DEADLINE / 2, "it took {:?}", began.elapsed());
        drop(clients);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_listened_to_for_long() {
        let (address, server) = serving(&Drain::manual()).await;
        for (said, seconds) in [("", 120), ("GET / HTTP/1.1\r\nHost: x\r\n", 10)] {
            let mut client = TcpStream::connect(address).await.expect("it listens");
            client.write_all(said.as_bytes()).await.expect("it reads");
            let began = Instant::now();
            assert_eq!(client.read(&mut [0; 64]).await.expect("it is closed in order"), 0);
            let took = began.elapsed().as_secs();
            assert!((seconds..seconds + 20).contains(&took), "{said:?}: {took} s");
        }
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_the_answer_is_cut_off() {
        let (address, server) = serving(&Drain::manual()).await;
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20).as_bytes()).await.expect("it reads");
        sleep(Duration::from_mins(5)).await;
        let mut answers = Vec::new();
        // Cut off in the middle, with or without a reset.
        let _ = client.read_to_end(&mut answers).await;
        assert!(answers.len() < 20 << 20, "all {} bytes were sent", answers.len());
        server.abort();
    }

    async fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
        let mut client = TcpStream::connect(address).await?;
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_lingering_server_answers_and_each_answer_closes_its_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let (drain, health) = (Drain::manual(), Health::new("test"));
        health.drain_with(&drain);
        let router = operations(health, Metrics::new("test")).route("/", get(async || "tea"));
        let server = tokio::spawn(serve_and_linger(listener, router, drain.clone(), Duration::from_secs(2)));

        drain.start();
        let answer = ask(address, "/").await.expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("tea"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        let answer = ask(address, "/ready").await.expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");

        server.await.expect("no panic").expect("it has ended well");
        assert!(ask(address, "/").await.is_err(), "nobody listens any more");
    }
}
