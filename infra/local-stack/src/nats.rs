//! A private nats-server with JetStream.

pub mod production;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;

use crate::process::{Launch, Lifetime, Process};
use crate::scratch::Scratch;
use crate::stack::NATS;
use crate::{Durability, port, probe, toolchain};

const TEMPLATE: &str = include_str!("../../nats/local.conf");
/// The template's name of the server; in a cluster each needs its own.
const NAME_ALONE: &str = "contrail-local";
/// A server with a large log needs time to check it.
const START_DEADLINE: Duration = Duration::from_mins(1);
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// A port can be taken by somebody else between our choice and the server's use of it.
const START_ATTEMPTS_MAX: usize = 5;

/// How much the server's heap may grow, in percent, before its garbage is collected. By Go's default, 100, a third of its
/// processor time under load goes into walking over what it knows of subjects and message ids again and again.
const HEAP_GROWTH_PERCENT: u32 = 400;
/// One of this many parts of the memory that there is is where the server collects its garbage no matter how little that is.
const MEMORY_PARTS: u64 = 4;
/// Where control groups say how many bytes a container may take, version 2 and 1; the first says `max` if that is not bounded.
const CONTAINER_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// What a [`NatsServer`] is started with.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Where its data, configuration and log go; `None` is a temporary folder that is removed with the server.
    pub directory: Option<PathBuf>,
    /// The log file; `None` is `nats.log` in the directory.
    pub log: Option<PathBuf>,
    /// The client port to use if it is free; any other free one otherwise.
    pub port: Option<u16>,
    /// What an acknowledged append survives.
    pub durability: Durability,
    /// Whether the server dies with this process.
    pub lifetime: Lifetime,
    /// The password of each of [`USERS`]; `None` lets everybody in, to do everything.
    pub passwords: Option<BTreeMap<&'static str, String>>,
}

/// Who there is, see `infra/nats/users.conf`; what each may do is in `permissions.conf` beside it. The first may do everything.
pub const USERS: [&str; 4] = [ADMIN, "command-api", "reactors", "projectors"];
pub(crate) const ADMIN: &str = "admin";
const USERS_TEMPLATE: &str = concat!(include_str!("../../nats/permissions.conf"), "\n", include_str!("../../nats/users.conf"));

/// Settings of the Go runtime, where the caller's own environment has none.
fn collector_settings() -> Vec<(String, String)> {
    let growth = ("GOGC", Some(HEAP_GROWTH_PERCENT.to_string()));
    let limit = ("GOMEMLIMIT", memory_bytes().map(|bytes| format!("{}B", bytes / MEMORY_PARTS)));
    let settings = [growth, limit].into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    settings.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The memory that there is for this process: the machine's, or what its container may take. `None` where the system does not say.
fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let container = CONTAINER_LIMITS.map(|file| fs::read_to_string(file).ok());
    least(machine.as_deref(), container.each_ref().map(Option::as_deref))
}

