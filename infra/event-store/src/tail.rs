//! The log's newest messages, read once for all parts of a process.
//!
//! The parts of a process that follow the log want the same messages at nearly the same time. One reader fetches them into
//! a window, from which each part takes at its own pace. A part that falls behind the window, or has not reached it yet, reads for
//! itself until it is back: nobody waits for anybody.

use std::{
    collections::VecDeque,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle};

use crate::{JetStreamEventStore, LogMessage, LogReader, ReadError};

/// Messages in the window: some seconds of a busy log.
const WINDOW_MESSAGES_MAX: usize = 16_384;
/// Stored bytes in the window.
const WINDOW_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Messages that the reader takes at a time.
const READ_MESSAGES_MAX: usize = 1_024;
/// Pause after the log could not be read, before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The end of the log, shared by the parts of a process. Clones share the window.
#[derive(Clone)]
pub struct LogTail {
    store: JetStreamEventStore,
    shared: Arc<Shared>,
    _reader: Arc<AbortOnDrop>,
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogTail").finish_non_exhaustive()
    }
}

struct Shared {
    window: Mutex<Window>,
    /// Moves whenever the window does.
    news: watch::Sender<()>,
}

impl Shared {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages without gap.
#[derive(Default)]
struct Window {
    /// The position that comes next; none while the window follows no log.
    next_position: Option<u64>,
    messages: VecDeque<LogMessage>,
    bytes: usize,
}

/// What the window has for a reader.
#[derive(Debug)]
enum Found {
    Messages(Vec<LogMessage>),
    /// The reader has all that the window has: what it waits for comes here first.
    NotYet,
    /// The reader is elsewhere.
    Elsewhere,
}

impl Window {
    fn start_at(&mut self, position: u64) {
        *self = Self { next_position: Some(position), ..Self::default() };
    }

    fn extend(&mut self, messages: Vec<LogMessage>) {
        for message in messages {
            self.next_position = Some(message.position + 1);
            self.bytes += message.bytes.len();
            self.messages.push_back(message);
        }
        while self.messages.len() > WINDOW_MESSAGES_MAX || self.bytes > WINDOW_BYTES_MAX {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.bytes -= oldest.bytes.len();
        }
    }

    /// Whether a reader that has got there need not read for itself.
    fn has(&self, position: u64) -> bool {
        !matches!(self.from(position, 0), Found::Elsewhere)
    }

