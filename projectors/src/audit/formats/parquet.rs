//! Parquet: one row an event, in typed columns, in groups of rows that are compressed by themselves.
//!
//! Source: the Apache Parquet format, its logical types and its Thrift definition.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    panic::{self, AssertUnwindSafe},
    path::Path,
    slice,
    sync::{Arc, Once},
    vec,
};

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::SortingColumn,
        properties::{EnabledStatistics, WriterProperties},
        reader::{FileReader, SerializedFileReader},
        statistics::Statistics,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{
        parser::parse_message_type,
        types::{ColumnPath, TypePtr},
    },
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{COLUMNS, Out, Record, Unread, contradicts, footer};
use crate::audit::row::{Attributes, TrailRow};

/// How every file begins, and ends.
pub(super) const BEGINNING: &[u8] = b"PAR1";

/// The columns' types: [`COLUMNS`], in that order.
const SCHEMA: &str = "
    message event {
        REQUIRED INT64 position;
        REQUIRED FIXED_LEN_BYTE_ARRAY (32) leaf;
        REQUIRED FIXED_LEN_BYTE_ARRAY (16) event_id (UUID);
        REQUIRED BYTE_ARRAY type (STRING);
        REQUIRED BYTE_ARRAY aggregate_type (STRING);
        REQUIRED BYTE_ARRAY aggregate_id (STRING);
        REQUIRED INT64 version;
        REQUIRED INT64 time (TIMESTAMP(MICROS,true));
        OPTIONAL BYTE_ARRAY actor (STRING);
        REQUIRED BYTE_ARRAY correlation_id (STRING);
        OPTIONAL BYTE_ARRAY causation_id (STRING);
        OPTIONAL BYTE_ARRAY trace_id (STRING);
        REQUIRED BYTE_ARRAY bytes;
    }";

/// A group of rows ends with this many; readers share work by groups.
const GROUP_ROWS_MAX: usize = 65_536;
/// Or with so many bytes of events, since a group is in memory until it is written.
const GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How hard zstd tries: as little as it can without losing its entropy coding.
const ZSTD_LEVEL: i32 = 1;
/// Columns that counting up makes small, and of which readers are told the least and the greatest value of each group.
const COUNTING: [&str; 2] = ["position", "time"];
/// Columns in which hardly a value comes twice.
const UNIQUE: [&str; 4] = ["leaf", "event_id", "causation_id", "bytes"];
/// Rows that are read at a time.
const BATCH_ROWS: usize = 1_024;

fn schema() -> Result<TypePtr, ParquetError> {
    parse_message_type(SCHEMA).map(Arc::new)
}

fn properties() -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_sorting_columns(Some(sorting()));
    for column in COUNTING {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(column), false)
            .set_column_encoding(ColumnPath::from(column), Encoding::DELTA_BINARY_PACKED)
            .set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::Chunk);
    }
    for column in UNIQUE {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    Ok(properties.build())
}

/// By the position.
fn sorting() -> Vec<SortingColumn> {
    vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]
}

/// Writes a file.
pub(in crate::audit) struct Writer {
    file: SerializedFileWriter<Out>,
    group: Group,
}

impl Writer {
    pub(super) fn new(out: Out) -> io::Result<Self> {
        let create = || SerializedFileWriter::new(out, schema()?, Arc::new(properties()?));
        Ok(Self { file: create().map_err(io::Error::other)?, group: Group::default() })
    }

