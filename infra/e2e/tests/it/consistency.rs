//! What queries promise: pages without gaps while orders come and change, one's own writes, and the past.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use e2e::latency::Latencies;
use e2e::load::{self, Load};
use e2e::random::Random;
use e2e::shop::Shop;
use e2e::workload::Workload;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::running::{Running, order_of, orders_flow};

/// Requests at the same time.
const IN_FLIGHT: usize = 16;
/// How long the query API waits for a position unless set otherwise.
const MIN_POSITION_WAIT: Duration = Duration::from_secs(5);

/// All orders, page by page, in one direction.
async fn walk(shop: &Shop, forwards: bool) -> Vec<String> {
    let query = if forwards {
        "query ($at: String) { orders(first: 100, after: $at) { edges { cursor node { orderId } } pageInfo { hasNextPage endCursor } } }"
    } else {
        "query ($at: String) { orders(last: 100, before: $at) { edges { cursor node { orderId } } pageInfo { hasPreviousPage startCursor } } }"
    };
    let (more, cursor) = if forwards { ("hasNextPage", "endCursor") } else { ("hasPreviousPage", "startCursor") };
    let (mut seen, mut at) = (Vec::new(), Value::Null);
    loop {
        let data: Value = shop.query(query, &json!({ "at": at })).await.unwrap();
        let orders = &data["orders"];
        let ids = orders["edges"].as_array().unwrap().iter().map(|edge| edge["node"]["orderId"].as_str().unwrap().to_owned());
        if forwards {
            seen.extend(ids);
        } else {
            seen.extend(ids.rev());
        }
        if orders["pageInfo"][more] == false {
            return seen;
        }
        at = orders["pageInfo"][cursor].clone();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_orders_are_walked_without_gap_or_repetition_while_others_come_and_change() {
    const ORDERS: u64 = 10_000;
    let running = Running::start();
    let shop = &running.shop;
    let placed = Workload::new("walked", 11, ORDERS);
    load::receive_stock(shop, &placed).await.unwrap();
    let placed = load::run(shop, &placed, &Load::default()).await.unwrap();
    let placed: BTreeSet<_> = placed.orders.into_iter().map(|order| order.order_id).collect();
    assert_eq!(placed.len() as u64, ORDERS);

    // More come and change, for longer than the walks take.
    let others = Workload::new("meanwhile", 12, 1_000_000);
    let load = Load { rate: Some(50.0), ships: true, ..Load::default() };
    let counters = load.counters.clone();
    let loading = {
        let shop = shop.clone();
        tokio::spawn(async move {
            load::receive_stock(&shop, &Workload::new("meanwhile", 12, 10_000)).await.unwrap();
            load::run(&shop, &others, &load).await
        })
    };
    orders_flow(&counters, &loading, 50).await;
    let changing = async {
        // Those that are walked change meanwhile as well.
        let cancelled = futures::stream::iter(placed.iter().step_by(20)).map(|order_id| async move {
            // Some have come to their ends.
            shop.cancel(order_id.parse().unwrap(), "walked past", &format!("cancel-{order_id}")).await.is_ok()
        });
        cancelled.buffer_unordered(4).filter(|changed| std::future::ready(*changed)).count().await
    };
    let (forwards, backwards, changed) = tokio::join!(walk(shop, true), walk(shop, false), changing);
    let meanwhile = counters.now().placed;
    assert!(changed > 0, "nothing changed meanwhile");
    loading.abort();
    for (direction, seen) in [("forwards", forwards), ("backwards", backwards)] {
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "{direction}: some were seen twice");
        let skipped: Vec<_> = placed.difference(&distinct).collect();
        assert!(skipped.is_empty(), "{direction}: {} were skipped, such as {:?}", skipped.len(), skipped.first());
        assert!(seen.len() as u64 > ORDERS, "{direction}: {meanwhile} were placed meanwhile, and none was seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_places_an_order_sees_it_at_once_five_thousand_times() {
    const ORDERS: u32 = 5_000;
    let mut running = Running::start();
    let shop = running.shop.clone();
    shop.receive("TEA-1", 1_000_000, "receipt").await.unwrap();
    let query = "query ($id: ID!, $min: Position) { order(id: $id, minPosition: $min) { orderId position } }";
    let waits = futures::stream::iter(0..ORDERS).map(|number| {
        let shop = &shop;
        async move {
            let placed = shop.place(&order_of("TEA-1", 1), &format!("own-{number}")).await?;
            let asked = Instant::now();
            let answer = shop.ask_once(query, &json!({ "id": placed.order_id, "min": placed.position.to_string() })).await?;
            let order = &answer["data"]["order"];
            anyhow::ensure!(order["orderId"] == placed.order_id.to_string(), "{answer}");
            let position: u64 = order["position"].as_str().unwrap_or_default().parse()?;
            anyhow::ensure!(position >= placed.position, "older than what was answered: {answer}");
            Ok(asked.elapsed())
        }
    });
    let waits: Vec<Duration> = waits.buffer_unordered(IN_FLIGHT).try_collect().await.unwrap();
    assert_eq!(waits.len(), ORDERS as usize);
    let percentiles = Latencies::new(waits).percentiles();
    eprintln!("one's own order is seen within {} ms (p50), {} ms (p99)", percentiles.p50, percentiles.p99);

    // A projector that is down is told of within the bound of the wait, and nobody hangs.
    running.stop("projectors");
    let placed = shop.place(&order_of("TEA-1", 1), "unseen").await.unwrap();
    let asked = Instant::now();
    let answer = shop.ask_once(query, &json!({ "id": placed.order_id, "min": placed.position.to_string() })).await.unwrap();
    let waited = asked.elapsed();
    eprintln!("without projectors one is told so after {} ms", waited.as_millis());
    assert!(waited < 2 * MIN_POSITION_WAIT, "{waited:?}");
    let error = &answer["errors"][0]["extensions"];
    assert_eq!((&error["code"], &error["minPosition"]), (&json!("STALE_READ"), &json!(placed.position.to_string())), "{answer}");
    running.start_again("projectors");
    let seen = shop.order(&placed.order_id.to_string(), Some(placed.position)).await.unwrap();
    assert!(seen.is_some());
    running.check_invariants().await;
    running.finish();
}

/// One event of the exported trail.
struct Exported {
    position: u64,
    time: OffsetDateTime,
    event_type: String,
}

/// What an order looks like after these events, by their names alone.
fn fold(events: &[&Exported]) -> Option<(String, String, u64)> {
    let (mut status, mut payment, mut version) = (None, "NONE", 0);
    for event in events {
        let name = event.event_type.trim_start_matches("contrail.").trim_end_matches(".v1");
        version += u64::from(name.starts_with("order."));
        match name {
            "order.placed" => status = Some("PLACED"),
            "order.stock_reserved" => status = Some("RESERVED"),
            "order.confirmed" => status = Some("CONFIRMED"),
            "order.shipped" => status = Some("SHIPPED"),
            "order.delivered" => status = Some("DELIVERED"),
            "order.rejected" => status = Some("REJECTED"),
            "order.cancelled" => status = Some("CANCELLED"),
            "payment.captured" => payment = "CAPTURED",
            "payment.declined" => payment = "DECLINED",
            "payment.refunded" => payment = "REFUNDED",
            _ => {}
        }
    }
    Some((status?.to_owned(), payment.to_owned(), version))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_what_the_exported_trail_says_at_a_thousand_instants() {
    const INSTANTS: u64 = 1_000;
    let running = Running::start();
    let shop = &running.shop;
    let workload = Workload::new("past", 13, 300);
    load::receive_stock(shop, &workload).await.unwrap();
    load::run(shop, &workload, &Load { ships: true, ..Load::default() }).await.unwrap();
    running.check_invariants().await;
    let file = running.stack().directory().join("trail.jsonl");
    let mut export = running.stack().command("projectors").unwrap();
    export.args(["audit", "export", "--format", "jsonl", "--out"]).arg(&file);
    let output = block_in_place(|| export.output()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // A line's number is its position. An order's events are its own, its payment's, and those of its notifications.
    let mut by_order: BTreeMap<String, Vec<Exported>> = BTreeMap::new();
    for (position, line) in (1_u64..).zip(fs::read_to_string(&file).unwrap().lines()) {
        let event: Value = serde_json::from_str(line).unwrap();
        let order_id = match event["aggregatetype"].as_str().unwrap() {
            "order" | "payment" => event["subject"].as_str().unwrap(),
            "notification" => event["data"]["order_id"].as_str().unwrap(),
            _ => continue,
        };
        let time = OffsetDateTime::parse(event["time"].as_str().unwrap(), &Rfc3339).unwrap();
        let event_type = event["type"].as_str().unwrap().to_owned();
        by_order.entry(order_id.to_owned()).or_default().push(Exported { position, time, event_type });
    }
    assert_eq!(by_order.len(), 300);
    let times = || by_order.values().flatten().map(|event| event.time);
    let (first, last) = (times().min().unwrap(), times().max().unwrap());
    let span_us = u64::try_from((last - first).whole_microseconds()).unwrap() + 1_000;
    let orders: Vec<_> = by_order.keys().collect();
    let mut random = Random::new(INSTANTS);
    let asked: Vec<_> = (0..INSTANTS)
        .map(|_| {
            let order = orders[usize::try_from(random.below(orders.len() as u64)).unwrap()];
            // Half of them amid the order's own events, where something happens.
            let events = &by_order[order];
            let instant = if random.below(2) == 0 {
                first + Duration::from_micros(random.below(span_us))
            } else {
                let event = &events[usize::try_from(random.below(events.len() as u64)).unwrap()];
                event.time + time::Duration::microseconds(i64::try_from(random.below(2_000)).unwrap() - 1_000)
            };
            (order, instant)
        })
        .collect();
    let query = "query ($id: ID!, $at: DateTime) { order(id: $id, asOf: $at) { status paymentStatus version } }";
    let differing = futures::stream::iter(asked).map(|(order, instant)| {
        let events = &by_order[order];
        async move {
            let up_to = events.iter().filter(|event| event.time <= instant).map(|event| event.position).max().unwrap_or(0);
            let before: Vec<_> = events.iter().filter(|event| event.position <= up_to).collect();
            let expected = fold(&before).map_or(
                Value::Null,
                |(status, payment, version)| json!({ "status": status, "paymentStatus": payment, "version": version }),
            );
            let at = instant.format(&Rfc3339).unwrap();
            let data: Value = shop.query(query, &json!({ "id": order, "at": at })).await.unwrap();
            (data["order"] != expected).then(|| format!("order {order} at {at}: {} instead of {expected}", data["order"]))
        }
    });
    let differing: Vec<String> = differing.buffer_unordered(IN_FLIGHT).filter_map(std::future::ready).collect().await;
    assert!(differing.is_empty(), "{} of {INSTANTS} differ: {}", differing.len(), differing[0]);
    running.finish();
}
