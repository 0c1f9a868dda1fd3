//! A private Postgres.

mod cluster;
mod statement;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;

use crate::account::Account;
use crate::process::{Launch, Lifetime, Process};
use crate::scratch::Scratch;
use crate::{Durability, port, probe, toolchain};
use cluster::Cluster;
pub(crate) use cluster::remove;
pub(crate) use statement::run as run_statement;

const TEMPLATE: &str = include_str!("../../postgres/local.conf");
/// Crash recovery of a large write-ahead log takes its time.
const START_DEADLINE: Duration = Duration::from_mins(1);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// To its data the same as SIGKILL. But it removes the server's shared memory, which otherwise stays with the kernel until the next server on the
/// same data, or for good: there can be 4,096 such segments.
pub(crate) const IMMEDIATE_SHUTDOWN: Signal = Signal::SIGQUIT;
/// How long the backends of a killed server may hold its shared memory before a new one can start.
const STALE_BACKENDS_DEADLINE: Duration = Duration::from_secs(20);
/// A port can be taken by somebody else between our choice and the server's use of it.
const START_ATTEMPTS_MAX: usize = 5;

/// What a [`PostgresServer`] is started with.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Where its data goes; `None` is a temporary folder that is removed with the server. When we are root and the unprivileged
    /// account that Postgres runs under cannot reach this folder, the data goes to `/var/tmp/contrail-<hash of the folder>`.
    pub directory: Option<PathBuf>,
    /// The log file; `None` is `postgres.log` in the directory.
    pub log: Option<PathBuf>,
    /// The port to use if it is free; any other free one otherwise.
    pub port: Option<u16>,
    /// What a commit survives.
    pub durability: Durability,
    /// Whether the server dies with this process.
    pub lifetime: Lifetime,
}

/// A Postgres on 127.0.0.1, with SCRAM authentication, a random password and no Unix socket. Dropping it ends it at once (unless
/// detached) and removes its data if that was temporary.
#[derive(Debug)]
pub struct PostgresServer {
    // Field order: the process is gone before its data is removed.
    process: Process,
    cluster: Cluster,
    port: u16,
    durability: Durability,
    _scratch: Option<Scratch>,
}

