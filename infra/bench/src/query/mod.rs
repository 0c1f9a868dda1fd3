//! GraphQL order-by-id, against pgbench's select by primary key on the same table.
//!
//! Both ask for random orders of the same table, over as many connections, without a pause. pgbench is the least that any program
//! can do: prepared statements, C, and nobody to answer but itself. What lies between is HTTP, GraphQL, the shape of the answer,
//! and our client, which shares the machine as pgbench does, on one thread to pgbench's two.
//!
//! The table is filled by events and the real projector; what is not measured is stopped first.

mod client;
mod fill;
mod pgbench;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use local_stack::stack::{Stack, StackOptions};
use tokio::task::block_in_place;

use crate::{
    Options, Row,
    closed_loop::{self, Window},
    figures::rounded,
    process::peak_rss_mb,
    runs::Runs,
    workplace::Workplace,
};
use client::Asker;
use pgbench::Pgbench;

/// All cases.
pub const CASES: [&str; 1] = [BY_ID];
const BY_ID: &str = "by-id-64";

/// Connections of either side.
const CONNECTIONS: usize = 64;
const ORDERS: u64 = 100_000;
const ORDERS_QUICK: u64 = 2_000;
/// What is in nobody's way while queries are measured: everything but the query API, Postgres, and the log.
const STOPPED: [&str; 4] = ["command-api", "reactors", "projectors", "payment-simulator"];

/// Fills a table, then asks both for its orders in turns.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    // Found before anything is started, so that its absence is told at once.
    let pgbench = Pgbench::find()?;
    let orders = options.orders.unwrap_or(if options.quick { ORDERS_QUICK } else { ORDERS });
    ensure!(orders <= fill::ORDERS_MAX, "{orders} orders are more than the {} that there are ids for", fill::ORDERS_MAX);
    let folder = workplace.subfolder()?;
    let stack_options = StackOptions::new(folder.path().join("stack"));
    let mut stack = block_in_place(|| Stack::start(stack_options, |step| eprintln!("{step}")))?;
    let row = measure(options, orders, &pgbench, &mut stack).await;
    let shut_down = block_in_place(|| stack.shut_down());
    let row = row?;
    shut_down?;
    Ok(vec![row])
}

async fn measure(options: &Options, orders: u64, pgbench: &Pgbench, stack: &mut Stack) -> anyhow::Result<Row> {
    // Placed orders must stay as they are.
    block_in_place(|| stack.stop("reactors"))?;
    fill::fill(stack.info(), orders).await?;
    for service in STOPPED {
        block_in_place(|| stack.stop(service))?;
    }
    fill::settle_table(&stack.info().database, orders).await?;
    let script = Pgbench::script(stack.directory(), orders)?;
    let measured = if options.quick { Duration::from_secs(1) } else { Duration::from_secs(5) };
    let window = Window { warm_up: measured / 5, measured };

    let mut runs = Runs::default();
    for run in 1..=options.runs.get() {
        let limit = pgbench.run(&script, &stack.info().database, CONNECTIONS, measured).await?;
        let info = stack.info().clone();
        let asking = async move || {
            let askers = Asker::connect_many(&info, CONNECTIONS, orders, run).await?;
            closed_loop::run(askers, window).await.context("query orders")
        };
        let ours = closed_loop::on_one_thread(asking).await?;
        eprintln!(
            "{BY_ID}, run {run} of {}: pgbench {limit:.0} requests/s; ours {:.0} requests/s, p50 {:.2} ms, p99 {:.2} ms",
            options.runs,
            ours.rate,
            ours.latencies.p50_ms(),
            ours.latencies.p99_ms()
        );
        runs.add(limit, ours.rate, &ours.latencies);
    }
    let pid = *stack.info().pids.get("query-api").context("find the query API's process")?;
    Ok(Row { rss_mb: Some(rounded(peak_rss_mb(pid)?)), ..runs.row(BY_ID, "requests/s") })
}
