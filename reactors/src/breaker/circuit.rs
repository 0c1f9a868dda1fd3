//! The rules of a circuit breaker: no clock, no tasks, no locks.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// When a breaker opens, for how long, and what closes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// It opens after so many failures in a row.
    pub failures_in_a_row: u32,
    /// It opens when this share (0 to 1) of the calls that ended within [`Self::window`] have failed.
    pub failed_share: f64,
    /// The share says nothing about fewer calls than this.
    pub window_calls_min: usize,
    /// For how long a call counts for the share.
    pub window: Duration,
    /// How long it stays open at first; doubles each time it opens again before it was closed for [`Self::window`].
    pub open_min: Duration,
    /// The longest that it stays open, unless the other side asks for more.
    pub open_max: Duration,
    /// It closes after so many probes have worked, one after the other.
    pub probes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A third of all calls may fail for long, and this is hardly ever reached.
            failures_in_a_row: 10,
            failed_share: 0.5,
            window_calls_min: 20,
            window: Duration::from_secs(10),
            open_min: Duration::from_secs(1),
            open_max: Duration::from_secs(15),
            probes: 2,
        }
    }
}

/// The longest pause that the other side may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Calls that the window holds at most; the oldest make way.
const WINDOW_CALLS_MAX: usize = 4_096;

/// Whether calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// They are.
    Closed,
    /// None is: the other side is away.
    Open,
    /// One at a time is, to see whether the other side is back.
    HalfOpen,
}

/// Leave to make one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    /// Which of the circuit's phases it was granted in: what comes of it says nothing about a later one.
    era: u64,
}

/// The answer to whoever wants to make a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Admission {
    Granted(Ticket),
    /// A probe is on its way; ask again when it has ended.
    Probing,
    /// It is open.
    Refused,
}

/// How a call ended, as far as the other side's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Worked,
    Failed {
        asked_pause: Option<Duration>,
    },
    /// It was given up before it had an answer.
    Abandoned,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { is_probing: bool, worked: u32 },
}

#[derive(Debug)]
pub(super) struct Circuit {
    limits: Limits,
    state: State,
    era: u64,
    failures_in_a_row: u32,
    /// When calls ended that were made while it was closed, and whether they failed.
    window: VecDeque<(Instant, bool)>,
    failed_in_window: usize,
    /// How often it has opened since it was closed for some time.
    openings: u32,
    /// When it was closed last.
    closed_at: Option<Instant>,
}

