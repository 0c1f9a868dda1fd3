//! `projectors audit export`: the trail as a file that anybody can check without us.
//!
//! The events of an export, with their positions and stored bytes, are in the file; beside it lies the signed checkpoint of the
//! tree that they are leaves of. A whole export, from position 1 on, has every leaf, so that its root can be computed. Where
//! events are left out, a third file has the proof of each that is there, and the checkpoint states how many those are, and their
//! own root. Nothing is signed that does not fit what was recorded before.

mod file;
mod filter;
pub(super) mod trail;

use std::{
    fmt,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Serialize;
use sqlx::PgPool;

pub use filter::Filter;

use self::{
    file::{PartialFile, Target},
    trail::Columns,
};
pub use super::formats::Format;
use super::{
    checkpoint::{Checkpoint, Part},
    formats::Sink,
    key::Signer,
    merkle::{Frontier, Hash, leaf_hash},
    proof,
    recorded::Recorded,
    row::TrailRow,
    tiles::{TILE_LEAVES, Tiles},
};
use crate::{failure::Failure, progress::Progress};

/// Size of the output buffers, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// What is to be exported, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which events.
    pub filter: Filter,
    /// The shape of the file.
    pub format: Format,
    /// Where it goes.
    pub destination: Destination,
    /// Where the signed checkpoint goes; by default beside the file, and an export to standard output has none.
    pub checkpoint: Option<PathBuf>,
    /// Where the proofs of a partial export go; by default beside the file, and an export to standard output has none.
    pub proof: Option<PathBuf>,
}

impl Request {
    /// Everything, as JSON lines.
    pub fn all(destination: Destination) -> Self {
        Self { filter: Filter::default(), format: Format::Jsonl, destination, checkpoint: None, proof: None }
    }
}

/// Where an export goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, which appears only when it is complete; an older one is replaced. Only its owner may read it. A symlink stays one,
    /// and what it leads to is written.
    File(PathBuf),
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// How many events.
    pub events: u64,
    /// How many events the tree has that was signed.
    pub size: u64,
    /// Its root, in base64.
    pub root: String,
    /// The file, unless it went to standard output.
    pub file: Option<PathBuf>,
    /// The signed checkpoint beside it.
    pub checkpoint: Option<PathBuf>,
    /// The proofs beside it, if events were left out.
    pub proof: Option<PathBuf>,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = if self.events == 1 { "event" } else { "events" };
        write!(f, "exported {} {events} of {} with the root {}", self.events, self.size, self.root)
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
    file::with_suffix(file, ".checkpoint")
}

/// The path of the proofs that belong to an exported file.
pub fn proof_path(file: &Path) -> PathBuf {
    file::with_suffix(file, ".proof")
}

/// Exports what `request` asks for, of the trail up to its last position or to wherever the trail is. Takes a bounded amount of
/// memory (and for a partial export 32 bytes for each 128 events of the trail), however long the trail is.
///
/// Fails with [`Failure::Integrity`] if the table is not what was recorded; or if a column is not what the event's bytes say,
/// where the format has columns, or the filter asks for one: then of any event, also of those that it leaves out. Then nothing is
/// signed and no file appears.
pub async fn export(pool: &PgPool, signer: &Signer, request: &Request) -> Result<Exported, Failure> {
    let targets = Targets::of(request)?;
    let expected = Recorded::of(pool, request.filter.to_position).await?;
    let Paths { file, checkpoint, proof } = Paths::of(request);
    let (file, checkpoint) = (file.as_deref(), checkpoint.as_deref());
    let written_proof = proof.as_deref().filter(|_| request.filter.is_partial());

    let partial = targets.file.as_ref().map(PartialFile::create).transpose().map_err(cannot_write(file))?;
    let out: Box<dyn Write + Send> = match &partial {
        Some(partial) => Box::new(partial.file.try_clone().map_err(cannot_write(file))?),
        None => Box::new(io::stdout()),
    };
    let mut sink = Sink::new(request.format, out).map_err(cannot_write(file))?;
    let proof_target = targets.proof.as_ref().filter(|_| written_proof.is_some());
    let partial_proof = proof_target.map(PartialFile::create).transpose().map_err(cannot_write(written_proof))?;
    let mut proofs = partial_proof.as_ref().map(|partial| BufWriter::with_capacity(BUFFER_BYTES, &partial.file));

    let (head, note, events) = if request.filter.is_partial() {
        let (head, part) = copy_part(pool, &request.filter, &expected, &mut sink, proofs.as_mut()).await?;
        let note = head.sign_part(&part, signer);
        (head, note, part.lines)
    } else {
        let head = copy_whole(pool, &expected, &mut sink).await?;
        let (note, events) = (head.sign(signer), head.size);
        (head, note, events)
    };

    sink.finish().map_err(cannot_write(file))?;
    proofs.map_or(Ok(()), |mut proofs| proofs.flush()).map_err(cannot_write(written_proof))?;
    // The file last, so that what it needs is there when it is.
    partial_proof.map_or(Ok(()), PartialFile::complete).map_err(cannot_write(written_proof))?;
    if let Some(target) = &targets.checkpoint {
        let write = || {
            let partial = PartialFile::create(target)?;
            (&partial.file).write_all(note.as_bytes())?;
            partial.complete()
        };
        write().map_err(cannot_write(checkpoint))?;
    }
    if let (None, Some(proof)) = (written_proof, &proof) {
        // The proofs of an earlier, partial export of that name are not this one's.
        match std::fs::remove_file(proof) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_write(Some(proof))(error)),
            _ => {}
        }
    }
    partial.map_or(Ok(()), PartialFile::complete).map_err(cannot_write(file))?;
    let [file, checkpoint, proof] = [file, checkpoint, written_proof].map(|path| path.map(Path::to_owned));
    Ok(Exported { events, size: head.size, root: BASE64.encode(head.root), file, checkpoint, proof })
}

