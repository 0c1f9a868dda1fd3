//! `cargo xtask chaos`: a stack of its own, on which everything goes wrong.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::{arguments, own_stack};

pub(crate) fn run(arguments: &arguments::Chaos) -> anyhow::Result<()> {
    let seed = arguments.seed.unwrap_or_else(any_seed);
    let duration = Duration::from_secs_f64(arguments.minutes * 60.0);
    let (orders_per_s, only, prints_json) = (arguments.rate, arguments.only.clone(), arguments.json);
    let replicates = arguments.replicas > 1;
    let outcome = own_stack::run(
        "chaos",
        |options| options.replicates = replicates,
        move |stack| {
            let options = e2e::chaos::Options { duration, seed, orders_per_s, only: &only };
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
            eprintln!("seed {seed}");
            let outcome = runtime.block_on(e2e::chaos::run(stack, options, |fault| eprintln!("{fault}")))?;
            if prints_json {
                println!("{}", serde_json::to_string(&outcome).context("encode the outcome")?);
            } else {
                println!("{outcome}");
            }
            outcome.ensure_none_violated()
        },
    );
    e2e::chaos::remove_leftovers();
    outcome
}

/// Another one each time, and short enough to be typed.
#[expect(clippy::disallowed_methods, reason = "whatever time it is")]
fn any_seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs() % 100_000)
}
