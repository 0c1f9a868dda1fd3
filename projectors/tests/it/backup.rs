//! `projectors log`: what is restored is what was backed up, and what is damaged or in the way is refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use event_store::{
    BACKED_UP_STREAMS, Beginning, DEAD_LETTER_STREAM, DISCARDED_LETTER_STREAM, DeadLetter, JetStreamEventStore, LogMessage, STREAM,
    Sharing, TIMER_STREAM, Timer, WorkQueueOptions, WorkSource,
};
use local_stack::{nats::NatsServer, testing};
use read_store::projections::ProjectionName;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::task::block_in_place;

use crate::{
    program::{json, output, projectors},
    world::{World, eventually},
};

const PURPOSE: &str = "test";

/// What happens to a file.
type Damage = fn(&Path);

#[expect(clippy::disallowed_methods, reason = "timers fire by the server's clock")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A queue of the log's orders. One whose handling takes longer than the test.
fn orders(beginning: Beginning) -> WorkQueueOptions {
    WorkQueueOptions {
        name: match beginning {
            Beginning::First => "from-the-first",
            Beginning::Now => "from-now",
        },
        source: WorkSource::Log(&["order"]),
        takes_redrives: false,
        beginning,
        ack_wait: Duration::from_mins(5),
        in_flight_max: 1_000,
        parked_max: 0,
        sharing: Sharing::All,
    }
}

fn timers() -> WorkQueueOptions {
    WorkQueueOptions { name: "timers", source: WorkSource::Timers(PURPOSE), ..orders(Beginning::First) }
}

fn letter(position: u64) -> DeadLetter {
    DeadLetter {
        reactor: "payments".to_owned(),
        position,
        event_type: "contrail.order.placed.v1".to_owned(),
        aggregate_id: None,
        correlation_id: None,
        error_chain: vec!["a test".to_owned()],
        attempts: 1,
        redrives: 0,
        first_died_at: None,
        died_at: OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap(),
    }
}

async fn connect(url: &str) -> JetStreamEventStore {
    let store = JetStreamEventStore::connect(url, "test").await.unwrap();
    eventually("a connection to NATS", async || store.is_connected().then_some(())).await;
    store
}

async fn all_of(store: &JetStreamEventStore) -> Vec<(String, Vec<u8>)> {
    let end = store.head().await.unwrap();
    let (mut reader, mut all) = (store.read_from(1), Vec::new());
    while (all.len() as u64) < end {
        let read = reader.next_batch(1_000).await.unwrap();
        all.extend(read.into_iter().map(|LogMessage { subject, bytes, .. }| (subject.to_string(), bytes.to_vec())));
    }
    all
}

/// The next so many positions that the queue hands out.
async fn taken(store: &JetStreamEventStore, options: WorkQueueOptions, items: usize, done: usize) -> Vec<u64> {
    let mut queue = store.work_queue(options);
    let mut positions = Vec::new();
    while positions.len() < items {
        for item in queue.next_batch(items - positions.len()).await {
            positions.push(item.position);
            if positions.len() <= done {
                item.done().await;
            }
        }
    }
    positions
}

fn log(arguments: &[&str], nats_url: &str) -> Command {
    let mut command = projectors(&[&["log"], arguments].concat());
    command.env("NATS_URL", nats_url);
    command
}

fn backup(out: &Path, nats_url: &str) -> (i32, String, String) {
    output(log(&["backup", "--out", out.to_str().unwrap(), "--output", "json"], nats_url))
}

fn restore(from: &Path, nats_url: &str) -> (i32, String, String) {
    output(log(&["restore", "--from", from.to_str().unwrap(), "--output", "json"], nats_url))
}

