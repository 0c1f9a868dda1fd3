//! Group commit: transactions that wait at the same time go out as one atomic batch.
//!
//! With `sync_interval: always` the server fsyncs once for each plain publish, and a handful of times for a batch of up to
//! 1,000 messages. So what waits while one round is being written goes out together as the next: the longer a round takes,
//! the larger the next one gets, and the rate adapts to the disk by itself. A transaction that finds nobody waiting goes
//! out at once, alone.
//!
//! A round is answered member by member. When the server refuses it because one member's expectation is not met, that
//! member gets its conflict and the others go out again. When its answer is lost, the log is asked (ADR 0007).

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    AppendError, Appended, connection::Connection, publish::Outcome, transaction::PreparedEvent, wire::TRANSACTION_EVENTS_MAX,
};

/// Transactions that may wait for their round; one more waits at the door.
pub(crate) const WAITING_TRANSACTIONS_MAX: usize = 4_096;
/// Single events up to this number go out as plain publishes next to one another; more are cheaper as a batch. Measured
/// with fsync: a batch costs as much as 15 to 25 plain publishes, on a fast disk as on a slow one.
const PLAIN_PUBLISHES_MAX: usize = 16;
/// Bytes of one round's payloads.
const ROUND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Rounds with the same members that may be refused before they are sent one by one.
const REFUSALS_MAX: u32 = 3;
/// Pause before the first repetition of a round whose answer was lost; doubles up to [`REPEAT_PAUSE_MAX`].
const REPEAT_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between repetitions.
const REPEAT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// A transaction on its way, and who waits for its outcome.
pub(crate) struct Submission {
    pub(crate) events: Vec<PreparedEvent>,
    pub(crate) answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// When to give up looking for the outcome.
    pub(crate) deadline: Instant,
}

/// Starts the committer of one store. It ends when the last clone of the store is gone.
pub(crate) fn start(connection: Connection) -> mpsc::Sender<Submission> {
    let (sender, submissions) = mpsc::channel(WAITING_TRANSACTIONS_MAX);
    tokio::spawn(run(connection, submissions));
    sender
}

async fn run(connection: Connection, mut submissions: mpsc::Receiver<Submission>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(submission) = submissions.recv().await else { return };
            waiting.push_back(submission);
            // Whoever became ready together with this one gets the chance to come along.
            tokio::task::yield_now().await;
        }
        while waiting.len() < WAITING_TRANSACTIONS_MAX {
            let Ok(submission) = submissions.try_recv() else { break };
            waiting.push_back(submission);
        }
        let round = take_round(&mut waiting);
        let is_small = round.len() <= PLAIN_PUBLISHES_MAX && round.iter().all(|member| member.events.len() == 1);
        if is_small || round.len() == 1 {
            futures::future::join_all(round.into_iter().map(|member| commit_alone(&connection, member))).await;
        } else {
            commit_together(&connection, round).await;
        }
    }
}

/// Takes from the front of `waiting` what fits one batch and touches no aggregate twice: a transaction on an aggregate that
/// an earlier one touches has to wait for that one's outcome.
fn take_round(waiting: &mut VecDeque<Submission>) -> Vec<Submission> {
    let (mut round, mut left) = (Vec::new(), VecDeque::new());
    let (mut events, mut bytes) = (0, 0);
    let mut touched: HashSet<String> = HashSet::new();
    while let Some(submission) = waiting.pop_front() {
        // Whoever asked is gone, and has been told nothing: not sending is as good an outcome as any.
        if submission.answer.is_closed() {
            continue;
        }
        let submission_bytes: usize = submission.events.iter().map(|event| event.payload.len()).sum();
        let fits = events + submission.events.len() <= TRANSACTION_EVENTS_MAX && bytes + submission_bytes <= ROUND_BYTES_MAX;
        let is_free = submission.events.iter().all(|event| !touched.contains(&event.subject));
        // What has to wait is overtaken only by what has nothing to do with it.
        touched.extend(submission.events.iter().map(|event| event.subject.clone()));
        if round.is_empty() || (fits && is_free) {
            events += submission.events.len();
            bytes += submission_bytes;
            round.push(submission);
        } else {
            left.push_back(submission);
            if !fits {
                break;
            }
        }
    }
    left.append(waiting);
    *waiting = left;
    round
}

