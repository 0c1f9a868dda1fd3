//! How many orders a minute the whole system takes on one machine, load included: from the POST until a customer sees CONFIRMED.
//!
//! The load is open: orders come at their rate however slow the answers are, and an order's time starts when it should have been
//! placed, so that a system that stalls cannot hide the orders that waited (coordinated omission). A rate counts as held if over
//! the whole time 99 of 100 orders were seen as CONFIRMED by GraphQL within [`CONFIRMED_MAX`], and no more orders were on
//! their way at the end than in the middle.
//!
//! First the rate is looked for in short trials, then held in runs of full length; a run that fails lowers the rate, and all
//! runs begin again, on fresh servers, so that no rate pays for what was tried before it. What was tried is not forgiven either:
//! the invariants of each log are checked before it goes.
//!
//! The limit of this benchmark is the CPU: what the machine's cores could do at the CPU time that one order costs, load included.

mod backlog;
mod live;
mod mail;
mod memory;
mod processes;
mod telemetry;
mod trial;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{
    invariants,
    outage::{self, Plan},
    rolling_restart,
    shop::Shop,
};
use local_stack::stack::{Stack, StackOptions};
use tokio::task::block_in_place;

use crate::{Options, Row, workplace::Workplace};
use trial::Trial;

/// All cases. Those after the first take long, and are measured only when they are asked for.
pub const CASES: [&str; 7] = [SUSTAINED, MEMORY, OUTAGE, BACKLOG, ROLLING_RESTART, LIVE, TELEMETRY];
const SUSTAINED: &str = "sustained";
/// Two minutes without a payment gateway at 200 orders/s: how fast what has queued is worked off, against the rate at which it came.
const OUTAGE: &str = "outage";
/// A hundred and twenty thousand orders placed without the reactors: how fast they are worked off, against the rate at which they came.
const BACKLOG: &str = "backlog";
/// Two instances of every service, restarted one after the other at 200 orders/s and 50 queries/s: how long an order takes to its 2xx.
/// Fails when a request does.
const ROLLING_RESTART: &str = "rolling-restart";
const MEMORY: &str = "memory";
/// Two thousand subscribers at 200 orders/s: how long an update takes to them, and the query API's memory. Fails when one misses a status.
const LIVE: &str = "live";
/// Every order traced and all metrics scraped, against neither.
const TELEMETRY: &str = "telemetry";

/// How long 99 of 100 orders may take from the POST to CONFIRMED.
pub(crate) const CONFIRMED_MAX: Duration = Duration::from_secs(2);
/// How long a rate has to be held. All lengths are a fifth of it for a quick look that proves nothing but that it works.
const RUN: Duration = Duration::from_mins(1);
/// How long a rate is tried while the highest is looked for.
const TRIAL: Duration = Duration::from_secs(15);
/// Before anything counts: connections are made, caches filled, code paged in.
const WARM_UP: Duration = Duration::from_secs(5);
/// Orders per second while the gateway is down, for how long it is, and for how long they come before and after.
const OUTAGE_RATE: f64 = 200.0;
const OUTAGE_LENGTH: Duration = Duration::from_mins(2);
const OUTAGE_MARGIN: Duration = Duration::from_secs(20);
/// Orders and queries per second while everything is restarted, and for how long.
const ROLLING_RESTART_RATE: f64 = 200.0;
const ROLLING_RESTART_QUERIES: f64 = 50.0;
const ROLLING_RESTART_LENGTH: Duration = Duration::from_secs(90);
/// Orders per second: where the search begins, and how it goes on.
const FIRST_RATE: f64 = 700.0;
const STEP_UP: f64 = 1.25;
/// The search ends when what was held and what was not are as near as this.
const PRECISION: f64 = 1.06;
/// What a run that fails takes off the rate.
const STEP_DOWN: f64 = 0.9;
/// Below this something is wrong that a lower rate does not mend.
const RATE_MIN: f64 = 5.0;