/// The least of what is said, which may be nothing.
fn least(meminfo: Option<&str>, limits: [Option<&str>; 2]) -> Option<u64> {
    let machine = meminfo.and_then(total_of);
    let container = limits.into_iter().flatten().filter_map(|limit| limit.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

/// From the line `MemTotal:       24684128 kB`.
fn total_of(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1_024)
}

/// A server's place among others that replicate streams between them.
#[derive(Clone, Debug)]
struct Seat {
    name: &'static str,
    port: u16,
    /// Of all seats, this one's included.
    ports: Vec<u16>,
}

impl Seat {
    fn configuration(&self) -> String {
        let routes: Vec<_> = self.ports.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        // Clients are told of all servers by their settings, and so may reach them on other ways than the servers know of.
        let listen = format!("127.0.0.1:{}", self.port);
        format!("\ncluster {{ name: contrail, listen: \"{listen}\", no_advertise: true, routes: [{}] }}\n", routes.join(", "))
    }
}

/// A nats-server on 127.0.0.1. Dropping it kills it (unless detached) and removes its data if that was temporary.
#[derive(Debug)]
pub struct NatsServer {
    // Field order: the process is gone before its data is removed.
    process: Process,
    url: String,
    port: u16,
    monitoring_port: u16,
    directory: PathBuf,
    durability: Durability,
    passwords: Option<BTreeMap<&'static str, String>>,
    seat: Option<Seat>,
    _scratch: Option<Scratch>,
}

impl NatsServer {
    /// Starts a server and waits until it accepts clients and JetStream has recovered.
    pub fn start(options: NatsOptions) -> anyhow::Result<Self> {
        Self::start_on(options, None)
    }

    /// Starts servers with these names that replicate streams between them, each with what `options` says for it, and waits until they have
    /// found one another.
    pub fn start_cluster(names: &[&'static str], options: impl Fn(&'static str) -> NatsOptions) -> anyhow::Result<Vec<Self>> {
        let ports = names.iter().map(|_| port::free()).collect::<anyhow::Result<Vec<_>>>()?;
        // Each is ready only once the others are there.
        std::thread::scope(|scope| {
            let starting = names.iter().zip(&ports).map(|(name, port)| {
                let seat = Seat { name, port: *port, ports: ports.clone() };
                let options = options(name);
                scope.spawn(move || Self::start_on(options, Some(seat)))
            });
            let starting: Vec<_> = starting.collect();
            starting.into_iter().map(|server| server.join().expect("starting a server does not panic")).collect()
        })
    }

    fn start_on(options: NatsOptions, seat: Option<Seat>) -> anyhow::Result<Self> {
        let program = toolchain::nats_server()?;
        let scratch = if options.directory.is_none() { Some(Scratch::new(None)?) } else { None };
        let directory =
            scratch.as_ref().map(|scratch| scratch.path().to_owned()).or(options.directory).expect("one of the two is there");
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let configuration = directory.join("nats.conf");
        let launch = Launch {
            program,
            arguments: ["--config".into(), configuration.into_os_string(), "--ports_file_dir".into(), directory.clone().into()]
                .into(),
            environment: collector_settings(),
            account: None,
            working_directory: directory.clone(),
            log: options.log.unwrap_or_else(|| directory.join("nats.log")),
            lifetime: options.lifetime,
            end: Signal::SIGKILL,
        };
        let mut server = Self {
            process: Process::new(seat.as_ref().map_or(NATS, |seat| seat.name), launch),
            url: String::new(),
            port: 0,
            monitoring_port: 0,
            directory,
            durability: options.durability,
            passwords: options.passwords,
            seat,
            _scratch: scratch,
        };
        let mut wanted_port = options.port.filter(|port| port::is_free(*port));
        for attempt in 1.. {
            server.choose_ports(wanted_port.take())?;
            match server.start_again() {
                Ok(()) => break,
                Err(error) if attempt == START_ATTEMPTS_MAX || port::is_free(server.port) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(server)
    }

    fn choose_ports(&mut self, wanted: Option<u16>) -> anyhow::Result<()> {
        self.port = wanted.map_or_else(port::free, Ok)?;
        self.monitoring_port = port::free()?;
        self.url = self.url_of(ADMIN)?;
        Ok(())
    }

    /// Where one of [`USERS`] connects, password included.
    pub fn url_of(&self, user: &str) -> anyhow::Result<String> {
        let Some(passwords) = &self.passwords else { return Ok(format!("nats://127.0.0.1:{}", self.port)) };
        let password = passwords.get(user).with_context(|| format!("NATS has no user {user}"))?;
        Ok(format!("nats://{user}:{password}@127.0.0.1:{}", self.port))
    }

    /// What its process is called.
    pub fn name(&self) -> &'static str {
        self.process.name()
    }

    /// `nats://127.0.0.1:PORT`, with a password where there are users, for somebody who may do everything; stays the same over restarts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where clients connect; stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`: `/varz`, `/jsz`, `/healthz`.
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitoring_port)
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

    /// SIGSTOP: it hangs.
    pub fn freeze(&mut self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// SIGCONT: it goes on.
    pub fn thaw(&mut self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; returns when the process is gone. Fails when it had to be killed after 15 s.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(STOP_DEADLINE).map(drop)
    }

    /// Starts a killed or stopped server on the same port and data and waits until it is ready. Does nothing if it is running.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        if self.process.is_running() {
            return Ok(());
        }
        self.remove_ports_files()?;
        let mut configuration = TEMPLATE
            .replace("{port}", &self.port.to_string())
            .replace("{monitoring_port}", &self.monitoring_port.to_string())
            .replace("{store_dir}", self.directory.to_str().context("the folder's name is not valid UTF-8")?)
            .replace("{sync_interval}", if self.durability == Durability::Disk { "always" } else { "2m" });
        if let Some(seat) = &self.seat {
            configuration = configuration.replace(NAME_ALONE, seat.name) + &seat.configuration();
        }
        if let Some(passwords) = &self.passwords {
            let filled =
                |users: String, (user, password): (&&str, &String)| users.replace(&format!("{{password_{user}}}"), password);
            configuration = configuration + "\n" + &passwords.iter().fold(USERS_TEMPLATE.to_owned(), filled);
        }
        let file = self.directory.join("nats.conf");
        let written = File::options().create(true).truncate(true).write(true).mode(0o600).open(&file);
        written.and_then(|mut file| file.write_all(configuration.as_bytes())).context("write nats.conf")?;
        self.process.start()?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let pid = self.process.pid().context("nats-server was not started")?;
        let ready = probe::poll(START_DEADLINE, || {
            self.process.ensure_running()?;
            // The server writes this file, named after its pid, once it listens: so whoever answers on the port is this server.
            if !self.has_ports_file(pid) {
                return Ok(None);
            }
            let healthy = probe::http_get(self.monitoring_port, "/healthz").is_ok_and(|(status, _)| status == 200);
            Ok::<_, anyhow::Error>(healthy.then_some(()))
        })?;
        if ready.is_none() {
            let tail = self.process.log_tail();
            self.process.kill();
            bail!("nats-server was not ready within {} s; the end of its log:\n{tail}", START_DEADLINE.as_secs());
        }
        Ok(())
    }

    /// The file is called `<name of the program>_<pid>.ports`, and the program may have any name.
    fn has_ports_file(&self, pid: u32) -> bool {
        self.ports_files().is_ok_and(|files| files.iter().any(|file| file.to_string_lossy().ends_with(&format!("_{pid}.ports"))))
    }

    fn ports_files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.directory).with_context(|| format!("list {}", self.directory.display()))?;
        let is_ports_file = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "ports");
        Ok(entries.flatten().map(|entry| entry.path()).filter(is_ports_file).collect())
    }

    /// A killed server leaves its file behind, and a later one could have the same pid.
    fn remove_ports_files(&self) -> anyhow::Result<()> {
        for file in self.ports_files()? {
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read_from_what_the_kernel_says() {
        assert_eq!(total_of("MemTotal:       24684128 kB\nMemFree:        12644100 kB\n"), Some(24_684_128 * 1_024));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        assert_eq!(total_of("MemTotal: many\n"), None);
    }

    #[test]
    fn a_container_that_may_take_less_than_the_machine_has_counts() {
        const MACHINE: &str = "MemTotal: 1024 kB\n";
        const UNBOUNDED: &str = "9223372036854771712\n";
        for (limits, bytes) in [
            ([Some("524288\n"), None], 524_288),
            ([None, Some("524288\n")], 524_288),
            ([Some("max\n"), None], 1_048_576),
            ([None, Some(UNBOUNDED)], 1_048_576),
            ([None, None], 1_048_576),
        ] {
            assert_eq!(least(Some(MACHINE), limits), Some(bytes), "{limits:?}");
        }
        assert_eq!(least(None, [Some("524288\n"), None]), Some(524_288));
        assert_eq!(least(None, [Some("max\n"), None]), None);
    }
}
