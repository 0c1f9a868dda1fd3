//! `projectors audit verify --live`: whether the trail's table is what is in the log, and the log what was signed.
//!
//! Both are read side by side, from their beginning to where the trail is. Of each event the table has to have the stored bytes, their
//! leaf, and in its columns what the bytes say, and it may have no others. The tree over the log has to have the root of each checkpoint that
//! was signed, also of those that the trail does not reach: it has lost events then, or is being rebuilt.

use std::{collections::VecDeque, fmt};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use event_store::{JetStreamEventStore, LogMessage, ReadError};
use read_store::projections::ProjectionName;
use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool, Row, postgres::PgRow};

use super::{
    checkpoint::Checkpoint,
    export::trail,
    key::VerifierKey,
    merkle::{Frontier, leaf_hash},
    recorded,
    row::TrailRow,
    verify::Fault,
};
use crate::{
    checkpoints,
    failure::Failure,
    progress::Progress,
    read_models::{self, signed},
};

/// Findings that are told one by one; the rest is counted.
pub const FINDINGS_MAX: usize = 1_000;

/// Messages that are held against the table at a time.
const PAGE_MESSAGES: usize = 5_000;
/// Messages that are read at a time.
const READ_MESSAGES_MAX: usize = 1_000;

const DOING: &str = "read the audit trail";

/// What is wrong at a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LiveFinding {
    /// Where.
    pub position: u64,
    /// What kind.
    pub fault: Fault,
    /// In words.
    pub detail: String,
}

/// What verifying found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LiveVerdict {
    /// Whether nothing is wrong.
    pub verified: bool,
    /// How many events the trail has.
    pub size: u64,
    /// The root over the log's events up to there, in base64; none if the log lacks one.
    pub root: Option<String>,
    /// How many signed checkpoints were held against the log.
    pub checkpoints: u64,
    /// Whether their signatures were verified, too, for which a key has to be given.
    pub signatures_verified: bool,
    /// What is wrong, at most [`FINDINGS_MAX`].
    pub findings: Vec<LiveFinding>,
    /// How much more is wrong.
    pub more: u64,
}

impl fmt::Display for LiveVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "size         {}", self.size)?;
        if let Some(root) = &self.root {
            writeln!(f, "root         {root}")?;
        }
        let signatures = if self.signatures_verified { "" } else { ", without their signatures: no --key was given" };
        writeln!(f, "checkpoints  {}{signatures}", self.checkpoints)?;
        for finding in &self.findings {
            writeln!(f, "{} at position {}: {}", finding.fault.as_str(), finding.position, finding.detail)?;
        }
        if self.more > 0 {
            writeln!(f, "and {} more", self.more)?;
        }
        write!(f, "verified     {}", if self.verified { "yes" } else { "no" })
    }
}

/// Holds the table against the log, and with a key the signatures as well. Takes a bounded amount of memory.
///
/// What is wrong is a [`LiveVerdict`], not an error. Goes on with what a replay swaps in meanwhile.
pub async fn verify(store: &JetStreamEventStore, pool: &PgPool, key: Option<&VerifierKey>) -> Result<LiveVerdict, Failure> {
    let extent = Extent::of(pool).await.map_err(Failure::postgres("read the audit trail's position"))?;
    // Asked after the table, which may be moving on.
    let last = store.last_readable().await.map_err(Failure::log("ask the log how far it is"))?;
    // A connection of its own, since one on which a COPY was given up is of no use any more.
    let connection = pool.acquire().await.map_err(Failure::postgres(DOING))?.detach();
    let mut comparison = Comparison {
        connection,
        key,
        size: extent.trail.position,
        at: 0,
        tree: Some(Frontier::new()),
        tree_of_trail: (extent.trail.position == 0).then(Frontier::new),
        signed: VecDeque::new(),
        checkpoints: 0,
        findings: Vec::new(),
        more: 0,
    };
    let end = extent.trail.position.max(extent.signed.min(last));
    let progress = Progress::new("verifying", end);
    let mut reader = store.read_from(1);
    let mut messages = Vec::new();
    while comparison.at < end {
        // What the log does not have by now, it will not have later.
        let gap_end = if comparison.at + messages.len() as u64 >= last.min(end) {
            Some(end)
        } else {
            match reader.next_batch(READ_MESSAGES_MAX).await {
                Ok(read) => {
                    messages.extend(read);
                    None
                }
                Err(ReadError::Gap { found, .. }) => {
                    reader = store.read_from(found);
                    Some(end.min(found - 1))
                }
                Err(error) => return Err(Failure::log("read the log")(error)),
            }
        };
        if messages.len() >= PAGE_MESSAGES || gap_end.is_some() {
            messages.retain(|message: &LogMessage| message.position <= end);
            comparison.go_on(&messages).await?;
            messages.clear();
        }
        if let Some(gap_end) = gap_end {
            comparison.pass_gap(gap_end);
        }
        progress.at(comparison.at);
    }
    comparison.find_rows_before_the_first().await?;
    comparison.judge(&extent, last);
    Ok(comparison.verdict().await)
}

