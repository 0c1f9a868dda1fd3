//! The streams, and their settings that matter (DESIGN §3).

use std::time::Duration;

use async_nats::jetstream::{
    context::{CreateKeyValueError, CreateStreamError},
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

/// Why the streams could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
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
    /// Creates the streams, or brings their settings up to date, with `replicas` copies (1 or 3).
    ///
    /// Safe to repeat. Never removes an event: the log denies deleting and purging, and so does this.
    pub async fn set_up(&self, replicas: usize) -> Result<(), SetUpError> {
        let streams = [
            (STREAM, log(replicas)),
            (TIMER_STREAM, timers(replicas)),
            (DEAD_LETTER_STREAM, dead_letters(replicas)),
            (DISCARDED_LETTER_STREAM, discarded_letters(replicas)),
        ];
        for (stream, config) in streams {
            // An update would take the mark off. Whatever else is wrong with the stream, the update says as well.
            if let Ok(standing) = self.connection.jetstream.get_stream(stream).await
                && standing.cached_info().config.metadata.contains_key(RESTORING)
            {
                return Err(SetUpError::Restoring(stream));
            }
            self.connection
                .jetstream
                .create_or_update_stream(config)
                .await
                .map_err(|source| SetUpError::Stream { stream, source })?;
        }
        self.connection
            .jetstream
            .create_or_update_key_value(kv::Config {
                bucket: SNAPSHOT_BUCKET.to_owned(),
                history: 1,
                num_replicas: replicas,
                ..kv::Config::default()
            })
            .await
            .map_err(SetUpError::Bucket)?;
        Ok(())
    }
}

fn log(replicas: usize) -> Config {
    Config {
        name: STREAM.to_owned(),
        description: Some("every event, in one total order: the source of truth".to_owned()),
        subjects: vec![EVENT_SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: replicas,
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

fn timers(replicas: usize) -> Config {
    Config {
        name: TIMER_STREAM.to_owned(),
        description: Some("messages that the server delivers at a later time".to_owned()),
        subjects: vec![TIMER_SUBJECTS.to_owned()],
        storage: StorageType::File,
        num_replicas: replicas,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        allow_direct: true,
        allow_message_schedules: true,
        ..Config::default()
    }
}

fn dead_letters(replicas: usize) -> Config {
    Config {
        name: DEAD_LETTER_STREAM.to_owned(),
        description: Some("what a reactor gave up on, until somebody redrives or discards it".to_owned()),
        subjects: vec![DEAD_LETTER_SUBJECTS.to_owned()],
        storage: StorageType::File,
        num_replicas: replicas,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Config::default()
    }
}

fn discarded_letters(replicas: usize) -> Config {
    Config {
        name: DISCARDED_LETTER_STREAM.to_owned(),
        description: Some("dead letters that somebody has discarded, and why".to_owned()),
        subjects: vec![DISCARDED_LETTER_SUBJECTS.to_owned()],
        ..dead_letters(replicas)
    }
}
