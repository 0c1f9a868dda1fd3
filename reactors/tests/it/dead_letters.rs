//! `reactors dead-letters`, as an operator types it.

use std::sync::{Arc, atomic::Ordering};

use domain::{order::OrderStatus, payment::PaymentStatus};
use event_store::{DeadLetter, Sharing};
use reactors::{
    RetryBudget, Surroundings,
    breaker::{Breaker, Limits},
    dead_letters::{self, Selection, Verdict},
};
use serde_json::{Value, json};

use crate::{
    eventually,
    gateway::Gateway,
    process, running,
    shop::{NOW, ONE_TEA, PRICE, Shop, receive},
    squeamish::Squeamish,
    trail::Trail,
};

/// What the command prints as JSON, and its exit code.
async fn dead_letters(shop: &Shop, arguments: &[&str]) -> (Value, i32) {
    let mut command = process::bare();
    command.arg("dead-letters").args(arguments).args(["--output", "json"]).env("NATS_URL", shop.server.url());
    let output = process::output(&mut command).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| complaint.into_owned().into());
    (said, output.status.code().unwrap())
}

fn ids(said: &Value) -> Vec<&str> {
    said["dead_letters"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

pub(crate) fn letter(reactor: &str, position: u64) -> DeadLetter {
    DeadLetter {
        reactor: reactor.to_owned(),
        position,
        event_type: "contrail.order.placed.v1".to_owned(),
        aggregate_id: None,
        correlation_id: None,
        error_chain: vec!["a bug of an older build".to_owned()],
        attempts: 1,
        redrives: 0,
        first_died_at: None,
        died_at: NOW,
    }
}

#[tokio::test]
async fn a_refund_that_was_refused_is_found_and_redriven_once_its_cause_is_mended() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let _running = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    shop.receive("TEA", 10).await;
    let mut trail = Trail::of(&shop.store);
    let order = shop.place("o", ONE_TEA).await;
    trail.until("it is confirmed", |trail| trail.status(order) == Some(OrderStatus::Confirmed)).await;
    let intent = trail.orders[&order].payment_intent_id.clone().unwrap();
    gateway.refund_by_hand(&intent, order, 250).await;
    shop.cancel(order).await.unwrap();
    shop.idle("payments").await;

    let (listed, exit) = dead_letters(&shop, &["list"]).await;
    let [id] = ids(&listed)[..] else { panic!("{listed}") };
    let letter = &listed["dead_letters"][0];
    assert_eq!((exit, &letter["attempts"], &letter["aggregate_id"]), (0, &1.into(), &order.to_string().into()));
    let (shown, exit) = dead_letters(&shop, &["show", id]).await;
    assert_eq!(
        (exit, &shown["event"]["type"], &shown["event"]["subject"]),
        (0, &"contrail.order.cancelled.v1".into(), &order.to_string().into())
    );
    assert!(shown["error_chain"][0].as_str().unwrap().contains("the gateway refused with 400"), "{shown}");

    let (planned, exit) = dead_letters(&shop, &["redrive", id, "--dry-run"]).await;
    assert_eq!((exit, &planned["dead_letters"][0]["outcome"]), (0, &"dry_run".into()));
    let (redriven, exit) = dead_letters(&shop, &["redrive", id]).await;
    assert_eq!((exit, &redriven["dead_letters"][0]["outcome"]), (1, &"dead".into()), "nothing was mended");
    let (listed, _) = dead_letters(&shop, &["list", "--order", &order.to_string(), "--error", "refused with 400"]).await;
    let letter = &listed["dead_letters"][0];
    assert_eq!((&letter["attempts"], &letter["redrives"]), (&2.into(), &1.into()), "{listed}");
    assert_eq!(letter["first_died_at"], shown["died_at"], "{listed}");
    assert_ne!(letter["died_at"], shown["died_at"], "{listed}");

    gateway.refund_by_hand(&intent, order, PRICE - 250).await;
    let (redriven, exit) = dead_letters(&shop, &["redrive", "--reactor", "payments"]).await;
    assert_eq!((exit, &redriven["dead_letters"][0]["outcome"]), (0, &"done".into()), "{redriven}");
    trail.catch_up(&shop.store).await;
    assert_eq!(trail.payment_status(order), PaymentStatus::Refunded);
    assert_eq!(dead_letters(&shop, &["list"]).await, (json!({ "dead_letters": [] }), 0));
    assert_eq!(dead_letters(&shop, &["redrive", id]).await.1, 3, "it is gone");
}

#[tokio::test]
async fn an_event_that_a_reactor_has_let_go_is_handled_when_it_is_redriven() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let folder = tempfile::tempdir().unwrap();
    shop.receive("TEA", 10).await;
    let order = shop.place("o", ONE_TEA).await;
    let mut trail = Trail::of(&shop.store);
    trail.catch_up(&shop.store).await;
    let placed = trail.positions_of("order.placed")[0];
    // As if an older build had given it up.
    shop.acknowledge_all("allocator", &["order"], Sharing::OneActive).await;
    shop.store.put_dead_letter(&letter("allocator", placed)).await.unwrap();
    let id = format!("allocator-{placed}");
    let (said, exit) = dead_letters(&shop, &["redrive", &id]).await;
    assert_eq!((exit, &said["dead_letters"][0]["outcome"]), (75, &"not_now".into()), "nobody runs it: {said}");

    let _running = [
        running::allocator(&shop.store),
        running::payments(&shop.store, gateway.adapter()),
        running::notifications(&shop.store, folder.path()),
    ];
    shop.idle("allocator").await;
    trail.catch_up(&shop.store).await;
    assert_eq!(trail.status(order), Some(OrderStatus::Placed));
    let redriven = async || {
        let (said, exit) = dead_letters(&shop, &["redrive", "--all"]).await;
        (exit == 0).then_some(said)
    };
    let said = eventually("the allocator listens", redriven).await;
    assert_eq!(ids(&said), [id.as_str()]);
    trail.until("it goes its way", |trail| trail.status(order) == Some(OrderStatus::Confirmed)).await;
    trail.until("its customer is told", |trail| trail.notifications.len() == 1).await;

    // What was handled already is none the worse for it, by whichever reactor.
    for reactor in ["payments", "notifications", "allocator"] {
        for position in placed..=trail.events.last().unwrap().0 {
            shop.store.put_dead_letter(&letter(reactor, position)).await.unwrap();
        }
    }
    let head = shop.store.head().await.unwrap();
    let (said, exit) = dead_letters(&shop, &["redrive", "--all"]).await;
    assert_eq!((exit, dead_letters(&shop, &["list"]).await.0), (0, json!({ "dead_letters": [] })), "{said}");
    assert_eq!(shop.store.head().await.unwrap(), head);
    assert_eq!(gateway.money().await.charges[&order.to_string()], [PRICE]);
}

