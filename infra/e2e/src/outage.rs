//! The payment gateway is down for a while, and orders keep coming at their rate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use local_stack::Stack;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::load::{self, Counters, Load};
use crate::scrape::Scrape;
use crate::shop::Shop;
use crate::workload::Workload;

/// The gateway's name in the reactors' metrics.
const GATEWAY: &str = "payment-gateway";
/// How often the orders on their way are counted.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The backlog is gone when no more orders are on their way than come in within this time.
const NO_BACKLOG: Duration = Duration::from_secs(1);
/// How long after an outage nothing may come to an end: the breaker asks at least every 15 s.
const RECOVERY_MAX: Duration = Duration::from_mins(2);

/// How long, and how much goes on meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Orders per second, from beginning to end.
    pub orders_per_s: f64,
    /// For how long orders come before the gateway goes down; and again after it is back.
    pub before_and_after: Duration,
    /// For how long it is down.
    pub outage: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Orders placed, all of which have come to an end.
    pub orders: u64,
    /// Those on their way when the gateway came back.
    pub backlog: u64,
    /// From then until orders were no longer waiting.
    pub drained_in: Duration,
    /// How often the breaker opened.
    pub opened: f64,
    /// How often it closed again.
    pub closed: f64,
    /// Calls that the gateway turned away: it is left alone while it is down.
    pub turned_away: u64,
}

impl Outcome {
    /// Orders per second that came to an end while the backlog went.
    pub fn drain_rate(&self, plan: &Plan) -> f64 {
        let drained_s = self.drained_in.as_secs_f64();
        (as_f64(self.backlog) + plan.orders_per_s * drained_s) / drained_s
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, backlog, opened, closed, turned_away, .. } = self;
        write!(
            f,
            "{orders} orders; {backlog} waited when the gateway came back, and none any more after {:.1} s; the breaker opened {opened} times and \
             closed {closed} times; the gateway turned away {turned_away} calls",
            self.drained_in.as_secs_f64(),
        )
    }
}

/// Places orders while the gateway is up, down, and up again, and waits until every one has come to its end.
///
/// Fails if one does not, or if the breaker was not open when the gateway came back, or is not closed at the end.
pub async fn run(stack: &Stack, shop: &Shop, workload_name: &str, plan: &Plan) -> anyhow::Result<Outcome> {
    let orders = load::orders_in(plan.orders_per_s, plan.before_and_after * 2 + plan.outage);
    let workload = Workload::new(workload_name, 20_261_121, orders);
    load::receive_stock(shop, &workload).await?;
    let counters = Arc::<Counters>::default();
    let load = Load {
        rate: Some(plan.orders_per_s),
        counters: counters.clone(),
        stall_after: Some(plan.outage + RECOVERY_MAX),
        ..Load::default()
    };
    let refused_before = turned_away(shop).await?;
    let trouble = async {
        sleep(plan.before_and_after).await;
        shop.set_gateway_faults(&json!({ "outage": true })).await?;
        sleep(plan.outage).await;
        let during = Scrape::of(&stack.info().reactors).await?;
        let opened = during.breaker_changes(GATEWAY, "open").context("the breaker is not among the metrics")?;
        ensure!(opened > 0.0, "the gateway was down and its breaker did not open");
        let now = counters.now();
        let backlog = now.placed.saturating_sub(now.settled());
        shop.set_gateway_faults(&json!({})).await?;
        let back = Instant::now();
        let no_backlog = load::orders_in(plan.orders_per_s, NO_BACKLOG);
        loop {
            let now = counters.now();
            if now.placed.saturating_sub(now.settled()) <= no_backlog {
                return Ok((backlog, back.elapsed()));
            }
            sleep(LOOK_INTERVAL).await;
        }
    };
    let placing = load::run(shop, &workload, &load);
    let (placed, (backlog, drained_in)) = tokio::try_join!(placing, trouble)?;
    let after = Scrape::of(&stack.info().reactors).await?;
    let changes = |phase| after.breaker_changes(GATEWAY, phase).context("the breaker is not among the metrics");
    let is_closed = after.value(&format!("contrail_breaker_phase{{system=\"{GATEWAY}\",phase=\"closed\"}}"));
    ensure!(is_closed == Some(1.0), "the gateway is back and its breaker is not closed");
    Ok(Outcome {
        orders: placed.orders.len() as u64,
        backlog,
        drained_in,
        opened: changes("open")?,
        // Being new is how it was closed first.
        closed: changes("closed")? - 1.0,
        turned_away: turned_away(shop).await? - refused_before,
    })
}

async fn turned_away(shop: &Shop) -> anyhow::Result<u64> {
    let state = shop.gateway_state().await?;
    state["counts"]["unavailable"].as_u64().context("the simulator does not count what it turns away")
}

#[expect(clippy::cast_precision_loss, reason = "a number of orders is far below 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
