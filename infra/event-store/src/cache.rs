//! Aggregates that were folded lately, so that loading one again reads only what is new.
//!
//! A cached aggregate is a place to start from, never an answer: a load always asks the log for what follows. That makes
//! a stale one harmless, and a load cost one short request instead of one that grows with the distance between an
//! aggregate's events: a direct get by subject walks over every message in between (measured on server 2.15.1: 60 % of the
//! server's time at 120 orders a second).

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use domain::SnapshotState;

use crate::{Loaded, wire};

/// Memory that the cached aggregates of one store take, in bytes, unless it is told otherwise.
pub const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// An aggregate that takes more than this part of the whole is not kept, so that a few huge ones cannot push all others out.
const AGGREGATE_SHARE_MAX: usize = 4;
/// What an entry takes beside the aggregate and its subject: the map's slot, the box, the counters.
const ENTRY_BYTES: usize = 160;

/// Two generations of folded aggregates: when the young one is full, it becomes the old one, and the old one is dropped.
/// What is used moves to the young one, so what is dropped was not used for a whole generation.
pub(crate) struct Cache {
    bytes_max: usize,
    generations: Mutex<Generations>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    entries: HashMap<String, Entry>,
    bytes: usize,
}

struct Entry {
    /// A [`Loaded`] of the type that the subject names.
    loaded: Box<dyn Any + Send>,
    version: u64,
    bytes: usize,
}

/// What the cache has done so far, and what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Loads of an aggregate that was cached.
    pub hits: u64,
    /// Loads of an aggregate that has events and was not cached.
    pub misses: u64,
    /// Aggregates that were dropped to make room, or not kept because of their size.
    pub evictions: u64,
    /// How many aggregates are cached.
    pub aggregates: usize,
    /// About how much memory they take.
    pub bytes: usize,
    /// How much they may take.
    pub bytes_max: usize,
}

/// An aggregate as it was cached.
pub(crate) struct Recalled<A> {
    pub(crate) loaded: Loaded<A>,
    pub(crate) was_cached: bool,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let counter = AtomicU64::default;
        Self { bytes_max, generations: Mutex::default(), hits: counter(), misses: counter(), evictions: counter() }
    }

    /// The aggregate as it was when it was folded last, or as it is without events.
    pub(crate) fn recall<A: SnapshotState>(&self, id: &str) -> Recalled<A> {
        let subject = wire::subject(A::TYPE, id);
        let mut generations = self.lock();
        let dropped = match generations.old.take(&subject) {
            Some(entry) => self.put(&mut generations, subject.clone(), entry),
            None => Generation::default(),
        };
        let known = generations.young.entries.get(&subject);
        let loaded = known.and_then(|entry| entry.loaded.downcast_ref::<Loaded<A>>()).cloned();
        drop(generations);
        drop(dropped);
        Recalled { was_cached: loaded.is_some(), loaded: loaded.unwrap_or_default() }
    }

    /// How many events the aggregate as it is cached has; 0 if it is not cached.
    pub(crate) fn version<A: SnapshotState>(&self, id: &str) -> u64 {
        let subject = wire::subject(A::TYPE, id);
        let generations = self.lock();
        let known = generations.young.entries.get(&subject).or_else(|| generations.old.entries.get(&subject));
        known.map_or(0, |entry| entry.version)
    }

    /// Counts a load, once it is known what came of it.
    pub(crate) fn count(&self, was_cached: bool, version: u64) {
        match (was_cached, version) {
            (true, _) => self.hits.fetch_add(1, Ordering::Relaxed),
            // What has no events could not have been cached.
            (false, 0) => return,
            (false, _) => self.misses.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Keeps `loaded`, unless that or something newer is kept already.
    pub(crate) fn remember<A: SnapshotState>(&self, id: &str, loaded: &Loaded<A>) {
        if loaded.version == 0 {
            return;
        }
        let subject = wire::subject(A::TYPE, id);
        let bytes = loaded.aggregate.approximate_bytes() + subject.len() + ENTRY_BYTES;
        let mut generations = self.lock();
        let known = generations.young.entries.get(&subject).or_else(|| generations.old.entries.get(&subject));
        if known.is_some_and(|entry| entry.version >= loaded.version) {
            return;
        }
        let replaced = (generations.young.take(&subject), generations.old.take(&subject));
        let mut dropped = Generation::default();
        if bytes > self.bytes_max / AGGREGATE_SHARE_MAX {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        } else {
            let entry = Entry { loaded: Box::new(loaded.clone()), version: loaded.version, bytes };
            dropped = self.put(&mut generations, subject, entry);
        }
        // Dropping thousands of aggregates takes a while, in which others need not wait.
        drop(generations);
        drop((replaced, dropped));
    }

    /// Puts an entry into the young generation, and returns what was dropped for it.
    fn put(&self, generations: &mut Generations, subject: String, entry: Entry) -> Generation {
        let mut dropped = Generation::default();
        if generations.young.bytes + entry.bytes > self.bytes_max / 2 {
            dropped = std::mem::replace(&mut generations.old, std::mem::take(&mut generations.young));
            self.evictions.fetch_add(dropped.entries.len() as u64, Ordering::Relaxed);
        }
        generations.young.bytes += entry.bytes;
        generations.young.entries.insert(subject, entry);
        dropped
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let generations = self.lock();
        let Generations { young, old } = &*generations;
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            aggregates: young.entries.len() + old.entries.len(),
            bytes: young.bytes + old.bytes,
            bytes_max: self.bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generation {
    fn take(&mut self, subject: &str) -> Option<Entry> {
        let entry = self.entries.remove(subject)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }
}
