//! Everything is lost while orders flow, and comes back from a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use e2e::load::{self, Counters, Load};
use e2e::workload::Workload;
use event_store::{DeadLetter, JetStreamEventStore};
use local_stack::stack::SERVICES;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::task::block_in_place;

use crate::running::{Running, order_of, orders_flow};

const ORDERS: u64 = 400;
const ORDERS_PER_S: f64 = 40.0;
const ORDERS_BEFORE: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn after_everything_was_lost_the_backup_has_all_that_was_before_it_and_nothing_happens_twice() {
    let mut running = Running::start();
    let shop = running.shop.clone();
    let workload = Workload::new("backup", 24, ORDERS);
    // Charges take their time, so that some are in flight at any moment.
    shop.set_gateway_faults(&serde_json::json!({ "latency_ms": {"min": 20, "max": 200} })).await.unwrap();
    load::receive_stock(&shop, &workload).await.unwrap();
    // What is scarce in the workload is not gone yet when the backup is taken.
    shop.place(&order_of("TEA-NONE", 1), "more-than-there-is").await.unwrap();
    let admin = running.info().nats.clone();
    let store = JetStreamEventStore::connect(&admin, "test").await.unwrap();
    store.wait_until_ready(|_| {}).await;
    store.put_dead_letter(&letter()).await.unwrap();
    let counters = Arc::<Counters>::default();
    let load = Load { rate: Some(ORDERS_PER_S), counters: counters.clone(), ..Load::default() };
    let again = workload.clone();
    let placing = {
        let shop = shop.clone();
        tokio::spawn(async move { load::run(&shop, &workload, &load).await })
    };
    orders_flow(&counters, &placing, ORDERS_BEFORE).await;

    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("backup");
    let (from, vkey) = (folder.to_str().unwrap(), running.info().audit_vkey.clone());
    let (code, backed_up) = as_set_up(&running, &["log", "backup", "--out", from]);
    assert_eq!(code, 0, "{backed_up}");
    let end = backed_up["position"].as_u64().unwrap();
    assert!(!placing.is_finished(), "orders still flow");
    assert!(backed_up["audit_size"].as_u64() > Some(0), "{backed_up}");

    // The service's own user may not.
    let forbidden = directory.path().join("forbidden");
    let (code, said) = projectors(&running, &["log", "backup", "--out", forbidden.to_str().unwrap()]);
    assert_eq!((code, forbidden.exists()), (75, false), "{said}");
    assert!(said.to_string().contains("projectors migrate"), "{said}");

    // Life goes on, and what comes now will be lost.
    let placed = placing.await.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(placed.orders.len() as u64, ORDERS);
    let head = e2e::settle::settle(running.info(), &shop).await.unwrap();
    assert!(head > end, "{head} {end}");
    let (before, after) = (directory.path().join("before.jsonl"), directory.path().join("after.jsonl"));
    export(&running, &before, end);
    let recorded: BTreeSet<String> = notifications(&store, end).await;
    let charged_before = shop.gateway_ledger().await.unwrap();
    drop(store);

    running.lose_all_data().await;
    for service in SERVICES {
        running.stop(service);
    }
    assert_eq!(running.info().audit_vkey, vkey, "the key is another thing to lose");
    let mails_before = mails(&running);
    let (code, restored) = as_set_up(&running, &["log", "restore", "--from", from, "--key", &vkey]);
    assert_eq!((code, restored["position"].as_u64(), &restored["signature_verified"]), (0, Some(end), &true.into()), "{restored}");
    let (code, _) = as_set_up(&running, &["migrate"]);
    assert_eq!(code, 0);
    let (code, replayed) = projectors(&running, &["replay", "all", "--output", "json"]);
    assert_eq!(code, 0, "{replayed}");
    for report in replayed["replays"].as_array().unwrap() {
        assert_eq!(report["position"].as_u64(), Some(end), "{report}");
    }
    let (code, verified) = projectors(&running, &["replay", "all", "--verify", "--output", "json"]);
    assert_eq!(code, 0, "{verified}");
    let (code, verdict) = projectors(&running, &["audit", "verify", "--live", "--key", &vkey, "--output", "json"]);
    assert_eq!((code, verdict["size"].as_u64()), (0, Some(end)), "{verdict}");
    export(&running, &after, end);
    assert_eq!(fs::read(&before).unwrap(), fs::read(&after).unwrap());
    let (_, letters) = reactors(&running, &["dead-letters", "list", "--output", "json"]);
    assert!(letters.to_string().contains("payments-1"), "{letters}");
    // A running shop is not restored over.
    let (code, _) = as_set_up(&running, &["log", "restore", "--from", from]);
    assert_eq!(code, 4);

    for service in SERVICES {
        running.start_again(service);
    }
    let (code, discarded) =
        reactors(&running, &["dead-letters", "discard", "payments-1", "--reason", "a test", "--output", "json"]);
    assert_eq!(code, 0, "{discarded}");
    running.shop = running.shop.clone().remembering(&shop, end);
    let report = e2e::invariants::check(running.stack(), &running.shop).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!((report.lost, report.duplicated, report.oversold, report.audit_verified), (0, 0, 0, true), "{report:#?}");
    assert!(report.confirmed > 0 && report.rejected > 0 && report.cancelled > 0, "{report:#?}");
    // What the gateway and the customers know of orders that are lost is all that does not fit.
    for line in &report.violations {
        let is_of_the_lost = line.ends_with("which is not in the log") || line.ends_with("belongs to no notification");
        assert!(is_of_the_lost || line.contains("… and "), "{line}");
    }

    // Nobody was charged again, and nobody was told again what the backup knew they were told.
    let charged = running.shop.gateway_ledger().await.unwrap();
    let by_order = |charges: &[e2e::shop::Charge]| {
        let mut counts = BTreeMap::<_, usize>::new();
        for charge in charges {
            *counts.entry(charge.order_id.clone()).or_default() += 1;
        }
        counts
    };
    assert_eq!(by_order(&charged.charges), by_order(&charged_before.charges));
    assert!(by_order(&charged.charges).values().all(|charges| *charges == 1));
    let refunds: BTreeSet<_> = charged.refunds.iter().map(|refund| refund.order_id.clone()).collect();
    assert_eq!(refunds.len(), charged.refunds.len(), "nobody was given money back twice");
    let mails_after = mails(&running);
    assert!(recorded.len() > 100, "{}", recorded.len());
    for id in &recorded {
        assert_eq!(mails_after.get(id), mails_before.get(id), "{id}");
        assert!(mails_before.contains_key(id), "{id}");
    }
    // The lost charges are found, and only those.
    let known: BTreeSet<String> =
        running.shop.acknowledged().into_values().flatten().map(|order| order.order_id.to_string()).collect();
    let lost = charged.charges.iter().filter(|charge| !charge.order_id.as_ref().is_some_and(|order| known.contains(order))).count();
    assert!(lost > 0, "orders were lost, or this test shows nothing");
    let (code, reconciled) = reactors(&running, &["reconcile", "--settle-s", "0", "--output", "json"]);
    let differences = reconciled["differences"].as_array().unwrap_or_else(|| panic!("{reconciled}"));
    assert_eq!((code, differences.len()), (5, lost), "{reconciled}");
    assert!(differences.iter().all(|difference| difference["kind"] == "unknown_order"), "{reconciled}");
    // A checkout that sends a lost order again is not charged again.
    let promised = running.shop.acknowledged();
    let is_kept = |order: &String| {
        let refunded = charged.refunds.iter().any(|refund| refund.order_id.as_ref() == Some(order));
        !refunded && charged.charges.iter().any(|charge| charge.order_id.as_ref() == Some(order))
    };
    let lost = shop.acknowledged().into_iter().filter(|(key, _)| !promised.contains_key(key));
    let mut lost = lost.map(|(key, answers)| (key, answers[0].order_id.to_string()));
    let (key, order_id) = lost.find(|(_, order_id)| is_kept(order_id)).expect("orders were lost that were paid");
    let planned = (0..ORDERS).map(|index| again.order(index)).find(|planned| planned.key == key).expect("it was planned");
    let placed = running.shop.place(&planned.order, &key).await.unwrap();
    assert_eq!(placed.order_id.to_string(), order_id);
    e2e::settle::settle(running.info(), &running.shop).await.unwrap();
    let seen = running.shop.order(&order_id, None).await.unwrap().expect("it is there again");
    assert_eq!(seen.status, "CONFIRMED");
    let charged_again = running.shop.gateway_ledger().await.unwrap();
    assert_eq!(by_order(&charged_again.charges), by_order(&charged.charges));
    running.finish();
}

