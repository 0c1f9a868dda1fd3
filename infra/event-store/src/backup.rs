//! Copies of whole streams, as the server makes them and takes them back, and where their queues were.
//!
//! JetStream sends a stream as a file of its own format, in chunks: each is sent once enough of the earlier ones were acknowledged, and an
//! empty message ends it. It takes one back chunk by chunk, each answered once it is stored. Source: `server/jetstream_api.go` and
//! `server/stream_backup.go` of nats-server 2.15.
//!
//! What the server would put into the file of its consumers is left out. It reads them after it has fixed where the file ends, so they may
//! have acknowledged events whose consequences are not in it, and nobody would ever handle those again. Instead the positions are read
//! before, and a restored queue begins there: see `infra/adr/0024-backups-are-the-servers-own-snapshots.md`.

use std::{fmt, sync::atomic::Ordering, time::Duration};

use async_nats::{Client, Request, Subscriber, connection::State};
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    JetStreamEventStore,
    wire::{DEAD_LETTER_STREAM, DISCARDED_LETTER_STREAM, RESTORING, STREAM, TIMER_STREAM},
};

/// The streams that a backup holds, in the order in which they are copied, and restored.
///
/// Whatever leaves one of them for good has left its consequence in a later one: a letter that is discarded is put among the discarded ones
/// first, and what handles a letter or a timer appends to the log before it removes it. So what a copy lacks is in a later copy, and nothing
/// points beyond the end of the log.
pub const BACKED_UP_STREAMS: [&str; 4] = [DEAD_LETTER_STREAM, DISCARDED_LETTER_STREAM, TIMER_STREAM, STREAM];

/// How long the server may take to answer what it can answer at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take until a copy begins: servers before 2.15 read and check all of the stream first.
const CHECK_TIMEOUT: Duration = Duration::from_mins(10);
/// How long a chunk may take, either way.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server may take to put the last chunks in their places; servers before 2.15 do all of the work then.
const FINISH_TIMEOUT: Duration = Duration::from_mins(30);
/// Pause between two looks whether there still is a connection, or still is a stream that was deleted.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Bytes of a chunk of a copy, and of all that are on their way at a time: what bounds the memory that it takes.
const CHUNK_BYTES: usize = 128 * 1_024;
const WINDOW_BYTES: usize = 4 * 1_024 * 1_024;

/// What is behind most restores that fail midway: the server gives one up when it has put nothing in its place for five seconds, and it takes a
/// megabyte of messages at a time.
const STALLS: &str = "if it has `sync_interval: always`, it may have needed too long for that: see docs/runbooks/disaster.md";

/// JetStream's code for a stream that is not there.
const STREAM_NOT_FOUND: u64 = 10_059;

/// JetStream's code for a stream that cannot be restored because one of its name is there.
const STREAM_IS_THERE: u64 = 10_130;

/// Why a stream could not be copied or restored.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The server is away, or went away meanwhile.
    #[error("{doing}: {reason}")]
    Unavailable {
        /// What was being done.
        doing: String,
        /// What the client said.
        reason: String,
    },
    /// The server says no.
    #[error("{doing}: the server refuses: {reason}")]
    Refused {
        /// What was being done.
        doing: String,
        /// What it said.
        reason: String,
    },
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// How many messages.
    pub messages: u64,
    /// The sequence of the first one.
    pub first_sequence: u64,
    /// The sequence of the last one that it ever had.
    pub last_sequence: u64,
}

impl Extent {
    /// Whether a stream that was as `original` says is as this says now. Where the first message would be if there were one, servers tell
    /// in different ways.
    pub fn is_of(&self, original: &Self) -> bool {
        let is_empty = self.messages == 0;
        (self.messages, self.last_sequence) == (original.messages, original.last_sequence)
            && (is_empty || self.first_sequence == original.first_sequence)
    }

    fn read(state: &Value) -> Option<Self> {
        let number = |name| state.get(name)?.as_u64();
        Some(Self { messages: number("messages")?, first_sequence: number("first_seq")?, last_sequence: number("last_seq")? })
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, first_sequence, last_sequence } = self;
        write!(f, "{messages} messages from {first_sequence} to {last_sequence}")
    }
}

/// What is known of a stream that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingStream {
    /// What it holds.
    pub extent: Extent,
    /// Whether it is being restored, or the restore was cut short.
    pub is_restoring: bool,
}

