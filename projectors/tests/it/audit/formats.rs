//! CSV and Parquet: the same events as the lines, and nothing beside them that is not checked.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_csv_are_the_events_and_no_formulas() {
    let trail = Trail::new(2).await;
    let request = Request { format: Format::Csv, ..Request::all(Destination::File(trail.file())) };
    export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
    let mut reader = csv::Reader::from_path(trail.file()).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let header: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(header[..3], ["position", "leaf", "event_id"]);
    let column = |name: &str| header.iter().position(|header| header == name).unwrap_or_else(|| panic!("{name}"));
    trail.export(None).await.unwrap();
    let lines = fs::read_to_string(trail.file()).unwrap();
    assert_eq!(rows.len(), lines.lines().count());
    for (row, (line, position)) in rows.iter().zip(lines.lines().zip(1..)) {
        let leaf = leaf_hash(line.as_bytes()).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(
            (&row[column("position")], &row[column("bytes")], &row[column("leaf")]),
            (&*format!("{position}"), line, &*leaf)
        );
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&row[column("event_id")], &row[column("type")]),
            (event["id"].as_str().unwrap(), event["type"].as_str().unwrap())
        );
        assert!(row[column("time")].ends_with(".000000Z"), "{row:?}");
    }
}

/// A row of a CSV or Parquet file, as texts, each column by its name.
type TextRow = Vec<(&'static str, String)>;

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

fn rows_of_csv(file: &Path) -> Vec<TextRow> {
    let mut reader = csv::Reader::from_path(file).unwrap();
    assert_eq!(reader.headers().unwrap(), &COLUMNS[..]);
    let row = |record: csv::StringRecord| COLUMNS.into_iter().zip(record.iter().map(str::to_owned)).collect();
    reader.records().map(Result::unwrap).map(row).collect()
}

/// Read by columns' types, and not by our reader: as CSV has them.
fn rows_of_parquet(file: &Path) -> Vec<TextRow> {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let reader = SerializedFileReader::new(fs::File::open(file).unwrap()).unwrap();
    let text = |field: &Field| match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Long(number) => number.to_string(),
        Field::TimestampMicros(micros) => {
            let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(*micros) * 1_000).unwrap();
            time.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z")).unwrap()
        }
        Field::Bytes(bytes) if bytes.data().starts_with(b"{\"") => String::from_utf8(bytes.data().to_vec()).unwrap(),
        Field::Bytes(bytes) if bytes.len() == 16 => uuid::Uuid::from_slice(bytes.data()).unwrap().to_string(),
        Field::Bytes(bytes) => hex(bytes.data()),
        field => panic!("{field:?}"),
    };
    let row = |row: parquet::record::Row| {
        let columns: Vec<_> = row.get_column_iter().map(|(name, field)| (name.clone(), text(field))).collect();
        assert!(columns.iter().map(|(name, _)| name).eq(COLUMNS), "{columns:?}");
        COLUMNS.into_iter().zip(columns.into_iter().map(|(_, text)| text)).collect()
    };
    reader.get_row_iter(None).unwrap().map(Result::unwrap).map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_in_all_formats_agree() {
    let trail = Trail::new(30).await;
    let partial = filters().into_iter().map(|(filter, _)| filter);
    for filter in partial.chain([Filter::default(), Filter { to_position: Some(77), ..Filter::default() }]) {
        let mut files = Vec::new();
        for (format, name) in FORMATS {
            let file = trail.directory.path().join(format!("audit.{name}"));
            let request = Request { filter: filter.clone(), format, ..Request::all(Destination::File(file.clone())) };
            let exported = export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
            let verdict = verify(&file, &trail.world.signer);
            assert_eq!((verdict.verified, verdict.partial), (true, filter.is_partial()), "{name}, {filter:?}: {verdict}");
            assert_eq!((verdict.lines, verdict.root), (exported.events, Some(exported.root)), "{name}, {filter:?}");
            files.push((file, exported.events));
        }
        let [(jsonl, events), (csv, _), (parquet, _)] = &files[..] else { panic!("three formats") };
        let lines = fs::read_to_string(jsonl).unwrap();
        let rows = rows_of_csv(csv);
        assert_eq!(rows, rows_of_parquet(parquet), "{filter:?}");
        assert_eq!((rows.len() as u64, lines.lines().count() as u64), (*events, *events), "{filter:?}");
        assert!(rows.iter().map(|row| &*row[12].1).eq(lines.lines()), "{filter:?}");
        let beside = |file: &Path| {
            let proofs = export::proof_path(file);
            (fs::read(export::checkpoint_path(file)).unwrap(), proofs.exists().then(|| fs::read(proofs).unwrap()))
        };
        assert_eq!((beside(jsonl), beside(jsonl)), (beside(csv), beside(parquet)), "{filter:?}");
    }
}

