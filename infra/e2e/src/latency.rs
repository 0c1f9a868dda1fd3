//! Percentiles of durations.

use std::time::Duration;

use serde::Serialize;

/// Durations, to be asked for percentiles.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

/// Two percentiles in milliseconds; 0 if nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of all took at most this.
    pub p50: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
}

impl Latencies {
    /// All of them.
    pub fn new(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = durations.into_iter().collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Half of all, and 99 of 100, took at most so long.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles { p50: self.percentile_ms(50), p99: self.percentile_ms(99) }
    }

    /// The nearest rank: the smallest duration that at least so many of a hundred do not exceed, in milliseconds with two digits.
    fn percentile_ms(&self, of_hundred: usize) -> f64 {
        let rank = (self.0.len() * of_hundred).div_ceil(100);
        let duration = rank.checked_sub(1).and_then(|index| self.0.get(index)).copied().unwrap_or_default();
        (duration.as_secs_f64() * 100_000.0).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let latencies = Latencies::new((1..=200).rev().map(Duration::from_millis));
        assert_eq!(latencies.percentiles(), Percentiles { p50: 100.0, p99: 198.0 });
        assert_eq!(Latencies::new([Duration::from_micros(1_234)]).percentiles(), Percentiles { p50: 1.23, p99: 1.23 });
        assert_eq!(Latencies::default().percentiles(), Percentiles::default());
    }
}
