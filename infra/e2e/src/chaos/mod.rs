//! `cargo xtask chaos`: everything goes wrong under a steady load, and then the books have to balance.
//!
//! At random, and the same for the same seed: processes are killed and frozen (NATS and Postgres too), the network between a service and
//! NATS or Postgres is reset or falls silent, the payment gateway is down, fails, is slow, or loses answers after it has charged, clocks jump.
//! One thing happens to processes at a time, beside it one to the network or the gateway, and one to a clock. Afterwards everything is
//! started and whole again, every order has to come to its end, and all invariants of DESIGN §13 are checked, against the gateway's own
//! ledger.

mod clocks;
mod elections;
mod gaps;
mod proxy;
mod schedule;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use comfy_table::{Table, presets};
use event_store::TIMER_STREAM;
use futures::TryStreamExt as _;
use local_stack::StackInfo;
use local_stack::stack::{NATS, NATS_CLUSTER, SERVICES, Stack};
use serde::Serialize;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::eventually::eventually;
use crate::invariants::{self, Report};
use crate::latency::{Latencies, Percentiles};
use crate::load::{self, Counters, Load};
use crate::log_server;
use crate::shop::Shop;
use crate::workload::Workload;
use clocks::Clocks;
pub use clocks::remove_leftovers;
use elections::Elections;
use gaps::Span;
use proxy::{Network, Proxy};
use schedule::{Fault, LOG_FOLLOWER, LOG_LEADER, Planned, Schedule, WIRES, Wire};

/// When the charge of an order that was called off is looked for again: once each fault that the gateway may have had is over. It may charge
/// while nobody hears of it, and its search may not know yet.
const CHARGE_CHECKS_S: &str = "5,20";
/// How long it may take until the last of them was made.
const CHARGE_CHECKS_DEADLINE: Duration = Duration::from_mins(2);
/// How long nothing may come to an end: much longer than any fault lasts.
const STALL_AFTER: Duration = Duration::from_mins(4);
/// How long the log may be without a leader.
const LEADER_DEADLINE: Duration = Duration::from_mins(1);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// For how long things go wrong.
    pub duration: Duration,
    /// Which things.
    pub seed: u64,
    /// Orders per second.
    pub orders_per_s: f64,
    /// Of all that would go wrong, only what has one of these words in its name, at the same times; all of it when left empty.
    pub only: &'a [String],
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// How many servers had the log.
    pub replicas: usize,
    /// How often each thing went wrong.
    pub faults: BTreeMap<String, u64>,
    /// From when an order should have been placed to its 2xx.
    pub place_ms: Percentiles,
    /// The longest time in which no order was acknowledged, in milliseconds.
    pub longest_gap_ms: u64,
    /// The longest of those that met each fault. Two things go wrong at a time, so it may be the other's doing.
    pub longest_gap_by_fault_ms: BTreeMap<String, u64>,
    /// The longest time from when the log's leader was killed or frozen until NATS had elected another one, in milliseconds: the part of
    /// the gap that no client can shorten.
    pub longest_election_ms: u64,
    /// What was found afterwards.
    #[serde(flatten)]
    pub report: Report,
}

impl Outcome {
    /// How often something went wrong.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Fails with all violations, if there are any.
    pub fn ensure_none_violated(&self) -> anyhow::Result<()> {
        self.report.ensure_none_violated().with_context(|| format!("seed {}", self.seed))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(["what", "how often", "longest time without a 2xx meanwhile"]);
        for (fault, count) in &self.faults {
            let gap_ms = self.longest_gap_by_fault_ms.get(fault).copied().unwrap_or_default();
            table.add_row([fault.clone(), count.to_string(), format!("{gap_ms} ms")]);
        }
        table.add_row(["faults in all".to_owned(), self.fault_count().to_string(), format!("{} ms", self.longest_gap_ms)]);
        if self.longest_election_ms > 0 {
            table.add_row(["NATS had another leader after".to_owned(), String::new(), format!("{} ms", self.longest_election_ms)]);
        }
        let Report { orders, confirmed, rejected, cancelled, lost, duplicated, oversold, audit_verified, violations, .. } =
            &self.report;
        table.add_row(["orders".to_owned(), orders.to_string()]);
        table.add_row(["confirmed / rejected / cancelled".to_owned(), format!("{confirmed} / {rejected} / {cancelled}")]);
        table.add_row(["lost / duplicated / oversold".to_owned(), format!("{lost} / {duplicated} / {oversold}")]);
        table.add_row(["to the 2xx, p50 / p99".to_owned(), format!("{} / {} ms", self.place_ms.p50, self.place_ms.p99)]);
        table.add_row(["audit root verified".to_owned(), audit_verified.to_string()]);
        table.add_row(["violated invariants".to_owned(), violations.len().to_string()]);
        write!(f, "seed {}, the log on {} of {}\n{table}", self.seed, self.replicas, self.replicas)
    }
}