#[tokio::test]
async fn a_customer_who_was_not_told_is_told_when_it_is_redriven() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let folder = tempfile::tempdir().unwrap();
    shop.receive("TEA", 10).await;
    let _others = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    let order = shop.place("o", ONE_TEA).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("it is confirmed", |trail| trail.status(order) == Some(OrderStatus::Confirmed)).await;
    // As if an older build had given it up.
    shop.acknowledge_all("notifications", &["order", "payment"], Sharing::All).await;
    shop.store.put_dead_letter(&letter("notifications", trail.positions_of("order.confirmed")[0])).await.unwrap();
    let _notifications = running::notifications(&shop.store, folder.path());
    let redriven = async || (dead_letters(&shop, &["redrive", "--all"]).await.1 == 0).then_some(());
    eventually("the notifications listen", redriven).await;
    trail.until("its customer is told", |trail| trail.notifications.len() == 1).await;
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    assert_eq!(dead_letters(&shop, &["list"]).await.0, json!({ "dead_letters": [] }));
}

#[tokio::test]
async fn what_failed_until_its_outside_system_was_mended_succeeds_when_redriven() {
    let shop = Shop::open().await;
    let budget = RetryBudget { failures: 1, time: std::time::Duration::ZERO };
    let surroundings = Surroundings { budget, ..running::surroundings(&shop.store) };
    let breaker = Breaker::new("stomach", Limits::default(), &surroundings.metrics, &surroundings.health);
    let is_well = Arc::default();
    let squeamish = Squeamish { is_well: Arc::clone(&is_well), ..Squeamish::new(&breaker) };
    let _running = running::run_on(squeamish, surroundings);
    let poison = receive(&shop.store, "EEL", 1).await;
    let select = async || dead_letters::select(&shop.store, &Selection::default()).await.unwrap();
    let given_up = async || {
        shop.receive("TEA", 1).await;
        (select().await.len() == 1).then_some(())
    };
    eventually("it is given up", given_up).await;
    is_well.store(true, Ordering::Relaxed);
    let outcomes = dead_letters::redrive(&shop.store, &select().await).await;
    assert_eq!((outcomes[0].position, outcomes[0].outcome), (poison, Verdict::Done));
    assert_eq!(select().await, []);
}