/// Carries one transaction to its outcome.
async fn commit_alone(connection: &Connection, member: Submission) {
    let events: Vec<_> = member.events.iter().collect();
    let mut pause = REPEAT_PAUSE;
    let outcome = loop {
        match connection.publish(&events).await {
            Outcome::Appended { last_position } => break Ok(ending_at(&member.events, last_position)),
            Outcome::Refused { code, description } => break Err(AppendError::Refused { code, description }),
            outcome => match (connection.find(events[0]).await, outcome) {
                (Ok(Some(position)), _) => break Ok(beginning_at(&member.events, position)),
                (Ok(None), Outcome::Conflict) => break Err(conflict(&member)),
                // The answer was lost and the events are not there, or the log cannot be asked: send again.
                (Ok(None) | Err(_), _) => {}
            },
        }
        if Instant::now() + pause > member.deadline {
            break Err(AppendError::Unavailable);
        }
        tokio::time::sleep(pause).await;
        pause = REPEAT_PAUSE_MAX.min(pause * 2);
    };
    answer(member, outcome);
}

/// Carries several transactions to their outcomes, as one batch as far as that goes.
async fn commit_together(connection: &Connection, mut round: Vec<Submission>) {
    let mut pause = REPEAT_PAUSE;
    let mut refusals = 0;
    while round.len() > 1 && refusals < REFUSALS_MAX {
        let events: Vec<_> = round.iter().flat_map(|member| &member.events).collect();
        match connection.publish(&events).await {
            Outcome::Appended { last_position } => {
                let first_position = last_position + 1 - events.len() as u64;
                return answer_appended(round, first_position);
            }
            Outcome::Conflict => {
                refusals += 1;
                round = without_conflicts(connection, round).await;
            }
            // One member may be at fault, and must not take the others with it.
            Outcome::Refused { .. } => break,
            Outcome::Lost => {
                if let Ok(Some(first_position)) = connection.find(events[0]).await {
                    return answer_appended(round, first_position);
                }
                tokio::time::sleep(pause).await;
                pause = REPEAT_PAUSE_MAX.min(pause * 2);
                round = without_late_ones(round);
            }
        }
    }
    futures::future::join_all(round.into_iter().map(|member| commit_alone(connection, member))).await;
}

/// Gives those members whose aggregates moved their outcome, and returns the others.
async fn without_conflicts(connection: &Connection, round: Vec<Submission>) -> Vec<Submission> {
    let subjects: Vec<_> = round.iter().flat_map(expectations).map(|(subject, _)| subject).collect();
    let Ok(positions) = connection.last_positions(&subjects).await else { return round };
    let is_met = |member: &Submission| {
        expectations(member).all(|(subject, expected)| positions.get(subject).copied().unwrap_or(0) == expected)
    };
    let (rest, moved): (Vec<_>, Vec<_>) = round.into_iter().partition(is_met);
    let settle = moved.into_iter().map(|member| async {
        match connection.find(&member.events[0]).await {
            Ok(Some(position)) => {
                let appended = beginning_at(&member.events, position);
                answer(member, Ok(appended));
                None
            }
            Ok(None) => {
                let conflict = conflict(&member);
                answer(member, Err(conflict));
                None
            }
            Err(_) => Some(member),
        }
    });
    let unsettled = futures::future::join_all(settle).await;
    rest.into_iter().chain(unsettled.into_iter().flatten()).collect()
}

fn without_late_ones(round: Vec<Submission>) -> Vec<Submission> {
    let now = Instant::now();
    let (rest, late): (Vec<_>, Vec<_>) = round.into_iter().partition(|member| member.deadline > now);
    for member in late {
        answer(member, Err(AppendError::Unavailable));
    }
    rest
}

/// The subjects of a transaction, and where it expects each to end.
fn expectations(member: &Submission) -> impl Iterator<Item = (&str, u64)> {
    member.events.iter().filter_map(|event| Some((event.subject.as_str(), event.expected?)))
}

fn answer_appended(round: Vec<Submission>, mut first_position: u64) {
    for member in round {
        let appended = beginning_at(&member.events, first_position);
        first_position = appended.last_position + 1;
        answer(member, Ok(appended));
    }
}

fn answer(member: Submission, outcome: Result<Appended, AppendError>) {
    // Whoever asked may have gone; the log does not depend on it.
    let _ = member.answer.send(outcome);
}

fn conflict(member: &Submission) -> AppendError {
    AppendError::Conflict { subject: member.events[0].subject.clone() }
}

fn beginning_at(events: &[PreparedEvent], first_position: u64) -> Appended {
    Appended { first_position, last_position: first_position + events.len() as u64 - 1 }
}

fn ending_at(events: &[PreparedEvent], last_position: u64) -> Appended {
    beginning_at(events, last_position + 1 - events.len() as u64)
}
