//! The catalogue's files, and the golden files that are its examples.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use serde::Serialize;
use serde_json::Value;

/// What brings the files up to date.
pub const COMMAND: &str = "cargo xtask catalogue";

const FOLDER: &str = "docs/events";
const GOLDEN_FOLDER: &str = "domain/tests/golden";

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {file}")]
pub struct FileError {
    action: &'static str,
    file: String,
    source: io::Error,
}

impl FileError {
    fn of(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, file: file.to_owned(), source }
    }
}

/// Writes the catalogue, and removes what is not part of it any more. Returns how many files it has.
pub fn write() -> Result<usize, FileError> {
    let documents = crate::documents()?;
    let folder = path(FOLDER);
    fs::create_dir_all(&folder).map_err(FileError::of("create", FOLDER))?;
    for (name, text) in &documents {
        fs::write(folder.join(name), text).map_err(FileError::of("write", name))?;
    }
    for name in committed()?.keys().filter(|name| !documents.contains_key(*name)) {
        fs::remove_file(folder.join(name)).map_err(FileError::of("remove", name))?;
    }
    Ok(documents.len())
}

/// How the committed files differ from the catalogue and what to do about it, or `None` if they do not.
pub fn difference() -> Result<Option<String>, FileError> {
    let (documents, committed) = (crate::documents()?, committed()?);
    let mut differences = Vec::new();
    for (name, text) in &documents {
        match committed.get(name) {
            None => differences.push(format!("{FOLDER}/{name} is missing")),
            Some(committed) if committed != text.as_bytes() => differences.push(format!("{FOLDER}/{name} differs from the types")),
            Some(_) => {}
        }
    }
    let strays = committed.keys().filter(|name| !documents.contains_key(*name));
    differences.extend(strays.map(|name| format!("{FOLDER}/{name} is no part of the catalogue")));
    Ok((!differences.is_empty()).then(|| format!("run `{COMMAND}` and commit what it writes:\n  {}", differences.join("\n  "))))
}

/// Indented, with a newline at the end, so that a change shows as the lines that changed.
pub(crate) fn text(document: &impl Serialize) -> String {
    let text =
        serde_json::to_string_pretty(document).expect("a document has no map with keys that are not strings, so it serializes");
    text + "\n"
}

/// A stored message of that type.
pub(crate) fn golden(event_type: &str) -> Result<Value, FileError> {
    let file = format!("{GOLDEN_FOLDER}/{event_type}.json");
    let read = || serde_json::from_slice(&fs::read(path(&file))?).map_err(io::Error::from);
    read().map_err(FileError::of("read", &file))
}

fn committed() -> Result<BTreeMap<String, Vec<u8>>, FileError> {
    let read = || {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(path(FOLDER))? {
            let entry = entry?;
            files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
        }
        Ok(files)
    };
    read().map_err(FileError::of("read", FOLDER))
}

/// Of this checkout.
fn path(relative: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(relative)
}
