//! Who waits, what is in flight, and who goes next: no IO, and the clock comes in from outside.
//!
//! A batch is begun with those who wait. It stays open, and takes in who comes, until it is worth its commit and the server is free for it.
//! A crowd that is enough for one batch but not for two leaves a few behind, who begin the next one the moment that the one before is
//! answered (ADR 0027).

use std::{collections::VecDeque, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    costs::{BATCHES_IN_FLIGHT_MAX, Costs, PLAINS_IN_FLIGHT_MAX, TRIAL_EVENTS_MAX, TRIAL_EVENTS_MIN},
    known::{BySubject, Known, Subjects},
    member::{Member, Waiting},
    stats::AppendStats,
};
use crate::{AppendError, Appended, transaction::PreparedEvent, wire::TRANSACTION_EVENTS_MAX};

/// Bytes of one batch's payloads.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Events for which a batch is woken that is open and must wait for its commit.
const WAKING_EVENTS: usize = 32;
/// Where a crowd goes as one batch, so many events are left for the next one: it is begun with them when this one is answered, and the server
/// makes its folder while everybody else is on the way back. One is sent, and one kept, as the last one carries the commit.
const LEFT_EVENTS: usize = 2;
/// One server alone is given a crowd as two halves, one of which comes back while the other is committed, when it is so many times what is
/// worth a batch beside another. A smaller one goes as one: what it waits for is less than a second batch costs.
const HALVES_WORTH: usize = 4;
/// When fewer came while they were waited for than one in so many of those who were answered, nobody goes as one for a while: it was no crowd
/// that waits for its answers to come again.
const CAME_BACK_SHARE: usize = 4;
/// Batches for which it does not.
const APART_BATCHES: u64 = 32;
/// How much of a round's share of conflicts goes into what is expected of the next.
const CONFLICT_WEIGHT: f64 = 1.0 / 8.0;
/// Conflicts expected in a round from which on its members are looked at before it goes out. To find one only when the round is refused costs
/// about as much as to look at all of them; more than one would have it refused more than once.
const CONFLICTS_LOOKED_FOR: f64 = 1.0;

/// What is to be done with a transaction that has just come.
#[derive(Debug)]
pub(super) enum Admission {
    /// Publish it now.
    Go(Member),
    /// Look at the log first: it expects less than is known to be there.
    Look(Member),
    /// Wait for the outcome; it is in the queue.
    Wait(oneshot::Receiver<Result<Appended, AppendError>>),
}

/// What goes out at the same time.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Each by itself, next to one another.
    pub(super) plains: Vec<Waiting>,
    /// As one atomic batch.
    pub(super) batch: Vec<Waiting>,
    /// Whether the batch takes in others until it is closed.
    pub(super) is_open: bool,
    /// Not at all before the log was looked at.
    pub(super) stale: Vec<Waiting>,
}

/// What a batch still takes.
#[derive(Clone, Copy, Debug)]
struct Room {
    events: usize,
    /// Events that it takes with a transaction that is too large to be left behind.
    events_with_large: usize,
    bytes: usize,
    /// Whether nothing is in it yet: then it takes also what is too large to have others beside it.
    is_empty: bool,
}

impl Room {
    fn is_there(&self) -> bool {
        self.events > 0 && self.bytes > 0
    }
}

/// What is to be done with an open batch now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send those who have just joined it.
    Send,
    /// Look again at once: others are likely to come.
    Look,
    /// Look again when others came, or the commit before is answered.
    Sleep,
    /// Commit it.
    Commit {
        /// Whether the time to its answer says what it costs.
        is_measured: bool,
    },
}

/// An open batch.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) members: Vec<Waiting>,
    /// Events of the members.
    pub(super) events: usize,
    bytes: usize,
    begun: Instant,
    last_came: Instant,
    /// Events that came when it could have been committed.
    waited_for: usize,
    /// Whether it had to wait for another commit.
    was_behind: bool,
    /// Whether it is kept back until the commit before is answered. The server does one thing after the other, and would make its folder
    /// before it lets go of that answer, every other time.
    pub(super) is_held: bool,
}

impl Gathered {
    pub(super) fn new(members: Vec<Waiting>, now: Instant) -> Self {
        let (events, bytes) = (events_of(&members), bytes_of(&members));
        Self { members, events, bytes, begun: now, last_came: now, waited_for: 0, was_behind: false, is_held: false }
    }

