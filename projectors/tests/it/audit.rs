mod formats;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use parquet::{
    data_type::ByteArray,
    file::{
        metadata::{ColumnChunkMetaDataBuilder, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, SortingColumn},
        reader::{FileReader, SerializedFileReader},
        statistics::Statistics,
    },
    record::Field,
};
use projectors::{
    audit::{
        checkpoint::Checkpoint,
        consistency,
        export::{self, Destination, Exported, Filter, Format, Request},
        key::Signer,
        live,
        merkle::{Frontier, Hash, leaf_hash},
        proof,
        verify::{self, Fault, Verdict},
    },
    failure::Failure,
};
use read_store::projections::ProjectionName;
use telemetry::exit::Exit;
use tempfile::TempDir;
use time::{OffsetDateTime, macros::format_description};

use crate::{story::Teller, world::World};

/// Every format: its name on the command line and of its files.
const FORMATS: [(Format, &str); 3] = [(Format::Jsonl, "jsonl"), (Format::Csv, "csv"), (Format::Parquet, "parquet")];

/// A log of some orders, applied to the trail and exported.
struct Trail {
    world: World,
    directory: TempDir,
    end: u64,
}

impl Trail {
    async fn new(orders: u64) -> Self {
        let world = World::new().await;
        let running = world.run().await;
        let end = world.teller().tell(orders).await;
        world.reach(&[ProjectionName::Audit], end).await;
        running.stop().await;
        Self { world, directory: tempfile::tempdir().unwrap(), end }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    async fn export(&self, to_position: Option<u64>) -> Result<Exported, Failure> {
        self.export_by(&self.world.signer, Filter { to_position, ..Filter::default() }).await
    }

    async fn export_by(&self, signer: &Signer, filter: Filter) -> Result<Exported, Failure> {
        let request = Request { filter, ..Request::all(Destination::File(self.file())) };
        export::export(&self.world.pool, signer, &request).await
    }

    fn verify(&self) -> Verdict {
        verify(&self.file(), &self.world.signer)
    }

    /// Exports, changes the lines, and says what verifying finds.
    async fn tampered(&self, tamper: impl FnOnce(&mut Vec<String>)) -> (Fault, Option<u64>) {
        self.export(None).await.unwrap();
        let mut lines: Vec<String> = fs::read_to_string(self.file()).unwrap().lines().map(str::to_owned).collect();
        tamper(&mut lines);
        lines.push(String::new());
        fs::write(self.file(), lines.join("\n")).unwrap();
        let verdict = self.verify();
        assert!(!verdict.verified);
        let finding = verdict.finding.unwrap();
        (finding.fault, finding.line)
    }
}

fn verify(file: &Path, signer: &Signer) -> Verdict {
    verify::verify(file, &export::checkpoint_path(file), None, &signer.verifier_key()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_the_stored_bytes_and_verifies() {
    let trail = Trail::new(5).await;
    let exported = trail.export(None).await.unwrap();
    assert_eq!((exported.events, exported.file.as_deref()), (trail.end, Some(&*trail.file())));

    let text = fs::read(trail.file()).unwrap();
    let mut tree = Frontier::new();
    let mut reader = trail.world.store.read_from(1);
    let mut expected = Vec::new();
    while tree.size() < trail.end {
        for message in reader.next_batch(1_000).await.unwrap() {
            expected.extend_from_slice(&message.bytes);
            expected.push(b'\n');
            tree.append(leaf_hash(&message.bytes));
        }
    }
    assert_eq!(text, expected, "each line is exactly the stored bytes");
    let note = fs::read_to_string(export::checkpoint_path(&trail.file())).unwrap();
    let checkpoint = Checkpoint::open(&note, &trail.world.signer.verifier_key()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (trail.end, tree.root()));
    assert_eq!(note.split("\n\n").next().unwrap().lines().count(), 3, "a whole export's has no extension lines");

    let verdict = trail.verify();
    assert_eq!((verdict.verified, verdict.size, verdict.lines), (true, Some(trail.end), trail.end));
    assert_eq!(verdict.root, Some(exported.root));
    let entries = fs::read_dir(trail.directory.path()).unwrap().count();
    assert_eq!(entries, 2, "no temporary file is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_can_end_at_any_position() {
    let trail = Trail::new(3).await;
    for to_position in [1, 2, 7, 16, trail.end] {
        assert_eq!(trail.export(Some(to_position)).await.unwrap().events, to_position);
        assert!(trail.verify().verified);
    }
    let failure = trail.export(Some(trail.end + 1)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::TryAgain, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_trail_exports_and_verifies() {
    let trail = Trail { world: World::new().await, directory: tempfile::tempdir().unwrap(), end: 0 };
    assert_eq!(trail.export(None).await.unwrap().events, 0);
    assert!(trail.verify().verified);
    fs::write(trail.file(), "{}\n").unwrap();
    assert_eq!(trail.verify().finding.unwrap().fault, Fault::Extra);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_tampering_is_told_apart() {
    let trail = Trail::new(6).await;
    let last = trail.end;

    let altered = trail.tampered(|lines| lines[11] = lines[11].replace("SKU-1", "SKU-2")).await;
    assert_eq!(altered.0, Fault::Altered);
    let nonsense = trail.tampered(|lines| lines[11] = "nonsense".to_owned()).await;
    assert_eq!(nonsense, (Fault::Altered, Some(12)));
    let renumbered = trail.tampered(|lines| lines[4] = lines[4].replace(r#""sequence":"2""#, r#""sequence":"7""#)).await;
    assert_eq!(renumbered.0, Fault::Altered);

    let cut = trail.tampered(|lines| drop(lines.pop())).await;
    assert_eq!(cut, (Fault::Missing, Some(last)), "nothing shows a hole");
    let holed = trail.tampered(|lines| drop(lines.remove(3))).await;
    assert_eq!(holed, (Fault::Missing, Some(4)), "the order's second event follows on nothing");
    let replaced = trail.tampered(|lines| lines[20] = lines[19].clone()).await;
    assert_eq!(replaced, (Fault::Missing, Some(21)));

    let swapped = trail.tampered(|lines| lines.swap(4, 5)).await;
    assert_eq!(swapped, (Fault::Reordered, Some(5)), "two events of one order");
    let far = trail.tampered(|lines| lines.swap(2, 57)).await;
    assert_eq!(far, (Fault::Reordered, Some(3)));
    let other_aggregates = trail.tampered(|lines| lines.swap(9, 10)).await;
    assert_eq!(other_aggregates, (Fault::Reordered, Some(10)), "a notification and the next order's stock");

    let appended = trail.tampered(|lines| lines.push(lines[0].clone())).await;
    assert_eq!(appended, (Fault::Extra, Some(last + 1)));
    let inserted = trail.tampered(|lines| lines.insert(0, lines[0].clone())).await;
    assert_eq!(inserted.0, Fault::Extra);
}

/// In a log whose times go back and forth, and that has lines which are no events.
#[tokio::test(flavor = "multi_thread")]
async fn where_times_tell_nothing_the_signed_root_and_the_versions_tell_what_was_done() {
    let world = World::new().await;
    let running = world.run().await;
    let mut teller = world.teller();
    teller.tell(2).await;
    let earlier = r#"{"specversion":"1.0","id":"01a1fdc6-d75d-7901-859c-3e96ce0f2d2f","type":"strange","source":"/x","subject":"x","time":"1969-12-31T23:59:59Z","datacontenttype":"application/json","aggregatetype":"strange","sequence":"1","correlationid":"c","data":{}}"#;
    world.poison("events.strange.x", earlier).await;
    world.poison("events.strange.x", "no event").await;
    let end = teller.tell(2).await;
    world.reach(&[ProjectionName::Audit], end).await;
    running.stop().await;
    let trail = Trail { world, directory: tempfile::tempdir().unwrap(), end };
    assert_eq!(end, 42);

    // Lines are counted from 0 here; of each ten the first three are stock's, then come five of the order.
    for at in [0, 3, 4, 8, 9, 20, 21, 25, 40] {
        assert_eq!(trail.tampered(|lines| lines.swap(at, at + 1)).await, (Fault::Reordered, Some(at as u64 + 1)), "{at}");
    }
    assert_eq!(trail.tampered(|lines| lines.swap(4, 6)).await, (Fault::Reordered, Some(5)));
    assert_eq!(
        trail.tampered(|lines| lines[3..7].rotate_left(1)).await,
        (Fault::Reordered, Some(4)),
        "the order's first as its fourth"
    );
    assert_eq!(trail.tampered(|lines| lines.swap(4, 33)).await, (Fault::Reordered, Some(5)), "of two orders");

    assert_eq!(trail.tampered(|lines| drop(lines.remove(4))).await, (Fault::Missing, Some(5)));
    let last = trail.tampered(|lines| drop(lines.remove(9))).await;
    assert_eq!(last, (Fault::Missing, Some(42)), "a notification's only event, of which no line tells that it is gone");
    assert_eq!(trail.tampered(|lines| lines[11] = lines[11].replace("SKU-1", "SKU-2")).await, (Fault::Altered, Some(12)));
    assert_eq!(trail.tampered(|lines| lines[9] = lines[9].replace("email", "post")).await.0, Fault::Altered);
    assert_eq!(trail.tampered(|lines| lines[4] = "{}".to_owned()).await, (Fault::Altered, Some(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_csv_tell_by_their_positions_what_was_done() {
    let trail = Trail::new(2).await;
    let request = Request { format: Format::Csv, ..Request::all(Destination::File(trail.file())) };
    let tampered = async |tamper: &dyn Fn(&mut Vec<String>)| {
        export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
        changed(&trail.file(), tamper);
        let finding = trail.verify().finding.expect("it was tampered with");
        (finding.fault, finding.line)
    };
    // The first line is the header.
    assert_eq!(tampered(&|lines| lines.swap(9, 10)).await, (Fault::Reordered, Some(9)));
    assert_eq!(tampered(&|lines| lines.swap(2, 19)).await, (Fault::Reordered, Some(2)));
    assert_eq!(tampered(&|lines| lines[1..].reverse()).await, (Fault::Reordered, Some(1)));
    assert_eq!(tampered(&|lines| drop(lines.remove(10))).await, (Fault::Missing, Some(10)), "a notification's only event");
    assert_eq!(tampered(&|lines| drop(lines.drain(15..))).await, (Fault::Missing, Some(15)));
    let post = |lines: &mut Vec<String>| lines[10] = lines[10].replace("email", "post");
    assert_eq!(tampered(&post).await, (Fault::Altered, Some(10)));
}

/// Exports that leave events out, each with how many of 30 orders' events it has.
fn filters() -> Vec<(Filter, u64)> {
    let all = Filter::default;
    let at = |second: i64| Some(OffsetDateTime::from_unix_timestamp(1_790_000_000 + second).unwrap());
    let order = Teller::order_id(3).to_string();
    vec![
        (Filter { aggregate_type: Some("order".to_owned()), ..all() }, 150),
        (Filter { aggregate_id: Some(order), ..all() }, 6),
        (Filter { event_type: Some("contrail.payment.captured.v1".to_owned()), ..all() }, 30),
        (Filter { correlation_id: Some("story".to_owned()), from_position: Some(2), ..all() }, 299),
        (Filter { actor: Some("customer:c-42' OR true --".to_owned()), ..all() }, 0),
        (Filter { after: at(10), before: at(12), ..all() }, 20),
        (Filter { from_position: Some(257), to_position: Some(290), ..all() }, 34),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_export_has_a_proof_of_each_line() {
    let trail = Trail::new(30).await;
    for (filter, events) in filters() {
        let exported = trail.export_by(&trail.world.signer, filter.clone()).await.unwrap();
        assert_eq!((exported.events, exported.size), (events, filter.to_position.unwrap_or(trail.end)), "{filter:?}");
        let verdict = trail.verify();
        assert_eq!((verdict.verified, verdict.partial), (true, true), "{filter:?}");
        assert!(
            verdict
                .to_string()
                .ends_with(&format!("each of {events} lines is one of the {} events, and none is missing", exported.size)),
            "{verdict}"
        );
        assert_eq!((verdict.lines, verdict.root), (events, Some(exported.root)), "{filter:?}");
        let part = verdict.part.expect("the checkpoint states it");
        assert_eq!((part.lines, part.filter), (events, filter));
        let proofs = fs::read_to_string(export::proof_path(&trail.file())).unwrap();
        assert_eq!(proofs.lines().count() as u64, events);
    }
    // Proofs of an earlier export do not stay beside a whole one.
    trail.export(None).await.unwrap();
    assert!(!export::proof_path(&trail.file()).exists() && trail.verify().verified && !trail.verify().partial);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_tampering_with_a_partial_export_is_told_apart() {
    let trail = Trail::new(6).await;
    let filter = Filter { aggregate_type: Some("order".to_owned()), ..Filter::default() };
    let found = async |tamper: &dyn Fn(&mut Vec<String>), file: PathBuf| {
        trail.export_by(&trail.world.signer, filter.clone()).await.unwrap();
        let mut lines: Vec<String> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
        tamper(&mut lines);
        lines.push(String::new());
        fs::write(&file, lines.join("\n")).unwrap();
        let finding = trail.verify().finding.expect("it was tampered with");
        (finding.fault, finding.line)
    };
    let in_file = async |tamper: &dyn Fn(&mut Vec<String>)| found(tamper, trail.file()).await;
    let in_proofs = async |tamper: &dyn Fn(&mut Vec<String>)| found(tamper, export::proof_path(&trail.file())).await;
    assert_eq!(in_file(&|lines| lines[4] = lines[4].replace("test", "tost")).await, (Fault::Altered, Some(5)));
    assert_eq!(in_file(&|lines| drop(lines.remove(4))).await, (Fault::Missing, Some(5)));
    assert_eq!(in_file(&|lines| drop(lines.pop())).await, (Fault::Truncated, Some(30)));
    assert_eq!(in_file(&|lines| lines.swap(4, 9)).await, (Fault::Reordered, Some(5)));
    assert_eq!(in_file(&|lines| lines.insert(4, lines[3].clone())).await, (Fault::Extra, Some(5)));
    assert_eq!(in_proofs(&|lines| lines[4] = "{}".to_owned()).await, (Fault::Altered, Some(5)));
    assert_eq!(in_proofs(&|lines| lines[4] = lines[4].replace("[\"", "[\"AAAA")).await, (Fault::Altered, Some(5)));
    assert_eq!(in_proofs(&|lines| drop(lines.remove(4))).await, (Fault::Extra, Some(5)));
}

/// The lines of a file that somebody changes.
fn changed(file: &Path, change: impl Fn(&mut Vec<String>)) {
    let mut lines: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    fs::write(file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_taken_out_with_its_proof_is_missing() {
    let trail = Trail::new(6).await;
    let payments = Filter { aggregate_type: Some("payment".to_owned()), ..Filter::default() };
    let orders = Filter { aggregate_type: Some("order".to_owned()), ..Filter::default() };
    let proofs = export::proof_path(&trail.file());
    for at in [0, 3, 5] {
        trail.export_by(&trail.world.signer, payments.clone()).await.unwrap();
        for file in [&trail.file(), &proofs] {
            changed(file, |lines| drop(lines.remove(at)));
        }
        let verdict = trail.verify();
        let finding = verdict.finding.as_ref().expect("a line is missing");
        assert_eq!((finding.fault, finding.line, verdict.lines), (Fault::Missing, None, 5), "{verdict}");
        assert_eq!(independent_verdict(&trail).0, Some(5));
    }
    // Another event of the log, with its proof, does not make up for it; nor may there be more of them.
    trail.export_by(&trail.world.signer, orders).await.unwrap();
    let (order, proof) = (fs::read_to_string(trail.file()).unwrap(), fs::read_to_string(&proofs).unwrap());
    for (fault, makes_room) in [(Fault::Missing, true), (Fault::Extra, false)] {
        trail.export_by(&trail.world.signer, payments.clone()).await.unwrap();
        for (file, text) in [(&trail.file(), &order), (&proofs, &proof)] {
            changed(file, |lines| {
                lines.insert(5, text.lines().last().unwrap().to_owned());
                if makes_room {
                    lines.pop();
                }
            });
        }
        assert_eq!(trail.verify().finding.map(|finding| finding.fault), Some(fault));
        assert_eq!(independent_verdict(&trail).0, Some(5));
    }
    // Without the proofs nothing is told of the lines.
    fs::remove_file(&proofs).unwrap();
    let key = trail.world.signer.verifier_key();
    let failure = verify::verify(&trail.file(), &export::checkpoint_path(&trail.file()), None, &key).unwrap_err();
    assert_eq!(failure.exit(), Exit::NotFound);
    assert!(failure.to_string().starts_with(&format!("{} does not exist", proofs.display())), "{failure}");
}

/// Whoever can change the file can put whatever they like beside it, but not sign it.
#[tokio::test(flavor = "multi_thread")]
async fn proofs_beside_a_whole_export_do_not_make_it_a_part() {
    let trail = Trail::new(6).await;
    let (file, beside) = (trail.file(), export::proof_path(&trail.file()));
    let everything = Filter { from_position: Some(1), correlation_id: Some("story".to_owned()), ..Filter::default() };
    let key = trail.world.signer.verifier_key();
    for keeps in [0, 20, 59] {
        // Proofs of everything lead to the same root.
        trail.export_by(&trail.world.signer, everything.clone()).await.unwrap();
        let proofs = fs::read_to_string(&beside).unwrap();
        trail.export(None).await.unwrap();
        assert!(!beside.exists());
        fs::write(&beside, proofs).unwrap();
        assert!(trail.verify().verified, "what lies beside a whole export does not matter");
        for file in [&file, &beside] {
            changed(file, |lines| drop(lines.drain(keeps..60)));
        }
        let verdict = trail.verify();
        let finding = verdict.finding.as_ref().unwrap_or_else(|| panic!("{keeps} lines: {verdict}"));
        assert!(matches!(finding.fault, Fault::Missing | Fault::Truncated), "{keeps} lines: {verdict}");
        assert_eq!((verdict.partial, verdict.part.is_none()), (false, true));
        assert_eq!(independent_verdict(&trail).0, Some(5), "{keeps} lines");
        // Each line is one of the log's all the same, for whoever asks just that.
        let verdict = verify::verify(&file, &export::checkpoint_path(&file), Some(&beside), &key).unwrap();
        assert_eq!((verdict.verified, verdict.partial, verdict.lines), (true, true, keeps as u64));
        assert!(verdict.to_string().ends_with("nothing that is signed shows whether lines are missing"), "{verdict}");
    }
    // A part does not become a whole either.
    trail.export_by(&trail.world.signer, everything).await.unwrap();
    let note = fs::read_to_string(export::checkpoint_path(&file)).unwrap();
    let without: String = note.split_inclusive('\n').filter(|line| !line.starts_with("contrail.part")).collect();
    fs::write(export::checkpoint_path(&file), without).unwrap();
    assert_eq!(trail.verify().finding.unwrap().fault, Fault::WronglySigned);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_replaces_nothing_but_files_and_is_its_owners_alone() {
    let trail = Trail::new(1).await;
    let at = |name: &str| trail.directory.path().join(name);
    let export = async |filter: &Filter, out: PathBuf, checkpoint: Option<PathBuf>, proof: Option<PathBuf>| {
        let request = Request { filter: filter.clone(), checkpoint, proof, ..Request::all(Destination::File(out)) };
        export::export(&trail.world.pool, &trail.world.signer, &request).await
    };
    let whole = Filter::default();
    let part = Filter { from_position: Some(2), ..Filter::default() };
    fs::create_dir(at("folder")).unwrap();
    fs::create_dir(at("taken.jsonl.proof")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    symlink(at("socket"), at("to-socket")).unwrap();
    symlink(at("folder"), at("to-folder")).unwrap();
    symlink("data/real.jsonl", at("to-nothing-yet")).unwrap();
    fs::create_dir(at("data")).unwrap();
    let before = fs::read_dir(trail.directory.path()).unwrap().count();
    let same = Some(at("same"));
    for (filter, out, checkpoint, proof) in [
        (&whole, at("folder"), None, None),
        (&whole, at("socket"), None, None),
        (&whole, at("to-socket"), None, None),
        (&whole, at("to-folder"), None, None),
        (&whole, at("taken.jsonl"), None, None),
        (&whole, PathBuf::from("/dev/null"), Some(at("checkpoint")), Some(at("proof"))),
        (&part, at("out"), None, Some(at("socket"))),
        (&whole, at("out"), Some(at("socket")), None),
        (&whole, at("same"), same.clone(), None),
        (&whole, at("out"), Some(at("out.proof")), None),
        (&part, at("out"), same.clone(), same.clone()),
        (&part, at("same"), None, Some(at("folder/../same"))),
    ] {
        let failure = export(filter, out.clone(), checkpoint, proof).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage, "{}: {failure}", out.display());
    }
    assert_eq!(fs::read_dir(trail.directory.path()).unwrap().count(), before, "nothing was written");
    assert!(socket.local_addr().is_ok() && fs::symlink_metadata(at("socket")).is_ok());

    for filter in [&part, &whole] {
        export(filter, at("to-nothing-yet"), None, None).await.unwrap();
        assert!(fs::symlink_metadata(at("to-nothing-yet")).unwrap().is_symlink(), "it still leads there");
        let verdict = verify(&at("to-nothing-yet"), &trail.world.signer);
        assert!(verdict.verified, "{verdict}");
        for name in ["data/real.jsonl", "to-nothing-yet.checkpoint"] {
            assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    }
}

/// What is read is held in memory, so that a line must end where no event is as long.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_altered_and_not_read_to_its_end() {
    let trail = Trail::new(1).await;
    let part = Filter { from_position: Some(2), ..Filter::default() };
    for (filter, (format, name)) in [(Filter::default(), FORMATS[0]), (part.clone(), FORMATS[0]), (Filter::default(), FORMATS[1])] {
        let file = trail.directory.path().join(format!("audit.{name}"));
        let request = Request { filter: filter.clone(), format, ..Request::all(Destination::File(file.clone())) };
        export::export(&trail.world.pool, &trail.world.signer, &request).await.unwrap();
        // Sparse: what is not written is read as zeros.
        let endless = fs::OpenOptions::new().write(true).open(&file).unwrap();
        endless.set_len(4 * 1024 * 1024 * 1024).unwrap();
        let finding = verify(&file, &trail.world.signer).finding.expect("it is no export");
        let last = if filter == part { 10 } else { 11 };
        assert_eq!((finding.fault, finding.line), (Fault::Altered, Some(last)), "{name}, {filter}: {}", finding.detail);
        assert!(finding.detail.contains("is longer than the "), "{}", finding.detail);
    }
    trail.export_by(&trail.world.signer, part).await.unwrap();
    let endless = fs::OpenOptions::new().write(true).open(export::proof_path(&trail.file())).unwrap();
    endless.set_len(4 * 1024 * 1024 * 1024).unwrap();
    assert!(!trail.verify().verified);
}

/// What a stranger thinks of the file, who has Python and nothing of ours.
fn independent_verdict(trail: &Trail) -> (Option<i32>, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/e2e/independent/verify_export.py");
    let mut command = std::process::Command::new("python3");
    let output = command.arg(script).arg(trail.file()).arg("--key").arg(trail.world.signer.verifier_key().to_string()).output();
    let output = output.expect("python3 is there");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_program_comes_to_the_same_verdicts() {
    let trail = Trail::new(30).await;
    let partial = filters().into_iter().map(|(filter, _)| filter);
    for filter in partial.chain([Filter::default(), Filter { to_position: Some(77), ..Filter::default() }]) {
        trail.export_by(&trail.world.signer, filter.clone()).await.unwrap();
        let (code, said) = independent_verdict(&trail);
        assert_eq!(code, Some(0), "{filter:?}: {said}");
        let original = fs::read(trail.file()).unwrap();
        if original.is_empty() {
            continue;
        }
        let lines: Vec<&[u8]> = original.split_inclusive(|byte| *byte == b'\n').collect();
        let middle = lines.len() / 2;
        let dropped = [&lines[..middle], &lines[middle + 1..]].concat().concat();
        let doubled = [&lines[..=middle], &lines[middle..]].concat().concat();
        let mut swapped = lines.clone();
        swapped.swap(middle, 0);
        let mut changed = original.clone();
        changed[original.len() / 2] ^= 1;
        for tampered in [dropped, doubled, swapped.concat(), changed] {
            fs::write(trail.file(), tampered).unwrap();
            let (code, said) = independent_verdict(&trail);
            assert_eq!((code, trail.verify().verified), (Some(5), false), "{filter:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_changed_byte_of_the_file_is_found() {
    let trail = Trail::new(1).await;
    trail.export(None).await.unwrap();
    let original = fs::read(trail.file()).unwrap();
    for at in (0..original.len()).step_by(7).chain([original.len() - 1]) {
        let mut bytes = original.clone();
        bytes[at] ^= 1;
        fs::write(trail.file(), bytes).unwrap();
        assert!(!trail.verify().verified, "byte {at}");
    }
    fs::write(trail.file(), &original[..original.len() - 1]).unwrap();
    assert!(!trail.verify().verified, "the last line feed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_is_told_apart() {
    let trail = Trail::new(1).await;
    trail.export(None).await.unwrap();
    let stranger = Signer::from_seed(&[8; 32]);
    assert_eq!(verify(&trail.file(), &stranger).finding.unwrap().fault, Fault::WronglySigned);

    // Somebody exports less and signs that with a key of their own.
    trail.export_by(&stranger, Filter { to_position: Some(4), ..Filter::default() }).await.unwrap();
    assert_eq!(trail.verify().finding.unwrap().fault, Fault::WronglySigned);

    trail.export(None).await.unwrap();
    let path = export::checkpoint_path(&trail.file());
    let note = fs::read_to_string(&path).unwrap();
    fs::write(&path, note.replacen(&format!("\n{}\n", trail.end), "\n9\n", 1)).unwrap();
    assert_eq!(trail.verify().finding.unwrap().fault, Fault::WronglySigned);
    fs::write(&path, b"\xff").unwrap();
    assert_eq!(trail.verify().finding.unwrap().fault, Fault::WronglySigned);
    fs::remove_file(&path).unwrap();
    let missing = verify::verify(&trail.file(), &path, None, &trail.world.signer.verifier_key()).unwrap_err();
    assert_eq!(missing.exit(), Exit::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_that_is_not_what_was_recorded() {
    let trail = Trail::new(3).await;
    let refused = async |tampering: &str, mending: &str| {
        trail.world.execute(tampering).await;
        let failure = trail.export(None).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Integrity, "{tampering}: {failure}");
        assert!(!trail.file().exists() && !export::checkpoint_path(&trail.file()).exists());
        trail.world.execute(mending).await;
    };
    let flip = "UPDATE contrail.audit SET bytes = set_byte(bytes, 100, get_byte(bytes, 100) # 1) WHERE position = 5";
    refused(flip, flip).await;
    // Whoever can write the table can also write its hashes; but not what was signed.
    let rehash = "UPDATE contrail.audit SET leaf_hash = sha256('\\x00'::bytea || bytes) WHERE position = 5";
    refused(&format!("{flip}; {rehash}"), &format!("{flip}; {rehash}")).await;
    let hide = "UPDATE contrail.audit SET position = -position WHERE position = 7";
    refused(hide, "UPDATE contrail.audit SET position = -position WHERE position = -7").await;
    let forget = "UPDATE contrail.projections SET frontier = '\\x00' WHERE name = 'audit'";
    trail.world.execute("CREATE TABLE public.kept AS SELECT frontier FROM contrail.projections WHERE name = 'audit'").await;
    refused(forget, "UPDATE contrail.projections SET frontier = (SELECT frontier FROM public.kept) WHERE name = 'audit'").await;
    trail.export(None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_that_what_was_recorded_later_does_not_begin_with() {
    let trail = Trail::new(3).await;
    trail.world.execute("DELETE FROM contrail.audit_checkpoints WHERE size <= 5").await;
    let filters = || {
        [
            Filter { to_position: Some(5), ..Filter::default() },
            Filter { to_position: Some(5), from_position: Some(5), ..Filter::default() },
        ]
    };
    for filter in filters() {
        trail.export_by(&trail.world.signer, filter).await.unwrap();
    }
    fs::remove_file(trail.file()).unwrap();
    // As somebody does it who forges an event and its hash.
    let forge = "UPDATE contrail.audit SET bytes = set_byte(bytes, 100, get_byte(bytes, 100) # 1) WHERE position = 5;
                 UPDATE contrail.audit SET leaf_hash = sha256('\\x00'::bytea || bytes) WHERE position = 5";
    trail.world.execute(forge).await;
    for filter in filters() {
        let failure = trail.export_by(&trail.world.signer, filter).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Integrity, "{failure}");
        assert!(!trail.file().exists());
    }
    // Of what nothing was signed the trail's own tree tells.
    trail.world.execute("DELETE FROM contrail.audit_checkpoints").await;
    assert_eq!(trail.export(Some(5)).await.unwrap_err().exit(), Exit::Integrity);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_tree_of_the_trail_is_proven_to_begin_with_any_earlier_one() {
    let trail = Trail::new(60).await;
    let hash = |text: &str| -> Hash { BASE64.decode(text).unwrap().try_into().unwrap() };
    for (old, new) in [(1, 1), (1, 2), (255, 256), (256, 257), (256, 512), (257, 600), (511, 513), (300, 512), (600, 600), (1, 600)]
    {
        let proven = consistency::prove(&trail.world.pool, old, Some(new)).await.unwrap();
        assert_eq!((proven.old.size, proven.new.size), (old, new));
        let hashes: Vec<_> = proven.consistency.iter().map(|text| hash(text)).collect();
        assert!(proof::extends(&hash(&proven.old.root), old, &hash(&proven.new.root), new, &hashes), "{old} of {new}");
        assert_eq!(trail.export(Some(old)).await.unwrap().root, proven.old.root);
    }
    assert_eq!(consistency::prove(&trail.world.pool, 5, None).await.unwrap().new.size, trail.end);
    let rehash = "UPDATE contrail.audit SET leaf_hash = sha256(bytes) WHERE position = 5";
    trail.world.execute(rehash).await;
    let failure = consistency::prove(&trail.world.pool, 300, None).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Integrity, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_signed_checkpoint_is_at_hand() {
    let trail = Trail { world: World::new().await, directory: tempfile::tempdir().unwrap(), end: 0 };
    assert_eq!(export::last_note(&trail.world.pool).await.unwrap_err().exit(), Exit::NotFound);
    let trail = Trail::new(1).await;
    let note = export::last_note(&trail.world.pool).await.unwrap();
    let checkpoint = Checkpoint::open(&note, &trail.world.signer.verifier_key()).unwrap();
    assert!((1..=trail.end).contains(&checkpoint.size));
}
