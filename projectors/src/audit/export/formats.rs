//! The shapes of an exported file.

use std::io::{self, BufWriter, Write};

use time::{OffsetDateTime, macros::format_description};

use super::trail::{Columns, TrailRow};

/// The shape of an exported file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One event per line, exactly as it is stored
    #[default]
    Jsonl,
    /// One event per row, with a header; what a spreadsheet would take for a formula is quoted with an apostrophe
    Csv,
}

/// The columns of a CSV file, in their order.
const CSV_COLUMNS: [&str; 13] = [
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

type Out = BufWriter<Box<dyn Write + Send>>;

/// A file that grows.
pub(super) enum Sink {
    Jsonl(Out),
    Csv(Box<csv::Writer<Out>>),
}

impl Sink {
    pub(super) fn new(format: Format, out: Out) -> io::Result<Self> {
        Ok(match format {
            Format::Jsonl => Self::Jsonl(out),
            Format::Csv => {
                // Its buffer is small beside that below.
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(CSV_COLUMNS)?;
                Self::Csv(Box::new(writer))
            }
        })
    }

    /// What it has to be given of each event.
    pub(super) fn columns(&self) -> Columns {
        match self {
            Self::Jsonl(_) => Columns::Bytes,
            Self::Csv(_) => Columns::All,
        }
    }

    /// Whether each event has to be one line.
    pub(super) fn is_in_lines(&self) -> bool {
        matches!(self, Self::Jsonl(_))
    }

    pub(super) fn write(&mut self, row: &TrailRow) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => out.write_all(&row.bytes).and_then(|()| out.write_all(b"\n")),
            Self::Csv(writer) => write_csv(writer, row),
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Jsonl(mut out) => out.flush(),
            Self::Csv(mut writer) => writer.flush(),
        }
    }
}

fn write_csv(writer: &mut csv::Writer<Out>, row: &TrailRow) -> io::Result<()> {
    let Some(attributes) = &row.attributes else { return Err(io::Error::other("a row lacks its attributes")) };
    let optional = |text: &Option<String>| text.as_deref().map_or_else(Vec::new, |text| guarded(text.as_bytes()));
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

/// A text that no spreadsheet takes for a formula: one that begins as a formula does gets an apostrophe in front, and so does one that
/// begins with an apostrophe, so that without a first apostrophe each text is what it was. Source of the rule: OWASP, CSV Injection.
fn guarded(text: &[u8]) -> Vec<u8> {
    match text.first() {
        Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r' | b'\n' | b'\'') => [b"'", text].concat(),
        _ => text.to_vec(),
    }
}

/// The text that [`guarded`] was given.
#[cfg(test)]
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
    time.format(&format).unwrap_or_default()
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
