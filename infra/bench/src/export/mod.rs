//! `projectors audit export`, against copying the stored bytes out of the same table into a file, raw and in no order.
//!
//! The limit gives whoever has it nothing: no positions, no order, no root. Ours hashes every event, holds it against what was recorded,
//! and signs. The files are on the same disk, and neither is waited for to be on it but ours at its end.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use local_stack::Stack;
use sqlx::{Connection as _, PgConnection};

use crate::{
    Options, Row,
    figures::{per_second, rounded},
    history,
    process::{self, Ended},
    workplace::Workplace,
};

/// All cases: the formats.
pub const CASES: [&str; 3] = ["jsonl", "csv", "parquet"];

/// Size of the limit's output buffer, in bytes, as ours has it.
const BUFFER_BYTES: usize = 256 * 1024;

/// Fills the trail, then exports it in turns.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    history::with_stack(options, workplace, async |stack, events| measure(options, stack, events).await).await
}

async fn measure(options: &Options, stack: &Stack, events: usize) -> anyhow::Result<Vec<Row>> {
    run_to_success(stack, &["replay", "audit"]).await?;
    let cases: Vec<_> = CASES.into_iter().filter(|case| options.wants(case)).collect();
    let file = stack.directory().join("export");
    let mut limits = Vec::new();
    let mut rates = vec![Vec::new(); cases.len()];
    let mut peaks_mb = vec![0.0_f64; cases.len()];
    for run in 1..=options.runs.get() {
        history::settle(stack).await?;
        let limit = per_second(events, copy_out(stack, &file, events).await?);
        eprintln!("run {run} of {}: copied out raw at {limit:.0} events/s", options.runs);
        limits.push(limit);
        for (index, case) in cases.iter().enumerate() {
            let path = file.to_str().context("the folder's name is not UTF-8")?;
            let exported = run_to_success(stack, &["audit", "export", "--format", case, "--out", path]).await?;
            let rate = per_second(events, exported.elapsed);
            eprintln!(
                "{case}, run {run} of {}: {rate:.0} events/s, {:.1} s, at most {:.0} MiB resident",
                options.runs,
                exported.elapsed.as_secs_f64(),
                exported.peak_rss_mb
            );
            rates[index].push(rate);
            peaks_mb[index] = peaks_mb[index].max(exported.peak_rss_mb);
            fs::remove_file(&file).context("remove an export")?;
        }
    }
    let rows = cases.iter().zip(rates).zip(peaks_mb).map(|((case, rates), peak_mb)| {
        let row = Row::new(case, "events/s", &rates).against(&limits);
        Row { rss_mb: Some(rounded(peak_mb)), ..row }
    });
    Ok(rows.collect())
}

async fn run_to_success(stack: &Stack, arguments: &[&str]) -> anyhow::Result<Ended> {
    let mut command = stack.command("projectors")?;
    command.args(arguments);
    let ended = process::run_to_end(&command).await?;
    ensure!(ended.status.success(), "`projectors {}` failed ({})", arguments.join(" "), ended.status);
    Ok(ended)
}

/// Copies the stored bytes of every event into a file.
async fn copy_out(stack: &Stack, file: &Path, events: usize) -> anyhow::Result<Duration> {
    let mut connection = PgConnection::connect(&stack.info().database).await.context("connect to Postgres")?;
    let started = Instant::now();
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create(file).context("create a file")?);
    let mut rows = 0;
    {
        let mut messages =
            connection.copy_out_raw("COPY contrail.audit (bytes) TO STDOUT (FORMAT binary)").await.context("copy the trail out")?;
        while let Some(message) = messages.try_next().await.context("copy the trail out")? {
            rows += 1;
            out.write_all(&message).context("write a file")?;
        }
    }
    out.flush().context("write a file")?;
    let elapsed = started.elapsed();
    // The end is a message of its own.
    ensure!(rows == events + 1, "{rows} rows were copied, not {events}");
    fs::remove_file(file).context("remove a file")?;
    // The server notices an unclean end as well.
    let _ = connection.close().await;
    Ok(elapsed)
}
