//! `projectors audit verify`: whether an exported file is what was signed. Needs the file, its checkpoint and the key, and of a partial
//! export its proofs, nothing else.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Serialize;

use super::{
    checkpoint::{Checkpoint, Part},
    diagnosis, export,
    formats::{Flaw, Records},
    key::VerifierKey,
    merkle::{Frontier, Hash, leaf_hash},
    part,
};
use crate::failure::Failure;

/// How much of a checkpoint is read: its filter has what fits on a command line, and witnesses have room for their signatures.
const NOTE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The checkpoint does not bear a valid signature of the key.
    WronglySigned,
    /// The file has fewer lines than were signed, or one of them was replaced by a copy of another.
    Missing,
    /// The file ends too early for certain: in the middle of a line, or before the last ones of which there are proofs.
    Truncated,
    /// The file has more lines than were signed.
    Extra,
    /// The lines are those that were signed, or look like it, but stand in another order.
    Reordered,
    /// The content of a line was changed.
    Altered,
}

impl Fault {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WronglySigned => "wrongly signed",
            Self::Missing => "missing",
            Self::Truncated => "truncated",
            Self::Extra => "extra",
            Self::Reordered => "reordered",
            Self::Altered => "altered",
        }
    }
}

/// A fault, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind.
    pub fault: Fault,
    /// The first line that shows it, from 1 on, where that can be told. In CSV and Parquet lines are rows, and the header is none.
    pub line: Option<u64>,
    /// In words.
    pub detail: String,
}

impl Finding {
    pub(super) fn altered(Flaw { number, detail }: Flaw) -> Self {
        Self { fault: Fault::Altered, line: Some(number), detail }
    }

    /// Of a file that cannot be read any further.
    pub(super) fn damaged(damage: Flaw, is_cut: bool) -> Self {
        Self { fault: if is_cut { Fault::Truncated } else { Fault::Altered }, ..Self::altered(damage) }
    }

    /// Of a file that has to be whole, and beside which proofs lie nevertheless.
    fn despite_proofs(mut self) -> Self {
        self.detail +=
            "; the checkpoint does not say that the file is a part, so its proofs count only if they are given as --proof";
        self
    }

    /// Of a file that ends in the middle of a line.
    pub(super) fn cut(line: u64) -> Self {
        Self { fault: Fault::Truncated, line: Some(line), detail: "the last line does not end".to_owned() }
    }
}

/// What verifying found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether the file is exactly what was signed; if it is [`partial`](Self::partial) without a signed [`part`](Self::part),
    /// whether each of its lines is.
    pub verified: bool,
    /// Whether the file was verified by proofs of its lines, as one that leaves events of the log out.
    pub partial: bool,
    /// What the checkpoint states of the part that was exported. None of a whole export; and if it is [`partial`](Self::partial),
    /// nothing that is signed shows whether lines are missing.
    pub part: Option<Part>,
    /// How many events were signed; none if the signature is wrong.
    pub size: Option<u64>,
    /// The signed root, in base64.
    pub root: Option<String>,
    /// How many lines the file has.
    pub lines: u64,
    /// What is wrong, if anything is.
    pub finding: Option<Finding>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(size), Some(root)) = (self.size, &self.root) {
            writeln!(f, "size      {size}\nroot      {root}")?;
        }
        if let Some(Part { lines, filter, .. }) = &self.part {
            writeln!(f, "part      {lines} lines\nfilter    {filter}")?;
        }
        let Some(finding) = &self.finding else {
            write!(f, "verified  yes")?;
            let (lines, size) = (self.lines, self.size.unwrap_or_default());
            return match self.part {
                Some(_) => write!(f, ", as a part: each of {lines} lines is one of the {size} events, and none is missing"),
                None if self.partial => {
                    write!(f, ", line by line: each of {lines} lines is one of the {size} events; ")?;
                    write!(f, "nothing that is signed shows whether lines are missing")
                }
                None => Ok(()),
            };
        };
        write!(f, "verified  no: {}", finding.fault.as_str())?;
        if let Some(line) = finding.line {
            write!(f, " (line {line})")?;
        }
        write!(f, ": {}", finding.detail)
    }
}

