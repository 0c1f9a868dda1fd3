//! For how long no order was acknowledged, and what went wrong meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::load::Counters;

/// How often the acknowledged orders are counted.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Shorter ones are how orders come.
const GAP_MIN: Duration = Duration::from_millis(200);

/// A time, from a beginning to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) began: Instant,
    pub(super) ended: Instant,
}

impl Span {
    fn length(self) -> Duration {
        self.ended - self.began
    }

    fn meets(self, other: Self) -> bool {
        self.began <= other.ended && other.began <= self.ended
    }
}

/// All times of some length in which no order was acknowledged, until `orders` are, or none was for `stall_after`.
pub(super) async fn watch(counters: Arc<Counters>, orders: u64, stall_after: Duration) -> Vec<Span> {
    let mut gaps = Vec::new();
    let (mut placed, mut since) = (0, Instant::now());
    while placed < orders {
        sleep(LOOK_INTERVAL).await;
        let (now, gap) = (counters.now().placed, Span { began: since, ended: Instant::now() });
        // Where the load has ended without them, it says why.
        let has_stalled = gap.length() > stall_after;
        if now > placed || has_stalled {
            (placed, since) = (now, gap.ended);
            gaps.extend((gap.length() >= GAP_MIN).then_some(gap));
        }
        if has_stalled {
            break;
        }
    }
    gaps
}

/// The longest, in milliseconds.
pub(super) fn longest_ms(gaps: impl IntoIterator<Item = Span>) -> u64 {
    let longest = gaps.into_iter().map(Span::length).max().unwrap_or_default();
    u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)
}

/// The longest that met each kind of fault, in milliseconds. Several things go wrong at a time, so this may be the fault of another one.
pub(super) fn longest_by_fault_ms(gaps: &[Span], faults: &[(String, Span)]) -> BTreeMap<String, u64> {
    let mut longest: BTreeMap<String, u64> = BTreeMap::new();
    for (fault, span) in faults {
        let met = longest_ms(gaps.iter().copied().filter(|gap| gap.meets(*span)));
        let so_far = longest.entry(fault.clone()).or_default();
        *so_far = met.max(*so_far);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gap_counts_for_every_fault_that_it_meets() {
        let start = Instant::now();
        let span = |began, ended| Span { began: start + Duration::from_secs(began), ended: start + Duration::from_secs(ended) };
        let gaps = [span(1, 3), span(10, 15), span(20, 21)];
        let faults = [
            ("a".to_owned(), span(2, 4)),
            ("b".to_owned(), span(12, 13)),
            ("a".to_owned(), span(20, 30)),
            ("c".to_owned(), span(5, 6)),
        ];
        assert_eq!(longest_ms(gaps), 5_000);
        let expected = [("a", 2_000), ("b", 5_000), ("c", 0)];
        assert_eq!(longest_by_fault_ms(&gaps, &faults), expected.map(|(fault, ms)| (fault.to_owned(), ms)).into());
    }
}
