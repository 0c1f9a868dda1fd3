//! Benchmarks that measure their own limit in the same run: `cargo xtask bench NAME`.
//!
//! A rate says little about the code and much about the machine. So each benchmark measures, next to ours, what it has to be
//! held against (the plain operation of the server below, or a rival), on the same servers, with the same data, in turns: limit,
//! ours, limit, ours. A figure is the median over the runs, and what counts is the ratio of the two.
//!
//! * [`append`]: group commit against plain publish-and-ack.
//! * [`mod@e2e`]: the highest rate of orders that the whole system holds.
//! * [`load`]: loading an aggregate against one direct get.
//! * [`hot_sku`]: reserving one SKU against reserving a thousand.
//! * [`query`]: GraphQL order-by-id against pgbench's select by primary key.
//! * [`replay`]: rebuilding the read models against reading the log raw and copying it.
//! * [`export`]: the audit trail as a file against copying its bytes out raw.
//! * [`report`]: the rows, as a table and as JSON (DESIGN §12).
//!
//! To add a benchmark: a module with `CASES` and an async `run`, and a variant of [`Benchmark`].
//!
//! Everything runs on real servers in a folder of its own ([`workplace`]), of which nothing is left when the benchmark ends,
//! fails or is interrupted.

pub mod report;

pub mod append;
pub mod load;

pub mod hot_sku;
pub mod query;

pub mod export;
pub mod replay;

pub mod e2e;

pub mod workplace;

mod closed_loop;
mod figures;
mod history;
mod process;
mod runs;
mod shop;

use std::num::NonZeroUsize;

use anyhow::{Context as _, ensure};

pub use report::{Report, Row};
use workplace::Workplace;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Benchmark {
    /// Appending single events, against plain publish-and-ack by async-nats
    Append,
    /// Loading short and long aggregates, against one direct get
    Load,
    /// Reserving stock for orders that all want one SKU, against the same orders over a thousand
    HotSku,
    /// GraphQL order-by-id, against pgbench's select by primary key
    Query,
    /// Rebuilding the read models, against reading the log raw and copying it into a bare table
    Replay,
    /// Exporting the audit trail, against copying the stored bytes out of the same table
    Export,
    /// The highest rate of orders that the whole system holds, from the POST to CONFIRMED
    E2e,
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often limit and ours are measured, in turns; each figure is the median.
    pub runs: NonZeroUsize,
    /// Short and small: whether it works, not how fast it is.
    pub quick: bool,
    /// Only these cases; all of them when empty.
    pub cases: Vec<String>,
    /// How many orders, where a benchmark is about a number of them; its own default when left out.
    pub orders: Option<u64>,
    /// How many events, where a benchmark is about a number of them; its own default when left out.
    pub events: Option<u64>,
    /// Orders per second, where a benchmark is about the highest such rate: hold this one instead of looking for it.
    pub rate: Option<f64>,
}

impl Options {
    /// Whether `case` was asked for.
    fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.names(case)
    }

    /// Whether `case` was asked for by its name.
    fn names(&self, case: &str) -> bool {
        self.cases.iter().any(|wanted| wanted == case)
    }
}

impl Benchmark {
    /// Its name in the result and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Load => "load",
            Self::HotSku => "hot-sku",
            Self::Query => "query",
            Self::Replay => "replay",
            Self::Export => "export",
            Self::E2e => "e2e",
        }
    }

    /// The cases that it measures, each a row of the result.
    pub fn cases(self) -> &'static [&'static str] {
        match self {
            Self::Append => &append::CASES,
            Self::Load => &load::CASES,
            Self::HotSku => &hot_sku::CASES,
            Self::Query => &query::CASES,
            Self::Replay => &replay::CASES,
            Self::Export => &export::CASES,
            Self::E2e => &e2e::CASES,
        }
    }

    /// Fails, naming those that there are, if one of `cases` is none of this benchmark.
    pub fn check_cases(self, cases: &[String]) -> anyhow::Result<()> {
        for case in cases {
            ensure!(
                self.cases().contains(&case.as_str()),
                "{} has no case {case}; there are {}",
                self.name(),
                self.cases().join(", ")
            );
        }
        Ok(())
    }

    async fn measure(self, options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Append => append::run(options, workplace).await,
            Self::Load => load::run(options, workplace).await,
            Self::HotSku => hot_sku::run(options, workplace).await,
            Self::Query => query::run(options, workplace).await,
            Self::Replay => replay::run(options, workplace).await,
            Self::Export => export::run(options, workplace).await,
            Self::E2e => e2e::run(options, workplace).await,
        }
    }
}

/// Runs a benchmark to its end, or until `interrupted` completes; then there is no report.
///
/// Tells on standard error what it does. Blocks its thread, which must not belong to an async runtime. When this returns, every
/// process that was started is gone, and so is its data.
pub fn run(benchmark: Benchmark, options: &Options, interrupted: impl Future<Output = ()>) -> anyhow::Result<Option<Report>> {
    benchmark.check_cases(&options.cases)?;
    let workplace = Workplace::create()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the benchmark's runtime")?;
    let rows = runtime.block_on(async {
        tokio::select! {
            biased;
            () = interrupted => Ok(None),
            rows = benchmark.measure(options, &workplace) => rows.map(Some),
        }
    })?;
    Ok(rows.map(|rows| Report { bench: benchmark.name(), runs: options.runs.get(), rows }))
}
