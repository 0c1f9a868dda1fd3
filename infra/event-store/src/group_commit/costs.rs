//! What the server's answers cost lately, and which way is therefore the cheapest for those that wait.
//!
//! The server writes one thing after the other. So plain publishes next to one another cost what the time between their
//! answers says, and a batch a fixed part (with fsync: six of them, for the files that it is staged in) and a little for
//! each event. Medians of the last few measurements count, because a disk that stalls for a moment must not decide. A few
//! waiting events go out as plain publishes as long as that costs less than their batch would. A second batch is begun before
//! the first is answered when its events cost the two of us more than its fixed part: then our work on them overlaps with
//! the server's on the others. The way that is not taken is tried now and then, for at most a sixty-fourth of the time, and less
//! and less often as long as that says nothing new.

use std::time::Duration;

use tokio::time::Instant;

use crate::wire::TRANSACTION_EVENTS_MAX;

/// Plain publishes in flight at most. With this many, the server's queue is never empty, and far from full.
pub(super) const PLAINS_IN_FLIGHT_MAX: usize = 1_024;
/// Plain publishes in flight that are always allowed: what one costs shows only where others are beside it.
const PLAINS_IN_FLIGHT_MIN: usize = 4;
/// Batches in flight at most; the server takes 50 of a stream, from everybody.
pub(super) const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// A batch does not go out while another is in flight for fewer events than this.
const NEXT_BATCH_EVENTS_MIN: usize = 64;
/// A round that is being gathered goes out when nobody came for so long, or longer if many are likely to come.
const GATHER_LULL: Duration = Duration::from_micros(50);
const GATHER_LULL_FOR_EACH: Duration = Duration::from_micros(1);
/// Waiting events that are enough to try the other way with.
pub(super) const TRIAL_EVENTS_MIN: usize = 16;
/// Events that are tried at most.
pub(super) const TRIAL_EVENTS_MAX: usize = 64;
/// The share of the time that trials may take is one of this many. It is halved with each that says nothing new, down to the second.
const TRIAL_PAUSES: u32 = 64;
const TRIAL_PAUSES_MAX: u32 = 512;
/// The least that a trial is taken to cost.
const TRIAL_COST_MIN: Duration = Duration::from_millis(1);
/// What costs less than one part in this many of what was expected is tried again at once.
const SURPRISING: f64 = 2.0;

/// What an event costs this process, in µs: that is what overlaps with the server's work when two batches are in flight.
const OWN_EVENT_US: f64 = 8.0;
/// A plain publish that costs no more than this, in µs, has no fsync in it, and then an event of a batch, which the server
/// stages and reads back first, costs more.
const PLAIN_US_WITHOUT_FSYNC: f64 = 45.0;
/// Costs before anything was measured, in µs: one server that fsyncs, on a common disk.
const PLAIN_US_AT_FIRST: f64 = 220.0;
const BATCH_FIXED_US_AT_FIRST: f64 = 3_000.0;
/// What an event of a batch costs, in µs. It is the server's processor that it costs, not its disk, so it is about the same
/// everywhere; where it is more, the fixed part seems to be larger, and batches become larger than they would have to be.
const BATCH_EVENT_US: f64 = 15.0;
/// The least that a batch's fixed part can be, in µs.
const BATCH_FIXED_US_MIN: f64 = 100.0;

/// Answers to plain publishes next to one another that make a measurement.
const PLAINS_MEASURED_MIN: u32 = 4;
/// Where plain publishes follow one another without end, a measurement takes so many answers, and so long: both this
/// process and the server hand answers on by the dozen.
const PLAINS_MEASURED: u32 = 128;
const PLAINS_MEASURED_FOR: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct Costs {
    /// Of each plain publish beside others, in µs.
    plain_us: Recent<5>,
    /// Of a batch without its events, in µs.
    fixed_us: Recent<7>,
    measured: u32,
    measured_us: f64,
    /// Whether nothing was in flight before what is being measured.
    is_from_idle: bool,
    plain_answered: Option<Instant>,
    batch_landed: Option<Instant>,
    trial_due: Instant,
    /// How many times as long as the next trial takes nothing is tried after it.
    trial_pauses: u32,
    /// Whether several servers hold the log. One alone does one thing after the other.
    pub(super) is_replicated: bool,
}

