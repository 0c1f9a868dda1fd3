//! Snapshots as they lie in the KV bucket: a manifest under the aggregate's key, with the state behind it, or with the state in
//! parts under keys of their own where it is too large for one message.
//!
//! Nothing here is trusted. Whatever is missing, half written, altered or not ours reads as no snapshot.

use std::fmt::Write as _;

use async_nats::{HeaderMap, RequestErrorKind, header};
use bytes::Bytes;
use domain::SnapshotState;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{Loaded, connection::Connection, page::number, wire::SNAPSHOT_BUCKET};

/// Largest message, in bytes; less where the server takes less.
const PART_BYTES_MAX: usize = 512 * 1024;
/// Largest state of which a snapshot is made, in bytes.
pub(crate) const STATE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Parts on their way at the same time.
const PARTS_IN_FLIGHT_MAX: usize = 8;

/// What a snapshot is of, and how to tell that it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: String,
    /// [`SnapshotState::SNAPSHOT_VERSION`] of the build that wrote it.
    pub(crate) snapshot_version: u32,
    /// The aggregate's version.
    pub(crate) version: u64,
    /// Where its last event is.
    pub(crate) position: u64,
    /// The id of that event: a log that was restored and went on differently has another one there.
    pub(crate) event_id: Uuid,
    /// The length of the state as JSON.
    pub(crate) state_bytes: usize,
    /// How many parts the state is in; 0 if it follows the manifest.
    pub(crate) parts: usize,
    /// SHA-256, in hex, over the manifest without it and the state.
    pub(crate) sha256: String,
}

/// A manifest as it was read, with what follows it.
pub(crate) struct Stored {
    pub(crate) manifest: Manifest,
    state: Bytes,
}

/// Why the bucket could not be used: for people.
pub(crate) type BucketError = String;

impl Manifest {
    /// The checksum that the manifest of `state` must have.
    fn checksum(&self, state: &[u8]) -> String {
        let unsigned = Self { sha256: String::new(), ..self.clone() };
        let mut hasher = Sha256::new();
        hasher.update(to_json(&unsigned));
        hasher.update(state);
        hasher.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string never fails");
            hex
        })
    }

    /// Whether this is a snapshot of aggregate `id`, by a build whose states are like ours.
    pub(crate) fn is_of<A: SnapshotState>(&self, id: &str) -> bool {
        self.aggregate_type == A::TYPE && self.aggregate_id == id && self.snapshot_version == A::SNAPSHOT_VERSION
    }

    fn part_key(&self, part: usize) -> String {
        format!("{}.{}.{part}", key(&self.aggregate_type, &self.aggregate_id), self.version)
    }
}

/// A snapshot ready to be written.
pub(crate) struct Prepared {
    manifest: Manifest,
    state: Bytes,
    part_bytes: usize,
}

impl Prepared {
    /// `None` if the state is too large.
    pub(crate) fn new<A: SnapshotState>(id: &str, loaded: &Loaded<A>, event_id: Uuid, message_bytes_max: usize) -> Option<Self> {
        let state = Bytes::from(to_json(&loaded.aggregate));
        if state.len() > STATE_BYTES_MAX {
            return None;
        }
        let part_bytes = PART_BYTES_MAX.min(message_bytes_max / 2).max(1);
        let mut manifest = Manifest {
            aggregate_type: A::TYPE.to_owned(),
            aggregate_id: id.to_owned(),
            snapshot_version: A::SNAPSHOT_VERSION,
            version: loaded.version,
            position: loaded.position,
            event_id,
            state_bytes: state.len(),
            parts: if state.len() <= part_bytes { 0 } else { state.len().div_ceil(part_bytes) },
            sha256: String::new(),
        };
        manifest.sha256 = manifest.checksum(&state);
        Some(Self { manifest, state, part_bytes })
    }
}

impl Stored {
    fn read(message: &Bytes) -> Option<Self> {
        let end = message.iter().position(|byte| *byte == b'\n')?;
        let manifest = serde_json::from_slice(&message[..end]).ok()?;
        Some(Self { manifest, state: message.slice(end + 1..) })
    }
}

impl Connection {
    /// The manifest of an aggregate's snapshot, and its revision, 0 if there is none: of something unreadable, the revision alone.
    pub(crate) async fn stored_snapshot(&self, aggregate_type: &str, id: &str) -> Result<(u64, Option<Stored>), BucketError> {
        let found = self.bucket_get(&key(aggregate_type, id)).await?;
        Ok(found.map_or((0, None), |(revision, message)| (revision, Stored::read(&message))))
    }

    /// The state of a snapshot, if it is whole.
    pub(crate) async fn snapshot_state<A: SnapshotState>(&self, stored: Stored) -> Result<Option<A>, BucketError> {
        let Stored { manifest, state } = stored;
        let state = if manifest.parts == 0 { Some(state) } else { self.parts(&manifest).await? };
        let Some(state) = state else { return Ok(None) };
        if state.len() < PART_BYTES_MAX {
            return Ok(decode(&manifest, &state));
        }
        // Reading megabytes of JSON takes too long for a thread that others wait for.
        let decoded = tokio::task::spawn_blocking(move || decode(&manifest, &state));
        decoded.await.map_err(|error| error.to_string())
    }

