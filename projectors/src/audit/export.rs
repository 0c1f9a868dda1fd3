//! `projectors audit export`: the trail as a file that anybody can check without us.
//!
//! Each line is exactly the stored bytes of one event, from position 1 on, and beside the file lies a signed checkpoint of exactly
//! these lines. Nothing is signed that does not fit what was recorded before.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures::TryStreamExt;
use read_store::projections::ProjectionName;
use serde::Serialize;
use sqlx::{PgPool, Row};

use super::{
    checkpoint::Checkpoint,
    key::Signer,
    merkle::{Frontier, Hash, leaf_hash},
};
use crate::{checkpoints, failure::Failure, progress::Progress, read_models::signed};

/// Rows asked for at a time; between two pages no lock is held, so that an export does not hold up the swap of a replay.
const PAGE_ROWS_MAX: i64 = 1_000;
/// Size of the output buffer, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where an export goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, which appears only when it is complete; an older one is replaced.
    File(PathBuf),
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// How many events, and up to which position.
    pub events: u64,
    /// The root of the tree over them, in base64.
    pub root: String,
    /// The file, unless it went to standard output.
    pub file: Option<PathBuf>,
    /// The signed checkpoint beside it.
    pub checkpoint: Option<PathBuf>,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = if self.events == 1 { "event" } else { "events" };
        write!(f, "exported {} {events} with the root {}", self.events, self.root)
    }
}

/// The last signed checkpoint, as a signed note. [`Failure::NotFound`] before the first.
pub async fn last_note(pool: &PgPool) -> Result<String, Failure> {
    let note = sqlx::query_scalar("SELECT note FROM contrail.audit_checkpoints ORDER BY size DESC LIMIT 1");
    let note = note.fetch_optional(pool).await.map_err(Failure::postgres("read the signed checkpoints"))?;
    note.ok_or_else(|| Failure::NotFound("no checkpoint is signed yet".to_owned()))
}

/// The path of the checkpoint that belongs to an exported file.
pub fn checkpoint_path(file: &Path) -> PathBuf {
    with_suffix(file, ".checkpoint")
}

/// Exports positions 1 to `to_position`, or to wherever the trail is. `checkpoint` is where the signed checkpoint goes, by default
/// beside the file; an export to standard output has none unless it is given.
///
/// Fails with [`Failure::Integrity`] if the table is not what was recorded: then nothing is signed and no file appears.
pub async fn export(
    pool: &PgPool,
    signer: &Signer,
    destination: &Destination,
    checkpoint: Option<PathBuf>,
    to_position: Option<u64>,
) -> Result<Exported, Failure> {
    let trail =
        checkpoints::peek(pool, ProjectionName::Audit).await.map_err(Failure::postgres("read the audit trail's position"))?;
    let to_position = to_position.unwrap_or(trail.position);
    if to_position > trail.position {
        return Err(Failure::Away(format!("the audit trail is at position {}, not yet at {to_position}", trail.position)));
    }
    let mut expected = vec![recorded_head(pool, to_position).await?];
    if to_position == trail.position {
        let tree = Frontier::from_bytes(trail.position, trail.frontier.as_deref().unwrap_or_default());
        let tree = tree.map_err(|error| Failure::Integrity(format!("the stored audit tree is broken: {error}")))?;
        expected.push(Some((tree.size(), tree.root())));
    }
    let expected: Vec<_> = expected.into_iter().flatten().collect();

    let tree = match destination {
        Destination::Stdout => {
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
            let tree = copy(pool, to_position, &expected, &mut out).await?;
            out.flush().map_err(Failure::other("write to standard output"))?;
            tree
        }
        Destination::File(path) => {
            let partial = PartialFile::create(path).map_err(Failure::other(format!("create a file beside {}", path.display())))?;
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, &partial.file);
            let tree = copy(pool, to_position, &expected, &mut out).await?;
            out.flush().map_err(Failure::other(format!("write {}", path.display())))?;
            drop(out);
            partial.complete().map_err(Failure::other(format!("write {}", path.display())))?;
            tree
        }
    };

    let head = Checkpoint::of(&tree);
    let (file, beside) = match destination {
        Destination::Stdout => (None, None),
        Destination::File(path) => (Some(path.clone()), Some(checkpoint_path(path))),
    };
    let checkpoint = checkpoint.or(beside);
    if let Some(path) = &checkpoint {
        let write = || {
            let partial = PartialFile::create(path)?;
            (&partial.file).write_all(head.sign(signer).as_bytes())?;
            partial.complete()
        };
        write().map_err(Failure::other(format!("write {}", path.display())))?;
    }
    Ok(Exported { events: head.size, root: BASE64.encode(head.root), file, checkpoint })
}

