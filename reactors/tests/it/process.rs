//! `reactors run` as a process: settings, readiness, signals.

use std::{
    path::Path,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use domain::order::OrderStatus;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use payment_simulator::{Faults, Latency};
use reqwest::Client;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use crate::{
    PATIENCE, PATIENCE_BEYOND_ACK_WAIT, dead_letters, eventually,
    gateway::Gateway,
    shop::{ONE_TEA, PRICE, Shop},
    trail::Trail,
};

struct Process {
    child: Child,
    base: String,
}

/// `reactors`, with no settings but those that a test gives it.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reactors"));
    for name in [
        "NATS_URL",
        "LISTEN_ADDR",
        "STRIPE_API_BASE",
        "STRIPE_API_KEY",
        "MAIL_DIR",
        "MAIL_FROM",
        "SMTP_URL",
        "SMTP_CA_FILE",
        "WEBHOOK_URL",
        "WEBHOOK_SECRET",
        "PAYMENT_WINDOW_S",
        "CHARGE_CHECKS_S",
        "RETRY_BUDGET_FAILURES",
        "RETRY_BUDGET_S",
        "AGGREGATE_CACHE_MIB",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn command() -> Command {
    let mut command = bare();
    command.arg("run");
    command
}

/// Starts the process on a free port, which it tells in its log.
async fn start(nats_url: &str, gateway: &Gateway, mail: &Path) -> Process {
    let mut child = command()
        .env("NATS_URL", nats_url)
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .env("STRIPE_API_BASE", gateway.base())
        .env("STRIPE_API_KEY", "sk_test_process")
        .env("MAIL_DIR", mail)
        .env("MAIL_FROM", "orders@shop.example")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (found, mut address) = mpsc::unbounded_channel();
    // Reads on to the end, so that the process never waits for somebody to read its log.
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let line: Value = serde_json::from_str(&line).expect("each line of the log is JSON");
            if let Some(address) = line["listen_addr"].as_str() {
                let _ = found.send(address.to_owned());
            }
        }
    });
    let address = timeout(PATIENCE, address.recv()).await.expect("it listens in time").expect("it has not ended");
    Process { child, base: format!("http://{address}") }
}

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it has not ended");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let client = Client::builder().tls_certs_only([]).build().unwrap();
        let response = client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn until_ready(&self) {
        eventually("it is ready", async || (self.get("/ready").await.0 == 200).then_some(())).await;
    }
}

pub(crate) async fn output(command: &mut Command) -> Output {
    timeout(PATIENCE, command.stdout(Stdio::piped()).output()).await.expect("it ends in time").unwrap()
}

#[tokio::test]
async fn wrong_settings_are_all_told_and_it_exits_2() {
    let output = output(command().env("NATS_URL", "127.0.0.1").arg("--only").arg("allocator,typo")).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("7 settings are missing or wrong:\n"), "{told}");
    for name in ["--only", "NATS_URL", "LISTEN_ADDR", "STRIPE_API_BASE", "STRIPE_API_KEY", "MAIL_DIR", "MAIL_FROM"] {
        assert!(told.contains(&format!("\n  {name}: ")), "{name} is not in\n{told}");
    }
}

