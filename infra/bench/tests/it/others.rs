use bench::{Benchmark, Row};

use crate::quick;

fn row<'a>(rows: &'a [Row], case: &str) -> &'a Row {
    rows.iter().find(|row| row.case == case).unwrap_or_else(|| panic!("no row for {case}"))
}

#[test]
fn load_measures_short_aggregates_near_and_far_and_the_long_one_cold_and_warm() {
    let report = quick(Benchmark::Load, &[]);
    let cases: Vec<_> = report.rows.iter().map(|row| row.case.as_str()).collect();
    assert_eq!(cases, Benchmark::Load.cases());
    assert!(report.rows.iter().all(|row| row.unit == "ms" && row.value > 0.0 && row.limit.is_some()));
}

#[test]
fn hot_sku_holds_one_sku_against_a_thousand() {
    let report = quick(Benchmark::HotSku, &[]);
    let (one, thousand) = (row(&report.rows, "one-sku"), row(&report.rows, "thousand-skus"));
    assert_eq!(one.limit, Some(thousand.value));
    assert!(one.value > 0.0 && thousand.limit.is_none());
}

#[test]
fn query_holds_graphql_against_pgbench() {
    let report = quick(Benchmark::Query, &[]);
    let by_id = row(&report.rows, "by-id-64");
    assert!(by_id.value > 0.0 && by_id.limit.is_some_and(|limit| limit > 0.0));
}

#[test]
fn replay_holds_every_case_against_raw_copying() {
    assert_held_against_raw_copying(Benchmark::Replay);
}

#[test]
fn export_holds_every_case_against_raw_copying() {
    assert_held_against_raw_copying(Benchmark::Export);
}

fn assert_held_against_raw_copying(benchmark: Benchmark) {
    let report = quick(benchmark, &[]);
    let cases: Vec<_> = report.rows.iter().map(|row| row.case.as_str()).collect();
    // Under load there is no limit to hold it against, and it is measured only where it is asked for.
    let compared: Vec<_> = benchmark.cases().iter().copied().filter(|case| *case != "under-load").collect();
    assert_eq!(cases, compared);
    assert!(report.rows.iter().all(|row| row.unit == "events/s" && row.ratio.is_some() && row.rss_mb.is_some()));
}