    pub(super) fn write(&mut self, row: TrailRow) -> io::Result<()> {
        self.group.push(row)?;
        if self.group.position.len() >= GROUP_ROWS_MAX || self.group.size >= GROUP_BYTES_MAX {
            self.write_group()?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> io::Result<()> {
        let group = std::mem::take(&mut self.group);
        let mut write = || group.write(self.file.next_row_group()?);
        write().map_err(io::Error::other)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.group.position.is_empty() {
            self.write_group()?;
        }
        // Writes the footer and hands everything on.
        self.file.into_inner().map_err(io::Error::other)?.flush()
    }
}

/// The rows of a group, by columns.
#[derive(Default)]
struct Group {
    /// Bytes of the events.
    size: usize,
    position: Vec<i64>,
    leaf: Vec<FixedLenByteArray>,
    event_id: Vec<FixedLenByteArray>,
    event_type: Vec<ByteArray>,
    aggregate_type: Vec<ByteArray>,
    aggregate_id: Vec<ByteArray>,
    version: Vec<i64>,
    time: Vec<i64>,
    actor: Optional,
    correlation_id: Vec<ByteArray>,
    causation_id: Optional,
    trace_id: Optional,
    bytes: Vec<ByteArray>,
}

/// Texts of which some are not there.
#[derive(Default)]
struct Optional {
    /// Those that are.
    values: Vec<ByteArray>,
    /// Of each row, 1 if it has one.
    levels: Vec<i16>,
}

impl Optional {
    fn push(&mut self, text: Option<String>) {
        self.levels.push(text.is_some().into());
        self.values.extend(text.map(|text| ByteArray::from(text.into_bytes())));
    }
}

impl Group {
    fn push(&mut self, row: TrailRow) -> io::Result<()> {
        let Some(attributes) = row.attributes else { return Err(io::Error::other("a row lacks its attributes")) };
        let text = |text: String| ByteArray::from(text.into_bytes());
        self.size += row.bytes.len();
        self.position.push(i64::try_from(row.position).map_err(io::Error::other)?);
        self.leaf.push(ByteArray::from(row.leaf_hash).into());
        self.event_id.push(attributes.event_id.as_bytes().to_vec().into());
        self.event_type.push(text(attributes.event_type));
        self.aggregate_type.push(text(attributes.aggregate_type));
        self.aggregate_id.push(text(attributes.aggregate_id));
        self.version.push(attributes.version);
        self.time.push(micros(attributes.time));
        self.actor.push(attributes.actor);
        self.correlation_id.push(text(attributes.correlation_id));
        self.causation_id.push(attributes.causation_id);
        self.trace_id.push(attributes.trace_id);
        self.bytes.push(ByteArray::from(row.bytes));
        Ok(())
    }

    fn write(&self, mut group: SerializedRowGroupWriter<'_, Out>) -> Result<(), ParquetError> {
        let out = &mut group;
        put::<Int64Type>(out, &self.position, None)?;
        put::<FixedLenByteArrayType>(out, &self.leaf, None)?;
        put::<FixedLenByteArrayType>(out, &self.event_id, None)?;
        put::<ByteArrayType>(out, &self.event_type, None)?;
        put::<ByteArrayType>(out, &self.aggregate_type, None)?;
        put::<ByteArrayType>(out, &self.aggregate_id, None)?;
        put::<Int64Type>(out, &self.version, None)?;
        put::<Int64Type>(out, &self.time, None)?;
        put::<ByteArrayType>(out, &self.actor.values, Some(&self.actor.levels))?;
        put::<ByteArrayType>(out, &self.correlation_id, None)?;
        put::<ByteArrayType>(out, &self.causation_id.values, Some(&self.causation_id.levels))?;
        put::<ByteArrayType>(out, &self.trace_id.values, Some(&self.trace_id.levels))?;
        put::<ByteArrayType>(out, &self.bytes, None)?;
        group.close()?;
        Ok(())
    }
}

/// Writes the next column of a group.
fn put<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Out>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let column = group.next_column()?;
    let mut column = column.ok_or_else(|| ParquetError::General("the schema has fewer columns than a row".to_owned()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// Since 1970, in µs.
fn micros(time: OffsetDateTime) -> i64 {
    // Years have four digits, so this fits.
    i64::try_from((time - OffsetDateTime::UNIX_EPOCH).whole_microseconds()).unwrap_or(i64::MAX)
}

/// Reads a file, and holds its columns against the events' bytes.
pub(super) struct Reader {
    file: SerializedFileReader<File>,
    next_group: usize,
    group: Option<OpenGroup>,
    batch: vec::IntoIter<TrailRow>,
    row: Option<TrailRow>,
    /// Rows so far.
    rows: i64,
}

/// The footer's bytes. What follows on them is their length, and how the file began.
fn footer_of(file: &mut File) -> Result<Vec<u8>, Unread> {
    const END_BYTES: u64 = 8;
    let length = file.metadata()?.len();
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
    file.read_to_end(&mut end)?;
    let Some((footer_bytes, BEGINNING)) = end.split_first_chunk::<4>() else {
        return Err(Unread::Cut("it does not end as a Parquet file does".to_owned()));
    };
    let footer_bytes = u64::from(u32::from_le_bytes(*footer_bytes));
    let Some(start) = length.checked_sub(END_BYTES + footer_bytes) else {
        return Err(Unread::Damaged("its footer is longer than the file".to_owned()));
    };
    let mut footer = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(footer_bytes).read_to_end(&mut footer)?;
    Ok(footer)
}

/// A group that is being read.
struct OpenGroup {
    columns: Vec<ColumnReader>,
    /// Rows that are still to come.
    rest: i64,
    /// The least and the greatest value of each of [`COUNTING`], as read and as the file claims.
    found: [Option<(i64, i64)>; COUNTING.len()],
    claimed: [Option<(i64, i64)>; COUNTING.len()],
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Unread> {
        let mut file = File::open(path)?;
        footer::check(&footer_of(&mut file)?, &COUNTING).map_err(Unread::Damaged)?;
        let file = unless_it_panics(|| SerializedFileReader::new(file).map_err(unread))?;
        let metadata = file.metadata().file_metadata();
        // Some readers take from here what the columns are.
        if metadata.key_value_metadata().is_some_and(|entries| !entries.is_empty()) {
            return Err(Unread::Damaged("it has notes of its own beside the events, as no export has".to_owned()));
        }
        if metadata.schema() != &*schema().map_err(unread)? {
            return Err(Unread::Damaged("the columns are not those of an export".to_owned()));
        }
        let sorting = Some(sorting());
        if file.metadata().row_groups().iter().any(|group| group.sorting_columns() != sorting.as_ref()) {
            return Err(Unread::Damaged("it claims another order of the rows than an export has".to_owned()));
        }
        Ok(Self { file, next_group: 0, group: None, batch: Vec::new().into_iter(), row: None, rows: 0 })
    }

    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Unread> {
        while self.batch.len() == 0 {
            let Some(group) = &mut self.group else {
                if self.next_group < self.file.num_row_groups() {
                    self.group = Some(unless_it_panics(|| OpenGroup::open(&self.file, self.next_group).map_err(unread))?);
                    self.next_group += 1;
                    continue;
                }
                let claimed = self.file.metadata().file_metadata().num_rows();
                return if claimed == self.rows { Ok(None) } else { Err(damaged(&format!("it claims to have {claimed} rows"))) };
            };
            let batch = unless_it_panics(|| group.read())?;
            if batch.is_empty() {
                group.check()?;
                self.group = None;
            }
            self.rows += i64::try_from(batch.len()).map_err(io::Error::other)?;
            self.batch = batch.into_iter();
        }
        self.row = self.batch.next();
        Ok(self.row.as_ref().map(|row| Record {
            bytes: &row.bytes,
            position: Some(row.position),
            flaw: row.contradiction().map(contradicts),
            is_cut: false,
        }))
    }
}

impl OpenGroup {
    fn open(file: &SerializedFileReader<File>, number: usize) -> Result<Self, ParquetError> {
        let group = file.get_row_group(number)?;
        let columns = (0..COLUMNS.len()).map(|column| group.get_column_reader(column)).collect::<Result<_, _>>()?;
        let claimed = COUNTING.map(|name| {
            let column = COLUMNS.iter().position(|column| *column == name)?;
            match group.metadata().column(column).statistics()? {
                Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
                _ => None,
            }
        });
        let found = [None; COUNTING.len()];
        Ok(Self { columns, rest: group.metadata().num_rows(), found, claimed })
    }

    /// The next rows; none at the end.
    fn read(&mut self) -> Result<Vec<TrailRow>, Unread> {
        let mut columns = Columns { columns: self.columns.iter_mut(), rows: None };
        let position = columns.numbers()?;
        let leaf = columns.fixed()?;
        let event_id = columns.fixed()?;
        let mut event_type = columns.texts()?;
        let mut aggregate_type = columns.texts()?;
        let mut aggregate_id = columns.texts()?;
        let version = columns.numbers()?;
        let time = columns.numbers()?;
        let mut actor = columns.optional_texts()?;
        let mut correlation_id = columns.texts()?;
        let mut causation_id = columns.optional_texts()?;
        let mut trace_id = columns.optional_texts()?;
        let bytes = columns.byte_arrays()?;
        self.rest -= i64::try_from(position.len()).map_err(io::Error::other)?;
        for (found, values) in self.found.iter_mut().zip([&position, &time]) {
            for value in values {
                let (least, greatest) = found.get_or_insert((*value, *value));
                (*least, *greatest) = (*value.min(least), *value.max(greatest));
            }
        }
        let mut rows = Vec::with_capacity(position.len());
        for (index, (((position, leaf), event_id), bytes)) in position.into_iter().zip(leaf).zip(event_id).zip(bytes).enumerate() {
            let attributes = Attributes {
                event_id: Uuid::from_slice(event_id.data()).map_err(|_| damaged("an id is no UUID"))?,
                event_type: std::mem::take(&mut event_type[index]),
                aggregate_type: std::mem::take(&mut aggregate_type[index]),
                aggregate_id: std::mem::take(&mut aggregate_id[index]),
                version: version[index],
                time: OffsetDateTime::UNIX_EPOCH
                    .checked_add(Duration::microseconds(time[index]))
                    .ok_or_else(|| damaged("a time lies beyond the year 9999"))?,
                actor: actor[index].take(),
                correlation_id: std::mem::take(&mut correlation_id[index]),
                causation_id: causation_id[index].take(),
                trace_id: trace_id[index].take(),
            };
            rows.push(TrailRow {
                position: u64::try_from(position).map_err(|_| damaged("a position is negative"))?,
                leaf_hash: Bytes::copy_from_slice(leaf.data()),
                bytes: Bytes::copy_from_slice(bytes.data()),
                attributes: Some(attributes),
            });
        }
        Ok(rows)
    }

    /// Whether the group is what the file claims of it: readers skip groups by that.
    fn check(&self) -> Result<(), Unread> {
        if self.rest != 0 {
            return Err(damaged("a group of rows has another length than it claims"));
        }
        if self.found != self.claimed {
            return Err(damaged("the least and the greatest values of a group of rows are not those that it claims"));
        }
        Ok(())
    }
}

/// Columns that are read one after the other, the same number of rows of each.
struct Columns<'a> {
    columns: slice::IterMut<'a, ColumnReader>,
    rows: Option<usize>,
}

impl Columns<'_> {
    fn numbers(&mut self) -> Result<Vec<i64>, Unread> {
        let Some(ColumnReader::Int64ColumnReader(column)) = self.columns.next() else { return Err(of_other_type()) };
        let (values, _) = read(column)?;
        self.is_as_long(values.len()).map(|()| values)
    }

    fn fixed(&mut self) -> Result<Vec<FixedLenByteArray>, Unread> {
        let Some(ColumnReader::FixedLenByteArrayColumnReader(column)) = self.columns.next() else { return Err(of_other_type()) };
        let (values, _) = read(column)?;
        self.is_as_long(values.len()).map(|()| values)
    }

    fn byte_arrays(&mut self) -> Result<Vec<ByteArray>, Unread> {
        let Some(ColumnReader::ByteArrayColumnReader(column)) = self.columns.next() else { return Err(of_other_type()) };
        let (values, _) = read(column)?;
        self.is_as_long(values.len()).map(|()| values)
    }

    fn texts(&mut self) -> Result<Vec<String>, Unread> {
        self.byte_arrays()?.iter().map(text).collect()
    }

    fn optional_texts(&mut self) -> Result<Vec<Option<String>>, Unread> {
        let Some(ColumnReader::ByteArrayColumnReader(column)) = self.columns.next() else { return Err(of_other_type()) };
        let (values, levels) = read(column)?;
        self.is_as_long(levels.len())?;
        let mut values = values.iter();
        levels.iter().map(|level| if *level == 0 { Ok(None) } else { values.next().map(text).transpose() }).collect()
    }

    fn is_as_long(&mut self, rows: usize) -> Result<(), Unread> {
        if *self.rows.get_or_insert(rows) == rows { Ok(()) } else { Err(damaged("the columns are not of one length")) }
    }
}

/// The next values of a column, and of each row whether it has one.
fn read<T: DataType>(column: &mut ColumnReaderImpl<T>) -> Result<(Vec<T::T>, Vec<i16>), Unread> {
    let (mut values, mut levels) = (Vec::with_capacity(BATCH_ROWS), Vec::new());
    column.read_records(BATCH_ROWS, Some(&mut levels), None, &mut values).map_err(unread)?;
    Ok((values, levels))
}

fn text(bytes: &ByteArray) -> Result<String, Unread> {
    String::from_utf8(bytes.data().to_vec()).map_err(|_| damaged("a text is not UTF-8"))
}

thread_local! {
    /// Whether this thread's panics are a file's doing, and told as that.
    static IS_FILES_DOING: Cell<bool> = const { Cell::new(false) };
}

/// The library panics where what it reads makes no sense. Nothing of what it was reading is used after that.
fn unless_it_panics<T>(read: impl FnOnce() -> Result<T, Unread>) -> Result<T, Unread> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_FILES_DOING.get() {
                hook(info);
            }
        }));
    });
    IS_FILES_DOING.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(read));
    IS_FILES_DOING.set(false);
    outcome.unwrap_or_else(|_| Err(Unread::Damaged("it cannot be read as Parquet: what it says makes no sense".to_owned())))
}

fn damaged(what: &str) -> Unread {
    Unread::Damaged(format!("what follows cannot be relied on: {what}"))
}

fn of_other_type() -> Unread {
    damaged("a column is of another type than the schema says")
}

/// What the operating system refuses to read is another matter than what it reads and is wrong.
fn unread(error: ParquetError) -> Unread {
    let detail = format!("it cannot be read as Parquet: {error}");
    let refused = match error {
        ParquetError::External(cause) => cause.downcast::<io::Error>().ok().filter(|error| error.raw_os_error().is_some()),
        _ => None,
    };
    refused.map_or(Unread::Damaged(detail), |error| Unread::Io(*error))
}
