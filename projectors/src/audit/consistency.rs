//! `projectors audit consistency`: that a later head of the trail's tree begins with an earlier one, so that nothing was taken back.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Serialize;
use sqlx::PgPool;

use super::{
    export::trail,
    merkle::{Frontier, Hash},
    proof,
    recorded::Recorded,
    row::TrailRow,
    tiles::{TILE_LEAVES, Tiles},
};
use crate::{failure::Failure, progress::Progress};

/// A head of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// How many events.
    pub size: u64,
    /// The root over them, in base64.
    pub root: String,
}

impl Head {
    fn new(size: u64, root: &Hash) -> Self {
        Self { size, root: BASE64.encode(root) }
    }
}

/// Two heads, and why the later one begins with the earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Consistency {
    /// The earlier head.
    pub old: Head,
    /// The later head.
    pub new: Head,
    /// The proof, each hash in base64, in the order of RFC 6962, section 2.1.2.
    pub consistency: Vec<String>,
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old    {} {}\nnew    {} {}", self.old.size, self.old.root, self.new.size, self.new.root)?;
        for hash in &self.consistency {
            writeln!(f, "proof  {hash}")?;
        }
        write!(f, "The first {} of the {} events are those of the old head.", self.old.size, self.new.size)
    }
}

/// Proves that the trail's first `new` events, by default all that it has, begin with its first `old`. Takes 32 bytes of memory for each
/// 128 events.
///
/// Fails with [`Failure::Away`] if the trail is not yet there, with [`Failure::Conflict`] if `old` is 0 or more than `new`, and with
/// [`Failure::Integrity`] if the table is not what was recorded.
pub async fn prove(pool: &PgPool, old: u64, new: Option<u64>) -> Result<Consistency, Failure> {
    let recorded = Recorded::of(pool, new).await?;
    let new = recorded.size;
    if old == 0 || old > new {
        return Err(Failure::Conflict(format!("the old head must have 1 to {new} events, not {old}")));
    }
    let progress = Progress::new("reading the tree", new);
    let (mut tree, mut tiles) = (Frontier::new(), Tiles::default());
    let (mut old_root, mut tile) = (None, Vec::new());
    let take = async |row: TrailRow| {
        let leaf = trail::hash(row.position, &row.leaf_hash)?;
        // All that the proof needs beside whole tiles is in the one that the old tree ends in.
        if (row.position - 1) / TILE_LEAVES == old / TILE_LEAVES {
            tile.push(leaf);
        }
        tiles.append(leaf);
        recorded.append(&mut tree, row.position, leaf)?;
        if tree.size() == old {
            old_root = Some(tree.root());
        }
        Ok(())
    };
    trail::read_leaves(pool, new, take, |position| progress.at(position)).await?;
    let head = recorded.head(pool, &tree).await?;
    let old_root = old_root.expect("the tree has passed the old size");
    let hashes = proof::consistency(&tiles.with_tile(old / TILE_LEAVES, &tile), old, new);
    if !proof::extends(&old_root, old, &head.root, new, &hashes) {
        return Err(Failure::Integrity("the proof does not lead from the old head to the new one".to_owned()));
    }
    let consistency = hashes.iter().map(|hash| BASE64.encode(hash)).collect();
    Ok(Consistency { old: Head::new(old, &old_root), new: Head::new(new, &head.root), consistency })
}
