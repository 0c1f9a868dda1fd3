//! `contrail.audit`: every event as it is stored, and the Merkle tree over all of them.
//!
//! The trail is a witness: it takes whatever is in the log, also events of types that this build does not know, and bytes that are no
//! event. Only what cannot be one line of an export, and what Postgres does not take, halts it.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use domain::envelope::{Metadata, StoredEventRef};
use event_store::LogMessage;
use read_store::{projections::ProjectionName, schema::AUDIT_CHECKPOINTS};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ApplyError, Checkpoint, Folded, ReadModel, Tables, Unapplicable, signed, unapplicable::writable};
use crate::{
    audit::{
        checkpoint::Checkpoint as SignedHead,
        key::Signer,
        merkle::{Frontier, Hash, leaf_hash},
    },
    copy::EncodedRows,
};

/// At most one tree head is signed in this time while events keep coming.
const SIGN_INTERVAL_MS: u64 = 1_000;
/// The table's columns, as they are written.
const COLUMNS: [&str; 13] = [
    "position",
    "event_id",
    "event_type",
    "aggregate_type",
    "aggregate_id",
    "version",
    "time",
    "actor",
    "correlation_id",
    "causation_id",
    "trace_id",
    "bytes",
    "leaf_hash",
];

/// The longest text that the table's indexes take: a third of a page for an entry, less what else is in it.
const INDEXED_BYTES_MAX: usize = 2_048;

/// The audit trail.
#[derive(Debug)]
pub(crate) struct AuditTrail {
    tree: Frontier,
    /// Rows that are not written yet, ready to be.
    unwritten: EncodedRows,
    /// Signs tree heads of the live trail; a replay signs none.
    signer: Option<Signer>,
    /// The last head that is known to be signed.
    signed_size: u64,
    signed_at: Option<Instant>,
    /// A head that was signed before, and that a rebuilt tree must have, too.
    recorded: Option<(u64, Hash)>,
}

impl AuditTrail {
    /// The live trail.
    pub(crate) fn signed_by(signer: Signer) -> Self {
        Self { signer: Some(signer), ..Self::rebuilt(None) }
    }

    /// A trail that is built anew, which signs nothing and must agree with the `recorded` head.
    pub(crate) fn rebuilt(recorded: Option<(u64, Hash)>) -> Self {
        Self {
            tree: Frontier::new(),
            unwritten: EncodedRows::of(&COLUMNS),
            signer: None,
            signed_size: 0,
            signed_at: None,
            recorded,
        }
    }

    fn append(&mut self, message: &LogMessage, metadata: &Metadata<Cow<'_, str>>, version: i64) -> Result<(), ApplyError> {
        let leaf_hash = leaf_hash(&message.bytes);
        self.tree.append(leaf_hash);
        self.check_recorded()?;
        self.unwritten
            .row()
            .bigint(signed(message.position))
            .uuid(metadata.event_id)
            .text(&metadata.event_type)
            .text(&metadata.aggregate_type)
            .text(&metadata.aggregate_id)
            .bigint(version)
            .time(metadata.time)
            .optional_text(metadata.actor.as_deref())
            .text(&metadata.correlation_id)
            .optional_text(metadata.causation_id.as_deref())
            .optional_text(metadata.trace_id())
            .bytes(&message.bytes)
            .bytes(&leaf_hash);
        Ok(())
    }

    fn check_recorded(&self) -> Result<(), ApplyError> {
        match self.recorded {
            Some((size, root)) if size == self.tree.size() && root != self.tree.root() => Err(ApplyError::Contradiction(format!(
                "the log's first {size} events are not those whose root was signed: the log was altered, or is another one"
            ))),
            _ => Ok(()),
        }
    }
}

impl ReadModel for AuditTrail {
    const NAME: ProjectionName = ProjectionName::Audit;

    fn resume(&mut self, checkpoint: &Checkpoint) -> Result<(), ApplyError> {
        self.unwritten.clear();
        let frontier = checkpoint.frontier.as_deref().unwrap_or_default();
        self.tree = Frontier::from_bytes(checkpoint.position, frontier)
            .map_err(|error| ApplyError::Unusable(format!("the stored audit tree is broken ({error}): replay audit")))?;
        Ok(())
    }

    async fn fold(&mut self, _: &mut PgConnection, _: &Tables, messages: &[LogMessage]) -> Result<Folded, ApplyError> {
        for (folded, message) in messages.iter().enumerate() {
            match read(message) {
                Ok((metadata, version)) => self.append(message, &metadata, version)?,
                Err(halt) => return Ok(Folded { messages: folded, halt: Some(halt) }),
            }
        }
        Ok(Folded { messages: messages.len(), halt: None })
    }

    /// The trail lacks no event. One that is skipped is in it with what could be read of it.
    async fn skip(&mut self, _: &mut PgConnection, _: &Tables, message: &LogMessage) -> Result<(), ApplyError> {
        let (metadata, version) = attributes(&message.bytes);
        self.append(message, &metadata, version)
    }