#[tokio::test]
async fn what_is_discarded_is_kept_with_the_reason_and_what_is_not_selected_stays() {
    let shop = Shop::open().await;
    for (reactor, position) in [("allocator", 3), ("payments", 3), ("payments", 7)] {
        shop.store.put_dead_letter(&letter(reactor, position)).await.unwrap();
    }
    let listed = async |arguments: &[&str]| {
        let (said, exit) = dead_letters(&shop, &[&["list"], arguments].concat()).await;
        assert_eq!(exit, 0, "{said}");
        ids(&said).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]).await, ["allocator-3", "payments-3", "payments-7"]);
    assert_eq!(listed(&["--reactor", "payments", "--type", "contrail.order.placed.v1"]).await, ["payments-3", "payments-7"]);
    assert!(listed(&["--error", "no such text"]).await.is_empty());
    assert!(listed(&["--before", "2026-11-20T12:00:00Z"]).await.is_empty());
    let (said, exit) = dead_letters(&shop, &["show", "3"]).await;
    assert!(exit == 2 && said.as_str().unwrap().contains("allocator-3, payments-3"), "{said}");

    let discard =
        async |arguments: &[&str]| dead_letters(&shop, &[&["discard", "--reason", "a test order"], arguments].concat()).await;
    assert_eq!(discard(&["--reactor", "payments", "--dry-run"]).await.1, 0);
    assert_eq!(listed(&[]).await.len(), 3);
    assert_eq!(ids(&discard(&["payments-3"]).await.0), ["payments-3"]);
    assert_eq!(listed(&[]).await, ["allocator-3", "payments-7"]);
    assert_eq!(discard(&["payments-3"]).await.1, 3);
    assert_eq!(discard(&[]).await.1, 2, "nothing is said");
    assert_eq!(discard(&["--all", "7"]).await.1, 2, "two things are said");
    assert_eq!(dead_letters(&shop, &["discard", "7"]).await.1, 2, "a reason has to be given");
    assert_eq!(dead_letters(&shop, &["list", "--reactor", "typo"]).await.1, 2);
    assert_eq!(discard(&["--all"]).await.1, 0);
    assert!(listed(&[]).await.is_empty());
}

#[tokio::test]
async fn without_a_log_the_commands_say_so() {
    let mut shop = Shop::open().await;
    shop.server.kill();
    let (said, exit) = dead_letters(&shop, &["list"]).await;
    assert!(exit == 75 && said.as_str().unwrap().contains("waiting for the NATS server"), "{said}");
}
