//! The ledger file: one JSON document per line, only ever appended to.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{payment_intent::Intent, refund::Refund};

/// One thing that happened, with the idempotency key under which it did: both are known, or neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) happened: Happened,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency: Option<UsedKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Happened {
    PaymentIntent(Intent),
    Refund(Refund),
}

/// An idempotency key and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsedKey {
    pub(crate) key: String,
    pub(crate) params: String,
}

/// Why a ledger file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another simulator has it open.
    #[error("the ledger file {0} is in use by another simulator")]
    InUse(PathBuf),
    /// The system refused to open, read, or cut it.
    #[error("open the ledger file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not an entry. Nothing is guessed: money is recorded here.
    #[error("line {line} of the ledger file {path} is not a ledger entry")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// An open ledger file, locked against a second simulator until it is closed or the process ends.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Where the next entry begins.
    end: u64,
}

impl Journal {
    /// Opens or creates the file, and hands every entry in it to `replay`, the oldest first.
    pub(crate) fn open(path: &Path, mut replay: impl FnMut(Entry)) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LedgerError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }

        let mut end = 0;
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(failed)?;
            if line.last() != Some(&b'\n') {
                if length > 0 {
                    // The process died inside a write, so this entry was never answered and did not happen.
                    warn!(line = number, "the ledger's last line is cut short: dropping it");
                }
                break;
            }
            replay(serde_json::from_slice(&line).map_err(|source| LedgerError::Corrupt {
                path: path.to_owned(),
                line: number,
                source,
            })?);
            end += length as u64;
        }
        file.set_len(end).map_err(failed)?;
        file.seek(SeekFrom::Start(end)).map_err(failed)?;
        Ok(Self { file, end })
    }

    /// Writes one entry through to the system, so that it outlives this process.
    ///
    /// After an error the file is as it was before.
    pub(crate) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line).and_then(|()| self.file.flush()) {
            self.file.set_len(self.end)?;
            self.file.seek(SeekFrom::Start(self.end))?;
            return Err(error);
        }
        self.end += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::{ledger::Stamp, params::Params, payment_intent::NewIntent};

    fn entry(key: &str) -> Entry {
        let params =
            Params::parse("amount=100&currency=eur&confirm=true&payment_method=pm_card_chargeDeclined&metadata[order_id]=o-1")
                .expect("form encoding");
        let intent =
            NewIntent::parse(&params).expect("valid").create(Stamp { at: OffsetDateTime::UNIX_EPOCH, unique: Uuid::nil() }, false);
        Entry {
            happened: Happened::PaymentIntent(intent),
            idempotency: Some(UsedKey { key: key.to_owned(), params: params.fingerprint() }),
        }
    }

    fn read(path: &Path) -> Result<Vec<Entry>, LedgerError> {
        let mut entries = Vec::new();
        Journal::open(path, |entry| entries.push(entry)).map(|_| entries)
    }

    #[test]
    fn entries_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.jsonl");
        let (one, two) = (entry("one"), entry("two"));
        let mut journal = Journal::open(&path, |_| panic!("a new file is empty")).expect("opens");
        journal.append(&one).expect("writes");
        drop(journal);
        let mut journal = Journal::open(&path, drop).expect("opens");
        journal.append(&two).expect("writes");
        drop(journal);
        assert_eq!(read(&path).expect("reads"), [one, two]);
    }

    #[test]
    fn an_entry_cut_short_by_a_crash_never_happened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.jsonl");
        let mut journal = Journal::open(&path, drop).expect("opens");
        journal.append(&entry("one")).expect("writes");
        journal.append(&entry("two")).expect("writes");
        drop(journal);
        let bytes = fs::read(&path).expect("reads");
        fs::write(&path, &bytes[..bytes.len() - 10]).expect("writes");

        let mut journal = Journal::open(&path, drop).expect("opens");
        journal.append(&entry("three")).expect("writes");
        drop(journal);

        let keys: Vec<_> =
            read(&path).expect("reads").into_iter().filter_map(|entry| entry.idempotency.map(|used| used.key)).collect();
        assert_eq!(keys, ["one", "three"]);
    }

    #[test]
    fn a_file_that_is_no_ledger_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.jsonl");
        fs::write(&path, "{\"happy\":true}\n").expect("writes");
        assert!(matches!(read(&path), Err(LedgerError::Corrupt { line: 1, .. })));
    }

    #[test]
    fn two_simulators_cannot_share_a_ledger() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.jsonl");
        let _first = Journal::open(&path, drop).expect("opens");
        assert!(matches!(read(&path), Err(LedgerError::InUse(_))));
    }
}