/// What the tables say of themselves, all at one moment.
struct Extent {
    /// Where the trail is.
    trail: read_models::Checkpoint,
    /// Rows beyond that, and the position of the first.
    beyond: (u64, u64),
    /// Events under the largest checkpoint that is recorded.
    signed: u64,
}

impl Extent {
    async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let mut moment = recorded::moment(pool).await?;
        let trail = checkpoints::peek(&mut *moment, ProjectionName::Audit).await?;
        let (rows, first): (i64, i64) =
            sqlx::query_as("SELECT count(*), coalesce(min(position), 0) FROM contrail.audit WHERE position > $1")
                .bind(signed(trail.position))
                .fetch_one(&mut *moment)
                .await?;
        let signed = recorded::largest_signed(&mut moment).await?;
        Ok(Self { trail, beyond: (rows.unsigned_abs(), first.unsigned_abs()), signed })
    }
}

struct Comparison<'a> {
    connection: PgConnection,
    key: Option<&'a VerifierKey>,
    /// How many events the trail has.
    size: u64,
    /// Up to here all is compared.
    at: u64,
    /// Over the log's events; none once the log lacks one.
    tree: Option<Frontier>,
    /// Over as many as the trail has.
    tree_of_trail: Option<Frontier>,
    /// Checkpoints that come next.
    signed: VecDeque<PgRow>,
    checkpoints: u64,
    findings: Vec<LiveFinding>,
    more: u64,
}

