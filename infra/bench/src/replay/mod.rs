//! `projectors replay`, against reading the same log raw and copying the same bytes into one bare table.
//!
//! The limit does what any rebuild has to: it takes every message from the server, over async-nats' ordered consumer, and gives its
//! bytes to Postgres, in one binary COPY. What lies between is decoding, folding, rows with columns, indexes, and the swap.
//!
//! The log is that of a shop with orders of every outcome ([`e2e::history`]); the program is started as its users start it, and its
//! time is that of the whole process.

mod limit;

use anyhow::ensure;
use local_stack::Stack;

use crate::{
    Options, Row,
    figures::{per_second, rounded},
    history,
    process::{self, Ended},
    workplace::Workplace,
};

/// All cases: what `projectors replay` takes.
pub const CASES: [&str; 4] = ["all", "orders", "inventory", "audit"];

/// Writes a log, then reads it in turns.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    history::with_stack(options, workplace, async |stack, events| measure(options, stack, events).await).await
}

async fn measure(options: &Options, stack: &Stack, events: usize) -> anyhow::Result<Vec<Row>> {
    let cases: Vec<_> = CASES.into_iter().filter(|case| options.wants(case)).collect();
    let mut limits = Vec::new();
    let mut rates = vec![Vec::new(); cases.len()];
    let mut peaks_mb = vec![0.0_f64; cases.len()];
    for run in 1..=options.runs.get() {
        history::settle(stack).await?;
        let limit = per_second(events, limit::measure(stack.info(), events).await?);
        eprintln!("run {run} of {}: read raw and copied into a bare table at {limit:.0} events/s", options.runs);
        limits.push(limit);
        for (index, case) in cases.iter().enumerate() {
            history::settle(stack).await?;
            let replayed = replay(stack, case).await?;
            let rate = per_second(events, replayed.elapsed);
            eprintln!(
                "{case}, run {run} of {}: {rate:.0} events/s, {:.1} s, at most {:.0} MiB resident",
                options.runs,
                replayed.elapsed.as_secs_f64(),
                replayed.peak_rss_mb
            );
            rates[index].push(rate);
            peaks_mb[index] = peaks_mb[index].max(replayed.peak_rss_mb);
        }
    }
    let rows = cases.iter().zip(rates).zip(peaks_mb).map(|((case, rates), peak_mb)| {
        let row = Row::new(case, "events/s", &rates).against(&limits);
        Row { rss_mb: Some(rounded(peak_mb)), ..row }
    });
    Ok(rows.collect())
}

async fn replay(stack: &Stack, case: &str) -> anyhow::Result<Ended> {
    let mut command = stack.command("projectors")?;
    command.args(["replay", case, "--output", "json"]);
    let ended = process::run_to_end(&command).await?;
    ensure!(ended.status.success(), "`projectors replay {case}` failed ({})", ended.status);
    Ok(ended)
}
