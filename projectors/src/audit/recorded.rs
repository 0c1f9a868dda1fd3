//! What the trail's tree has to be: what was signed of it, and what the trail goes on with.

use read_store::projections::ProjectionName;
use sqlx::{PgConnection, PgPool, Postgres, Row, Transaction};

use super::{
    checkpoint::Checkpoint,
    export::trail,
    merkle::{Frontier, Hash},
};
use crate::{checkpoints, failure::Failure, read_models::signed};

/// Leaves of one statement.
const LEAVES_AT_ONCE: u64 = 10_000;

/// What was recorded of the trail up to a position, and right after it.
pub(super) struct Recorded {
    pub(super) size: u64,
    heads: Vec<(u64, Hash)>,
}

impl Recorded {
    /// Up to `to_position`, or to where the trail is: [`Failure::Away`] if that is not as far as it was when it was last signed.
    pub(super) async fn of(pool: &PgPool, to_position: Option<u64>) -> Result<Self, Failure> {
        const DOING: &str = "read the audit trail's position";
        let mut moment = moment(pool).await.map_err(Failure::postgres(DOING))?;
        let trail = checkpoints::peek(&mut *moment, ProjectionName::Audit).await.map_err(Failure::postgres(DOING))?;
        let size = to_position.unwrap_or(trail.position);
        if size > trail.position {
            return Err(Failure::Away(format!("the audit trail is at position {}, not yet at {size}", trail.position)));
        }
        let signed = largest_signed(&mut moment).await.map_err(Failure::postgres(DOING))?;
        if to_position.is_none() && size < signed {
            return Err(Failure::Away(format!(
                "the audit trail is at position {size}, and {signed} events of it were signed: it is being rebuilt, or has lost them, \
                 which `audit verify --live` tells"
            )));
        }
        let before = "SELECT size, root FROM contrail.audit_checkpoints WHERE size <= $1 ORDER BY size DESC LIMIT 1";
        let mut heads = Vec::from_iter(recorded_head(&mut moment, before, size).await?);
        // Of what came after the last head that was signed by then, the next one tells.
        let next = "SELECT size, root FROM contrail.audit_checkpoints WHERE size >= $1 ORDER BY size LIMIT 1";
        let next = recorded_head(&mut moment, next, size).await?.filter(|(next, _)| *next <= trail.position);
        let is_trail_needed = size == trail.position || next.is_none();
        heads.extend(next);
        if is_trail_needed {
            let tree = Frontier::from_bytes(trail.position, trail.frontier.as_deref().unwrap_or_default());
            let tree = tree.map_err(|error| Failure::Integrity(format!("the stored audit tree is broken: {error}")))?;
            heads.push((tree.size(), tree.root()));
        }
        Ok(Self { size, heads })
    }

    /// Adds the leaf at `position` to the tree, if it is the next one, and holds the tree against what was recorded.
    pub(super) fn append(&self, tree: &mut Frontier, position: u64, leaf: Hash) -> Result<(), Failure> {
        let awaited = tree.size() + 1;
        if position != awaited {
            return Err(missing(awaited));
        }
        tree.append(leaf);
        for (size, root) in &self.heads {
            if tree.size() == *size && tree.root() != *root {
                return Err(Failure::Integrity(format!(
                    "the first {size} events in the table are not those whose root was recorded"
                )));
            }
        }
        Ok(())
    }

    /// The head of the tree, if it has every leaf, and the trail goes on from it to what was recorded next.
    pub(super) async fn head(&self, pool: &PgPool, tree: &Frontier) -> Result<Checkpoint, Failure> {
        if tree.size() < self.size {
            return Err(missing(tree.size() + 1));
        }
        let next = self.heads.iter().map(|(size, _)| *size).max().unwrap_or_default();
        let mut later = tree.clone();
        while later.size() < next {
            let after = later.size();
            let leaves = trail::leaves(pool, after, next.min(after + LEAVES_AT_ONCE)).await?;
            if leaves.is_empty() {
                return Err(missing(after + 1));
            }
            for leaf in leaves {
                let position = later.size() + 1;
                self.append(&mut later, position, leaf)?;
            }
        }
        Ok(Checkpoint::of(tree))
    }
}

/// A transaction that sees all tables at one moment: a projector moves the trail on and signs it while it is read.
pub(super) async fn moment(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
}

/// How many events the largest checkpoint is about.
pub(super) async fn largest_signed(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let largest: Option<i64> = sqlx::query_scalar("SELECT max(size) FROM contrail.audit_checkpoints").fetch_one(connection).await?;
    Ok(largest.unwrap_or_default().unsigned_abs())
}

/// The signed head that `sql` finds next to that of `size` events.
async fn recorded_head(connection: &mut PgConnection, sql: &'static str, size: u64) -> Result<Option<(u64, Hash)>, Failure> {
    let doing = "read the signed checkpoints";
    let row = sqlx::query(sql).bind(signed(size)).fetch_optional(connection).await.map_err(Failure::postgres(doing))?;
    let Some(row) = row else { return Ok(None) };
    let size: i64 = row.try_get("size").map_err(Failure::postgres(doing))?;
    let root: &[u8] = row.try_get("root").map_err(Failure::postgres(doing))?;
    let root = root.try_into().map_err(|_| Failure::Integrity(format!("the recorded root of {size} events is no hash")))?;
    Ok(Some((size.unsigned_abs(), root)))
}

fn missing(position: u64) -> Failure {
    Failure::Integrity(format!("position {position} is missing from the table"))
}