impl Circuit {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Closed,
            era: 0,
            failures_in_a_row: 0,
            window: VecDeque::new(),
            failed_in_window: 0,
            openings: 0,
            closed_at: None,
        }
    }

    /// The phase at `now`: an open circuit becomes half-open by itself.
    pub(super) fn phase(&mut self, now: Instant) -> Phase {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.enter(State::HalfOpen { is_probing: false, worked: 0 });
        }
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// Until when no call is made; `None` if calls are.
    pub(super) fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        self.phase(now);
        let era = self.era;
        match &mut self.state {
            State::Closed => Admission::Granted(Ticket { era }),
            State::Open { .. } => Admission::Refused,
            State::HalfOpen { is_probing: true, .. } => Admission::Probing,
            State::HalfOpen { is_probing, .. } => {
                *is_probing = true;
                Admission::Granted(Ticket { era })
            }
        }
    }

    pub(super) fn ended(&mut self, now: Instant, ticket: Ticket, ending: Ending) {
        if ticket.era != self.era {
            return;
        }
        match (&mut self.state, ending) {
            // Nobody has leave to call in the era of an open circuit.
            (State::Closed, Ending::Abandoned) | (State::Open { .. }, _) => {}
            (State::Closed, Ending::Worked) => {
                self.failures_in_a_row = 0;
                self.count(now, false);
            }
            (State::Closed, Ending::Failed { asked_pause }) => {
                self.failures_in_a_row += 1;
                self.count(now, true);
                if self.failures_in_a_row >= self.limits.failures_in_a_row || self.fails_too_often() {
                    self.open(now, asked_pause);
                }
            }
            (State::HalfOpen { is_probing, .. }, Ending::Abandoned) => *is_probing = false,
            (State::HalfOpen { is_probing, worked }, Ending::Worked) => {
                (*is_probing, *worked) = (false, *worked + 1);
                if *worked >= self.limits.probes {
                    self.closed_at = Some(now);
                    self.enter(State::Closed);
                }
            }
            (State::HalfOpen { .. }, Ending::Failed { asked_pause }) => self.open(now, asked_pause),
        }
    }

    fn count(&mut self, now: Instant, failed: bool) {
        self.window.push_back((now, failed));
        self.failed_in_window += usize::from(failed);
        while let Some(&(ended, failed)) = self.window.front()
            && (now.duration_since(ended) > self.limits.window || self.window.len() > WINDOW_CALLS_MAX)
        {
            self.window.pop_front();
            self.failed_in_window -= usize::from(failed);
        }
    }

    fn fails_too_often(&self) -> bool {
        let (calls, failed) = (self.window.len(), self.failed_in_window);
        #[expect(clippy::cast_precision_loss, reason = "both are at most WINDOW_CALLS_MAX")]
        let share = failed as f64 / calls as f64;
        calls >= self.limits.window_calls_min && share >= self.limits.failed_share
    }

    fn open(&mut self, now: Instant, asked_pause: Option<Duration>) {
        if self.closed_at.take().is_some_and(|closed_at| now.duration_since(closed_at) >= self.limits.window) {
            self.openings = 0;
        }
        let doubled = self.limits.open_min.saturating_mul(2_u32.saturating_pow(self.openings));
        let asked = asked_pause.unwrap_or_default().min(ASKED_PAUSE_MAX);
        self.openings += 1;
        self.enter(State::Open { until: now + doubled.min(self.limits.open_max).max(asked) });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
        self.failures_in_a_row = 0;
        self.window.clear();
        self.failed_in_window = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILED: Ending = Ending::Failed { asked_pause: None };
    const LIMITS: Limits = Limits {
        failures_in_a_row: 3,
        failed_share: 0.5,
        window_calls_min: 10,
        window: Duration::from_secs(10),
        open_min: Duration::from_secs(1),
        open_max: Duration::from_secs(5),
        probes: 2,
    };

    /// A circuit and its clock.
    struct Bench {
        circuit: Circuit,
        start: Instant,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            Self { circuit: Circuit::new(LIMITS), start: now, now }
        }

        fn admitted(&mut self) -> Ticket {
            match self.circuit.admit(self.now) {
                Admission::Granted(ticket) => ticket,
                other => panic!("{other:?}"),
            }
        }

        fn call(&mut self, ending: Ending) {
            let ticket = self.admitted();
            self.circuit.ended(self.now, ticket, ending);
        }

        fn calls(&mut self, endings: &[Ending]) -> Phase {
            for ending in endings {
                self.call(*ending);
            }
            self.phase()
        }

        fn phase(&mut self) -> Phase {
            self.circuit.phase(self.now)
        }

        fn pass(&mut self, ms: u64) -> Phase {
            self.now += Duration::from_millis(ms);
            self.phase()
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_between_them_does_not() {
        let mut bench = Bench::new();
        assert_eq!(bench.calls(&[FAILED, FAILED, Ending::Worked, FAILED, FAILED]), Phase::Closed);
        assert_eq!(bench.calls(&[FAILED]), Phase::Open);
    }

    #[test]
    fn a_share_of_failures_opens_it_once_there_are_enough_calls() {
        let mut bench = Bench::new();
        assert_eq!(bench.calls(&[FAILED, Ending::Worked].repeat(4)), Phase::Closed);
        assert_eq!(bench.calls(&[Ending::Worked, FAILED]), Phase::Open);
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut bench = Bench::new();
        assert_eq!(bench.calls(&[FAILED, Ending::Worked].repeat(4)), Phase::Closed);
        bench.pass(10_001);
        assert_eq!(bench.calls(&[Ending::Worked, FAILED, FAILED]), Phase::Closed);
    }

    #[test]
    fn it_stays_open_for_longer_each_time_a_probe_fails_and_not_longer_than_it_may() {
        let mut bench = Bench::new();
        bench.calls(&[FAILED; 3]);
        for ms in [1_000, 2_000, 4_000, 5_000, 5_000] {
            assert_eq!(bench.pass(ms - 1), Phase::Open);
            assert!(matches!(bench.circuit.admit(bench.now), Admission::Refused));
            assert_eq!(bench.pass(1), Phase::HalfOpen);
            bench.call(FAILED);
        }
        for (closed_for, then_open_for) in [(9_999, 5_000), (10_000, 1_000)] {
            bench.pass(5_000);
            assert_eq!(bench.calls(&[Ending::Worked, Ending::Worked]), Phase::Closed);
            bench.pass(closed_for);
            bench.calls(&[FAILED; 3]);
            assert_eq!(bench.pass(then_open_for - 1), Phase::Open);
            assert_eq!(bench.pass(1), Phase::HalfOpen, "once it was closed for some time it begins anew");
        }
    }

    #[test]
    fn it_stays_open_for_as_long_as_the_other_side_asks() {
        let mut bench = Bench::new();
        bench.calls(&[FAILED, FAILED, Ending::Failed { asked_pause: Some(Duration::from_secs(60)) }]);
        assert_eq!(bench.pass(59_999), Phase::Open);
        assert_eq!(bench.pass(1), Phase::HalfOpen);
        bench.call(Ending::Failed { asked_pause: Some(Duration::from_secs(86_400)) });
        assert_eq!(bench.pass(300_000), Phase::HalfOpen, "within reason");
    }

    #[test]
    fn there_is_one_probe_at_a_time_also_after_one_was_abandoned() {
        let mut bench = Bench::new();
        bench.calls(&[FAILED; 3]);
        bench.pass(1_000);
        let first = bench.admitted();
        assert!(matches!(bench.circuit.admit(bench.now), Admission::Probing));
        bench.circuit.ended(bench.now, first, Ending::Abandoned);
        assert_eq!(bench.phase(), Phase::HalfOpen);
        let second = bench.admitted();
        assert!(matches!(bench.circuit.admit(bench.now), Admission::Probing));
        bench.circuit.ended(bench.now, second, Ending::Worked);
        assert_eq!(bench.calls(&[Ending::Worked]), Phase::Closed);
    }

    #[test]
    fn calls_that_began_before_it_opened_say_nothing_about_it_later() {
        let mut bench = Bench::new();
        let (early, another) = (bench.admitted(), bench.admitted());
        bench.calls(&[FAILED; 3]);
        bench.circuit.ended(bench.now, early, Ending::Worked);
        assert_eq!(bench.phase(), Phase::Open);
        bench.pass(1_000);
        bench.circuit.ended(bench.now, another, FAILED);
        assert_eq!(bench.phase(), Phase::HalfOpen);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Pass(u64),
        Begin,
        End(usize, bool),
        Abandon(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..2_000_u64).prop_map(Step::Pass),
            Just(Step::Begin),
            (any::<usize>(), any::<bool>()).prop_map(|(index, worked)| Step::End(index, worked)),
            any::<usize>().prop_map(Step::Abandon),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        /// Whatever happens in whatever order: nobody calls while it is open, there is at most one probe, and it is never open for good.
        #[test]
        fn nobody_calls_while_it_is_open_and_one_at_a_time_while_it_is_half_open(steps in steps()) {
            let mut bench = Bench::new();
            let mut calls: Vec<(Ticket, bool)> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(ms) => { bench.pass(ms); }
                    Step::Begin => match (bench.phase(), bench.circuit.admit(bench.now)) {
                        (Phase::Open, Admission::Refused) => {}
                        (Phase::Closed, Admission::Granted(ticket)) => calls.push((ticket, false)),
                        (Phase::HalfOpen, Admission::Granted(ticket)) => {
                            prop_assert!(!calls.iter().any(|(other, is_probe)| *is_probe && other.era == ticket.era));
                            calls.push((ticket, true));
                        }
                        (Phase::HalfOpen, Admission::Probing) => {
                            prop_assert!(calls.iter().any(|(call, is_probe)| *is_probe && call.era == bench.circuit.era));
                        }
                        other => prop_assert!(false, "{other:?}"),
                    },
                    Step::End(index, worked) if !calls.is_empty() => {
                        let (ticket, _) = calls.swap_remove(index % calls.len());
                        bench.circuit.ended(bench.now, ticket, if worked { Ending::Worked } else { FAILED });
                    }
                    Step::Abandon(index) if !calls.is_empty() => {
                        let (ticket, _) = calls.swap_remove(index % calls.len());
                        bench.circuit.ended(bench.now, ticket, Ending::Abandoned);
                    }
                    Step::End(..) | Step::Abandon(_) => {}
                }
                if let Some(until) = bench.circuit.open_until() {
                    prop_assert!(until <= bench.now + LIMITS.open_max && until > bench.start);
                }
            }
        }
    }
}
