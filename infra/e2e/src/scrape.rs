//! What a service says of itself on `/metrics`.

use std::time::Duration;

use anyhow::Context as _;

use crate::http_client;

/// How long a service may take to tell its metrics.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One look at the metrics of a service.
#[derive(Clone, Debug)]
pub struct Scrape(String);

impl Scrape {
    /// Asks the service at `base` for its metrics.
    pub async fn of(base: &str) -> anyhow::Result<Self> {
        let answer = http_client::new(TIMEOUT)?.get(format!("{base}/metrics")).send().await.context("ask for metrics")?;
        Ok(Self(answer.error_for_status().context("ask for metrics")?.text().await.context("read metrics")?))
    }

    /// All of it, in the Prometheus text format.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value of a series, named with its labels as it is printed: `up{job="x"}`. `None` if there is no such series.
    pub fn value(&self, series: &str) -> Option<f64> {
        let mut values = self.0.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        values.find_map(|value| value.split(' ').next()?.parse().ok())
    }

    /// How often the circuit breaker of an outside system has entered a phase, by the reactors' metrics.
    pub fn breaker_changes(&self, system: &str, phase: &str) -> Option<f64> {
        self.value(&format!("contrail_breaker_changes_total{{system=\"{system}\",phase=\"{phase}\"}}"))
    }
}
