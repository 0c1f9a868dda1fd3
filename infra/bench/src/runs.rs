//! What the runs of one case came to.

use crate::{Row, figures::Latencies};

/// One figure of each run for each column of the row that they become.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    limits: Vec<f64>,
    values: Vec<f64>,
    p50s_ms: Vec<f64>,
    p99s_ms: Vec<f64>,
}

impl Runs {
    /// Adds a run: what the limit and we reached, and how long our operations took.
    pub(crate) fn add(&mut self, limit: f64, value: f64, latencies: &Latencies) {
        self.limits.push(limit);
        self.values.push(value);
        self.p50s_ms.push(latencies.p50_ms());
        self.p99s_ms.push(latencies.p99_ms());
    }

    /// The medians.
    pub(crate) fn row(&self, case: &str, unit: &'static str) -> Row {
        Row::new(case, unit, &self.values).against(&self.limits).with_percentiles(&self.p50s_ms, &self.p99s_ms)
    }
}
