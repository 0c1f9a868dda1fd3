//! How much memory each process takes after so many orders, and after ten times as many: it must not grow with them.
//!
//! What is paid is shipped, as in a shop, so that the stock set aside is that of the last moments and not of all orders.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use e2e::{
    load::{self, Counters, Load},
    shop::Shop,
    workload::Workload,
};
use local_stack::Stack;
use tokio::time::sleep;

use super::processes::{self, LOAD, Usage};
use crate::{Options, Row};

const ORDERS: u64 = 1_000_000;
/// What it is held against was measured after this part of the orders.
const FIRST_PART: u64 = 10;
/// Orders per second.
const RATE: f64 = 500.0;
/// The stand-in for the payment gateway.
const SIMULATOR: &str = "payment-simulator";
const SEED: u64 = 20_261_121;
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Places the orders, and looks at the processes twice.
pub(super) async fn run(options: &Options, stack: &Stack) -> anyhow::Result<Row> {
    let shop = Shop::new(stack.info())?;
    let orders = options.orders.unwrap_or(ORDERS);
    let first = orders / FIRST_PART;
    let workload = Workload::new("memory", SEED, orders);
    load::receive_stock(&shop, &workload).await?;
    let counters = Arc::new(Counters::default());
    let rate = Some(options.rate.unwrap_or(RATE));
    let load = Load { rate, ships: true, counters: Arc::clone(&counters), ..Load::default() };
    let looks = async {
        let mut looks = Vec::new();
        for target in [first, orders] {
            while counters.now().settled() < target {
                sleep(LOOK_INTERVAL).await;
            }
            let usage = processes::usage(stack.info())?;
            eprintln!("after {target} orders: {}", in_words(&usage));
            looks.push(usage);
        }
        anyhow::Ok(looks)
    };
    let load = async { load::run(&shop, &workload, &load).await.context("place the orders") };
    let (_, looks) = tokio::try_join!(load, looks)?;
    let sums: Vec<f64> = looks.iter().map(services_mb).collect();
    let mut row = Row::new("memory", "MiB", &sums[1..]).against(&sums[..1]);
    row.rss_mb = Some(crate::figures::rounded(sums[1]));
    Ok(row)
}

/// Of the services: what the servers below keep of each order is their own affair, as is the gateway's ledger, which has to have every
/// charge for the invariants to be checked against. All of it is told beside it.
fn services_mb(usage: &BTreeMap<String, Usage>) -> f64 {
    let services = local_stack::stack::SERVICES.iter().filter(|name| **name != SIMULATOR).filter_map(|name| usage.get(*name));
    services.map(|usage| usage.rss_mb).sum()
}

fn in_words(usage: &BTreeMap<String, Usage>) -> String {
    let shown = usage.iter().filter(|(name, _)| *name != LOAD).map(|(name, usage)| format!("{name} {:.0} MiB", usage.rss_mb));
    shown.collect::<Vec<_>>().join(", ")
}