    /// The parts of a state next to one another; `None` if one is missing.
    async fn parts(&self, manifest: &Manifest) -> Result<Option<Bytes>, BucketError> {
        if manifest.state_bytes > STATE_BYTES_MAX || manifest.parts > manifest.state_bytes {
            return Ok(None);
        }
        let keys = (1..=manifest.parts).map(|part| manifest.part_key(part));
        let mut parts = stream::iter(keys).map(|key| async move { self.bucket_get(&key).await }).buffered(PARTS_IN_FLIGHT_MAX);
        let mut state = Vec::with_capacity(manifest.state_bytes);
        while let Some(part) = parts.try_next().await? {
            match part {
                Some((_, part)) if state.len() + part.len() <= manifest.state_bytes => state.extend_from_slice(&part),
                _ => return Ok(None),
            }
        }
        Ok(Some(state.into()))
    }

    /// Writes a snapshot in the place of the one whose manifest has this revision. Parts come first and the manifest last, so
    /// that no reader finds it without them; fails if somebody else has written one meanwhile.
    pub(crate) async fn write_snapshot(&self, prepared: Prepared, replaced: u64, had_parts: bool) -> Result<(), BucketError> {
        let Prepared { manifest, state, part_bytes } = prepared;
        let key = key(&manifest.aggregate_type, &manifest.aggregate_id);
        let mut message = to_json(&manifest);
        message.push(b'\n');
        let mut oldest_part = None;
        if manifest.parts == 0 {
            message.extend_from_slice(&state);
        } else {
            let parts = (0..manifest.parts).map(|part| {
                let bytes = state.slice(part * part_bytes..state.len().min((part + 1) * part_bytes));
                (manifest.part_key(part + 1), bytes)
            });
            let writes = stream::iter(parts).map(|(key, bytes)| async move { self.bucket_put(&key, bytes, None).await });
            let mut written = writes.buffered(PARTS_IN_FLIGHT_MAX);
            while let Some(revision) = written.try_next().await? {
                oldest_part = Some(oldest_part.map_or(revision, |oldest: u64| oldest.min(revision)));
            }
        }
        let revision = self.bucket_put(&key, message.into(), Some(replaced)).await?;
        if !had_parts && oldest_part.is_none() {
            return Ok(());
        }
        // Whoever is writing another snapshot of the same aggregate will find that the manifest has moved, and give up; so every
        // part that is older than ours is nobody's.
        if let Err(error) = self.bucket_purge(&format!("{key}.>"), oldest_part.unwrap_or(revision)).await {
            tracing::debug!("the parts of an older snapshot of {key} are still there: {error}");
        }
        Ok(())
    }

    async fn bucket_get(&self, key: &str) -> Result<Option<(u64, Bytes)>, BucketError> {
        let subject = format!("$JS.API.DIRECT.GET.KV_{SNAPSHOT_BUCKET}.$KV.{SNAPSHOT_BUCKET}.{key}");
        let answer = self.client.request(subject, Bytes::new()).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => format!("the bucket {SNAPSHOT_BUCKET} is not there"),
            _ => error.to_string(),
        })?;
        match answer.status.map(|status| status.as_u16()) {
            None => {
                let revision = number(answer.headers.as_ref(), "Nats-Sequence").ok_or("an answer without a sequence")?;
                Ok(Some((revision, answer.payload)))
            }
            Some(404) => Ok(None),
            Some(status) => Err(format!("status {status}")),
        }
    }

    async fn bucket_put(&self, key: &str, value: Bytes, replaced: Option<u64>) -> Result<u64, BucketError> {
        let mut headers = HeaderMap::new();
        if let Some(revision) = replaced {
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
        }
        let subject = format!("$KV.{SNAPSHOT_BUCKET}.{key}");
        let sent = self.jetstream.publish_with_headers(subject, headers, value).await.map_err(|error| error.to_string())?;
        Ok(sent.await.map_err(|error| error.to_string())?.sequence)
    }

    /// Removes what is under keys that match `filter` and older than `revision`.
    async fn bucket_purge(&self, filter: &str, revision: u64) -> Result<(), BucketError> {
        let stream = self.jetstream.get_stream_no_info(format!("KV_{SNAPSHOT_BUCKET}")).await.map_err(|error| error.to_string())?;
        let purge = stream.purge().filter(format!("$KV.{SNAPSHOT_BUCKET}.{filter}")).sequence(revision);
        purge.await.map(|_| ()).map_err(|error| error.to_string())
    }
}

fn decode<A: SnapshotState>(manifest: &Manifest, state: &[u8]) -> Option<A> {
    let is_whole = state.len() == manifest.state_bytes && manifest.checksum(state) == manifest.sha256;
    is_whole.then(|| serde_json::from_slice(state).ok()).flatten()
}

fn key(aggregate_type: &str, id: &str) -> String {
    format!("{aggregate_type}.{id}")
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a state has no map whose keys are not texts, so it always serializes")
}
