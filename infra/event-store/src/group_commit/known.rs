//! Where subjects ended when they were seen last.
//!
//! Positions on a subject only grow, so a transaction that expects less than is known here is stale, and is better asked
//! about than sent along with others whose round it would spoil. It is a hint all the same: the log has the last word.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

/// Subjects in one generation, of 16 bytes each; there are two. When the young one is full, it becomes the old one. What is
/// asked for is young again.
const GENERATION_SUBJECTS_MAX: usize = 32_768;

/// For keys that are hashes: passes them on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A set of subjects, by their hashes.
pub(super) type Subjects = HashSet<u64, BuildHasherDefault<AlreadyHashed>>;
/// A map whose keys are hashes of subjects.
pub(super) type BySubject<T> = HashMap<u64, T, BuildHasherDefault<AlreadyHashed>>;

/// See the module. A subject is known by its hash: two with the same one cost a look at the log, no more.
#[derive(Debug, Default)]
pub(super) struct Known {
    young: BySubject<u64>,
    old: BySubject<u64>,
}

impl Known {
    pub(super) fn position(&mut self, subject: u64) -> Option<u64> {
        if let Some(position) = self.young.get(&subject) {
            return Some(*position);
        }
        let position = self.old.remove(&subject)?;
        self.put(subject, position);
        Some(position)
    }

    /// Keeps `position`, unless a later one is known.
    pub(super) fn saw(&mut self, subject: u64, position: u64) {
        let known = self.old.remove(&subject).unwrap_or(0);
        self.put(subject, known.max(position));
    }

    fn put(&mut self, subject: u64, position: u64) {
        let known = self.young.entry(subject).or_default();
        *known = position.max(*known);
        if self.young.len() >= GENERATION_SUBJECTS_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
    }

    /// What was known turned out to be wrong.
    pub(super) fn forget(&mut self, subject: u64) {
        self.young.remove(&subject);
        self.old.remove(&subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_position_is_known_until_it_is_forgotten() {
        let mut known = Known::default();
        assert_eq!(known.position(1), None);
        for (seen, expected) in [(5, 5), (3, 5), (9, 9)] {
            known.saw(1, seen);
            assert_eq!(known.position(1), Some(expected));
        }
        known.forget(1);
        assert_eq!(known.position(1), None);
    }

    #[test]
    fn a_generation_that_ends_takes_nothing_back() {
        let mut known = Known::default();
        known.saw(0, 9);
        for subject in 1..2 * GENERATION_SUBJECTS_MAX as u64 {
            known.saw(subject, 1);
            known.saw(0, 5);
            assert_eq!(known.position(0), Some(9), "after {subject} others");
        }
    }

    #[test]
    fn memory_is_bounded_and_what_was_seen_last_is_kept() {
        let mut known = Known::default();
        let hashes = |subject: u64| subject.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for subject in 0..10 * GENERATION_SUBJECTS_MAX as u64 {
            known.saw(hashes(subject), 1);
        }
        assert!(known.young.len() + known.old.len() <= 2 * GENERATION_SUBJECTS_MAX);
        assert_eq!(known.position(hashes(10 * GENERATION_SUBJECTS_MAX as u64 - 1)), Some(1));
        assert_eq!(known.position(hashes(0)), None);
    }
}
