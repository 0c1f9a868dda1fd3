//! `projectors log backup`.

use std::{fmt, path::PathBuf};

use event_store::{BACKED_UP_STREAMS, JetStreamEventStore, QueuePosition};
use serde::Serialize;
use sqlx::PgPool;
use time::OffsetDateTime;
use tracing::warn;

use super::{
    folder::NewFolder,
    manifest::{CopiedFile, CopiedStream, FORMAT, Manifest, SignedHead},
};
use crate::{
    audit::{checkpoint::Checkpoint, export},
    failure::Failure,
    log,
    progress::Progress,
    read_models::chain,
    settings::NatsAccess,
};

/// What to back up, and where to.
#[derive(Debug)]
pub struct BackUp {
    /// Of a user who may do what `projectors migrate` does.
    pub nats_url: NatsAccess,
    /// Where the audit trail's signed heads are, if one is to go with the backup.
    pub pool: Option<PgPool>,
    /// The folder: it must not be there, or be empty.
    pub out: PathBuf,
    /// The file with the audit trail's private key, if that is to go with the backup.
    pub key_file: Option<PathBuf>,
}

/// What was backed up.
#[derive(Clone, Debug, Serialize)]
pub struct BackedUp {
    folder: PathBuf,
    /// The last event that it holds.
    position: u64,
    bytes: u64,
    streams: Vec<Summary>,
    /// How many events the signed head is over that goes with it.
    audit_size: Option<u64>,
    has_key: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Summary {
    name: String,
    messages: u64,
    bytes: u64,
    queues: usize,
}

impl fmt::Display for BackedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "folder       {}", self.folder.display())?;
        writeln!(f, "position     {}", self.position)?;
        for Summary { name, messages, bytes, queues } in &self.streams {
            writeln!(f, "{name:<18} {messages} messages, {queues} queues, {bytes} bytes")?;
        }
        match self.audit_size {
            Some(size) => writeln!(f, "audit        the signed head over {size} events")?,
            None => writeln!(f, "audit        no signed head")?,
        }
        write!(f, "key          {}", if self.has_key { "included" } else { "not included" })
    }
}

/// Copies the streams, each as it is when its turn comes, while everything goes on. Takes a bounded amount of memory.
pub async fn back_up(request: &BackUp) -> Result<BackedUp, Failure> {
    let folder = NewFolder::create(&request.out)?;
    let store = log::connect(&request.nats_url).await?;
    let begun_at = now();
    // Before the log, so that it is about events that are in the copy.
    let audit = match &request.pool {
        Some(pool) => signed_head(pool).await?,
        None => None,
    };
    // Before all streams: what was acknowledged by now has its consequences in what is copied from now on.
    let mut queues = Vec::new();
    for stream in BACKED_UP_STREAMS {
        queues.push(store.queue_positions(stream).await?);
    }
    let mut streams = Vec::new();
    for (stream, queues) in BACKED_UP_STREAMS.into_iter().zip(queues) {
        streams.push(copy(&store, stream, queues, &folder).await?);
    }
    let key = request.key_file.as_deref().map(|path| -> Result<CopiedFile, Failure> {
        let key = std::fs::read(path).map_err(Failure::other(format!("read {}", path.display())))?;
        let mut file = folder.file("audit-key.pem")?;
        file.write(&key)?;
        file.finish()
    });
    let manifest = Manifest {
        format: FORMAT,
        begun_at,
        contrail: env!("CARGO_PKG_VERSION").to_owned(),
        nats_server: store.server_version(),
        streams,
        audit,
        key: key.transpose()?,
    };
    folder.complete(&manifest)?;
    Ok(BackedUp {
        folder: request.out.clone(),
        position: manifest.streams.last().map_or(0, |log| log.extent.last_sequence),
        bytes: manifest.streams.iter().map(|stream| stream.copied.bytes).sum(),
        streams: manifest.streams.iter().map(summary).collect(),
        audit_size: manifest.audit.map(|head| head.size),
        has_key: manifest.key.is_some(),
    })
}

fn summary(stream: &CopiedStream) -> Summary {
    Summary { name: stream.name.clone(), messages: stream.extent.messages, bytes: stream.copied.bytes, queues: stream.queues.len() }
}

async fn copy(
    store: &JetStreamEventStore,
    stream: &'static str,
    queues: Vec<QueuePosition>,
    folder: &NewFolder,
) -> Result<CopiedStream, Failure> {
    let mut copy = store.copy_stream(stream).await?;
    let mut file = folder.file(&format!("{stream}.snapshot"))?;
    // What it takes on the wire is compressed, so nobody knows how much it will be.
    let progress = Progress::in_bytes(format!("backing up {stream}"), 0);
    while let Some(chunk) = copy.next_chunk().await? {
        file.write(&chunk)?;
        progress.at(file.bytes());
    }
    let copied = file.finish()?;
    Ok(CopiedStream { name: stream.to_owned(), copied, extent: copy.extent, queues, config: copy.config, state: copy.state })
}

/// None if the database is away: the log is worth having without it, above all then.
async fn signed_head(pool: &PgPool) -> Result<Option<SignedHead>, Failure> {
    let note = match export::last_note(pool).await {
        Ok(note) => note,
        Err(Failure::NotFound(_)) => return Ok(None),
        Err(failure @ Failure::Away(_)) => {
            warn!("no signed head of the audit trail goes with the backup: {}", chain(&failure));
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    let head = Checkpoint::read(&note);
    let head = head.ok_or_else(|| Failure::Integrity("the last signed checkpoint cannot be read".to_owned()))?;
    Ok(Some(SignedHead { size: head.size, root: head.root_in_base64(), note }))
}

#[expect(clippy::disallowed_methods, reason = "when a backup was begun is for people to read, and decides nothing")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
