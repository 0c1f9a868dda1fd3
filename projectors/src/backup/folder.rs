//! The folder of a backup, which has its name only once it is complete.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::manifest::{CopiedFile, FORMAT, Manifest};
use crate::failure::Failure;

const MANIFEST: &str = "manifest.json";
/// Of every other file, for `sha256sum --check`.
const SUMS: &str = "SHA256SUMS";
/// Events hold names and addresses of customers, so nobody but the owner reads them.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Bytes that are read at a time.
const READ_BYTES: usize = 1_024 * 1_024;

/// A folder that is being filled beside its place, and is gone if it never is complete. What a kill leaves is called `.incomplete-` and a
/// number, and never has a manifest in the place where one is looked for.
pub(super) struct NewFolder {
    place: PathBuf,
    unfinished: PathBuf,
    is_complete: bool,
}

impl NewFolder {
    /// Fails with [`Failure::Conflict`] if there is something in `place`.
    pub(super) fn create(place: &Path) -> Result<Self, Failure> {
        match fs::read_dir(place).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(taken(place)),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(taken(place)),
            Err(error) => return Err(Failure::other(format!("look into {}", place.display()))(error)),
        }
        // Of `backup/.` or `..` the last part would be no name.
        let name = place.file_name().ok_or_else(|| taken(place))?.to_owned();
        let mut unfinished = name;
        unfinished.push(format!(".incomplete-{}", std::process::id()));
        let unfinished = place.with_file_name(unfinished);
        let created = DirBuilder::new().mode(FOLDER_MODE).create(&unfinished);
        created.map_err(Failure::other(format!("create {}", unfinished.display())))?;
        Ok(Self { place: place.to_owned(), unfinished, is_complete: false })
    }

    pub(super) fn file(&self, name: &str) -> Result<NewFile, Failure> {
        NewFile::create(self.unfinished.join(name), name)
    }

    /// Writes the manifest and the sums, and gives the folder its name once all of it is on disk.
    pub(super) fn complete(mut self, manifest: &Manifest) -> Result<(), Failure> {
        let cannot = |error: io::Error| Failure::other(format!("write {}", self.place.display()))(error);
        let mut file = self.file(MANIFEST)?;
        let mut text = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys and times of our clocks");
        text.push(b'\n');
        file.write(&text)?;
        let of_manifest = file.finish()?;
        let files = manifest.streams.iter().map(|stream| &stream.copied).chain(&manifest.key).chain([&of_manifest]);
        let sums: Vec<_> = files.map(|CopiedFile { file, sha256, .. }| format!("{sha256}  {file}\n")).collect();
        let mut file = self.file(SUMS)?;
        file.write(sums.concat().as_bytes())?;
        file.finish()?;
        File::open(&self.unfinished).and_then(|folder| folder.sync_all()).map_err(cannot)?;
        match fs::rename(&self.unfinished, &self.place) {
            Ok(()) => self.is_complete = true,
            // Somebody was faster.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                return Err(taken(&self.place));
            }
            Err(error) => return Err(cannot(error)),
        }
        let parent = self.place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(cannot)
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.is_complete {
            // What cannot be removed now, somebody will find by its name.
            let _ = fs::remove_dir_all(&self.unfinished);
        }
    }
}

fn taken(place: &Path) -> Failure {
    Failure::Conflict(format!("{} must be a folder that is empty or does not exist", place.display()))
}

/// A file of a [`NewFolder`], of which is known what it holds.
pub(super) struct NewFile {
    name: String,
    path: PathBuf,
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl NewFile {
    fn create(path: PathBuf, name: &str) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(Failure::other(format!("create {}", path.display())))?;
        Ok(Self { name: name.to_owned(), path, file, digest: Sha256::new(), bytes: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(Failure::other(format!("write {}", self.path.display())))?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns when it is on disk.
    pub(super) fn finish(self) -> Result<CopiedFile, Failure> {
        self.file.sync_all().map_err(Failure::other(format!("write {}", self.path.display())))?;
        Ok(CopiedFile { file: self.name, bytes: self.bytes, sha256: hex(&self.digest.finalize()) })
    }
}

/// A complete backup.
pub(super) struct Folder {
    path: PathBuf,
    pub(super) manifest: Manifest,
}

impl Folder {
    /// Reads what it says of itself, and makes sure that its files are what they were. What is inside these is the server's affair.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let missing = |name: &str| Failure::NotFound(format!("{} is no backup: it has no {name}", path.display()));
        let read = |name: &str| match fs::read(path.join(name)) {
            Ok(bytes) => Ok(bytes),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(missing(name)),
            Err(error) => Err(Failure::other(format!("read {}", path.join(name).display()))(error)),
        };
        let (text, sums) = (read(MANIFEST)?, read(SUMS)?);
        let is_listed = {
            let line = format!("{}  {MANIFEST}", hex(&Sha256::digest(&text)));
            String::from_utf8_lossy(&sums).lines().any(|listed| listed == line)
        };
        if !is_listed {
            return Err(Failure::Integrity(format!("{MANIFEST} is not the one that {SUMS} is about")));
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| {
            let format = serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|value| value["format"].as_u64());
            match format {
                Some(format) if format != u64::from(FORMAT) => other_format(format),
                _ => Failure::Integrity(format!("{MANIFEST} cannot be read: {error}")),
            }
        })?;
        if manifest.format != FORMAT {
            return Err(other_format(manifest.format.into()));
        }
        let folder = Self { path: path.to_owned(), manifest };
        for copied in folder.manifest.streams.iter().map(|stream| &stream.copied).chain(&folder.manifest.key) {
            folder.check(copied)?;
        }
        Ok(folder)
    }

    fn check(&self, copied: &CopiedFile) -> Result<(), Failure> {
        let mut reader = self.read(copied)?;
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = reader.read(&mut buffer).map_err(Failure::other(format!("read {}", copied.file)))?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
            bytes += read as u64;
        }
        if bytes != copied.bytes {
            let file = &copied.file;
            return Err(Failure::Integrity(format!("{file} has {bytes} bytes and had {} when it was written", copied.bytes)));
        }
        if hex(&digest.finalize()) != copied.sha256 {
            return Err(Failure::Integrity(format!("{} is not what was written: its SHA-256 differs", copied.file)));
        }
        Ok(())
    }

    pub(super) fn read(&self, copied: &CopiedFile) -> Result<impl Read + use<>, Failure> {
        let path = self.path.join(&copied.file);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::Integrity(format!("{} is missing", copied.file)),
            _ => Failure::other(format!("read {}", path.display()))(error),
        })?;
        Ok(BufReader::with_capacity(READ_BYTES, file))
    }
}

fn other_format(format: u64) -> Failure {
    Failure::Conflict(format!("the backup has the format {format}, and this build reads {FORMAT}: take the build that wrote it"))
}

fn hex(digest: &[u8]) -> String {
    let bytes: Vec<_> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}