/// Lets things go wrong on `stack`, whose log must be empty, and tells `on_fault` of each.
///
/// Fails if something could not be started again, an order did not come to its end, or the invariants could not be checked; what is violated
/// is in the outcome. Once the stack is gone, [`remove_leftovers`] is to be called.
pub async fn run(stack: &mut Stack, options: Options<'_>, mut on_fault: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    let replicas = event_store::servers(&stack.info().nats).len();
    let (wires, clocks) = (put_proxies_between(stack).await?, Clocks::give_to(stack)?);
    stack.set("reactors", "CHARGE_CHECKS_S", CHARGE_CHECKS_S.to_owned())?;
    for service in SERVICES {
        block_in_place(|| {
            stack.stop(service)?;
            stack.start_again(service)
        })?;
    }
    let shop = Shop::new(stack.info())?;
    let orders = load::orders_in(options.orders_per_s, options.duration);
    let workload = Workload::new(&format!("chaos-{}", options.seed), options.seed, orders);
    load::receive_stock(&shop, &workload).await?;
    let counters = Arc::<Counters>::default();
    let load = Load {
        rate: Some(options.orders_per_s),
        ships: true,
        stall_after: Some(STALL_AFTER),
        counters: counters.clone(),
        ..Load::default()
    };
    let placing = {
        let (shop, workload) = (shop.clone(), workload.clone());
        tokio::spawn(async move { load::run(&shop, &workload, &load).await })
    };
    let watching = tokio::spawn(gaps::watch(counters.clone(), orders, STALL_AFTER));
    let Schedule { processes, surroundings, clocks: jumps } = schedule::schedule(options.seed, options.duration, replicas > 1);
    let is_wanted = |planned: &Planned| {
        let name = planned.fault.to_string();
        options.only.is_empty() || options.only.iter().any(|word| name.contains(word.as_str()))
    };
    let elections = Elections::watch(stack.info()).await?;
    let beside = Beside { shop: shop.clone(), wires, clocks };
    let one_after_the_other = |planned: Vec<Planned>| {
        let planned: Vec<_> = planned.into_iter().map(|planned| (is_wanted(&planned), planned)).collect();
        let beside = beside.clone();
        tokio::spawn(async move { beside.disturb_all(planned).await })
    };
    let disturbances = [one_after_the_other(surroundings), one_after_the_other(jumps)];
    let mut done = Vec::new();
    for planned in &processes {
        sleep(planned.after).await;
        if !is_wanted(planned) {
            sleep(planned.lasts).await;
            continue;
        }
        on_fault(&planned.fault.to_string());
        let (Fault::Kill(name) | Fault::Freeze(name)) = planned.fault else { continue };
        let name = process(stack.info(), name).await?;
        let began = Instant::now();
        afflict(stack, name, planned).await?;
        done.push((planned.fault.to_string(), Span { began, ended: Instant::now() }));
        // All orders have come to their ends before the last fault; or the load has failed, and says why below.
        if placing.is_finished() {
            break;
        }
    }
    for disturbing in disturbances {
        done.extend(disturbing.await.context("disturb the network, the gateway and the clocks")??);
    }
    shop.set_gateway_faults(&serde_json::json!({})).await?;
    for name in SERVICES {
        block_in_place(|| stack.wait_until_ready(name))?;
    }
    let placed = placing.await.context("place orders")??;
    let gaps = watching.await.context("look at the acknowledged orders")?;
    until_charges_are_checked(stack.info()).await?;
    let report = invariants::check(stack, &shop).await?;
    let leaders_lost: Vec<_> = done.iter().filter(|(fault, _)| fault.contains(LOG_LEADER)).map(|(_, span)| *span).collect();
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for (fault, _) in &done {
        *faults.entry(fault.clone()).or_default() += 1;
    }
    Ok(Outcome {
        seed: options.seed,
        replicas,
        faults,
        place_ms: Latencies::new(placed.orders.iter().map(|order| order.placed_after)).percentiles(),
        longest_gap_ms: gaps::longest_ms(gaps.iter().copied()),
        longest_gap_by_fault_ms: gaps::longest_by_fault_ms(&gaps, &done),
        longest_election_ms: gaps::longest_ms(elections.after(&leaders_lost)),
        report,
    })
}

/// Has the services speak to their servers through wires that can be cut, in the order of [`WIRES`]; where the log has several servers, a
/// wire is the ways to all of them.
async fn put_proxies_between(stack: &mut Stack) -> anyhow::Result<Vec<Vec<Proxy>>> {
    let mut wires = Vec::with_capacity(WIRES.len());
    for Wire { service, server } in WIRES {
        let (setting, urls) = match server {
            NATS => ("NATS_URL", stack.nats_of(service)?),
            _ => ("DATABASE_URL", stack.database_of(service)?),
        };
        let (mut proxies, mut urls_of_proxies) = (Vec::new(), Vec::new());
        for url in event_store::servers(&urls) {
            let address = address_of(url).with_context(|| format!("find the address in the URL of {server}"))?;
            let proxy = Proxy::to(address.to_owned()).await?;
            urls_of_proxies.push(url.replace(address, &proxy.address().to_string()));
            proxies.push(proxy);
        }
        stack.set(service, setting, urls_of_proxies.join(","))?;
        wires.push(proxies);
    }
    Ok(wires)
}