    fn join(&mut self, came: Vec<Waiting>, is_free: bool, now: Instant) {
        let events = events_of(&came);
        self.events += events;
        self.bytes += bytes_of(&came);
        self.last_came = now;
        self.waited_for += if is_free { events } else { 0 };
        self.members.extend(came);
    }

    /// Whether the server did not have to wait for most of it.
    fn is_made_at_once(&self) -> bool {
        self.waited_for * 8 <= self.events
    }
}

/// What goes out alone while it is being tried, so that its cost can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// A batch, once nothing is in flight.
    Batch,
    /// Plain publishes, which are in flight.
    Plains,
}

/// Whether a batch is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// None is.
    No,
    /// It looks by itself, or when the commit before is answered.
    Awake,
    /// It waits for the commit before, and has room for others meanwhile: it looks when so many events wait.
    AsleepUntil { waiting: usize },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) costs: Costs,
    pub(super) known: Known,
    pub(super) stats: AppendStats,
    waiting: VecDeque<Waiting>,
    waiting_events: usize,
    /// How many of those that wait touch a subject.
    awaited: BySubject<u32>,
    /// Subjects of what is in flight.
    in_flight: Subjects,
    plains_in_flight: usize,
    batches_in_flight: usize,
    events_in_flight: usize,
    /// Batches whose commit is not answered yet.
    commits_in_flight: usize,
    /// Events of the open batch that was committed last.
    committed_events: usize,
    /// When the callers of the last batch had all been told; none while they are being told, or what is left of it goes again.
    landed: Option<Instant>,
    /// The number of the first batch that may wait for those of the one before to come back.
    as_one_from: u64,
    /// Whether something had to be tried when the last batch was begun or committed. Then the next one is not begun before nothing else is in
    /// flight; one that is begun goes on as it was.
    is_trial_due: bool,
    open: Open,
    /// Whether anything happened since the last round was taken that could let somebody go.
    stirred: bool,
    /// Whether a round is being gathered.
    pub(super) gathering: bool,
    /// Most events that were here at the same time, in the period that ended with the last round and since: about as many are
    /// likely to come back.
    crowds: [usize; 2],
    /// What is being tried although it seems to be the dearer way.
    trial: Option<Trial>,
    /// The share of members that were found to conflict lately.
    conflicts: f64,
}

