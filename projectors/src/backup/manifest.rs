//! `manifest.json`: what a backup holds, and what it was taken of.

use event_store::{Extent, QueuePosition};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

/// The shape of the folder that this build writes and reads.
pub(super) const FORMAT: u32 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// When it was begun.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) begun_at: OffsetDateTime,
    /// The version of the program that took it.
    pub(super) contrail: String,
    /// The version of the server that made the files: an older one may not be able to read them.
    pub(super) nats_server: String,
    /// In the order in which they were copied.
    pub(super) streams: Vec<CopiedStream>,
    /// The last head of the audit trail that was signed before, if the database was given and there was one.
    pub(super) audit: Option<SignedHead>,
    /// The audit trail's private key, if it was asked for.
    pub(super) key: Option<CopiedFile>,
}

/// A file, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CopiedFile {
    /// Its name in the folder.
    pub(super) file: String,
    pub(super) bytes: u64,
    /// In hex.
    pub(super) sha256: String,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CopiedStream {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) copied: CopiedFile,
    #[serde(flatten)]
    pub(super) extent: Extent,
    /// Where its queues were before the first stream was copied.
    pub(super) queues: Vec<QueuePosition>,
    /// As the server told them; it wants them back.
    pub(super) config: Value,
    pub(super) state: Value,
}

/// A signed head of the audit tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SignedHead {
    pub(super) size: u64,
    /// In base64.
    pub(super) root: String,
    /// The signed note.
    pub(super) note: String,
}
