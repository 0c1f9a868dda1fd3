//! Whether the lines of a partial export are what was signed: each by its own proof, and all of them by what the checkpoint
//! states.

use std::{cmp::Ordering, collections::HashMap, path::Path};

use super::{
    checkpoint::{Checkpoint, Part},
    diagnosis,
    export::ProofLine,
    formats::{Flaw, Lines, PROOF_BYTES_MAX, Records},
    merkle::{Frontier, Hash, leaf_hash},
    proof,
    verify::{Fault, Finding, unreadable},
};
use crate::failure::Failure;

/// Counts the lines, and finds what is wrong with them. Without a `part` that was signed, lines may be missing together with
/// their proofs.
pub(super) fn compare(
    mut records: Records,
    file: &Path,
    proofs: &Path,
    head: &Checkpoint,
    part: Option<&Part>,
) -> Result<(u64, Option<Finding>), Failure> {
    let mut proof_lines = Lines::open(proofs, PROOF_BYTES_MAX).map_err(unreadable(proofs))?;
    let (mut count, mut last_position) = (0, 0);
    let mut tree = Frontier::new();
    loop {
        let record = records.next().map_err(unreadable(file))?;
        let line = record.map(|record| (leaf_hash(record.bytes), record.position));
        if let Some(damage) = records.damage {
            return Ok((count, Some(Finding::damaged(damage, records.is_cut))));
        }
        let proof_line = proof_lines.next().map_err(unreadable(proofs))?;
        let ((leaf, claimed), proof_line) = match (line, proof_line) {
            (None, None) => break,
            (Some(line), Some(proof_line)) => (line, proof_line),
            _ => return diagnose(file, proofs, count + 1),
        };
        count += 1;
        let Some((position, proven, inclusion)) = read(proof_line) else {
            let detail = "the proof of this line cannot be read".to_owned();
            return Ok((count, Some(Finding { fault: Fault::Altered, line: Some(count), detail })));
        };
        if leaf != proven {
            return diagnose(file, proofs, count);
        }
        if position <= last_position {
            let detail = format!("position {position} does not come after position {last_position}");
            return Ok((count, Some(Finding { fault: Fault::Reordered, line: Some(count), detail })));
        }
        if !proof::includes(&head.root, head.size, position - 1, leaf, &inclusion) {
            let detail = format!("this line is not proven to be the event at position {position} of those that were signed");
            return Ok((count, Some(Finding { fault: Fault::Altered, line: Some(count), detail })));
        }
        if let Some(claimed) = claimed
            && claimed != position
            && records.flaw.is_none()
        {
            let detail = format!("this row says that it is at position {claimed}, and is at {position}");
            return Ok((count, Some(Finding { fault: Fault::Altered, line: Some(count), detail })));
        }
        tree.append(leaf);
        last_position = position;
    }
    if records.is_cut {
        return Ok((count, Some(Finding::cut(count))));
    }
    let cut = || Flaw { number: count, detail: "the last line of the proofs does not end".to_owned() };
    let flaw = records.flaw.or_else(|| proof_lines.is_cut.then(cut));
    let finding = flaw.map(Finding::altered);
    Ok((count, finding.or_else(|| part.and_then(|part| not_the_part(&tree, part)))))
}

/// What is wrong with lines that are events of the log in their order, if they are not exactly those of the part that was signed.
/// Which lines it is does not show: their proofs are as right, or as gone, as they are.
fn not_the_part(tree: &Frontier, part: &Part) -> Option<Finding> {
    if part.is_of(tree) {
        return None;
    }
    let (lines, signed) = (tree.size(), part.lines);
    let (fault, detail) = match lines.cmp(&signed) {
        Ordering::Less => {
            (Fault::Missing, format!("{} of the {signed} lines that were exported are missing, and their proofs", signed - lines))
        }
        Ordering::Greater => (
            Fault::Extra,
            format!("there are {} lines more than the {signed} that were exported, and their proofs", lines - signed),
        ),
        Ordering::Equal => {
            let detail = "lines that were exported are missing, and other events of the log stand in the place of as many";
            (Fault::Missing, detail.to_owned())
        }
    };
    Some(Finding { fault, line: None, detail })
}

/// The position, from 1 on, its leaf and the siblings.
fn read(line: &[u8]) -> Option<(u64, Hash, Vec<Hash>)> {
    let line: ProofLine = serde_json::from_slice(line).ok()?;
    let (leaf, inclusion) = line.hashes()?;
    (line.position > 0).then_some((line.position, leaf, inclusion))
}

/// What happened to a file of which `line` is the first that is not the one of its proof.
fn diagnose(file: &Path, proofs: &Path, line: u64) -> Result<(u64, Option<Finding>), Failure> {
    // How many more lines than proofs there are of each leaf.
    let mut surplus: HashMap<Hash, i64> = HashMap::new();
    // Whether a proof is of a leaf of which there is no line at all.
    let mut is_without_line = false;
    let (mut lines, mut proven) = (0, 0);
    let mut records = Records::open(file).map_err(unreadable(file))?;
    while let Some(record) = records.next().map_err(unreadable(file))? {
        lines += 1;
        if lines <= diagnosis::LINES_MAX {
            *surplus.entry(leaf_hash(record.bytes)).or_default() += 1;
        }
    }
    let mut proof_lines = Lines::open(proofs, PROOF_BYTES_MAX).map_err(unreadable(proofs))?;
    while let Some(text) = proof_lines.next().map_err(unreadable(proofs))? {
        if lines <= diagnosis::LINES_MAX
            && let Some((_, leaf, _)) = read(text)
        {
            match surplus.get_mut(&leaf) {
                Some(surplus) => *surplus -= 1,
                None => is_without_line = true,
            }
        }
        proven += 1;
    }
    if let Some(damage) = records.damage {
        return Ok((lines, Some(Finding::damaged(damage, records.is_cut))));
    }
    if records.is_cut && lines <= proven {
        return Ok((lines, Some(Finding::cut(lines))));
    }
    let (fault, detail) = if lines < proven && line > lines {
        (Fault::Truncated, format!("the last {} of {proven} lines are missing", proven - lines))
    } else if lines < proven {
        (Fault::Missing, format!("{} of {proven} lines are missing", proven - lines))
    } else if lines > proven {
        (Fault::Extra, format!("there are {} lines more than proofs", lines - proven))
    } else if lines <= diagnosis::LINES_MAX && !is_without_line && surplus.values().all(|surplus| *surplus == 0) {
        (Fault::Reordered, "the lines are those of the proofs, in another order".to_owned())
    } else {
        (Fault::Altered, "this line is not the event of its proof".to_owned())
    };
    Ok((lines, Some(Finding { fault, line: Some(line), detail })))
}
