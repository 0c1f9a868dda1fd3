//! How fast the gateway may be asked: it says so by refusing, with 429, what comes too fast.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Mutex as Line, time::Instant};

/// Calls of which the pace is changed at most once: what was refused was on its way with what was refused before.
const SECOND: Duration = Duration::from_secs(1);
/// The slowest pace is one call in that time, ...
const INTERVAL_MAX: Duration = SECOND;
/// ... at first no slower than this, as one refusal says little, ...
const INTERVAL_AT_FIRST_MAX: Duration = Duration::from_millis(100);
/// ... and from here on calls go as they come.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The longest pause that the gateway may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The pace of one kind of call: as they come, until one is refused; then as many a second as worked lately, and a tenth more with each second
/// in which none is refused.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
    /// Whoever has it is the next.
    line: Line<()>,
}

#[derive(Debug)]
struct State {
    /// Time from one call to the next; zero is as they come.
    interval: Duration,
    /// When the next call may be made.
    next: Instant,
    /// When it was made longer, ...
    slowed: Instant,
    /// ... and since when no call was refused, nor it made shorter.
    smooth_since: Instant,
    /// How many calls have worked in the second that began then, and in the one before.
    counted_since: Instant,
    worked: u32,
    worked_before: u32,
}

impl Default for Pace {
    fn default() -> Self {
        let now = Instant::now();
        let state = State {
            interval: Duration::ZERO,
            next: now,
            slowed: now,
            smooth_since: now,
            counted_since: now,
            worked: 0,
            worked_before: 0,
        };
        Self { state: Mutex::new(state), line: Line::new(()) }
    }
}

impl Pace {
    /// Waits until one more call may be made. First come, first served.
    pub(super) async fn turn(&self) {
        let _next = self.line.lock().await;
        loop {
            let not_yet = self.state().turn(Instant::now());
            let Some(until) = not_yet else { return };
            tokio::time::sleep_until(until).await;
        }
    }

    /// A call was not refused.
    pub(super) fn worked(&self) {
        self.state().worked(Instant::now());
    }

    /// A call came too fast; the gateway may have said for how long it wants to be left alone. If the pace is another one from now on, the time from
    /// one call to the next.
    pub(super) fn refused(&self, asked_pause: Option<Duration>) -> Option<Duration> {
        let mut state = self.state();
        let before = state.interval;
        state.refused(Instant::now(), asked_pause);
        (state.interval != before).then_some(state.interval)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the next call's turn, or tells when it may be there.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        if now < self.next {
            return Some(self.next);
        }
        self.next = now + self.interval;
        None
    }

    fn count_from(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.counted_since);
        if elapsed >= SECOND {
            self.worked_before = if elapsed < SECOND * 2 { self.worked } else { 0 };
            (self.counted_since, self.worked) = (now, 0);
        }
    }

    fn worked(&mut self, now: Instant) {
        self.count_from(now);
        self.worked += 1;
        if !self.interval.is_zero() && now.duration_since(self.smooth_since) >= SECOND {
            let faster = self.interval * 10 / 11;
            self.interval = if faster < INTERVAL_MIN { Duration::ZERO } else { faster };
            self.smooth_since = now;
        }
    }

    fn refused(&mut self, now: Instant, asked_pause: Option<Duration>) {
        self.smooth_since = now;
        if let Some(pause) = asked_pause {
            self.next = self.next.max(now + pause.min(ASKED_PAUSE_MAX));
        }
        if self.interval.is_zero() {
            self.count_from(now);
            self.interval = (SECOND / self.worked.max(self.worked_before).max(1)).min(INTERVAL_AT_FIRST_MAX);
        } else if now.duration_since(self.slowed) >= SECOND {
            self.interval = (self.interval * 3 / 2).min(INTERVAL_MAX);
        } else {
            return;
        }
        self.slowed = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Calls within `seconds`, asked for as fast as they may be, at a gateway that takes `limit` a second: how many it took and refused.
    fn calls(state: &mut State, start: Instant, seconds: u64, limit: u32) -> (u32, u32) {
        let (mut now, end) = (start, start + Duration::from_secs(seconds));
        let (mut second, mut in_second) = (start, 0);
        let (mut taken, mut refused) = (0, 0);
        while now < end {
            now += Duration::from_micros(500);
            if let Some(until) = state.turn(now) {
                now = until;
                continue;
            }
            if now.duration_since(second) >= SECOND {
                (second, in_second) = (now, 0);
            }
            if in_second < limit {
                (in_second, taken) = (in_second + 1, taken + 1);
                state.worked(now);
            } else {
                refused += 1;
                state.refused(now, None);
            }
        }
        (taken, refused)
    }

    #[test]
    fn it_finds_the_pace_that_the_gateway_takes() {
        for limit in [5, 25, 100, 500] {
            let pace = Pace::default();
            let mut state = pace.state();
            let start = Instant::now();
            let (taken, refused) = calls(&mut state, start, 60, limit);
            assert!(taken >= limit * 60 * 7 / 10, "{limit} a second: {taken} in a minute");
            assert!(refused <= taken / 2, "{limit} a second: {taken} taken and {refused} refused");
        }
    }

    #[test]
    fn calls_go_as_they_come_until_one_is_refused_and_some_time_later_again() {
        let pace = Pace::default();
        let mut state = pace.state();
        let start = Instant::now();
        assert_eq!([state.turn(start), state.turn(start)], [None; 2]);
        state.refused(start, None);
        assert_eq!([state.turn(start), state.turn(start)], [None, Some(start + INTERVAL_AT_FIRST_MAX)]);
        let (taken, refused) = calls(&mut state, start, 120, u32::MAX);
        assert_eq!((state.interval, refused), (Duration::ZERO, 0), "{taken}");
    }

    #[test]
    fn the_gateway_is_left_alone_for_as_long_as_it_asks_within_reason() {
        let pace = Pace::default();
        let mut state = pace.state();
        let start = Instant::now();
        state.refused(start, Some(Duration::from_secs(7)));
        assert_eq!(state.turn(start), Some(start + Duration::from_secs(7)));
        state.refused(start, Some(Duration::from_secs(86_400)));
        assert_eq!(state.turn(start), Some(start + ASKED_PAUSE_MAX));
        assert_eq!(state.turn(start + ASKED_PAUSE_MAX), None);
    }

    #[test]
    fn what_worked_in_the_second_before_is_lately() {
        let pace = Pace::default();
        let mut state = pace.state();
        let start = Instant::now();
        for ms in 0..1_001 {
            state.worked(start + Duration::from_millis(ms));
        }
        state.refused(start + Duration::from_millis(1_010), None);
        assert_eq!(state.interval, Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_held_up_by_what_is_refused_meanwhile_and_leave_in_their_order() {
        let (pace, start) = (Arc::new(Pace::default()), Instant::now());
        pace.refused(None);
        let waiting = (0..3).map(|_| {
            let pace = Arc::clone(&pace);
            tokio::spawn(async move {
                pace.turn().await;
                start.elapsed()
            })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::time::sleep(INTERVAL_AT_FIRST_MAX * 3 / 2).await;
        pace.refused(Some(Duration::from_secs(30)));
        let mut left = Vec::new();
        for waiting in waiting {
            left.push(waiting.await.unwrap());
        }
        assert!(left[0] < INTERVAL_AT_FIRST_MAX && left[1] < INTERVAL_AT_FIRST_MAX * 3 / 2, "{left:?}");
        assert!(left[2] >= Duration::from_secs(30), "{left:?}");
    }
}