/// Measures what was asked for, each case on servers of its own.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if options.wants(SUSTAINED) {
        rows.push(sustained(options, workplace).await?);
    }
    if options.names(MEMORY) {
        rows.push(on_fresh_stack(workplace, async |stack| memory::run(options, stack).await).await?);
    }
    if options.names(OUTAGE) {
        rows.push(on_fresh_stack(workplace, async |stack| without_gateway(options, stack).await).await?);
    }
    if options.names(BACKLOG) {
        rows.push(on_fresh_stack(workplace, async |stack| backlog::run(options, stack).await).await?);
    }
    if options.names(ROLLING_RESTART) {
        rows.push(on_fresh_stack(workplace, async |stack| restarted(options, stack).await).await?);
    }
    if options.names(LIVE) {
        rows.push(on_fresh_stack(workplace, async |stack| live::run(options, stack).await).await?);
    }
    if options.names(TELEMETRY) {
        rows.push(telemetry::run(options, workplace).await?);
    }
    Ok(rows)
}

async fn without_gateway(options: &Options, stack: &Stack) -> anyhow::Result<Row> {
    let shortened = if options.quick { 10 } else { 1 };
    let plan = Plan {
        orders_per_s: options.rate.unwrap_or(OUTAGE_RATE),
        before_and_after: OUTAGE_MARGIN / shortened,
        outage: OUTAGE_LENGTH / shortened,
    };
    let shop = Shop::new(stack.info())?;
    let outcome = outage::run(stack, &shop, "outage", &plan).await?;
    eprintln!("{outcome}");
    let report = invariants::check(stack, &shop).await.context("check the invariants")?;
    report.ensure_none_violated()?;
    eprintln!("all invariants hold over {} orders", report.orders);
    Ok(Row::new(OUTAGE, "orders/s", &[outcome.drain_rate(&plan)]).against(&[plan.orders_per_s]))
}

async fn restarted(options: &Options, stack: &mut Stack) -> anyhow::Result<Row> {
    let plan = rolling_restart::Plan {
        orders_per_s: options.rate.unwrap_or(ROLLING_RESTART_RATE),
        queries_per_s: ROLLING_RESTART_QUERIES,
        duration: ROLLING_RESTART_LENGTH / if options.quick { 3 } else { 1 },
    };
    let outcome = rolling_restart::run(stack, "rolling-restart", &plan).await?;
    eprintln!("{outcome}");
    outcome.ensure_nothing_failed()?;
    eprintln!("all invariants hold over {} orders", outcome.report.orders);
    Ok(Row::new(ROLLING_RESTART, "ms p99", &[outcome.place_ms.p99]))
}

/// Starts a stack with an empty log for this work, and takes it down again.
async fn on_fresh_stack<T>(workplace: &Workplace, work: impl AsyncFnOnce(&mut Stack) -> anyhow::Result<T>) -> anyhow::Result<T> {
    on_stack(workplace, |_| {}, work).await
}

/// The same with settings of services that are other than usual.
async fn on_stack<T>(
    workplace: &Workplace,
    change: impl FnOnce(&mut Vec<(&'static str, &'static str, String)>),
    work: impl AsyncFnOnce(&mut Stack) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let folder = workplace.subfolder()?;
    let mut stack_options = StackOptions::new(folder.path().join("stack"));
    change(&mut stack_options.settings);
    let _mail = mail::keep_in_memory(&stack_options.directory)?;
    let mut stack = block_in_place(|| Stack::start(stack_options, |step| eprintln!("{step}")))?;
    let outcome = work(&mut stack).await;
    let shut_down = block_in_place(|| stack.shut_down());
    let outcome = outcome?;
    shut_down?;
    Ok(outcome)
}

/// Finds the highest rate that is held, and holds it.
async fn sustained(options: &Options, workplace: &Workplace) -> anyhow::Result<Row> {
    let shortened = if options.quick { 5 } else { 1 };
    let mut rate = match options.rate {
        Some(rate) => rate,
        None => on_fresh_stack(workplace, async |stack| search(stack, shortened).await).await?,
    };
    loop {
        let runs = on_fresh_stack(workplace, async |stack| hold(stack, rate, options.runs.get(), shortened).await).await?;
        let reason = match runs {
            Ok(runs) => return Ok(row(&runs)),
            Err(reason) => reason,
        };
        ensure!(options.rate.is_none(), "{:.0} orders a minute are not held: {reason}", rate * 60.0);
        rate *= STEP_DOWN;
        ensure!(rate > RATE_MIN, "no rate is held: {reason}");
        eprintln!("not held ({reason}): beginning again with {:.0} a minute", rate * 60.0);
    }
}

