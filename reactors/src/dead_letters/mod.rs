//! What a reactor has given up on: how it gets there, and what somebody can do about it.
//!
//! A dead letter names its event by the position in the log; the event itself stays there. To redrive one is to have a running reactor
//! handle that event again, by the same code and with the same care as the first time, so it is harmless where the event was handled
//! already. The letter goes once what follows from the event is in the log.

mod give_up;
mod selection;
mod table;

use std::{fmt, time::Duration};

use event_store::{JetStreamEventStore, KeptLetter, ReadError, Redriven};
use futures::StreamExt;
use serde::Serialize;

pub(crate) use self::give_up::{chain, give_up, keep};
pub use self::{
    selection::{LetterName, Selection},
    table::{letters, letters_as_json, one_letter, outcomes},
};
use crate::clock;

/// How long a reactor may be silent about an event that it is asked for. It reports every two seconds while it works.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events asked for at the same time.
const AT_ONCE: usize = 16;

/// Why the dead letters could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// NATS is away.
    #[error("try again later: {0}")]
    Away(String),
    /// No dead letter has this name.
    #[error("there is no dead letter {0}: `reactors dead-letters list` shows those that there are")]
    NotFound(LetterName),
}

impl From<ReadError> for LettersError {
    fn from(error: ReadError) -> Self {
        Self::Away(error.to_string())
    }
}

/// The dead letters that are selected, by position.
///
/// # Errors
///
/// If one that is named does not exist, or NATS is away.
pub async fn select(store: &JetStreamEventStore, selection: &Selection) -> Result<Vec<KeptLetter>, LettersError> {
    let all = store.dead_letters().await?;
    if let Some(missing) = selection.names.iter().find(|name| !all.iter().any(|kept| name.is_of(&kept.letter))) {
        return Err(LettersError::NotFound(missing.clone()));
    }
    Ok(all.into_iter().filter(|kept| selection.selects(&kept.letter)).collect())
}

/// The event of `kept`, byte by byte as the log has it.
pub async fn event_of(store: &JetStreamEventStore, kept: &KeptLetter) -> Result<Vec<u8>, LettersError> {
    let read = tokio::time::timeout(PATIENCE, store.read_from(kept.letter.position).next_batch(1)).await;
    let messages = read.map_err(|_| LettersError::Away("the log does not answer".to_owned()))??;
    Ok(messages.first().map(|message| message.bytes.to_vec()).unwrap_or_default())
}

/// What became of one dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Which one.
    pub id: String,
    /// Which reactor had given up.
    pub reactor: String,
    /// The event's place in the log.
    pub position: u64,
    /// The event's type.
    pub event_type: String,
    /// What became of it.
    pub outcome: Verdict,
    /// What went wrong, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_chain: Vec<String>,
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The event was handled, and the letter is gone.
    Done,
    /// It was given up again; the letter tells why.
    Dead,
    /// It could not be done now, or not to its end, and may be asked for again; the letter is as it was, unless the reason says otherwise.
    NotNow,
    /// The letter was taken away.
    Discarded,
    /// Nothing was done, because nothing was to be.
    DryRun,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Dead => "dead again",
            Self::NotNow => "not now",
            Self::Discarded => "discarded",
            Self::DryRun => "dry run",
        })
    }
}

impl Outcome {
    fn of(kept: &KeptLetter, outcome: Verdict, error_chain: Vec<String>) -> Self {
        let letter = &kept.letter;
        Self {
            id: letter.id(),
            reactor: letter.reactor.clone(),
            position: letter.position,
            event_type: letter.event_type.clone(),
            outcome,
            error_chain,
        }
    }

    /// What would be done to `kept`.
    pub fn dry_run(kept: &KeptLetter) -> Self {
        Self::of(kept, Verdict::DryRun, Vec::new())
    }
}

/// Has the reactors handle the events of `kept` again, some at a time, and returns what came of each, in the same order.
pub async fn redrive(store: &JetStreamEventStore, kept: &[KeptLetter]) -> Vec<Outcome> {
    futures::stream::iter(kept).map(|kept| redrive_one(store, kept)).buffered(AT_ONCE).collect().await
}

async fn redrive_one(store: &JetStreamEventStore, kept: &KeptLetter) -> Outcome {
    let letter = &kept.letter;
    let not_now = |why: String| Outcome::of(kept, Verdict::NotNow, vec![why]);
    match store.redrive(&letter.reactor, letter.position, PATIENCE).await {
        Ok(Redriven::Done) => match store.remove_dead_letter(kept).await {
            Ok(()) => Outcome::of(kept, Verdict::Done, Vec::new()),
            Err(error) => not_now(format!("the event was handled, but its letter could not be taken away: {error}")),
        },
        Ok(Redriven::Failed { error_chain, attempts }) => {
            let mut dead_again = letter.clone();
            dead_again.error_chain.clone_from(&error_chain);
            dead_again.attempts += attempts;
            dead_again.redrives += 1;
            dead_again.first_died_at = dead_again.first_died_at.or(Some(letter.died_at));
            dead_again.died_at = clock::now();
            match store.replace_dead_letter(kept, &dead_again).await {
                Ok(()) => Outcome::of(kept, Verdict::Dead, error_chain),
                Err(error) => not_now(format!("it was given up again, but that could not be written into its letter: {error}")),
            }
        }
        Ok(Redriven::NotNow) => {
            not_now("what it needs is away, the instance is ending, or its time has not come (a payment deadline)".to_owned())
        }
        Ok(Redriven::NobodyThere) => not_now(format!("no instance runs the reactor {}", letter.reactor)),
        Ok(Redriven::NoAnswer) => {
            let (reactor, patience) = (&letter.reactor, PATIENCE.as_secs());
            not_now(format!(
                "the reactor {reactor} gave no sign of life for {patience} s: is its breaker open, or its instance stuck?"
            ))
        }
        Err(error) => not_now(format!("the reactor could not be asked: {error}")),
    }
}

/// Takes `kept` away, some at a time, and keeps them with `reason` in the stream `DISCARDED_LETTERS`. Returns what came of each, in the same
/// order.
pub async fn discard(store: &JetStreamEventStore, kept: &[KeptLetter], reason: &str) -> Vec<Outcome> {
    let discard_one = async |kept| match store.discard_dead_letter(kept, reason, clock::now()).await {
        Ok(()) => Outcome::of(kept, Verdict::Discarded, Vec::new()),
        Err(error) => Outcome::of(kept, Verdict::NotNow, vec![format!("the letter could not be taken away: {error}")]),
    };
    futures::stream::iter(kept).map(discard_one).buffered(AT_ONCE).collect().await
}
