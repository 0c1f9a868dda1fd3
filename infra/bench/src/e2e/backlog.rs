//! The reactors are away while orders come, and then have to work off what has queued: with the events of each order far apart, and
//! nothing of them in a cache.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{
    invariants,
    load::{self, Counters, Load},
    shop::Shop,
    workload::Workload,
};
use local_stack::Stack;
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use super::{BACKLOG, difference, processes, trial::as_f64};
use crate::{Options, Row};

const ORDERS: u64 = 120_000;
/// Orders per second, as they come.
const RATE: f64 = 1_000.0;
const REACTORS: &str = "reactors";
const SEED: u64 = 20_261_123;
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long after the reactors are back nothing may come to an end.
const RECOVERY_MAX: Duration = Duration::from_mins(2);

/// Places the orders, starts the reactors, and waits until every order has come to its end.
pub(super) async fn run(options: &Options, stack: &mut Stack) -> anyhow::Result<Row> {
    let shop = Shop::new(stack.info())?;
    let orders = options.orders.unwrap_or(if options.quick { ORDERS / 20 } else { ORDERS });
    let rate = options.rate.unwrap_or(RATE);
    let workload = Workload::new(BACKLOG, SEED, orders);
    load::receive_stock(&shop, &workload).await?;
    block_in_place(|| stack.stop(REACTORS))?;
    let counters = Arc::<Counters>::default();
    // They may come more slowly than they should.
    let stall_after = Some(Duration::from_secs_f64(as_f64(orders) / rate) * 2 + RECOVERY_MAX);
    let load = Load { rate: Some(rate), counters: counters.clone(), stall_after, ..Load::default() };
    let working_off = async {
        while counters.now().placed < orders {
            sleep(LOOK_INTERVAL).await;
        }
        // But for those that were called off.
        let waited = orders - counters.now().settled();
        ensure!(waited > orders / 2, "{waited} of {orders} orders waited for the reactors");
        let back = Instant::now();
        block_in_place(|| stack.start_again(REACTORS))?;
        let before = processes::usage(stack.info())?;
        let mut half = None;
        while counters.now().settled() < orders {
            if orders - counters.now().settled() <= waited / 2 {
                half.get_or_insert_with(|| back.elapsed());
            }
            sleep(LOOK_INTERVAL).await;
        }
        let took = back.elapsed();
        anyhow::Ok((waited, took, half.unwrap_or(took), difference(&before, &processes::usage(stack.info())?)))
    };
    let (_, (waited, took, half, spent)) = tokio::try_join!(load::run(&shop, &workload, &load), working_off)?;
    let drained = as_f64(waited) / took.as_secs_f64();
    eprintln!(
        "{waited} orders waited when the reactors came back; half of them had come to their ends after {:.1} s, all after {:.1} s: {drained:.0} orders/s",
        half.as_secs_f64(),
        took.as_secs_f64(),
    );
    for (name, usage) in &spent {
        let (share, per_order) = (usage.cpu_s / took.as_secs_f64() * 100.0, usage.cpu_s / as_f64(waited) * 1_000_000.0);
        eprintln!("  {name:18} {share:5.1} % of a core, {per_order:4.0} us an order, {:4.0} MiB", usage.rss_mb);
    }
    let report = invariants::check(stack, &shop).await.context("check the invariants")?;
    report.ensure_none_violated()?;
    eprintln!("all invariants hold over {} orders", report.orders);
    Ok(Row::new(BACKLOG, "orders/s", &[drained]).against(&[rate]))
}
