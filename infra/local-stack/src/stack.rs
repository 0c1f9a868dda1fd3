//! The whole system as separate processes: nats-server, Postgres, the four services and the payment simulator.
//!
//! A stack lives in a folder:
//!
//! ```text
//! stack.json        where everything is (the public one; see StackInfo)
//! processes.json    which processes belong to it, for `down`
//! ports.json        the ports, so that the next start uses the same ones
//! audit-key.pem     the key that signs audit checkpoints
//! passwords.json    of users of nats-server and roles of Postgres; stack.json has those who may do everything
//! auth-key.pem      the key that signs callers' tokens; auth-jwks.json is its public half, which the services check tokens with
//! nats/ postgres/   the data (nats-1/ and so on where the log is replicated): starting a stack here again continues with it
//! ledger.jsonl      what the payment simulator has charged and refunded
//! mail/             the messages that customers would have got
//! logs/NAME.log     standard output and error of each process
//! ```

mod folder;
mod info;
mod instance;
mod passwords;
mod ports;
mod record;
mod servers;
mod services;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;

pub use folder::{ensure_not_running, remove_data};
pub use info::{StackInfo, read_info};
pub use instance::Instance;
pub use record::{StackRecord, kill_processes, take_down};
pub use services::{NATS, NATS_CLUSTER, POSTGRES, SERVICES};

use crate::Durability;
use crate::nats::production::NatsFiles;
use crate::nats::{self, NatsServer};
use crate::postgres::PostgresServer;
use crate::process::{self, Launch, Lifetime, Process};
use crate::tokens::{self, Claims, TokenIssuer};
use crate::{checkout, port, probe};
use passwords::Passwords;
use ports::Ports;
use services::Environment;

/// From the start of a service until its `/ready` says 200. Services wait for their dependencies, and a projector that has much
/// to catch up with is ready all the same.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Creating the streams and the schema, or finding them there.
const SET_UP_DEADLINE: Duration = Duration::from_mins(2);
/// A service that is told to stop finishes what is in flight within 30 s; a little later we kill it.
pub const SERVICE_STOP_DEADLINE: Duration = Duration::from_secs(35);
/// How long the tokens in `stack.json` are good for; the next start issues new ones.
const TOKEN_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// The database that the services use on our own Postgres.
const DATABASE: &str = "contrail";

/// What a [`Stack`] is started with.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// The folder that it lives in; created if need be.
    pub directory: PathBuf,
    /// Whether its processes die with this one.
    pub lifetime: Lifetime,
    /// What an acknowledged append and a committed transaction survive.
    pub durability: Durability,
    /// Whether three NATS servers replicate the log between them, so that any one of them may be lost. They get other ports with each start.
    pub replicates: bool,
    /// The folder with the service binaries; `None` is the one that the running executable was built into.
    pub binaries: Option<PathBuf>,
    /// A NATS server to use instead of starting one.
    pub nats_url: Option<String>,
    /// What the services need to be let in by it, if that is not in the URL.
    pub nats_files: Option<NatsFiles>,
    /// A database to use instead of starting Postgres.
    pub database_url: Option<String>,
    /// Settings of services that are other than usual: of which service, the name, the value.
    pub settings: Vec<(&'static str, &'static str, String)>,
    /// Whether it may start although projections are halted, and will be until somebody sees to that; see [`Stack::halted`].
    pub may_be_halted: bool,
}

impl StackOptions {
    /// A stack of its own servers, on disk, that dies with this process.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            lifetime: Lifetime::Tied,
            durability: Durability::Disk,
            replicates: false,
            binaries: None,
            nats_url: None,
            nats_files: None,
            database_url: None,
            settings: Vec::new(),
            may_be_halted: false,
        }
    }
}

/// A stack cannot be started in a folder in which one is running.
#[derive(Debug, thiserror::Error)]
#[error("a stack is running in {}: {running}", directory.display())]
pub struct AlreadyRunning {
    /// The folder.
    pub directory: PathBuf,
    /// What runs, in words.
    pub running: String,
}

