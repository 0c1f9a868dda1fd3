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
        let is_settled = matches!(outcome, Outcome::Conflict { may_pass: false }) && !member.unsure;
        match connection.look(&member.events).await {
            Ok(Found::Ours { first_position }) => return (Ok(beginning_at(&member.events, first_position)), answer),
            Ok(Found::Others) => return (Err(conflict(&member.events)), answer),
            Ok(Found::Nothing) if is_settled => return (Err(conflict(&member.events)), answer),
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

pub(super) fn conflict(events: &[PreparedEvent]) -> AppendError {
    AppendError::Conflict { subject: events[0].subject.to_string() }
}

pub(super) fn beginning_at(events: &[PreparedEvent], first_position: u64) -> Appended {
    Appended { first_position, last_position: first_position + events.len() as u64 - 1 }
}

fn ending_at(events: &[PreparedEvent], last_position: u64) -> Appended {
    beginning_at(events, last_position + 1 - events.len() as u64)
}
