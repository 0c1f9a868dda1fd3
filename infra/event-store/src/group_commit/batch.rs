//! Carrying the members of one batch to their outcomes: together as far as that goes, and each with its own answer.

use std::{sync::Arc, time::Duration};

use telemetry::trace::{Kind, Span};
use tokio::time::Instant;

use super::{
    Appender, REPEAT_PAUSE, REPEAT_PAUSE_MAX,
    member::Waiting,
    outcome::{self, Moved, which_moved},
    queue::{Gathered, Next},
};
use crate::{
    publish::{Found, Outcome},
    wire,
};

/// Batches with the same members that may be refused before these are sent one by one.
const REFUSALS_MAX: u32 = 3;
/// How often a batch waits for what is in the way of one of its members, before that is taken for a refusal.
const WAITS_MAX: u32 = 4;

/// Callers that are told their outcome at once. Each has something to do then, and the task that hands on to the server what the first ones send
/// would have its turn only after all of them.
const TOLD_AT_ONCE: usize = 64;

/// What sending a batch is called in traces.
const BATCH_SPAN: &str = "send batch EVENTS";

/// Whose aggregates are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Those of which it is not known where they end.
    Unknown,
    /// All.
    All,
}

/// What became of one attempt to commit a batch.
struct Attempt {
    outcome: Outcome,
    events: usize,
    took: Duration,
}

impl Appender {
    /// Carries a batch's members to their outcomes, together as far as that goes; of an open one, also those who join it.
    pub(super) async fn together(self: &Arc<Self>, batch: Vec<Waiting>, is_open: bool) {
        if batch.is_empty() {
            return;
        }
        let rest = if is_open {
            let (members, attempt) = self.send_open(batch).await;
            // The server waits for the next batch, and our callers for us.
            tokio::task::yield_now().await;
            self.commit(members, Some(attempt)).await
        } else {
            let members = self.without_likely_strays(batch).await;
            self.commit(members, None).await
        };
        {
            let mut queue = self.queue();
            queue.batch_landed(rest.len(), Instant::now());
            self.go_on(&mut queue);
        }
        self.stir.notify_one();
        self.each_alone(rest).await;
    }

    /// Sends `members`, and those who come until their batch is committed. Returns all of them, and what became of it.
    async fn send_open(self: &Arc<Self>, members: Vec<Waiting>) -> (Vec<Waiting>, Attempt) {
        let (mut batch, sent) = (self.connection.open_batch(), Instant::now());
        let mut gathered = Gathered::new(members, sent);
        let (is_measured, at_commit) = loop {
            let (mut stale, mut at_commit) = (Vec::new(), None);
            let next = {
                let (mut queue, now) = (self.queue(), Instant::now());
                let next = queue.extend(&mut gathered, &mut stale, now);
                if matches!(next, Next::Commit { .. }) {
                    queue.close(now);
                    at_commit = Some(AtCommit { appender: self, is_answered: false });
                }
                self.go_on(&mut queue);
                next
            };
            // All but the last one, with which it is committed.
            let (sent, to_send) = (batch.sent(), gathered.events - 1);
            if sent < to_send && !gathered.is_held {
                let events = gathered.members.iter().flat_map(|waiting| &waiting.member.events);
                batch.stage(events.skip(sent).take(to_send - sent)).await;
            }
            if !stale.is_empty() {
                let appender = Arc::clone(self);
                self.runtime.spawn(async move { appender.each_looked_up(stale).await });
            }
            match next {
                Next::Send => {}
                Next::Look => tokio::task::yield_now().await,
                Next::Sleep => self.stir.notified().await,
                Next::Commit { is_measured } => break (is_measured, at_commit.expect("a batch that is closed is at its commit")),
            }
        };
        let Gathered { members, events, .. } = gathered;
        let span = batch_span(&members, events).for_the_last(sent.elapsed());
        let last = members.last().and_then(|waiting| waiting.member.events.last()).expect("no transaction is without events");
        let outcome = batch.commit(last).await;
        (members, at_commit.answered(outcome, events, sent, is_measured, span))
    }

    /// Sends `members` at once, as one batch.
    async fn send_closed(self: &Arc<Self>, members: &[Waiting]) -> Attempt {
        let events: Vec<_> = members.iter().flat_map(|waiting| &waiting.member.events).collect();
        let (at_commit, is_measured) = {
            let mut queue = self.queue();
            queue.commit_sent();
            (AtCommit { appender: self, is_answered: false }, queue.is_batch_alone())
        };
        let (span, sent) = (batch_span(members, events.len()), Instant::now());
        let outcome = self.connection.publish(&events).await;
        at_commit.answered(outcome, events.len(), sent, is_measured, span)
    }