/// Verifies `file` by the checkpoint at `checkpoint` with `key`. If that states a part, the file must have exactly its lines,
/// each with its proof in `proofs`, or else in the file of proofs beside it. If not, the file must have every event that was
/// signed; only with `proofs` it may be less, and then each of its lines must be one of them, as its proof shows.
///
/// A file that is not what was signed is a [`Verdict`], not an error; an error is a file that cannot be read. What is no regular
/// file, such as a pipe, is refused as a usage error before anything is judged, since files are read more than once.
pub fn verify(file: &Path, checkpoint: &Path, proofs: Option<&Path>, key: &VerifierKey) -> Result<Verdict, Failure> {
    can_be_read_again("FILE", file)?;
    proofs.map_or(Ok(()), |proofs| can_be_read_again("--proof", proofs))?;
    let mut note = Vec::new();
    let read = File::open(checkpoint).and_then(|file| file.take(NOTE_BYTES_MAX).read_to_end(&mut note));
    read.map_err(unreadable(checkpoint))?;
    // Opened before the signature is judged, so that a missing file is told as such.
    let records = Records::open(file).map_err(unreadable(file))?;
    let opened = String::from_utf8(note).map_err(|_| "the checkpoint is not a signed note".to_owned());
    let (head, part) = match opened.and_then(|note| Checkpoint::open_export(&note, key).map_err(|error| error.to_string())) {
        Ok(opened) => opened,
        Err(detail) => {
            let finding = Finding { fault: Fault::WronglySigned, line: None, detail };
            let partial = proofs.is_some();
            let verdict =
                Verdict { verified: false, partial, part: None, size: None, root: None, lines: 0, finding: Some(finding) };
            return Ok(verdict);
        }
    };
    // Whoever can change the file can put proofs beside it as well: only what is signed makes it a part, or whoever asks for
    // that.
    let beside = export::proof_path(file);
    let proofs = proofs.or(part.is_some().then_some(&*beside));
    let (lines, finding) = match proofs {
        None => {
            let (lines, finding) = compare(records, file, &head).map_err(unreadable(file))?;
            (lines, finding.map(|finding| if beside.exists() { finding.despite_proofs() } else { finding }))
        }
        Some(proofs) => {
            can_be_read_again("--proof", proofs).map_err(|failure| match failure {
                Failure::NotFound(detail) => {
                    Failure::NotFound(format!("{detail}: it has the proofs of the lines of {}", file.display()))
                }
                failure => failure,
            })?;
            part::compare(records, file, proofs, &head, part.as_ref())?
        }
    };
    let (size, root) = (Some(head.size), Some(BASE64.encode(head.root)));
    Ok(Verdict { verified: finding.is_none(), partial: proofs.is_some(), part, size, root, lines, finding })
}

fn can_be_read_again(argument: &str, path: &Path) -> Result<(), Failure> {
    if std::fs::metadata(path).map_err(unreadable(path))?.is_file() {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::refused(
        argument,
        &format!("{path} is not a regular file, which is read more than once: write it to one, and verify that"),
    ))
}

pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => Failure::NotFound(format!("{} does not exist", path.display())),
        _ => Failure::other(format!("read {}", path.display()))(error),
    }
}

/// Counts the events, and finds what is wrong with them. Reads the file once if nothing is.
fn compare(mut records: Records, file: &Path, head: &Checkpoint) -> io::Result<(u64, Option<Finding>)> {
    let mut tree = Frontier::new();
    let mut root_at_size: Option<Hash> = (head.size == 0).then(|| tree.root());
    let mut misplaced = None;
    while let Some(record) = records.next()? {
        tree.append(leaf_hash(record.bytes));
        if tree.size() == head.size {
            root_at_size = Some(tree.root());
        }
        if let Some(position) = record.position
            && position != tree.size()
        {
            misplaced
                .get_or_insert(Flaw { number: tree.size(), detail: format!("this row says that it is at position {position}") });
        }
    }
    let count = tree.size();
    let is_prefix = root_at_size == Some(head.root);
    let finding = if let Some(damage) = records.damage {
        Finding::damaged(damage, records.is_cut)
    } else if records.is_cut && count <= head.size {
        Finding::cut(count)
    } else if is_prefix && count == head.size {
        // The hash covers the bytes of the events alone.
        let flaw = [records.flaw, misplaced].into_iter().flatten().min_by_key(|flaw| flaw.number);
        return Ok((count, flaw.map(Finding::altered)));
    } else if count < head.size {
        diagnosis::missing(Records::open(file)?, count, head.size)?
    } else if count > head.size {
        diagnosis::extra(count, head.size, is_prefix)
    } else if count > diagnosis::LINES_MAX {
        diagnosis::changed_somewhere(count)
    } else {
        diagnosis::changed(Records::open(file)?, &head.root)?
    };
    Ok((count, Some(finding)))
}
