//! An event that a read model cannot go past.

use std::{error::Error, fmt};

use domain::{DecodeError, envelope::StoredEventRef};

/// An event that cannot be decoded or applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unapplicable {
    /// Where it stands in the log.
    pub position: u64,
    /// Its type, if that much could be read.
    pub event_type: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

impl Unapplicable {
    pub(crate) fn undecodable(position: u64, event: Option<&StoredEventRef<'_>>, error: &DecodeError) -> Self {
        Self::new(position, event, chain(error))
    }

    pub(crate) fn new(position: u64, event: Option<&StoredEventRef<'_>>, reason: impl Into<String>) -> Self {
        Self { position, event_type: event.map(|event| event.metadata.event_type.to_string()), reason: reason.into() }
    }
}

impl fmt::Display for Unapplicable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event_type = self.event_type.as_deref().unwrap_or("of unknown type");
        write!(f, "event {} ({event_type}) cannot be applied: {}", self.position, self.reason)
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