#[tokio::test]
async fn sigterm_ends_an_idle_process_with_exit_code_0() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let mail = tempfile::tempdir().unwrap();
    let mut process = start(shop.server.url(), &gateway, mail.path()).await;
    process.until_ready().await;
    shop.receive("TEA", 1).await;
    shop.store.put_dead_letter(&dead_letters::letter("payments", 1)).await.unwrap();
    let order = shop.place("o", ONE_TEA).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("it works", |trail| trail.status(order) == Some(OrderStatus::Confirmed)).await;
    trail.until("the customer is told", |trail| trail.notifications.len() == 1).await;
    let counted =
        async || process.get("/metrics").await.1.contains("contrail_dead_letters{reactor=\"payments\"} 1\n").then_some(());
    eventually("the dead letter is counted", counted).await;
    let (status, metrics) = process.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("contrail_reactor_events_total{reactor=\"allocator\",outcome=\"done\"} 1"), "{metrics}");
    assert!(metrics.contains("aggregate_cache_hits_total") && metrics.contains("aggregate_cache_bytes"), "{metrics}");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn without_a_log_it_is_alive_and_not_ready_and_sigterm_ends_it() {
    let (mut shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let mail = tempfile::tempdir().unwrap();
    shop.server.kill();
    let mut process = start(shop.server.url(), &gateway, mail.path()).await;
    assert_eq!(process.get("/health").await.0, 200);
    let (status, body) = process.get("/ready").await;
    assert_eq!(status, 503, "{body}");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn it_begins_when_the_log_is_there_and_goes_on_when_it_is_back() {
    let (mut shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let mail = tempfile::tempdir().unwrap();
    shop.receive("TEA", 2).await;
    shop.server.kill();
    let process = start(shop.server.url(), &gateway, mail.path()).await;
    shop.server.start_again().unwrap();
    process.until_ready().await;
    let mut trail = Trail::of(&shop.store);
    let first = shop.place("first", ONE_TEA).await;
    trail.until("it works", |trail| trail.status(first) == Some(OrderStatus::Confirmed)).await;
    shop.server.kill();
    eventually("it notices", async || (process.get("/ready").await.0 == 503).then_some(())).await;
    shop.server.start_again().unwrap();
    let second = shop.place("second", ONE_TEA).await;
    trail.until("it works again", |trail| trail.status(second) == Some(OrderStatus::Confirmed)).await;
}

#[tokio::test]
async fn what_a_terminated_process_had_in_hand_the_next_one_gets_at_once() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let mail = tempfile::tempdir().unwrap();
    shop.receive("TEA", 100).await;
    gateway.set_faults(Faults { outage: true, ..Faults::default() });
    let mut first = start(shop.server.url(), &gateway, mail.path()).await;
    let orders = shop.place_many("o", 30, ONE_TEA).await;
    gateway.until_counted("unavailable", 10).await;
    first.signal(Signal::SIGTERM);
    assert_eq!(first.ended().await.code(), Some(0));
    gateway.set_faults(Faults::default());
    let _second = start(shop.server.url(), &gateway, mail.path()).await;
    let mut trail = Trail::of(&shop.store);
    let confirmed = |trail: &Trail| trail.all_are(&orders, OrderStatus::Confirmed);
    // Without having been handed back they would come after 30 s.
    trail.until_within(Duration::from_secs(15), "all are confirmed", confirmed).await;
}

#[tokio::test]
async fn what_a_killed_process_had_in_hand_is_done_once() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let mail = tempfile::tempdir().unwrap();
    shop.receive("TEA", 200).await;
    gateway.set_faults(Faults { latency_ms: Latency::Between { min: 50, max: 400 }, ..Faults::default() });
    let mut first = start(shop.server.url(), &gateway, mail.path()).await;
    let orders = shop.place_many("o", 120, ONE_TEA).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("it is in the middle", |trail| trail.count(&orders, OrderStatus::Confirmed) >= 10).await;
    first.signal(Signal::SIGKILL);
    first.ended().await;
    let _second = start(shop.server.url(), &gateway, mail.path()).await;
    let confirmed = |trail: &Trail| trail.all_are(&orders, OrderStatus::Confirmed);
    trail.until_within(PATIENCE_BEYOND_ACK_WAIT, "all are confirmed", confirmed).await;
    let told = |trail: &Trail| trail.notifications.len() == orders.len();
    trail.until_within(PATIENCE_BEYOND_ACK_WAIT, "all customers are told", told).await;
    let money = gateway.money().await;
    assert!(orders.iter().all(|order| money.charges[&order.to_string()] == [PRICE]), "{money:?}");
    // A killed process may leave an unfinished message behind, hidden.
    let mail = std::fs::read_dir(mail.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(mail.filter(|name| !name.starts_with('.')).count(), orders.len());
    assert_eq!(shop.dead_letters().await, []);
}