/// A running stack. Dropping it kills its processes, unless they are detached, and keeps its data (see [`remove_data`]).
#[derive(Debug)]
pub struct Stack {
    options: StackOptions,
    info: StackInfo,
    ports: Ports,
    passwords: Passwords,
    /// Whether it was ready once: from then on there is a `stack.json`.
    is_announced: bool,
    /// Which projections were halted at its start, and why.
    halted: Vec<String>,
    // Field order: services are gone before the servers that they use.
    services: Vec<Process>,
    nats: Vec<NatsServer>,
    postgres: Option<PostgresServer>,
    // Held while the stack lives (while it starts, when it is detached).
    _lock: File,
}

impl Stack {
    /// Starts everything, over the data of an earlier stack in this folder if there is any, and waits until every service is ready.
    ///
    /// `progress` is told what happens next, for a human. The service binaries must have been built, into the folder of the running
    /// executable. Fails with [`AlreadyRunning`] when a stack is running in the folder; in any failure nothing is left running.
    pub fn start(options: StackOptions, mut progress: impl FnMut(&str)) -> anyhow::Result<Self> {
        folder::create(&options.directory)?;
        // The folder is passed to processes that work in others.
        let directory = fs::canonicalize(&options.directory).with_context(|| format!("find {}", options.directory.display()))?;
        let options = StackOptions { directory, ..options };
        let lock = folder::lock(&options.directory)?;
        let ports = Ports::choose(&options.directory)?;

        progress("starting nats-server and Postgres");
        let users: Vec<_> = nats::USERS.into_iter().chain(services::ROLES).collect();
        let passwords = Passwords::open(&options.directory, &users)?;
        let (nats, postgres) = servers::start(&options, &ports, &passwords)?;
        let mut stack = Self {
            info: StackInfo::default(),
            ports,
            passwords,
            is_announced: false,
            halted: Vec::new(),
            services: Vec::new(),
            nats,
            postgres,
            options,
            _lock: lock,
        };
        let outcome = stack.start_services(&mut progress);
        if let Err(error) = outcome {
            stack.kill_everything();
            return Err(error);
        }
        Ok(stack)
    }

    fn start_services(&mut self, progress: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        self.ports.nats = self.nats.first().map_or(self.ports.nats, NatsServer::port);
        self.ports.postgres = self.postgres.as_ref().map_or(self.ports.postgres, PostgresServer::port);
        self.ports.save(&self.options.directory)?;
        self.info = self.describe()?;
        self.record()?;

        progress("creating the streams and the schema");
        self.set_up("migrate", &["migrate"])?;
        if !self.options.directory.join("audit-key.pem").exists() {
            let key_file = self.options.directory.join("audit-key.pem");
            self.set_up(
                "audit-keygen",
                &["audit", "keygen", "--out", key_file.to_str().context("the folder's name is not UTF-8")?],
            )?;
        }
        let audit_key = self.set_up("audit-key", &["audit", "key"])?;
        audit_key.trim().clone_into(&mut self.info.audit_vkey);

        self.info.tokens = self.issue_tokens()?;
        progress("starting the services");
        for name in SERVICES {
            let process = Process::new(name, self.launch(name)?);
            self.services.push(process);
        }
        for name in SERVICES {
            self.spawn(name)?;
        }
        for name in SERVICES {
            progress(&format!("waiting for {name}"));
            let port = self.ports.of(name)?;
            let may_be_halted = self.options.may_be_halted;
            let halted =
                until_ready_or(self.service(name)?, port, |answer| if may_be_halted { halts(answer) } else { Vec::new() })?;
            self.halted.extend(halted);
        }
        self.is_announced = true;
        self.record()
    }

    /// A token of this stack for whoever has that role and is called that.
    pub fn token(&self, role: &str, subject: &str) -> anyhow::Result<String> {
        let issuer = token_issuer(&self.options.directory)?;
        Ok(issuer.token(Claims { role, subject, audience: tokens::AUDIENCE, lifetime: TOKEN_LIFETIME }))
    }

