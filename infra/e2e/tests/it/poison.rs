//! A message in the log that nobody can apply: one read model stands before it and says so, everything else goes on.

use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use e2e::eventually::eventually;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::running::{Running, order_of};

const DEADLINE: Duration = Duration::from_mins(1);
const POISON: &str = "this is no event";
const NAMES: [&str; 3] = ["orders", "inventory", "audit"];

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_message_halts_one_projection_everybody_says_so_and_skip_resumes() {
    let running = Running::start();
    let shop = &running.shop;
    shop.receive("TEA-1", 10, "receipt").await.unwrap();
    let before = shop.place(&order_of("TEA-1", 1), "before").await.unwrap().order_id.to_string();
    is_confirmed(&running, &before).await;
    assert_eq!(ready(&running).await.0, 200);

    let log = jetstream::new(event_store::options(&running.info().nats).connect(&running.info().nats).await.unwrap());
    let poisoned = log.publish("events.order.poison", POISON.into()).await.unwrap().await.unwrap().sequence;
    let after = shop.place(&order_of("TEA-1", 1), "after").await.unwrap().order_id.to_string();

    // The order goes on, and so do the other two read models.
    let stock = eventually("the order's stock is set aside", DEADLINE, async || {
        Ok(shop.stock_item("TEA-1", None).await?.filter(|stock| stock.reserved == 2))
    });
    stock.await.unwrap();
    let payment = eventually("the order is paid", DEADLINE, async || {
        let ledger = shop.gateway_ledger().await?;
        Ok((ledger.charges.len() == 2).then_some(()))
    });
    payment.await.unwrap();
    let head = log.get_stream("EVENTS").await.unwrap().cached_info().state.last_sequence;
    for name in ["inventory", "audit"] {
        let goes_on = eventually("it goes on", DEADLINE, async || {
            let projection = projection(&running, name).await;
            Ok((position(&projection["position"]) >= head && projection["state"] == "RUNNING").then_some(()))
        });
        goes_on.await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    // Everybody says where, and why.
    let orders = projection(&running, "orders").await;
    assert_eq!((&orders["state"], position(&orders["position"])), (&json!("HALTED"), poisoned - 1));
    assert_eq!(position(&orders["halt"]["position"]), poisoned);
    let reason = orders["halt"]["reason"].as_str().unwrap().to_owned();
    let (status, said) = ready(&running).await;
    assert!(status == 503 && said.contains("orders") && said.contains(&reason), "{status} {said}");
    let (status, health) = get(&running, "health").await;
    assert_eq!(status, 200, "{health}");
    let metrics = get(&running, "metrics").await.1;
    for name in NAMES {
        let halted = u8::from(name == "orders");
        assert!(metrics.contains(&format!("projection_halted{{projection=\"{name}\"}} {halted}\n")), "{metrics}");
    }
    let (code, status) = projectors(&running, &["status", "--output", "json"]);
    assert_eq!((code, &status["projections"][0]["halt"]["position"]), (0, &json!(poisoned)), "{status}");
    assert!(shop.order(&after, None).await.unwrap().is_none(), "the orders' read model stands before it");

    // A replay would come to the same event, and swaps nothing; the right skip is the way on.
    assert_ne!(projectors(&running, &["replay", "orders"]).0, 0);
    let wrong = (poisoned + 1).to_string();
    assert_eq!(projectors(&running, &["skip", "orders", "--reason", "a test", "--position", &wrong]).0, 4);
    assert_eq!(projectors(&running, &["skip", "audit", "--reason", "a test"]).0, 4);
    let (code, skipped) = projectors(&running, &["skip", "orders", "--reason", "a test", "--output", "json"]);
    assert_eq!((code, &skipped["skipped"]["position"]), (0, &json!(poisoned)), "{skipped}");
    is_confirmed(&running, &after).await;
    let (_, status) = projectors(&running, &["status", "--output", "json"]);
    let counts: Vec<_> = status["projections"].as_array().unwrap().iter().map(|row| row["skipped"].as_u64()).collect();
    assert_eq!(counts, [Some(1), Some(0), Some(0)], "{status}");
    eventually("the projectors are ready", DEADLINE, async || Ok((ready(&running).await.0 == 200).then_some(()))).await.unwrap();
    assert_eq!(projection(&running, "orders").await["state"], "RUNNING");
    assert_eq!(projectors(&running, &["replay", "all", "--output", "json"]).0, 0);
    let (code, compared) = projectors(&running, &["replay", "all", "--verify", "--output", "json"]);
    assert_eq!(code, 0, "{compared}");
    assert_eq!(projectors(&running, &["audit", "verify", "--live", "--output", "json"]).0, 0);
    running.finish();
}

async fn is_confirmed(running: &Running, order_id: &str) {
    let confirmed = eventually("the order is confirmed", DEADLINE, async || {
        Ok(running.shop.order(order_id, None).await?.filter(|order| order.status == "CONFIRMED"))
    });
    confirmed.await.unwrap_or_else(|error| panic!("{error:#}"));
}

async fn projection(running: &Running, name: &str) -> Value {
    let query = "{ projections { name position state halt { position reason } } }";
    let answer = running.shop.ask_once(query, &json!({})).await.unwrap();
    let projections = answer["data"]["projections"].as_array().unwrap();
    projections.iter().find(|projection| projection["name"] == name).unwrap().clone()
}

fn position(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

async fn ready(running: &Running) -> (u16, String) {
    get(running, "ready").await
}

async fn get(running: &Running, what: &str) -> (u16, String) {
    let response = reqwest::get(format!("{}/{what}", running.info().projectors)).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn projectors(running: &Running, arguments: &[&str]) -> (i32, Value) {
    let mut command: Command = running.stack().command("projectors").unwrap();
    let output = block_in_place(|| command.args(arguments).output()).unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_whose_projection_is_halted_can_be_started_to_mend_that() {
    let mut running = Running::start();
    let log = jetstream::new(event_store::options(&running.info().nats).connect(&running.info().nats).await.unwrap());
    let poisoned = log.publish("events.order.poison", POISON.into()).await.unwrap().await.unwrap().sequence;
    drop(log);
    running.restart_as(|options| options.may_be_halted = true, |_| ());
    let [halt] = running.stack().halted() else { panic!("{:?}", running.stack().halted()) };
    assert!(halt.starts_with(&format!("orders is halted: event {poisoned} ")), "{halt}");
    assert_eq!(projectors(&running, &["skip", "orders", "--reason", "a test"]).0, 0);
    eventually("the projectors are ready", DEADLINE, async || Ok((ready(&running).await.0 == 200).then_some(()))).await.unwrap();
    running.finish();
}
