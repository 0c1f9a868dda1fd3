//! The inner nodes of a large tree, of which only those above tiles of 256 leaves are kept: 128 KiB for a million leaves.
//!
//! Who asks for the nodes within a tile brings its leaves, so proofs for leaves that are taken in order need each tile once.

use super::{
    merkle::{Hash, node_hash},
    proof::{Nodes, left_leaves},
};

/// How many levels of the tree are within a tile.
const TILE_LEVELS: u32 = 8;
/// How many leaves a tile has.
pub(super) const TILE_LEAVES: u64 = 1 << TILE_LEVELS;

/// Every perfect subtree over a row of nodes: a level of nodes, above it one of half as many, and so on.
#[derive(Debug, Default)]
struct Pyramid {
    levels: Vec<Vec<Hash>>,
}

impl Pyramid {
    fn of(nodes: &[Hash]) -> Self {
        let mut pyramid = Self::default();
        for node in nodes {
            pyramid.push(*node);
        }
        pyramid
    }

    fn push(&mut self, node: Hash) {
        let mut node = node;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(node);
            match nodes[..] {
                [.., left, right] if nodes.len().is_multiple_of(2) => node = node_hash(&left, &right),
                _ => return,
            }
        }
    }

    fn len(&self) -> u64 {
        self.levels.first().map_or(0, |nodes| nodes.len() as u64)
    }
}

impl Nodes for Pyramid {
    fn root(&self, start: u64, end: u64) -> Hash {
        let nodes = end - start;
        if nodes.is_power_of_two() {
            let at = |number: u64| usize::try_from(number).expect("what is in memory can be counted");
            return self.levels[at(nodes.ilog2().into())][at(start / nodes)];
        }
        let middle = start + left_leaves(nodes);
        node_hash(&self.root(start, middle), &self.root(middle, end))
    }
}

/// A tree above its tiles. Leaves are only added.
#[derive(Debug, Default)]
pub(super) struct Tiles {
    above: Pyramid,
    /// The leaves after the last complete tile.
    rest: Vec<Hash>,
}

impl Tiles {
    pub(super) fn append(&mut self, leaf: Hash) {
        self.rest.push(leaf);
        if self.rest.len() as u64 == TILE_LEAVES {
            self.above.push(Pyramid::of(&self.rest).root(0, TILE_LEAVES));
            self.rest.clear();
        }
    }

    /// How many leaves it has.
    #[cfg(test)]
    fn size(&self) -> u64 {
        self.above.len() * TILE_LEAVES + self.rest.len() as u64
    }

    /// The tree as far as it can be told with the leaves of tile `index`, counted from 0.
    pub(super) fn with_tile<'a>(&'a self, index: u64, leaves: &[Hash]) -> TreeAtTile<'a> {
        TreeAtTile { tiles: self, index, tile: Pyramid::of(leaves), rest: Pyramid::of(&self.rest) }
    }
}

/// See [`Tiles::with_tile`].
pub(super) struct TreeAtTile<'a> {
    tiles: &'a Tiles,
    index: u64,
    tile: Pyramid,
    rest: Pyramid,
}

impl Nodes for TreeAtTile<'_> {
    /// # Panics
    ///
    /// If this takes the leaves of another tile.
    fn root(&self, start: u64, end: u64) -> Hash {
        let leaves = end - start;
        if leaves.is_power_of_two() && leaves >= TILE_LEAVES {
            return self.tiles.above.root(start / TILE_LEAVES, end / TILE_LEAVES);
        }
        let tile = start / TILE_LEAVES;
        if tile == (end - 1) / TILE_LEAVES {
            let within = if tile == self.tiles.above.len() { &self.rest } else { &self.tile };
            assert!(tile == self.index || tile == self.tiles.above.len(), "tile {tile} was not brought, but {}", self.index);
            return within.root(start % TILE_LEAVES, start % TILE_LEAVES + leaves);
        }
        let middle = start + left_leaves(leaves);
        node_hash(&self.root(start, middle), &self.root(middle, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        merkle::{Frontier, leaf_hash},
        proof::{includes, inclusion},
    };

    #[test]
    fn proofs_by_tiles_lead_to_the_root() {
        for size in [1, 2, 255, 256, 257, 511, 512, 700, 1_024, 1_025, 2_000] {
            let leaves: Vec<Hash> = (0_u64..size).map(|number| leaf_hash(&number.to_be_bytes())).collect();
            let (mut tiles, mut tree) = (Tiles::default(), Frontier::new());
            for leaf in &leaves {
                tiles.append(*leaf);
                tree.append(*leaf);
            }
            assert_eq!(tiles.size(), size);
            for (tile, tile_leaves) in (0_u64..).zip(leaves.chunks(256)) {
                let nodes = tiles.with_tile(tile, tile_leaves);
                for (within, leaf) in (0_u64..).zip(tile_leaves) {
                    let index = tile * TILE_LEAVES + within;
                    let proof = inclusion(&nodes, index, size);
                    assert!(includes(&tree.root(), size, index, *leaf, &proof), "{index} of {size}");
                }
            }
        }
    }
}
