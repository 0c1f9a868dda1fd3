//! What a benchmark found, as a table for people and as JSON for programs (DESIGN §12).

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::figures::{median, rounded};

/// The result of one benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub bench: &'static str,
    /// Of how many runs each figure is the median.
    #[serde(skip)]
    pub runs: usize,
    /// One row for each case.
    pub rows: Vec<Row>,
}

/// The result of one case. What does not apply is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which case.
    pub case: String,
    /// What we reach.
    pub value: f64,
    /// Of `value` and `limit`: `events/s`, `orders/s`, `requests/s`, or `ms` (the median latency).
    pub unit: &'static str,
    /// What the plain operation, or the rival, reaches in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// `value` / `limit`: for a rate the higher the better, for a latency the lower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Half of our operations took at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// 99 of 100 of our operations took at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// The most memory that the measured process had resident, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_mb: Option<f64>,
}

impl Row {
    /// A row without a limit: the median of `values`, one for each run.
    pub(crate) fn new(case: &str, unit: &'static str, values: &[f64]) -> Self {
        let value = rounded(median(values));
        Self { case: case.to_owned(), value, unit, limit: None, ratio: None, p50_ms: None, p99_ms: None, rss_mb: None }
    }

    /// The same row held against the median of `limits`.
    pub(crate) fn against(mut self, limits: &[f64]) -> Self {
        let limit = rounded(median(limits));
        self.limit = Some(limit);
        self.ratio = (limit > 0.0).then(|| rounded(self.value / limit));
        self
    }

    /// The same row with latencies: the median of each percentile over the runs.
    pub(crate) fn with_percentiles(mut self, p50_ms: &[f64], p99_ms: &[f64]) -> Self {
        self.p50_ms = Some(rounded(median(p50_ms)));
        self.p99_ms = Some(rounded(median(p99_ms)));
        self
    }
}

impl Report {
    /// One JSON object in one line.
    pub fn to_json(&self) -> anyhow::Result<String> {
        serde_json::to_string(self).context("encode the result")
    }

    /// The same for people.
    pub fn to_table(&self) -> String {
        const HEADER: [&str; 8] = ["case", "value", "unit", "limit", "ratio", "p50 ms", "p99 ms", "rss MiB"];
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(HEADER);
        for row in &self.rows {
            let shown = |figure: Option<f64>| figure.map(shown).unwrap_or_default();
            table.add_row([
                row.case.clone(),
                shown(Some(row.value)),
                row.unit.to_owned(),
                shown(row.limit),
                row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                shown(row.p50_ms),
                shown(row.p99_ms),
                shown(row.rss_mb),
            ]);
        }
        for column in [1, 3, 4, 5, 6, 7] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let runs = match self.runs {
            1 => "from a single run".to_owned(),
            runs => format!("medians of {runs} runs, limit and ours in turns"),
        };
        format!("{}: {runs}\n{table}", self.bench)
    }
}

/// As many digits as one can compare.
fn shown(figure: f64) -> String {
    if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>) -> Report {
        Report { bench: "append", runs: 3, rows }
    }

    #[test]
    fn the_json_has_the_fields_of_the_contract_and_leaves_out_what_does_not_apply() {
        let full = Row::new("fsync-16", "events/s", &[3_000.0, 1_000.0, 2_000.0]).against(&[500.0, 400.0, 800.0]);
        let full = full.with_percentiles(&[1.0, 2.0, 3.0], &[9.0, 9.5, 20.0]);
        let bare = Row::new("one-sku", "orders/s", &[7.0]);
        assert_eq!(
            report(vec![full, bare]).to_json().unwrap(),
            "{\"bench\":\"append\",\"rows\":[\
             {\"case\":\"fsync-16\",\"value\":2000.0,\"unit\":\"events/s\",\"limit\":500.0,\"ratio\":4.0,\"p50_ms\":2.0,\"p99_ms\":9.5},\
             {\"case\":\"one-sku\",\"value\":7.0,\"unit\":\"orders/s\"}]}"
        );
    }

    #[test]
    fn the_table_says_how_many_runs_there_were() {
        let table = report(vec![Row::new("fsync-1", "ms", &[0.5]).against(&[0.25])]).to_table();
        assert!(table.starts_with("append: medians of 3 runs, limit and ours in turns\n"), "{table}");
        assert!(table.contains("0.50") && table.contains("2.00"), "{table}");
    }
}
