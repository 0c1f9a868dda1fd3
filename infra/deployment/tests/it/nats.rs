//! The servers of the log with the shipped configuration: accepted, and in earnest.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Config, stream::StorageType};
use async_nats::{Client, ConnectOptions};
use local_stack::nats::USERS;
use local_stack::nats::production::{ProductionCluster, environment, keys, variable, write_configuration};
use local_stack::toolchain;
use nkeys::{KeyPair, KeyPairType};

use crate::files::{path, text};

/// Three servers that fsync every write elect a leader within seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long something that is refused may go without an answer.
const SILENCE: Duration = Duration::from_secs(1);

fn nats_server() -> Command {
    Command::new(toolchain::nats_server().unwrap())
}

/// Whether the server takes this file.
fn test(file: &Path, environment: &BTreeMap<String, String>) -> Output {
    nats_server().arg("-t").arg("--config").arg(file).env_clear().envs(environment).output().unwrap()
}

#[test]
fn nats_server_accepts_every_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = write_configuration(folder.path()).unwrap();
    let output = test(&file, &environment());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let passwords = USERS.map(|user| (variable("NATS_PASSWORD", user), "pa55word".to_owned()));
    let output = test(&path("nats/compose.conf"), &passwords.into());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let local = text("nats/local.conf") + &text("nats/permissions.conf") + &text("nats/users.conf");
    let local = local.replace("{port}", "4222").replace("{monitoring_port}", "8222").replace("{sync_interval}", "always");
    let file = folder.path().join("local.conf");
    fs::write(&file, local.replace("{store_dir}", folder.path().to_str().unwrap())).unwrap();
    let output = test(&file, &BTreeMap::new());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_that_misses_a_users_key_is_refused_instead_of_letting_others_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = write_configuration(folder.path()).unwrap();
    for user in USERS {
        let mut known = environment();
        known.remove(&variable("NKEY", user));
        assert!(!test(&file, &known).status.success(), "{user}");
    }
}

#[test]
fn the_same_users_have_the_same_rights_everywhere() {
    for file in ["nats/users.conf", "nats/compose.conf", "nats/production.conf"] {
        let configuration = text(file);
        // The table is in one file; the others refer to it.
        assert!(!configuration.contains("$JS.") && !configuration.contains("publish"), "{file}");
        for user in USERS.into_iter().filter(|user| *user != "admin") {
            let name = match file {
                "nats/production.conf" => format!("nkey: ${}", variable("NKEY", user)),
                _ => format!("user: \"{user}\""),
            };
            let line = configuration.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{file} has no {user}"));
            let rights = format!(", permissions: ${} }}", variable("PERMISSIONS", user));
            assert!(line.ends_with(&rights), "{file}: {line}");
        }
        let users = configuration.lines().filter(|line| line.contains("user: ") || line.contains("nkey: ")).count();
        assert_eq!(users, USERS.len(), "{file} has others, too");
    }
}

#[test]
fn every_shipped_server_writes_what_it_acknowledges_to_disk() {
    for file in ["nats/compose.conf", "nats/production.conf"] {
        assert!(text(file).contains("\n  sync_interval: always\n"), "{file}");
    }
}

/// The servers, and how clients of this test connect to them.
struct Cluster(ProductionCluster);

impl Cluster {
    async fn connect(&self, options: ConnectOptions) -> Result<Client, async_nats::ConnectError> {
        let urls: Vec<_> = self.0.url().split(',').collect();
        options.add_root_certificates(self.0.files().authorities.clone()).connect(urls).await
    }

    /// As a service does it: with its nkey, and answers below an inbox of its own.
    async fn connect_as(&self, user: &str) -> Client {
        let seed = keys()[user].seed().unwrap();
        let started = Instant::now();
        loop {
            let options = ConnectOptions::with_nkey(seed.clone()).custom_inbox_prefix(format!("_INBOX.{user}"));
            match self.connect(options).await {
                Ok(client) => return client,
                Err(error) => assert!(started.elapsed() < DEADLINE, "{user}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn three_servers_replicate_over_tls_and_let_in_whoever_has_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster(ProductionCluster::start(folder.path(), "64MB").unwrap());
    let admin = jetstream::new(cluster.connect_as("admin").await);

    // As `projectors migrate` does it with EVENTS_REPLICAS=3. The servers find one another first, by certificates of both sides.
    let events = || Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["events.>".to_owned()],
        storage: StorageType::File,
        num_replicas: 3,
        ..Config::default()
    };
    let started = Instant::now();
    let mut stream = loop {
        match admin.create_stream(events()).await {
            Ok(stream) => break stream,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };

    // The command API appends, and can do nothing to the stream.
    let command_api = cluster.connect_as("command-api").await;
    let appending = jetstream::new(command_api.clone());
    appending.publish("events.order.o-1", "{}".into()).await.unwrap().await.unwrap();
    for refused in ["$JS.API.STREAM.DELETE.EVENTS", "$JS.API.STREAM.CREATE.OTHER", "timers.x"] {
        let answer = tokio::time::timeout(SILENCE, command_api.request(refused, "".into())).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{refused}: {answer:?}");
    }
    // Projectors read, and append nothing.
    let projectors = cluster.connect_as("projectors").await;
    let info = projectors.request("$JS.API.STREAM.INFO.EVENTS", "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&info.payload).contains("\"num_replicas\":3"), "{info:?}");
    let answer = tokio::time::timeout(SILENCE, projectors.request("events.order.o-2", "{}".into())).await;
    assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");

    let info = stream.info().await.unwrap();
    assert_eq!(info.state.messages, 1);
    assert_eq!(info.cluster.as_ref().unwrap().replicas.len(), 2, "{info:?}");

    // Nobody without a key, nor with another one, nor with a password.
    let stranger = KeyPair::new_from_raw(KeyPairType::User, [9; 32]).unwrap().seed().unwrap();
    let password = ConnectOptions::with_user_and_password("admin".to_owned(), String::new());
    for options in [ConnectOptions::new(), ConnectOptions::with_nkey(stranger), password] {
        assert!(cluster.connect(options).await.is_err());
    }
    // Nor without knowing whom it is talking to.
    let seed = keys()["admin"].seed().unwrap();
    let first = cluster.0.url().split(',').next().unwrap();
    assert!(ConnectOptions::with_nkey(seed).connect(first).await.is_err());
}
