//! Imports: many orders in one request.

use std::{num::NonZeroU32, time::Duration};

use auth::settings::RateLimits;
use command_api::limits::{BULK_RESULTS_WAITING_BYTES_MAX, Limits, PROBLEM_BYTES_MAX};
use local_stack::tokens::{AUDIENCE, Claims, ROLES, TokenIssuer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout},
};

use crate::{
    problems::hostile_bodies,
    server::{Answer, PATIENCE, Server, eventually, order},
};

const PATH: &str = "/v1/orders/bulk";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const UNLIMITED: RateLimits = RateLimits { customer: None, staff: None };

fn line(key: &str, order: &Value) -> String {
    json!({"idempotency_key": key, "order": order}).to_string()
}

fn good_line(key: &str) -> String {
    line(key, &order())
}

fn order_of_pieces(quantity: u32) -> Value {
    let mut order = order();
    order["lines"][0]["quantity"] = json!(quantity);
    order
}

async fn import(server: &Server, body: impl Into<reqwest::Body>) -> Vec<Value> {
    let answer = server.send(Method::POST, PATH, &[NDJSON], body).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/x-ndjson"));
    results(&answer)
}

fn results(answer: &Answer) -> Vec<Value> {
    String::from_utf8_lossy(&answer.body).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `line status code` of each, where the code is a problem's, or `new` or `replayed`.
fn told(results: &[Value]) -> Vec<String> {
    let kind = |result: &Value| match &result["replayed"] {
        Value::Bool(true) => "replayed".to_owned(),
        Value::Bool(false) => "new".to_owned(),
        _ => result["problem"]["code"].as_str().unwrap().to_owned(),
    };
    results.iter().map(|result| format!("{} {} {}", result["line"], result["status"], kind(result))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_lines_have_their_results_in_order_and_a_repetition_replays_them() {
    let server = Server::start().await;
    let body: String = (1..=1_000).map(|number| good_line(&format!("k-{number}")) + "\n").collect();
    let first = import(&server, body.clone()).await;
    assert_eq!(told(&first), (1..=1_000).map(|number| format!("{number} 201 new")).collect::<Vec<_>>());
    assert_eq!(server.store.head().await.unwrap(), 1_000);

    let again = import(&server, body).await;
    assert_eq!(told(&again), (1..=1_000).map(|number| format!("{number} 201 replayed")).collect::<Vec<_>>());
    assert!(first.iter().zip(&again).all(|(first, again)| first["order"] == again["order"]));
    assert_eq!(server.store.head().await.unwrap(), 1_000, "each order once");
    assert!(server.metrics().await.contains("bulk_lines_total{status=\"201\"} 2000\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_told_so_and_stops_no_other() {
    let server = Server::start().await;
    let mut misspelt = order();
    misspelt["customer"]["nickname"] = json!("B");
    let too_long = format!("{}{}", good_line("long"), " ".repeat(256 * 1024));
    let mut unnamed: Value = serde_json::from_str(&good_line("x")).unwrap();
    unnamed["correlation_id"] = json!("has spaces");
    let body = [
        good_line("k-1").as_bytes(),
        b"\r\n\r\n",
        b"{\"idempotency_key\": }\n",
        b"{\"idempotency_key\":\"\xFF\"}\n",
        b"   \n",
        format!("{}\n", json!({"order": {"lines": 7}, "colour": "green"})).as_bytes(),
        format!("{too_long}\n").as_bytes(),
        format!("{}\n", line("k-2", &misspelt)).as_bytes(),
        format!("{}\n", line("k-1", &order_of_pieces(9))).as_bytes(),
        format!("{}\n", line("has spaces", &order())).as_bytes(),
        format!("{unnamed}\n").as_bytes(),
        b"[]\r\n",
        good_line("k-3").as_bytes(),
    ]
    .concat();
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let answer = server.send(Method::POST, PATH, &[NDJSON, ("traceparent", &traceparent)], body).await;
    let results = results(&answer);
    let expected = [
        "1 201 new",
        "3 400 invalid-json",
        "4 400 invalid-json",
        "6 422 invalid-fields",
        "7 413 content-too-large",
        "8 422 invalid-fields",
        "9 422 idempotency-key-reused",
        "10 422 invalid-fields",
        "11 422 invalid-fields",
        "12 422 invalid-fields",
        "13 201 new",
    ];
    assert_eq!(told(&results), expected);
    let problems: Vec<&Value> = results.iter().filter_map(|result| result.get("problem")).collect();
    assert!(problems.iter().all(|problem| problem["trace_id"] == TRACE));
    let pointers = |number: usize| {
        let errors = problems[number]["errors"].as_array().unwrap();
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect::<Vec<_>>()
    };
    let syntax = &problems[0]["errors"][0];
    assert_eq!((&syntax["line"], &syntax["column"]), (&json!(1), &json!(21)));
    let missing = ["/idempotency_key", "/order/customer", "/order/currency", "/order/lines", "/order/payment_method", "/colour"];
    assert_eq!(pointers(2), missing);
    assert_eq!(pointers(4), ["/order/customer/nickname"]);
    assert_eq!([pointers(6), pointers(7), pointers(8)], [["/idempotency_key"], ["/correlation_id"], [""]]);
    assert_eq!(server.store.head().await.unwrap(), 2);
    let metrics = server.metrics().await;
    assert!(metrics.contains("bulk_lines_total{status=\"422\"} 6\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_and_a_single_request_are_retries_of_each_other() {
    let server = Server::start().await;
    let single = server.post("/v1/orders", "single", &order()).await;
    let body = [good_line("single"), good_line("bulk"), line("single", &order_of_pieces(9))].join("\n");
    let results = import(&server, body).await;
    assert_eq!(told(&results), ["1 201 replayed", "2 201 new", "3 422 idempotency-key-reused"]);
    assert_eq!(results[0]["order"], single.json());

    let again = server.post("/v1/orders", "bulk", &order()).await;
    assert_eq!((again.status, again.replayed(), &again.json()), (StatusCode::CREATED, true, &results[1]["order"]));
    let other = server.post("/v1/orders", "bulk", &order_of_pieces(9)).await;
    assert_eq!(other.problem(), (422, "idempotency-key-reused".to_owned()));
    assert_eq!(server.store.head().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_lines_with_one_key_the_first_is_carried_out() {
    let server = Server::start().await;
    let (mut body, mut expected) = (String::new(), Vec::new());
    for key in 0..20_usize {
        let quantities = [1, 1, 2, 1, 1];
        for (index, quantity) in quantities.into_iter().enumerate() {
            body += &(line(&format!("k-{key}"), &order_of_pieces(quantity)) + "\n");
            let told = match (index, quantity) {
                (0, _) => "201 new",
                (_, 1) => "201 replayed",
                _ => "422 idempotency-key-reused",
            };
            expected.push(format!("{} {told}", key * quantities.len() + index + 1));
        }
    }
    assert_eq!(told(&import(&server, body).await), expected);
    assert_eq!(server.store.head().await.unwrap(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_its_own_name_or_that_of_its_request() {
    let server = Server::start().await;
    let mut named: Value = serde_json::from_str(&good_line("k-2")).unwrap();
    named["correlation_id"] = json!("cart-2");
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [NDJSON, ("x-correlation-id", "import-1"), ("traceparent", &traceparent)];
    let answer = server.send(Method::POST, PATH, &headers, format!("{}\n{named}", good_line("k-1"))).await;
    for (result, correlation_id) in results(&answer).iter().zip(["import-1", "cart-2"]) {
        let events = server.store.events_of("order", result["order"]["order_id"].as_str().unwrap()).await.unwrap();
        let metadata = &events[0].event.metadata;
        assert_eq!(metadata.correlation_id, correlation_id);
        assert_eq!(metadata.traceparent.as_ref().unwrap(), &traceparent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_another_media_type_is_415() {
    let server = Server::start().await;
    for content_type in ["application/json", "text/plain", "application/x-ndjson; charset=latin1", ""] {
        let answer = server.send(Method::POST, PATH, &[("content-type", content_type)], good_line("k")).await;
        assert_eq!(answer.problem(), (415, "unsupported-media-type".to_owned()), "{content_type}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("application/x-ndjson"));
    }
    assert_eq!(server.store.head().await.unwrap(), 0);
    for content_type in ["application/x-ndjson", "Application/NDJSON; charset=utf-8", "application/jsonl"] {
        let answer = server.send(Method::POST, PATH, &[("content-type", content_type)], good_line("k")).await;
        assert_eq!(results(&answer)[0]["status"], 201, "{content_type}");
    }
    assert_eq!(import(&server, "").await, Vec::<Value>::new());
    assert_eq!(server.get(PATH).await.header("allow"), "POST");
}

fn token(issuer: &TokenIssuer, role: &str, lifetime: Duration) -> String {
    issuer.token(Claims { role, subject: "c-42", audience: AUDIENCE, lifetime })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_services_import() {
    let issuer = TokenIssuer::generate().unwrap();
    let server = Server::start_guarded(&issuer, UNLIMITED).await;
    for role in ROLES {
        let bearer = format!("Bearer {}", token(&issuer, role, Duration::from_secs(600)));
        let answer = server.send(Method::POST, PATH, &[NDJSON, ("authorization", &bearer)], good_line("k")).await;
        if role == "service" {
            assert_eq!(told(&results(&answer)), ["1 201 new"]);
        } else {
            assert_eq!(answer.problem(), (403, "forbidden".to_owned()), "{role}");
        }
    }
    let events = server.store.head().await.unwrap();
    assert_eq!(events, 1);
    assert_eq!(server.send(Method::POST, PATH, &[NDJSON], good_line("k")).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_counts_against_its_senders_rate() {
    let issuer = TokenIssuer::generate().unwrap();
    let rates = RateLimits { customer: None, staff: NonZeroU32::new(5) };
    let server = Server::start_guarded(&issuer, rates).await;
    let bearer = format!("Bearer {}", token(&issuer, "service", Duration::from_secs(600)));
    let body: String = (0..12).map(|number| good_line(&format!("k-{number}")) + "\n").collect();
    let started = Instant::now();
    let answer = server.send(Method::POST, PATH, &[NDJSON, ("authorization", &bearer)], body).await;
    assert!(results(&answer).iter().all(|result| result["status"] == 201));
    // Five at once and five a second after that; the request as such is one.
    assert!(started.elapsed() > Duration::from_millis(1_500), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_line_is_skipped_and_the_next_one_works() {
    let server = Server::start().await;
    let body = format!("{}\n{}", "x".repeat(10 * 1024 * 1024), good_line("k"));
    assert_eq!(told(&import(&server, body).await), ["1 413 content-too-large", "2 201 new"]);
}

/// A connection on which an import is sent and its results are read as the test likes.
struct Duplex {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    unread: String,
}

impl Duplex {
    /// Sends the request's head, and reads the answer's.
    async fn open(server: &Server, headers: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // So that the network keeps little of what a test does not read.
        socket.set_recv_buffer_size(4_096).unwrap();
        let connection = socket.connect(server.url.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
        let (reader, mut writer) = connection.into_split();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n{headers}\r\n"
        );
        writer.write_all(head.as_bytes()).await.unwrap();
        let mut duplex = Self { reader: BufReader::new(reader), writer, unread: String::new() };
        assert_eq!(duplex.read_line().await, "HTTP/1.1 200 OK");
        while !duplex.read_line().await.is_empty() {}
        duplex
    }

    async fn read_line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.reader.read_line(&mut line)).await.expect("an answer").unwrap();
        line.trim_end().to_owned()
    }

    async fn send(&mut self, text: &str) {
        self.writer.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.unwrap();
    }

    async fn end(&mut self) {
        self.writer.write_all(b"0\r\n\r\n").await.unwrap();
    }

    /// The next result; `None` if the answer has ended as it should.
    async fn result(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.unread.split_once('\n') {
                let result = serde_json::from_str(line).unwrap();
                self.unread = rest.into();
                return Some(result);
            }
            let length = usize::from_str_radix(&self.read_line().await, 16).expect("the length of a chunk");
            let mut chunk = vec![0; length + 2];
            timeout(PATIENCE, self.reader.read_exact(&mut chunk)).await.expect("a chunk").unwrap();
            if length == 0 {
                assert_eq!(self.unread, "", "the last line has an end");
                return None;
            }
            self.unread += std::str::from_utf8(&chunk[..length]).unwrap();
        }
    }

    async fn told(&mut self) -> Option<String> {
        self.result().await.map(|result| told(&[result]).remove(0))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_while_the_request_is_still_being_sent() {
    let server = Server::start().await;
    let mut duplex = Duplex::open(&server, "").await;
    for number in 1..=3 {
        let (line, half) = (good_line(&format!("k-{number}")), 20);
        duplex.send(&line[..half]).await;
        duplex.send(&format!("{}\n", &line[half..])).await;
        assert_eq!(duplex.told().await, Some(format!("{number} 201 new")));
    }
    duplex.send(&good_line("k-4")).await;
    duplex.end().await;
    assert_eq!(duplex.told().await.unwrap(), "4 201 new");
    assert_eq!(duplex.told().await, None);
    // The connection is good for another request.
    duplex.writer.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(duplex.read_line().await, "HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_may_be_read_after_everything_was_sent() {
    let server = Server::start().await;
    let mut duplex = Duplex::open(&server, "").await;
    for number in 1..=1_280 {
        duplex.send(&(good_line(&format!("k-{number}")) + "\n")).await;
    }
    duplex.end().await;
    for number in 1..=1_280 {
        assert_eq!(duplex.told().await, Some(format!("{number} 201 new")));
    }
    assert_eq!(duplex.told().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_whether_to_send_the_body_is_told_to() {
    let server = Server::start().await;
    let mut connection = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    let body = good_line("k");
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/jsonl\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    connection.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, connection.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"status\":201"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_an_import_with_the_line_to_go_on_from() {
    let server = Server::start().await;
    let mut duplex = Duplex::open(&server, "").await;
    duplex.send(&(good_line("k-1") + "\n")).await;
    assert_eq!(duplex.told().await.unwrap(), "1 201 new");
    // The beginning of a line is not looked at.
    duplex.send("{\"idempotency_key\":").await;

    server.drain.start();
    let last = duplex.result().await.unwrap();
    assert_eq!(told(std::slice::from_ref(&last)), ["2 503 draining"]);
    assert_eq!(last["retry_after_s"], 1);
    assert_eq!(duplex.told().await, None, "it is well formed");
    server.serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_leaves_no_doubt_about_the_lines_in_flight() {
    let server = Server::start().await;
    let mut duplex = Duplex::open(&server, "").await;
    let lines: String = (1..=2_000).map(|number| good_line(&format!("k-{number}")) + "\n").collect();
    duplex.send(&lines).await;
    assert_eq!(duplex.told().await.unwrap(), "1 201 new");

    server.drain.start();
    let mut told = vec![];
    while let Some(one) = duplex.told().await {
        told.push(one);
    }
    let placed = told.len();
    let mut expected: Vec<_> = (2..=placed).map(|number| format!("{number} 201 new")).collect();
    expected.push(format!("{} 503 draining", placed + 1));
    assert_eq!(told, expected, "what was taken is finished");
    assert_eq!(server.store.head().await.unwrap(), placed as u64, "what was not is not in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_is_away_lines_are_503_and_the_stream_goes_on_when_it_is_back() {
    let mut server = Server::start().await;
    let mut duplex = Duplex::open(&server, "").await;
    duplex.send(&(good_line("k-1") + "\n")).await;
    assert_eq!(duplex.told().await.unwrap(), "1 201 new");

    server.kill_nats();
    duplex.send(&(good_line("k-2") + "\n")).await;
    let result = duplex.result().await.unwrap();
    assert_eq!(result["status"], 503, "{result}");
    assert_eq!(result["retry_after_s"], 1);
    eventually("a refusal", async || {
        let answer = server.send(Method::POST, PATH, &[NDJSON], good_line("k-2")).await;
        answer.status == 503 && answer.problem().1 == "unavailable"
    })
    .await;

    server.start_nats_again();
    eventually("the log to be back", async || {
        duplex.send(&(good_line("k-2") + "\n")).await;
        duplex.result().await.unwrap()["status"] == 201
    })
    .await;
    duplex.end().await;
    assert_eq!(duplex.told().await, None);
    assert_eq!(server.store.head().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_is_not_waited_for_for_ever() {
    let server = Server::start_with(Limits { bulk_idle: Duration::from_millis(300), ..Limits::default() }).await;
    let mut duplex = Duplex::open(&server, "").await;
    duplex.send(&format!("{}\n\n{{", good_line("k-1"))).await;
    assert_eq!(duplex.told().await.unwrap(), "1 201 new");
    assert_eq!(duplex.told().await.unwrap(), "3 408 idle");
    assert_eq!(duplex.told().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_gives_up_its_place() {
    let limits = Limits { bulk_idle: Duration::from_millis(500), bulk_requests_max: 1, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let Duplex { reader, mut writer, unread } = Duplex::open(&server, "").await;
    // A hundred mistakes in each line make results much longer than lines.
    let fields = (0..120).map(|number| (format!("f{number}"), json!(1))).collect();
    let bad_line = format!("{}\n", Value::Object(fields));
    let chunk = format!("{:x}\r\n{bad_line}\r\n", bad_line.len());
    let sending = tokio::spawn(async move {
        // More than the server takes from one who does not read, and less than it throws away afterwards.
        for _ in 0..3_000 {
            writer.write_all(chunk.as_bytes()).await.unwrap();
        }
        writer
    });
    let import = async || server.send(Method::POST, PATH, &[NDJSON], good_line("k")).await;
    let refused = import().await;
    assert_eq!(refused.problem(), (503, "overloaded".to_owned()));
    eventually("the place to be free", async || import().await.status == 200).await;

    let mut duplex = Duplex { reader, writer: sending.await.unwrap(), unread };
    let mut expected = 0;
    let last = loop {
        let result = duplex.result().await.unwrap();
        expected += 1;
        assert_eq!(result["line"], expected);
        if result["status"] != 422 {
            break result;
        }
    };
    assert_eq!(last["problem"]["code"], "idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_line_holds_its_result_is_short() {
    let server = Server::start().await;
    let bodies = hostile_bodies();
    let lines: String = bodies.iter().flat_map(|body| [body.to_string() + "\n", line("k", body) + "\n"]).collect();
    let answer = server.send(Method::POST, PATH, &[NDJSON], lines).await;
    let lengths: Vec<usize> = answer.body.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    assert_eq!(lengths.len(), 2 * bodies.len());
    // What surrounds the problem takes little.
    assert!(lengths.iter().all(|length| *length <= PROBLEM_BYTES_MAX + 100), "{lengths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_nobody_reads_are_bounded_by_their_bytes() {
    let server = Server::start().await;
    let Duplex { reader: _unread, mut writer, .. } = Duplex::open(&server, "").await;
    let fields = (0..120).map(|number| (format!("f{number}"), json!(1))).collect();
    let bad_line = format!("{}\n", Value::Object(fields));
    let result_bytes = import(&server, bad_line.clone()).await[0].to_string().len();
    let chunk = format!("{:x}\r\n{bad_line}\r\n", bad_line.len());
    let sending = tokio::spawn(async move {
        for _ in 0..100_000 {
            writer.write_all(chunk.as_bytes()).await.unwrap();
        }
    });
    let answered = async || {
        let metrics = server.metrics().await;
        let sample = metrics.lines().find_map(|line| line.strip_prefix("bulk_lines_total{status=\"422\"} "));
        sample.map_or(0, |count| count.parse::<usize>().unwrap())
    };
    let waiting_max = BULK_RESULTS_WAITING_BYTES_MAX / result_bytes;
    eventually("as many results as may wait", async || answered().await > waiting_max / 2).await;
    let mut before = 0;
    eventually("no more of them", async || std::mem::replace(&mut before, answered().await) == before).await;
    // The network and the connection's own buffers hold a few more.
    assert!(before <= waiting_max + (4 << 20) / result_bytes && before < 1_024, "{before} results of {result_bytes} bytes");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_ends_with_its_callers_token() {
    let issuer = TokenIssuer::generate().unwrap();
    let server = Server::start_guarded(&issuer, UNLIMITED).await;
    let token = token(&issuer, "service", Duration::from_secs(3));
    let mut duplex = Duplex::open(&server, &format!("authorization: Bearer {token}\r\n")).await;
    duplex.send(&(good_line("k-1") + "\n")).await;
    assert_eq!(duplex.told().await.unwrap(), "1 201 new");
    assert_eq!(duplex.told().await.unwrap(), "2 401 unauthenticated");
    assert_eq!(duplex.told().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_harms_nobody() {
    let server = Server::start_with(Limits { bulk_requests_max: 1, ..Limits::default() }).await;
    let mut duplex = Duplex::open(&server, "").await;
    duplex.send(&format!("{}\n{{\"idempot", good_line("k-1"))).await;
    assert_eq!(duplex.told().await.unwrap(), "1 201 new");
    drop(duplex);
    eventually("the place to be free", async || {
        server.send(Method::POST, PATH, &[NDJSON], good_line("k-1")).await.status == StatusCode::OK
    })
    .await;
    assert_eq!(told(&import(&server, good_line("k-1")).await), ["1 201 replayed"]);
    let path = server.post("/v1/orders", "k-1", &order()).await.header("location").to_owned();
    assert_eq!(server.order_events(&path).await.len(), 1);
}
