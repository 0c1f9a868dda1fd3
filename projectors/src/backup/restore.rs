//! `projectors log restore`.

use std::{fmt, io::Read, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use event_store::{Extent, JetStreamEventStore, ReadError, STREAM, StreamRestore};
use serde::Serialize;

use super::{
    connect,
    folder::Folder,
    manifest::{CopiedStream, SignedHead},
};
use crate::{
    audit::{
        checkpoint::Checkpoint,
        key::VerifierKey,
        merkle::{Frontier, leaf_hash},
    },
    failure::Failure,
    progress::Progress,
    settings::NatsAccess,
};

/// Messages that are read at a time.
const READ_MESSAGES_MAX: usize = 1_000;

/// What to restore, and where to.
#[derive(Debug)]
pub struct Restore {
    /// Of a user who may do what `projectors migrate` does.
    pub nats_url: NatsAccess,
    /// The backup's folder.
    pub from: PathBuf,
    /// How many servers hold each stream; as many as held it then, if that is `None`.
    pub replicas: Option<usize>,
    /// Who must have signed the head that goes with the backup.
    pub key: Option<VerifierKey>,
}

/// What was restored.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// The last event of the log.
    position: u64,
    /// The root of the audit tree over all of it, in base64.
    root: String,
    streams: Vec<Summary>,
    /// How many events the signed head is over that the log was held against.
    audit_size: Option<u64>,
    /// Whether the head's signature was verified as well, for which a key has to be given.
    signature_verified: bool,
    /// The commands that come next.
    next: [&'static str; 4],
}

#[derive(Clone, Debug, Serialize)]
struct Summary {
    name: String,
    #[serde(flatten)]
    extent: Extent,
    queues: usize,
}

const NEXT: [&str; 4] =
    ["projectors migrate", "projectors replay all", "projectors replay all --verify", "projectors audit verify --live --key VKEY"];

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Summary { name, extent, queues } in &self.streams {
            writeln!(f, "{name:<18} {extent}, {queues} queues")?;
        }
        writeln!(f, "root         {}", self.root)?;
        match (self.audit_size, self.signature_verified) {
            (Some(size), true) => writeln!(f, "audit        the first {size} events are those that were signed")?,
            (Some(size), false) => {
                writeln!(
                    f,
                    "audit        the first {size} events have the recorded root; without --key its signature was not checked"
                )?;
            }
            (None, _) => writeln!(f, "audit        the backup has no signed head")?,
        }
        write!(f, "next         {}", self.next.join("\n             "))
    }
}

/// Restores the streams of a backup into a server that has none of them, or such as never held a message.
///
/// Whatever is wrong with the folder is found before anything is changed. What is cut short can be repeated: until all of it is there, the
/// streams bear a mark by which services, `projectors migrate` and this command know them.
pub async fn restore(request: &Restore) -> Result<Restored, Failure> {
    let folder = Folder::open(&request.from)?;
    let manifest = &folder.manifest;
    if let Some(key) = &request.key {
        // Whoever alters a backup could take the head out of it as well.
        let Some(head) = &manifest.audit else {
            return Err(Failure::Integrity("the backup has no signed head that the key could vouch for".to_owned()));
        };
        let signed = Checkpoint::open(&head.note, key)
            .map_err(|error| Failure::Integrity(format!("the signed head in the backup: {error}")))?;
        if (signed.size, signed.root_in_base64()) != (head.size, head.root.clone()) {
            return Err(Failure::Integrity(
                "the signed head in the backup is about another tree than the manifest says".to_owned(),
            ));
        }
    }
    let store = connect(&request.nats_url).await?;
    make_room(&store, &manifest.streams).await?;
    let mut streams = Vec::new();
    for stream in &manifest.streams {
        let extent = put_back(&store, &folder, stream, request.replicas).await?;
        for queue in &stream.queues {
            store.restore_queue(&stream.name, queue).await?;
        }
        streams.push(Summary { name: stream.name.clone(), extent, queues: stream.queues.len() });
    }
    let position = streams.iter().find(|stream| stream.name == STREAM).map_or(0, |log| log.extent.last_sequence);
    let root = hold_against(&store, position, manifest.audit.as_ref()).await?;
    // The log last: it is what everybody waits for.
    for stream in &manifest.streams {
        store.open_restored_stream(&stream.name).await?;
    }
    Ok(Restored {
        position,
        root,
        streams,
        audit_size: manifest.audit.as_ref().map(|head| head.size),
        signature_verified: manifest.audit.is_some() && request.key.is_some(),
        next: NEXT,
    })
}