    /// One token for each role, and the key to check them with.
    fn issue_tokens(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let directory = &self.options.directory;
        info::replace(&directory.join(services::KEY_SET), &token_issuer(directory)?.key_set())?;
        let issued = tokens::SUBJECTS.into_iter().map(|(role, subject)| Ok((role.to_owned(), self.token(role, subject)?)));
        issued.collect()
    }

    /// Where everything is.
    pub fn info(&self) -> &StackInfo {
        &self.info
    }

    /// Which projections were halted when it started, each with the reason: see [`StackOptions::may_be_halted`].
    pub fn halted(&self) -> &[String] {
        &self.halted
    }

    /// The folder that the stack lives in.
    pub fn directory(&self) -> &Path {
        &self.options.directory
    }

    /// The log file of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        folder::log_file(&self.options.directory, name)
    }

    /// A service's binary with the environment that the service runs in, for its other subcommands: `projectors status`,
    /// `reactors dead-letters list`.
    pub fn command(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.binary(name)?);
        process::forget_other_servers(&mut command);
        command.envs(self.environment(name)?).current_dir(&self.options.directory);
        Ok(command)
    }

    /// SIGKILL of one process; returns when it is gone. Does nothing if it is not running. Fails for a name that the stack does not
    /// run.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        match server(name) {
            Some(Server::Nats) => self.own_nats(name)?.kill(),
            Some(Server::Postgres) => self.own_postgres()?.kill(),
            None => self.service(name)?.kill(),
        }
        self.record()
    }

    /// Asks one process to stop (SIGTERM; Postgres: fast shutdown) and waits until it is gone. Fails when it did not end with exit
    /// code 0 within its deadline.
    pub fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let outcome = match server(name) {
            Some(Server::Nats) => self.own_nats(name)?.stop(),
            Some(Server::Postgres) => self.own_postgres()?.stop(),
            None => {
                let service = self.service(name)?;
                service.signal(Signal::SIGTERM);
                wait_for_clean_end(service)
            }
        };
        self.record()?;
        outcome
    }

    /// SIGSTOP: it is there, and does nothing.
    pub fn freeze(&mut self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::SIGSTOP)
    }

    /// SIGCONT: it goes on where it was.
    pub fn thaw(&mut self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::SIGCONT)
    }

    fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let pid = self.info.pids.get(name).with_context(|| format!("{name} does not run"))?;
        process::send(*pid, signal);
        Ok(())
    }

    /// From its next start on, `service` has this setting.
    pub fn set(&mut self, service: &'static str, setting: &'static str, value: String) -> anyhow::Result<()> {
        self.options.settings.retain(|(of, name, _)| (*of, *name) != (service, setting));
        self.options.settings.push((service, setting, value));
        let launch = self.launch(service)?;
        self.service(service)?.launch_as(launch);
        Ok(())
    }

    /// Starts a killed or stopped process again, on the same port and with the same environment, and waits until it is ready. Does
    /// nothing if it is running and ready.
    pub fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        self.spawn(name)?;
        self.wait_until_ready(name)
    }

    /// As [`Stack::start_again`], but returns at once: for a service whose dependencies are down. (The servers are always waited
    /// for.)
    pub fn spawn(&mut self, name: &str) -> anyhow::Result<()> {
        match server(name) {
            Some(Server::Nats) => self.own_nats(name)?.start_again()?,
            Some(Server::Postgres) => self.own_postgres()?.start_again()?,
            None => self.service(name)?.start()?,
        }
        self.record()
    }

    /// Waits until a service's `/ready` says 200. Fails, with the end of its log, when it ends first or the deadline passes.
    pub fn wait_until_ready(&mut self, name: &str) -> anyhow::Result<()> {
        if server(name).is_some() {
            // They were ready when their start returned.
            return Ok(());
        }
        let port = self.ports.of(name)?;
        until_ready(self.service(name)?, port)
    }

    /// Starts one more instance of a service, on a port of its own, and waits until it is ready. It is not part of the stack: nobody
    /// restarts it, and it dies with the value.
    pub fn another(&self, name: &str) -> anyhow::Result<Instance> {
        let name = SERVICES.into_iter().find(|service| *service == name);
        let name = name.context("there is no service with this name")?;
        let port = port::free()?;
        let mut launch = self.launch(name)?;
        launch.environment.retain(|(setting, _)| setting != "LISTEN_ADDR");
        launch.environment.push(("LISTEN_ADDR".to_owned(), format!("127.0.0.1:{port}")));
        launch.log = self.log(&format!("{name}-{port}"));
        launch.lifetime = Lifetime::Tied;
        Instance::start(name, launch, port)
    }

    /// The processes that have ended although nobody stopped them, each with how it ended.
    pub fn ended(&mut self) -> Vec<(&'static str, String)> {
        let services = self.services.iter_mut().filter_map(|service| Some((service.name(), service.exit_status()?)));
        let mut ended: Vec<_> = services.collect();
        ended.extend(self.nats.iter_mut().filter_map(|nats| Some((nats.name(), nats.exit_status()?))));
        ended.extend(self.postgres.as_mut().and_then(PostgresServer::exit_status).map(|status| (POSTGRES, status)));
        ended.into_iter().map(|(name, status)| (name, status.to_string())).collect()
    }

    /// Stops everything in order: first the services, all at once, then what they use. Every process is gone afterwards; fails when
    /// one had to be killed or ended with an error.
    pub fn shut_down(mut self) -> anyhow::Result<()> {
        let mut failures = Vec::new();
        for phase in services::STOP_PHASES {
            // All of a phase are told first, so that they take their time together. Only once: a second signal means haste.
            let mut stopping: Vec<_> = self.services.iter_mut().filter(|service| phase.contains(&service.name())).collect();
            for service in &mut stopping {
                service.signal(Signal::SIGTERM);
            }
            failures.extend(stopping.into_iter().filter_map(|service| wait_for_clean_end(service).err()));
            if phase.contains(&POSTGRES) {
                failures.extend(self.postgres.as_mut().and_then(|postgres| postgres.stop().err()));
            }
            if phase.contains(&NATS) {
                failures.extend(self.nats.iter_mut().filter_map(|nats| nats.stop().err()));
            }
        }
        record::forget(&self.options.directory)?;
        ensure!(failures.is_empty(), "{}", failures.iter().map(|failure| format!("{failure:#}")).collect::<Vec<_>>().join("\n"));
        Ok(())
    }

    /// Leaves a detached stack to itself; [`take_down`] ends it.
    pub fn leave_running(self) {
        drop(self);
    }

    fn kill_everything(&mut self) {
        self.services.iter_mut().for_each(Process::kill);
        self.nats.iter_mut().for_each(NatsServer::kill);
        self.postgres.iter_mut().for_each(PostgresServer::end);
        // Nothing runs, which a stale record says as well.
        let _ = record::forget(&self.options.directory);
    }

    fn service(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        let found = self.services.iter_mut().find(|service| service.name() == name);
        found.with_context(|| format!("there is no process called {name} in this stack"))
    }

    fn own_nats(&mut self, name: &str) -> anyhow::Result<&mut NatsServer> {
        ensure!(!self.nats.is_empty(), "the NATS server was given and is not ours to start or stop");
        let found = self.nats.iter_mut().find(|nats| nats.name() == name);
        found.with_context(|| format!("there is no NATS server called {name} in this stack"))
    }

    fn own_postgres(&mut self) -> anyhow::Result<&mut PostgresServer> {
        self.postgres.as_mut().context("the database was given and is not ours to start or stop")
    }

    fn describe(&self) -> anyhow::Result<StackInfo> {
        let nats = match (self.nats.as_slice(), &self.options.nats_url) {
            ([], given) => given.clone().context("there is neither a NATS server nor a NATS_URL")?,
            (servers, _) => servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(","),
        };
        let database = match (&self.postgres, &self.options.database_url) {
            (Some(server), _) => {
                for role in services::ROLES {
                    server.create_role(role, self.passwords.of(role)?)?;
                }
                server.create_database_of(DATABASE, services::OWNER)?
            }
            (None, given) => given.clone().context("there is neither a Postgres nor a DATABASE_URL")?,
        };
        let mut info = StackInfo::new(&self.ports, nats, database);
        info.nats_files.clone_from(&self.options.nats_files);
        Ok(info)
    }

    /// Writes down which processes there are, for users and for `down`.
    fn record(&mut self) -> anyhow::Result<()> {
        let services = self.services.iter().filter_map(|service| Some((service.name(), service.pid()?)));
        let nats = self.nats.iter().filter_map(|nats| Some((nats.name(), nats.pid()?)));
        let postgres = self.postgres.as_ref().and_then(PostgresServer::pid).map(|pid| (POSTGRES, pid));
        self.info.pids = services.chain(nats).chain(postgres).map(|(name, pid)| (name.to_owned(), pid)).collect();
        record::write(&self.options.directory, &self.info.pids, self.options.lifetime)?;
        if self.is_announced {
            info::write(&self.options.directory, &self.info)?;
        }
        Ok(())
    }

    fn binary(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.options.binaries.clone().map_or_else(checkout::binaries_directory, Ok)?;
        let binary = folder.join(name);
        ensure!(
            binary.is_file(),
            "{} does not exist: build the services first (`cargo build --workspace --bins`)",
            binary.display()
        );
        Ok(binary)
    }

    fn environment(&self, name: &str) -> anyhow::Result<Vec<(String, String)>> {
        let mut environment = Environment {
            info: &self.info,
            directory: &self.options.directory,
            nats: self.nats_of(name)?,
            database: self.database_of(name)?,
        }
        .of(name)?;
        if self.options.replicates && name == "projectors" {
            environment.push(("EVENTS_REPLICAS".to_owned(), NATS_CLUSTER.len().to_string()));
        }
        environment.extend(self.options.nats_files.iter().flat_map(|files| files.settings_of(name)));
        for (_, setting, value) in self.options.settings.iter().filter(|(service, ..)| *service == name) {
            environment.retain(|(usual, _)| usual != setting);
            environment.push(((*setting).to_owned(), value.clone()));
        }
        Ok(environment)
    }

    /// Where a service finds NATS, with just the rights that it needs; where NATS was given, it is what was given.
    pub fn nats_of(&self, service: &str) -> anyhow::Result<String> {
        if self.nats.is_empty() || !nats::USERS.contains(&service) {
            return Ok(self.info.nats.clone());
        }
        let urls = self.nats.iter().map(|server| server.url_of(service)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(urls.join(","))
    }

    /// Where a service finds Postgres, in the role that it needs; where Postgres was given, it is what was given.
    pub fn database_of(&self, service: &str) -> anyhow::Result<String> {
        let role = match service {
            "projectors" => services::OWNER,
            "query-api" => services::READER,
            _ => return Ok(self.info.database.clone()),
        };
        match &self.postgres {
            Some(server) => Ok(server.url_of(DATABASE, role, self.passwords.of(role)?)),
            None => Ok(self.info.database.clone()),
        }
    }

    fn launch(&self, name: &str) -> anyhow::Result<Launch> {
        Ok(Launch {
            program: self.binary(name)?,
            arguments: services::arguments(name).iter().map(Into::into).collect(),
            environment: self.environment(name)?,
            account: None,
            working_directory: self.options.directory.clone(),
            log: self.log(name),
            lifetime: self.options.lifetime,
            end: Signal::SIGKILL,
        })
    }

    /// Runs a subcommand of `projectors` to its end. Returns its standard output.
    fn set_up(&self, log_name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let log = self.log(log_name);
        let log_file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let answer = self.options.directory.join("logs").join(format!("{log_name}.out"));
        let answer_file = File::create(&answer).with_context(|| format!("create {}", answer.display()))?;
        let mut command = process::tied(&self.binary("projectors")?, Signal::SIGKILL);
        process::forget_other_servers(&mut command);
        command.args(arguments).envs(self.environment("projectors")?).current_dir(&self.options.directory);
        // Unlike the service, the set-up step creates streams.
        command.env("NATS_URL", &self.info.nats);
        command.envs(self.options.nats_files.iter().flat_map(|files| files.settings_of(nats::ADMIN)));
        if self.postgres.is_some() {
            command.env("READER_ROLE", services::READER);
        }
        command.stdin(Stdio::null()).stdout(answer_file).stderr(log_file);
        let mut child = command.spawn().context("run projectors")?;
        let Some(status) = probe::poll(SET_UP_DEADLINE, || child.try_wait())? else {
            let _ = child.kill();
            let _ = child.wait();
            bail!(
                "`projectors {}` did not end within {} s; the end of its log:\n{}",
                arguments.join(" "),
                SET_UP_DEADLINE.as_secs(),
                process::log_tail(&log)
            );
        };
        let printed = fs::read_to_string(&answer).unwrap_or_default();
        let _ = fs::remove_file(&answer);
        ensure!(
            status.success(),
            "`projectors {}` failed ({status}); the end of its log:\n{}",
            arguments.join(" "),
            process::log_tail(&log)
        );
        Ok(printed)
    }
}

