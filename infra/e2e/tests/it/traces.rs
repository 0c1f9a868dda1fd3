//! One order is one trace, whatever it goes through: as a collector sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use e2e::eventually::eventually;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::{Value, json};

use crate::running::{Running, order_of};

const DEADLINE: Duration = Duration::from_mins(1);
/// As a client's own tracing would name it.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";
/// One that its client does not record.
const QUIET_TRACE: &str = "5bf92f3577b34da6a3ce929d0e0e4736";
const TRACED: [&str; 5] = ["command-api", "projectors", "reactors", "query-api", "payment-simulator"];

/// A span, and which service sent it.
#[derive(Clone, Debug)]
struct Seen {
    service: String,
    span: Span,
}

impl Seen {
    fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    fn attribute(&self, name: &str) -> Option<String> {
        let attribute = self.span.attributes.iter().find(|attribute| attribute.key == name)?;
        Some(match attribute.value.clone()? {
            AnyValue { value: Some(any_value::Value::StringValue(text)) } => text,
            AnyValue { value: Some(any_value::Value::IntValue(number)) } => number.to_string(),
            other => panic!("{name} is {other:?}"),
        })
    }

    /// Who did what, as which part of the talk.
    fn is(&self, service: &str, kind: SpanKind, name: &str) -> bool {
        self.service == service && self.span.kind() == kind && self.span.name == name
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let router = Router::new()
            .route("/v1/traces", post(async |State(collector): State<Self>, body| collector.take(body)))
            .with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (collector, address)
    }

    fn take(&self, body: Bytes) -> StatusCode {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let mut seen = self.0.lock().unwrap();
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let Some(any_value::Value::StringValue(service)) = name.and_then(|name| name.value?.value) else {
                panic!("a resource without service.name");
            };
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            seen.extend(spans.map(|span| Seen { service: service.clone(), span }));
        }
        StatusCode::OK
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }
}

/// Places an order of a card that works as part of a trace, and returns its id.
async fn place(running: &Running, key: &str, traceparent: &str) -> String {
    let answer: Value = reqwest::Client::new()
        .post(format!("{}/v1/orders", running.info().command_api))
        .bearer_auth(&running.info().tokens["service"])
        .header("idempotency-key", key)
        .header("traceparent", traceparent)
        .json(&order_of("TEA-1", 1))
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .json()
        .await
        .unwrap();
    answer["order_id"].as_str().unwrap().to_owned()
}