impl Queue {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            costs: Costs::new(now),
            known: Known::default(),
            stats: AppendStats::default(),
            waiting: VecDeque::new(),
            waiting_events: 0,
            awaited: BySubject::default(),
            in_flight: Subjects::default(),
            plains_in_flight: 0,
            batches_in_flight: 0,
            events_in_flight: 0,
            commits_in_flight: 0,
            committed_events: 0,
            landed: Some(now),
            as_one_from: 0,
            is_trial_due: false,
            open: Open::No,
            stirred: false,
            gathering: false,
            crowds: [0; 2],
            trial: None,
            conflicts: 0.0,
        }
    }

    /// Takes in a transaction.
    pub(super) fn admit(&mut self, member: Member, now: Instant) -> Admission {
        if self.is_stale(&member) {
            return Admission::Look(member);
        }
        if self.may_go_at_once(&member, now) {
            self.in_flight.extend(member.expectations().map(|(subject, _)| subject));
            self.events_in_flight += member.events.len();
            self.note_crowd();
            self.plains_in_flight += 1;
            self.stats.plains += 1;
            return Admission::Go(member);
        }
        let (answer, outcome) = oneshot::channel();
        self.wait(Waiting { member, answer });
        Admission::Wait(outcome)
    }

    /// Puts a transaction at the end of the queue.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting_events += waiting.member.events.len();
        for (subject, _) in waiting.member.expectations() {
            *self.awaited.entry(subject).or_default() += 1;
        }
        self.waiting.push_back(waiting);
        self.stirred = true;
        self.note_crowd();
    }

    /// How many events are here, waiting or in flight.
    fn here(&self) -> usize {
        self.waiting_events + self.events_in_flight
    }

    fn note_crowd(&mut self) {
        self.crowds[1] = self.crowds[1].max(self.here());
    }

    /// How many events are likely to be here soon.
    fn crowd(&self) -> usize {
        self.crowds[0].max(self.crowds[1])
    }

    pub(super) fn is_stale(&mut self, member: &Member) -> bool {
        self.moved(member).is_some()
    }

    /// The first event of an aggregate that is known to end later than the transaction expects.
    pub(super) fn moved<'a>(&mut self, member: &'a Member) -> Option<&'a PreparedEvent> {
        let mut is_later = |subject, expected| self.known.position(subject).is_some_and(|known| known > expected);
        member.ends().find_map(|(event, expected)| is_later(event.subject_hash, expected).then_some(event))
    }

    fn may_go_at_once(&mut self, member: &Member, now: Instant) -> bool {
        let is_free = |(subject, _)| !self.in_flight.contains(&subject) && !self.awaited.contains_key(&subject);
        if !member.is_single() || self.trial.is_some() || !member.expectations().all(is_free) {
            return false;
        }
        let plains_max = self.costs.plains_max();
        let is_streaming = plains_max == PLAINS_IN_FLIGHT_MAX;
        let is_calm = is_streaming || (self.waiting.is_empty() && self.batches_in_flight == 0 && self.crowd() <= plains_max);
        if !is_calm || self.plains_in_flight >= plains_max {
            return false;
        }
        if self.plains_in_flight >= TRIAL_EVENTS_MIN && self.costs.is_trial_due(now) {
            self.trial = Some(Trial::Batch);
            return false;
        }
        true
    }

    /// Whether a round should be gathered.
    pub(super) fn may_take(&self) -> bool {
        if self.open != Open::No || !self.stirred || self.waiting.is_empty() {
            return false;
        }
        if self.trial.is_some() {
            return self.is_idle();
        }
        self.costs.is_streaming() || self.is_idle() || self.has_room_for_batch()
    }

    fn is_idle(&self) -> bool {
        self.plains_in_flight == 0 && self.batches_in_flight == 0
    }

    fn has_room_for_batch(&self) -> bool {
        match self.batches_in_flight {
            0 if self.plains_in_flight == 0 => true,
            BATCHES_IN_FLIGHT_MAX.. => false,
            1.. if self.goes_as_one() => true,
            // Else there would never be a moment in which nothing is in flight.
            1.. if self.is_trial_due && self.costs.commits_max() == 1 && !self.costs.is_streaming() => false,
            _ => self.waiting_events >= self.costs.next_batch_events_min(),
        }
    }

    /// Whether the crowd goes as one batch that leaves a few behind. What has to be tried needs nobody else in flight.
    fn goes_as_one(&self) -> bool {
        self.is_for_one_batch() && !self.is_trial_due
    }

    /// Whether those who are likely to be here are enough for a batch, but not for two that one server alone would have one behind the other.
    fn is_for_one_batch(&self) -> bool {
        let (crowd, worth) = (self.crowd(), self.costs.next_batch_events_min());
        let is_between = crowd >= worth && crowd < HALVES_WORTH * worth && crowd <= TRANSACTION_EVENTS_MAX;
        is_between
            && self.stats.batches >= self.as_one_from
            && self.costs.commits_max() == 1
            && !self.costs.is_streaming()
            && self.may_open()
    }

    /// What a batch takes that has so many events and bytes. Enough for two batches go out as two halves, one behind the other, rather than as
    /// a large one with little behind it.
    fn room(&self, events: usize, bytes: usize) -> Room {
        let (half, goes_as_one) = (self.crowd().div_ceil(2), self.goes_as_one());
        let events_max = if goes_as_one {
            self.crowd() - LEFT_EVENTS
        } else if half >= self.costs.next_batch_events_min() && !self.is_for_one_batch() {
            half.min(TRANSACTION_EVENTS_MAX)
        } else {
            TRANSACTION_EVENTS_MAX
        };
        let with_large = if goes_as_one { TRANSACTION_EVENTS_MAX } else { events_max };
        Room {
            events: events_max.saturating_sub(events),
            events_with_large: with_large.saturating_sub(events),
            bytes: BATCH_BYTES_MAX.saturating_sub(bytes),
            is_empty: events == 0,
        }
    }

    /// Whether a batch that goes out now has nothing else in flight before it, so that the time to its answer says what it costs.
    pub(super) fn is_batch_alone(&self) -> bool {
        self.plains_in_flight == 0 && self.batches_in_flight == 1
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a round that is taken now is a batch, which gathers others while it is being sent.
    pub(super) fn is_sure_to_be_batch(&self, now: Instant) -> bool {
        let is_settled = self.trial.is_none() && !self.costs.is_streaming() && !self.costs.is_trial_due(now);
        is_settled && self.waiting.len() > self.costs.plains_max() && self.may_open()
    }

    /// Whether a batch may take in others while it is being sent: where conflicts are likely, all of it is looked at before.
    fn may_open(&self) -> bool {
        !self.is_conflict_likely(self.crowd())
    }

    /// Whether everybody who is likely to come is here.
    pub(super) fn is_complete(&self) -> bool {
        self.here() >= self.crowd() || self.waiting_events >= TRANSACTION_EVENTS_MAX
    }

    /// How long a round waits for the next one to come.
    pub(super) fn lull(&self) -> Duration {
        self.costs.lull(self.crowd().saturating_sub(self.here()))
    }

    /// Whether the open batch has to be woken, because it has room for those who came since it last looked.
    pub(super) fn is_to_be_woken(&mut self) -> bool {
        let is_to_be_woken = matches!(self.open, Open::AsleepUntil { waiting } if self.waiting_events >= waiting);
        if is_to_be_woken {
            self.open = Open::Awake;
        }
        is_to_be_woken
    }

    /// Takes those into the open batch who wait and fit it; those that seem to be stale go to `stale`.
    pub(super) fn extend(&mut self, batch: &mut Gathered, stale: &mut Vec<Waiting>, now: Instant) -> Next {
        self.open = Open::Awake;
        let (room, goes_as_one) = (self.room(batch.events, batch.bytes), self.goes_as_one());
        let is_free = self.commits_in_flight < self.costs.commits_max();
        batch.is_held = goes_as_one && !is_free;
        if self.stirred && room.is_there() {
            self.stirred = false;
            let came = self.pick(room, stale);
            if !came.is_empty() {
                self.go_along(&came);
                batch.join(came, is_free, now);
                return Next::Send;
            }
        }
        let has_room = room.is_there();
        // Those who are told just now, or go again, cannot be back yet.
        let is_too_early = goes_as_one && self.landed.is_none() && has_room;
        if !is_free || is_too_early {
            batch.was_behind = true;
            if has_room {
                self.open = Open::AsleepUntil { waiting: self.waiting_events + WAKING_EVENTS };
            }
            return Next::Sleep;
        }
        let waits_for_nobody = batch.was_behind && !goes_as_one;
        let is_enough = room.events == 0 || (waits_for_nobody && batch.events >= self.costs.next_batch_events_min());
        let since = |time: Instant| {
            now.saturating_duration_since(if goes_as_one { self.landed.map_or(time, |landed| landed.max(time)) } else { time })
        };
        let has_waited = since(batch.begun) >= self.costs.gather_max(batch.events);
        let is_late = has_waited || since(batch.last_came) >= self.lull();
        let is_whole = is_enough || self.is_complete();
        if !is_whole && !is_late {
            return Next::Look;
        }
        if goes_as_one && !is_whole && batch.waited_for * CAME_BACK_SHARE < self.committed_events {
            self.as_one_from = self.stats.batches + APART_BATCHES;
        }
        self.committed_events = batch.events;
        let is_alone = self.batches_in_flight == 1 || self.costs.commits_max() == 1;
        Next::Commit { is_measured: is_alone && self.plains_in_flight == 0 && batch.is_made_at_once() }
    }

    /// The open batch is being committed: another one may be begun.
    pub(super) fn close(&mut self, now: Instant) {
        self.is_trial_due = self.costs.is_trial_due(now);
        self.open = Open::No;
        self.stirred = true;
        self.crowds = [self.crowds[1], self.here()];
        self.commit_sent();
    }

    /// One more batch is at its commit.
    pub(super) fn commit_sent(&mut self) {
        self.commits_in_flight += 1;
    }

    /// One batch less is at its commit. If that `is_answered`, its callers are told next, or most of them go again.
    pub(super) fn commit_answered(&mut self, is_answered: bool, now: Instant) {
        self.commits_in_flight -= 1;
        // Where the answer is lost, it may take seconds until they are told anything: nobody waits for that.
        self.landed = if is_answered { None } else { self.landed.or(Some(now)) };
        self.is_trial_due &= is_answered;
    }

    /// Takes what goes out now, and notes it as in flight.
    pub(super) fn take(&mut self, now: Instant) -> Round {
        self.gathering = false;
        self.stirred = false;
        if self.is_idle() {
            self.is_trial_due = self.costs.is_trial_due(now);
        }
        let is_trial = self.trial.take() == Some(Trial::Batch);
        let mut room = self.room(0, 0);
        if is_trial {
            (room.events, room.events_with_large) = (TRIAL_EVENTS_MAX, TRIAL_EVENTS_MAX);
        }
        let mut round = Round::default();
        let free = self.pick(room, &mut round.stale);
        let (is_streaming, is_idle) = (self.costs.is_streaming(), self.is_idle());
        let singles = free.iter().filter(|waiting| waiting.member.is_single()).count();
        if is_trial && free.len() > 1 {
            self.costs.trial_begins(events_of(&free), true, now);
            round.batch = free;
        } else if is_streaming {
            let (plains, batch): (Vec<_>, Vec<_>) = free.into_iter().partition(|waiting| waiting.member.is_single());
            round.plains = plains;
            let room = PLAINS_IN_FLIGHT_MAX.saturating_sub(self.plains_in_flight);
            let too_many = round.plains.split_off(room.min(round.plains.len()));
            self.put_back(too_many);
            if self.batches_in_flight == 0 || self.has_room_for_batch() {
                round.batch = batch;
            } else {
                self.put_back(batch);
            }
        } else if is_idle && singles == free.len() && singles <= self.costs.plains_max() {
            round.plains = free;
        } else if is_idle && self.is_trial_due && singles >= TRIAL_EVENTS_MIN {
            let (mut tried, mut rest): (Vec<_>, Vec<_>) = free.into_iter().partition(|waiting| waiting.member.is_single());
            rest.extend(tried.split_off((singles / 2).clamp(TRIAL_EVENTS_MIN, TRIAL_EVENTS_MAX)));
            self.costs.trial_begins(tried.len(), false, now);
            self.trial = Some(Trial::Plains);
            self.put_back(rest);
            round.plains = tried;
        } else if !is_idle && singles == 1 && free.len() == 1 {
            // It would cost a batch by itself; it can wait for another one, or for what is in flight.
            self.put_back(free);
            return round;
        } else {
            if is_idle && self.is_trial_due && events_of(&free) >= TRIAL_EVENTS_MIN {
                self.costs.put_off_trial(now);
            }
            let is_begun_early = free.len() == 1 && !is_idle && self.goes_as_one();
            round.is_open = (free.len() > 1 || is_begun_early) && self.may_open();
            round.batch = free;
        }
        if let [only] = &round.batch[..]
            && only.member.is_single()
        {
            round.plains.append(&mut round.batch);
        }
        self.launch(&round);
        if round.is_open {
            self.open = Open::Awake;
        } else {
            self.crowds = [self.here(); 2];
        }
        round
    }

    /// Takes from the front what fits one batch and touches no aggregate that something earlier touches: a transaction has
    /// to wait for the outcome of an earlier one on the same aggregate, and is overtaken by others only.
    fn pick(&mut self, room: Room, stale: &mut Vec<Waiting>) -> Vec<Waiting> {
        let (mut picked, mut left) = (Vec::new(), VecDeque::new());
        let (mut events, mut bytes) = (0, 0);
        let mut touched = Subjects::default();
        while let Some(waiting) = self.waiting.pop_front() {
            // Whoever asked is gone, and has been told nothing: not sending is as good an outcome as any.
            if waiting.answer.is_closed() {
                self.no_longer_awaited(&waiting.member);
                continue;
            }
            if self.is_stale(&waiting.member) {
                self.no_longer_awaited(&waiting.member);
                stale.push(waiting);
                continue;
            }
            let member = &waiting.member;
            let is_free = |(subject, _)| !self.in_flight.contains(&subject) && !touched.contains(&subject);
            let is_free = member.expectations().all(is_free);
            let events_max = if member.events.len() > LEFT_EVENTS { room.events_with_large } else { room.events };
            let is_within = events + member.events.len() <= events_max && bytes + member.bytes <= room.bytes;
            let fits = (room.is_empty && picked.is_empty()) || is_within;
            touched.extend(member.expectations().map(|(subject, _)| subject));
            if is_free && fits {
                events += member.events.len();
                bytes += member.bytes;
                self.no_longer_awaited(member);
                picked.push(waiting);
            } else {
                left.push_back(waiting);
                if !fits {
                    self.stirred = true;
                    break;
                }
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        picked
    }

    fn no_longer_awaited(&mut self, member: &Member) {
        self.waiting_events -= member.events.len();
        for (subject, _) in member.expectations() {
            let count = self.awaited.get_mut(&subject).expect("who waits has been counted");
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(&subject);
            }
        }
    }

    fn put_back(&mut self, members: Vec<Waiting>) {
        for waiting in members.into_iter().rev() {
            self.waiting_events += waiting.member.events.len();
            for (subject, _) in waiting.member.expectations() {
                *self.awaited.entry(subject).or_default() += 1;
            }
            self.waiting.push_front(waiting);
        }
    }

    fn launch(&mut self, round: &Round) {
        let plains = round.plains.iter();
        self.in_flight.extend(plains.flat_map(|waiting| waiting.member.expectations()).map(|(subject, _)| subject));
        self.events_in_flight += events_of(&round.plains);
        self.plains_in_flight += round.plains.len();
        self.stats.plains += number(round.plains.len());
        if !round.batch.is_empty() {
            self.batches_in_flight += 1;
            self.stats.batches += 1;
            self.go_along(&round.batch);
        }
    }

    /// These are members of a batch in flight from now on.
    fn go_along(&mut self, members: &[Waiting]) {
        self.in_flight.extend(members.iter().flat_map(|waiting| waiting.member.expectations()).map(|(subject, _)| subject));
        let events = events_of(members);
        self.events_in_flight += events;
        self.stats.batch_events += number(events);
        self.stats.batch_transactions += number(members.len());
    }

    /// A transaction in flight has its outcome.
    pub(super) fn settle(&mut self, member: &Member, outcome: &Result<Appended, AppendError>, now: Instant) {
        self.stats.count(outcome, now.saturating_duration_since(member.came));
        self.release(member);
        let Ok(appended) = outcome else { return };
        for (event, position) in member.events.iter().zip(appended.first_position..) {
            self.known.saw(event.subject_hash, position);
        }
    }

    /// A transaction is not in flight any more: its aggregates are free.
    pub(super) fn release(&mut self, member: &Member) {
        self.events_in_flight -= member.events.len();
        for (subject, _) in member.expectations() {
            self.in_flight.remove(&subject);
            self.stirred |= !self.awaited.is_empty() && self.awaited.contains_key(&subject);
        }
    }

    /// A plain publish was acknowledged at the first attempt.
    pub(super) fn plain_answered(&mut self, sent: Instant, now: Instant) {
        self.costs.plain_answered(sent, now, self.plains_in_flight == 1, self.batches_in_flight == 0);
    }

    /// One plain publish less is in flight.
    pub(super) fn plain_landed(&mut self) {
        self.stirred |= self.plains_in_flight == PLAINS_IN_FLIGHT_MAX || self.plains_in_flight == 1;
        if self.trial == Some(Trial::Plains) && self.plains_in_flight == 1 {
            self.trial = None;
        }
        self.plains_in_flight -= 1;
    }

    /// One batch less is in flight, and `rest` of its members by themselves now.
    pub(super) fn batch_landed(&mut self, rest: usize, now: Instant) {
        self.costs.batch_landed(now);
        self.landed = Some(now);
        self.stirred = true;
        self.batches_in_flight -= 1;
        self.plains_in_flight += rest;
    }

    /// These leave a batch in flight: those that moved are not in flight any more, those behind are by themselves.
    pub(super) fn leave_batch(&mut self, moved: &[Waiting], behind: &[Waiting]) {
        for waiting in moved {
            self.release(&waiting.member);
        }
        self.plains_in_flight += behind.len();
    }

    /// Of a round's members, `strays` were found to conflict.
    pub(super) fn saw_conflicts(&mut self, strays: usize, members: usize) {
        #[expect(clippy::cast_precision_loss, reason = "counts of members, far below 2^52")]
        let share = strays as f64 / members.max(1) as f64;
        self.conflicts += (share - self.conflicts) * CONFLICT_WEIGHT;
    }

    /// Whether a round of so many members is likely enough to hold one that conflicts.
    pub(super) fn is_conflict_likely(&self, members: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "counts of members, far below 2^52")]
        let expected = self.conflicts * members as f64;
        expected >= CONFLICTS_LOOKED_FOR
    }

    /// Whether what is known says that the transaction expects what is there.
    pub(super) fn is_vouched_for(&mut self, member: &Member) -> bool {
        member.expectations().all(|(subject, expected)| self.known.position(subject) == Some(expected))
    }
}

fn events_of(members: &[Waiting]) -> usize {
    members.iter().map(|waiting| waiting.member.events.len()).sum()
}

fn bytes_of(members: &[Waiting]) -> usize {
    members.iter().map(|waiting| waiting.member.bytes).sum()
}

fn number(count: usize) -> u64 {
    count as u64
}

#[cfg(test)]
mod tests;
