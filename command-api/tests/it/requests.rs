use reqwest::Method;

use crate::server::{Server, order};

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_name_comes_back() {
    let server = Server::start().await;
    let answer = server.send(Method::GET, "/health", &[("x-request-id", "r-1")], "").await;
    assert_eq!(answer.header("x-request-id"), "r-1");
    for bad in ["has spaces", "", &"x".repeat(129)] {
        let answer = server.send(Method::GET, "/health", &[("x-request-id", bad)], "").await;
        assert_ne!(answer.header("x-request-id"), bad, "it is replaced");
    }
    assert_ne!(server.get("/health").await.header("x-request-id"), server.get("/health").await.header("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_is_found_by_the_callers_trace() {
    let server = Server::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let good = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = server.send(Method::GET, "/nowhere", &[("traceparent", &good)], "").await;
    assert_eq!(answer.json()["trace_id"], trace);
    let answer = server.send(Method::GET, "/nowhere", &[("traceparent", "00-xyz-1-01")], "").await;
    assert_ne!(answer.json()["trace_id"], trace);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_method_and_status() {
    let server = Server::start().await;
    let path = server.place().await;
    server.get(&path).await;
    server.get("/v1/orders/none").await;
    server.get("/no/such/route").await;
    server.send(Method::from_bytes(b"BREW").unwrap(), "/v1/orders", &[], "").await;
    server.post("/v1/orders", "k", &order()).await;
    let metrics = server.metrics().await;
    for sample in [
        "http_requests_total{route=\"/v1/orders\",method=\"POST\",status=\"201\"} 2",
        "http_requests_total{route=\"/v1/orders/{id}\",method=\"GET\",status=\"200\"} 1",
        "http_requests_total{route=\"/v1/orders/{id}\",method=\"GET\",status=\"400\"} 1",
        "http_requests_total{route=\"unmatched\",method=\"GET\",status=\"404\"} 1",
        "http_requests_total{route=\"/v1/orders\",method=\"OTHER\",status=\"405\"} 1",
        "http_request_duration_seconds_count{route=\"/v1/orders\",method=\"POST\",status=\"201\"} 2",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_of_aggregates_is_measured() {
    let server = Server::start().await;
    let path = server.place().await;
    server.get(&path).await;
    let metrics = server.metrics().await;
    for sample in [
        "# TYPE aggregate_cache_hits_total counter\naggregate_cache_hits_total 1\n",
        "aggregate_cache_misses_total 0\n",
        "aggregate_cache_evictions_total 0\n",
        "# TYPE aggregate_cache_bytes gauge\naggregate_cache_bytes ",
        "aggregate_cache_aggregates 1\n",
        "aggregate_snapshots_used_total 0\n",
        "# TYPE append_transactions_total counter\nappend_transactions_total 1\n",
        "append_seconds_total 0.",
        "append_waiting 0\n",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in\n{metrics}");
    }
}
