//! What happened to a file whose lines do not have the signed root.
//!
//! That something is wrong is certain; what it is can be told only as far as the lines tell it themselves, by their aggregates'
//! versions and their times. So the wording is careful, and nothing here can make a wrong file pass.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    io,
};

use domain::envelope::StoredEvent;

use super::{
    formats::{Record, Records},
    merkle::{Frontier, Hash, leaf_hash},
    verify::{Fault, Finding},
};

/// The file has `count` lines of the `size` that were signed.
pub(super) fn missing(mut lines: Records, count: u64, size: u64) -> io::Result<Finding> {
    let absent = size - count;
    let mut versions = Versions::default();
    let mut number = 0;
    while let Some(Record { bytes: line, .. }) = lines.next()? {
        number += 1;
        let Some(event) = read(line) else {
            let detail = format!("{absent} of {size} lines are missing, and this one is not an event");
            return Ok(Finding { fault: Fault::Missing, line: Some(number), detail });
        };
        if let Some(skipped) = versions.skipped_before(&event) {
            let detail = format!("{absent} of {size} lines are missing: {skipped} does not come before this one");
            return Ok(Finding { fault: Fault::Missing, line: Some(number), detail });
        }
    }
    let detail = format!("{absent} of {size} lines are missing, as it seems at the end");
    Ok(Finding { fault: Fault::Truncated, line: Some(count + 1), detail })
}

/// The file has `count` lines, more than the `size` that were signed; `is_prefix` if those begin it.
pub(super) fn extra(count: u64, size: u64, is_prefix: bool) -> Finding {
    let unsigned = count - size;
    if is_prefix {
        let detail = format!("{unsigned} lines follow on the {size} that are signed");
        return Finding { fault: Fault::Extra, line: Some(size + 1), detail };
    }
    let detail = format!("there are {unsigned} lines more than the {size} that are signed, and not at the end");
    Finding { fault: Fault::Extra, line: None, detail }
}

/// The file has as many lines as were signed, with another root.
pub(super) fn changed(mut lines: Records, root: &Hash) -> io::Result<Finding> {
    let mut entries = Vec::new();
    let mut versions = Versions::default();
    let mut first_jump = None;
    let mut first_repeat = None;
    let mut seen = HashSet::new();
    while let Some(Record { bytes: line, .. }) = lines.next()? {
        let number = entries.len() as u64 + 1;
        let Some(event) = read(line) else {
            return Ok(Finding { fault: Fault::Altered, line: Some(number), detail: "this line is not an event".to_owned() });
        };
        let leaf = leaf_hash(line);
        if !seen.insert(leaf) {
            first_repeat.get_or_insert(number);
        }
        if let Some(skipped) = versions.skipped_before(&event) {
            first_jump.get_or_insert((number, skipped));
        }
        entries.push(Entry { time: event.metadata.time.unix_timestamp_nanos(), id: event.metadata.event_id, leaf });
    }
    if let Some(line) = first_repeat {
        let detail = "this line repeats an earlier one, in place of one that is missing".to_owned();
        return Ok(Finding { fault: Fault::Missing, line: Some(line), detail });
    }
    if let Some(line) = proven_reordering(&entries, root) {
        let detail = "sorted by time the lines are exactly those that were signed".to_owned();
        return Ok(Finding { fault: Fault::Reordered, line: Some(line), detail });
    }
    Ok(match first_jump {
        Some((line, skipped)) if versions.are_complete() => {
            let detail = format!("{skipped} does not come before this line but after it");
            Finding { fault: Fault::Reordered, line: Some(line), detail }
        }
        Some((line, skipped)) => {
            let detail = format!("{skipped} does not come before this line: its version or the other's was changed");
            Finding { fault: Fault::Altered, line: Some(line), detail }
        }
        None => {
            let detail = "the lines do not have the signed root: the content of at least one was changed".to_owned();
            Finding { fault: Fault::Altered, line: None, detail }
        }
    })
}

struct Entry {
    time: i128,
    id: uuid::Uuid,
    leaf: Hash,
}

/// If sorting by time restores the signed root, then nothing but the order was changed: the first line that is out of place.
fn proven_reordering(entries: &[Entry], root: &Hash) -> Option<u64> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    // Events of one moment may have kept their order, or be told apart by their ids, which count up.
    sorted.sort_by_key(|entry| entry.time);
    if root_of(&sorted) != *root {
        sorted.sort_by_key(|entry| (entry.time, entry.id));
        if root_of(&sorted) != *root {
            return None;
        }
    }
    let out_of_place = entries.iter().zip(sorted).position(|(found, right)| found.leaf != right.leaf);
    out_of_place.map(|index| index as u64 + 1)
}

fn root_of(entries: &[&Entry]) -> Hash {
    let mut tree = Frontier::new();
    for entry in entries {
        tree.append(entry.leaf);
    }
    tree.root()
}

/// Which versions of each aggregate were seen. Remembers a hash per aggregate and what lies outside of 1, 2, 3, ….
#[derive(Default)]
struct Versions {
    hasher: RandomState,
    seen: HashMap<u64, Seen>,
}

#[derive(Default)]
struct Seen {
    /// All versions up to here were seen.
    complete: u64,
    ahead: HashSet<u64>,
}

impl Versions {
    /// Takes note of the event, and names an event of its aggregate that had to come before it and did not.
    fn skipped_before(&mut self, event: &StoredEvent) -> Option<String> {
        let metadata = &event.metadata;
        let aggregate = self.hasher.hash_one((&metadata.aggregate_type, &metadata.aggregate_id));
        let seen = self.seen.entry(aggregate).or_default();
        let awaited = seen.complete + 1;
        if metadata.version >= awaited {
            seen.ahead.insert(metadata.version);
        }
        while seen.ahead.remove(&(seen.complete + 1)) {
            seen.complete += 1;
        }
        (metadata.version > awaited).then(|| format!("version {awaited} of {} {}", metadata.aggregate_type, metadata.aggregate_id))
    }

    /// Whether every version up to the highest was seen, of every aggregate.
    fn are_complete(&self) -> bool {
        self.seen.values().all(|seen| seen.ahead.is_empty())
    }
}

fn read(line: &[u8]) -> Option<StoredEvent> {
    StoredEvent::from_json(line).ok()
}