/// Where everything goes, as it was asked for or by default.
struct Paths {
    file: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
    /// The proofs of a partial export; beside a whole one those of an earlier one that was partial.
    proof: Option<PathBuf>,
}

impl Paths {
    fn of(request: &Request) -> Self {
        let file = match &request.destination {
            Destination::Stdout => None,
            Destination::File(path) => Some(path.clone()),
        };
        let asked_for = request.proof.clone().filter(|_| request.filter.is_partial());
        Self {
            checkpoint: request.checkpoint.clone().or(file.as_deref().map(checkpoint_path)),
            proof: asked_for.or(file.as_deref().map(proof_path)),
            file,
        }
    }
}

/// The files that are to be there in the end.
struct Targets {
    file: Option<Target>,
    checkpoint: Option<Target>,
    proof: Option<Target>,
}

impl Targets {
    /// Fails with a usage error if a file cannot be one, or would be two.
    fn of(request: &Request) -> Result<Self, Failure> {
        let paths = Paths::of(request);
        let target = |argument, path: Option<PathBuf>| path.map(|path| Target::of(argument, &path)).transpose();
        let file = target("--out", paths.file)?;
        let checkpoint = target("--checkpoint", paths.checkpoint)?;
        let proof = target("--proof", paths.proof)?;
        let is_same = |one: &Option<Target>, other: &Option<Target>| {
            one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one.is_same(other))
        };
        if is_same(&checkpoint, &file) || is_same(&checkpoint, &proof) {
            return Err(Failure::refused("--checkpoint", "another file of the export has the same name"));
        }
        if is_same(&proof, &file) {
            return Err(Failure::refused("--proof", "another file of the export has the same name"));
        }
        Ok(Self { file, checkpoint, proof })
    }
}

fn cannot_write(path: Option<&Path>) -> impl FnOnce(io::Error) -> Failure {
    let what = path.map_or_else(|| "to standard output".to_owned(), |path| path.display().to_string());
    move |error| Failure::other(format!("write {what}"))(error)
}

/// Writes every event, and checks on the way everything that was recorded about them. Returns the head of their tree.
async fn copy_whole(pool: &PgPool, expected: &Recorded, sink: &mut Sink) -> Result<Checkpoint, Failure> {
    let progress = Progress::new("exporting", expected.size);
    let everything = Filter::default();
    let columns = Columns::needed_by(&everything, sink);
    let mut tree = Frontier::new();
    let take = async |row: TrailRow| {
        expected.append(&mut tree, row.position, checked(&row)?)?;
        write(sink, row)
    };
    trail::read(pool, &everything, columns, expected.size, take, |position| progress.at(position)).await?;
    expected.head(pool, &tree).await
}