/// Events as other producers write them: times with an offset or to the nanosecond, texts that look like formulas, no events at all.
#[tokio::test(flavor = "multi_thread")]
async fn strange_events_are_exported_and_verified_in_every_format() {
    let world = World::new().await;
    let running = world.run().await;
    let mut end = world.teller().tell(1).await;
    let time = |text: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"01a1fdc6-d75d-7901-859c-3e96ce0f2d2f","type":"=strange,\"type\"","source":"/elsewhere","subject":"'x","time":"{text}","datacontenttype":"application/json","aggregatetype":"strange","sequence":"1","correlationid":"+c","actor":"@a\tb","data":{{}}}}"#
        )
    };
    let strange = [
        time("2026-11-21T12:00:00+01:00"),
        time("2026-11-21T12:00:00.123456789-09:30"),
        time("1969-12-31T23:59:59.5Z"),
        time("1999-12-31T23:59:59.1234567Z"),
        "=no event".to_owned(),
        "'".to_owned(),
        "position,leaf,".to_owned(),
    ];
    for bytes in strange {
        end = world.poison("events.strange.x", &bytes).await;
    }
    world.reach(&[ProjectionName::Audit], end).await;
    running.stop().await;
    let trail = Trail { world, directory: tempfile::tempdir().unwrap(), end };
    for (format, name) in FORMATS {
        for from_position in [None, Some(12)] {
            let file = trail.directory.path().join(format!("audit.{name}"));
            let filter = Filter { from_position, ..Filter::default() };
            let request = Request { filter, format, ..Request::all(Destination::File(file.clone())) };
            let exported = export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
            let verdict = verify(&file, &trail.world.signer);
            assert_eq!((verdict.verified, verdict.lines), (true, exported.events), "{name}: {verdict}");
        }
    }
    let live = live::verify(&trail.world.store, &trail.world.pool, None).await.unwrap();
    assert!(live.verified, "{live}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_changed_byte_of_a_csv_file_is_found() {
    let trail = Trail::new(1).await;
    for filter in [Filter::default(), Filter { aggregate_type: Some("order".to_owned()), ..Filter::default() }] {
        let file = trail.directory.path().join("audit.csv");
        let request = Request { filter, format: Format::Csv, ..Request::all(Destination::File(file.clone())) };
        export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
        let original = fs::read(&file).unwrap();
        for at in (0..original.len()).step_by(3).chain([original.len() - 1]) {
            let mut bytes = original.clone();
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
            assert!(!verify(&file, &trail.world.signer).verified, "byte {at}");
        }
        for (changed, what) in [
            (original[..original.len() - 1].to_vec(), "the last line feed"),
            ([&original[..], b"\n"].concat(), "one more line feed"),
            ([&original[..], b"\n\"".as_slice()].concat(), "a text that does not end"),
            (original.repeat(2), "everything twice"),
            (original.split_inclusive(|byte| *byte == b'\n').skip(1).collect::<Vec<_>>().concat(), "no header"),
        ] {
            fs::write(&file, changed).unwrap();
            assert!(!verify(&file, &trail.world.signer).verified, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_anywhere_is_told_to_be_truncated() {
    let trail = Trail::new(1).await;
    let all = Filter::default;
    for (filter, (format, name)) in [(all(), FORMATS[0]), (all(), FORMATS[1]), (all(), FORMATS[2])]
        .into_iter()
        .chain(FORMATS.map(|format| (Filter { aggregate_type: Some("order".to_owned()), ..all() }, format)))
    {
        let file = trail.directory.path().join(format!("audit.{name}"));
        let request = Request { filter: filter.clone(), format, ..Request::all(Destination::File(file.clone())) };
        export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
        let original = fs::read(&file).unwrap();
        for length in (1..original.len()).step_by(53).chain([original.len() - 1]) {
            fs::write(&file, &original[..length]).unwrap();
            let verdict = verify(&file, &trail.world.signer);
            let fault = verdict.finding.as_ref().map(|finding| finding.fault);
            // Of a CSV file without its header nobody can tell what it was.
            let is_headless = format == Format::Csv && !original[..length].contains(&b'\n');
            // Where a line ends nothing shows that others followed.
            let is_between = format != Format::Parquet && filter == all() && original[length - 1] == b'\n';
            assert!(
                fault == Some(if is_between { Fault::Missing } else { Fault::Truncated }) || is_headless && fault.is_some(),
                "{length} bytes of {name}, {filter:?}: {verdict}"
            );
        }
    }
}

/// Whatever is changed in a Parquet file, it is told, or it is nothing that a reader would show.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_changed_byte_of_a_parquet_file_shows_is_found() {
    let trail = Trail::new(1).await;
    let file = trail.directory.path().join("audit.parquet");
    let request = Request { format: Format::Parquet, ..Request::all(Destination::File(file.clone())) };
    export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
    let original = fs::read(&file).unwrap();
    let rows = rows_of_parquet(&file);
    let mut unnoticed = 0;
    for at in 0..original.len() {
        let mut bytes = original.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        if verify(&file, &trail.world.signer).verified {
            assert_eq!(rows_of_parquet(&file), rows, "byte {at}");
            unnoticed += 1;
        }
    }
    assert!(unnoticed < original.len() / 4, "{unnoticed} of {} bytes", original.len());
    for length in (0..original.len()).step_by(97) {
        fs::write(&file, &original[..length]).unwrap();
        assert!(!verify(&file, &trail.world.signer).verified, "{length} bytes of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_that_a_column_decides_and_the_bytes_do_not() {
    let trail = Trail::new(2).await;
    let of_another = Filter { actor: Some("customer:c-42".to_owned()), to_position: Some(9), ..Filter::default() };
    let of_positions = Filter { from_position: Some(4), ..Filter::default() };
    trail.world.execute("CREATE TABLE public.kept AS SELECT * FROM contrail.audit").await;
    for (column, name, value) in [
        ("actor", "actor", "'nobody'"),
        ("actor", "actor", "NULL"),
        ("event_type", "type", "'contrail.order.lost.v1'"),
        ("time", "time", "'infinity'"),
        ("time", "time", "'-infinity'"),
        ("time", "time", "time + interval '1 microsecond'"),
    ] {
        trail.world.execute(&format!("UPDATE contrail.audit SET {column} = {value} WHERE position = 5")).await;
        for filter in [Filter::default(), of_another.clone(), of_positions.clone()] {
            for (format, _) in FORMATS {
                let request = Request { filter: filter.clone(), format, ..Request::all(Destination::File(trail.file())) };
                let exported = export::export(&trail.world.pool, &trail.world.signer, &request).await;
                if format == Format::Jsonl && filter != of_another {
                    exported.unwrap();
                    assert!(trail.verify().verified, "no column is in it, nor asked for");
                    fs::remove_dir_all(trail.directory.path()).unwrap();
                    fs::create_dir(trail.directory.path()).unwrap();
                    continue;
                }
                let failure = exported.unwrap_err();
                assert_eq!(failure.exit(), Exit::Integrity, "{column} = {value}, {filter}: {failure}");
                let said = format!("position 5 was altered: its column {name} is not what its bytes say");
                assert_eq!(failure.to_string(), said, "{column} = {value}, {filter}");
                assert_eq!(fs::read_dir(trail.directory.path()).unwrap().count(), 0, "no file appears");
            }
        }
        let live = live::verify(&trail.world.store, &trail.world.pool, None).await.unwrap();
        assert_eq!(live.findings.iter().map(|finding| finding.position).collect::<Vec<_>>(), [5], "{column} = {value}: {live}");
        trail
            .world
            .execute(&format!(
                "UPDATE contrail.audit SET {column} = (SELECT {column} FROM public.kept WHERE position = 5) WHERE position = 5"
            ))
            .await;
    }
    // A column that a row must have, of a table that somebody has changed as well.
    trail.world.execute("ALTER TABLE contrail.audit ALTER event_type DROP NOT NULL").await;
    trail.world.execute("UPDATE contrail.audit SET event_type = NULL WHERE position = 6").await;
    let failure = trail.export_by(&trail.world.signer, of_another).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Integrity, "{failure}");
    assert!(failure.to_string().starts_with("position 6 was altered"), "{failure}");
}

/// What the table decides and what the bytes decide is the same, to the last digit of a time.
#[tokio::test(flavor = "multi_thread")]
async fn times_between_two_microseconds_bound_an_export() {
    let trail = Trail::new(3).await;
    let at = |nanoseconds: i128| Some(OffsetDateTime::from_unix_timestamp_nanos(1_790_000_001_000_000_000 + nanoseconds).unwrap());
    for (nanoseconds, events) in [(-1_000, 20), (-1, 20), (0, 20), (1, 10), (499, 10), (500, 10), (1_000, 10)] {
        let after = Filter { after: at(nanoseconds), ..Filter::default() };
        let before = Filter { before: at(nanoseconds), ..Filter::default() };
        for (filter, events) in [(after, events), (before, 30 - events)] {
            assert_eq!(trail.export_by(&trail.world.signer, filter.clone()).await.unwrap().events, events, "{filter}");
            assert!(trail.verify().verified, "{filter}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_not_what_the_bytes_say_is_named() {
    let trail = Trail::new(2).await;
    let request = Request { format: Format::Csv, ..Request::all(Destination::File(trail.file())) };
    export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
    changed(&trail.file(), |lines| lines[5] = lines[5].replacen("customer:c-42", "customer:c-43", 1));
    let finding = trail.verify().finding.expect("a column was changed");
    assert_eq!((finding.fault, finding.line), (Fault::Altered, Some(5)));
    assert_eq!(finding.detail, "the column actor is not what the event's bytes say");
}

/// A Parquet file of the same rows with another footer.
fn with_footer(original: &[u8], change: impl FnOnce(ParquetMetaData) -> ParquetMetaData) -> Vec<u8> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&Bytes::copy_from_slice(original)).unwrap();
    let mut file = original[..footer_at(original)].to_vec();
    let mut footer = Vec::new();
    ParquetMetaDataWriter::new(&mut footer, &change(metadata)).finish().unwrap();
    file.extend(footer);
    file
}

fn footer_at(file: &[u8]) -> usize {
    let length = file[file.len() - 8..][..4].try_into().unwrap();
    file.len() - 8 - u32::from_le_bytes(length) as usize
}

/// Says something else of a column.
fn with_column(original: &[u8], name: &str, change: impl Fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder) -> Vec<u8> {
    with_footer(original, |metadata| {
        let mut metadata = metadata.into_builder();
        let groups = metadata.take_row_groups().into_iter().map(|group| {
            let mut group = group.into_builder();
            let columns = group.take_columns().into_iter().map(|column| {
                if column.column_path().string() == name { change(column.into_builder()).build().unwrap() } else { column }
            });
            let columns = columns.collect();
            group.set_column_metadata(columns).build().unwrap()
        });
        let groups = groups.collect();
        metadata.set_row_groups(groups).build()
    })
}

/// A footer with something in it that the library neither shows nor writes: notes of a column.
fn with_notes_of_a_column(original: &[u8]) -> Vec<u8> {
    let at = footer_at(original);
    let (rows, footer) = (&original[..at], &original[at..original.len() - 8]);
    let name = b"\x18\x05actor";
    let path = footer.windows(name.len()).rposition(|window| window == name).unwrap();
    // The fields 4 to 7 are numbers; then comes field 9, of which the header counts from the one before.
    let mut end = path + name.len();
    for _ in 4..=7 {
        end += 1;
        while footer[end] & 0x80 != 0 {
            end += 1;
        }
        end += 1;
    }
    assert_eq!(footer[end], 0x26);
    let notes = b"\x19\x1c\x18\x01k\x18\x01v\x00\x16";
    let changed = [&footer[..end], notes, &footer[end + 1..]].concat();
    let length = u32::try_from(changed.len()).unwrap().to_le_bytes();
    [rows, &changed, &length, b"PAR1"].concat()
}

/// What a footer says of a column, instead of what it said.
type Lie = Box<dyn Fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder>;

/// Readers leave rows out by what a footer says of them, whatever the rows are.
#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_footer_says_nothing_that_an_export_does_not_say() {
    let trail = Trail::new(2).await;
    let request = Request { format: Format::Parquet, ..Request::all(Destination::File(trail.file())) };
    export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
    let original = fs::read(trail.file()).unwrap();
    let is_verified = |file: Vec<u8>| {
        fs::write(trail.file(), file).unwrap();
        let reader = SerializedFileReader::new(fs::File::open(trail.file()).unwrap()).unwrap();
        assert_eq!(reader.get_row_iter(None).unwrap().count(), 20, "the library reads it");
        let verdict = trail.verify();
        assert!(verdict.verified || verdict.finding.as_ref().is_some_and(|finding| finding.fault == Fault::Altered), "{verdict}");
        verdict.verified
    };
    assert!(is_verified(with_footer(&original, |metadata| metadata)), "the same footer");
    assert!(is_verified(with_column(&original, "actor", |column| column)), "the same column");
    let text = |text: &str| Some(ByteArray::from(text.as_bytes().to_vec()));
    let least_time = |nulls| {
        let time = 1_790_000_000_000_000;
        Statistics::int64(Some(time), Some(time + 1_000_000), None, nulls, false)
    };
    assert!(is_verified(with_column(&original, "time", |column| column.set_statistics(least_time(Some(0))))), "true statistics");
    let lies: [(&str, &str, Lie); 13] = [
        ("nulls", "time", Box::new(move |column| column.set_statistics(least_time(Some(20))))),
        ("another least", "time", Box::new(|column| column.set_statistics(Statistics::int64(Some(1), Some(2), None, None, false)))),
        ("no statistics", "time", Box::new(ColumnChunkMetaDataBuilder::clear_statistics)),
        (
            "statistics",
            "actor",
            Box::new(move |column| column.set_statistics(Statistics::byte_array(text("a"), text("b"), None, Some(0), false))),
        ),
        ("nulls", "actor", Box::new(|column| column.set_statistics(Statistics::byte_array(None, None, None, Some(20), false)))),
        ("distinct", "version", Box::new(|column| column.set_statistics(Statistics::int64(None, None, Some(1), None, false)))),
        ("a bloom filter", "aggregate_id", Box::new(|column| column.set_bloom_filter_offset(Some(4)))),
        ("its length", "aggregate_id", Box::new(|column| column.set_bloom_filter_length(Some(4)))),
        ("a column index", "type", Box::new(|column| column.set_column_index_offset(Some(4)).set_column_index_length(Some(9)))),
        ("an offset index", "type", Box::new(|column| column.set_offset_index_offset(Some(4)).set_offset_index_length(Some(9)))),
        ("a path", "bytes", Box::new(|column| column.set_file_path("/dev/null".to_owned()))),
        ("sizes", "bytes", Box::new(|column| column.set_unencoded_byte_array_data_bytes(Some(0)))),
        ("an index page", "bytes", Box::new(|column| column.set_index_page_offset(Some(4)))),
    ];
    for (lie, column, change) in lies {
        assert!(!is_verified(with_column(&original, column, change)), "{lie} of {column}");
    }
    assert!(!is_verified(with_notes_of_a_column(&original)), "notes of a column");
    for sorting in [None, Some(vec![SortingColumn { column_idx: 6, descending: true, nulls_first: false }])] {
        let sorted = with_footer(&original, |metadata| {
            let mut metadata = metadata.into_builder();
            let groups = metadata.take_row_groups().into_iter();
            let groups = groups.map(|group| group.into_builder().set_sorting_columns(sorting.clone()).build().unwrap()).collect();
            metadata.set_row_groups(groups).build()
        });
        assert!(!is_verified(sorted), "sorted by {sorting:?}");
    }
    let name = b"\x18\x05actor";
    let path = original.windows(name.len()).rposition(|window| window == name).unwrap();
    let renamed = [&original[..path], b"\x18\x05owner", &original[path + name.len()..]].concat();
    assert!(!is_verified(renamed), "another name in the group");
}
