//! `cargo xtask demo`: a load, a verdict, and a table that says what happened.

mod step;
mod table;

use std::sync::Arc;

use anyhow::Context as _;
use local_stack::Stack;
use serde::Serialize;

use crate::eventually::eventually;
use crate::invariants::{self, Report};
use crate::latency::{Latencies, Percentiles};
use crate::load::{self, Counters, Load, Placed};
use crate::shop::{HistoryEvent, Shop};
use crate::workload::Workload;
use step::Step;

/// Another demo is the same demo.
const SEED: u64 = 20_261_120;
/// How many of the confirmed orders are shipped and delivered as well.
const DELIVERED_ORDERS: usize = 5;
/// How long a shipped order may take to be seen as delivered.
const DELIVERY_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// What is asked of a demo.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many orders.
    pub orders: u64,
    /// Orders per second; as fast as possible when left out.
    pub rate: Option<f64>,
    /// Whether the result is printed as one JSON object, on the last line of standard output, instead of a table.
    pub json: bool,
}

/// The result, in the shape that DESIGN §12 gives it.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Orders placed; each was answered 2xx.
    pub orders: u64,
    /// Those that were paid; some of them went on to be delivered.
    pub confirmed: u64,
    /// Those for which stock did not suffice.
    pub rejected: u64,
    /// Those that were called off, by the customer or because the card was declined.
    pub cancelled: u64,
    /// See [`Report::lost`].
    pub lost: u64,
    /// See [`Report::duplicated`].
    pub duplicated: u64,
    /// See [`Report::oversold`].
    pub oversold: u64,
    /// From the first POST to the last final status seen, in seconds.
    pub elapsed_s: f64,
    /// `orders` in `elapsed_s`.
    pub orders_per_min: f64,
    /// From a POST to its 2xx.
    pub place_ms: Percentiles,
    /// From a POST to `CONFIRMED` seen by GraphQL.
    pub confirmed_ms: Percentiles,
    /// See [`Report::audit_verified`].
    pub audit_verified: bool,
}

/// Runs the demo on a fresh stack, prints its result, and returns it. Fails, after printing, when an invariant is violated.
///
/// Blocks its thread until then; it must not be called from within an async runtime.
pub fn run(stack: &mut Stack, options: Options) -> anyhow::Result<Summary> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the demo's runtime")?;
    runtime.block_on(run_on(stack, options))
}

async fn run_on(stack: &Stack, options: Options) -> anyhow::Result<Summary> {
    let shop = Shop::new(stack.info())?;
    let workload = Workload::new("demo", SEED, options.orders);
    let receiving = Step::start("receiving stock");
    load::receive_stock(&shop, &workload).await?;
    drop(receiving);

    let counters = Arc::<Counters>::default();
    let load = Load { rate: options.rate, shows_progress: true, counters, ..Load::default() };
    let placed = load::run(&shop, &workload, &load).await?;

    let delivered = deliver(&shop, &placed).await?;
    let checking = Step::start("checking the invariants");
    let report = invariants::check(stack, &shop).await?;
    drop(checking);
    let summary = Summary::new(&placed, &report);
    let timeline = timeline(&shop, &placed, &delivered).await?;
    if options.json {
        println!("{}", serde_json::to_string(&summary).context("encode the summary")?);
    } else {
        println!("{}", table::summary(&summary, &report, delivered.len()));
        if let Some((order_id, events)) = &timeline {
            println!("{}", table::timeline(order_id, events)?);
        }
    }
    report.ensure_none_violated()?;
    summary.ensure_consistent(&report)?;
    Ok(summary)
}

/// Ships and delivers some of the confirmed orders, and waits until a customer sees them as delivered.
async fn deliver(shop: &Shop, placed: &Placed) -> anyhow::Result<Vec<String>> {
    let confirmed = placed.orders.iter().filter(|order| order.status == "CONFIRMED").map(|order| order.order_id.clone());
    let chosen: Vec<String> = confirmed.take(DELIVERED_ORDERS).collect();
    for order_id in &chosen {
        let id = order_id.parse().context("read an order id")?;
        shop.ship(id, &format!("CT{}", &order_id[..8]), &format!("{order_id}-ship")).await.context("ship an order")?;
        let answer = shop.deliver(id, &format!("{order_id}-deliver")).await.context("deliver an order")?;
        eventually(&format!("order {order_id} is seen as delivered"), DELIVERY_DEADLINE, async || {
            let seen = shop.order(order_id, Some(answer.position)).await?;
            Ok(seen.filter(|order| order.status == "DELIVERED"))
        })
        .await?;
    }
    Ok(chosen)
}

/// The story of one order, of a delivered one if there is any.
async fn timeline(shop: &Shop, placed: &Placed, delivered: &[String]) -> anyhow::Result<Option<(String, Vec<HistoryEvent>)>> {
    let any = placed.orders.first().map(|order| &order.order_id);
    let Some(order_id) = delivered.first().or(any) else { return Ok(None) };
    let events = shop.history(order_id, None).await?;
    Ok(Some((order_id.clone(), events)))
}

impl Summary {
    fn new(placed: &Placed, report: &Report) -> Self {
        let confirmed = placed.orders.iter().filter(|order| !matches!(order.status.as_str(), "REJECTED" | "CANCELLED"));
        let confirmed_ms = Latencies::new(confirmed.map(|order| order.settled_after)).percentiles();
        let elapsed_s = placed.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a number of orders is far below 2^53")]
        let orders_per_min = if elapsed_s > 0.0 { placed.orders.len() as f64 / elapsed_s * 60.0 } else { 0.0 };
        Self {
            orders: placed.orders.len() as u64,
            confirmed: report.confirmed,
            rejected: report.rejected,
            cancelled: report.cancelled,
            lost: report.lost,
            duplicated: report.duplicated,
            oversold: report.oversold,
            elapsed_s: (elapsed_s * 1_000.0).round() / 1_000.0,
            orders_per_min: orders_per_min.round(),
            place_ms: Latencies::new(placed.orders.iter().map(|order| order.placed_after)).percentiles(),
            confirmed_ms,
            audit_verified: report.audit_verified,
        }
    }

    /// What GraphQL showed order by order is what the log adds up to.
    fn ensure_consistent(&self, report: &Report) -> anyhow::Result<()> {
        let ended = self.confirmed + self.rejected + self.cancelled;
        anyhow::ensure!(
            self.orders == report.orders && ended == self.orders,
            "{} orders came to an end, the log has {} orders of which {ended} have",
            self.orders,
            report.orders
        );
        Ok(())
    }
}