/// Writes the events that `filter` wants, each with the proof that it is in the tree. Returns the tree's head, and what part they
/// are.
async fn copy_part(
    pool: &PgPool,
    filter: &Filter,
    expected: &Recorded,
    sink: &mut Sink,
    mut proofs: Option<&mut impl Write>,
) -> Result<(Checkpoint, Part), Failure> {
    let Read { head, tiles, part } = read(pool, filter, expected).await?;
    let progress = Progress::new("exporting", expected.size);
    let mut exported = Frontier::new();
    let mut at_tile = None;
    let columns = Columns::needed_by(filter, sink);
    let take = async |row: TrailRow| {
        let leaf = checked(&row)?;
        if let Some(proofs) = &mut proofs {
            let index = row.position - 1;
            let tile = index / TILE_LEAVES;
            if at_tile.as_ref().is_none_or(|(at, _)| *at != tile) {
                let leaves = trail::leaves(pool, tile * TILE_LEAVES, head.size.min((tile + 1) * TILE_LEAVES)).await?;
                at_tile = Some((tile, tiles.with_tile(tile, &leaves)));
            }
            let (_, nodes) = at_tile.as_ref().expect("it was set right above");
            let inclusion = proof::inclusion(nodes, index, head.size);
            // The row, or its tile, may have been changed since the tree was read.
            if !proof::includes(&head.root, head.size, index, leaf, &inclusion) {
                return Err(Failure::Integrity(format!("position {} is not what it was when the export began", row.position)));
            }
            let line = ProofLine::new(row.position, leaf, &inclusion);
            serde_json::to_writer(&mut **proofs, &line).map_err(io::Error::from).map_err(Failure::other("write the proofs"))?;
            proofs.write_all(b"\n").map_err(Failure::other("write the proofs"))?;
        }
        exported.append(leaf);
        write(sink, row)
    };
    trail::read(pool, filter, columns, expected.size, take, |position| progress.at(position)).await?;
    // Which events came now was decided by columns that may have been changed since.
    if !part.is_of(&exported) {
        return Err(Failure::Integrity("the events that are wanted are not those that were when the export began".to_owned()));
    }
    Ok((head, part))
}

/// The trail, read once before its parts can be proven.
struct Read {
    head: Checkpoint,
    tiles: Tiles,
    part: Part,
}

/// Reads the tree, and by every event's bytes what part of it `filter` wants: a row that says otherwise would be left out unseen.
async fn read(pool: &PgPool, filter: &Filter, expected: &Recorded) -> Result<Read, Failure> {
    let progress = Progress::new("reading the tree", expected.size);
    let (mut tree, mut tiles, mut wanted) = (Frontier::new(), Tiles::default(), Frontier::new());
    // Which event is at which position is told by the tree.
    let columns = if filter.asks_for_attributes() { Columns::All } else { Columns::Leaves };
    let take = async |row: TrailRow| {
        let leaf = if columns == Columns::All { checked(&row)? } else { trail::hash(row.position, &row.leaf_hash)? };
        if filter.wants(&row) {
            wanted.append(leaf);
        }
        tiles.append(leaf);
        expected.append(&mut tree, row.position, leaf)
    };
    trail::read(pool, &Filter::default(), columns, expected.size, take, |position| progress.at(position)).await?;
    Ok(Read { head: expected.head(pool, &tree).await?, tiles, part: Part::of(&wanted, filter.clone()) })
}

/// The row's leaf, if its bytes have it and its columns are what they say.
fn checked(row: &TrailRow) -> Result<Hash, Failure> {
    let leaf = leaf_hash(&row.bytes);
    if leaf != *row.leaf_hash {
        let position = row.position;
        return Err(Failure::Integrity(format!("position {position} was altered: its bytes do not have the recorded leaf hash")));
    }
    if let Some(column) = row.contradicting_attribute() {
        let position = row.position;
        return Err(Failure::Integrity(format!("position {position} was altered: its column {column} is not what its bytes say")));
    }
    Ok(leaf)
}

fn write(sink: &mut Sink, row: TrailRow) -> Result<(), Failure> {
    if sink.is_in_lines() && row.bytes.contains(&b'\n') {
        let position = row.position;
        return Err(Failure::Integrity(format!(
            "position {position} holds a line break and cannot be one line: export CSV or Parquet"
        )));
    }
    sink.write(row).map_err(Failure::other("write the export"))
}

/// One line of the proofs of a partial export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(crate) struct ProofLine {
    /// Of the event.
    pub(super) position: u64,
    /// Its leaf of the tree, in base64.
    leaf: String,
    /// The siblings on its way up to the root, each in base64.
    inclusion: Vec<String>,
}

impl ProofLine {
    fn new(position: u64, leaf: Hash, inclusion: &[Hash]) -> Self {
        Self { position, leaf: BASE64.encode(leaf), inclusion: inclusion.iter().map(|hash| BASE64.encode(hash)).collect() }
    }

    /// The leaf and the siblings; none if one is no hash.
    pub(super) fn hashes(&self) -> Option<(Hash, Vec<Hash>)> {
        let hash = |text: &String| Hash::try_from(BASE64.decode(text).ok()?).ok();
        Some((hash(&self.leaf)?, self.inclusion.iter().map(hash).collect::<Option<_>>()?))
    }
}
