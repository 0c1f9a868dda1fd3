//! One rate, held for some time.

use std::{collections::BTreeMap, fmt, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use e2e::{
    load::{self, Counters, Load, Placed},
    shop::Shop,
    workload::Workload,
};
use local_stack::Stack;
use tokio::time::{Instant, sleep};

use super::{
    CONFIRMED_MAX, difference,
    processes::{self, LOAD, Usage},
};
use crate::figures::Latencies;

/// How often the orders on their way are counted.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// By how much the orders on their way may grow from the middle of the time to its end without being a backlog that grows: so many
/// seconds' worth of orders.
const BACKLOG_GROWTH_MAX_S: f64 = 0.5;
const SEED: u64 = 20_261_120;

/// What came of it.
pub(super) struct Trial {
    rate: f64,
    duration: Duration,
    confirmed: Latencies,
    answered: Latencies,
    /// Orders on their way: on average in the middle third of the time, and in the last.
    backlog: (f64, f64),
    usage: BTreeMap<String, Usage>,
}

impl Trial {
    /// Places orders at `rate` per second for `duration`, and waits for their ends.
    pub(super) async fn run(stack: &Stack, shop: &Shop, number: u64, rate: f64, duration: Duration) -> anyhow::Result<Self> {
        let workload = Workload::new(&format!("bench{number}"), SEED + number, load::orders_in(rate, duration));
        load::receive_stock(shop, &workload).await?;
        let before = processes::usage(stack.info())?;
        let counters = Arc::new(Counters::default());
        let load = Load { rate: Some(rate), counters: Arc::clone(&counters), ..Load::default() };
        let (placed, (backlog, after)) = tokio::join!(load::run(shop, &workload, &load), async {
            let backlog = sample(&counters, duration).await;
            (backlog, processes::usage(stack.info()))
        });
        let Placed { orders, .. } = placed.with_context(|| format!("{:.0} orders a minute", rate * 60.0))?;
        let confirmed = orders.iter().filter(|order| order.status == "CONFIRMED").map(|order| order.settled_after);
        Ok(Self {
            rate,
            duration,
            confirmed: Latencies::new(confirmed.collect()),
            answered: Latencies::new(orders.iter().map(|order| order.placed_after).collect()),
            backlog,
            usage: difference(&before, &after?),
        })
    }

    /// Why the rate does not count as held; `None` if it does.
    pub(super) fn why_not_held(&self) -> Option<String> {
        let limit_ms = CONFIRMED_MAX.as_secs_f64() * 1_000.0;
        if self.p99_ms() > limit_ms {
            return Some(format!(
                "99 of 100 orders took up to {:.0} ms to be confirmed, and {limit_ms:.0} ms is the limit",
                self.p99_ms()
            ));
        }
        let (middle, end) = self.backlog;
        let grows = end - middle > self.rate * BACKLOG_GROWTH_MAX_S;
        grows.then(|| format!("the orders on their way grew from {middle:.0} to {end:.0}"))
    }

    pub(super) fn orders_per_minute(&self) -> f64 {
        self.rate * 60.0
    }

    pub(super) fn p50_ms(&self) -> f64 {
        self.confirmed.p50_ms()
    }

    pub(super) fn p99_ms(&self) -> f64 {
        self.confirmed.p99_ms()
    }

    /// Orders a minute if every core did nothing but orders, each at the CPU time that it cost here.
    pub(super) fn cpu_limit_per_minute(&self) -> f64 {
        let spent = self.cpu_s();
        if spent > 0.0 { self.orders_per_minute() * cores() * self.duration.as_secs_f64() / spent } else { 0.0 }
    }

    /// The same at the CPU time that it cost everything but the load.
    pub(super) fn system_limit_per_minute(&self) -> f64 {
        let spent = self.usage.iter().filter(|(name, _)| *name != LOAD).map(|(_, usage)| usage.cpu_s).sum::<f64>();
        if spent > 0.0 { self.orders_per_minute() * cores() * self.duration.as_secs_f64() / spent } else { 0.0 }
    }

    /// Memory of everything but the load.
    pub(super) fn services_rss_mb(&self) -> f64 {
        self.usage.iter().filter(|(name, _)| *name != LOAD).map(|(_, usage)| usage.rss_mb).sum()
    }

    fn cpu_s(&self) -> f64 {
        self.usage.values().map(|usage| usage.cpu_s).sum()
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.why_not_held().map_or_else(|| "held".to_owned(), |reason| format!("not held: {reason}"));
        writeln!(f, "{:.0} orders a minute for {} s: {held}", self.orders_per_minute(), self.duration.as_secs())?;
        let (confirmed, answered) = (&self.confirmed, &self.answered);
        writeln!(f, "  POST to CONFIRMED p50 {:.0} ms, p99 {:.0} ms", confirmed.p50_ms(), confirmed.p99_ms())?;
        writeln!(f, "  POST to 201       p50 {:.0} ms, p99 {:.0} ms", answered.p50_ms(), answered.p99_ms())?;
        writeln!(f, "  orders on their way: {:.0} in the middle, {:.0} at the end", self.backlog.0, self.backlog.1)?;
        let orders = self.rate * self.duration.as_secs_f64();
        for (name, usage) in &self.usage {
            let (share, per_order) = (usage.cpu_s / self.duration.as_secs_f64() * 100.0, usage.cpu_s / orders * 1_000_000.0);
            writeln!(f, "  {name:18} {share:5.1} % of a core, {per_order:4.0} us an order, {:4.0} MiB", usage.rss_mb)?;
        }
        let busy = self.cpu_s() / self.duration.as_secs_f64() / cores() * 100.0;
        write!(f, "  together           {busy:5.1} % of {:.0} cores", cores())
    }
}

/// Counts the orders on their way while the load runs. Returns the averages of the middle third of the time and of the last.
async fn sample(counters: &Counters, duration: Duration) -> (f64, f64) {
    let started = Instant::now();
    let mut samples = Vec::new();
    while started.elapsed() < duration {
        let now = counters.now();
        samples.push(as_f64(now.placed.saturating_sub(now.settled())));
        sleep(SAMPLE_INTERVAL).await;
    }
    let third = samples.len() / 3;
    (average(&samples[third..2 * third]), average(&samples[2 * third..]))
}

fn average(samples: &[f64]) -> f64 {
    if samples.is_empty() { 0.0 } else { samples.iter().sum::<f64>() / as_f64(samples.len() as u64) }
}

#[expect(clippy::cast_precision_loss, reason = "a number of orders is far below 2^53")]
pub(super) fn as_f64(number: u64) -> f64 {
    number as f64
}

fn cores() -> f64 {
    thread::available_parallelism().map_or(1.0, |cores| as_f64(cores.get() as u64))
}