/// Who issues tokens for the stack in this folder, running or not.
pub fn token_issuer(directory: &Path) -> anyhow::Result<TokenIssuer> {
    folder::create(directory)?;
    TokenIssuer::open_or_generate(&directory.join(services::TOKEN_KEY))
}

/// What is not a service.
enum Server {
    Nats,
    Postgres,
}

fn server(name: &str) -> Option<Server> {
    match name {
        POSTGRES => Some(Server::Postgres),
        _ if name == NATS || NATS_CLUSTER.contains(&name) => Some(Server::Nats),
        _ => None,
    }
}

/// Waits until `/ready` on `port` says 200.
fn until_ready(service: &mut Process, port: u16) -> anyhow::Result<()> {
    until_ready_or(service, port, |_| Vec::new()).map(drop)
}

/// Waits until `/ready` on `port` says 200, or something that is `lasting`, which is returned.
fn until_ready_or(service: &mut Process, port: u16, lasting: impl Fn(&str) -> Vec<String>) -> anyhow::Result<Vec<String>> {
    let mut last_answer = "no answer".to_owned();
    let ready = probe::poll(READY_DEADLINE, || {
        service.ensure_running()?;
        let Ok((status, body)) = probe::http_get(port, "/ready") else { return Ok::<_, anyhow::Error>(None) };
        if status == 200 {
            return Ok(Some(Vec::new()));
        }
        last_answer = format!("{status} {body}");
        Ok(Some(lasting(&body)).filter(|lasting| !lasting.is_empty()))
    })?;
    ready.with_context(|| {
        format!(
            "{} was not ready within {} s; its last answer: {last_answer}; the end of its log:\n{}",
            service.name(),
            READY_DEADLINE.as_secs(),
            service.log_tail()
        )
    })
}

/// The halts that `/ready` tells of, if nothing else keeps the service from being ready.
fn halts(answer: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Answer {
        components: BTreeMap<String, Component>,
    }
    #[derive(Deserialize)]
    struct Component {
        ready: bool,
        detail: String,
    }
    let Ok(answer) = serde_json::from_str::<Answer>(answer) else { return Vec::new() };
    let unready = answer.components.into_iter().filter(|(_, component)| !component.ready);
    let halt =
        |(name, Component { detail, .. }): (_, Component)| detail.starts_with("halted: ").then(|| format!("{name} is {detail}"));
    unready.map(halt).collect::<Option<_>>().unwrap_or_default()
}

/// Waits for a service that was told to stop.
fn wait_for_clean_end(service: &mut Process) -> anyhow::Result<()> {
    let status = service.wait(SERVICE_STOP_DEADLINE)?;
    ensure!(
        status.is_none_or(|status| status.success()),
        "{} ended with {}; the end of its log:\n{}",
        service.name(),
        status.unwrap_or_default(),
        service.log_tail()
    );
    Ok(())
}