/// A world of so many orders, and a backup of it.
async fn backed_up(orders: u64) -> (World, TempDir, PathBuf) {
    let world = World::new().await;
    world.teller().tell(orders).await;
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("backup");
    let (code, _, stderr) = backup(&folder, world.nats.url());
    assert_eq!(code, 0, "{stderr}");
    (world, directory, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_is_what_was_backed_up_with_queues_timers_and_letters() {
    let world = World::new().await;
    let running = world.run().await;
    taken(&world.store, orders(Beginning::First), 0, 0).await;
    let mut teller = world.teller();
    teller.tell(20).await;
    // It begins after these.
    let mut from_now = world.store.work_queue(orders(Beginning::Now));
    assert!(tokio::time::timeout(Duration::from_secs(1), from_now.next_batch(1)).await.is_err());
    let end = teller.tell(20).await;
    let handled = from_now.next_batch(1).await.remove(0);
    let first_of_now = handled.position;
    assert!(first_of_now > 200, "{first_of_now}");
    handled.done().await;
    drop(from_now);
    // Of ten, the first three are handled.
    let handed_out = taken(&world.store, orders(Beginning::First), 10, 3).await;
    let placed = all_of(&world.store).await[0].1.clone();
    let due_at = now() + Duration::from_secs(6);
    let timer = |id: &str, due_at| Timer {
        purpose: PURPOSE,
        aggregate_id: id.to_owned(),
        due_at,
        position: 7,
        event: placed.clone().into(),
    };
    world.store.set_timers(&[timer("a", due_at), timer("b", due_at + Duration::from_mins(60))]).await.unwrap();
    for position in [3, 5] {
        world.store.put_dead_letter(&letter(position)).await.unwrap();
    }
    let letters = world.store.dead_letters().await.unwrap();
    world.store.discard_dead_letter(&letters[0], "a test", now()).await.unwrap();
    world.reach(&ProjectionName::ALL, end).await;
    eventually("a checkpoint to be signed", async || {
        (world.count("SELECT count(*) FROM contrail.audit_checkpoints").await > 0).then_some(())
    })
    .await;
    running.stop().await;

    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("backup");
    let mut command = log(&["backup", "--out", folder.to_str().unwrap(), "--output", "json"], world.nats.url());
    command.env("DATABASE_URL", world.database.url());
    let (code, stdout, stderr) = output(command);
    assert_eq!((code, json(&stdout)["position"].as_u64()), (0, Some(end)), "{stdout}{stderr}");
    assert!(json(&stdout)["audit_size"].as_u64() > Some(0), "{stdout}");
    let checked = Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&folder).status();
    assert!(block_in_place(|| checked).unwrap().success());
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!folder.join("audit-key.pem").exists());

    let other = block_in_place(testing::nats);
    let key = world.signer.verifier_key().to_string();
    let from = folder.to_str().unwrap();
    let (code, stdout, stderr) = output(log(&["restore", "--from", from, "--key", &key, "--output", "json"], other.url()));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let restored = json(&stdout);
    assert_eq!((&restored["position"], &restored["signature_verified"]), (&Value::from(end), &Value::from(true)), "{stdout}");
    let store = connect(other.url()).await;
    assert_eq!(all_of(&store).await, all_of(&world.store).await);
    assert_eq!(store.check().await, Ok(()));
    // What was handed out and not handled comes again, and what was handled does not.
    let again = taken(&store, orders(Beginning::First), 7, 7).await;
    assert_eq!(again, handed_out[3..]);
    assert!(taken(&store, orders(Beginning::Now), 1, 0).await[0] > first_of_now);
    let ids = |letters: Vec<event_store::KeptLetter>| letters.iter().map(|kept| kept.letter.id()).collect::<Vec<_>>();
    assert_eq!(ids(store.dead_letters().await.unwrap()), ["payments-5"]);
    assert_eq!(store.standing(DISCARDED_LETTER_STREAM).await.unwrap().unwrap().extent.messages, 1);
    // One timer fires, the other is still set.
    let fired = tokio::time::timeout(Duration::from_secs(30), taken(&store, timers(), 1, 1)).await.expect("the timer fires");
    assert_eq!(fired, [7]);
    assert!(now() >= due_at);
    // The set-up step finds all as it should be, and the log goes on where it was.
    let mut migrate = projectors(&["migrate"]);
    migrate.env("NATS_URL", other.url()).env("DATABASE_URL", world.database.url());
    let (code, _, stderr) = output(migrate);
    assert_eq!(code, 0, "{stderr}");
    let goes_on = teller.in_log(store.clone()).tell(1).await;
    assert_eq!(goes_on, end + 10);

    let before = all_of(&store).await;
    let (code, _, stderr) = restore(&folder, other.url());
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("there already"), "{stderr}");
    assert_eq!(all_of(&store).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_begins_where_it_was_before_the_log_was_copied() {
    let (world, directory, _) = backed_up(5).await;
    let acknowledged = taken(&world.store, orders(Beginning::First), 4, 2).await[1];
    let floor = eventually("the acknowledgements to have arrived", async || {
        let positions = world.store.queue_positions(STREAM).await.unwrap();
        positions.iter().map(|queue| queue.acknowledged_to).find(|position| *position >= acknowledged)
    });
    let floor = floor.await;
    let folder = directory.path().join("later");
    assert_eq!(backup(&folder, world.nats.url()).0, 0);
    let manifest = json(&fs::read_to_string(folder.join("manifest.json")).unwrap());
    let streams = manifest["streams"].as_array().unwrap();
    assert_eq!(streams.iter().map(|stream| stream["name"].as_str().unwrap()).collect::<Vec<_>>(), BACKED_UP_STREAMS);
    let queues = streams[3]["queues"].as_array().unwrap();
    assert_eq!((queues.len(), queues[0]["acknowledged_to"].as_u64()), (1, Some(floor)), "{queues:?}");
    // The server's file has none: what it knows of them may be younger than the events in it.
    let other = block_in_place(testing::nats);
    let store = connect(other.url()).await;
    let log = world.store.copy_stream(STREAM).await.unwrap();
    let mut restoring = store.restore_stream(&log.config, &log.state, None).await.unwrap();
    let mut log = log;
    while let Some(chunk) = log.next_chunk().await.unwrap() {
        restoring.put(chunk).await.unwrap();
    }
    assert_eq!(restoring.finish().await.unwrap(), log.extent);
    assert_eq!(store.queue_positions(STREAM).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_refused_and_nothing_is_changed() {
    let (world, directory, folder) = backed_up(20).await;
    drop(world);
    let other = block_in_place(testing::nats);
    let store = connect(other.url()).await;
    let damaged = directory.path().join("damaged");
    let damages: [(&str, Damage); 6] = [
        ("EVENTS.snapshot", |file| flip(file, 1_000)),
        ("TIMERS.snapshot", |file| flip(file, 0)),
        ("manifest.json", |file| flip(file, 100)),
        ("SHA256SUMS", |file| fs::write(file, "").unwrap()),
        ("EVENTS.snapshot", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("DEAD_LETTERS.snapshot", |file| fs::remove_file(file).unwrap()),
    ];
    for (name, damage) in damages {
        let copied = Command::new("cp").arg("-a").args([&folder, &damaged]).status();
        assert!(block_in_place(|| copied).unwrap().success());
        damage(&damaged.join(name));
        let (code, stdout, stderr) = restore(&damaged, other.url());
        assert_eq!((code, stdout.as_str()), (5, ""), "{name}: {stderr}");
        for stream in BACKED_UP_STREAMS {
            assert_eq!(store.standing(stream).await.unwrap(), None, "{name}: {stderr}");
        }
        fs::remove_dir_all(&damaged).unwrap();
    }
    fs::create_dir(&damaged).unwrap();
    assert_eq!(restore(&damaged, other.url()).0, 3);
    assert_eq!(restore(&directory.path().join("none"), other.url()).0, 3);
    // As it was, it is good.
    let (code, _, stderr) = restore(&folder, other.url());
    assert_eq!(code, 0, "{stderr}");
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_what_was_signed_is_not_opened() {
    let world = World::new().await;
    let running = world.run().await;
    let end = world.teller().tell(10).await;
    world.reach(&ProjectionName::ALL, end).await;
    eventually("a checkpoint to be signed", async || {
        (world.count("SELECT count(*) FROM contrail.audit_checkpoints").await > 0).then_some(())
    })
    .await;
    running.stop().await;
    // Somebody has put another log in its place, and the trail's table remembers the true one.
    let (forged, directory, _) = backed_up(12).await;
    let folder = directory.path().join("forged");
    let mut command = log(&["backup", "--out", folder.to_str().unwrap()], forged.nats.url());
    command.env("DATABASE_URL", world.database.url());
    assert_eq!(output(command).0, 0);

    let other = block_in_place(testing::nats);
    let from = folder.to_str().unwrap();
    let (code, _, stderr) = output(log(&["restore", "--from", from], other.url()));
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("signed"), "{stderr}");
    let store = connect(other.url()).await;
    let waits = store.check().await.unwrap_err();
    assert!(waits.contains("restored"), "{waits}");
    let stranger = projectors::audit::key::Signer::from_seed(&[8; 32]).verifier_key().to_string();
    let (code, _, stderr) = output(log(&["restore", "--from", from, "--key", &stranger], other.url()));
    assert_eq!(code, 5, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_short_is_no_log_for_anybody_and_can_be_repeated() {
    let (world, _directory, folder) = backed_up(700).await;
    let other = block_in_place(testing::nats);
    let store = connect(other.url()).await;
    let mut log_copy = world.store.copy_stream(STREAM).await.unwrap();
    let mut timers_copy = world.store.copy_stream(TIMER_STREAM).await.unwrap();
    let mut of_timers = store.restore_stream(&timers_copy.config, &timers_copy.state, None).await.unwrap();
    while let Some(chunk) = timers_copy.next_chunk().await.unwrap() {
        of_timers.put(chunk).await.unwrap();
    }
    of_timers.finish().await.unwrap();
    store.open_restored_stream(TIMER_STREAM).await.unwrap();
    let mut of_log = store.restore_stream(&log_copy.config, &log_copy.state, None).await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = log_copy.next_chunk().await.unwrap() {
        chunks.push(chunk);
    }
    // Nobody sends the last one.
    assert!(chunks.len() > 2, "{}", chunks.len());
    for chunk in &chunks[..chunks.len() - 1] {
        of_log.put(chunk.clone()).await.unwrap();
    }
    drop(of_log);
    eventually("the log to be there in part", async || store.standing(STREAM).await.unwrap()?.is_restoring.then_some(())).await;
    assert!(store.check().await.unwrap_err().contains("restored"));
    let refused = store.set_up(Some(1)).await.unwrap_err().to_string();
    assert!(refused.contains("log restore"), "{refused}");
    assert!(store.check().await.unwrap_err().contains("restored"), "the mark is still there");
    assert!(!store.has_log());

    let (code, _, stderr) = restore(&folder, other.url());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(store.check().await, Ok(()));
    assert_eq!(all_of(&store).await, all_of(&world.store).await);
    store.set_up(Some(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_nothing_that_looks_complete() {
    let (world, directory, whole) = backed_up(1_500).await;
    let size = fs::metadata(whole.join("EVENTS.snapshot")).unwrap().len();
    let (mut killed_amid, mut index) = (0, 0_u64);
    while killed_amid < 5 {
        let out = directory.path().join(format!("killed-{index}"));
        let mut command = log(&["backup", "--out", out.to_str().unwrap()], world.nats.url());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let unfinished = directory.path().join(format!("killed-{index}.incomplete-{}", child.id()));
        // Some die while the log is being written, some before.
        let wanted = if index.is_multiple_of(2) { size / 4 } else { 0 };
        eventually("the backup to have begun", async || {
            let written = fs::metadata(unfinished.join("EVENTS.snapshot")).map_or(0, |file| file.len());
            let has_ended = block_in_place(|| child.try_wait()).unwrap().is_some();
            (has_ended || (unfinished.exists() && written >= wanted)).then_some(())
        })
        .await;
        child.kill().unwrap();
        let status = block_in_place(|| child.wait()).unwrap();
        if status.success() {
            assert_eq!(restore(&out, "nats://127.0.0.1:1").0, 75, "it was complete");
        } else {
            assert!(!out.exists(), "{index}");
            killed_amid += 1;
        }
        index += 1;
        assert!(index < 200, "only {killed_amid} were killed amid their work");
    }
    // One that is told to stop clears up after itself.
    let out = directory.path().join("told");
    let mut child = log(&["backup", "--out", out.to_str().unwrap()], world.nats.url()).stderr(Stdio::null()).spawn().unwrap();
    let unfinished = directory.path().join(format!("told.incomplete-{}", child.id()));
    eventually("the backup to have begun", async || unfinished.exists().then_some(())).await;
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(block_in_place(|| told).unwrap().success());
    let status = block_in_place(|| child.wait()).unwrap();
    assert!(!unfinished.exists());
    assert_eq!(out.exists(), status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_needs_a_signed_head_that_it_can_vouch_for() {
    let (world, directory, folder) = backed_up(1).await;
    let key = projectors::audit::key::Signer::from_seed(&[8; 32]).verifier_key().to_string();
    let empty = block_in_place(testing::nats);
    let (code, _, stderr) = output(log(&["restore", "--from", folder.to_str().unwrap(), "--key", &key], empty.url()));
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("no signed head"), "{stderr}");
    assert!(connect(empty.url()).await.check().await.is_err(), "nothing was restored");
    drop((world, directory));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_along_only_if_it_is_asked_for() {
    let (world, directory, _) = backed_up(1).await;
    let key = directory.path().join("audit.pem");
    output(projectors(&["audit", "keygen", "--out", key.to_str().unwrap()]));
    let folder = directory.path().join("with-key");
    let out = folder.to_str().unwrap();
    let with_keys = ["backup", "--out", out, "--with-keys"];
    assert_eq!(output(log(&with_keys, world.nats.url())).0, 2, "there is none");
    let mut command = log(&with_keys, world.nats.url());
    command.env("AUDIT_KEY_FILE", &key);
    let (code, _, stderr) = output(command);
    assert_eq!(code, 0, "{stderr}");
    let copied = folder.join("audit-key.pem");
    assert_eq!(fs::read(&copied).unwrap(), fs::read(&key).unwrap());
    assert_eq!(fs::metadata(&copied).unwrap().permissions().mode() & 0o777, 0o600);
    flip(&copied, 40);
    assert_eq!(restore(&folder, world.nats.url()).0, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_kept() {
    let (world, directory, folder) = backed_up(1).await;
    let before = fs::read(folder.join("manifest.json")).unwrap();
    assert_eq!(backup(&folder, world.nats.url()).0, 4);
    assert_eq!(fs::read(folder.join("manifest.json")).unwrap(), before);
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (code, stdout, stderr) = backup(&empty, world.nats.url());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("\"position\":10"), "{stdout}");
    let away = directory.path().join("away");
    assert_eq!(backup(&away, "nats://127.0.0.1:1").0, 75);
    assert!(!away.exists());
    assert_eq!(restore(&folder, "nats://127.0.0.1:1").0, 75);
    assert_eq!(output(projectors(&["log", "backup", "--out", "x"])).0, 2);
    assert_eq!(output(projectors(&["log", "restore", "--from", "x", "--events-replicas", "2"])).0, 2);

    // Streams that never held a message are what a stack that has just been set up has.
    let fresh = World::new().await;
    let (code, _, stderr) = restore(&folder, fresh.nats.url());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(all_of(&fresh.store).await, all_of(&world.store).await);
    // A letter is enough to make it somebody's.
    let used = World::new().await;
    used.store.put_dead_letter(&letter(1)).await.unwrap();
    let (code, _, stderr) = restore(&folder, used.nats.url());
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains(DEAD_LETTER_STREAM), "{stderr}");
    assert_eq!(used.store.standing(DEAD_LETTER_STREAM).await.unwrap().unwrap().extent.messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_one_server_is_restored_into_three_and_back() {
    let (world, directory, folder) = backed_up(50).await;
    taken(&world.store, orders(Beginning::First), 4, 4).await;
    let servers = block_in_place(testing::nats_cluster);
    let url = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let from = folder.to_str().unwrap();
    let restored = eventually("the servers to have a leader", async || {
        let outcome = output(log(&["restore", "--from", from, "--events-replicas", "3"], &url));
        (outcome.0 != 75).then_some(outcome)
    });
    let (code, _, stderr) = restored.await;
    assert_eq!(code, 0, "{stderr}");
    let store = connect(&url).await;
    assert_eq!(all_of(&store).await, all_of(&world.store).await);
    let of_three = directory.path().join("of-three");
    let (code, _, stderr) = backup(&of_three, &url);
    assert_eq!(code, 0, "{stderr}");
    let alone = block_in_place(testing::nats);
    let from = of_three.to_str().unwrap();
    let (code, _, stderr) = output(log(&["restore", "--from", from, "--events-replicas", "1"], alone.url()));
    assert_eq!(code, 0, "{stderr}");
    let store = connect(alone.url()).await;
    assert_eq!(all_of(&store).await, all_of(&world.store).await);
}
