//! What the services say of themselves on `/metrics`: that it is what is written down, and that Prometheus can read it.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use e2e::{eventually::eventually, scrape::Scrape, settle::settle};
use local_stack::StackInfo;
use observability::metrics;
use serde_json::{Value, json};

use crate::{
    interop::{free_port, until_all_are},
    running::{Running, order_of},
};

/// How long the metrics that are looked up now and then may take to be there; the slowest is looked up every ten seconds.
const DEADLINE: Duration = Duration::from_mins(1);

fn services(info: &StackInfo) -> [(&'static str, &str); 5] {
    [
        ("command-api", &info.command_api),
        ("query-api", &info.query_api),
        ("projectors", &info.projectors),
        ("reactors", &info.reactors),
        ("payment-simulator", &info.payment_simulator),
    ]
}

/// Starts a stack and lets one order go through it, with a query for it.
async fn with_one_order() -> Running {
    let running = Running::start();
    let shop = &running.shop;
    shop.receive("TEA-1", 10, "receipt").await.unwrap();
    let order_id = shop.place(&order_of("TEA-1", 1), "order").await.unwrap().order_id.to_string();
    until_all_are(shop, &[order_id], "CONFIRMED").await;
    settle(running.info(), shop).await.unwrap();
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_those_of_the_list() {
    let running = with_one_order().await;
    // What is looked up now and then is there once it was.
    for (base, series) in [
        (&running.info().reactors, "contrail_reactor_lag_seconds{reactor=\"deadlines\",queue=\"timers\"}"),
        (&running.info().projectors, "orders_open{status=\"CONFIRMED\"}"),
    ] {
        let measured = eventually(series, DEADLINE, async || Ok(Scrape::of(base).await?.value(series).map(drop)));
        measured.await.unwrap_or_else(|error| panic!("{error:#}"));
    }
    let mut found = Vec::new();
    for (service, base) in services(running.info()) {
        let scrape = Scrape::of(base).await.unwrap();
        found.extend(metrics::read_exposition(service, scrape.text()).unwrap_or_else(|error| panic!("{service}: {error}")));
    }
    running.finish();
    let list = observability::folder().join("metrics.txt");
    if std::env::var_os("UPDATE_METRICS").is_some() {
        fs::write(&list, metrics::write_list(&found)).unwrap();
    }
    let committed = metrics::read_list(&fs::read_to_string(&list).unwrap_or_default()).unwrap();
    found.sort();
    let missing: Vec<_> = committed.iter().filter(|metric| !found.contains(metric)).collect();
    let new: Vec<_> = found.iter().filter(|metric| !committed.contains(metric)).collect();
    assert!(
        missing.is_empty() && new.is_empty() && committed == found,
        "infra/observability/metrics.txt lists what is not there: {missing:#?}\nand does not list: {new:#?}\nif that is as it should be: \
         UPDATE_METRICS=1 cargo nextest run --workspace -E 'test(metrics_are_those_of_the_list)'",
    );
}

/// One sample at a time: what a scrape of every service says of the order that went through.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_shows_in_the_metrics_of_each_service_that_it_passes() {
    let running = with_one_order().await;
    let scrape = async |base: &str| Scrape::of(base).await.unwrap();
    let commands = scrape(&running.info().command_api).await;
    assert_eq!(
        commands.value("http_request_duration_seconds_count{route=\"/v1/orders\",method=\"POST\",status=\"201\"}"),
        Some(1.0)
    );
    assert_eq!(commands.value("append_acknowledgement_seconds_count{kind=\"plain\"}"), Some(2.0), "a receipt and an order");
    assert_eq!(commands.value("service_ready"), Some(1.0));
    let reactors = scrape(&running.info().reactors).await;
    assert_eq!(reactors.value("contrail_charges_total{outcome=\"captured\"}"), Some(1.0));
    assert_eq!(reactors.value("contrail_charges_total{outcome=\"declined\"}"), Some(0.0));
    assert_eq!(reactors.value("contrail_gateway_call_duration_seconds_count{call=\"charge\"}"), Some(1.0));
    let projectors = scrape(&running.info().projectors).await;
    for (series, expected) in [
        ("order_events_total{event=\"placed\"}", 1.0),
        ("order_events_total{event=\"confirmed\"}", 1.0),
        ("order_events_total{event=\"rejected\"}", 0.0),
        ("payment_events_total{event=\"captured\"}", 1.0),
        ("notification_events_total{event=\"sent\"}", 1.0),
        ("order_confirmation_duration_seconds_count", 1.0),
        ("projection_lag_seconds{projection=\"orders\"}", 0.0),
    ] {
        assert_eq!(projectors.value(series), Some(expected), "{series}");
    }
    let head = projectors.value("projection_head{projection=\"audit\"}").unwrap();
    assert!(head >= 6.0, "{head}");
    for (what, base, series, expected) in [
        ("the log's head is known", &running.info().command_api, "log_head_position", head),
        ("the log's head is known", &running.info().reactors, "log_head_position", head),
        ("the trail is signed", &running.info().projectors, "audit_signed_position", head),
        ("nothing is left to sign", &running.info().projectors, "audit_unsigned_seconds", 0.0),
        ("one order is open", &running.info().projectors, "orders_open{status=\"CONFIRMED\"}", 1.0),
        ("none waits to be paid", &running.info().projectors, "orders_open{status=\"RESERVED\"}", 0.0),
        ("nothing waits", &running.info().reactors, "contrail_reactor_lag_events{reactor=\"payments\",queue=\"log\"}", 0.0),
        ("nothing is late", &running.info().reactors, "contrail_reactor_lag_seconds{reactor=\"payments\",queue=\"log\"}", 0.0),
    ] {
        let seen = eventually(what, DEADLINE, async || Ok((Scrape::of(base).await?.value(series) == Some(expected)).then_some(())));
        seen.await.unwrap_or_else(|error| panic!("{series} is not {expected}: {error:#}"));
    }
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs promtool"]
async fn interop_promtool_finds_no_fault_with_the_metrics_of_any_service() {
    let running = with_one_order().await;
    for (service, base) in services(running.info()) {
        let scrape = Scrape::of(base).await.unwrap();
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = promtool.spawn().unwrap_or_else(|error| panic!("promtool, of Debian's package prometheus: {error}"));
        promtool.stdin.take().unwrap().write_all(scrape.text().as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success() && said.is_empty(), "{service}: {said}");
    }
    running.finish();
}

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus that scrapes the services every second and knows our rules.
fn prometheus(folder: &Path, info: &StackInfo, port: u16) -> Program {
    let jobs: Vec<_> = services(info)
        .into_iter()
        .map(|(job, base)| json!({"job_name": job, "static_configs": [{"targets": [base.strip_prefix("http://").unwrap()]}]}))
        .collect();
    let rules = observability::folder().join("prometheus/rules/*.yaml");
    let config =
        json!({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [rules], "scrape_configs": jobs});
    // Each JSON document is a YAML document.
    let file = folder.join("prometheus.yaml");
    fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display())).arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--enable-feature=exemplar-storage");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(folder.join("log")).unwrap());
    Program(command.spawn().unwrap_or_else(|error| panic!("prometheus, of Debian's package of that name: {error}")))
}

