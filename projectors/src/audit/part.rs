//! Whether the lines of a partial export are what was signed, each by its own proof.

use std::{collections::HashMap, io, path::Path};

use super::{
    checkpoint::Checkpoint,
    export::ProofLine,
    merkle::{Hash, leaf_hash},
    proof,
    verify::{Fault, Finding, Lines, unreadable},
};
use crate::failure::Failure;

/// Counts the lines, and finds what is wrong with them.
pub(super) fn compare(file: &Path, proofs: &Path, head: &Checkpoint) -> Result<(u64, Option<Finding>), Failure> {
    let mut lines = Lines::open(file).map_err(unreadable(file))?;
    let mut proof_lines = Lines::open(proofs).map_err(unreadable(proofs))?;
    let (mut count, mut last_position) = (0, 0);
    loop {
        let line = lines.next().map_err(unreadable(file))?.map(leaf_hash);
        let proof_line = proof_lines.next().map_err(unreadable(proofs))?;
        let (leaf, proof_line) = match (line, proof_line) {
            (None, None) => break,
            (Some(leaf), Some(proof_line)) => (leaf, proof_line),
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
        last_position = position;
    }
    let detail = "the last line does not end".to_owned();
    let cut = Finding { fault: Fault::Altered, line: Some(count), detail };
    Ok((count, (lines.is_cut || proof_lines.is_cut).then_some(cut)))
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
    let (mut lines, mut proven) = (0, 0);
    each(file, |text| {
        *surplus.entry(leaf_hash(text)).or_default() += 1;
        lines += 1;
    })
    .map_err(unreadable(file))?;
    each(proofs, |text| {
        if let Some((_, leaf, _)) = read(text) {
            *surplus.entry(leaf).or_default() -= 1;
        }
        proven += 1;
    })
    .map_err(unreadable(proofs))?;
    let (fault, detail) = if lines < proven {
        (Fault::Missing, format!("{} of {proven} lines are missing", proven - lines))
    } else if lines > proven {
        (Fault::Extra, format!("there are {} lines more than proofs", lines - proven))
    } else if surplus.values().all(|surplus| *surplus == 0) {
        (Fault::Reordered, "the lines are those of the proofs, in another order".to_owned())
    } else {
        (Fault::Altered, "this line is not the event of its proof".to_owned())
    };
    Ok((lines, Some(Finding { fault, line: Some(line), detail })))
}

fn each(path: &Path, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next()? {
        see(line);
    }
    Ok(())
}
