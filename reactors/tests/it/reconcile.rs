//! `reactors reconcile`, as an operator types it.

use domain::{OrderId, order::OrderStatus, payment::PaymentStatus};
use event_store::Sharing;
use payment_simulator::Faults;
use serde_json::Value;

use crate::{
    eventually,
    gateway::Gateway,
    process, running,
    shop::{ONE_TEA, PRICE, Shop},
    trail::Trail,
};

/// What the command prints as JSON, and its exit code, if nothing is too recent for it.
async fn reconcile(shop: &Shop, gateway: &Gateway, arguments: &[&str]) -> (Value, i32) {
    reconcile_after(0, shop, gateway, arguments).await
}

async fn reconcile_after(settle_s: u32, shop: &Shop, gateway: &Gateway, arguments: &[&str]) -> (Value, i32) {
    let mut command = process::bare();
    command.arg("reconcile").args(["--output", "json", "--settle-s", &settle_s.to_string()]).args(arguments);
    command.env("NATS_URL", shop.server.url()).env("STRIPE_API_BASE", gateway.base()).env("STRIPE_API_KEY", "sk_test_1");
    let output = process::output(&mut command).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| complaint.into_owned().into());
    (said, output.status.code().unwrap())
}

fn kinds(said: &Value) -> Vec<&str> {
    let differences = said["differences"].as_array().unwrap_or_else(|| panic!("{said}"));
    differences.iter().map(|difference| difference["kind"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn books_that_agree_are_said_to_and_what_is_too_recent_is_left_alone() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    shop.receive("TEA", 1_000).await;
    let _running = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    let mut trail = Trail::of(&shop.store);
    // More than one page of charges, and one of refunds.
    let orders = shop.place_many("o", 130, ONE_TEA).await;
    trail.until("all are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    for order in &orders[..5] {
        shop.cancel(*order).await.unwrap();
    }
    let refunded = |trail: &Trail| orders[..5].iter().all(|order| trail.payment_status(*order) == PaymentStatus::Refunded);
    trail.until("some are refunded", refunded).await;
    gateway.charge_by_hand(None, PRICE).await;
    let (said, exit) = reconcile(&shop, &gateway, &[]).await;
    assert_eq!((exit, kinds(&said).as_slice()), (0, [].as_slice()), "{said}");
    assert_eq!(
        (&said["orders"], &said["charges"], &said["refunds"], &said["foreign"]),
        (&130.into(), &131.into(), &5.into(), &1.into())
    );
    let (said, _) = reconcile_after(3_600, &shop, &gateway, &[]).await;
    assert_eq!((&said["recent"], kinds(&said).len()), (&130.into(), 0));
    let (said, exit) = reconcile(&shop, &gateway, &["--since", "2100-01-01T00:00:00Z"]).await;
    assert_eq!((exit, &said["charges"], kinds(&said).len()), (0, &0.into(), 0), "{said}");
}

#[tokio::test]
async fn every_kind_of_difference_is_found_and_what_can_be_mended_is() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    shop.receive("TEA", 1_000).await;
    let _allocator = running::allocator(&shop.store);
    let payments = running::payments(&shop.connect().await, gateway.adapter());
    let mut trail = Trail::of(&shop.store);
    let confirmed = shop.place_many("c", 4, ONE_TEA).await;
    trail.until("some are confirmed", |trail| trail.all_are(&confirmed, OrderStatus::Confirmed)).await;
    let [twice, given_back, owed, _untouched] = confirmed.try_into().unwrap();
    let intent_of = |trail: &Trail, order| trail.orders[&order].payment_intent_id.clone().unwrap();

    // Charged without anybody's having heard of it: one still wants it, one does not.
    gateway.set_faults(Faults { lost_answer_rate: 1.0, ..Faults::default() });
    let lost = shop.place_many("l", 2, ONE_TEA).await;
    let charged = async || (gateway.money().await.charges.len() == 6).then_some(());
    eventually("both are charged", charged).await;
    payments.drain().await;
    gateway.set_faults(Faults::default());
    let [wanted, unwanted] = lost.try_into().unwrap();
    shop.cancel(unwanted).await.unwrap();
    // Called off, and nobody gives the money back.
    shop.cancel(owed).await.unwrap();
    shop.acknowledge_all("payments", &["order"], Sharing::All).await;
    gateway.charge_by_hand(Some(twice), PRICE).await;
    gateway.refund_by_hand(&intent_of(&trail, given_back), given_back, 250).await;
    gateway.charge_by_hand(Some(OrderId::derive("nobody", "nothing")), PRICE).await;
    trail.catch_up(&shop.store).await;

    let (said, exit) = reconcile(&shop, &gateway, &[]).await;
    let all =
        ["charge_not_recorded", "charge_not_recorded", "charged_twice", "refund_not_recorded", "refund_owed", "unknown_order"];
    assert_eq!((exit, kinds(&said).as_slice()), (5, all.as_slice()), "{said}");
    assert!(said["differences"].as_array().unwrap().iter().all(|difference| difference["fixed"].is_null()), "{said}");

    let (said, exit) = reconcile(&shop, &gateway, &["--fix"]).await;
    assert!(exit == 5 && said.to_string().contains("nobody runs the payments reactor"), "{said}");
    let _payments = running::payments(&shop.connect().await, gateway.adapter());
    let fixed = async || {
        let (said, exit) = reconcile(&shop, &gateway, &["--fix"]).await;
        assert_eq!(exit, 5, "{said}");
        (kinds(&said) == ["refund_not_recorded", "unknown_order"]).then_some(said)
    };
    let said = eventually("all but two are mended", fixed).await;
    assert!(said["differences"].as_array().unwrap().iter().all(|difference| difference["fix"]["action"] == "by_hand"), "{said}");
    trail.catch_up(&shop.store).await;
    assert_eq!((trail.status(wanted), trail.payment_status(wanted)), (Some(OrderStatus::Confirmed), PaymentStatus::Captured));
    assert_eq!((trail.payment_status(unwanted), trail.payment_status(owed)), (PaymentStatus::Refunded, PaymentStatus::Refunded));
    let money = gateway.money().await;
    assert_eq!(money.charges[&twice.to_string()], [PRICE, PRICE]);
    let refunded: i64 = money.refunds.values().flatten().sum();
    assert_eq!(refunded, 3 * PRICE + 250, "the unwanted, the one that was owed, the one too many, and what was given back by hand");
}

#[tokio::test]
async fn without_a_gateway_or_with_wrong_settings_it_says_so() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    gateway.set_faults(Faults { outage: true, ..Faults::default() });
    assert_eq!(reconcile(&shop, &gateway, &[]).await.1, 75);
    let mut command = process::bare();
    let output = process::output(command.arg("reconcile")).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    for name in ["NATS_URL", "STRIPE_API_BASE", "STRIPE_API_KEY"] {
        assert!(told.contains(&format!("\n  {name}: missing")), "{told}");
    }
}
