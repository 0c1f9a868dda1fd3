//! How often and for how long an event is tried, and the pauses between two tries.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Bound of the pause before the first retry after a transient failure; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Bound of the pause between two tries, unless the other side asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Events whose tries are remembered while they are not in hand; of more than that, those that came first are tried as if anew.
const REMEMBERED_MAX: usize = 10_000;

/// What an event may cost before it is given up: tries that failed for no reason but the event itself.
///
/// A failure counts only if another event has come to its end since the event failed last, with a call to the outside system if the reactor has
/// one: then that and the log are there for others. So nothing is given up because they are away, for however long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// It is given up after so many failures that count at the earliest, ...
    pub failures: u32,
    /// ... and so long after the first of them at the earliest.
    pub time: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { failures: 10, time: Duration::from_secs(600) }
    }
}

/// What became of one event so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tries {
    /// All of them, for the dead letter.
    pub(crate) count: u64,
    /// Failures that count.
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    /// What others had come to an end when it failed last.
    others: Option<u64>,
}

impl Tries {
    /// One more has failed, when `others` have come to an end in all. True if the budget is spent.
    pub(crate) fn failed(&mut self, now: Instant, others: u64, budget: RetryBudget) -> bool {
        if self.others.is_some_and(|before| others > before) {
            self.failures += 1;
            self.since.get_or_insert(now);
        }
        self.others = Some(others);
        self.failures >= budget.failures && self.since.is_some_and(|since| now.duration_since(since) >= budget.time)
    }

    /// The pause before the next try: exponential with full jitter, and at least what the other side asked for.
    pub(crate) fn pause(&self, asked: Option<Duration>) -> Duration {
        let doublings = u32::try_from(self.count.saturating_sub(1).min(16)).unwrap_or(16);
        let bound = PAUSE_MAX.min(PAUSE_MIN * 2_u32.pow(doublings));
        let micros = fastrand::u64(0..=u64::try_from(bound.as_micros()).unwrap_or(u64::MAX));
        Duration::from_micros(micros).max(asked.unwrap_or_default())
    }
}

/// The tries of events that were handed back, by position: they come again, most likely to the same process.
#[derive(Debug, Default)]
pub(crate) struct HandedBack {
    tries: Mutex<BTreeMap<u64, Tries>>,
}

impl HandedBack {
    pub(crate) fn keep(&self, position: u64, tries: Tries) {
        let mut kept = self.lock();
        kept.insert(position, tries);
        while kept.len() > REMEMBERED_MAX {
            kept.pop_first();
        }
    }

    pub(crate) fn take(&self, position: u64) -> Tries {
        self.lock().remove(&position).unwrap_or_default()
    }

    /// How often the event at `position` was tried, as far as that is remembered: each time in vain, as it is here.
    pub(crate) fn count(&self, position: u64) -> u64 {
        self.lock().get(&position).map_or(0, |tries| tries.count)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Tries>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: RetryBudget = RetryBudget { failures: 3, time: Duration::from_secs(60) };

    #[test]
    fn failures_count_only_while_others_succeed() {
        let (start, mut tries) = (Instant::now(), Tries::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..1_000 {
            assert!(!tries.failed(at(second), 7, BUDGET), "everybody fails");
        }
        // The first failure after that counts: somebody has succeeded meanwhile.
        assert!(!tries.failed(at(2_000), 8, BUDGET));
        assert!(!tries.failed(at(2_001), 8, BUDGET));
        assert!(!tries.failed(at(2_002), 9, BUDGET));
        assert!(!tries.failed(at(2_003), 10, BUDGET), "often enough, and not for long enough");
        assert!(!tries.failed(at(2_059), 11, BUDGET));
        assert!(tries.failed(at(2_060), 12, BUDGET));
    }

    #[test]
    fn a_long_time_with_few_failures_spends_no_budget() {
        let (start, mut tries) = (Instant::now(), Tries::default());
        tries.failed(start, 1, BUDGET);
        assert!(!tries.failed(start, 2, BUDGET));
        assert!(!tries.failed(start + Duration::from_secs(6_000), 3, BUDGET));
        assert!(tries.failed(start + Duration::from_secs(6_001), 4, BUDGET));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_go_first() {
        let handed_back = HandedBack::default();
        for position in 1..=REMEMBERED_MAX as u64 + 5 {
            handed_back.keep(position, Tries { count: 2, ..Tries::default() });
        }
        assert_eq!((handed_back.take(5).count, handed_back.take(6).count, handed_back.take(6).count), (0, 2, 0));
    }

    proptest! {
        #[test]
        fn pauses_are_bounded_and_never_shorter_than_asked(count in any::<u64>(), asked in prop::option::of(0..400_u64)) {
            let asked = asked.map(Duration::from_secs);
            let pause = Tries { count, ..Tries::default() }.pause(asked);
            prop_assert!(pause >= asked.unwrap_or_default() && pause <= asked.unwrap_or_default().max(PAUSE_MAX));
            if count <= 1 && asked.is_none() {
                prop_assert!(pause <= PAUSE_MIN);
            }
        }
    }
}