/// Deletes what was never used and what an earlier restore has left; refuses if there is anything else.
async fn make_room(store: &JetStreamEventStore, streams: &[CopiedStream]) -> Result<(), Failure> {
    let mut standing = Vec::new();
    for stream in streams {
        standing.extend(store.standing(&stream.name).await?.map(|found| (stream.name.as_str(), found)));
    }
    // The log is opened last. While it bears the mark, the others are no more than what was restored with it.
    let is_restoring = standing.iter().any(|(name, found)| *name == STREAM && found.is_restoring);
    for (name, found) in &standing {
        let is_free = is_restoring || found.is_restoring || found.extent.last_sequence == 0;
        if !is_free {
            return Err(Failure::Conflict(format!(
                "the stream {name} is there already, with {}: a backup is restored into a server without one, and nothing was changed",
                found.extent
            )));
        }
    }
    // The log last, since its mark is what the others are judged by if this is cut short.
    for (name, _) in standing {
        store.delete_stream(name).await?;
    }
    Ok(())
}

async fn put_back(
    store: &JetStreamEventStore,
    folder: &Folder,
    stream: &CopiedStream,
    replicas: Option<usize>,
) -> Result<Extent, Failure> {
    let mut file = folder.read(&stream.copied)?;
    let mut restore = store.restore_stream(&stream.config, &stream.state, replicas).await?;
    let progress = Progress::in_bytes(format!("restoring {}", stream.name), stream.copied.bytes);
    let mut sent = 0;
    loop {
        let mut chunk = Vec::with_capacity(StreamRestore::CHUNK_BYTES);
        let read = file.by_ref().take(StreamRestore::CHUNK_BYTES as u64).read_to_end(&mut chunk);
        let read = read.map_err(Failure::other(format!("read {}", stream.copied.file)))?;
        if read == 0 {
            break;
        }
        restore.put(Bytes::from(chunk)).await?;
        sent += read as u64;
        progress.at(sent);
    }
    let extent = restore.finish().await?;
    // Servers before 2.15 may put into the file what was appended while they wrote it.
    if !extent.is_of(&stream.extent) && extent.last_sequence <= stream.extent.last_sequence {
        return Err(Failure::Integrity(format!(
            "{} holds {extent} after the restore, and held {} then",
            stream.name, stream.extent
        )));
    }
    Ok(extent)
}

/// Reads the whole log, which must have every position, and holds its root against the signed one. Returns the root over all of it.
async fn hold_against(store: &JetStreamEventStore, end: u64, head: Option<&SignedHead>) -> Result<String, Failure> {
    let signed = head.map_or(0, |head| head.size);
    if signed > end {
        return Err(Failure::Integrity(format!("the log ends at {end}, and the head that was signed is over {signed} events")));
    }
    let differs = || Failure::Integrity(format!("the first {signed} events of the log do not have the root that was signed"));
    let progress = Progress::new("verifying", end);
    let mut tree = Frontier::new();
    let mut reader = store.read_from(1);
    while tree.size() < end {
        let messages = match reader.next_batch(READ_MESSAGES_MAX).await {
            Ok(messages) => messages,
            Err(error @ ReadError::Gap { .. }) => return Err(Failure::Integrity(error.to_string())),
            Err(error) => return Err(Failure::log("read the log")(error)),
        };
        for message in messages.iter().filter(|message| message.position <= end) {
            tree.append(leaf_hash(&message.bytes));
            if tree.size() == signed && head.is_some_and(|head| head.root != BASE64.encode(tree.root())) {
                return Err(differs());
            }
        }
        progress.at(tree.size());
    }
    Ok(BASE64.encode(tree.root()))
}
