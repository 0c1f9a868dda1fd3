//! Files that appear only when they are complete.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// Who may read an export: its owner, since events name people.
const FILE_MODE: u32 = 0o600;
/// How many symlinks in a row are followed to a file that does not exist yet, as the kernel has it.
const SYMLINKS_MAX: usize = 40;

/// Where a file is to be written.
pub(super) struct Target {
    /// Without symlinks, which stay what they are.
    resolved: PathBuf,
}

impl Target {
    /// Fails with a usage error if something is there that a file must not replace, such as a folder or a device.
    pub(super) fn of(argument: &str, path: &Path) -> Result<Self, Failure> {
        let resolved = resolved(path).map_err(cannot_write(path))?;
        match fs::metadata(&resolved) {
            Ok(metadata) if !metadata.is_file() => {
                let path = path.display();
                Err(Failure::refused(argument, &format!("{path} is there and no regular file; - is for standard output")))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(path)(error)),
            _ => Ok(Self { resolved }),
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.resolved == other.resolved
    }
}

/// The path without symlinks, of a file that need not exist in a folder that has to.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..SYMLINKS_MAX {
        match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match (fs::read_link(&path), path.file_name()) {
                (Ok(leads_to), _) => path = directory(&path).join(leads_to),
                (Err(_), Some(name)) => return Ok(fs::canonicalize(directory(&path))?.join(name)),
                (Err(_), None) => return Err(error),
            },
            resolved => return resolved,
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symlinks"))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    Failure::other(format!("write {}", path.display()))
}

/// A file that has its name only once it is complete, and is gone if it never is.
pub(super) struct PartialFile {
    pub(super) file: File,
    partial: PathBuf,
    target: PathBuf,
    is_complete: bool,
}

impl PartialFile {
    pub(super) fn create(target: &Target) -> io::Result<Self> {
        let target = target.resolved.clone();
        let partial = with_suffix(&target, &format!(".partial-{}", std::process::id()));
        // What an ended process of that number has left, or somebody has put there, is not written to.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&partial)?;
        Ok(Self { file, partial, target, is_complete: false })
    }

    /// On disk, under its name.
    pub(super) fn complete(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.target)?;
        self.is_complete = true;
        File::open(directory(&self.target))?.sync_all()
    }
}

impl Drop for PartialFile {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_are_followed_to_files_that_do_not_exist_yet() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(real.join("data")).unwrap();
        symlink("data/second", real.join("first")).unwrap();
        symlink("third", real.join("data/second")).unwrap();
        symlink(".", real.join("here")).unwrap();
        for path in ["first", "data/second", "data/third", "here/data/third", "data/../first"] {
            assert_eq!(resolved(&real.join(path)).unwrap(), real.join("data/third"), "{path}");
        }
        symlink("round", real.join("round")).unwrap();
        for path in ["round", "absent/file", "absent/.."] {
            assert!(resolved(&real.join(path)).is_err(), "{path}");
        }
    }
}
