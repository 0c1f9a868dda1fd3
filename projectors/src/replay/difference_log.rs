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
#[derive(Clone, Debug)]
pub struct DifferenceLog(Arc<Mutex<BufWriter<File>>>);

#[derive(Serialize)]
struct Line<'a> {
    table: ProjectionName,
    #[serde(flatten)]
    difference: &'a Difference,
}

impl DifferenceLog {
    /// An empty file; one that exists is emptied.
    pub fn create(path: &Path) -> io::Result<Self> {
        File::create(path).map(|file| Self(Arc::new(Mutex::new(BufWriter::new(file)))))
    }

    pub(super) fn write(&self, table: ProjectionName, difference: &Difference) -> io::Result<()> {
        let mut file = self.file();
        serde_json::to_writer(&mut *file, &Line { table, difference })?;
        file.write_all(b"\n")
    }

    /// Waits until everything is on disk.
    pub fn finish(&self) -> io::Result<()> {
        let mut file = self.file();
        file.flush()?;
        file.get_ref().sync_all()
    }

    fn file(&self) -> MutexGuard<'_, BufWriter<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
