//! What became of one transaction: never guessed (ADR 0007).

use tokio::time::Instant;

use super::{REPEAT_PAUSE, REPEAT_PAUSE_MAX, member::Member};
use crate::{
    AppendError, Appended,
    connection::Connection,
    publish::{Found, Outcome},
    transaction::PreparedEvent,
};

/// How the server answered.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// When it was asked, if the first attempt was acknowledged: then its cost says something.
    pub(super) sent: Option<Instant>,
    /// Attempts whose answer was lost.
    pub(super) lost: u64,
}

/// Carries a transaction to its outcome by itself, as often as it takes and until its deadline.
pub(super) async fn resolve(connection: &Connection, member: &mut Member) -> (Result<Appended, AppendError>, Answer) {
    let events: Vec<_> = member.events.iter().collect();
    let mut answer = Answer::default();
    let mut pause = REPEAT_PAUSE;
    for attempt in 1_u32.. {
        let sent = Instant::now();
        let outcome = connection.publish(&events).await;
        match outcome {
            Outcome::Appended { last_position } => {
                answer.sent = (attempt == 1).then_some(sent);
                return (Ok(ending_at(&member.events, last_position)), answer);
            }
            Outcome::Refused { code, description } if !member.unsure => {
                return (Err(AppendError::Refused { code, description }), answer);
            }
            Outcome::Lost => {
                member.unsure = true;
                answer.lost += 1;
            }
            Outcome::Refused { .. } | Outcome::Conflict { .. } => {}
        }
        // Nothing there, and no attempt of which that could still change: the expectation was of what never was.
        let is_settled = matches!(outcome, Outcome::Conflict { may_pass: false, .. }) && !member.unsure;
        if let Outcome::Conflict { end: Some(end), .. } = outcome
            && let Some(moved) = which_moved(connection, &[&*member], end).await
        {
            return (Err(conflict(moved.event)), answer);
        }
        match connection.look(&member.events).await {
            Ok(Found::Ours { first_position }) => return (Ok(beginning_at(&member.events, first_position)), answer),
            Ok(Found::Others { index }) => return (Err(conflict(&member.events[index])), answer),
            Ok(Found::Nothing) if is_settled => return (Err(conflict(&member.events[0])), answer),
            // It can still become either, or the log cannot be asked.
            Ok(Found::Nothing) | Err(_) => {}
        }
        if Instant::now() + pause > member.deadline {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = REPEAT_PAUSE_MAX.min(pause * 2);
    }
    (Err(AppendError::Unavailable), answer)
}

/// The aggregate of `event` has moved on.
pub(super) fn conflict(event: &PreparedEvent) -> AppendError {
    AppendError::Conflict { subject: event.subject.to_string() }
}

/// Who is at fault that the server refused a batch.
pub(super) struct Moved<'a> {
    /// Which member.
    pub(super) index: usize,
    /// Its first event of the aggregate that does not end where it expects.
    pub(super) event: &'a PreparedEvent,
}

/// Which of `members`, who went out together and were refused, expects something else than that an aggregate ends at `end`: so that it has its
/// conflict without all the aggregates being looked up. `None` where that is not quickly said: one event alone is as quickly looked up.
pub(super) async fn which_moved<'a>(connection: &Connection, members: &[&'a Member], end: u64) -> Option<Moved<'a>> {
    if members.iter().map(|member| member.events.len()).sum::<usize>() < 2 {
        return None;
    }
    let subject = connection.subject_at(end).await?;
    let (index, event) = members.iter().enumerate().find_map(|(index, member)| {
        let event = member.ends().find(|(event, expected)| event.subject == subject && *expected != end);
        event.map(|(event, _)| (index, event))
    })?;
    is_taken(connection, event).await.then_some(Moved { index, event })
}

/// Whether another event is where `event` would have to be: then nothing of its transaction is in the log, and never will be.
pub(super) async fn is_taken(connection: &Connection, event: &PreparedEvent) -> bool {
    matches!(connection.find(event).await, Ok(Found::Others { .. }))
}

pub(super) fn beginning_at(events: &[PreparedEvent], first_position: u64) -> Appended {
    Appended { first_position, last_position: first_position + events.len() as u64 - 1 }
}

fn ending_at(events: &[PreparedEvent], last_position: u64) -> Appended {
    beginning_at(events, last_position + 1 - events.len() as u64)
}
