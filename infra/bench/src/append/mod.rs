//! Appending single events, against plain publish-and-ack by async-nats.
//!
//! On the same server, in streams with the same settings, with the same number of events in flight: what the event store does
//! with its group commit, and what a program does that publishes each event by itself and waits for its acknowledgement. Both
//! append the same message, an `order.placed` with its headers, each to a subject of its own under the expectation that this has
//! no event yet. The event store also makes the event's id and serialises it within the loop; the plain publisher sends bytes that
//! are there.
//!
//! With one event in flight nothing can be grouped, and the latency is what counts: it must be that of a plain publish.

mod conflicts;
mod ours;
mod plain;

use std::time::Duration;

use anyhow::ensure;
use local_stack::Durability;

use crate::{
    Options, Row,
    closed_loop::{self, Window},
    runs::Runs,
    workplace::Workplace,
};

/// All cases: what survives, and how many transactions are in flight; then those in which some have a wrong expectation.
pub const CASES: [&str; 12] = [
    "fsync-1",
    "fsync-16",
    "fsync-64",
    "fsync-256",
    "fsync-1024",
    "page-cache-1",
    "page-cache-16",
    "page-cache-64",
    "page-cache-256",
    "page-cache-1024",
    "conflicts-1pct",
    "conflicts-10pct",
];

/// Transactions in flight where some of them conflict.
const CONFLICTS_CONCURRENCY: usize = 256;

enum Case {
    Plain { durability: Durability, concurrency: usize },
    Conflicts { percent: u64 },
}

impl Case {
    fn of(name: &str) -> Option<Self> {
        if let Some(percent) = name.strip_prefix("conflicts-").and_then(|rest| rest.strip_suffix("pct")) {
            return Some(Self::Conflicts { percent: percent.parse().ok()? });
        }
        let (durability, concurrency) = name.rsplit_once('-')?;
        let durability = if durability == "fsync" { Durability::Disk } else { Durability::PageCache };
        Some(Self::Plain { durability, concurrency: concurrency.parse().ok()? })
    }
}

/// Measures every case that is wanted, each on a fresh server.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    let window = if options.quick {
        Window { warm_up: Duration::from_millis(50), measured: Duration::from_millis(150) }
    } else {
        Window { warm_up: Duration::from_millis(500), measured: Duration::from_secs(2) }
    };
    let mut rows = Vec::new();
    for name in CASES.into_iter().filter(|name| options.wants(name)) {
        let row = match Case::of(name).expect("the cases are named as they are read") {
            Case::Plain { durability, concurrency } => {
                against_plain(name, durability, concurrency, options, window, workplace).await?
            }
            Case::Conflicts { percent } => conflicts::run(name, percent, options, window, workplace).await?,
        };
        rows.push(row);
    }
    Ok(rows)
}

async fn against_plain(
    case: &str,
    durability: Durability,
    concurrency: usize,
    options: &Options,
    window: Window,
    workplace: &Workplace,
) -> anyhow::Result<Row> {
    let log = workplace.log(durability).await?;
    let store = log.open().await?;
    let rival = plain::Rival::set_up(log.url()).await?;
    let mut runs = Runs::default();
    let mut appended = 0;
    for run in 1..=options.runs.get() {
        let limit = closed_loop::run(rival.publishers(concurrency, run), window).await?;
        let ours = closed_loop::run(ours::appenders(&store, concurrency, run), window).await?;
        appended += ours.clients.iter().map(|appender| appender.appended).sum::<u64>();
        // One after the other: what matters is how long the one takes.
        let (limit_figure, figure) =
            if concurrency == 1 { (limit.latencies.p50_ms(), ours.latencies.p50_ms()) } else { (limit.rate, ours.rate) };
        runs.add(limit_figure, figure, &ours.latencies);
        eprintln!(
            "{case}, run {run} of {}: limit {:.0} events/s, p50 {:.3} ms; ours {:.0} events/s, p50 {:.3} ms",
            options.runs,
            limit.rate,
            limit.latencies.p50_ms(),
            ours.rate,
            ours.latencies.p50_ms()
        );
    }
    let head = store.head().await?;
    ensure!(head == appended, "{case}: {appended} appends were acknowledged, and the log has {head} events");
    ours::ensure_same_size(&store, rival.event_bytes()).await?;
    Ok(runs.row(case, if concurrency == 1 { "ms" } else { "events/s" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_says_what_it_measures() {
        let mut plain = Vec::new();
        let mut percents = Vec::new();
        for name in CASES {
            match Case::of(name).unwrap() {
                Case::Plain { durability, concurrency } => plain.push((durability, concurrency)),
                Case::Conflicts { percent } => percents.push(percent),
            }
        }
        assert_eq!(plain[3], (Durability::Disk, 256));
        assert_eq!(plain[9], (Durability::PageCache, 1_024));
        assert_eq!(percents, [1, 10]);
    }
}
