//! The audit tree: RFC 6962's Merkle tree (section 2.1) over the stored bytes of every event, in the order of the log.
//!
//! Only the roots of the perfect subtrees are kept, at most 64 hashes however long the log is.

use sha2::{Digest, Sha256};

/// Length of a hash, in bytes.
pub const HASH_BYTES: usize = 32;

/// A SHA-256 hash.
pub type Hash = [u8; HASH_BYTES];

/// The hash of a leaf: `SHA-256(0x00 ‖ bytes)`.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Sha256::new_with_prefix([0x00]).chain_update(bytes).finalize().into()
}

/// The hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([0x01]).chain_update(left).chain_update(right).finalize().into()
}

/// A tree to which leaves are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The roots of the perfect subtrees, the largest and oldest first: one for each bit that is set in `size`.
    peaks: Vec<Hash>,
}

/// Stored bytes are not the frontier of a tree of that size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frontier of {size} leaves has {expected} bytes, not {found}")]
pub struct FrontierError {
    size: u64,
    expected: usize,
    found: usize,
}

impl Frontier {
    /// The tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf at the end.
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // As in binary counting: each trailing one of the old size is a subtree as large as what is carried so far.
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("there is a peak for each bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root: of the empty tree the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return Sha256::digest([]).into() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }

    /// The peaks one after the other, to be stored beside the size.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.peaks.concat()
    }

    /// Reads what [`Frontier::to_bytes`] wrote for a tree of `size` leaves.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Result<Self, FrontierError> {
        let (peaks, rest) = bytes.as_chunks::<HASH_BYTES>();
        let expected = size.count_ones() as usize;
        if peaks.len() != expected || !rest.is_empty() {
            return Err(FrontierError { size, expected: expected * HASH_BYTES, found: bytes.len() });
        }
        Ok(Self { size, peaks: peaks.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition in RFC 6962, section 2.1, word for word.
    fn tree_head(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => leaf_hash(leaf),
            _ => {
                let split = (leaves.len().next_power_of_two() / 2).min(leaves.len() - 1);
                node_hash(&tree_head(&leaves[..split]), &tree_head(&leaves[split..]))
            }
        }
    }

    fn frontier(leaves: &[Vec<u8>]) -> Frontier {
        let mut frontier = Frontier::new();
        for leaf in leaves {
            frontier.append(leaf_hash(leaf));
        }
        frontier
    }

    fn hex(hash: Hash) -> String {
        hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// The leaves and roots of the reference implementation of RFC 6962 (certificate-transparency, merkle_tree_test).
    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        let leaves: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves = leaves.map(<[u8]>::to_vec);
        for (size, root) in roots.into_iter().enumerate() {
            assert_eq!(hex(frontier(&leaves[..size]).root()), root, "{size} leaves");
        }
    }

    proptest! {
        #[test]
        fn the_root_is_the_one_that_the_rfc_defines(leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..200)) {
            prop_assert_eq!(frontier(&leaves).root(), tree_head(&leaves));
        }

        #[test]
        fn a_stored_frontier_goes_on_where_it_stopped(
            leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..100),
            stop in 0_usize..100,
        ) {
            let stop = stop.min(leaves.len());
            let stored = frontier(&leaves[..stop]).to_bytes();
            let mut resumed = Frontier::from_bytes(stop as u64, &stored).unwrap();
            for leaf in &leaves[stop..] {
                resumed.append(leaf_hash(leaf));
            }
            prop_assert_eq!(resumed, frontier(&leaves));
        }
    }

    #[test]
    fn bytes_that_do_not_fit_the_size_are_no_frontier() {
        assert!(Frontier::from_bytes(3, &[0; 32]).is_err());
        assert!(Frontier::from_bytes(1, &[0; 33]).is_err());
        assert!(Frontier::from_bytes(0, &[]).is_ok());
    }
}
