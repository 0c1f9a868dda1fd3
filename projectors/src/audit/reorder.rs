//! Which order of a file's lines has the signed root, if nothing but their order was changed.

use std::fmt;

use super::merkle::{Frontier, Hash, node_hash};

/// The leaves of the lines, as they stand, and the tree over them.
pub(super) struct Lines {
    /// The leaves, above them the nodes over every two, and so on; a last one without another is taken as it is. That is the tree
    /// of RFC 6962.
    levels: Vec<Vec<Hash>>,
}

/// A change of the order that gives the signed root. Lines are counted from 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// Two lines change places.
    Swap(usize, usize),
    /// The line at the second place belongs before the one at the first.
    Earlier(usize, usize),
    /// The line at the first place belongs after the one at the second.
    Later(usize, usize),
}

impl Repair {
    /// The first line that is out of place, from 1 on.
    pub(super) fn line(&self) -> u64 {
        let (Self::Swap(first, _) | Self::Earlier(first, _) | Self::Later(first, _)) = self;
        *first as u64 + 1
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swap(_, other) => write!(f, "if this line and line {} change places", other + 1),
            Self::Earlier(_, other) => write!(f, "if line {} stands before this one", other + 1),
            Self::Later(_, other) => write!(f, "if this line stands after line {}", other + 1),
        }?;
        write!(f, ", the lines are exactly those that were signed")
    }
}

impl Lines {
    pub(super) fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last()
            && level.len() > 1
        {
            levels.push(above(level));
        }
        Self { levels }
    }

    /// If the lines with these indexes, one after the other, have the root: the first that is not where it was, from 1 on.
    pub(super) fn first_moved(&self, indexes: &[usize], root: &Hash) -> Option<u64> {
        let first = indexes.iter().enumerate().position(|(place, index)| place != *index)?;
        let mut tree = Frontier::new();
        for index in indexes {
            tree.append(self.levels[0][*index]);
        }
        (tree.root() == *root).then_some(first as u64 + 1)
    }

    /// The repair that gives the root, if it moves one of the `suspects` to the place of another, or swaps two neighbours.
    pub(super) fn repaired(&self, suspects: &[usize], root: &Hash) -> Option<Repair> {
        let leaves = &self.levels[0];
        let pairs = suspects.iter().enumerate().flat_map(|(at, first)| suspects[at + 1..].iter().map(|last| (*first, *last)));
        for (first, last) in pairs {
            let mut between = leaves[first..=last].to_vec();
            between.rotate_right(1);
            if self.root_with(first, &between) == *root {
                return Some(Repair::Earlier(first, last));
            }
            between.rotate_left(2);
            if self.root_with(first, &between) == *root {
                return Some(Repair::Later(first, last));
            }
            between.rotate_right(1);
            between.swap(0, last - first);
            if self.root_with(first, &between) == *root {
                return Some(Repair::Swap(first, last));
            }
        }
        let mut neighbours = leaves.windows(2).enumerate();
        let swapped = neighbours.find(|(first, pair)| self.root_with(*first, &[pair[1], pair[0]]) == *root);
        swapped.map(|(first, _)| Repair::Swap(first, first + 1))
    }

    /// The root if these stand from `start` on. Takes as many hashes as there are, and some for each level.
    fn root_with(&self, start: usize, changed: &[Hash]) -> Hash {
        let (mut start, mut changed) = (start, changed.to_vec());
        for level in &self.levels[..self.levels.len() - 1] {
            if start % 2 == 1 {
                start -= 1;
                changed.insert(0, level[start]);
            }
            if changed.len() % 2 == 1 {
                changed.extend(level.get(start + changed.len()));
            }
            changed = above(&changed);
            start /= 2;
        }
        changed[0]
    }
}

/// The nodes above a row of nodes.
fn above(nodes: &[Hash]) -> Vec<Hash> {
    let node = |pair: &[Hash]| match pair {
        [left, right] => node_hash(left, right),
        _ => pair[0],
    };
    nodes.chunks(2).map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::merkle::leaf_hash;

    fn root(leaves: &[Hash]) -> Hash {
        let mut tree = Frontier::new();
        for leaf in leaves {
            tree.append(*leaf);
        }
        tree.root()
    }

    #[test]
    fn a_line_that_was_moved_is_found_in_files_of_any_length() {
        for size in [2, 3, 4, 5, 7, 8, 9, 16, 17, 33] {
            let signed: Vec<Hash> = (0_u64..size).map(|number| leaf_hash(&number.to_be_bytes())).collect();
            let root = root(&signed);
            assert_eq!(Lines::new(signed.clone()).root_with(0, &signed[..1]), root, "{size} lines");
            for first in 0..signed.len() - 1 {
                let mut swapped = signed.clone();
                swapped.swap(first, first + 1);
                assert_eq!(Lines::new(swapped).repaired(&[], &root), Some(Repair::Swap(first, first + 1)), "of {size}");
                for last in first + 2..signed.len() {
                    let mut swapped = signed.clone();
                    swapped.swap(first, last);
                    assert_eq!(Lines::new(swapped).repaired(&[first, last], &root), Some(Repair::Swap(first, last)), "of {size}");
                    let mut moved = signed.clone();
                    moved[first..=last].rotate_left(1);
                    assert_eq!(Lines::new(moved).repaired(&[first, last], &root), Some(Repair::Earlier(first, last)), "of {size}");
                    let mut moved = signed.clone();
                    moved[first..=last].rotate_right(1);
                    assert_eq!(Lines::new(moved).repaired(&[first, last], &root), Some(Repair::Later(first, last)), "of {size}");
                }
            }
        }
    }

    #[test]
    fn a_line_that_was_changed_is_no_matter_of_order() {
        let signed: Vec<Hash> = (0_u64..20).map(|number| leaf_hash(&number.to_be_bytes())).collect();
        let mut changed = signed.clone();
        changed[7] = leaf_hash(b"changed");
        let lines = Lines::new(changed);
        assert_eq!(lines.repaired(&[3, 7, 8], &root(&signed)), None);
        assert_eq!(lines.first_moved(&(0..20).collect::<Vec<_>>(), &root(&signed)), None);
    }
}