impl PostgresServer {
    /// Starts a server, over the data of an earlier one if there is any, and waits until it accepts connections.
    pub fn start(options: PostgresOptions) -> anyhow::Result<Self> {
        let binaries = toolchain::postgres()?;
        let scratch = if options.directory.is_none() { Some(Scratch::new(Account::unprivileged()?)?) } else { None };
        let directory =
            scratch.as_ref().map(|scratch| scratch.path().to_owned()).or(options.directory).expect("one of the two is there");
        let cluster = Cluster::open(&directory, &binaries.initdb)?;
        let launch = Launch {
            program: binaries.postgres,
            arguments: vec!["-D".into(), cluster.data().into()],
            environment: Vec::new(),
            account: cluster.account(),
            working_directory: cluster.data().to_owned(),
            log: options.log.unwrap_or_else(|| directory.join("postgres.log")),
            lifetime: options.lifetime,
            end: IMMEDIATE_SHUTDOWN,
        };
        let mut server =
            Self { process: Process::new("postgres", launch), cluster, port: 0, durability: options.durability, _scratch: scratch };
        let mut wanted_port = options.port.filter(|port| port::is_free(*port));
        for attempt in 1.. {
            server.port = wanted_port.take().map_or_else(port::free, Ok)?;
            match server.start_again() {
                Ok(()) => break,
                Err(error) if attempt == START_ATTEMPTS_MAX || port::is_free(server.port) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(server)
    }

    /// The URL of a database on this server, for the superuser. It holds the password.
    pub fn url(&self, database: &str) -> String {
        self.url_of(database, cluster::SUPERUSER, self.cluster.password())
    }

    /// The URL of the database `postgres`, from which others are created and dropped.
    pub fn admin_url(&self) -> String {
        self.url("postgres")
    }

    /// Where clients connect; stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// How it ended, when it did so by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Where the server writes its log.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Creates an empty database if there is none of this name. Returns its URL.
    pub fn create_database(&self, name: &str) -> anyhow::Result<String> {
        let exists = format!("SELECT 1 FROM pg_database WHERE datname = '{}'", checked(name)?);
        if statement::rows(&self.admin_url(), &exists)? == 0 {
            statement::run(&self.admin_url(), &format!("CREATE DATABASE \"{name}\""))?;
        }
        Ok(self.url(name))
    }

    /// Creates an empty database if there is none of this name, and gives it to `owner`; nobody else may create anything in it. Returns its URL.
    pub fn create_database_of(&self, name: &str, owner: &str) -> anyhow::Result<String> {
        let url = self.create_database(name)?;
        statement::run(&self.admin_url(), &format!("ALTER DATABASE \"{name}\" OWNER TO \"{}\"", checked(owner)?))?;
        statement::run(&self.admin_url(), &format!("REVOKE TEMPORARY ON DATABASE \"{name}\" FROM PUBLIC"))?;
        Ok(url)
    }

    /// Creates a role that may log in and nothing else, or gives it this password.
    pub fn create_role(&self, name: &str, password: &str) -> anyhow::Result<()> {
        let (name, password) = (checked(name)?, checked(password)?);
        let exists = statement::rows(&self.admin_url(), &format!("SELECT 1 FROM pg_roles WHERE rolname = '{name}'"))? > 0;
        let verb = if exists { "ALTER" } else { "CREATE" };
        statement::run(&self.admin_url(), &format!("{verb} ROLE \"{name}\" LOGIN PASSWORD '{password}'"))
    }

    /// The URL of a database for a role with this password.
    pub fn url_of(&self, database: &str, role: &str, password: &str) -> String {
        // Else the environment decides, which may be about other servers.
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Creates the database `name` as a copy of `template`, to which nobody may be connected. Returns its URL.
    pub fn clone_template(&self, template: &str, name: &str) -> anyhow::Result<String> {
        statement::run(&self.admin_url(), &format!("CREATE DATABASE \"{}\" TEMPLATE \"{}\"", checked(name)?, checked(template)?))?;
        Ok(self.url(name))
    }

    /// Drops a database and throws out whoever is connected to it.
    pub fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        statement::run(&self.admin_url(), &format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", checked(name)?))
    }

    /// SIGKILL of the postmaster; returns when it is gone. Its backends notice by themselves, a moment later. Its shared memory stays until a
    /// server is started on the same data.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// An immediate shutdown, to the data the same as [`Self::kill`]; returns when the server is gone. Nothing stays of it but its data.
    pub fn end(&mut self) {
        self.process.end();
    }

    /// A fast shutdown: open transactions are rolled back, clients disconnected. Fails when it had to be killed after 30 s.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        // To Postgres, SIGTERM means to wait until the last client has gone.
        self.process.signal(Signal::SIGINT);
        self.process.wait(STOP_DEADLINE).map(drop)
    }

    /// Starts a killed or stopped server on the same port and data and waits until it accepts connections again, crash recovery
    /// included. Does nothing if it is running.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        if self.process.is_running() {
            return Ok(());
        }
        let on_disk = if self.durability == Durability::Disk { "on" } else { "off" };
        let shared_buffers = if self.durability == Durability::Disk { "256MB" } else { "128MB" };
        let configuration = TEMPLATE
            .replace("{port}", &self.port.to_string())
            .replace("{durability}", on_disk)
            .replace("{shared_buffers}", shared_buffers);
        self.cluster.configure(&configuration)?;

        let mut failure = None;
        let started = probe::poll(STALE_BACKENDS_DEADLINE, || {
            self.process.start()?;
            match self.wait_until_ready() {
                Ok(()) => Ok(Some(())),
                Err(error) if self.process.is_running() || !self.are_stale_backends_reported() => Err(error),
                Err(error) => {
                    failure = Some(error);
                    Ok(None)
                }
            }
        })?;
        match (started, failure) {
            (Some(()), _) => Ok(()),
            (None, Some(failure)) => Err(failure),
            (None, None) => bail!("postgres was not started"),
        }
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let pid = self.process.pid().context("postgres was not started")?;
        let ready = probe::poll(START_DEADLINE, || {
            self.process.ensure_running()?;
            Ok::<_, anyhow::Error>(self.cluster.is_ready(pid).then_some(()))
        })?;
        if ready.is_none() {
            let tail = self.process.log_tail();
            self.process.kill();
            bail!("postgres was not ready within {} s; the end of its log:\n{tail}", START_DEADLINE.as_secs());
        }
        Ok(())
    }

    /// A new server refuses to start while backends of the killed one still use its shared memory or its lock file.
    fn are_stale_backends_reported(&self) -> bool {
        let log = fs::read(self.process.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last_words = log.lines().rev().take(4);
        last_words.into_iter().any(|line| line.contains("is still in use") || line.contains("postmaster.pid"))
    }
}

/// Names and passwords go into SQL and URLs as they are.
fn checked(name: &str) -> anyhow::Result<&str> {
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    anyhow::ensure!(is_plain, "{name:?} has other characters than a-z, 0-9 and _");
    Ok(name)
}