/// The highest rate that a short trial holds: first in large steps, then by halving the ratio.
async fn search(stack: &Stack, shortened: u32) -> anyhow::Result<f64> {
    let mut runner = Runner::warm(stack, FIRST_RATE / 2.0, WARM_UP / shortened).await?;
    let (mut held, mut not_held) = (None, None);
    let mut rate = FIRST_RATE;
    let found = loop {
        if runner.trial(rate, TRIAL / shortened).await?.why_not_held().is_none() {
            held = Some(rate);
        } else {
            not_held = Some(rate);
        }
        rate = match (held, not_held) {
            (Some(low), Some(high)) if high / low <= PRECISION => break low,
            (Some(low), Some(high)) => f64::sqrt(low * high),
            (Some(low), None) => low * STEP_UP,
            (None, _) => rate / STEP_UP,
        };
        ensure!(rate > RATE_MIN, "no rate is held");
    };
    runner.check_invariants().await?;
    Ok(found)
}

/// So many runs of full length at this rate; or, with the first that is not held, why.
async fn hold(stack: &Stack, rate: f64, runs: usize, shortened: u32) -> anyhow::Result<Result<Vec<Trial>, String>> {
    let mut runner = Runner::warm(stack, FIRST_RATE.min(rate) / 2.0, WARM_UP / shortened).await?;
    let mut held = Vec::new();
    let mut not_held = None;
    while held.len() < runs && not_held.is_none() {
        let run = runner.trial(rate, RUN / shortened).await?;
        not_held = run.why_not_held();
        held.push(run);
    }
    runner.check_invariants().await?;
    Ok(not_held.map_or(Ok(held), Err))
}

struct Runner<'a> {
    stack: &'a Stack,
    shop: Shop,
    trials: u64,
}

impl<'a> Runner<'a> {
    /// Takes orders at this rate for a while, before anything counts.
    async fn warm(stack: &'a Stack, rate: f64, duration: Duration) -> anyhow::Result<Self> {
        let mut runner = Self { stack, shop: Shop::new(stack.info())?, trials: 0 };
        runner.trial(rate, duration).await?;
        Ok(runner)
    }

    async fn trial(&mut self, rate: f64, duration: Duration) -> anyhow::Result<Trial> {
        self.trials += 1;
        let trial = Trial::run(self.stack, &self.shop, self.trials, rate, duration).await?;
        eprintln!("{trial}");
        Ok(trial)
    }

    async fn check_invariants(&self) -> anyhow::Result<()> {
        let report = invariants::check(self.stack, &self.shop).await.context("check the invariants")?;
        report.ensure_none_violated()?;
        eprintln!("all invariants hold over {} orders", report.orders);
        Ok(())
    }
}

fn row(runs: &[Trial]) -> Row {
    let figures = |figure: fn(&Trial) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
    let row = Row::new(SUSTAINED, "orders/min", &figures(Trial::orders_per_minute));
    let mut row = row.against(&figures(Trial::cpu_limit_per_minute));
    row = row.with_percentiles(&figures(Trial::p50_ms), &figures(Trial::p99_ms));
    row.rss_mb = runs.iter().map(Trial::services_rss_mb).reduce(f64::max).map(crate::figures::rounded);
    row
}

/// The difference of two accounts, by name.
fn difference(
    before: &BTreeMap<String, processes::Usage>,
    after: &BTreeMap<String, processes::Usage>,
) -> BTreeMap<String, processes::Usage> {
    let spent = |(name, after): (&String, &processes::Usage)| {
        let cpu_s = after.cpu_s - before.get(name).map_or(0.0, |before| before.cpu_s);
        (name.clone(), processes::Usage { cpu_s, rss_mb: after.rss_mb })
    };
    after.iter().map(spent).collect()
}