    async fn write(&mut self, connection: &mut PgConnection, tables: &Tables) -> Result<(), ApplyError> {
        self.unwritten.copy_into(connection, &tables.of(Self::NAME)).await?;
        self.unwritten.clear();
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { position: self.tree.size(), frontier: Some(self.tree.to_bytes()), table: 0 }
    }

    fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    async fn seal(&mut self, connection: &mut PgConnection, is_idle: bool) -> Result<(), sqlx::Error> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let interval = Duration::from_millis(SIGN_INTERVAL_MS);
        let is_due = is_idle || self.signed_at.is_none_or(|signed_at| signed_at.elapsed() >= interval);
        if !is_due || self.tree.size() == self.signed_size || self.tree.size() == 0 {
            return Ok(());
        }
        let head = SignedHead::of(&self.tree);
        sqlx::query(&format!(
            "INSERT INTO {AUDIT_CHECKPOINTS} (size, root, note) VALUES ($1, $2, $3) ON CONFLICT (size) DO NOTHING"
        ))
        .bind(signed(head.size))
        .bind(head.root.as_slice())
        .bind(head.sign(signer))
        .execute(connection)
        .await?;
        self.signed_at = Some(Instant::now());
        if is_idle {
            // What is signed in a batch's transaction may be rolled back with it.
            self.signed_size = head.size;
        }
        Ok(())
    }
}

/// The attributes, as far as they can be read, and the version as Postgres takes it.
fn read(message: &LogMessage) -> Result<(Metadata<Cow<'_, str>>, i64), Unapplicable> {
    let position = message.position;
    let event = StoredEventRef::from_json(&message.bytes).ok();
    // One event is one line of an export, and whoever verifies it must find the same lines.
    if message.bytes.contains(&b'\n') {
        return Err(Unapplicable::new(position, event.as_ref(), "the stored bytes hold a line break"));
    }
    let Some(event) = event else { return Ok((unreadable(), 0)) };
    if let Some(attribute) = too_long_to_index(&event.metadata) {
        let reason = format!("the attribute {attribute} is longer than {INDEXED_BYTES_MAX} bytes");
        return Err(Unapplicable::new(position, Some(&event), reason));
    }
    match i64::try_from(event.metadata.version) {
        Ok(version) => Ok((event.metadata, version)),
        Err(_) => Err(Unapplicable::new(position, Some(&event), "the version does not fit 63 bits")),
    }
}

/// What the trail says of a message of these bytes, whatever they are: what can be read of it, as Postgres takes it.
pub(crate) fn attributes(bytes: &[u8]) -> (Metadata<Cow<'_, str>>, i64) {
    let metadata = StoredEventRef::from_json(bytes).map_or_else(|_| unreadable(), |event| all_writable(event.metadata));
    let version = i64::try_from(metadata.version).unwrap_or(i64::MAX);
    (metadata, version)
}

/// The first attribute that an index of the table would not take.
fn too_long_to_index(metadata: &Metadata<Cow<'_, str>>) -> Option<&'static str> {
    let indexed =
        [("type", &metadata.event_type), ("subject", &metadata.aggregate_id), ("correlationid", &metadata.correlation_id)];
    indexed.into_iter().find(|(_, text)| text.len() > INDEXED_BYTES_MAX).map(|(name, _)| name)
}

/// The text as far as an index of the table takes it.
fn indexable(text: Cow<'_, str>) -> Cow<'_, str> {
    match writable(text) {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..text.floor_char_boundary(INDEXED_BYTES_MAX)]),
        Cow::Owned(mut text) => {
            text.truncate(text.floor_char_boundary(INDEXED_BYTES_MAX));
            Cow::Owned(text)
        }
    }
}

/// The attributes without the one character that Postgres' texts cannot hold, and no longer than its indexes take.
fn all_writable(metadata: Metadata<Cow<'_, str>>) -> Metadata<Cow<'_, str>> {
    Metadata {
        event_type: indexable(metadata.event_type),
        source: writable(metadata.source),
        aggregate_id: indexable(metadata.aggregate_id),
        aggregate_type: writable(metadata.aggregate_type),
        correlation_id: indexable(metadata.correlation_id),
        causation_id: metadata.causation_id.map(writable),
        actor: metadata.actor.map(writable),
        traceparent: metadata.traceparent.map(writable),
        ..metadata
    }
}

/// What the trail says of a message that is no event.
fn unreadable() -> Metadata<Cow<'static, str>> {
    const UNREADABLE: Cow<'static, str> = Cow::Borrowed("unreadable");
    Metadata {
        event_id: Uuid::nil(),
        event_type: UNREADABLE,
        source: Cow::Borrowed(""),
        aggregate_id: Cow::Borrowed(""),
        time: OffsetDateTime::UNIX_EPOCH,
        aggregate_type: UNREADABLE,
        version: 0,
        correlation_id: Cow::Borrowed(""),
        causation_id: None,
        actor: None,
        traceparent: None,
    }
}
