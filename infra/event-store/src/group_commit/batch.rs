//! Carrying the members of one batch to their outcomes: together as far as that goes, and each with its own answer.

use std::sync::Arc;

use telemetry::trace::{Kind, Span};
use tokio::time::Instant;

use super::{Appender, REPEAT_PAUSE, REPEAT_PAUSE_MAX, member::Waiting, outcome};
use crate::{
    publish::{Found, Outcome},
    wire,
};

/// Batches with the same members that may be refused before these are sent one by one.
const REFUSALS_MAX: u32 = 3;

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

impl Appender {
    /// Carries a batch's members to their outcomes, together as far as that goes.
    pub(super) async fn together(self: &Arc<Self>, batch: Vec<Waiting>) {
        if batch.is_empty() {
            return;
        }
        let rest = self.commit(batch).await;
        {
            let mut queue = self.queue();
            queue.batch_landed(rest.len(), Instant::now());
            self.go_on(&mut queue);
        }
        self.each_alone(rest).await;
    }

    /// Commits `members` as one batch, and returns those that have to go by themselves.
    async fn commit(self: &Arc<Self>, mut members: Vec<Waiting>) -> Vec<Waiting> {
        let mut pause = REPEAT_PAUSE;
        let mut refusals = 0;
        if self.queue().is_conflict_likely(members.len()) {
            self.queue().stats.batches_looked_at += 1;
            members = self.without_strays(members, Doubt::Unknown).await;
        }
        while members.len() > 1 && refusals < REFUSALS_MAX {
            let events: Vec<_> = members.iter().flat_map(|waiting| &waiting.member.events).collect();
            let is_measured = self.queue().is_batch_alone();
            let (count, sent) = (events.len(), Instant::now());
            let mut span = Span::of_many(Kind::Producer, BATCH_SPAN, events.iter().filter_map(|event| event.trace))
                .with("messaging.system", "nats")
                .with("messaging.destination.name", wire::STREAM)
                .with("messaging.operation.type", "send")
                .with("messaging.batch.message_count", i64::try_from(count).unwrap_or(i64::MAX));
            let outcome = self.connection.publish(&events).await;
            match &outcome {
                Outcome::Appended { .. } => {}
                Outcome::Conflict { .. } => span.fail("conflict"),
                Outcome::Refused { .. } => span.fail("refused"),
                Outcome::Lost => span.fail("the answer was lost"),
            }
            drop(span);
            match outcome {
                Outcome::Appended { last_position } => {
                    let now = Instant::now();
                    if is_measured {
                        self.queue().costs.batch_answered(count, sent, now);
                    }
                    self.figures.batch_wait.observe(now.duration_since(sent).as_secs_f64());
                    self.figures.batch_events.observe(u32::try_from(count).map_or(f64::INFINITY, f64::from));
                    self.land_together(members, last_position + 1 - count as u64);
                    return Vec::new();
                }
                Outcome::Conflict { .. } => {
                    refusals += 1;
                    self.queue().stats.batches_refused += 1;
                    // What was seen last is what the batch was made of, and it is wrong: another process has moved on.
                    members = self.without_strays(members, Doubt::All).await;
                }
                // One member may be at fault, and must not take the others with it.
                Outcome::Refused { .. } => break,
                Outcome::Lost => {
                    self.queue().stats.answers_lost += 1;
                    if let Ok(Found::Ours { first_position }) = self.connection.find(events[0]).await {
                        self.land_together(members, first_position);
                        return Vec::new();
                    }
                    tokio::time::sleep(pause).await;
                    pause = REPEAT_PAUSE_MAX.min(pause * 2);
                    members = self.without_late(members);
                }
            }
        }
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

    fn land_together(&self, members: Vec<Waiting>, mut first_position: u64) {
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
        for (answer, outcome) in outcomes {
            let _ = answer.send(outcome);
        }
    }
}
