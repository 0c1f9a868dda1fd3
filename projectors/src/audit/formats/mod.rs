//! The shapes of an exported file: how each is written, and how it is read again by whoever verifies it.
//!
//! A line of JSON is an event's bytes and nothing else. The others have columns beside the bytes, which repeat what the bytes say;
//! whoever reads a file holds them against the bytes, since those alone are what was signed.

mod csv;
mod parquet;

mod footer;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

use super::row::TrailRow;

/// Size of the buffers, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// The largest event: more than 64 MiB no NATS server takes as a message.
const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest line of proofs: at most 64 hashes in base64, and some to spare.
pub(super) const PROOF_BYTES_MAX: usize = 16 * 1024;

/// The columns of CSV and Parquet, in their order.
const COLUMNS: [&str; 13] = [
    "position",
    "leaf",
    "event_id",
    "type",
    "aggregate_type",
    "aggregate_id",
    "version",
    "time",
    "actor",
    "correlation_id",
    "causation_id",
    "trace_id",
    "bytes",
];

/// The shape of an exported file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One event per line, exactly as it is stored
    #[default]
    Jsonl,
    /// One event per row, with a header; what a spreadsheet would take for a formula is quoted with an apostrophe
    Csv,
    /// One event per row, in typed columns, compressed with zstd
    Parquet,
}

type Out = Box<dyn Write + Send>;

/// A file that grows.
pub(super) enum Sink {
    Jsonl(BufWriter<Out>),
    Csv(Box<csv::Writer<Out>>),
    Parquet(Box<parquet::Writer>),
}

impl Sink {
    pub(super) fn new(format: Format, out: Out) -> io::Result<Self> {
        Ok(match format {
            Format::Jsonl => Self::Jsonl(BufWriter::with_capacity(BUFFER_BYTES, out)),
            Format::Csv => Self::Csv(Box::new(csv::Writer::new(out)?)),
            Format::Parquet => Self::Parquet(Box::new(parquet::Writer::new(out)?)),
        })
    }

    /// Whether each event has to be one line, and is nothing but its bytes.
    pub(super) fn is_in_lines(&self) -> bool {
        matches!(self, Self::Jsonl(_))
    }

    pub(super) fn write(&mut self, row: TrailRow) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => out.write_all(&row.bytes).and_then(|()| out.write_all(b"\n")),
            Self::Csv(writer) => writer.write(&row),
            Self::Parquet(writer) => writer.write(row),
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Jsonl(mut out) => out.flush(),
            Self::Csv(writer) => writer.finish(),
            Self::Parquet(writer) => writer.finish(),
        }
    }
}

/// An event of a file that is verified.
pub(super) struct Record<'a> {
    pub(super) bytes: &'a [u8],
    /// Where its columns say that it is; none if the file has no columns.
    pub(super) position: Option<u64>,
    /// What in its columns, or in how it is written, is not as its bytes have it.
    flaw: Option<String>,
    /// Whether the file ends before it does.
    is_cut: bool,
}

/// What in a file is not as its events' bytes have it, or not as an export is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// The event that shows it, from 1 on.
    pub(super) number: u64,
    /// In words.
    pub(super) detail: String,
}

