//! Two thousand subscribers of one query API, each on a WebSocket of its own, and 200 orders a second that they follow to their ends: how
//! long an event takes from its appender to who follows its order, and what the query API takes for it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{
    audience::{Audience, Heard},
    load::{self, Load},
    shop::Shop,
    workload::Workload,
};
use local_stack::Stack;

use super::{
    LIVE, difference,
    processes::{self, Usage},
};
use crate::{Options, Row, figures::rounded, process::peak_rss_mb};

const SUBSCRIBERS: usize = 2_000;
const ORDERS_PER_S: f64 = 200.0;
const LENGTH: Duration = Duration::from_mins(1);
const QUERY_API: &str = "query-api";
const SEED: u64 = 20_261_122;

/// Gathers the subscribers, places the orders, and fails if any subscriber misses a status of an order or sees one out of order.
pub(super) async fn run(options: &Options, stack: &Stack) -> anyhow::Result<Row> {
    let shortened = if options.quick { 10 } else { 1 };
    let rate = options.rate.unwrap_or(ORDERS_PER_S);
    let workload = Workload::new("live", SEED, load::orders_in(rate, LENGTH / shortened));
    let shop = Shop::new(stack.info())?;
    load::receive_stock(&shop, &workload).await?;

    let alone = processes::usage(stack.info())?;
    let audience = Audience::gather(stack.info(), &workload, SUBSCRIBERS).await?;
    let subscribed = processes::usage(stack.info())?;
    let load = Load { rate: Some(rate), ..Load::default() };
    let (placed, heard) = tokio::try_join!(load::run(&shop, &workload, &load), audience.listen())?;
    let after = processes::usage(stack.info())?;
    let pid = *stack.info().pids.get(QUERY_API).context("find the query API's process")?;
    let peak_mb = peak_rss_mb(pid)?;

    let Heard { orders, updates, lags } = heard;
    ensure!(orders == workload.orders(), "{} orders were placed and {orders} followed to their ends", workload.orders());
    let lag = lags.percentiles();
    let cpu_s = of(&difference(&subscribed, &after)).cpu_s;
    eprintln!(
        "{SUBSCRIBERS} subscribers, {rate} orders/s: {orders} orders followed to their ends, {updates} updates, none missed and all in order; from \
         event to subscriber p50 {:.0} ms, p99 {:.0} ms; {QUERY_API} {:.1} MiB alone, {:.1} with all subscribed, {:.1} at the end, {peak_mb:.1} at \
         most, {:.1} % of a core",
        lag.p50,
        lag.p99,
        of(&alone).rss_mb,
        of(&subscribed).rss_mb,
        of(&after).rss_mb,
        cpu_s / placed.elapsed.as_secs_f64() * 100.0,
    );
    let mut row = Row::new(LIVE, "ms p99", &[lag.p99]).with_percentiles(&[lag.p50], &[lag.p99]);
    row.rss_mb = Some(rounded(peak_mb));
    Ok(row)
}

fn of(usage: &BTreeMap<String, Usage>) -> Usage {
    usage.get(QUERY_API).copied().unwrap_or_default()
}