fn letter() -> DeadLetter {
    DeadLetter {
        reactor: "payments".to_owned(),
        position: 1,
        event_type: "contrail.stock.received.v1".to_owned(),
        aggregate_id: None,
        correlation_id: None,
        error_chain: vec!["a test".to_owned()],
        attempts: 1,
        redrives: 0,
        first_died_at: None,
        died_at: OffsetDateTime::UNIX_EPOCH,
    }
}

/// What the log says was sent, up to a position.
async fn notifications(store: &JetStreamEventStore, end: u64) -> BTreeSet<String> {
    let (mut reader, mut ids, mut at) = (store.read_from(1), BTreeSet::new(), 0);
    while at < end {
        for message in reader.next_batch(1_000).await.unwrap() {
            at = message.position;
            if at <= end && message.aggregate_type() == "notification" {
                ids.extend(message.subject.rsplit('.').next().map(str::to_owned));
            }
        }
    }
    ids
}

/// Each mail by its notification: which file it is, and when that was written.
fn mails(running: &Running) -> BTreeMap<String, (u64, i64, i64)> {
    let folder = running.stack().directory().join("mail");
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mails = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().strip_suffix(".eml")?.to_owned();
        let file = entry.metadata().unwrap();
        Some((name, (file.ino(), file.mtime(), file.mtime_nsec())))
    });
    mails.collect()
}

fn export(running: &Running, file: &Path, end: u64) {
    let end = end.to_string();
    let (code, said) =
        projectors(running, &["audit", "export", "--to-position", &end, "--out", file.to_str().unwrap(), "--output", "json"]);
    assert_eq!(code, 0, "{said}");
}

/// As the user who sets up the streams.
fn as_set_up(running: &Running, arguments: &[&str]) -> (i32, Value) {
    let mut command = running.stack().command("projectors").unwrap();
    command.env("NATS_URL", &running.info().nats).args(arguments);
    if arguments[0] == "log" {
        command.args(["--output", "json"]);
    } else {
        command.env("READER_ROLE", "contrail_query");
    }
    run(command)
}

fn projectors(running: &Running, arguments: &[&str]) -> (i32, Value) {
    let mut command = running.stack().command("projectors").unwrap();
    command.args(arguments);
    run(command)
}

fn reactors(running: &Running, arguments: &[&str]) -> (i32, Value) {
    let mut command = running.stack().command("reactors").unwrap();
    command.args(arguments);
    run(command)
}

fn run(mut command: std::process::Command) -> (i32, Value) {
    let output = block_in_place(|| command.output()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = || Value::from(format!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), serde_json::from_str(&text).unwrap_or_else(|_| said()))
}
