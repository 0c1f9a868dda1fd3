//! `projectors replay`, against reading the same log raw and copying the same bytes into one bare table.
//!
//! The limit does what any rebuild has to: it takes every message from the server, over async-nats' ordered consumer, and gives its
//! bytes to Postgres, in one binary COPY. What lies between is decoding, folding, rows with columns, indexes, and the swap.
//!
//! The log is that of a shop with orders of every outcome ([`e2e::history`]); the program is started as its users start it, and its
//! time is that of the whole process.

mod limit;

use anyhow::ensure;
use e2e::{
    latency::Percentiles,
    replay_under_load::{self, Outcome, Traffic},
    settle,
    shop::Shop,
    workload::Workload,
};
use local_stack::stack::{SERVICES, Stack};
use tokio::task::block_in_place;

use crate::{
    Options, Row,
    figures::{per_second, rounded},
    history,
    process::{self, Ended},
    workplace::Workplace,
};

/// All cases: what `projectors replay` takes; and [`UNDER_LOAD`], which is left out unless it is asked for.
pub const CASES: [&str; 5] = ["all", "orders", "inventory", "audit", UNDER_LOAD];

/// `all`, while orders flow and are looked at.
const UNDER_LOAD: &str = "under-load";
const ORDERS_PER_S: u32 = 200;
const QUERIES_PER_S: f64 = 200.0;
/// How long orders flow, in seconds.
const ORDERS_FLOW_S: u32 = 60;
const ORDERS_FLOW_S_QUICK: u32 = 5;

/// Writes a log, then reads it in turns.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    history::with_stack(options, workplace, async |stack, events| measure(options, stack, events).await).await
}

async fn measure(options: &Options, stack: &mut Stack, events: usize) -> anyhow::Result<Vec<Row>> {
    let cases: Vec<_> = CASES.into_iter().filter(|case| *case != UNDER_LOAD && options.wants(case)).collect();
    let mut rows = if cases.is_empty() { Vec::new() } else { measure_alone(options, stack, events, &cases).await? };
    if options.names(UNDER_LOAD) {
        rows.push(measure_under_load(options, stack, events).await?);
    }
    Ok(rows)
}

async fn measure_alone(options: &Options, stack: &Stack, events: usize, cases: &[&str]) -> anyhow::Result<Vec<Row>> {
    let mut limits = Vec::new();
    let mut rates = vec![Vec::new(); cases.len()];
    let mut peaks_mb = vec![0.0_f64; cases.len()];
    for run in 1..=options.runs.get() {
        history::settle(stack).await?;
        let limit = per_second(events, limit::measure(stack.info(), events).await?);
        eprintln!("run {run} of {}: read raw and copied into a bare table at {limit:.0} events/s", options.runs);
        limits.push(limit);
        for (index, case) in cases.iter().enumerate() {
            history::settle(stack).await?;
            let replayed = replay(stack, case).await?;
            let rate = per_second(events, replayed.elapsed);
            eprintln!(
                "{case}, run {run} of {}: {rate:.0} events/s, {:.1} s, at most {:.0} MiB resident",
                options.runs,
                replayed.elapsed.as_secs_f64(),
                replayed.peak_rss_mb
            );
            rates[index].push(rate);
            peaks_mb[index] = peaks_mb[index].max(replayed.peak_rss_mb);
        }
    }
    let rows = cases.iter().zip(rates).zip(peaks_mb).map(|((case, rates), peak_mb)| {
        let row = Row::new(case, "events/s", &rates).against(&limits);
        Row { rss_mb: Some(rounded(peak_mb)), ..row }
    });
    Ok(rows.collect())
}

/// The rate of the replays' own account, and the latencies of queries. Fails if a query does, or shows less than one before.
async fn measure_under_load(options: &Options, stack: &mut Stack, events: usize) -> anyhow::Result<Row> {
    // Else the live projections would have all of the log before them.
    replay(stack, "all").await?;
    for service in SERVICES {
        block_in_place(|| stack.start_again(service))?;
    }
    let shop = Shop::new(stack.info())?;
    settle::settle(stack.info(), &shop).await?;
    let seconds = if options.quick { ORDERS_FLOW_S_QUICK } else { ORDERS_FLOW_S };
    let orders = ORDERS_PER_S * seconds;
    let workload = Workload::new(UNDER_LOAD, 1, orders.into());
    let traffic = Traffic { workload, orders_per_s: ORDERS_PER_S.into(), queries_per_s: QUERIES_PER_S };
    let Outcome { replays, seen } = replay_under_load::run(stack, &shop, traffic).await?;
    let queries = seen.latencies.count();
    eprintln!(
        "{UNDER_LOAD}: {} read models of {events} events and more rebuilt while {orders} orders flowed; {queries} queries answered, {} \
         failed, {} saw less than before",
        replays.len(),
        seen.failures.len(),
        seen.setbacks.len()
    );
    ensure!(seen.failures.is_empty(), "a query failed: {}", seen.failures[0]);
    ensure!(seen.setbacks.is_empty(), "something went backwards: {}", seen.setbacks[0]);
    ensure!(!replays.is_empty(), "no replay ended while orders flowed");
    let rates: Vec<_> = replays.iter().filter_map(|report| report["events_per_s"].as_f64()).collect();
    let Percentiles { p50, p99 } = seen.latencies.percentiles();
    Ok(Row::new(UNDER_LOAD, "events/s", &rates).with_percentiles(&[p50], &[p99]))
}

async fn replay(stack: &Stack, case: &str) -> anyhow::Result<Ended> {
    let mut command = stack.command("projectors")?;
    command.args(["replay", case, "--output", "json"]);
    let ended = process::run_to_end(&command).await?;
    ensure!(ended.status.success(), "`projectors replay {case}` failed ({})", ended.status);
    Ok(ended)
}