impl Costs {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            plain_us: Recent::new(PLAIN_US_AT_FIRST),
            fixed_us: Recent::new(BATCH_FIXED_US_AT_FIRST),
            measured: 0,
            measured_us: 0.0,
            is_from_idle: true,
            plain_answered: None,
            batch_landed: None,
            trial_due: now,
            trial_pauses: TRIAL_PAUSES,
            is_replicated: false,
        }
    }

    /// A plain publish that was sent at `sent` is answered; `is_last` if no other is in flight, `is_among_plains` if no batch is.
    pub(super) fn plain_answered(&mut self, sent: Instant, now: Instant, is_last: bool, is_among_plains: bool) {
        let us = since_us(sent, self.plain_answered, now);
        self.plain_answered = Some(now);
        // What waited behind a batch says nothing.
        if !is_among_plains || self.batch_landed > Some(sent) {
            (self.measured, self.measured_us, self.is_from_idle) = (0, 0.0, is_last);
            return;
        }
        self.measured += 1;
        self.measured_us += us;
        let is_long = self.measured_us >= PLAINS_MEASURED_FOR.as_secs_f64() * 1e6;
        // Few of them say how long the way there and back is, which others beside them would not add to; and what is left at
        // the end may have been handed on together with what was measured before.
        let is_whole = is_last && self.is_from_idle && self.measured >= PLAINS_MEASURED_MIN;
        if is_whole || (is_long && self.measured >= PLAINS_MEASURED) {
            let us = self.measured_us / f64::from(self.measured);
            self.try_again_if(us * SURPRISING < self.plain_us.median() && !self.is_streaming(), now);
            self.plain_us.push(us);
        } else if !is_last {
            return;
        }
        (self.measured, self.measured_us, self.is_from_idle) = (0, 0.0, is_last);
    }

    /// A batch is answered that was sent at `sent`, alone or with nothing but another batch before it: its events are in the log.
    pub(super) fn batch_answered(&mut self, events: usize, sent: Instant, now: Instant) {
        let us = since_us(sent, self.batch_landed, now);
        self.try_again_if(us * SURPRISING < self.batch_us(events) && self.is_streaming(), now);
        self.fixed_us.push((us - BATCH_EVENT_US * number(events)).max(BATCH_FIXED_US_MIN));
    }

    /// A batch is answered; what was sent before that may have waited behind it.
    pub(super) fn batch_landed(&mut self, now: Instant) {
        self.batch_landed = Some(now);
    }

    /// Something was so much cheaper than expected that the next trial is due at once.
    fn try_again_if(&mut self, is_surprising: bool, now: Instant) {
        if is_surprising {
            (self.trial_due, self.trial_pauses) = (now, TRIAL_PAUSES);
        }
    }

    /// Up to how many single events cost less as plain publishes than as a batch.
    pub(super) fn plains_max(&self) -> usize {
        let plain_us = self.plain_us.median();
        if plain_us <= PLAIN_US_WITHOUT_FSYNC {
            return PLAINS_IN_FLIGHT_MAX;
        }
        whole(self.fixed_us.median() / (plain_us - BATCH_EVENT_US)).clamp(PLAINS_IN_FLIGHT_MIN, PLAINS_IN_FLIGHT_MAX)
    }

    /// Whether no number of single events is worth a batch, so that each goes out when it comes.
    pub(super) fn is_streaming(&self) -> bool {
        self.plains_max() == PLAINS_IN_FLIGHT_MAX
    }

    /// Events from which on a batch is begun while another is in flight.
    pub(super) fn next_batch_events_min(&self) -> usize {
        whole(self.fixed_us.median() / (BATCH_EVENT_US + OWN_EVENT_US)).clamp(NEXT_BATCH_EVENTS_MIN, TRANSACTION_EVENTS_MAX)
    }

    /// Batches that may be at their commit at the same time. One server alone answers the first when it is through with all that
    /// it has been sent, so what is behind it would only make those wait who could come back meanwhile.
    pub(super) fn commits_max(&self) -> usize {
        if self.is_replicated { BATCHES_IN_FLIGHT_MAX } else { 1 }
    }

    /// How long a round may wait for those that are on their way to it, when it has `events`.
    pub(super) fn gather_max(&self, events: usize) -> Duration {
        Duration::from_secs_f64((self.fixed_us.median() / 4.0 + OWN_EVENT_US * number(events)) / 1e6)
    }

    /// How long a round waits for the next one of so many that are likely to come.
    pub(super) fn lull(&self, missing: usize) -> Duration {
        let max = GATHER_LULL.max(Duration::from_secs_f64(self.fixed_us.median() / 8e6));
        (GATHER_LULL_FOR_EACH * u32::try_from(missing).unwrap_or(u32::MAX)).clamp(GATHER_LULL, max)
    }

    /// Whether it is time to try the way that is not taken.
    pub(super) fn is_trial_due(&self, now: Instant) -> bool {
        now >= self.trial_due
    }

    /// Notes a trial of `events` as a batch, or as plain publishes.
    pub(super) fn trial_begins(&mut self, events: usize, as_batch: bool, now: Instant) {
        let us = if as_batch { self.batch_us(events) } else { self.plain_us.median() * number(events) };
        self.trial_due = now + self.trial_pauses * Duration::from_secs_f64(us / 1e6).max(TRIAL_COST_MIN);
        self.trial_pauses = TRIAL_PAUSES_MAX.min(self.trial_pauses * 2);
    }

    /// Notes that what is here cannot be tried.
    pub(super) fn put_off_trial(&mut self, now: Instant) {
        self.trial_due = now + TRIAL_PAUSES * TRIAL_COST_MIN;
    }

    fn batch_us(&self, events: usize) -> f64 {
        self.fixed_us.median() + BATCH_EVENT_US * number(events)
    }
}