/// Where a durable consumer was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueuePosition {
    /// The consumer.
    pub name: String,
    /// Everything up to there was acknowledged.
    pub acknowledged_to: u64,
    /// Its settings, as the server tells them.
    pub config: Value,
}

/// A stream that is being copied.
#[derive(Debug)]
pub struct StreamCopy {
    /// Its settings, as the server tells them.
    pub config: Value,
    /// Its state when the copy began, as the server tells it.
    pub state: Value,
    /// The same, as far as it is of interest here.
    pub extent: Extent,
    store: JetStreamEventStore,
    stream: &'static str,
    chunks: Subscriber,
    /// The subject that asks for more, once the chunk that came with it is taken care of.
    unacknowledged: Option<async_nats::Subject>,
}

/// A stream that is being restored.
#[derive(Debug)]
pub struct StreamRestore {
    store: JetStreamEventStore,
    stream: String,
    /// Where the server takes the chunks.
    subject: String,
}

impl JetStreamEventStore {
    /// The version of the server.
    pub fn server_version(&self) -> String {
        self.connection.client.server_info().version
    }

    /// Where the durable consumers of `stream` are.
    pub async fn queue_positions(&self, stream: &str) -> Result<Vec<QueuePosition>, CopyError> {
        let doing = format!("list the queues of {stream}");
        let mut positions = Vec::new();
        let mut offset = 0;
        loop {
            let page = self.ask(&doing, &format!("CONSUMER.LIST.{stream}"), &json!({ "offset": offset }), ANSWER_TIMEOUT).await?;
            // One without a leader is not listed, and its position must not be taken for the beginning.
            if let Some(missing) = page["missing"].as_array().filter(|missing| !missing.is_empty()) {
                return Err(unavailable(&doing, format!("{} of them have no leader", missing.len())));
            }
            let consumers = page["consumers"].as_array().map(Vec::as_slice).unwrap_or_default();
            for consumer in consumers {
                let config = &consumer["config"];
                let Some(name) = config["durable_name"].as_str().filter(|name| !name.is_empty()) else { continue };
                let floor = consumer["ack_floor"]["stream_seq"].as_u64();
                let acknowledged_to = floor.ok_or_else(|| refused(&doing, format!("{name} has no position")))?;
                positions.push(QueuePosition { name: name.to_owned(), acknowledged_to, config: config.clone() });
            }
            offset += consumers.len();
            if consumers.is_empty() || page["total"].as_u64().is_none_or(|total| offset as u64 >= total) {
                return Ok(positions);
            }
        }
    }

    /// Begins to copy `stream` as it is now, without its queues; what is appended meanwhile is not part of it.
    pub async fn copy_stream(&self, stream: &'static str) -> Result<StreamCopy, CopyError> {
        let doing = format!("copy {stream}");
        let client = &self.connection.client;
        let inbox = client.new_inbox();
        let chunks = client.subscribe(inbox.clone()).await.map_err(|error| unavailable(&doing, error))?;
        let request = json!({
            "deliver_subject": inbox,
            "no_consumers": true,
            "chunk_size": CHUNK_BYTES,
            "window_size": WINDOW_BYTES,
            "jsck": true,
        });
        let answer = self.ask(&doing, &format!("STREAM.SNAPSHOT.{stream}"), &request, CHECK_TIMEOUT).await?;
        let (config, state) = (answer["config"].clone(), answer["state"].clone());
        let extent = Extent::read(&state).ok_or_else(|| refused(&doing, "it does not say what the stream holds"))?;
        Ok(StreamCopy { config, state, extent, store: self.clone(), stream, chunks, unacknowledged: None })
    }

    /// What is known of `stream`; none if it is not there.
    pub async fn standing(&self, stream: &str) -> Result<Option<StandingStream>, CopyError> {
        let doing = format!("look at {stream}");
        let info = match self.try_to_ask(&doing, &format!("STREAM.INFO.{stream}"), &json!({}), ANSWER_TIMEOUT).await? {
            Ok(info) => info,
            Err(error) if error.code == STREAM_NOT_FOUND => return Ok(None),
            Err(error) => return Err(refused(&doing, error)),
        };
        let extent = Extent::read(&info["state"]).ok_or_else(|| refused(&doing, "it does not say what the stream holds"))?;
        Ok(Some(StandingStream { extent, is_restoring: info["config"]["metadata"].get(RESTORING).is_some() }))
    }