/// The last head that was signed of at most `size` events.
async fn recorded_head(pool: &PgPool, size: u64) -> Result<Option<(u64, Hash)>, Failure> {
    let doing = "read the signed checkpoints";
    let row = sqlx::query("SELECT size, root FROM contrail.audit_checkpoints WHERE size <= $1 ORDER BY size DESC LIMIT 1")
        .bind(signed(size))
        .fetch_optional(pool)
        .await
        .map_err(Failure::postgres(doing))?;
    let Some(row) = row else { return Ok(None) };
    let size: i64 = row.try_get("size").map_err(Failure::postgres(doing))?;
    let root: &[u8] = row.try_get("root").map_err(Failure::postgres(doing))?;
    let root = root.try_into().map_err(|_| Failure::Integrity(format!("the recorded root of {size} events is no hash")))?;
    Ok(Some((size.unsigned_abs(), root)))
}

/// Writes the lines, and checks on the way everything that was recorded about them.
async fn copy(pool: &PgPool, to_position: u64, expected: &[(u64, Hash)], out: &mut impl Write) -> Result<Frontier, Failure> {
    let progress = Progress::new("exporting", to_position);
    let mut tree = Frontier::new();
    while tree.size() < to_position {
        let page_start = tree.size();
        let mut rows = sqlx::query(
            "SELECT position, bytes, leaf_hash FROM contrail.audit WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3",
        )
        .bind(signed(page_start))
        .bind(signed(to_position))
        .bind(PAGE_ROWS_MAX)
        .fetch(pool);
        while let Some(row) = rows.try_next().await.map_err(Failure::postgres("read the audit trail"))? {
            let read = || Ok((row.try_get("position")?, row.try_get("bytes")?, row.try_get("leaf_hash")?));
            let (position, bytes, leaf): (i64, &[u8], &[u8]) = read().map_err(Failure::postgres("read the audit trail"))?;
            append(&mut tree, position.unsigned_abs(), bytes, leaf)?;
            for (size, root) in expected {
                if tree.size() == *size && tree.root() != *root {
                    return Err(Failure::Integrity(format!(
                        "the first {size} events in the table are not those whose root was recorded"
                    )));
                }
            }
            out.write_all(bytes).and_then(|()| out.write_all(b"\n")).map_err(Failure::other("write the export"))?;
        }
        if tree.size() == page_start {
            return Err(Failure::Integrity(format!("position {} is missing from the table", page_start + 1)));
        }
        progress.at(tree.size());
    }
    Ok(tree)
}

fn append(tree: &mut Frontier, position: u64, bytes: &[u8], recorded_leaf: &[u8]) -> Result<(), Failure> {
    let expected = tree.size() + 1;
    if position != expected {
        return Err(Failure::Integrity(format!("position {expected} is missing from the table")));
    }
    let leaf = leaf_hash(bytes);
    if leaf != recorded_leaf {
        return Err(Failure::Integrity(format!("position {position} was altered: its bytes do not have the recorded leaf hash")));
    }
    if bytes.contains(&b'\n') {
        return Err(Failure::Integrity(format!("position {position} holds a line break and cannot be one line")));
    }
    tree.append(leaf);
    Ok(())
}

/// A file that has its name only once it is complete, and is gone if it never is.
struct PartialFile<'a> {
    file: File,
    partial: PathBuf,
    path: &'a Path,
    is_complete: bool,
}

impl<'a> PartialFile<'a> {
    fn create(path: &'a Path) -> io::Result<Self> {
        let partial = with_suffix(path, &format!(".partial-{}", std::process::id()));
        Ok(Self { file: File::create(&partial)?, partial, path, is_complete: false })
    }

    /// On disk, under its name.
    fn complete(mut self) -> io::Result<()> {
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

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