/// `scheme://user:password@address/path`.
fn address_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?']).next().filter(|address| address.contains(':'))
}

/// Does something to a process, and undoes it.
async fn afflict(stack: &mut Stack, name: &str, planned: &Planned) -> anyhow::Result<()> {
    if let Fault::Freeze(_) = planned.fault {
        stack.freeze(name)?;
        sleep(planned.lasts).await;
        return stack.thaw(name);
    }
    block_in_place(|| stack.kill(name))?;
    sleep(planned.lasts).await;
    block_in_place(|| stack.spawn(name))
}

/// Which process is meant: of the servers that have the log, the one that leads at this moment, or one that does not.
async fn process(info: &StackInfo, name: &'static str) -> anyhow::Result<&'static str> {
    if name != LOG_LEADER && name != LOG_FOLLOWER {
        return Ok(name);
    }
    let jetstream = log_server::connect(info).await?;
    eventually("the log has a leader", LEADER_DEADLINE, async || {
        // Without a leader there may be no answer either.
        let cluster = log_server::cluster(&jetstream).await.ok().flatten();
        let leader = cluster.and_then(|cluster| cluster.leader);
        let of_leader = |server: &&'static str| leader.as_deref() == Some(*server);
        Ok(match name {
            LOG_LEADER => NATS_CLUSTER.into_iter().find(|server| of_leader(server)),
            _ => leader.as_ref().and_then(|_| NATS_CLUSTER.into_iter().find(|server| !of_leader(server))),
        })
    })
    .await
}

/// What goes wrong beside the processes.
#[derive(Clone)]
struct Beside {
    shop: Shop,
    wires: Vec<Vec<Proxy>>,
    clocks: Option<Clocks>,
}

impl Beside {
    /// One after the other; what is not wanted only takes its time. Returns what was done, and when.
    async fn disturb_all(&self, planned: Vec<(bool, Planned)>) -> anyhow::Result<Vec<(String, Span)>> {
        let mut done = Vec::new();
        for (is_wanted, planned) in planned {
            sleep(planned.after).await;
            let began = Instant::now();
            if is_wanted && self.disturb(&planned).await? {
                done.push((planned.fault.to_string(), Span { began, ended: Instant::now() }));
            } else {
                sleep(planned.lasts).await;
            }
        }
        Ok(done)
    }

    /// Does something, and undoes it; `false` if it cannot be done here.
    async fn disturb(&self, planned: &Planned) -> anyhow::Result<bool> {
        match (&planned.fault, &self.clocks) {
            (Fault::Cut(wire, network), _) => {
                self.wires[*wire].iter().for_each(|proxy| proxy.set(*network));
                sleep(planned.lasts).await;
                self.wires[*wire].iter().for_each(|proxy| proxy.set(Network::Whole));
            }
            (Fault::Gateway(trouble), _) => {
                self.shop.set_gateway_faults(&trouble.settings()).await?;
                sleep(planned.lasts).await;
                self.shop.set_gateway_faults(&serde_json::json!({})).await?;
            }
            (Fault::Clock(service, by_s), Some(clocks)) => {
                clocks.set(service, *by_s)?;
                sleep(planned.lasts).await;
                clocks.set(service, 0)?;
            }
            (Fault::Clock(..), None) | (Fault::Kill(_) | Fault::Freeze(_), _) => return Ok(false),
        }
        Ok(true)
    }
}

/// Waits until no charge is to be looked for any more.
async fn until_charges_are_checked(info: &StackInfo) -> anyhow::Result<()> {
    let jetstream = log_server::connect(info).await?;
    eventually("the last charges are looked for", CHARGE_CHECKS_DEADLINE, async || {
        // The last fault may have left the stream without a leader for now.
        Ok(charges_to_look_for(&jetstream).await.ok().filter(|left| *left == 0).map(drop))
    })
    .await
}

async fn charges_to_look_for(jetstream: &jetstream::Context) -> anyhow::Result<usize> {
    let stream = jetstream.get_stream(TIMER_STREAM).await.context("look at the timers")?;
    let subjects = stream.info_with_subjects("timers.>").await.context("list the timers")?;
    let of_charges = subjects.try_filter(|(subject, _)| std::future::ready(subject.contains("find-charge")));
    Ok(of_charges.try_collect::<Vec<_>>().await.context("list the timers")?.len())
}

#[cfg(test)]
mod tests {
    use super::address_of;

    #[test]
    fn an_address_is_found_in_every_url() {
        assert_eq!(address_of("nats://127.0.0.1:4222"), Some("127.0.0.1:4222"));
        assert_eq!(address_of("postgres://contrail:a@b@127.0.0.1:5432/contrail?x=y"), Some("127.0.0.1:5432"));
        assert_eq!(address_of("postgres:///contrail"), None);
    }
}
