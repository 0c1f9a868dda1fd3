//! What happened to a file whose lines do not have the signed root.
//!
//! That something is wrong is certain; what it is can be told only as far as the lines tell it themselves: by the positions that
//! rows of CSV and Parquet have, by their aggregates' versions, their times, and what caused them. Only another order that has
//! the signed root is a proof. So the wording is careful, and nothing here can make a wrong file pass.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    io,
};

use domain::envelope::StoredEvent;
use uuid::Uuid;

use super::{
    formats::{Record, Records},
    merkle::{Hash, leaf_hash},
    reorder::Lines,
    verify::{Fault, Finding},
};

/// The lines of which it is looked for what happened to which: some 300 bytes of memory are needed for each.
pub(super) const LINES_MAX: u64 = 10_000_000;

/// How many lines of each kind are suspected to stand in a wrong place, of which every two are tried.
const SUSPECTS_MAX: usize = 3;

/// The file has `count` lines of the `size` that were signed.
pub(super) fn missing(mut lines: Records, count: u64, size: u64) -> io::Result<Finding> {
    let absent = size - count;
    let mut versions = Versions::default();
    let (mut number, mut hole, mut strange) = (0, None, None);
    while let Some(Record { bytes: line, position, .. }) = lines.next()? {
        number += 1;
        if let Some(position) = position
            && position != number
        {
            let detail = format!(
                "{absent} of {size} lines are missing: in the place of position {number} this row says that it is at {position}"
            );
            return Ok(Finding { fault: Fault::Missing, line: Some(number), detail });
        }
        if number > LINES_MAX {
            continue;
        }
        match read(line).map(|event| versions.take(&event)) {
            Some(Turn::Skips(skipped)) => drop(hole.get_or_insert((number, skipped))),
            Some(Turn::Own | Turn::Late) => {}
            None => drop(strange.get_or_insert(number)),
        }
    }
    let (line, why) = match hole {
        Some((line, skipped)) => (line, format!("{skipped} does not come before this one")),
        None if count > LINES_MAX => {
            (count + 1, format!("nothing shows a hole in the first {LINES_MAX}, and the others are not looked at"))
        }
        None => (count + 1, "probably the last ones, since nothing shows a hole before".to_owned()),
    };
    // The trail has such lines, too; but two that were made one are none.
    let strange = strange.map_or_else(String::new, |line| format!(" (line {line} is not an event)"));
    let detail = format!("{absent} of {size} lines are missing: {why}{strange}");
    Ok(Finding { fault: Fault::Missing, line: Some(line), detail })
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

/// As [`changed`], of a file of more than [`LINES_MAX`] lines.
pub(super) fn changed_somewhere(count: u64) -> Finding {
    let detail = format!("the lines do not have the signed root; of {count} lines it is not looked for which was changed");
    Finding { fault: Fault::Altered, line: None, detail }
}

/// The file has as many lines as were signed, with another root.
pub(super) fn changed(mut lines: Records, root: &Hash) -> io::Result<Finding> {
    let signs = Signs::of(&mut lines)?;
    if let Some((line, detail)) = proven_reordering(&signs, root) {
        return Ok(Finding { fault: Fault::Reordered, line: Some(line), detail });
    }
    let found = |fault, line, detail: &str| Ok(Finding { fault, line, detail: detail.to_owned() });
    if let Some(flaw) = lines.flaw {
        return Ok(Finding::altered(flaw));
    }
    if let Some(line) = signs.first_repeat {
        return found(Fault::Missing, Some(line), "this line repeats an earlier one, in place of one that is missing");
    }
    if let Some((line, position)) = signs.first_misplaced {
        let detail = format!("this row says that it is at position {position}");
        return Ok(Finding { fault: Fault::Reordered, line: Some(line), detail });
    }
    if let Some((line, skipped)) = signs.first_skip {
        return Ok(if signs.are_versions_complete {
            let detail = format!("{skipped} does not come before this line but after it");
            Finding { fault: Fault::Reordered, line: Some(line), detail }
        } else if let Some(strange) = signs.strange_before_skip {
            let detail = format!("this line is not an event, and {skipped} does not come before line {line}");
            Finding { fault: Fault::Altered, line: Some(strange), detail }
        } else {
            let detail = format!("{skipped} does not come before this line: its version or the other's was changed");
            Finding { fault: Fault::Altered, line: Some(line), detail }
        });
    }
    if let Some((effect, cause)) = signs.effects.first() {
        let detail = format!("this line is an effect of line {}, which comes after it", cause + 1);
        return Ok(Finding { fault: Fault::Reordered, line: Some(*effect as u64 + 1), detail });
    }
    if let Some(line) = signs.last_strange {
        return found(Fault::Altered, Some(line), "this line is not an event");
    }
    found(Fault::Altered, None, "the lines do not have the signed root: the content of at least one was changed")
}

/// What the lines tell of themselves.
#[derive(Default)]
struct Signs {
    entries: Vec<Entry>,
    /// The first line that is the same as an earlier one.
    first_repeat: Option<u64>,
    /// The last line that is no event, of all and of those before the first skip. The trail has such lines, too.
    last_strange: Option<u64>,
    strange_before_skip: Option<u64>,
    /// The first row that says that it is at another position, and which.
    first_misplaced: Option<(u64, u64)>,
    /// The first line before which an event of its aggregate has to come that does not, and which.
    first_skip: Option<(u64, String)>,
    are_versions_complete: bool,
    /// Indexes of the first lines that come before an earlier event of their aggregate, and of those earlier events.
    skips: Vec<usize>,
    late: Vec<usize>,
    /// Indexes of the first lines that come before what caused them, each with that.
    effects: Vec<(usize, usize)>,
}

struct Entry {
    leaf: Hash,
    position: Option<u64>,
    /// Of a line that is no event those of the one before, so that sorting leaves it there.
    time: i128,
    id: Uuid,
}

impl Signs {
    fn of(lines: &mut Records) -> io::Result<Self> {
        let mut signs = Self::default();
        let mut versions = Versions::default();
        let mut seen = HashSet::new();
        // Indexes of those that are waited for by their effects, of which only the first of each matters.
        let mut awaited: HashMap<Uuid, usize> = HashMap::new();
        let mut ids = HashSet::new();
        let (mut time, mut id) = (i128::MIN, Uuid::nil());
        while let Some(Record { bytes: line, position, .. }) = lines.next()? {
            let index = signs.entries.len();
            let number = index as u64 + 1;
            let leaf = leaf_hash(line);
            if !seen.insert(leaf) {
                signs.first_repeat.get_or_insert(number);
            }
            if let Some(position) = position
                && position != number
            {
                signs.first_misplaced.get_or_insert((number, position));
            }
            if let Some(event) = read(line) {
                let metadata = &event.metadata;
                (time, id) = (metadata.time.unix_timestamp_nanos(), metadata.event_id);
                ids.insert(id);
                signs.effects.extend(awaited.remove(&id).map(|effect| (effect, index)));
                let cause = metadata.causation_id.as_deref().and_then(|cause| cause.parse().ok());
                if let Some(cause) = cause.filter(|cause| !ids.contains(cause)) {
                    awaited.entry(cause).or_insert(index);
                }
                match versions.take(&event) {
                    Turn::Own => {}
                    Turn::Late => signs.late.push(index),
                    Turn::Skips(skipped) => {
                        if signs.first_skip.is_none() {
                            signs.strange_before_skip = signs.last_strange;
                            signs.first_skip = Some((number, skipped));
                        }
                        signs.skips.push(index);
                    }
                }
            } else {
                signs.last_strange = Some(number);
            }
            signs.entries.push(Entry { leaf, position, time, id });
        }
        signs.effects.sort_unstable();
        signs.are_versions_complete = versions.are_complete();
        Ok(signs)
    }

    /// Indexes of lines that may stand in a wrong place.
    fn suspects(&self) -> Vec<usize> {
        let first = |indexes: &[usize]| indexes.iter().copied().take(SUSPECTS_MAX).collect::<Vec<_>>();
        let effects = self.effects.iter().take(SUSPECTS_MAX).flat_map(|(effect, cause)| [*effect, *cause]);
        let suspects: BTreeSet<usize> = first(&self.skips).into_iter().chain(first(&self.late)).chain(effects).collect();
        suspects.into_iter().collect()
    }
}

/// If the lines have the signed root in another order, then nothing but the order was changed: the first line that is out of
/// place, and which order it is.
fn proven_reordering(signs: &Signs, root: &Hash) -> Option<(u64, String)> {
    let entries = &signs.entries;
    let lines = Lines::new(entries.iter().map(|entry| entry.leaf).collect());
    let sorted = |order: &dyn Fn(&Entry) -> (i128, Uuid), by: &str| {
        let mut indexes: Vec<usize> = (0..entries.len()).collect();
        indexes.sort_by_key(|index| order(&entries[*index]));
        let line = lines.first_moved(&indexes, root)?;
        Some((line, format!("sorted by {by} the lines are exactly those that were signed")))
    };
    let by_position = |entry: &Entry| (i128::from(entry.position.unwrap_or_default()), Uuid::nil());
    // Events of one moment may have kept their order, or be told apart by their ids, which count up.
    sorted(&by_position, "position")
        .or_else(|| sorted(&|entry| (entry.time, Uuid::nil()), "time"))
        .or_else(|| sorted(&|entry| (entry.time, entry.id), "time"))
        .or_else(|| lines.repaired(&signs.suspects(), root).map(|repair| (repair.line(), repair.to_string())))
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

/// When an event of an aggregate comes.
enum Turn {
    Own,
    /// After a later one.
    Late,
    /// Before an earlier one, which is named.
    Skips(String),
}

impl Versions {
    fn take(&mut self, event: &StoredEvent) -> Turn {
        let metadata = &event.metadata;
        let aggregate = self.hasher.hash_one((&metadata.aggregate_type, &metadata.aggregate_id));
        let seen = self.seen.entry(aggregate).or_default();
        let awaited = seen.complete + 1;
        let is_late = !seen.ahead.is_empty() && metadata.version == awaited;
        if metadata.version >= awaited {
            seen.ahead.insert(metadata.version);
        }
        while seen.ahead.remove(&(seen.complete + 1)) {
            seen.complete += 1;
        }
        if metadata.version > awaited {
            return Turn::Skips(format!("version {awaited} of {} {}", metadata.aggregate_type, metadata.aggregate_id));
        }
        if is_late { Turn::Late } else { Turn::Own }
    }

    /// Whether every version up to the highest was seen, of every aggregate.
    fn are_complete(&self) -> bool {
        self.seen.values().all(|seen| seen.ahead.is_empty())
    }
}

fn read(line: &[u8]) -> Option<StoredEvent> {
    StoredEvent::from_json(line).ok()
}
