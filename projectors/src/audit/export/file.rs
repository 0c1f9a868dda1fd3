//! Files that appear only when they are complete.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A file that has its name only once it is complete, and is gone if it never is.
pub(super) struct PartialFile<'a> {
    pub(super) file: File,
    partial: PathBuf,
    path: &'a Path,
    is_complete: bool,
}

impl<'a> PartialFile<'a> {
    pub(super) fn create(path: &'a Path) -> io::Result<Self> {
        let partial = with_suffix(path, &format!(".partial-{}", std::process::id()));
        Ok(Self { file: File::create(&partial)?, partial, path, is_complete: false })
    }

    /// On disk, under its name.
    pub(super) fn complete(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, self.path)?;
        self.is_complete = true;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

impl Drop for PartialFile<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            // What cannot be removed now, somebody will find by its name.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
