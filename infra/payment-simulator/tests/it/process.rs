//! The simulator as a process: settings, restarts, signals.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use crate::running::{Api, json};

const PATIENCE: Duration = Duration::from_secs(20);

struct Process {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    api: Api,
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payment-simulator"));
    command.env_remove("RUST_LOG").env_remove("LISTEN_ADDR").env_remove("LEDGER_FILE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts the process on a free port, which it tells in its log.
async fn start(ledger_file: &Path) -> Process {
    let mut child =
        command().env("LISTEN_ADDR", "127.0.0.1:0").arg("--ledger-file").arg(ledger_file).spawn().expect("the simulator was built");
    let mut log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let address = loop {
        let line = next_line(&mut log).await;
        if let Some(address) = line["listen_addr"].as_str() {
            break address.to_owned();
        }
    };
    Process { child, log, api: Api::at(address) }
}

async fn next_line(log: &mut Lines<BufReader<ChildStderr>>) -> Value {
    let line = timeout(PATIENCE, log.next_line()).await.expect("a line in time").expect("utf-8").expect("not ended");
    serde_json::from_str(&line).expect("each line of the log is JSON")
}

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it has not ended");
        kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("it is ours");
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it is ours")
    }
}

#[tokio::test]
async fn a_killed_simulator_still_knows_every_charge_and_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ledger.jsonl");
    let mut first = start(&file).await;
    let (_, charged) = json(first.api.charge("o-1", "pm_card_visa")).await;
    let (_, declined) = json(first.api.charge("o-2", "pm_card_chargeDeclined")).await;
    let intent = charged["id"].as_str().expect("an id");
    let refund = |api: &Api| api.post("/v1/refunds", &[("payment_intent", intent)]).header("Idempotency-Key", "refund-o-1");
    let (_, refunded) = json(refund(&first.api)).await;
    let ledger = first.api.ledger().await;
    first.signal(Signal::SIGKILL);
    first.ended().await;

    let second = start(&file).await;
    assert_eq!(second.api.ledger().await, ledger);
    assert_eq!(json(second.api.charge("o-1", "pm_card_visa")).await, (200, charged.clone()));
    assert_eq!(json(second.api.charge("o-2", "pm_card_chargeDeclined")).await, (402, declined));
    assert_eq!(json(refund(&second.api)).await, (200, refunded));
    assert_eq!(second.api.ledger().await, ledger, "nothing happened twice");
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_exits_0() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = start(&folder.path().join("ledger.jsonl")).await;
    process.api.set_faults(json!({"latency_ms": 500})).await;
    let charge = tokio::spawn(json(process.api.charge("o-1", "pm_card_visa")));
    in_flight(&process.api).await;

    process.signal(Signal::SIGTERM);

    assert_eq!(charge.await.expect("no panic").0, 200);
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = start(&folder.path().join("ledger.jsonl")).await;
    process.api.set_faults(json!({"latency_ms": 600_000})).await;
    let charge = tokio::spawn(process.api.charge("o-1", "pm_card_visa").send());
    in_flight(&process.api).await;

    process.signal(Signal::SIGTERM);
    while next_line(&mut process.log).await["signal"] != "SIGTERM" {}
    process.signal(Signal::SIGINT);

    assert_eq!(process.ended().await.code(), Some(130));
    assert!(charge.await.expect("no panic").is_err());
}

/// Waits until a request is being worked on.
async fn in_flight(api: &Api) {
    let seen = async { while json(api.get("/_control")).await.1["in_flight"] != 1 {} };
    timeout(PATIENCE, seen).await.expect("the charge arrives");
}

#[tokio::test]
async fn it_serves_health_and_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = start(&folder.path().join("ledger.jsonl")).await;
    json(process.api.charge("o-1", "pm_card_visa")).await;
    assert_eq!(json(process.api.get("/health")).await, (200, json!({"status": "alive"})));
    let (status, ready) = json(process.api.get("/ready")).await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    let metrics = process.api.get("/metrics").send().await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("gateway_requests_total{ending=\"charged\"} 1\n"), "{metrics}");
    assert!(metrics.contains("build_info{service=\"payment-simulator\""), "{metrics}");
}

#[tokio::test]
async fn wrong_settings_are_all_told_and_it_exits_2() {
    for (address, told) in [("", "LISTEN_ADDR: missing"), ("nowhere", "LISTEN_ADDR: not an address of the form host:port")] {
        let output = command().env("LISTEN_ADDR", address).output();
        let output = timeout(PATIENCE, output).await.expect("it ends in time").expect("it runs");
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("1 setting is missing or wrong:\n  {told}\n"));
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_second_simulator_on_the_same_ledger_refuses_to_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ledger.jsonl");
    let _first = start(&file).await;
    let output = command().env("LISTEN_ADDR", "127.0.0.1:0").env("LEDGER_FILE", &file).output();
    let output = timeout(PATIENCE, output).await.expect("it ends in time").expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use by another simulator"));
}

/// Not a benchmark, but the load of a whole-system test must not wait for the simulator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_charges_are_each_in_the_ledger_once() {
    const CLIENTS: usize = 16;
    const CHARGES: usize = 4_000;
    let folder = tempfile::tempdir().expect("a folder");
    let process = start(&folder.path().join("ledger.jsonl")).await;
    let api = std::sync::Arc::new(process.api);
    let started = std::time::Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let api = std::sync::Arc::clone(&api);
        clients.spawn(async move {
            for order in (client..CHARGES).step_by(CLIENTS) {
                let (status, _) = json(api.charge(&format!("o-{order}"), "pm_card_visa")).await;
                assert_eq!(status, 200);
            }
        });
    }
    clients.join_all().await;
    println!("{CHARGES} charges in {:?}", started.elapsed());
    let ledger = api.ledger().await;
    let charges = ledger["charges"].as_array().expect("a list");
    let orders: std::collections::HashSet<_> = charges.iter().filter_map(|charge| charge["order_id"].as_str()).collect();
    assert_eq!((charges.len(), orders.len()), (CHARGES, CHARGES));
}
