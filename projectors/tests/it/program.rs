//! The program as its users start it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
};

use projectors::audit::{checkpoint::Checkpoint, key::Signer, merkle::Frontier};
use read_store::projections::ProjectionName;
use serde_json::Value;

use crate::world::{World, eventually};

/// The program without any setting of the environment that the test runs in.
pub(crate) fn projectors(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_projectors"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).args(arguments);
    command
}

pub(crate) fn configured(arguments: &[&str], world: &World, key: &Path) -> Command {
    let mut command = projectors(arguments);
    command.env("NATS_URL", world.nats.url()).env("DATABASE_URL", world.database.url()).env("AUDIT_KEY_FILE", key);
    command
}

pub(crate) fn output(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = tokio::task::block_in_place(|| command.output()).unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_missing_and_wrong_setting_is_listed() {
    let (code, stdout, stderr) = output(projectors(&["run"]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    for name in ["NATS_URL: missing", "DATABASE_URL: missing", "LISTEN_ADDR: missing", "AUDIT_KEY_FILE: missing"] {
        assert!(stderr.contains(name), "{name} in {stderr}");
    }
    let mut wrong = projectors(&["run", "--nats-url", "http://x", "--listen-addr", "nowhere", "--audit-key-file", "/nonexistent"]);
    wrong.env("DATABASE_URL", "mysql://user:secret@host/db");
    let (code, _, stderr) = output(wrong);
    assert_eq!(code, 2);
    assert!(stderr.starts_with("error: 4 settings are missing or wrong:\n"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_without_servers_is_to_be_tried_again_later() {
    let mut command = projectors(&["migrate", "--wait-s", "1"]);
    command.env("NATS_URL", "nats://127.0.0.1:1").env("DATABASE_URL", "postgres://x@127.0.0.1:1/x");
    let (code, _, stderr) = output(command);
    assert_eq!(code, 75, "{stderr}");
    let mut replay = projectors(&["status"]);
    replay.env("DATABASE_URL", "postgres://x@127.0.0.1:1/x");
    assert_eq!(output(replay).0, 75);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_once_and_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.pem");
    let file = path.to_str().unwrap();
    let (code, made, _) = output(projectors(&["audit", "keygen", "--out", file]));
    assert_eq!(code, 0);
    assert!(made.starts_with("contrail/EVENTS+"), "{made}");
    assert_eq!(output(projectors(&["audit", "key", "--audit-key-file", file])).1, made);
    assert_eq!(output(projectors(&["audit", "keygen", "--out", file])).0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.pem");
    let file = path.to_str().unwrap();
    assert_eq!(output(projectors(&["audit", "keygen", "--out", file])).0, 0);

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = projectors(&["audit", "key", "--audit-key-file", file]);
    let gone = tokio::task::block_in_place(|| command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output());
    let gone = gone.unwrap();
    assert_eq!((gone.status.code(), String::from_utf8(gone.stderr).unwrap().as_str()), (Some(0), ""));

    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = projectors(&["audit", "key", "--audit-key-file", file]);
    let full = tokio::task::block_in_place(|| command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output());
    let full = full.unwrap();
    let stderr = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(stderr.starts_with("error: write to stdout: No space left on device"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_differences_keeps_what_it_has_until_there_is_something_to_say() {
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("differences.jsonl");
    std::fs::write(&file, "of yesterday\n").unwrap();
    let verify = ["replay", "inventory", "--verify", "--differences", file.to_str().unwrap()];
    assert_eq!(output(projectors(&verify)).0, 2, "no setting is given");
    let mut away = projectors(&verify);
    away.env("NATS_URL", "nats://127.0.0.1:1").env("DATABASE_URL", "postgres://x@127.0.0.1:1/x");
    assert_eq!(output(away).0, 75);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "of yesterday\n");
    let (code, _, stderr) = output(configured(&verify, &world, Path::new("none")));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_verified_trail() {
    let world = World::without_streams().await;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("audit.pem");
    let vkey = output(projectors(&["audit", "keygen", "--out", key.to_str().unwrap()])).1;
    let (code, _, stderr) = output(configured(&["migrate"], &world, &key));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(output(configured(&["migrate"], &world, &key)).0, 0, "again");

    let service = Service::start(configured(&["run", "--listen-addr", "127.0.0.1:0"], &world, &key));
    let end = world.teller().tell(4).await;
    eventually("the service to be ready", async || (service.get("/ready").0 == 200).then_some(())).await;
    eventually("all projections to be at the end", async || {
        let status = json(&output(configured(&["status", "--output", "json"], &world, &key)).1);
        let projections = status["projections"].as_array().unwrap();
        assert_eq!(projections.len(), 3);
        projections.iter().all(|projection| projection["position"] == end && projection["lag"] == 0).then_some(())
    })
    .await;
    assert_eq!(service.get("/health").0, 200);
    let (code, metrics) = service.get("/metrics");
    assert_eq!(code, 200);
    assert!(metrics.contains(&format!("projection_position{{projection=\"audit\"}} {end}")), "{metrics}");
    let (code, stdout, stderr) = output(configured(&["replay", "all", "--output", "json"], &world, &key));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(json(&stdout)["replays"].as_array().unwrap().len(), 3);
    let (code, stdout, stderr) = output(configured(&["replay", "all", "--verify"], &world, &key));
    assert_eq!(code, 0, "{stdout}{stderr}");

    let file = directory.path().join("trail.jsonl");
    let file = file.to_str().unwrap();
    let (code, stdout, stderr) = output(configured(&["audit", "export", "--out", file, "--output", "json"], &world, &key));
    assert_eq!((code, json(&stdout)["events"].as_u64()), (0, Some(end)), "{stderr}");
    let (code, stdout, _) = output(projectors(&["audit", "verify", file, "--key", vkey.trim(), "--output", "json"]));
    assert_eq!((code, json(&stdout)["verified"].as_bool()), (0, Some(true)));
    for format in ["csv", "parquet"] {
        let file = directory.path().join(format!("trail.{format}"));
        let file = file.to_str().unwrap();
        assert_eq!(output(configured(&["audit", "export", "--format", format, "--out", file], &world, &key)).0, 0);
        let (code, stdout, _) = output(projectors(&["audit", "verify", file, "--key", vkey.trim(), "--output", "json"]));
        assert_eq!((code, json(&stdout)["lines"].as_u64()), (0, Some(end)), "{format}: {stdout}");
    }
    let (code, stdout, _) = output(configured(&["audit", "export", "--format", "jsonl", "--out", "-"], &world, &key));
    assert_eq!((code, stdout), (0, std::fs::read_to_string(file).unwrap()));
    assert_eq!(output(configured(&["audit", "checkpoint"], &world, &key)).0, 0);

    let (old, new) = (directory.path().join("old.checkpoint"), directory.path().join("trail.csv.checkpoint"));
    let begins = ["audit", "export", "--to-position", "7", "--checkpoint", old.to_str().unwrap(), "--out", "-"];
    assert_eq!(output(configured(&begins, &world, &key)).0, 0);
    let proven = ["audit", "consistency", old.to_str().unwrap(), new.to_str().unwrap(), "--key", vkey.trim(), "--output", "json"];
    let (code, stdout, stderr) = output(configured(&proven, &world, &key));
    assert_eq!(code, 0, "{stderr}");
    let proof = directory.path().join("proof.json");
    std::fs::write(&proof, &stdout).unwrap();
    let (old, new, proof) = (old.to_str().unwrap(), new.to_str().unwrap(), proof.to_str().unwrap());
    assert_eq!(independently_consistent(old, new, proof, vkey.trim()), 0);
    assert_eq!(independently_consistent(new, old, proof, vkey.trim()), 5);
    std::fs::write(proof, stdout.replacen("\"consistency\":[\"", "\"consistency\":[\"AAAA", 1)).unwrap();
    assert_eq!(independently_consistent(old, new, proof, vkey.trim()), 5);
    let (_, other_size, _) = output(configured(&["audit", "consistency", "8", "--output", "json"], &world, &key));
    std::fs::write(proof, other_size).unwrap();
    assert_eq!(independently_consistent(old, new, proof, vkey.trim()), 5);
    for (arguments, right) in [(["7", "5"], 4), (["0", "5"], 4), (["7", "100000"], 75), ([old, "9"], 2), (["/none", "9"], 2)] {
        let (code, _, stderr) = output(configured(&[&["audit", "consistency"], &arguments[..]].concat(), &world, &key));
        assert_eq!(code, right, "{arguments:?}: {stderr}");
    }

    let backwards = ["audit", "export", "--from-position", "10", "--to-position", "5", "--out", "-"];
    let (code, stdout, stderr) = output(configured(&backwards, &world, &key));
    assert_eq!((code, &*stdout), (2, ""), "{stderr}");

    let live = ["audit", "verify", "--live", "--key", vkey.trim(), "--output", "json"];
    let (code, stdout, stderr) = output(configured(&live, &world, &key));
    assert_eq!((code, json(&stdout)["size"].as_u64()), (0, Some(end)), "{stdout}{stderr}");
    assert_eq!(output(configured(&["audit", "verify", "--live"], &world, &key)).0, 0);
    world.execute("UPDATE contrail.audit SET actor = 'operator:o-1' WHERE position = 3").await;
    let (code, stdout, _) = output(configured(&live, &world, &key));
    assert_eq!((code, json(&stdout)["findings"][0]["position"].as_u64()), (5, Some(3)), "{stdout}");
    let (code, _, stderr) = output(projectors(&["audit", "verify", "--live"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("NATS_URL") && stderr.contains("DATABASE_URL"), "{stderr}");
    for usage in [&["audit", "verify"][..], &["audit", "verify", file], &["audit", "verify", file, "--live"]] {
        assert_eq!(output(projectors(usage)).0, 2, "{usage:?}");
    }
    let (code, _, stderr) = output(projectors(&["audit", "export", "--aggregate-type", "orders", "--out", "-"]));
    assert_eq!((code, stderr.contains("possible values: order, stock, payment, notification")), (2, true), "{stderr}");

    world.execute("UPDATE contrail.orders SET status = 'PLACED'").await;
    let differences = directory.path().join("differences.jsonl");
    let verify = ["replay", "orders", "--verify", "--differences", differences.to_str().unwrap(), "--output", "json"];
    let (code, stdout, _) = output(configured(&verify, &world, &key));
    let comparison = &json(&stdout)["replays"][0]["comparison"];
    assert_eq!((code, comparison["differing"].as_u64()), (5, Some(4)));
    let lines = std::fs::read_to_string(differences).unwrap();
    for (line, mut listed) in lines.lines().zip(comparison["differences"].as_array().unwrap().clone()) {
        listed["table"] = "orders".into();
        assert_eq!(json(line), listed);
    }
    assert_eq!(lines.lines().count(), 4);
    std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(b"{}\n").unwrap();
    let vkey_file = directory.path().join("vkey");
    std::fs::write(&vkey_file, vkey).unwrap();
    let (code, stdout, _) = output(projectors(&["audit", "verify", file, "--key", vkey_file.to_str().unwrap()]));
    assert_eq!(code, 5);
    assert!(stdout.contains("extra"), "{stdout}");
    assert_eq!(output(projectors(&["audit", "verify", "/nonexistent", "--key", vkey_file.to_str().unwrap()])).0, 3);
    assert_eq!(output(projectors(&["audit", "verify", file, "--key", "a+b+c"])).0, 2);
    assert_eq!(service.stop(), 0);
}

/// A pipe is gone once it is read, and would look tampered with when it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_regular_file_is_not_judged() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("trail.jsonl"), directory.path().join("link.jsonl"));
    let checkpoint = directory.path().join("trail.jsonl.checkpoint");
    let signer = Signer::from_seed(&[7; 32]);
    std::fs::write(&file, "").unwrap();
    std::fs::write(&checkpoint, Checkpoint::of(&Frontier::new()).sign(&signer)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let verify = |file: &str, more: &[&str]| {
        let vkey = signer.verifier_key().to_string();
        let arguments = ["audit", "verify", file, "--key", &vkey, "--checkpoint", checkpoint.to_str().unwrap()];
        let mut command = projectors(&[&arguments, more].concat());
        command.stdin(Stdio::piped());
        output(command)
    };
    for file in [&file, &link] {
        assert_eq!(verify(file.to_str().unwrap(), &[]).0, 0);
    }
    for (other, more) in [("/dev/stdin", vec![]), ("/dev/null", vec![]), (directory.path().to_str().unwrap(), vec![])]
        .into_iter()
        .chain([(file.to_str().unwrap(), vec!["--proof", "/dev/stdin"])])
    {
        let (code, stdout, stderr) = verify(other, &more);
        assert_eq!((code, &*stdout), (2, ""), "{other} {more:?}: {stderr}");
        assert!(stderr.contains("is not a regular file"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_waits_for_streams_and_schema_and_can_be_stopped_meanwhile() {
    let world = World::without_streams().await;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("audit.pem");
    output(projectors(&["audit", "keygen", "--out", key.to_str().unwrap()]));
    let service = Service::start(configured(&["run", "--listen-addr", "127.0.0.1:0"], &world, &key));
    eventually("the service to say what it waits for", async || {
        let (code, body) = service.get("/ready");
        (code == 503 && body.contains("projectors migrate")).then_some(())
    })
    .await;
    assert_eq!(service.get("/health").0, 200);
    assert_eq!(service.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_again_and_again_applies_each_event_once() {
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("audit.pem");
    output(projectors(&["audit", "keygen", "--out", key.to_str().unwrap()]));
    let mut teller = world.teller();
    let mut end = 0;
    for _ in 0..4 {
        let service = Service::start(configured(&["run", "--listen-addr", "127.0.0.1:0"], &world, &key));
        let killed = async {
            // In the middle of the work, wherever that is.
            world.reach(&[ProjectionName::Orders], end + 1).await;
            drop(service);
        };
        (end, ()) = tokio::join!(teller.tell(100), killed);
    }
    let service = Service::start(configured(&["run", "--listen-addr", "127.0.0.1:0"], &world, &key));
    world.reach(&ProjectionName::ALL, end).await;
    assert_eq!(service.stop(), 0);
    assert_eq!(world.count("SELECT count(*) FROM contrail.audit").await, end);
    world.assert_all_agree().await;
}

/// A running service; killed if the test ends before it does.
struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = log
            .find_map(|line| {
                let line = json(&line.unwrap());
                line["listen_addr"].as_str().map(str::to_owned)
            })
            .expect("the service says where it listens");
        // So that it never waits for somebody to read its log.
        thread::spawn(move || log.for_each(drop));
        Self { child, address }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, answer)
    }

    fn stop(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        tokio::task::block_in_place(|| self.child.wait()).unwrap().code().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Gone already, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stranger thinks of a consistency proof.
fn independently_consistent(old: &str, new: &str, proof: &str, vkey: &str) -> i32 {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/e2e/independent/verify_consistency.py");
    let status = Command::new("python3").args([script, old, new, proof, "--key", vkey]).status();
    status.expect("python3 is there").code().unwrap()
}
