//! Somebody who looks at everything all the time, and notices when a query fails or shows less than one that was answered before.
//!
//! Queries are asked at a rate, however slow the answers are, each of them once. An answer is held against those alone that had come
//! before its question was sent: two that cross on the way may come in any order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::{Either, select};
use serde_json::{Value, json};
use tokio::pin;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::latency::Latencies;
use crate::shop::Shop;

/// How many of the orders that were seen last are looked at one by one.
const ORDERS_REMEMBERED: usize = 512;

/// What an onlooker saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How long each answer took, from when its query should have been sent.
    pub latencies: Latencies,
    /// The queries that failed, and how.
    pub failures: Vec<String>,
    /// What went backwards, or was gone.
    pub setbacks: Vec<String>,
}

/// Looks on, so many queries a second, until `until` is ready.
pub async fn look_on<T>(shop: &Shop, queries_per_s: f64, until: impl Future<Output = T>) -> (T, Seen) {
    let onlooker = Arc::new(Onlooker { shop: shop.clone(), memory: Mutex::default() });
    let mut queries = JoinSet::new();
    let asking = async {
        let mut ticks = interval(Duration::from_secs_f64(1.0 / queries_per_s));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0_u64.. {
            let due = ticks.tick().await;
            let onlooker = Arc::clone(&onlooker);
            queries.spawn(async move { onlooker.look(number, due).await });
        }
    };
    let outcome = {
        pin!(until, asking);
        match select(until, asking).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(((), until)) => until.await,
        }
    };
    let (mut latencies, mut failures) = (Vec::new(), Vec::new());
    while let Some(looked) = queries.join_next().await {
        match looked {
            Ok(Ok(latency)) => latencies.push(latency),
            Ok(Err(error)) => failures.push(format!("{error:#}")),
            Err(error) => failures.push(error.to_string()),
        }
    }
    let memory = onlooker.memory.lock().unwrap_or_else(PoisonError::into_inner);
    (outcome, Seen { latencies: Latencies::new(latencies), failures, setbacks: memory.setbacks.clone() })
}

struct Onlooker {
    shop: Shop,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// By what was looked at: when an answer came, and the furthest that any answer had shown by then.
    furthest: HashMap<String, Vec<(Instant, u64)>>,
    orders: Vec<String>,
    next_order: usize,
    setbacks: Vec<String>,
}

impl Onlooker {
    async fn look(&self, number: u64, due: Instant) -> anyhow::Result<Duration> {
        let asked = Instant::now();
        let order = self.memory().order_to_look_at();
        match (number % 4, order) {
            (0, _) => {
                let data = self.ask("{ projections { name position } }", &json!({})).await?;
                for projection in items(&data["projections"]) {
                    self.saw(&format!("the projection {}", projection["name"]), asked, position(projection)?);
                }
            }
            (1, Some(order)) => {
                let data = self.ask("query($id: ID!) { order(id: $id) { version position } }", &json!({ "id": order })).await?;
                let position = if data["order"].is_null() { 0 } else { position(&data["order"])? };
                self.saw(&format!("order {order}"), asked, position);
            }
            (2, _) => {
                let query = "{ stockItems(first: 20) { edges { node { sku position } } } auditTrail(last: 1) { edges { node { position } } } }";
                let data = self.ask(query, &json!({})).await?;
                for item in nodes(&data["stockItems"]) {
                    self.saw(&format!("stock {}", item["sku"]), asked, position(item)?);
                }
                for event in nodes(&data["auditTrail"]) {
                    self.saw("the audit trail", asked, position(event)?);
                }
            }
            _ => {
                let data = self.ask("{ orders(first: 20) { edges { node { orderId position } } } }", &json!({})).await?;
                for order in nodes(&data["orders"]) {
                    let order_id = order["orderId"].as_str().context("an order has no orderId")?;
                    self.saw(&format!("order {order_id}"), asked, position(order)?);
                    self.memory().remember(order_id);
                }
            }
        }
        Ok(due.elapsed())
    }

    async fn ask(&self, query: &str, variables: &Value) -> anyhow::Result<Value> {
        let mut answer = self.shop.ask_once(query, variables).await?;
        if !answer["errors"].is_null() {
            bail!("{query} is answered with {}", answer["errors"]);
        }
        Ok(answer["data"].take())
    }

    fn saw(&self, what: &str, asked: Instant, position: u64) {
        let mut memory = self.memory();
        let furthest = memory.furthest.entry(what.to_owned()).or_default();
        let before = furthest.partition_point(|(answered, _)| *answered <= asked);
        let known = before.checked_sub(1).map_or(0, |index| furthest[index].1);
        let most = furthest.last().map_or(0, |(_, position)| *position);
        if position > most {
            furthest.push((Instant::now(), position));
        }
        if position < known {
            memory.setbacks.push(format!("{what} was at {known}, and is at {position} for who asks later"));
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn remember(&mut self, order_id: &str) {
        if self.orders.iter().any(|known| known == order_id) {
            return;
        }
        if self.orders.len() < ORDERS_REMEMBERED {
            self.orders.push(order_id.to_owned());
        } else {
            order_id.clone_into(&mut self.orders[self.next_order % ORDERS_REMEMBERED]);
        }
    }

    fn order_to_look_at(&mut self) -> Option<String> {
        self.next_order += 1;
        let count = self.orders.len();
        (count > 0).then(|| self.orders[self.next_order % count].clone())
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn nodes(connection: &Value) -> impl Iterator<Item = &Value> {
    items(&connection["edges"]).map(|edge| &edge["node"])
}

fn position(of: &Value) -> anyhow::Result<u64> {
    let position = of["position"].as_str().and_then(|text| text.parse().ok());
    position.with_context(|| format!("{of} has no position"))
}