    /// Begins to restore a stream that is not there, with the settings and state that its copy came with, held by `replicas` servers or as
    /// many as then. Of several servers one may not know yet that it was deleted: waits for that.
    ///
    /// Until [`open_restored_stream`](Self::open_restored_stream) it bears a mark by which services take it for not being there yet.
    pub async fn restore_stream(&self, config: &Value, state: &Value, replicas: Option<usize>) -> Result<StreamRestore, CopyError> {
        let stream = config["name"].as_str().unwrap_or_default().to_owned();
        let doing = format!("restore {stream}");
        let mut config = config.clone();
        if let Some(replicas) = replicas {
            config["num_replicas"] = replicas.into();
        }
        match config.get_mut("metadata").and_then(Value::as_object_mut) {
            Some(metadata) => drop(metadata.insert(RESTORING.to_owned(), "true".into())),
            None => config["metadata"] = json!({ RESTORING: "true" }),
        }
        let request = json!({ "config": config, "state": state });
        let deadline = Instant::now() + CHUNK_TIMEOUT;
        let answer = loop {
            match self.try_to_ask(&doing, &format!("STREAM.RESTORE.{stream}"), &request, CHUNK_TIMEOUT).await? {
                Ok(answer) => break answer,
                Err(error) if error.code == STREAM_IS_THERE && Instant::now() < deadline => tokio::time::sleep(LOOK_PAUSE).await,
                Err(error) => return Err(refused(&doing, error)),
            }
        };
        let subject = answer["deliver_subject"].as_str().unwrap_or_default().to_owned();
        if subject.is_empty() {
            return Err(refused(&doing, "it does not say where the chunks go"));
        }
        Ok(StreamRestore { store: self.clone(), stream, subject })
    }

    /// Creates a queue that goes on after what `position` says was acknowledged.
    pub async fn restore_queue(&self, stream: &str, position: &QueuePosition) -> Result<(), CopyError> {
        let QueuePosition { name, acknowledged_to, config } = position;
        let mut config = config.clone();
        let settings = config.as_object_mut().ok_or_else(|| refused("restore a queue", format!("{name} has no settings")))?;
        settings.remove("opt_start_time");
        settings.insert("deliver_policy".to_owned(), "by_start_sequence".into());
        settings.insert("opt_start_seq".to_owned(), (acknowledged_to + 1).into());
        // As many as the stream has.
        settings.insert("num_replicas".to_owned(), 0.into());
        let request = json!({ "stream_name": stream, "config": config, "action": "create" });
        let doing = format!("restore the queue {name} of {stream}");
        self.ask(&doing, &format!("CONSUMER.CREATE.{stream}.{name}"), &request, CHUNK_TIMEOUT).await.map(drop)
    }

    /// Takes the mark off a restored stream: from now on it is what services wait for.
    pub async fn open_restored_stream(&self, stream: &str) -> Result<(), CopyError> {
        let doing = format!("open {stream}");
        let mut info = self.ask(&doing, &format!("STREAM.INFO.{stream}"), &json!({}), ANSWER_TIMEOUT).await?;
        let mut config = info["config"].take();
        if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove(RESTORING);
        }
        self.ask(&doing, &format!("STREAM.UPDATE.{stream}"), &config, CHUNK_TIMEOUT).await.map(drop)
    }

    /// Deletes a stream with all that is in it.
    pub async fn delete_stream(&self, stream: &str) -> Result<(), CopyError> {
        let doing = format!("delete {stream}");
        self.ask(&doing, &format!("STREAM.DELETE.{stream}"), &json!({}), CHUNK_TIMEOUT).await.map(drop)
    }

    async fn ask(&self, doing: &str, what: &str, request: &Value, timeout: Duration) -> Result<Value, CopyError> {
        self.try_to_ask(doing, what, request, timeout).await?.map_err(|error| refused(doing, error))
    }

    async fn try_to_ask(
        &self,
        doing: &str,
        what: &str,
        request: &Value,
        timeout: Duration,
    ) -> Result<Result<Value, ServerError>, CopyError> {
        let payload = Bytes::from(request.to_string());
        let asked = Request::new().payload(payload).timeout(Some(timeout));
        let asked = self.connection.client.send_request(format!("$JS.API.{what}"), asked);
        let message = unless_disconnected(&self.connection.client, asked).await.ok_or_else(|| disconnected(doing))?;
        answer(doing, &message.map_err(|error| unavailable(doing, error))?.payload)
    }
}

