//! The servers of the log with the shipped configuration: accepted, and in earnest.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Config, stream::StorageType};
use async_nats::{Client, ConnectOptions};
use local_stack::nats::USERS;
use local_stack::toolchain;
use nkeys::{KeyPair, KeyPairType};

use crate::files::{path, text};

/// Three servers that fsync every write elect a leader within seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long something that is refused may go without an answer.
const SILENCE: Duration = Duration::from_secs(1);

/// As the environment calls the key of a user.
fn variable(prefix: &str, user: &str) -> String {
    format!("{prefix}_{}", user.to_uppercase().replace('-', "_"))
}

/// A key of each user, the same in every test and of no use elsewhere.
fn keys() -> BTreeMap<&'static str, KeyPair> {
    let key = |(number, user)| (user, KeyPair::new_from_raw(KeyPairType::User, [number; 32]).unwrap());
    (1..).zip(USERS).map(key).collect()
}

fn nats_server() -> Command {
    Command::new(toolchain::nats_server().unwrap())
}

/// Whether the server takes this file.
fn test(file: &Path, environment: &BTreeMap<String, String>) -> Output {
    nats_server().arg("-t").arg("--config").arg(file).env_clear().envs(environment).output().unwrap()
}

/// The shipped configuration for production with other folders, as there are none of these names here.
fn production(folder: &Path) -> PathBuf {
    let certificates = path("deployment/tests/certificates");
    let tls = folder.join("tls");
    fs::create_dir_all(&tls).unwrap();
    for (from, to) in [("ca.pem", "ca.crt"), ("nats.pem", "tls.crt"), ("nats.key", "tls.key")] {
        fs::copy(certificates.join(from), tls.join(to)).unwrap();
    }
    let folder_name = folder.to_str().unwrap();
    let configuration = text("nats/production.conf")
        .replace("\"/etc/nats/tls/", &format!("\"{folder_name}/tls/"))
        .replace("\"/run/nats/", &format!("\"{folder_name}/"))
        .replace("\"/data\"", &format!("\"{folder_name}/data\""));
    fs::write(folder.join("permissions.conf"), text("nats/permissions.conf")).unwrap();
    let file = folder.join("production.conf");
    fs::write(&file, configuration).unwrap();
    file
}

/// What production gives the server to know.
fn production_environment() -> BTreeMap<String, String> {
    let own = [("SERVER_NAME", "nats-0"), ("CLUSTER_ADVERTISE", "nats-0.nats:6222"), ("MAX_FILE_STORE", "40GB")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    keys().into_iter().map(|(user, key)| (variable("NKEY", user), key.public_key())).chain(own).collect()
}

#[test]
fn nats_server_accepts_every_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = production(folder.path());
    let output = test(&file, &production_environment());
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
    let file = production(folder.path());
    for user in USERS {
        let mut environment = production_environment();
        environment.remove(&variable("NKEY", user));
        assert!(!test(&file, &environment).status.success(), "{user}");
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

/// Three servers that end with the test.
struct Cluster {
    servers: Vec<Child>,
    url: String,
    ca: PathBuf,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Cluster {
    /// With the configuration of production on free ports of this machine.
    fn start(folder: &Path) -> Self {
        // Held until all are chosen, so that none is chosen twice.
        let listeners: Vec<_> = (0..9).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(listeners);
        let (clients, routes, monitors) = (&ports[..3], &ports[3..6], &ports[6..]);
        let mut servers = Vec::new();
        for number in 0..3 {
            let own = folder.join(format!("nats-{number}"));
            fs::create_dir_all(&own).unwrap();
            let file = production(&own);
            let mut configuration = fs::read_to_string(&file)
                .unwrap()
                .replace("0.0.0.0:4222", &format!("127.0.0.1:{}", clients[number]))
                .replace("0.0.0.0:6222", &format!("127.0.0.1:{}", routes[number]))
                .replace("0.0.0.0:8222", &format!("127.0.0.1:{}", monitors[number]));
            for (other, port) in routes.iter().enumerate() {
                configuration = configuration.replace(&format!("//nats-{other}.nats:6222"), &format!("//localhost:{port}"));
            }
            fs::write(&file, configuration).unwrap();
            let mut environment = production_environment();
            environment.insert("SERVER_NAME".to_owned(), format!("nats-{number}"));
            environment.insert("CLUSTER_ADVERTISE".to_owned(), format!("localhost:{}", routes[number]));
            environment.insert("MAX_FILE_STORE".to_owned(), "64MB".to_owned());
            // Ended by the kernel when this thread ends, however that happens.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(toolchain::nats_server().unwrap()).arg("--config").arg(&file);
            command.envs(environment).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(fs::File::create(own.join("log")).unwrap());
            servers.push(command.spawn().unwrap());
        }
        let url = clients.iter().map(|port| format!("tls://localhost:{port}")).collect::<Vec<_>>().join(",");
        Self { servers, url, ca: path("deployment/tests/certificates/ca.pem") }
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Client, async_nats::ConnectError> {
        let urls: Vec<_> = self.url.split(',').collect();
        options.add_root_certificates(self.ca.clone()).connect(urls).await
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
    let cluster = Cluster::start(folder.path());
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
    let first = cluster.url.split(',').next().unwrap();
    assert!(ConnectOptions::with_nkey(seed).connect(first).await.is_err());
}