impl Comparison<'_> {
    fn found(&mut self, position: u64, fault: Fault, detail: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(LiveFinding { position, fault, detail });
        } else {
            self.more += 1;
        }
    }

    /// Compares what comes next in the log.
    async fn go_on(&mut self, messages: &[LogMessage]) -> Result<(), Failure> {
        let to = self.at + messages.len() as u64;
        let rows = trail::page(&mut self.connection, self.at, to.min(self.size)).await?;
        self.load_signed(to).await.map_err(Failure::postgres("read the signed checkpoints"))?;
        let mut rows = rows.into_iter().peekable();
        for message in messages {
            let position = message.position;
            match rows.next_if(|row| row.position == position) {
                Some(row) => {
                    if let Some(detail) = difference(message, &row) {
                        self.found(position, Fault::Altered, detail);
                    }
                }
                None if position > self.size => {}
                None => self.found(position, Fault::Missing, "the table does not have this event of the log".to_owned()),
            }
            if let Some(tree) = &mut self.tree {
                tree.append(leaf_hash(&message.bytes));
                if position == self.size {
                    self.tree_of_trail = Some(tree.clone());
                }
            }
            self.at = position;
            self.check_signed()?;
        }
        Ok(())
    }

    /// Rows at positions that no log has.
    async fn find_rows_before_the_first(&mut self) -> Result<(), Failure> {
        let count =
            sqlx::query_scalar("SELECT count(*) FROM contrail.audit WHERE position < 1").fetch_one(&mut self.connection).await;
        let rows: i64 = count.map_err(Failure::postgres(DOING))?;
        if rows > 0 {
            self.found(0, Fault::Extra, format!("the table has {rows} rows at positions before the first"));
        }
        Ok(())
    }

    /// Holds what the tables say of themselves against the log, which ends at `last`.
    fn judge(&mut self, extent: &Extent, last: u64) {
        let recorded = Frontier::from_bytes(self.size, extent.trail.frontier.as_deref().unwrap_or_default());
        // One that cannot be read is as wrong as one of other events.
        if let Some(tree) = &self.tree_of_trail
            && !recorded.is_ok_and(|recorded| recorded.root() == tree.root())
        {
            self.found(self.size, Fault::Altered, "the tree that the trail goes on with is not that of the log".to_owned());
        }
        let (rows, first) = extent.beyond;
        if rows > 0 {
            self.found(first, Fault::Extra, format!("the table has {rows} rows beyond position {}, where the trail is", self.size));
        }
        // What the log lacks of the trail's events is told already.
        if extent.signed > last.max(self.size) {
            let detail = format!("the log ends at position {last}, before the {} events of a recorded checkpoint", extent.signed);
            self.found(last.max(self.size) + 1, Fault::Missing, detail);
        } else if extent.signed > self.size {
            let detail =
                format!("the trail ends before this event, and {} were signed: it lost them, or is being rebuilt", extent.signed);
            self.found(self.size + 1, Fault::Missing, detail);
        }
    }

    /// The log has nothing up to `to`.
    fn pass_gap(&mut self, to: u64) {
        if self.at >= to {
            return;
        }
        self.tree = None;
        let detail = match to - self.at {
            1 => "the log does not have this event".to_owned(),
            events => format!("the log does not have this event, nor the next {}", events - 1),
        };
        self.found(self.at + 1, Fault::Missing, detail);
        self.at = to;
    }

    async fn load_signed(&mut self, to: u64) -> Result<(), sqlx::Error> {
        let query = "SELECT size, root, note FROM contrail.audit_checkpoints WHERE size > $1 AND size <= $2 ORDER BY size";
        let query = sqlx::query(query).bind(signed(self.at)).bind(signed(to));
        self.signed = query.fetch_all(&mut self.connection).await?.into();
        Ok(())
    }

    /// Holds the checkpoint of this very size, if there is one, against the log.
    fn check_signed(&mut self) -> Result<(), Failure> {
        let doing = "read the signed checkpoints";
        let size: i64 = match self.signed.front() {
            Some(row) => row.try_get("size").map_err(Failure::postgres(doing))?,
            None => return Ok(()),
        };
        if size.unsigned_abs() != self.at {
            return Ok(());
        }
        let row = self.signed.pop_front().expect("it was looked at right above");
        let root: Vec<u8> = row.try_get("root").map_err(Failure::postgres(doing))?;
        let note: String = row.try_get("note").map_err(Failure::postgres(doing))?;
        self.checkpoints += 1;
        let Some(tree) = &self.tree else { return Ok(()) };
        let head = Checkpoint::of(tree);
        if *root != head.root {
            let detail = format!("the log's first {} events are not those whose root was recorded", head.size);
            self.found(head.size, Fault::Altered, detail);
        }
        match self.key.map(|key| Checkpoint::open(&note, key)) {
            Some(Ok(opened)) if opened != head => {
                let detail = format!("the log's first {} events are not those whose root was signed", head.size);
                self.found(head.size, Fault::Altered, detail);
            }
            Some(Err(error)) => self.found(head.size, Fault::WronglySigned, error.to_string()),
            Some(Ok(_)) | None => {}
        }
        Ok(())
    }

    async fn verdict(self) -> LiveVerdict {
        // The server notices an unclean end as well.
        let _ = self.connection.close().await;
        LiveVerdict {
            verified: self.findings.is_empty(),
            size: self.size,
            root: self.tree_of_trail.map(|tree| BASE64.encode(tree.root())),
            checkpoints: self.checkpoints,
            signatures_verified: self.key.is_some(),
            findings: self.findings,
            more: self.more,
        }
    }
}

/// What in the table is not as the log has it.
fn difference(message: &LogMessage, row: &TrailRow) -> Option<String> {
    if message.bytes != row.bytes {
        return Some("the bytes in the table are not those of the log".to_owned());
    }
    row.contradiction().map(|column| format!("the table's column {column} is not what the event's bytes say"))
}