/// Asks Prometheus' API, and fails if that says it has failed; none while it does not answer yet.
async fn ask(port: u16, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    let answer = client.get(format!("http://127.0.0.1:{port}/api/v1/{path}")).query(parameters).send().await.ok()?;
    let answer: Value = answer.json().await.ok()?;
    assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
    Some(answer["data"].clone())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs prometheus"]
async fn interop_prometheus_scrapes_every_service_and_answers_every_panel() {
    let running = with_one_order().await;
    // A query whose trace is known.
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    let query = client.post(format!("{}/graphql", running.info().query_api)).bearer_auth(&running.info().tokens["operator"]);
    let query = query.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(query.json(&json!({"query": "{ projections { name } }"})).send().await.unwrap().status(), 200);
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let _prometheus = prometheus(folder.path(), running.info(), port);
    let all_are_up = eventually("Prometheus has scraped every service twice", DEADLINE, async || {
        let Some(up) = ask(port, "query", &[("query", "count_over_time((up == 1)[1m:1s]) >= 3")]).await else { return Ok(None) };
        Ok((up["result"].as_array().unwrap().len() == services(running.info()).len()).then_some(()))
    });
    all_are_up.await.unwrap_or_else(|error| panic!("{error:#}: {}", fs::read_to_string(folder.path().join("log")).unwrap()));
    let targets = ask(port, "targets", &[]).await.unwrap();
    let targets = targets["activeTargets"].as_array().unwrap();
    assert_eq!(targets.len(), services(running.info()).len());
    for target in targets {
        assert_eq!((&target["health"], &target["lastError"]), (&json!("up"), &json!("")), "{target}");
    }
    // Exemplars are in the OpenMetrics format alone.
    for histogram in ["http_request_duration_seconds_bucket", "graphql_request_duration_seconds_bucket"] {
        let parameters = [("query", histogram), ("start", "0"), ("end", "99999999999")];
        let exemplars = ask(port, "query_exemplars", &parameters).await.unwrap();
        let first = &exemplars[0]["exemplars"][0];
        assert_eq!(first["labels"]["trace_id"].as_str().map(str::len), Some(32), "{histogram}: {exemplars}");
    }
    let rules_are_well = eventually("every rule was evaluated", DEADLINE, async || {
        let rules = ask(port, "rules", &[]).await.unwrap();
        let rules: Vec<_> =
            rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
        assert!(rules.len() > 40 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:#?}");
        Ok(rules.iter().all(|rule| rule["health"] == "ok").then_some(()))
    });
    rules_are_well.await.unwrap_or_else(|error| panic!("{error:#}"));
    for board in ["service-health", "order-flow", "log-and-projections"] {
        let board = fs::read(observability::folder().join(format!("grafana/{board}.json"))).unwrap();
        let board: Value = serde_json::from_slice(&board).unwrap();
        for target in board["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m").replace("$job", ".*");
            ask(port, "query", &[("query", &expression)]).await.unwrap();
        }
    }
    running.finish();
}
