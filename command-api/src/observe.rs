//! What surrounds every request, whatever its route: its names, its log line, its metrics, and the one place where a problem
//! gets its body.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, header::CACHE_CONTROL},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use prometheus_client::metrics::{counter::Counter, family::Family};
use telemetry::{
    exemplars::{TraceId, TracedHistogram},
    metrics::Metrics,
    trace::{self, Span},
};
use tracing::{Instrument as _, debug, info_span};

use crate::{
    context::{self, RequestContext},
    headers::X_REQUEST_ID,
    limits::{HEADER_BYTES_MAX, URI_BYTES_MAX},
    problem::{Code, Problem},
};

/// Upper bounds of the duration buckets, in seconds: from an append in memory to the request deadline.
const DURATION_BUCKETS_S: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Route template, method and status: few values each, so that a client cannot make the metrics grow.
type Labels = [(&'static str, String); 3];

/// Counts requests and how long they take.
#[derive(Clone, Debug)]
pub(crate) struct RequestMetrics {
    requests: Family<Labels, Counter>,
    durations: Family<Labels, TracedHistogram, fn() -> TracedHistogram>,
    problems: Family<[(&'static str, &'static str); 1], Counter>,
}

impl RequestMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let requests = Family::default();
        let problems = Family::<[(&'static str, &'static str); 1], Counter>::default();
        // What was never answered is zero: where there is nothing at all, no rate can be told from its first increase.
        for code in Code::ALL {
            problems.get_or_create_owned(&[("code", code.as_str())]);
        }
        let durations: Family<_, _, fn() -> TracedHistogram> =
            Family::new_with_constructor(|| TracedHistogram::new(DURATION_BUCKETS_S.into_iter()));
        metrics.register(|registry| {
            registry.register("http_requests", "Requests answered", requests.clone());
            registry.register("http_request_duration_seconds", "From the request's headers to the answer's", durations.clone());
            registry.register("http_problems", "Errors answered, by the code of the problem", problems.clone());
        });
        Self { requests, durations, problems }
    }

    fn record(&self, route: String, method: &Method, response: &Response, started: Instant, trace: Option<TraceId>) {
        let labels = [("route", route), ("method", method_label(method)), ("status", response.status().as_str().to_owned())];
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&labels).observe(started.elapsed().as_secs_f64(), trace, None);
    }
}

/// The outermost layer. After it every answer has `X-Request-Id` and `Cache-Control: no-store`, and every error is a problem.
pub(crate) async fn observe(State(metrics): State<RequestMetrics>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let mut traced = Span::server("request", context::trace(request.headers()));
    let mut context = RequestContext::read(request.headers());
    context.trace = traced.context().unwrap_or(context.trace);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = info_span!("request", request_id = context.request_id);
    request.extensions_mut().insert(context.clone());

    let mut response = match refuse_oversized(&request) {
        Some(problem) => problem.into_response(),
        None => trace::within(Some(context.trace), next.run(request).instrument(span.clone())).await,
    };

    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        metrics.problems.get_or_create(&[("code", problem.code.as_str())]).inc();
        problem.render(&context.trace.trace_id(), &mut response);
    }
    let headers = response.headers_mut();
    let request_id = HeaderValue::from_str(&context.request_id).expect("visible ASCII is a header value");
    headers.insert(X_REQUEST_ID, request_id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let status = response.status().as_u16();
    if traced.is_recorded() {
        traced.rename(format_args!("{method} {route}"));
        traced.set("http.request.method", method_label(&method));
        traced.set("http.route", route.clone());
        traced.set("http.response.status_code", i64::from(status));
        traced.set("contrail.request_id", context.request_id.clone());
        if response.status().is_server_error() {
            traced.fail(status);
        }
    }
    let logging = async {
        debug!(route, %method, status, duration_ms = started.elapsed().as_millis(), "{method} {route} was answered {status}");
    };
    trace::within(Some(context.trace), logging.instrument(span)).await;
    metrics.record(route, &method, &response, started, TraceId::parse(&context.trace.trace_id()));
    response
}

fn refuse_oversized(request: &Request) -> Option<Problem> {
    let uri_length = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri_length > URI_BYTES_MAX {
        let detail = format!("path and query are {uri_length} bytes long, and {URI_BYTES_MAX} is the limit");
        return Some(Problem::new(Code::UriTooLong, detail));
    }
    let header_length = length(request.headers());
    if header_length > HEADER_BYTES_MAX {
        let detail = format!("the headers are {header_length} bytes long, and {HEADER_BYTES_MAX} is the limit");
        return Some(Problem::new(Code::HeadersTooLarge, detail));
    }
    None
}

fn length(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// A client can invent methods.
fn method_label(method: &Method) -> String {
    const KNOWN: [Method; 7] =
        [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    if KNOWN.contains(method) { method.to_string() } else { "OTHER".to_owned() }
}
