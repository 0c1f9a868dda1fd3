//! Every difference that a comparison finds, in a file, however many there are.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use read_store::projections::ProjectionName;
use serde::Serialize;

use super::Difference;

/// A file that takes one JSON object a line for each row that differs: `table`, and the fields of [`Difference`]. Clones write into the
/// same file.
///
/// What the file held before is there until the first difference is written, or there is known to be none.
#[derive(Clone, Debug)]
pub struct DifferenceLog(Arc<Mutex<Differences>>);

#[derive(Debug)]
struct Differences {
    file: BufWriter<File>,
    is_emptied: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    table: ProjectionName,
    #[serde(flatten)]
    difference: &'a Difference,
}

impl DifferenceLog {
    /// Makes sure that the file can be written, before anything is compared.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        Ok(Self(Arc::new(Mutex::new(Differences { file: BufWriter::new(file), is_emptied: false }))))
    }

    pub(super) fn write(&self, table: ProjectionName, difference: &Difference) -> io::Result<()> {
        let mut differences = self.differences();
        let file = differences.emptied()?;
        serde_json::to_writer(&mut *file, &Line { table, difference })?;
        file.write_all(b"\n")
    }

    /// Waits until everything is on disk.
    pub fn finish(&self) -> io::Result<()> {
        let mut differences = self.differences();
        let file = differences.emptied()?;
        file.flush()?;
        file.get_ref().sync_all()
    }

    fn differences(&self) -> MutexGuard<'_, Differences> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Differences {
    fn emptied(&mut self) -> io::Result<&mut BufWriter<File>> {
        // There is nothing to be emptied of a pipe, nor of a terminal.
        if !self.is_emptied && self.file.get_ref().metadata()?.is_file() {
            self.file.get_ref().set_len(0)?;
        }
        self.is_emptied = true;
        Ok(&mut self.file)
    }
}
