//! How many orders a minute the whole system takes on one machine, load included: from the POST until a customer sees CONFIRMED.
//!
//! The load is open: orders come at their rate however slow the answers are, and an order's time starts when it should have been
//! placed, so that a system that stalls cannot hide the orders that waited (coordinated omission). A rate counts as held if over
//! the whole time 99 of 100 orders were seen as CONFIRMED by GraphQL within [`CONFIRMED_MAX`], and no more orders were on
//! their way at the end than in the middle.
//!
//! First the rate is looked for in short trials, then held in runs of full length; a run that fails lowers the rate, and all
//! runs begin again. In the end the invariants of the whole log are checked.
//!
//! The limit of this benchmark is the CPU: what the machine's cores could do at the CPU time that one order costs, load included.

mod mail;
mod memory;
mod processes;
mod trial;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{invariants, shop::Shop};
use local_stack::stack::{Stack, StackOptions};
use tokio::task::block_in_place;

use crate::{Options, Row, workplace::Workplace};
use trial::Trial;

/// All cases. The second takes a quarter of an hour, and is measured only when it is asked for.
pub const CASES: [&str; 2] = [SUSTAINED, MEMORY];
const SUSTAINED: &str = "sustained";
const MEMORY: &str = "memory";

/// How long 99 of 100 orders may take from the POST to CONFIRMED.
pub(crate) const CONFIRMED_MAX: Duration = Duration::from_secs(2);
/// How long a rate has to be held.
const RUN: Duration = Duration::from_mins(1);
/// How long a rate is tried while the highest is looked for.
const TRIAL: Duration = Duration::from_secs(15);
/// Before anything counts: connections are made, caches filled, code paged in.
const WARM_UP: Duration = Duration::from_secs(5);
/// Orders per second: where the search begins, and how it goes on.
const FIRST_RATE: f64 = 700.0;
const STEP_UP: f64 = 1.25;
/// The search ends when what was held and what was not are as near as this.
const PRECISION: f64 = 1.06;
/// What a run that fails takes off the rate.
const STEP_DOWN: f64 = 0.95;
/// Below this something is wrong that a lower rate does not mend.
const RATE_MIN: f64 = 5.0;

/// Finds the highest rate that is held, and holds it.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    let folder = workplace.subfolder()?;
    let stack_options = StackOptions::new(folder.path().join("stack"));
    let _mail = mail::keep_in_memory(&stack_options.directory)?;
    let stack = block_in_place(|| Stack::start(stack_options, |step| eprintln!("{step}")))?;
    let measured = measure(options, &stack).await;
    let shut_down = block_in_place(|| stack.shut_down());
    let rows = measured?;
    shut_down?;
    Ok(rows)
}

async fn measure(options: &Options, stack: &Stack) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if options.wants(SUSTAINED) {
        rows.push(sustained(options, stack).await?);
    }
    if options.cases.iter().any(|case| case == MEMORY) {
        rows.push(memory::run(options, stack).await?);
    }
    Ok(rows)
}

async fn sustained(options: &Options, stack: &Stack) -> anyhow::Result<Row> {
    let shop = Shop::new(stack.info())?;
    let mut runner = Runner { stack, shop: &shop, trials: 0 };
    let (run, trial, warm_up) = if options.quick { (TRIAL / 5, TRIAL / 5, WARM_UP / 5) } else { (RUN, TRIAL, WARM_UP) };
    runner.hold(FIRST_RATE.min(options.rate.unwrap_or(FIRST_RATE)) / 2.0, warm_up).await?;
    let mut rate = match options.rate {
        Some(rate) => rate,
        None => runner.search(trial).await?,
    };
    let mut runs = Vec::new();
    while runs.len() < options.runs.get() {
        let trial = runner.hold(rate, run).await?;
        if let Some(reason) = trial.why_not_held() {
            ensure!(options.rate.is_none(), "{:.0} orders a minute are not held: {reason}", rate * 60.0);
            rate *= STEP_DOWN;
            ensure!(rate > RATE_MIN, "no rate is held: {reason}");
            eprintln!("not held ({reason}): beginning again with {:.0} a minute", rate * 60.0);
            runs.clear();
            continue;
        }
        runs.push(trial);
    }
    let report = invariants::check(stack, &shop).await.context("check the invariants")?;
    report.ensure_none_violated()?;
    eprintln!("all invariants hold over {} orders", report.orders);
    Ok(row(&runs))
}

struct Runner<'a> {
    stack: &'a Stack,
    shop: &'a Shop,
    trials: u64,
}

impl Runner<'_> {
    async fn hold(&mut self, rate: f64, duration: Duration) -> anyhow::Result<Trial> {
        self.trials += 1;
        let trial = Trial::run(self.stack, self.shop, self.trials, rate, duration).await?;
        eprintln!("{trial}");
        Ok(trial)
    }

    /// The highest rate that a short trial holds: first in large steps, then by halving the ratio.
    async fn search(&mut self, trial: Duration) -> anyhow::Result<f64> {
        let (mut held, mut not_held) = (None, None);
        let mut rate = FIRST_RATE;
        loop {
            if self.hold(rate, trial).await?.why_not_held().is_none() {
                held = Some(rate);
            } else {
                not_held = Some(rate);
            }
            rate = match (held, not_held) {
                (Some(low), Some(high)) if high / low <= PRECISION => return Ok(low),
                (Some(low), Some(high)) => f64::sqrt(low * high),
                (Some(low), None) => low * STEP_UP,
                (None, _) => rate / STEP_UP,
            };
            ensure!(rate > RATE_MIN, "no rate is held");
        }
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
