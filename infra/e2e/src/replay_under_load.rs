//! `projectors replay all`, again and again, while orders flow and somebody looks on.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use local_stack::Stack;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

use crate::load::{self, Counters, Load};
use crate::onlooker::{self, Seen};
use crate::settle;
use crate::shop::Shop;
use crate::workload::Workload;

/// Between two replays.
const PAUSE: Duration = Duration::from_secs(1);

/// How much goes on.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// What is ordered. Replays follow on one another until the last of its orders has come to its end.
    pub workload: Workload,
    /// Orders per second.
    pub orders_per_s: f64,
    /// Queries per second.
    pub queries_per_s: f64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of each replay that went through while orders flowed, what it says of itself.
    pub replays: Vec<Value>,
    /// What the onlooker saw.
    pub seen: Seen,
}

/// Replays while traffic goes on; and when all is at rest, verifies that the read models are what the log says.
///
/// Fails if an order does not come to its end, a replay fails, or the read models differ from the log.
pub async fn run(stack: &Stack, shop: &Shop, traffic: Traffic) -> anyhow::Result<Outcome> {
    let Traffic { workload, orders_per_s, queries_per_s } = traffic;
    load::receive_stock(shop, &workload).await?;
    let counters = Arc::<Counters>::default();
    let load = Load { rate: Some(orders_per_s), ships: true, counters: counters.clone(), ..Load::default() };
    let placing = {
        let (shop, workload) = (shop.clone(), workload.clone());
        tokio::spawn(async move { load::run(&shop, &workload, &load).await })
    };
    let replaying = async {
        let mut replays = Vec::new();
        while counters.now().placed < workload.orders() && !placing.is_finished() {
            sleep(PAUSE).await;
            let report = projectors(stack, &["replay", "all"]).await?;
            // One that outlasted the orders says nothing.
            if counters.now().placed < workload.orders() {
                replays.extend(report["replays"].as_array().context("a report has no replays")?.clone());
            }
        }
        let placed = placing.await.context("place orders")??;
        ensure!(placed.orders.len() as u64 == workload.orders(), "not every order came to its end");
        anyhow::Ok(replays)
    };
    let (replays, seen) = onlooker::look_on(shop, queries_per_s, replaying).await;
    let replays = replays?;
    settle::settle(stack.info(), shop).await?;
    projectors(stack, &["replay", "all", "--verify"]).await.context("the read models are not what the log says")?;
    Ok(Outcome { replays, seen })
}

async fn projectors(stack: &Stack, arguments: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::from(stack.command("projectors")?);
    command.args(arguments).args(["--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = command.output().await.context("start the projectors")?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`projectors {}` failed ({}): {said}{complained}", arguments.join(" "), output.status);
    serde_json::from_str(&said).with_context(|| format!("read {said}"))
}
