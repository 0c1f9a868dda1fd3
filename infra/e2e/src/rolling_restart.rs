//! Every service is restarted, one instance after the other, while orders come in and queries are asked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use local_stack::StackInfo;
use local_stack::stack::{Instance, Stack};
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::balancer::Balancer;
use crate::invariants::{self, Report};
use crate::latency::{Latencies, Percentiles};
use crate::load::{self, Load};
use crate::onlooker;
use crate::shop::{Shop, VainTries};
use crate::workload::Workload;

/// What is restarted, in this order.
const RESTARTED: [&str; 4] = ["command-api", "query-api", "projectors", "reactors"];
/// For how long the APIs go on answering after they were told to stop: longer than the balancer takes to learn of it.
const LINGER_MS: &str = "1000";
/// Between an instance's return and the next one's end.
const PAUSE: Duration = Duration::from_secs(1);

/// How much goes on.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Orders per second.
    pub orders_per_s: f64,
    /// Queries per second.
    pub queries_per_s: f64,
    /// For how long orders come. Restarts go on as long, and each instance has to be restarted once at least.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How often each service was restarted.
    pub restarts: BTreeMap<String, u64>,
    /// Commands that had to be sent again.
    pub vain_tries: VainTries,
    /// Queries asked, each of them once.
    pub queries: usize,
    /// Those that failed, and how.
    pub failed_queries: Vec<String>,
    /// What a query showed less of than one before it.
    pub setbacks: Vec<String>,
    /// From when an order should have been placed to its 2xx.
    pub place_ms: Percentiles,
    /// What was found afterwards.
    pub report: Report,
}

impl Outcome {
    /// Fails when an invariant is violated, or any request had no answer, or one that does not say when to come again.
    pub fn ensure_nothing_failed(&self) -> anyhow::Result<()> {
        self.report.ensure_none_violated()?;
        let failed = [("command", &self.vain_tries.failed), ("query", &self.failed_queries), ("setback", &self.setbacks)];
        let failed: Vec<_> =
            failed.iter().flat_map(|(what, failed)| failed.iter().map(move |how| format!("{what}: {how}"))).collect();
        let shown = failed.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
        ensure!(failed.is_empty(), "{} requests failed:\n  {shown}", failed.len());
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restarts: Vec<_> = self.restarts.iter().map(|(service, times)| format!("{service} {times}")).collect();
        write!(
            f,
            "restarts: {}; {} orders, p99 to the 2xx {} ms; commands put off with Retry-After: {}, failed: {}; {} queries, failed: {}",
            restarts.join(", "),
            self.report.orders,
            self.place_ms.p99,
            self.vain_tries.put_off,
            self.vain_tries.failed.len(),
            self.queries,
            self.failed_queries.len(),
        )
    }
}

/// Restarts the instances of every service, of which there are two each, while orders and queries come through balancers, and checks the
/// invariants afterwards. The log must be empty before.
///
/// Fails when an order does not come to its end, an instance does not end with exit code 0 in time or does not come back, or the time is up
/// before each was restarted; what else failed is in the outcome.
pub async fn run(stack: &mut Stack, workload_name: &str, plan: &Plan) -> anyhow::Result<Outcome> {
    for service in ["command-api", "query-api"] {
        stack.set(service, "DRAIN_LINGER_MS", LINGER_MS.to_owned())?;
        block_in_place(|| stack.stop(service).and_then(|()| stack.start_again(service)))?;
    }
    let mut others = Vec::new();
    for service in RESTARTED {
        others.push(block_in_place(|| stack.another(service))?);
    }
    let url_of = |service: &str| others.iter().find(|other| other.name() == service).map(Instance::url);
    let instances = |own: &str, service| [Some(own.to_owned()), url_of(service)].into_iter().flatten();
    let commands = Balancer::before(instances(&stack.info().command_api, "command-api")).await?;
    let queries = Balancer::before(instances(&stack.info().query_api, "query-api")).await?;
    let info = StackInfo { command_api: commands.url().to_owned(), query_api: queries.url().to_owned(), ..stack.info().clone() };
    let shop = Shop::new(&info)?;
    let workload = Workload::new(workload_name, 20_261_122, load::orders_in(plan.orders_per_s, plan.duration));
    load::receive_stock(&shop, &workload).await?;

    let placing = {
        let (shop, load) = (shop.clone(), Load { rate: Some(plan.orders_per_s), ..Load::default() });
        tokio::spawn(async move { load::run(&shop, &workload, &load).await })
    };
    let ends = Instant::now() + plan.duration;
    let (restarted, until_restarted) = oneshot::channel::<()>();
    // On its own: whoever restarts blocks its task while it waits for a process.
    let looking = {
        let (shop, queries_per_s) = (shop.clone(), plan.queries_per_s);
        tokio::spawn(async move { onlooker::look_on(&shop, queries_per_s, until_restarted).await.1 })
    };
    let restarts = restart_all(stack, &mut others, ends).await?;
    drop(restarted);
    let seen = looking.await.context("look on")?;
    let placed = placing.await.context("place orders")??;
    let vain_tries = shop.vain_tries();
    let report = invariants::check(stack, &shop).await.context("check the invariants")?;
    Ok(Outcome {
        restarts,
        vain_tries,
        queries: seen.latencies.count() + seen.failures.len(),
        failed_queries: seen.failures,
        setbacks: seen.setbacks,
        place_ms: Latencies::new(placed.orders.iter().map(|order| order.placed_after)).percentiles(),
        report,
    })
}

/// One instance after the other, again and again until the time is up.
async fn restart_all(stack: &mut Stack, others: &mut [Instance], ends: Instant) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut restarts: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        for (service, other) in RESTARTED.into_iter().zip(others.iter_mut()) {
            sleep(PAUSE).await;
            block_in_place(|| stack.stop(service).and_then(|()| stack.start_again(service)))?;
            sleep(PAUSE).await;
            block_in_place(|| other.stop().and_then(|()| other.start_again()))?;
            *restarts.entry(service.to_owned()).or_default() += 2;
            if Instant::now() >= ends {
                ensure!(restarts.len() == RESTARTED.len(), "the time was up before {service} and those after it were restarted");
                return Ok(restarts);
            }
        }
    }
}
