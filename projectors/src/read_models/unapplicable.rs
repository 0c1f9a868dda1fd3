//! An event that a read model cannot go past.

use std::{borrow::Cow, error::Error, fmt};

use domain::{DecodeError, envelope::StoredEventRef};

/// Characters of an event's type, or of what is wrong with it. Both may quote the event, which may be of megabytes; they are told by every
/// probe, and kept beside the checkpoint.
const TOLD_CHARS_MAX: usize = 1_000;

/// An event that cannot be decoded or applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unapplicable {
    /// Where it stands in the log.
    pub position: u64,
    /// Its type, if that much could be read; at most 1,000 characters of it, as Postgres takes them.
    pub event_type: Option<String>,
    /// What is wrong with it; at most 1,000 characters of it, as Postgres takes them.
    pub reason: String,
}

impl Unapplicable {
    pub(crate) fn undecodable(position: u64, event: Option<&StoredEventRef<'_>>, error: &DecodeError) -> Self {
        Self::new(position, event, chain(error))
    }

    pub(crate) fn new(position: u64, event: Option<&StoredEventRef<'_>>, reason: impl Into<String>) -> Self {
        let event_type = event.map(|event| told(&event.metadata.event_type));
        Self { position, event_type, reason: told(&reason.into()) }
    }
}

impl fmt::Display for Unapplicable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event_type = self.event_type.as_deref().unwrap_or("of unknown type");
        write!(f, "event {} ({event_type}) cannot be applied: {}", self.position, self.reason)
    }
}

/// What is kept of a text that may come from the event.
fn told(text: &str) -> String {
    let end = text.char_indices().nth(TOLD_CHARS_MAX).map_or(text.len(), |(end, _)| end);
    writable(Cow::Borrowed(&text[..end])).into_owned()
}

/// The text without the one character that Postgres' texts cannot hold.
pub(crate) fn writable(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text }
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
