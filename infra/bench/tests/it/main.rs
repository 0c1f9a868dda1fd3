//! The benchmarks at their smallest: whether they measure, tell and clean up, not how fast anything is.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod append;
mod others;

use std::num::NonZeroUsize;

use bench::{Benchmark, Options, Report};

/// Runs the named cases once, as short as can be.
fn quick(benchmark: Benchmark, cases: &[&str]) -> Report {
    let cases = cases.iter().map(ToString::to_string).collect();
    let options = Options { runs: NonZeroUsize::MIN, quick: true, cases, orders: None, events: None, rate: None };
    bench::run(benchmark, &options, std::future::pending()).unwrap().expect("nobody interrupted it")
}
