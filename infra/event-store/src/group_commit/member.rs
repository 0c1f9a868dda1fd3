//! A transaction in the appender.

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{AppendError, Appended, transaction::PreparedEvent};

/// A transaction on its way.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) events: Vec<PreparedEvent>,
    pub(super) bytes: usize,
    pub(super) came: Instant,
    /// When to give up looking for the outcome.
    pub(super) deadline: Instant,
    /// Whether an earlier attempt may be in the log, or may still come to be.
    pub(super) unsure: bool,
    /// Its share of what may wait, given back when it is dropped.
    pub(super) _slots: Option<OwnedSemaphorePermit>,
}

impl Member {
    /// The first event of each aggregate, and where that is expected to end.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&PreparedEvent, u64)> {
        self.events.iter().filter_map(|event| Some((event, event.expected?)))
    }

    /// The hash of each aggregate's subject, and where it is expected to end.
    pub(super) fn expectations(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ends().map(|(event, expected)| (event.subject_hash, expected))
    }

    pub(super) fn is_single(&self) -> bool {
        self.events.len() == 1
    }
}

/// A transaction that waits for its turn, and who waits for its outcome.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) member: Member,
    pub(super) answer: oneshot::Sender<Result<Appended, AppendError>>,
}