/// Why the next event of a file cannot be read.
enum Unread {
    /// The file cannot be read.
    Io(io::Error),
    /// The file can, but is not what an export is.
    Damaged(String),
    /// The file ends where no export does.
    Cut(String),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The events of a file, one at a time.
pub(super) struct Records {
    source: Source,
    number: u64,
    /// The first of those events that can be read.
    pub(super) flaw: Option<Flaw>,
    /// Where the file ends to be readable although it goes on.
    pub(super) damage: Option<Flaw>,
    /// Whether the file ends where no export does.
    pub(super) is_cut: bool,
}

enum Source {
    Lines(Lines),
    Csv(Box<csv::Reader>),
    Parquet(Box<parquet::Reader>),
    /// A file that does not even begin as one of its format.
    Nothing,
}

impl Records {
    /// Opens a file, of which the format is told by its first bytes, or else by its name.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let source = match format_of(path)? {
            Format::Jsonl => Ok(Source::Lines(Lines::open(path, EVENT_BYTES_MAX)?)),
            Format::Csv => csv::Reader::open(path).map(|reader| Source::Csv(Box::new(reader))),
            Format::Parquet => parquet::Reader::open(path).map(|reader| Source::Parquet(Box::new(reader))),
        };
        let mut records = Self { source: Source::Nothing, number: 0, flaw: None, damage: None, is_cut: false };
        match source {
            Ok(source) => records.source = source,
            Err(unread) => stopped(unread, 0, &mut records.damage, &mut records.is_cut)?,
        }
        Ok(records)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        let record = match &mut self.source {
            Source::Lines(lines) => lines.record(),
            Source::Csv(reader) => reader.next(),
            Source::Parquet(reader) => reader.next(),
            Source::Nothing => Ok(None),
        };
        match record {
            Ok(Some(record)) => {
                self.number += 1;
                self.is_cut = record.is_cut;
                if let Some(detail) = &record.flaw
                    && self.flaw.is_none()
                {
                    self.flaw = Some(Flaw { number: self.number, detail: detail.clone() });
                }
                Ok(Some(record))
            }
            Ok(None) => Ok(None),
            Err(unread) => stopped(unread, self.number, &mut self.damage, &mut self.is_cut).map(|()| None),
        }
    }
}

/// Notes that a file cannot be read beyond the first `number` events.
fn stopped(unread: Unread, number: u64, damage: &mut Option<Flaw>, is_cut: &mut bool) -> io::Result<()> {
    let (detail, cut) = match unread {
        Unread::Damaged(detail) => (detail, false),
        Unread::Cut(detail) => (detail, true),
        Unread::Io(error) => return Err(error),
    };
    *is_cut |= cut;
    damage.get_or_insert(Flaw { number: number + 1, detail });
    Ok(())
}

/// What is wrong with a column.
fn contradicts(column: &str) -> String {
    format!("the column {column} is not what the event's bytes say")
}

fn format_of(path: &Path) -> io::Result<Format> {
    let mut beginning = Vec::new();
    File::open(path)?.take(csv::BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    let is_named = |extension: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
    Ok(match &beginning[..] {
        beginning if beginning.starts_with(parquet::BEGINNING) => Format::Parquet,
        beginning if beginning == csv::BEGINNING => Format::Csv,
        [b'{', ..] => Format::Jsonl,
        _ if is_named("parquet") => Format::Parquet,
        _ if is_named("csv") => Format::Csv,
        _ => Format::Jsonl,
    })
}

/// The lines of a file, one at a time. A line is what stands before a line feed; nothing else ends one.
pub(super) struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    bytes_max: usize,
    /// A line is longer than it may be. Of that only the beginning is given, and none that follow.
    is_overlong: bool,
    /// The file ended without a line feed.
    pub(super) is_cut: bool,
}

impl Lines {
    /// The lines of a file, of which none has more than so many bytes. Whatever the file is, no more than that is held in memory.
    pub(super) fn open(path: &Path, bytes_max: usize) -> io::Result<Self> {
        let reader = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        Ok(Self { reader, line: Vec::new(), bytes_max, is_overlong: false, is_cut: false })
    }

    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        // And the line feed.
        let bytes_max = self.bytes_max as u64 + 1;
        if self.is_overlong || (&mut self.reader).take(bytes_max).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.line.pop_if(|byte| *byte == b'\n').is_none() {
            self.is_overlong = self.line.len() > self.bytes_max;
            self.is_cut = !self.is_overlong;
        }
        Ok(Some(&self.line))
    }

    fn record(&mut self) -> Result<Option<Record<'_>>, Unread> {
        if self.next()?.is_none() {
            return Ok(None);
        }
        if self.is_overlong {
            return Err(Unread::Damaged(format!("this line is longer than the {} bytes that an event can have", self.bytes_max)));
        }
        // The hash does not cover line ends, but a file without the last one was not written by us.
        Ok(Some(Record { bytes: &self.line, position: None, flaw: None, is_cut: self.is_cut }))
    }
}
