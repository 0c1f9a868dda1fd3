//! The log as a projection takes it: messages stay at hand until they are applied for good.

use std::{collections::VecDeque, fmt, time::Duration};

use event_store::{JetStreamEventStore, LogMessage, LogReader, LogTail, ReadError, TailReader};
use tokio::sync::mpsc;
use tracing::warn;

use crate::read_models::Unapplicable;

/// How far a reader is let run on to a later position before it is cheaper to start anew there.
const SKIP_EVENTS_MAX: u64 = 10_000;
/// Pause after an error that the reader did not get over by itself.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Where the messages come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The log, by a reader of the feed's own.
    Log(JetStreamEventStore),
    /// The window on the log's end that all projections of the process share.
    Tail(LogTail),
}

impl Source {
    fn read_from(&self, position: u64) -> Reader {
        match self {
            Self::Log(store) => Reader::Own(Box::new(store.read_from(position))),
            Self::Tail(tail) => Reader::Shared(Box::new(tail.read_from(position))),
        }
    }
}

enum Reader {
    Own(Box<LogReader>),
    Shared(Box<TailReader>),
    Handed(mpsc::Receiver<Vec<LogMessage>>),
}

impl Reader {
    /// The next messages; none if somebody else has read them and has ended.
    async fn next_batch(&mut self, messages_max: usize) -> Result<Vec<LogMessage>, ReadError> {
        match self {
            Self::Own(reader) => reader.next_batch(messages_max).await,
            Self::Shared(reader) => reader.next_batch(messages_max).await,
            Self::Handed(batches) => Ok(batches.recv().await.unwrap_or_default()),
        }
    }
}

/// Reads the log for somebody who says after which position to go on. Asking for the same position again gives the same messages.
pub(crate) struct Feed {
    source: Source,
    /// None after a gap: what comes next is not what should.
    reader: Option<Reader>,
    /// The position that the reader delivers next.
    next: u64,
    waiting: VecDeque<LogMessage>,
    read_messages_max: usize,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("next", &self.next).field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Feed {
    /// Reads up to `read_messages_max` messages at a time.
    pub(crate) fn new(source: Source, read_messages_max: usize) -> Self {
        Self { source, reader: None, next: 0, waiting: VecDeque::new(), read_messages_max }
    }

    /// The same, which is handed its first messages, those right after `position`, by somebody else.
    pub(crate) fn handed(mut self, position: u64, batches: mpsc::Receiver<Vec<LogMessage>>) -> Self {
        self.next = position + 1;
        self.reader = Some(Reader::Handed(batches));
        self
    }

    /// Waits until at least one message after `position` is at hand. Cancel safe. A gap is told each time that it is met.
    pub(crate) async fn wait(&mut self, position: u64) -> Result<(), Unapplicable> {
        self.drop_until(position);
        while self.waiting.is_empty() {
            let behind = (position + 1).checked_sub(self.next);
            let is_near = behind.is_some_and(|events| events <= SKIP_EVENTS_MAX);
            let reader = match &mut self.reader {
                Some(reader) if is_near => reader,
                reader => {
                    self.next = position + 1;
                    reader.insert(self.source.read_from(self.next))
                }
            };
            match reader.next_batch(self.read_messages_max).await {
                Ok(messages) if messages.is_empty() => self.reader = None,
                Ok(messages) => {
                    self.next += messages.len() as u64;
                    self.waiting.extend(messages);
                    self.drop_until(position);
                }
                Err(ReadError::Gap { expected, found }) => {
                    self.reader = None;
                    if expected > position {
                        return Err(crate::checkpoints::gap(expected, found));
                    }
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "cannot read the log");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    self.reader = None;
                }
            }
        }
        Ok(())
    }

    /// The messages right after `position` that are at hand, at most `messages_max`; none before [`Feed::wait`] has returned.
    pub(crate) fn at_hand(&mut self, position: u64, messages_max: usize) -> &[LogMessage] {
        self.drop_until(position);
        let waiting = &*self.waiting.make_contiguous();
        &waiting[..waiting.len().min(messages_max)]
    }

    fn drop_until(&mut self, position: u64) {
        while self.waiting.front().is_some_and(|message| message.position <= position) {
            self.waiting.pop_front();
        }
        if self.waiting.front().is_some_and(|message| message.position != position + 1) {
            // Somebody set the projection back; what is at hand comes too early.
            self.waiting.clear();
            self.reader = None;
        }
    }
}
