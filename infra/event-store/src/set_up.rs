//! The streams, and their settings that matter (DESIGN §3).

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    context::{CreateKeyValueError, CreateStreamError, GetStreamError, GetStreamErrorKind},
    kv,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};

use crate::{
    JetStreamEventStore,
    wire::{
        DEAD_LETTER_STREAM, DEAD_LETTER_SUBJECTS, DISCARDED_LETTER_STREAM, DISCARDED_LETTER_SUBJECTS, EVENT_SUBJECTS, RESTORING,
        SNAPSHOT_BUCKET, STREAM, TIMER_STREAM, TIMER_SUBJECTS,
    },
};

/// For how long the server recognises a message id that it has seen.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// The stream that the server keeps the snapshots' bucket in.
const SNAPSHOT_STREAM: &str = "KV_SNAPSHOTS";

/// Why the streams could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The server did not say what a stream is like now.
    #[error("look at the stream {stream}")]
    Look {
        /// Which stream.
        stream: &'static str,
        /// What the client or server said.
        #[source]
        source: GetStreamError,
    },
    /// The server refused a stream's settings, or did not answer.
    #[error("set up the stream {stream}")]
    Stream {
        /// Which stream.
        stream: &'static str,
        /// What the client or server said.
        #[source]
        source: CreateStreamError,
    },
    /// A stream is only partly there, and must not be taken for a whole one.
    #[error("the stream {0} is being restored; if nobody does so any more, run `projectors log restore` again")]
    Restoring(&'static str),
    /// The server refused the snapshots' bucket, or did not answer.
    #[error("set up the bucket {SNAPSHOT_BUCKET}")]
    Bucket(#[source] CreateKeyValueError),
}

impl JetStreamEventStore {
    /// Creates the streams, or brings their settings up to date, with `replicas` copies (1, 3 or 5). Where that is `None`, each keeps the copies
    /// that it has, and what is new gets as many as the log, or one. Returns how many the log has.
    ///
    /// Safe to repeat. Never removes an event: the log denies deleting and purging, and so does this.
    pub async fn set_up(&self, replicas: Option<usize>) -> Result<usize, SetUpError> {
        let of_log = replicas.or(self.standing_copies(STREAM).await?).unwrap_or(1);
        let streams = [
            (STREAM, log()),
            (TIMER_STREAM, timers()),
            (DEAD_LETTER_STREAM, dead_letters()),
            (DISCARDED_LETTER_STREAM, discarded_letters()),
        ];
        for (stream, config) in streams {
            // An update would take the mark of a restore off, if there is one.
            let standing = self.standing_copies(stream).await?;
            let num_replicas = replicas.or(standing).unwrap_or(of_log);
            self.connection
                .jetstream
                .create_or_update_stream(Config { num_replicas, ..config })
                .await
                .map_err(|source| SetUpError::Stream { stream, source })?;
        }
        let standing = self.standing_copies(SNAPSHOT_STREAM).await?;
        self.connection
            .jetstream
            .create_or_update_key_value(kv::Config {
                bucket: SNAPSHOT_BUCKET.to_owned(),
                history: 1,
                num_replicas: replicas.or(standing).unwrap_or(of_log),
                ..kv::Config::default()
            })
            .await
            .map_err(SetUpError::Bucket)?;
        Ok(of_log)
    }

    /// How many copies of `stream` there are to be by its settings; `None` if there is no such stream.
    async fn standing_copies(&self, stream: &'static str) -> Result<Option<usize>, SetUpError> {
        match self.connection.jetstream.get_stream(stream).await {
            Ok(standing) if standing.cached_info().config.metadata.contains_key(RESTORING) => Err(SetUpError::Restoring(stream)),
            Ok(standing) => Ok(Some(standing.cached_info().config.num_replicas)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(source) => Err(SetUpError::Look { stream, source }),
        }
    }
}

fn is_not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn log() -> Config {
    Config {
        name: STREAM.to_owned(),
        description: Some("every event, in one total order: the source of truth".to_owned()),
        subjects: vec![EVENT_SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        discard: DiscardPolicy::New,
        duplicate_window: DUPLICATE_WINDOW,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        allow_atomic_publish: true,
        ..Config::default()
    }
}

fn timers() -> Config {
    Config {
        name: TIMER_STREAM.to_owned(),
        description: Some("messages that the server delivers at a later time".to_owned()),
        subjects: vec![TIMER_SUBJECTS.to_owned()],
        storage: StorageType::File,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        allow_direct: true,
        allow_message_schedules: true,
        ..Config::default()
    }
}

fn dead_letters() -> Config {
    Config {
        name: DEAD_LETTER_STREAM.to_owned(),
        description: Some("what a reactor gave up on, until somebody redrives or discards it".to_owned()),
        subjects: vec![DEAD_LETTER_SUBJECTS.to_owned()],
        storage: StorageType::File,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Config::default()
    }
}

fn discarded_letters() -> Config {
    Config {
        name: DISCARDED_LETTER_STREAM.to_owned(),
        description: Some("dead letters that somebody has discarded, and why".to_owned()),
        subjects: vec![DISCARDED_LETTER_SUBJECTS.to_owned()],
        ..dead_letters()
    }
}
