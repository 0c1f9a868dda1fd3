//! `projectors replay`, against reading the same log raw and copying the same bytes into one bare table.
//!
//! The limit does what any rebuild has to: it takes every message from the server, over async-nats' ordered consumer, and gives its
//! bytes to Postgres, in one binary COPY. What lies between is decoding, folding, rows with columns, indexes, and the swap.
//!
//! The log is that of a shop with orders of every outcome ([`e2e::history`]); the program is started as its users start it, and its
//! time is that of the whole process.

mod limit;

use anyhow::{Context as _, ensure};
use event_store::JetStreamEventStore;
use local_stack::stack::{SERVICES, Stack, StackOptions};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::block_in_place;

use crate::{
    Options, Row,
    figures::{per_second, rounded},
    process::{self, Ended},
    workplace::Workplace,
};

/// All cases: what `projectors replay` takes.
pub const CASES: [&str; 4] = ["all", "orders", "inventory", "audit"];

const EVENTS: u64 = 1_000_000;
const EVENTS_QUICK: u64 = 20_000;

/// Writes a log, then reads it in turns.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    let folder = workplace.subfolder()?;
    let stack_options = StackOptions::new(folder.path().join("stack"));
    let mut stack = block_in_place(|| Stack::start(stack_options, |step| eprintln!("{step}")))?;
    let rows = measure(options, &mut stack).await;
    let shut_down = block_in_place(|| stack.shut_down());
    let rows = rows?;
    shut_down?;
    Ok(rows)
}

async fn measure(options: &Options, stack: &mut Stack) -> anyhow::Result<Vec<Row>> {
    for service in SERVICES {
        block_in_place(|| stack.stop(service))?;
    }
    let events = write_log(options, stack).await?;
    let cases: Vec<_> = CASES.into_iter().filter(|case| options.wants(case)).collect();
    let mut limits = Vec::new();
    let mut rates = vec![Vec::new(); cases.len()];
    let mut peaks_mb = vec![0.0_f64; cases.len()];
    for run in 1..=options.runs.get() {
        settle(stack).await?;
        let limit = per_second(events, limit::measure(stack.info(), events).await?);
        eprintln!("run {run} of {}: read raw and copied into a bare table at {limit:.0} events/s", options.runs);
        limits.push(limit);
        for (index, case) in cases.iter().enumerate() {
            settle(stack).await?;
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

async fn write_log(options: &Options, stack: &Stack) -> anyhow::Result<usize> {
    let events = options.events.unwrap_or(if options.quick { EVENTS_QUICK } else { EVENTS });
    eprintln!("writing a log of {events} events");
    let store = JetStreamEventStore::connect(&stack.info().nats, "bench").await.context("connect to NATS")?;
    store.wait_until_ready(|_| ()).await;
    let written = e2e::history::write(&store, events).await?;
    eprintln!("the log has {written} events");
    usize::try_from(written).context("count the events")
}

/// Nothing of what was before is left to be written while the next is measured.
async fn settle(stack: &Stack) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&stack.info().database).await.context("connect to Postgres")?;
    connection.execute("CHECKPOINT").await.context("write what is not on disk yet")?;
    // The server notices an unclean end as well.
    let _ = connection.close().await;
    Ok(())
}

async fn replay(stack: &Stack, case: &str) -> anyhow::Result<Ended> {
    let mut command = stack.command("projectors")?;
    command.args(["replay", case, "--output", "json"]);
    let ended = process::run_to_end(&command).await?;
    ensure!(ended.status.success(), "`projectors replay {case}` failed ({})", ended.status);
    Ok(ended)
}