impl StreamCopy {
    /// The next chunk; none when the copy is complete. Asking for the next one says that this one is taken care of.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, CopyError> {
        let doing = format!("copy {}", self.stream);
        let client = &self.store.connection.client;
        if let Some(subject) = self.unacknowledged.take() {
            client.publish(subject, Bytes::new()).await.map_err(|error| unavailable(&doing, error))?;
        }
        let next = tokio::time::timeout(CHUNK_TIMEOUT, self.chunks.next());
        let message = match unless_disconnected(client, next).await {
            Some(Ok(Some(message))) => message,
            Some(Ok(None)) | None => return Err(disconnected(&doing)),
            Some(Err(_)) => return Err(unavailable(&doing, "the server has stopped sending")),
        };
        if !message.payload.is_empty() {
            self.unacknowledged = message.reply;
            return Ok(Some(message.payload));
        }
        match message.status {
            None => Ok(None),
            Some(status) if status.is_success() => Ok(None),
            Some(status) => Err(unavailable(&doing, format!("{status} {}", message.description.unwrap_or_default()))),
        }
    }
}

impl StreamRestore {
    /// How many bytes a chunk should have at most.
    pub const CHUNK_BYTES: usize = CHUNK_BYTES;

    /// Sends the next chunk; returns when the server has it.
    pub async fn put(&mut self, chunk: Bytes) -> Result<(), CopyError> {
        let answer = self.send(chunk, CHUNK_TIMEOUT).await?;
        // Nothing is good news.
        if answer.is_empty() {
            return Ok(());
        }
        let doing = self.doing();
        self::answer(&doing, &answer)?.map(drop).map_err(|error| refused(&doing, format!("{error}; {STALLS}")))
    }

    /// Says that there are no more chunks; returns what the stream holds once it is there.
    pub async fn finish(self) -> Result<Extent, CopyError> {
        let doing = self.doing();
        let answer = self.send(Bytes::new(), FINISH_TIMEOUT).await?;
        let info = self::answer(&doing, &answer)?.map_err(|error| refused(&doing, error))?;
        Extent::read(&info["state"]).ok_or_else(|| refused(&doing, "it does not say what the stream holds"))
    }

    async fn send(&self, chunk: Bytes, timeout: Duration) -> Result<Bytes, CopyError> {
        let request = Request::new().payload(chunk).timeout(Some(timeout));
        let client = &self.store.connection.client;
        match unless_disconnected(client, client.send_request(self.subject.clone(), request)).await {
            Some(answer) => answer.map(|message| message.payload).map_err(|error| unavailable(&self.doing(), error)),
            None => Err(disconnected(&self.doing())),
        }
    }

    fn doing(&self) -> String {
        format!("restore {}", self.stream)
    }
}

/// Waits for `answer`, but not beyond the loss of the connection. A new leader of the log, as a restore brings about, does not matter.
async fn unless_disconnected<T>(client: &Client, answer: impl Future<Output = T>) -> Option<T> {
    let connects = || client.statistics().connects.load(Ordering::Relaxed);
    let before = connects();
    let lost = async {
        while client.connection_state() == State::Connected && connects() == before {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = lost => None,
    }
}

fn disconnected(doing: &str) -> CopyError {
    unavailable(doing, "the connection was lost meanwhile")
}

/// The server's own words.
struct ServerError {
    code: u64,
    description: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.code)
    }
}

fn answer(doing: &str, payload: &[u8]) -> Result<Result<Value, ServerError>, CopyError> {
    let answer: Value = serde_json::from_slice(payload).map_err(|error| refused(doing, error))?;
    Ok(match answer.get("error") {
        None => Ok(answer),
        Some(error) => Err(ServerError {
            code: error["err_code"].as_u64().unwrap_or_default(),
            description: error["description"].as_str().unwrap_or("no reason given").to_owned(),
        }),
    })
}

fn unavailable(doing: &str, reason: impl fmt::Display) -> CopyError {
    CopyError::Unavailable { doing: doing.to_owned(), reason: reason.to_string() }
}

fn refused(doing: &str, reason: impl fmt::Display) -> CopyError {
    CopyError::Refused { doing: doing.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_stream_is_the_same_wherever_its_first_message_would_be() {
        let empty = |first_sequence, last_sequence| Extent { messages: 0, first_sequence, last_sequence };
        assert!(empty(1, 0).is_of(&empty(0, 0)));
        assert!(!empty(1, 7).is_of(&empty(1, 0)));
        let full = |first_sequence| Extent { messages: 2, first_sequence, last_sequence: 9 };
        assert!(full(3).is_of(&full(3)));
        assert!(!full(3).is_of(&full(4)));
    }
}
