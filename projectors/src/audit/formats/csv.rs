//! CSV: one row an event, after a header.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Take, Write},
    path::Path,
};

use csv::{ByteRecord, Terminator};
use time::{OffsetDateTime, UtcOffset, macros::format_description};

use super::{BUFFER_BYTES, COLUMNS, EVENT_BYTES_MAX, Record, Unread};
use crate::audit::{
    merkle::leaf_hash,
    row::{Attributes, TrailRow},
};

/// How every file begins.
pub(super) const BEGINNING: &[u8] = b"position,leaf,";

/// The longest row: the other columns repeat at most what the event has, and a quote within a text is written twice.
const ROW_BYTES_MAX: u64 = 4 * EVENT_BYTES_MAX as u64 + 4_096;

/// Writes a file.
pub(in crate::audit) struct Writer<W: Write>(csv::Writer<W>);

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut writer = csv::WriterBuilder::new().buffer_capacity(BUFFER_BYTES).from_writer(out);
        writer.write_record(COLUMNS)?;
        Ok(Self(writer))
    }

    pub(super) fn write(&mut self, row: &TrailRow) -> io::Result<()> {
        let Some(attributes) = &row.attributes else { return Err(io::Error::other("a row lacks its attributes")) };
        let optional = |text: &Option<String>| text.as_deref().map_or_else(Vec::new, |text| guarded(text.as_bytes()));
        let writer = &mut self.0;
        writer.write_field(row.position.to_string())?;
        // In hex, since base64 may begin as a formula does.
        writer.write_field(hex(&row.leaf_hash))?;
        writer.write_field(attributes.event_id.to_string())?;
        writer.write_field(guarded(attributes.event_type.as_bytes()))?;
        writer.write_field(guarded(attributes.aggregate_type.as_bytes()))?;
        writer.write_field(guarded(attributes.aggregate_id.as_bytes()))?;
        writer.write_field(attributes.version.to_string())?;
        writer.write_field(in_utc(attributes.time))?;
        writer.write_field(optional(&attributes.actor))?;
        writer.write_field(guarded(attributes.correlation_id.as_bytes()))?;
        writer.write_field(optional(&attributes.causation_id))?;
        writer.write_field(optional(&attributes.trace_id))?;
        writer.write_field(guarded(&row.bytes))?;
        writer.write_record(None::<&[u8]>)?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// How the event of these bytes is written.
fn written(position: u64, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let row = TrailRow {
        position,
        leaf_hash: leaf_hash(bytes).to_vec().into(),
        bytes: bytes.to_vec().into(),
        attributes: Some(Attributes::of(bytes)),
    };
    let mut writer = Writer(csv::Writer::from_writer(Vec::new()));
    writer.write(&row)?;
    writer.0.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

/// Reads a file, and notices each byte that an export would have written in another way.
pub(super) struct Reader {
    records: csv::Reader<Take<File>>,
    /// The same file once more, for how the records are written.
    raw: BufReader<File>,
    record: ByteRecord,
    text: Vec<u8>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Unread> {
        let records = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .terminator(Terminator::Any(b'\n'))
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(File::open(path)?.take(0));
        let raw = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        let mut reader = Self { records, raw, record: ByteRecord::new(), text: Vec::new() };
        let has_header = reader.read()? && reader.text == format!("{}\n", COLUMNS.join(",")).as_bytes();
        if has_header { Ok(reader) } else { Err(Unread::Damaged("the header is not that of an export".to_owned())) }
    }

    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Unread> {
        if !self.read()? {
            let is_at_end = self.raw.fill_buf()?.is_empty();
            return if is_at_end { Ok(None) } else { Err(Unread::Damaged("something follows that is no row".to_owned())) };
        }
        let is_cut = !self.text.ends_with(b"\n");
        let columns = self.record.len();
        if columns != COLUMNS.len() {
            let flaw = Some(format!("this row has {columns} columns, and not {}", COLUMNS.len()));
            return Ok(Some(Record { bytes: &self.text, position: None, flaw, is_cut }));
        }
        let position = str::from_utf8(&self.record[0]).ok().and_then(|text| text.parse().ok());
        let bytes = unguarded(&self.record[COLUMNS.len() - 1]);
        let written = written(position.unwrap_or_default(), bytes)?;
        let flaw = if written == self.text { None } else { Some(difference(&self.record, &written)?) };
        Ok(Some(Record { bytes, position, flaw, is_cut }))
    }

    /// Reads the next record, and how it is written.
    fn read(&mut self) -> Result<bool, Unread> {
        let from = self.records.position().byte();
        // What is in its buffer comes on top, and that what ends here goes on is noticed by the file itself.
        self.records.get_mut().set_limit(ROW_BYTES_MAX);
        let is_read = self.records.read_byte_record(&mut self.record).map_err(io::Error::from)?;
        if self.records.get_ref().limit() == 0 {
            return Err(Unread::Damaged(format!("this row is longer than the {ROW_BYTES_MAX} bytes that a row can have")));
        }
        if !is_read {
            return Ok(false);
        }
        self.text.clear();
        let length = self.records.position().byte() - from;
        self.raw.by_ref().take(length).read_to_end(&mut self.text)?;
        Ok(true)
    }
}

/// Where a record is not what would have been written.
fn difference(record: &ByteRecord, written: &[u8]) -> io::Result<String> {
    let mut right = ByteRecord::new();
    csv::ReaderBuilder::new().has_headers(false).from_reader(written).read_byte_record(&mut right)?;
    let differing = COLUMNS.into_iter().zip(record.iter().zip(&right)).find(|(_, (found, right))| found != right);
    Ok(match differing {
        Some((column, _)) => super::contradicts(column),
        None => "this row is not written as an export writes it".to_owned(),
    })
}

/// A text that no spreadsheet takes for a formula: one that begins as a formula does gets an apostrophe in front, and so does one that
/// begins with an apostrophe, so that without a first apostrophe each text is what it was. Source of the rule: OWASP, CSV Injection.
fn guarded(text: &[u8]) -> Vec<u8> {
    match text.first() {
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r' | b'\n' | b'\'') => [b"'", text].concat(),
        _ => text.to_vec(),
    }
}

/// The text that [`guarded`] was given.
fn unguarded(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"'").unwrap_or(text)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// As in RFC 3339, to the microsecond.
fn in_utc(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    time.to_offset(UtcOffset::UTC).format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_begins_as_a_formula_does_and_each_is_given_back() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'quoted", "''", "plain", "", "{\"a\":1}"] {
            let guarded = guarded(text.as_bytes());
            assert!(!matches!(guarded.first(), Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r')), "{text:?}");
            assert_eq!(unguarded(&guarded), text.as_bytes());
        }
    }
}