/// Waits until the customer was told, and asks as part of the trace.
async fn told(running: &Running, order_id: &str, traceparent: &str) -> Value {
    let query = "query ($id: ID!) { order(id: $id) { notifications { topic } history(first: 20) { edges { node { position type traceId } } } } }";
    let body = json!({"query": query, "variables": {"id": order_id}});
    let ask = async || {
        let answer = reqwest::Client::new()
            .post(format!("{}/graphql", running.info().query_api))
            .bearer_auth(&running.info().tokens["service"])
            .header("traceparent", traceparent)
            .json(&body);
        let answer: Value = answer.send().await?.json().await?;
        let order = &answer["data"]["order"];
        Ok(order["notifications"].as_array().is_some_and(|told| !told.is_empty()).then(|| order.clone()))
    };
    eventually("the customer was told", DEADLINE, ask).await.unwrap_or_else(|error| panic!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_is_one_connected_trace_through_all_services() {
    let (collector, address) = Collector::start().await;
    let mut running = Running::start_as(|options| {
        let endpoint = || ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
        options.settings.extend(TRACED.map(|service| (service, endpoint().0, endpoint().1)));
        options.settings.push(("reactors", "RUST_LOG", "debug".to_owned()));
    });
    running.shop.receive("TEA-1", 10, "stock").await.unwrap();
    place(&running, "quiet", &format!("00-{QUIET_TRACE}-{CLIENT_SPAN}-00")).await;
    let order_id = place(&running, "traced", &format!("00-{TRACE}-{CLIENT_SPAN}-01")).await;
    let order = told(&running, &order_id, &format!("00-{TRACE}-{CLIENT_SPAN}-01")).await;

    // Every event of the order, and of its payment, says which trace it is of.
    let history = order["history"]["edges"].as_array().unwrap();
    assert_eq!(history.len(), 4, "placed, reserved, captured, confirmed: {order}");
    assert!(history.iter().all(|event| event["node"]["traceId"] == TRACE), "{order}");

    // What a process has not sent yet, it sends when it ends.
    for name in TRACED {
        running.stop(name);
    }
    let all = collector.all();
    let trace: BTreeMap<String, Seen> =
        all.iter().filter(|seen| seen.trace_id() == TRACE).map(|seen| (seen.id(), seen.clone())).collect();

    // Connected: each begins where another one of the trace, or the client, has led to it; and none before that.
    let shown = || {
        let line = |seen: &Seen| format!("{} <- {} {} {}", seen.id(), seen.parent(), seen.service, seen.span.name);
        trace.values().map(line).collect::<Vec<_>>().join("\n")
    };
    for seen in trace.values() {
        match trace.get(&seen.parent()) {
            Some(parent) => {
                assert!(parent.span.start_time_unix_nano <= seen.span.start_time_unix_nano, "{}\n{}", seen.id(), shown());
            }
            None => assert_eq!(seen.parent(), CLIENT_SPAN, "{} has no parent in\n{}", seen.id(), shown()),
        }
        assert!(seen.span.start_time_unix_nano <= seen.span.end_time_unix_nano);
        assert_eq!(seen.span.status.as_ref().map_or(0, |status| status.code), 0, "{seen:?}");
    }
    let services: BTreeSet<_> = trace.values().map(|seen| seen.service.as_str()).collect();
    assert_eq!(services, BTreeSet::from(TRACED), "{}", shown());

    // In causal order: from the mail back to the client.
    let chain = [
        ("reactors", SpanKind::Client, "send mail"),
        ("reactors", SpanKind::Consumer, "process EVENTS"),
        ("reactors", SpanKind::Producer, "send EVENTS"),
        ("reactors", SpanKind::Consumer, "process EVENTS"),
        ("reactors", SpanKind::Producer, "send EVENTS"),
        ("reactors", SpanKind::Consumer, "process EVENTS"),
        ("command-api", SpanKind::Producer, "send EVENTS"),
        ("command-api", SpanKind::Server, "POST /v1/orders"),
    ];
    let (service, kind, name) = chain[0];
    let mut seen = trace.values().find(|seen| seen.is(service, kind, name)).unwrap_or_else(|| panic!("no mail in\n{}", shown()));
    let mut groups = Vec::new();
    for (service, kind, name) in &chain[1..] {
        seen = trace.get(&seen.parent()).unwrap_or_else(|| panic!("{} has no parent in\n{}", seen.id(), shown()));
        assert!(seen.is(service, *kind, name), "{} is no {service} {kind:?} {name} in\n{}", seen.id(), shown());
        groups.extend(seen.attribute("messaging.consumer.group.name"));
    }
    assert_eq!(groups, ["notifications", "payments", "allocator"]);
    assert_eq!(seen.parent(), CLIENT_SPAN);
    assert_eq!(seen.attribute("http.response.status_code").as_deref(), Some("201"));

    // The gateway was called from there, and is part of it.
    let gateway = trace.values().find(|seen| seen.is("payment-simulator", SpanKind::Server, "POST /v1/payment_intents"));
    let gateway = gateway.unwrap_or_else(|| panic!("no charge in\n{}", shown()));
    let call = &trace[&gateway.parent()];
    assert!(call.is("reactors", SpanKind::Client, "POST"), "{call:?}");
    assert_eq!(trace[&call.parent()].attribute("messaging.consumer.group.name").as_deref(), Some("payments"));

    // Each event of the order was taken in by the read models, after it was sent.
    for event in history {
        let position = event["node"]["position"].as_str().unwrap();
        for projection in ["orders", "audit"] {
            let taken_in = trace.values().find(|seen| {
                seen.is("projectors", SpanKind::Consumer, "process EVENTS")
                    && seen.attribute("messaging.consumer.group.name").as_deref() == Some(projection)
                    && seen.attribute("contrail.event.position").as_deref() == Some(position)
            });
            let taken_in = taken_in.unwrap_or_else(|| panic!("{projection} lacks {position} in\n{}", shown()));
            assert_eq!(trace[&taken_in.parent()].span.name, "send EVENTS");
        }
    }
    let query = trace.values().find(|seen| seen.is("query-api", SpanKind::Server, "POST /graphql")).expect("a query");
    assert!(
        trace.values().any(|seen| seen.is("query-api", SpanKind::Client, "SELECT") && seen.parent() == query.id()),
        "{}",
        shown()
    );

    // What serves many at a time is no part of any, and linked with each.
    for (service, name) in [("reactors", "allocate"), ("projectors", "apply batch")] {
        let linked = all.iter().filter(|seen| seen.service == service && seen.span.name == name);
        let mut linked = linked.filter(|seen| seen.span.links.iter().any(|link| hex(&link.trace_id) == TRACE));
        assert!(linked.next().is_some_and(|batch| batch.trace_id() != TRACE), "no {name} is linked with the trace");
    }

    // What its client does not record, nobody does.
    let quiet: Vec<_> = all.iter().filter(|seen| seen.trace_id() == QUIET_TRACE).collect();
    assert!(quiet.is_empty(), "{quiet:?}");
    assert!(all.iter().all(|seen| seen.span.links.iter().all(|link| hex(&link.trace_id) != QUIET_TRACE)));
}
