//! Three servers as they are in production, on one machine and for one test: `infra/nats/production.conf`, TLS, and an nkey for each user.
//!
//! What differs from production is where files and ports are, and that the certificates and keys are known to everybody.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::Context as _;
use nkeys::{KeyPair, KeyPairType};

use super::{ADMIN, USERS};
use nix::sys::signal::Signal;

use crate::checkout::workspace_root;
use crate::{process, toolchain};

const SERVERS: usize = 3;

/// As the environment of the server calls something of a user.
pub fn variable(prefix: &str, user: &str) -> String {
    format!("{prefix}_{}", user.to_uppercase().replace('-', "_"))
}

/// A key of each user, the same in every test and of no use elsewhere.
pub fn keys() -> BTreeMap<&'static str, KeyPair> {
    let key = |(number, user)| {
        let key = KeyPair::new_from_raw(KeyPairType::User, [number; 32]);
        (user, key.expect("32 bytes are a key"))
    };
    (1..).zip(USERS).map(key).collect()
}

/// Writes the shipped configuration into `folder`, with other folders than production has, and the certificates beside it. Returns the file.
pub fn write_configuration(folder: &Path) -> anyhow::Result<PathBuf> {
    let infra = workspace_root().join("infra");
    let certificates = infra.join("deployment/tests/certificates");
    let tls = folder.join("tls");
    fs::create_dir_all(&tls).with_context(|| format!("create {}", tls.display()))?;
    for (from, to) in [("ca.pem", "ca.crt"), ("nats.pem", "tls.crt"), ("nats.key", "tls.key")] {
        fs::copy(certificates.join(from), tls.join(to)).with_context(|| format!("copy {from}"))?;
    }
    fs::copy(infra.join("nats/permissions.conf"), folder.join("permissions.conf")).context("copy permissions.conf")?;
    let name = folder.to_str().context("a folder with a name in UTF-8")?;
    let configuration = fs::read_to_string(infra.join("nats/production.conf"))
        .context("read production.conf")?
        .replace("\"/etc/nats/tls/", &format!("\"{name}/tls/"))
        .replace("\"/run/nats/", &format!("\"{name}/"))
        .replace("\"/data\"", &format!("\"{name}/data\""));
    let file = folder.join("production.conf");
    fs::write(&file, configuration).context("write production.conf")?;
    Ok(file)
}

/// What production gives a server to know.
pub fn environment() -> BTreeMap<String, String> {
    let own = [("SERVER_NAME", "nats-0"), ("CLUSTER_ADVERTISE", "nats-0.nats:6222"), ("MAX_FILE_STORE", "40GB")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    keys().into_iter().map(|(user, key)| (variable("NKEY", user), key.public_key())).chain(own).collect()
}

/// How a process shows the servers who it is, and knows who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsFiles {
    /// The file with the seed of each user's nkey.
    pub seeds: BTreeMap<&'static str, PathBuf>,
    /// The authority of the servers' certificates.
    pub authorities: PathBuf,
}

impl NatsFiles {
    /// The settings of a process that is this user.
    pub fn settings_of(&self, user: &str) -> Vec<(String, String)> {
        let seed = self.seeds.get(user).map(|file| ("NATS_NKEY_SEED_FILE".to_owned(), file.display().to_string()));
        let authorities = seed.is_some().then(|| ("NATS_CA_FILE".to_owned(), self.authorities.display().to_string()));
        seed.into_iter().chain(authorities).collect()
    }

    /// The file with the seed of whoever may do everything.
    pub fn seed_of_admin(&self) -> &Path {
        &self.seeds[ADMIN]
    }
}

/// Three servers that end with this.
#[derive(Debug)]
pub struct ProductionCluster {
    servers: Vec<Child>,
    url: String,
    files: NatsFiles,
}

impl ProductionCluster {
    /// Starts them on free ports, with their data below `folder`. They find one another within seconds. Each keeps up to `file_store` on disk.
    pub fn start(folder: &Path, file_store: &str) -> anyhow::Result<Self> {
        // Held until all are chosen, so that none is chosen twice.
        let listeners =
            (0..3 * SERVERS).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>().context("choose ports")?;
        let ports =
            listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<Vec<_>, std::io::Error>>()?;
        drop(listeners);
        let (clients, rest) = ports.split_at(SERVERS);
        let (routes, monitors) = rest.split_at(SERVERS);
        let url = clients.iter().map(|port| format!("tls://localhost:{port}")).collect::<Vec<_>>().join(",");
        let mut cluster = Self { servers: Vec::new(), url, files: write_seeds(folder)? };
        for (number, ((client, route), monitor)) in clients.iter().zip(routes).zip(monitors).enumerate() {
            let own = folder.join(format!("nats-{number}"));
            fs::create_dir_all(&own).with_context(|| format!("create {}", own.display()))?;
            let file = write_configuration(&own)?;
            let mut configuration = fs::read_to_string(&file)?
                .replace("0.0.0.0:4222", &format!("127.0.0.1:{client}"))
                .replace("0.0.0.0:6222", &format!("127.0.0.1:{route}"))
                .replace("0.0.0.0:8222", &format!("127.0.0.1:{monitor}"));
            for (other, port) in routes.iter().enumerate() {
                configuration = configuration.replace(&format!("//nats-{other}.nats:6222"), &format!("//localhost:{port}"));
            }
            fs::write(&file, configuration)?;
            let mut command = process::tied(&toolchain::nats_server()?, Signal::SIGKILL);
            command.arg("--config").arg(&file).envs(environment());
            command.env("SERVER_NAME", format!("nats-{number}")).env("CLUSTER_ADVERTISE", format!("localhost:{route}"));
            command.env("MAX_FILE_STORE", file_store).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(File::create(own.join("log"))?);
            cluster.servers.push(command.spawn().context("start nats-server")?);
        }
        Ok(cluster)
    }

    /// Where they listen: all three, with commas.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What their clients need.
    pub fn files(&self) -> &NatsFiles {
        &self.files
    }
}

impl Drop for ProductionCluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn write_seeds(folder: &Path) -> anyhow::Result<NatsFiles> {
    let mut seeds = BTreeMap::new();
    for (user, key) in keys() {
        let file = folder.join(format!("{user}.seed"));
        let seed = key.seed().map_err(|error| anyhow::anyhow!("the seed of {user}: {error}"))?;
        fs::write(&file, seed + "\n").with_context(|| format!("write {}", file.display()))?;
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        seeds.insert(user, file);
    }
    Ok(NatsFiles { seeds, authorities: workspace_root().join("infra/deployment/tests/certificates/ca.pem") })
}
