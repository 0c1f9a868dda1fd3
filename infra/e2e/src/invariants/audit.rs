//! Invariant 5: the exported trail is the log, and its root, computed anew, is the one that was signed.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use local_stack::Stack;

use super::log::LogFold;
use super::merkle::{self, Hash};
use super::program::projectors;
use super::violations::Violations;

/// What came of the audit.
pub(super) struct Audited {
    pub(super) is_verified: bool,
    /// The root over the whole log, in hex.
    pub(super) root_hex: String,
}

/// Exports the trail and holds it against the log.
pub(super) async fn check(stack: &Stack, log: &LogFold, violations: &mut Violations) -> anyhow::Result<Audited> {
    let folder = tempfile::tempdir().context("create a folder for the exported trail")?;
    let file = folder.path().join("trail.jsonl");
    let root = merkle::root(&log.leaves);
    let outcome = check_export(stack, log, &file, &root).await;
    let is_verified = outcome.is_ok();
    if let Err(error) = outcome {
        violations.add("audit", format!("{error:#}"));
    }
    Ok(Audited { is_verified, root_hex: merkle::hex(&root) })
}

async fn check_export(stack: &Stack, log: &LogFold, file: &Path, root: &Hash) -> anyhow::Result<()> {
    let file_name = file.to_str().context("the name of the temporary folder is not UTF-8")?;
    projectors(stack, &["audit", "export", "--format", "jsonl", "--out", file_name]).await?;
    projectors(stack, &["audit", "verify", file_name, "--key", &stack.info().audit_vkey]).await?;
    compare_lines(file, &log.leaves)?;
    let note = fs::read_to_string(format!("{file_name}.checkpoint")).context("read the signed checkpoint")?;
    let signed = read_checkpoint(&note)?;
    ensure!(signed.size == log.leaves.len() as u64, "{} events are signed, the log has {}", signed.size, log.leaves.len());
    ensure!(signed.root == *root, "the signed root is {}, that of the log {}", merkle::hex(&signed.root), merkle::hex(root));
    Ok(())
}

/// Line i has the same hash as the event at position i, so it has the same bytes.
fn compare_lines(file: &Path, leaves: &[Hash]) -> anyhow::Result<()> {
    let mut lines = BufReader::new(File::open(file).context("open the exported trail")?).split(b'\n');
    for (index, leaf) in leaves.iter().enumerate() {
        let line = lines.next().with_context(|| format!("the exported trail ends before position {}", index + 1))??;
        ensure!(merkle::leaf(&line) == *leaf, "line {} of the exported trail is not the event at that position", index + 1);
    }
    ensure!(lines.next().is_none(), "the exported trail goes on after position {}", leaves.len());
    Ok(())
}

struct Signed {
    size: u64,
    root: Hash,
}

/// The first three lines of a C2SP tlog-checkpoint: origin, size, root.
fn read_checkpoint(note: &str) -> anyhow::Result<Signed> {
    let mut lines = note.lines();
    let (origin, size, root) = (lines.next(), lines.next(), lines.next());
    ensure!(origin == Some("contrail/EVENTS"), "the checkpoint is about {origin:?}");
    let size = size.context("the checkpoint has no size")?.parse().context("read the checkpoint's size")?;
    let root = BASE64.decode(root.context("the checkpoint has no root")?).context("read the checkpoint's root")?;
    let root = root.try_into().map_err(|_| anyhow::anyhow!("the checkpoint's root is no SHA-256 hash"))?;
    Ok(Signed { size, root })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read() {
        let note = format!("contrail/EVENTS\n7\n{}\n\n— contrail/EVENTS c2lnbmF0dXJl\n", BASE64.encode([5; 32]));
        let signed = read_checkpoint(&note).unwrap();
        assert_eq!((signed.size, signed.root), (7, [5; 32]));
        assert!(read_checkpoint("other\n7\nAAAA\n").is_err());
    }

    #[test]
    fn a_line_that_is_altered_missing_or_added_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trail.jsonl");
        let leaves = [b"a", b"b"].map(|bytes| merkle::leaf(bytes));
        let outcome = |text: &str| {
            fs::write(&file, text).unwrap();
            compare_lines(&file, &leaves)
        };
        assert!(outcome("a\nb\n").is_ok());
        for wrong in ["a\nB\n", "b\na\n", "a\n", "a\nb\nc\n", "a\nb\n\n"] {
            assert!(outcome(wrong).is_err(), "{wrong:?}");
        }
    }
}
