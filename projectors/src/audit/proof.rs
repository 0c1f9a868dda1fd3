//! What convinces somebody who has only a signed root: that an event is in the log, and that a later log begins with an earlier one.
//!
//! Source of the rules: RFC 6962, sections 2.1.1 and 2.1.2; of the checks, RFC 9162, sections 2.1.3.2 and 2.1.4.2.

use super::merkle::{Hash, node_hash};

/// A tree of which the roots of parts can be told.
pub trait Nodes {
    /// The root over the leaves `start..end`, counted from 0. Asked only for parts that the definition of the tree has: `start` is a
    /// multiple of the smallest power of two that is not less than `end - start`.
    fn root(&self, start: u64, end: u64) -> Hash;
}

/// The proof that leaf `index`, counted from 0, is in the tree over the first `size` leaves: the siblings on its way up.
///
/// # Panics
///
/// If there is no such leaf.
pub fn inclusion(nodes: &impl Nodes, index: u64, size: u64) -> Vec<Hash> {
    assert!(index < size, "leaf {index} of {size}");
    let (mut start, mut end) = (0, size);
    let mut siblings = Vec::new();
    while end - start > 1 {
        let middle = start + left_leaves(end - start);
        if index < middle {
            siblings.push(nodes.root(middle, end));
            end = middle;
        } else {
            siblings.push(nodes.root(start, middle));
            start = middle;
        }
    }
    siblings.reverse();
    siblings
}

/// The proof that the tree over the first `size` leaves begins with the one over the first `old_size`.
///
/// # Panics
///
/// If the old tree is empty or larger than the new one.
pub fn consistency(nodes: &impl Nodes, old_size: u64, size: u64) -> Vec<Hash> {
    assert!(0 < old_size && old_size <= size, "{old_size} of {size} leaves");
    let (mut start, mut end) = (0, size);
    let mut hashes = Vec::new();
    while end != old_size {
        let middle = start + left_leaves(end - start);
        if old_size <= middle {
            hashes.push(nodes.root(middle, end));
            end = middle;
        } else {
            hashes.push(nodes.root(start, middle));
            start = middle;
        }
    }
    // The old root itself is known to whoever checks.
    if start > 0 {
        hashes.push(nodes.root(start, end));
    }
    hashes.reverse();
    hashes
}

/// Whether `proof` shows that `leaf` is the one at `index`, counted from 0, of the `size` leaves under `root`.
pub fn includes(root: &Hash, size: u64, index: u64, leaf: Hash, proof: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at % 2 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the `size` leaves under `root` begin with the `old_size` under `old_root`.
pub fn extends(old_root: &Hash, old_size: u64, root: &Hash, size: u64, proof: &[Hash]) -> bool {
    if old_size == 0 || old_size > size {
        return false;
    }
    if old_size == size {
        return proof.is_empty() && old_root == root;
    }
    let mut hashes = proof.iter();
    // A complete tree is its own beginning.
    let first = if old_size.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old_size - 1, size - 1);
    while at % 2 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            old = node_hash(hash, &old);
            new = node_hash(hash, &new);
            while at % 2 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old == *old_root && new == *root
}

/// How many of `leaves`, at least 2, are in the left part: the largest power of two that is less.
pub(super) fn left_leaves(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::merkle::leaf_hash;

    /// The definition in RFC 6962, section 2.1, word for word.
    struct Leaves(Vec<Hash>);

    impl Nodes for Leaves {
        fn root(&self, start: u64, end: u64) -> Hash {
            if end - start == 1 {
                return self.0[usize::try_from(start).unwrap()];
            }
            let middle = start + left_leaves(end - start);
            node_hash(&self.root(start, middle), &self.root(middle, end))
        }
    }

    fn leaves(count: u64) -> Leaves {
        Leaves((0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect())
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proven_and_nothing_else() {
        let leaves = leaves(40);
        for size in 1..=40 {
            let root = leaves.root(0, size);
            for index in 0..size {
                let leaf = leaves.root(index, index + 1);
                let proof = inclusion(&leaves, index, size);
                assert!(includes(&root, size, index, leaf, &proof), "{index} of {size}");
                assert!(!includes(&root, size, (index + 1) % (size + 1), leaf, &proof), "{index} of {size} elsewhere");
                assert!(!includes(&root, size, index, node_hash(&leaf, &leaf), &proof), "another leaf at {index} of {size}");
                assert!(!includes(&root, size, index, leaf, &[&proof[..], &[leaf]].concat()), "too long at {index} of {size}");
            }
        }
    }

    #[test]
    fn every_small_tree_is_proven_to_extend_every_smaller_one_and_no_other() {
        let (leaves, mut others) = (leaves(40), leaves(40));
        others.0[0] = leaf_hash(b"other");
        for size in 1..=40 {
            let root = leaves.root(0, size);
            for old_size in 1..=size {
                let proof = consistency(&leaves, old_size, size);
                assert!(extends(&leaves.root(0, old_size), old_size, &root, size, &proof), "{old_size} of {size}");
                assert!(!extends(&others.root(0, old_size), old_size, &root, size, &proof), "another {old_size} of {size}");
                if old_size < size {
                    assert!(
                        !extends(&leaves.root(0, old_size), old_size, &root, size, &proof[1..]),
                        "too short: {old_size} of {size}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_changed_proof_proves_nothing(size in 2_u64..300, index in 0_u64..300, at in 0_usize..9, bit in 0_usize..256) {
            let (leaves, index) = (leaves(size), index % size);
            let mut proof = inclusion(&leaves, index, size);
            let at = at % proof.len();
            proof[at][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!includes(&leaves.root(0, size), size, index, leaves.root(index, index + 1), &proof));
        }
    }
}
