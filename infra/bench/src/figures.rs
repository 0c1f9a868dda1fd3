//! Medians and percentiles.

use std::time::Duration;

/// The value in the middle, or halfway between the two in the middle; 0 if there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    match sorted.get(upper) {
        None => 0.0,
        Some(middle) if sorted.len() % 2 == 1 => *middle,
        Some(above) => f64::midpoint(sorted[upper - 1], *above),
    }
}

/// With five significant digits: nobody measures more, and nothing that is computed from them is far off.
pub(crate) fn rounded(figure: f64) -> f64 {
    const DIGITS: f64 = 5.0;
    if figure == 0.0 || !figure.is_finite() {
        return figure;
    }
    let digits_before_point = figure.abs().log10().floor() + 1.0;
    let scale = 10_f64.powf(DIGITS - digits_before_point);
    (figure * scale).round() / scale
}

/// `count` things in `elapsed`, as a rate per second.
#[expect(clippy::cast_precision_loss, reason = "nothing that is counted here comes near 2^53")]
pub(crate) fn per_second(count: usize, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

/// How long the operations of one run took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    pub(crate) fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self { sorted: durations }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// Half of all took at most so many milliseconds.
    pub(crate) fn p50_ms(&self) -> f64 {
        self.percentile_ms(50)
    }

    /// 99 of 100 took at most so many milliseconds.
    pub(crate) fn p99_ms(&self) -> f64 {
        self.percentile_ms(99)
    }

    /// The nearest rank: the smallest duration that at least so many of a hundred do not exceed; 0 if there is none.
    fn percentile_ms(&self, of_hundred: usize) -> f64 {
        let rank = (self.sorted.len() * of_hundred).div_ceil(100);
        let duration = rank.checked_sub(1).and_then(|index| self.sorted.get(index)).copied().unwrap_or_default();
        duration.as_secs_f64() * 1_000.0
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these figures have an exact representation")]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(median(&[7.0]), 7.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let latencies = Latencies::new((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!((latencies.p50_ms(), latencies.p99_ms(), latencies.count()), (100.0, 198.0, 200));
        assert_eq!(Latencies::new(vec![Duration::from_millis(3)]).p99_ms(), 3.0);
        assert_eq!(Latencies::default().p50_ms(), 0.0);
    }

    #[test]
    fn a_rate_is_per_second_and_no_time_is_no_rate() {
        assert_eq!(per_second(50, Duration::from_millis(500)), 100.0);
        assert_eq!(per_second(50, Duration::ZERO), 0.0);
    }

    #[test]
    fn small_and_large_figures_keep_as_many_digits() {
        assert_eq!(rounded(0.031_214_56), 0.031_215);
        assert_eq!(rounded(21_346.666), 21_347.0);
        assert_eq!(rounded(1_234_567.0), 1_234_600.0);
        assert_eq!(rounded(0.0), 0.0);
    }
}
