//! Who waits, what is in flight, and who goes next: no IO, and the clock comes in from outside.

use std::collections::VecDeque;

use tokio::{sync::oneshot, time::Instant};

use super::{
    costs::{BATCHES_IN_FLIGHT_MAX, Costs, PLAINS_IN_FLIGHT_MAX, TRIAL_EVENTS_MAX, TRIAL_EVENTS_MIN},
    known::{BySubject, Known, Subjects},
    member::{Member, Waiting},
    stats::AppendStats,
};
use crate::{AppendError, Appended, wire::TRANSACTION_EVENTS_MAX};

/// Bytes of one batch's payloads.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much of a round's share of conflicts goes into what is expected of the next.
const CONFLICT_WEIGHT: f64 = 1.0 / 8.0;
/// Conflicts expected in a round from which on its members are looked at before it goes out.
const CONFLICTS_LOOKED_FOR: f64 = 0.25;

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
    /// Not at all before the log was looked at.
    pub(super) stale: Vec<Waiting>,
}

/// What goes out alone while it is being tried, so that its cost can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// A batch, once nothing is in flight.
    Batch,
    /// Plain publishes, which are in flight.
    Plains,
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
    /// Whether anything happened since the last round was taken that could let somebody go.
    stirred: bool,
    /// Whether a round is being gathered.
    pub(super) gathering: bool,
    /// Transactions that were there when the last round was taken: about as many are likely to come back.
    crowd: usize,
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
            stirred: false,
            gathering: false,
            crowd: 0,
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
    }

    pub(super) fn is_stale(&mut self, member: &Member) -> bool {
        member.expectations().any(|(subject, expected)| self.known.position(subject).is_some_and(|known| known > expected))
    }

    fn may_go_at_once(&mut self, member: &Member, now: Instant) -> bool {
        let is_free = |(subject, _)| !self.in_flight.contains(&subject) && !self.awaited.contains_key(&subject);
        if !member.is_single() || self.trial.is_some() || !member.expectations().all(is_free) {
            return false;
        }
        let plains_max = self.costs.plains_max();
        let is_streaming = plains_max == PLAINS_IN_FLIGHT_MAX;
        let is_calm = is_streaming || (self.waiting.is_empty() && self.batches_in_flight == 0 && self.crowd <= plains_max);
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
        if !self.stirred || self.waiting.is_empty() {
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
            _ => self.waiting_events >= self.costs.next_batch_events_min(),
        }
    }

    /// Enough for two batches at once go out as two halves, rather than as a large one with little behind it.
    fn batch_events_max(&self) -> usize {
        let half = self.waiting_events.div_ceil(2);
        let is_enough_for_two = self.is_idle() && half >= self.costs.next_batch_events_min();
        if is_enough_for_two { half.min(TRANSACTION_EVENTS_MAX) } else { TRANSACTION_EVENTS_MAX }
    }

    /// Whether a batch that goes out now has nothing else in flight before it, so that the time to its answer says what it costs.
    pub(super) fn is_batch_alone(&self) -> bool {
        self.plains_in_flight == 0 && self.batches_in_flight == 1
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether everybody who is likely to come is here.
    pub(super) fn is_complete(&self) -> bool {
        self.waiting.len() >= self.crowd || self.waiting_events >= TRANSACTION_EVENTS_MAX
    }

    /// Takes what goes out now, and notes it as in flight.
    pub(super) fn take(&mut self, now: Instant) -> Round {
        self.gathering = false;
        self.stirred = false;
        self.crowd = self.waiting.len();
        let is_trial = self.trial.take() == Some(Trial::Batch);
        let events_max = if is_trial { TRIAL_EVENTS_MAX } else { self.batch_events_max() };
        let mut round = Round::default();
        let mut free = self.pick(events_max, &mut round.stale);
        let (is_streaming, is_idle) = (self.costs.is_streaming(), self.is_idle());
        let are_single = free.iter().all(|waiting| waiting.member.is_single());
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
        } else if is_idle && are_single && free.len() <= self.costs.plains_max() {
            round.plains = free;
        } else if is_idle && are_single && free.len() >= 2 * TRIAL_EVENTS_MIN && self.costs.is_trial_due(now) {
            let rest = free.split_off(TRIAL_EVENTS_MAX.min(free.len() / 2));
            self.costs.trial_begins(free.len(), false, now);
            self.trial = Some(Trial::Plains);
            self.put_back(rest);
            round.plains = free;
        } else {
            round.batch = free;
        }
        if let [only] = &round.batch[..]
            && only.member.is_single()
        {
            round.plains.append(&mut round.batch);
        }
        self.launch(&round);
        round
    }

    /// Takes from the front what fits one batch and touches no aggregate that something earlier touches: a transaction has
    /// to wait for the outcome of an earlier one on the same aggregate, and is overtaken by others only.
    fn pick(&mut self, events_max: usize, stale: &mut Vec<Waiting>) -> Vec<Waiting> {
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
            let is_within = events + member.events.len() <= events_max && bytes + member.bytes <= BATCH_BYTES_MAX;
            let fits = picked.is_empty() || is_within;
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
        let members = round.plains.iter().chain(&round.batch);
        self.in_flight.extend(members.flat_map(|waiting| waiting.member.expectations()).map(|(subject, _)| subject));
        self.plains_in_flight += round.plains.len();
        self.stats.plains += number(round.plains.len());
        if !round.batch.is_empty() {
            self.batches_in_flight += 1;
            self.stats.batches += 1;
            self.stats.batch_events += number(events_of(&round.batch));
            self.stats.batch_transactions += number(round.batch.len());
        }
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

fn number(count: usize) -> u64 {
    count as u64
}

#[cfg(test)]
mod tests;
