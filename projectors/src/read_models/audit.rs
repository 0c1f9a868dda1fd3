//! `contrail.audit`: every event as it is stored, and the Merkle tree over all of them.
//!
//! The trail is a witness: it takes every CloudEvents document, also of types that this build does not know.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::envelope::StoredEvent;
use event_store::LogMessage;
use read_store::{projections::ProjectionName, schema::AUDIT_CHECKPOINTS};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ApplyError, Checkpoint, Folded, ReadModel, Tables, Unapplicable, signed};
use crate::audit::{
    checkpoint::Checkpoint as SignedHead,
    key::Signer,
    merkle::{Frontier, Hash, leaf_hash},
};

/// At most one tree head is signed in this time while events keep coming.
const SIGN_INTERVAL_MS: u64 = 1_000;
/// Most rows that one statement writes.
const INSERT_ROWS_MAX: usize = 5_000;

/// The audit trail.
#[derive(Debug)]
pub(crate) struct AuditTrail {
    tree: Frontier,
    unwritten: Vec<AuditRow>,
    /// Signs tree heads of the live trail; a replay signs none.
    signer: Option<Signer>,
    signed_size: u64,
    signed_at: Option<Instant>,
    /// A head that was signed before, and that a rebuilt tree must have, too.
    recorded: Option<(u64, Hash)>,
}

#[derive(Debug)]
struct AuditRow {
    position: u64,
    event: Arc<StoredEvent>,
    version: i64,
    bytes: bytes::Bytes,
    leaf_hash: Hash,
}

impl AuditTrail {
    /// The live trail.
    pub(crate) fn signed_by(signer: Signer) -> Self {
        Self { signer: Some(signer), ..Self::rebuilt(None) }
    }

    /// A trail that is built anew, which signs nothing and must agree with the `recorded` head.
    pub(crate) fn rebuilt(recorded: Option<(u64, Hash)>) -> Self {
        Self { tree: Frontier::new(), unwritten: Vec::new(), signer: None, signed_size: 0, signed_at: None, recorded }
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
                Ok(row) => {
                    self.tree.append(row.leaf_hash);
                    self.check_recorded()?;
                    self.unwritten.push(row);
                }
                Err(halt) => return Ok(Folded { messages: folded, halt: Some(halt) }),
            }
        }
        Ok(Folded { messages: messages.len(), halt: None })
    }

    async fn write(&mut self, connection: &mut PgConnection, tables: &Tables) -> Result<(), ApplyError> {
        let table = tables.of(Self::NAME);
        for rows in self.unwritten.chunks(INSERT_ROWS_MAX) {
            insert(connection, &table, rows).await?;
        }
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
        self.signed_size = head.size;
        self.signed_at = Some(Instant::now());
        Ok(())
    }
}

fn read(message: &LogMessage) -> Result<AuditRow, Unapplicable> {
    let position = message.position;
    let event = message.event().map_err(|error| Unapplicable::undecodable(position, None, &error))?;
    // One event is one line of an export, and whoever verifies it must find the same lines.
    if message.bytes.contains(&b'\n') {
        return Err(Unapplicable::new(position, Some(&event), "the stored bytes hold a line break"));
    }
    let version = i64::try_from(event.metadata.version)
        .map_err(|_| Unapplicable::new(position, Some(&event), "the version does not fit 63 bits"))?;
    Ok(AuditRow { position, version, leaf_hash: leaf_hash(&message.bytes), bytes: message.bytes.clone(), event })
}

async fn insert(connection: &mut PgConnection, table: &str, rows: &[AuditRow]) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO {table} (position, event_id, event_type, aggregate_type, aggregate_id, version, time, actor, correlation_id, \
         causation_id, trace_id, bytes, leaf_hash) \
         SELECT * FROM UNNEST($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[], \
         $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::bytea[])"
    );
    let metadata = || rows.iter().map(|row| &row.event.metadata);
    sqlx::query(&sql)
        .bind(rows.iter().map(|row| signed(row.position)).collect::<Vec<_>>())
        .bind(metadata().map(|metadata| metadata.event_id).collect::<Vec<Uuid>>())
        .bind(metadata().map(|metadata| metadata.event_type.as_str()).collect::<Vec<_>>())
        .bind(metadata().map(|metadata| metadata.aggregate_type.as_str()).collect::<Vec<_>>())
        .bind(metadata().map(|metadata| metadata.aggregate_id.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.version).collect::<Vec<_>>())
        .bind(metadata().map(|metadata| metadata.time).collect::<Vec<OffsetDateTime>>())
        .bind(metadata().map(|metadata| metadata.actor.as_deref()).collect::<Vec<_>>())
        .bind(metadata().map(|metadata| metadata.correlation_id.as_str()).collect::<Vec<_>>())
        .bind(metadata().map(|metadata| metadata.causation_id.as_deref()).collect::<Vec<_>>())
        .bind(metadata().map(|metadata| metadata.trace_id()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.bytes.as_ref()).collect::<Vec<&[u8]>>())
        .bind(rows.iter().map(|row| row.leaf_hash.as_slice()).collect::<Vec<&[u8]>>())
        .execute(connection)
        .await?;
    Ok(())
}