    fn from(&self, position: u64, messages_max: usize) -> Found {
        let Some(next) = self.next_position else { return Found::Elsewhere };
        if position == next {
            return Found::NotYet;
        }
        let first = self.messages.front().map_or(next, |first| first.position);
        let Some(skipped) = position.checked_sub(first).filter(|_| position < next) else { return Found::Elsewhere };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        Found::Messages(self.messages.iter().skip(skipped).take(messages_max).cloned().collect())
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl JetStreamEventStore {
    /// The messages that are appended from now on, for as many readers as there are parts that follow the log.
    pub fn tail(&self) -> LogTail {
        let shared = Arc::new(Shared { window: Mutex::default(), news: watch::Sender::new(()) });
        let reader = tokio::spawn(follow(self.clone(), Arc::clone(&shared))).abort_handle();
        LogTail { store: self.clone(), shared, _reader: Arc::new(AbortOnDrop(reader)) }
    }
}

/// Keeps the window at the log's end.
async fn follow(store: JetStreamEventStore, shared: Arc<Shared>) {
    loop {
        if let Ok(head) = store.head().await {
            shared.window().start_at(head + 1);
            shared.news.send_replace(());
            let mut reader = store.read_from(head + 1);
            while let Ok(messages) = reader.next_batch(READ_MESSAGES_MAX).await {
                shared.window().extend(messages);
                shared.news.send_replace(());
            }
            // A gap. Whoever gets there meets it by a reader of its own; the window starts anew behind it.
            *shared.window() = Window::default();
            shared.news.send_replace(());
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

impl LogTail {
    /// A reader whose first message is the one at `position` (1 is the log's first; 0 means 1), wherever that is.
    pub fn read_from(&self, position: u64) -> TailReader {
        TailReader { tail: self.clone(), news: self.shared.news.subscribe(), next_position: position.max(1), own: None }
    }
}

/// Reads the log onwards from a position: from the window where it can, else by a [`LogReader`] of its own.
pub struct TailReader {
    tail: LogTail,
    news: watch::Receiver<()>,
    next_position: u64,
    own: Option<LogReader>,
}

impl fmt::Debug for TailReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { next_position, own, .. } = self;
        f.debug_struct("TailReader").field("next_position", next_position).field("own", &own.is_some()).finish_non_exhaustive()
    }
}

impl TailReader {
    /// As [`LogReader::next_batch`], with the same guarantees.
    pub async fn next_batch(&mut self, messages_max: usize) -> Result<Vec<LogMessage>, ReadError> {
        loop {
            self.news.mark_unchanged();
            let found = self.tail.shared.window().from(self.next_position, messages_max);
            match found {
                Found::Messages(messages) => {
                    self.own = None;
                    self.next_position += messages.len() as u64;
                    return Ok(messages);
                }
                Found::NotYet => {
                    self.own = None;
                    // The sender lives as long as the tail, which this reader holds.
                    let _ = self.news.changed().await;
                }
                Found::Elsewhere => {
                    let Self { tail, news, next_position, own } = &mut *self;
                    let own = own.get_or_insert_with(|| tail.store.read_from(*next_position));
                    let mut batch = pin!(own.next_batch(messages_max));
                    // Not given up for whatever news: on a busy log there is more of it before the reader has begun.
                    loop {
                        tokio::select! {
                            biased;
                            messages = &mut batch => {
                                let messages = messages?;
                                *next_position += messages.len() as u64;
                                return Ok(messages);
                            }
                            _ = news.changed() => if tail.shared.window().has(*next_position) {
                                break;
                            },
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(position: u64, bytes: usize) -> LogMessage {
        LogMessage { position, subject: "events.test.x".into(), bytes: vec![b'x'; bytes].into(), pending: 0 }
    }

    fn messages(positions: std::ops::Range<u64>) -> Vec<LogMessage> {
        positions.map(|position| message(position, 10)).collect()
    }

    fn positions(found: Found) -> Vec<u64> {
        match found {
            Found::Messages(messages) => messages.iter().map(|message| message.position).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_behind_the_window_gets_on_while_it_moves_all_the_time() {
        let server = local_stack::testing::nats();
        let store = JetStreamEventStore::connect(server.url(), "test").await.expect("an address");
        while store.set_up(Some(1)).await.is_err() {
            tokio::task::yield_now().await;
        }
        let published = store.connection.jetstream.publish("events.test.x", "x".into()).await;
        published.expect("it is sent").await.expect("it is stored");
        let tail = store.tail();
        let mut behind = tail.read_from(1);
        let shared = Arc::clone(&tail.shared);
        let moving = tokio::spawn(async move {
            loop {
                shared.news.send_replace(());
                tokio::task::yield_now().await;
            }
        });
        let messages = tokio::time::timeout(Duration::from_secs(10), behind.next_batch(10)).await;
        assert_eq!(messages.expect("it gets on").expect("there is no gap").len(), 1);
        moving.abort();
        let stream = store.connection.jetstream.get_stream(crate::wire::STREAM).await.expect("it is there");
        // Its own, and that of the window.
        assert!(stream.cached_info().state.consumer_count <= 2, "it began again and again: {:?}", stream.cached_info().state);
    }

    #[test]
    fn a_window_hands_out_what_follows_a_position() {
        let mut window = Window::default();
        assert!(matches!(window.from(1, 10), Found::Elsewhere));
        window.start_at(5);
        assert!(matches!(window.from(4, 10), Found::Elsewhere));
        assert!(matches!(window.from(5, 10), Found::NotYet));
        window.extend(messages(5..9));
        assert_eq!(positions(window.from(5, 2)), [5, 6]);
        assert_eq!(positions(window.from(7, 10)), [7, 8]);
        assert!(matches!(window.from(9, 10), Found::NotYet));
        assert!(matches!(window.from(4, 10), Found::Elsewhere));
        assert!(matches!(window.from(10, 10), Found::Elsewhere));
    }

    #[test]
    fn a_window_is_bounded_and_forgets_the_oldest() {
        let mut window = Window::default();
        window.start_at(1);
        let more = WINDOW_MESSAGES_MAX as u64 + 11;
        window.extend(messages(1..more));
        assert_eq!(window.messages.len(), WINDOW_MESSAGES_MAX);
        assert_eq!(window.bytes, WINDOW_MESSAGES_MAX * 10);
        assert!(matches!(window.from(10, 1), Found::Elsewhere));
        assert_eq!(positions(window.from(11, 1)), [11]);
        window.extend(vec![message(more, WINDOW_BYTES_MAX)]);
        assert_eq!(positions(window.from(more, 5)), [more]);
        assert!(matches!(window.from(more - 1, 1), Found::Elsewhere));
    }
}