/// The last `N` of something, in order of age.
#[derive(Debug)]
struct Recent<const N: usize> {
    values: [f64; N],
    oldest: usize,
    median: f64,
}

impl<const N: usize> Recent<N> {
    fn new(value: f64) -> Self {
        Self { values: [value; N], oldest: 0, median: value }
    }

    fn push(&mut self, value: f64) {
        self.values[self.oldest] = value;
        self.oldest = (self.oldest + 1) % N;
        let mut sorted = self.values;
        sorted.sort_by(f64::total_cmp);
        self.median = sorted[N / 2];
    }

    fn median(&self) -> f64 {
        self.median
    }
}

/// The time until `now` since it was sent, or since the answer before if that came later, in µs.
fn since_us(sent: Instant, answer_before: Option<Instant>, now: Instant) -> f64 {
    let begin = answer_before.map_or(sent, |answer_before| answer_before.max(sent));
    now.saturating_duration_since(begin).as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "counts of events, far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates, which is meant")]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with these costs, in µs, that works off what it is given.
    struct Server {
        now: Instant,
        plain_us: u64,
        fixed_us: u64,
        event_us: u64,
    }

    impl Server {
        fn with_fsync() -> Self {
            Self { now: Instant::now(), plain_us: 220, fixed_us: 3_000, event_us: 15 }
        }

        fn page_cache() -> Self {
            Self { now: Instant::now(), plain_us: 13, fixed_us: 2_500, event_us: 25 }
        }

        fn plains(&mut self, costs: &mut Costs, count: usize) {
            let sent = self.now;
            for left in (0..count).rev() {
                self.now += Duration::from_micros(self.plain_us);
                costs.plain_answered(sent, self.now, left == 0, true);
            }
        }

        fn batch(&mut self, costs: &mut Costs, events: usize) {
            let sent = self.now;
            self.now += Duration::from_micros(self.fixed_us + self.event_us * events as u64);
            costs.batch_answered(events, sent, self.now);
            costs.batch_landed(self.now);
        }
    }

    #[test]
    fn with_fsync_about_a_dozen_events_are_worth_a_batch() {
        let mut server = Server::with_fsync();
        let mut costs = Costs::new(server.now);
        for events in (0..60).map(|round| 20 + 37 * (round % 7)) {
            server.batch(&mut costs, events);
            server.plains(&mut costs, TRIAL_EVENTS_MAX);
        }
        assert!((10..20).contains(&costs.plains_max()), "{}", costs.plains_max());
        assert!((100..200).contains(&costs.next_batch_events_min()), "{}", costs.next_batch_events_min());
        assert!(!costs.is_streaming());
    }

    #[test]
    fn without_fsync_plain_publishes_are_never_worth_a_batch() {
        let mut server = Server::page_cache();
        let mut costs = Costs::new(server.now);
        for _ in 0..40 {
            server.plains(&mut costs, TRIAL_EVENTS_MAX);
        }
        assert!(costs.is_streaming());
        for events in [16, 64, 256, 16, 64, 256] {
            server.batch(&mut costs, events);
        }
        assert!(costs.is_streaming());
    }

    #[test]
    fn rounds_of_one_size_are_as_good_a_teacher() {
        let mut server = Server::with_fsync();
        let mut costs = Costs::new(server.now);
        for _ in 0..50 {
            server.batch(&mut costs, 256);
        }
        assert!((10..20).contains(&costs.plains_max()), "{}", costs.plains_max());
        let expected_us = 3_000.0 + 15.0 * 256.0;
        assert!((costs.batch_us(256) / expected_us - 1.0).abs() < 0.05, "{}", costs.batch_us(256));
    }

    #[test]
    fn one_stall_of_the_disk_changes_little() {
        let mut server = Server::with_fsync();
        let mut costs = Costs::new(server.now);
        for _ in 0..50 {
            server.batch(&mut costs, 100);
            server.plains(&mut costs, TRIAL_EVENTS_MAX);
        }
        let before = costs.plains_max();
        server.fixed_us = 500_000;
        server.batch(&mut costs, 100);
        assert!(costs.plains_max() <= before * 2, "{} after {before}", costs.plains_max());
        server.fixed_us = 3_000;
        for _ in 0..20 {
            server.batch(&mut costs, 100);
        }
        assert!(costs.plains_max() <= before * 5 / 4, "{} after {before}", costs.plains_max());
    }

    #[test]
    fn a_disk_that_becomes_fast_or_slow_is_followed() {
        let mut server = Server::with_fsync();
        let mut costs = Costs::new(server.now);
        for (plain_us, fixed_us, plains) in [(2_000, 30_000, 10..20), (13, 2_500, 1_024..1_025), (220, 3_000, 10..20)] {
            (server.plain_us, server.fixed_us) = (plain_us, fixed_us);
            for _ in 0..100 {
                server.batch(&mut costs, 100);
                server.plains(&mut costs, TRIAL_EVENTS_MAX);
            }
            assert!(plains.contains(&costs.plains_max()), "{} at {plain_us} µs", costs.plains_max());
        }
    }

    #[test]
    fn several_servers_take_small_batches_at_the_same_time() {
        let mut server = Server { now: Instant::now(), plain_us: 60, fixed_us: 500, event_us: 15 };
        let mut costs = Costs::new(server.now);
        for events in (0..60).map(|round| 20 + 37 * (round % 7)) {
            server.batch(&mut costs, events);
        }
        assert!((64..80).contains(&costs.next_batch_events_min()), "{}", costs.next_batch_events_min());
    }

    #[test]
    fn alone_nothing_is_learnt_about_publishes_beside_one_another() {
        let mut server = Server::with_fsync();
        server.plain_us = 5_000;
        let mut costs = Costs::new(server.now);
        for _ in 0..100 {
            server.plains(&mut costs, 1);
            server.now += Duration::from_millis(1);
        }
        assert!((10..20).contains(&costs.plains_max()));
    }

    #[test]
    fn trials_take_a_small_share_of_the_time_and_a_smaller_one_while_they_say_nothing_new() {
        let mut now = Instant::now();
        let mut costs = Costs::new(now);
        assert!(costs.is_trial_due(now));
        costs.trial_begins(TRIAL_EVENTS_MAX, true, now);
        assert!(!costs.is_trial_due(now + Duration::from_millis(150)));
        assert!(costs.is_trial_due(now + Duration::from_millis(300)));
        for _ in 0..10 {
            now += Duration::from_secs(10);
            costs.trial_begins(TRIAL_EVENTS_MAX, true, now);
        }
        assert!(!costs.is_trial_due(now + Duration::from_millis(1_500)));
        assert!(costs.is_trial_due(now + Duration::from_millis(2_500)));
        // A plain publish costs much less than it did: that is worth another look, and more of them.
        for left in (0..TRIAL_EVENTS_MIN).rev() {
            costs.plain_answered(now, now + Duration::from_millis(1), left == 0, true);
        }
        assert!(costs.is_trial_due(now + Duration::from_millis(1)));
        now += Duration::from_millis(1);
        costs.trial_begins(TRIAL_EVENTS_MAX, true, now);
        assert!(costs.is_trial_due(now + Duration::from_millis(300)));
    }
}
