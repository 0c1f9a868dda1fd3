//! The whole log in order, from any position, for ever.
//!
//! One unfiltered ordered consumer: the fastest way to read JetStream (DESIGN §3). Every message is checked to be the
//! one that had to come, so nobody downstream can miss or double an event.

use std::{
    fmt,
    time::{Duration, Instant},
};

use async_nats::{
    Subject,
    jetstream::{
        Message,
        consumer::{DeliverPolicy, ReplayPolicy, pull},
    },
};
use bytes::Bytes;
use domain::{DecodeError, envelope::StoredEvent};
use futures::{FutureExt, StreamExt};
use tokio::{sync::watch, task::unconstrained};

use crate::{JetStreamEventStore, ReadError, trouble::Trouble, wire::STREAM};

/// Pause after the log could not be read, before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How long nothing may come although the log is known to go on, before the consumer is started anew. One of three servers may be gone with the
/// consumer that it held, and with nothing else that anybody would notice: the library does after 35 s.
const STALL_MAX: Duration = Duration::from_secs(3);

/// One stored message. Clones share the bytes.
#[derive(Clone, Debug)]
pub struct LogMessage {
    /// Its stream sequence.
    pub position: u64,
    /// Its subject: `events.<aggregate type>.<aggregate id>`.
    pub subject: Subject,
    /// The stored bytes.
    pub bytes: Bytes,
    /// How many messages the log held after this one when it was delivered.
    pub pending: u64,
}

impl LogMessage {
    /// Which kind of aggregate it belongs to, by its subject; empty if that does not say.
    pub fn aggregate_type(&self) -> &str {
        self.subject.split('.').nth(1).unwrap_or_default()
    }

    /// The event that the bytes hold. Who reads many and keeps none is better off with a
    /// [`StoredEventRef`](domain::envelope::StoredEventRef) to the bytes.
    pub fn event(&self) -> Result<StoredEvent, DecodeError> {
        StoredEvent::from_json(&self.bytes)
    }
}

/// Reads the log onwards from a position. Reconnects by itself.
pub struct LogReader {
    store: JetStreamEventStore,
    interruptions: watch::Receiver<Instant>,
    next_position: u64,
    messages: Option<pull::Ordered>,
    trouble: Trouble,
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").field("next_position", &self.next_position).finish_non_exhaustive()
    }
}

impl JetStreamEventStore {
    /// A reader whose first message is the one at `position` (1 is the log's first; 0 means 1).
    pub fn read_from(&self, position: u64) -> LogReader {
        let interruptions = self.connection.interruptions.clone();
        LogReader {
            store: self.clone(),
            interruptions,
            next_position: position.max(1),
            messages: None,
            trouble: Trouble::default(),
        }
    }
}

impl LogReader {
    /// Waits for at least one message and returns those at hand, up to `messages_max`, in order and without gap.
    ///
    /// While the server is away this waits; it can be dropped at any await without losing a message. Only
    /// [`ReadError::Gap`] is returned, and it is final: a position is missing from the log.
    pub async fn next_batch(&mut self, messages_max: usize) -> Result<Vec<LogMessage>, ReadError> {
        loop {
            let Some(messages) = &mut self.messages else {
                self.start().await;
                continue;
            };
            let first = tokio::select! {
                biased;
                // A new connection: the consumer may be gone with the server that held it.
                _ = self.interruptions.changed() => None,
                message = messages.next() => message,
                () = stalled(&self.store, self.next_position) => None,
            };
            let Some(Ok(first)) = first else {
                if let Some(Err(error)) = first {
                    tracing::debug!("read the log: {error}");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                self.messages = None;
                continue;
            };
            let mut batch = Vec::with_capacity(64);
            let mut next_position = self.next_position;
            let mut message = Some(first);
            while let Some(delivered) = message {
                match read(delivered) {
                    Some(read) if read.position == next_position => {
                        batch.push(read);
                        next_position += 1;
                    }
                    // The library has started a consumer anew, where nothing had come yet from the log's first message on: there may be
                    // millions before the one that has to come.
                    Some(read) if read.position < next_position => self.messages = None,
                    Some(read) if batch.is_empty() => {
                        return Err(ReadError::Gap { expected: next_position, found: read.position });
                    }
                    // Before a gap, first hand out what precedes it; starting anew finds it again.
                    Some(_) | None => self.messages = None,
                }
                message = match &mut self.messages {
                    // Without tokio's budget, which would end the batch after some sixty messages though more are at hand.
                    Some(messages) if batch.len() < messages_max => match unconstrained(messages.next()).now_or_never() {
                        Some(Some(Ok(delivered))) => Some(delivered),
                        Some(Some(Err(_)) | None) => {
                            self.messages = None;
                            None
                        }
                        None => None,
                    },
                    _ => None,
                };
            }
            self.next_position = next_position;
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    async fn start(&mut self) {
        self.interruptions.mark_unchanged();
        let config = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next_position },
            replay_policy: ReplayPolicy::Instant,
            ..pull::OrderedConfig::default()
        };
        let started = async {
            let stream = self.store.connection.jetstream.get_stream_no_info(STREAM).await.map_err(|error| error.to_string())?;
            let consumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
            consumer.messages().await.map_err(|error| error.to_string())
        };
        match started.await {
            Ok(messages) => {
                self.messages = Some(messages);
                self.trouble.over("read the log");
            }
            Err(error) => {
                self.trouble.met("read the log", error);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Returns when the log has been known to have the message at `position` for [`STALL_MAX`].
async fn stalled(store: &JetStreamEventStore, position: u64) {
    let mut had_it = false;
    loop {
        tokio::time::sleep(STALL_MAX).await;
        let has_it = store.connection.seen.head() >= position;
        if has_it && had_it {
            tracing::debug!(position, "nothing comes of the log although it goes on: its reader starts anew");
            return;
        }
        had_it = has_it;
    }
}

fn read(message: Message) -> Option<LogMessage> {
    let async_nats::Message { subject, reply, payload, .. } = message.message;
    let (position, pending) = place(reply.as_deref()?)?;
    Some(LogMessage { position, subject, bytes: payload, pending })
}

/// The stream sequence and the number of messages after it, from the subject that acknowledges a delivery:
/// `$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, of which older servers leave out
/// domain and account, and after which there may be more. Source: NATS ADR-15. [`Message::info`] reads all of it, at a tenth of the time that a
/// message takes here.
fn place(reply: &str) -> Option<(u64, u64)> {
    const SHORT: usize = 9;
    let tokens = reply.bytes().filter(|byte| *byte == b'.').count() + 1;
    let tokens_before = if tokens == SHORT { 5 } else { 7 };
    let mut tokens = reply.split('.').skip(tokens_before);
    let position = tokens.next()?.parse().ok()?;
    let pending = tokens.nth(2)?.parse().ok()?;
    reply.starts_with("$JS.ACK.").then_some((position, pending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_its_place_in_either_form() {
        let long = "$JS.ACK.hub.ACCOUNT.EVENTS.consumer.1.1234.99.1790000000000000000.56.abcdef";
        assert_eq!(place(long), Some((1_234, 56)));
        assert_eq!(place("$JS.ACK.EVENTS.consumer.1.1234.99.1790000000000000000.56"), Some((1_234, 56)));
        for wrong in ["", "_INBOX.a.b", "$JS.ACK.EVENTS.consumer", "a.b.c.d.e.f.1.2.3.4.5.6"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }
}