    /// Commits `members` as one batch, of which one attempt may have been made, and returns those that have to go by themselves.
    async fn commit(self: &Arc<Self>, mut members: Vec<Waiting>, mut attempt: Option<Attempt>) -> Vec<Waiting> {
        let mut pause = REPEAT_PAUSE;
        let (mut refusals, mut waits) = (0, 0);
        // Whether all are here still who were in an attempt that may be in the log.
        let (mut are_all_here, mut was_lost) = (true, false);
        while (members.len() > 1 || attempt.is_some()) && refusals < REFUSALS_MAX {
            let attempt = match attempt.take() {
                Some(attempt) => attempt,
                None => self.send_closed(&members).await,
            };
            match attempt.outcome {
                Outcome::Appended { last_position } => {
                    self.figures.batch_wait.observe(attempt.took.as_secs_f64());
                    self.figures.batch_events.observe(u32::try_from(attempt.events).map_or(f64::INFINITY, f64::from));
                    self.land_together(members, last_position + 1 - attempt.events as u64).await;
                    return Vec::new();
                }
                // What is in the way of one of them is not decided yet, and will be in a moment.
                Outcome::Conflict { may_pass: true, .. } if waits < WAITS_MAX => {
                    waits += 1;
                    tokio::time::sleep(pause).await;
                    pause = REPEAT_PAUSE_MAX.min(pause * 2);
                }
                Outcome::Conflict { end, .. } => {
                    refusals += 1;
                    self.queue().stats.batches_refused += 1;
                    let count = members.len();
                    // Most often that is one of them. Where it is not, it is not found out with one refusal for each.
                    members = match (refusals, end) {
                        (1, Some(end)) => self.without_stray(members, end).await,
                        // What was seen last is what the batch was made of, and it is wrong: another process has moved on.
                        _ => self.without_strays(members, Doubt::All).await,
                    };
                    are_all_here &= !was_lost || members.len() == count;
                }
                // One member may be at fault, and must not take the others with it.
                Outcome::Refused { .. } => break,
                Outcome::Lost => {
                    was_lost = true;
                    self.queue().stats.answers_lost += 1;
                    match self.connection.find(&members[0].member.events[0]).await {
                        Ok(Found::Ours { first_position }) if are_all_here => {
                            self.land_together(members, first_position).await;
                            return Vec::new();
                        }
                        // The first attempt is in the log, with others between these: each has to be asked about.
                        Ok(Found::Ours { .. }) => break,
                        _ => {}
                    }
                    tokio::time::sleep(pause).await;
                    pause = REPEAT_PAUSE_MAX.min(pause * 2);
                    let count = members.len();
                    members = self.without_late(members);
                    are_all_here &= members.len() == count;
                }
            }
        }
        members
    }

    /// Where conflicts are likely, lets those go by themselves that would have their batch refused.
    async fn without_likely_strays(self: &Arc<Self>, members: Vec<Waiting>) -> Vec<Waiting> {
        if !self.queue().is_conflict_likely(members.len()) {
            return members;
        }
        self.queue().stats.batches_looked_at += 1;
        self.without_strays(members, Doubt::Unknown).await
    }

    /// Answers the one who was at fault that the batch was refused, because one of its aggregates ends at `end`, and returns the others.
    async fn without_stray(self: &Arc<Self>, mut members: Vec<Waiting>, end: u64) -> Vec<Waiting> {
        let refused: Vec<_> = members.iter().map(|waiting| &waiting.member).collect();
        let Some(Moved { index, event }) = which_moved(&self.connection, &refused, end).await else {
            return self.without_strays(members, Doubt::All).await;
        };
        let (outcome, subject) = (Err(outcome::conflict(event)), event.subject_hash);
        let count = members.len();
        let stray = members.remove(index);
        {
            let mut queue = self.queue();
            queue.known.saw(subject, end);
            queue.saw_conflicts(1, count);
            queue.settle(&stray.member, &outcome, Instant::now());
        }
        let _ = stray.answer.send(outcome);
        members
    }

