//! Appending one transaction: all or nothing, under optimistic concurrency, never guessed.
//!
//! The transaction is handed to the appender ([`crate::group_commit`]), which sends it alone or together with others that
//! wait at the same time, and finds out what became of it.

use std::collections::HashSet;

use crate::{
    JetStreamEventStore, Transaction,
    group_commit::{AppendStats, OUTCOME_DEADLINE},
    transaction::PreparedEvent,
    wire::{self, TRANSACTION_EVENTS_MAX},
};

/// What a message's headers take at most, in bytes: ids, the expectation, the batch.
const HEADER_BYTES_MAX: usize = 512;

/// Where a transaction's events are in the log: next to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The position of its first event.
    pub first_position: u64,
    /// The position of its last event.
    pub last_position: u64,
}

/// Why a transaction was not appended, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// An aggregate does not end where the transaction expects; nothing was appended.
    #[error("append to {subject}: the aggregate has moved on")]
    Conflict {
        /// The subject of an aggregate that has moved on; of the transaction's first one where the log does not say which has.
        subject: String,
    },
    /// The transaction cannot be appended by anyone, ever; nothing was sent.
    #[error("append: {0}")]
    Invalid(String),
    /// The server refused for a reason of its own, such as a full disk; nothing was appended.
    #[error("append: the server refused with code {code}: {description}")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// The server's words.
        description: String,
    },
    /// Too many transactions wait already; nothing was sent.
    #[error("append: too many transactions are waiting for the log")]
    Overloaded,
    /// No answer within the deadline. Whether it was appended is unknown; sending the same again is safe.
    #[error("append: no answer from the log within {} s", OUTCOME_DEADLINE.as_secs())]
    Unavailable,
}

impl AppendError {
    /// Type and id of the aggregate that has moved on, if that is why.
    pub fn moved(&self) -> Option<(&str, &str)> {
        let Self::Conflict { subject } = self else { return None };
        wire::aggregate(subject)
    }
}

impl JetStreamEventStore {
    /// Appends `transaction`, all of it or nothing, and returns once the server has acknowledged it: with
    /// `sync_interval: always`, once it is on disk.
    ///
    /// At most [`TRANSACTION_EVENTS_MAX`] events. An empty one returns positions 0 and appends nothing.
    pub async fn append(&self, transaction: Transaction) -> Result<Appended, AppendError> {
        let events = transaction.events;
        if events.is_empty() {
            return Ok(Appended { first_position: 0, last_position: 0 });
        }
        check(&events, self.connection.client.max_payload())?;
        self.appender.append(events).await
    }

    /// What this store's appender has done, and who waits now.
    pub fn append_stats(&self) -> AppendStats {
        self.appender.stats()
    }
}

fn check(events: &[PreparedEvent], message_bytes_max: usize) -> Result<(), AppendError> {
    if events.len() > TRANSACTION_EVENTS_MAX {
        let message = format!("{} events in one transaction, and {TRANSACTION_EVENTS_MAX} is the limit", events.len());
        return Err(AppendError::Invalid(message));
    }
    let mut subjects = HashSet::new();
    for event in events {
        let bytes = event.payload.len() + HEADER_BYTES_MAX;
        if bytes > message_bytes_max {
            return Err(AppendError::Invalid(format!("an event of {bytes} bytes, and the server takes {message_bytes_max}")));
        }
        if event.subject.splitn(3, '.').any(|token| !wire::is_token(token)) {
            return Err(AppendError::Invalid(format!("{:?} is not the subject of an aggregate", event.subject)));
        }
        if event.expected.is_some() && events.len() > 1 && !subjects.insert(event.subject.as_str()) {
            return Err(AppendError::Invalid(format!("{} is in the transaction twice", event.subject)));
        }
    }
    Ok(())
}