    /// Lets those go by themselves whose aggregates do not end where they expect, and returns the others.
    async fn without_strays(self: &Arc<Self>, members: Vec<Waiting>, doubt: Doubt) -> Vec<Waiting> {
        let count = members.len();
        let (mut rest, doubted): (Vec<_>, Vec<_>) = {
            let mut queue = self.queue();
            members.into_iter().partition(|waiting| doubt == Doubt::Unknown && queue.is_vouched_for(&waiting.member))
        };
        let subjects: Vec<_> =
            doubted.iter().flat_map(|waiting| waiting.member.ends()).map(|(event, _)| event.subject.as_str()).collect();
        let Ok(positions) = self.connection.last_positions(&subjects).await else {
            rest.extend(doubted);
            return rest;
        };
        let (mut moved, mut behind) = (Vec::new(), Vec::new());
        let mut queue = self.queue();
        for waiting in doubted {
            let (mut has_moved, mut is_behind) = (false, false);
            for (event, expected) in waiting.member.ends() {
                let position = positions.get(event.subject.as_str()).copied().unwrap_or(0);
                queue.known.saw(event.subject_hash, position);
                has_moved |= position > expected;
                is_behind |= position < expected;
            }
            match (has_moved, is_behind) {
                (true, _) => moved.push(waiting),
                (false, true) => behind.push(waiting),
                (false, false) => rest.push(waiting),
            }
        }
        queue.saw_conflicts(moved.len() + behind.len(), count);
        queue.leave_batch(&moved, &behind);
        drop(queue);
        if !moved.is_empty() || !behind.is_empty() {
            let appender = Arc::clone(self);
            // A follower that is behind itself would say the same of one that expects what is so: only the leader knows.
            let strays = async move { futures::future::join(appender.each_looked_up(moved), appender.each_alone(behind)).await };
            self.runtime.spawn(strays);
        }
        rest
    }

    fn without_late(&self, members: Vec<Waiting>) -> Vec<Waiting> {
        let now = Instant::now();
        let (mut rest, late): (Vec<_>, Vec<_>) = members.into_iter().partition(|waiting| waiting.member.deadline > now);
        for waiting in &mut rest {
            waiting.member.unsure = true;
        }
        for waiting in late {
            self.queue().release(&waiting.member);
            // Whoever asked has given up by itself at the same time, and has been counted.
            drop(waiting);
        }
        rest
    }

    async fn land_together(&self, members: Vec<Waiting>, mut first_position: u64) {
        let mut outcomes = Vec::with_capacity(members.len());
        let now = Instant::now();
        {
            let mut queue = self.queue();
            for Waiting { member, answer } in members {
                let appended = outcome::beginning_at(&member.events, first_position);
                first_position = appended.last_position + 1;
                let outcome = Ok(appended);
                queue.settle(&member, &outcome, now);
                outcomes.push((answer, outcome));
            }
        }
        let mut outcomes = outcomes.into_iter();
        loop {
            for (answer, outcome) in outcomes.by_ref().take(TOLD_AT_ONCE) {
                let _ = answer.send(outcome);
            }
            if outcomes.len() == 0 {
                return;
            }
            // What they do next is to be on its way to the server before all of them have been told.
            tokio::task::yield_now().await;
        }
    }
}

/// A batch at its commit. When this is dropped, the next one may be committed.
struct AtCommit<'a> {
    appender: &'a Appender,
    is_answered: bool,
}

impl AtCommit<'_> {
    fn answered(mut self, outcome: Outcome, events: usize, sent: Instant, is_measured: bool, mut span: Span) -> Attempt {
        self.is_answered = !matches!(outcome, Outcome::Lost);
        let is_in_log = matches!(outcome, Outcome::Appended { .. });
        match &outcome {
            Outcome::Appended { .. } => {}
            Outcome::Conflict { .. } => span.fail("conflict"),
            Outcome::Refused { .. } => span.fail("refused"),
            Outcome::Lost => span.fail("the answer was lost"),
        }
        let answered = Instant::now();
        if is_measured && is_in_log {
            self.appender.queue().costs.batch_answered(events, sent, answered);
        }
        Attempt { outcome, events, took: answered.duration_since(sent) }
    }
}

impl Drop for AtCommit<'_> {
    fn drop(&mut self) {
        self.appender.queue().commit_answered(self.is_answered, Instant::now());
        self.appender.stir.notify_one();
    }
}

/// Tells of sending a batch with `events`.
fn batch_span(members: &[Waiting], events: usize) -> Span {
    let traces = members.iter().flat_map(|waiting| &waiting.member.events).filter_map(|event| event.trace);
    Span::of_many(Kind::Producer, BATCH_SPAN, traces)
        .with("messaging.system", "nats")
        .with("messaging.destination.name", wire::STREAM)
        .with("messaging.operation.type", "send")
        .with("messaging.batch.message_count", i64::try_from(events).unwrap_or(i64::MAX))
}
