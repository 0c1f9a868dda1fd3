//! Child processes that do not outlive us, unless they are meant to.
//!
//! A child with [`Lifetime::Tied`] is started through util-linux's `setpriv --pdeathsig`: the kernel ends it when its
//! parent dies, however that happens. "Parent" is the *thread* that started it, so all children are started by one thread that
//! lives as long as the process. `setpriv` and `setsid` replace themselves by the program, so the child's pid is the program's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::account::Account;
use crate::probe;

/// How long a program may take to clean up that is ended by another signal than SIGKILL.
const END_DEADLINE: Duration = Duration::from_secs(6);
/// How long killed children may take to be gone.
const REAP_DEADLINE: Duration = Duration::from_secs(2);

/// What happens to a child when the process that started it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It is killed.
    Tied,
    /// It goes on, in a session of its own, so that neither a closed terminal nor Ctrl-C reaches it.
    Detached,
}

/// How to start a program, again and again if need be.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, String)>,
    /// The account to run under; `None` is our own.
    pub(crate) account: Option<Account>,
    pub(crate) working_directory: PathBuf,
    /// Standard output and standard error are appended to this file.
    pub(crate) log: PathBuf,
    pub(crate) lifetime: Lifetime,
    /// What ends it, at once, when nobody needs it any more: SIGKILL, if it then leaves nothing behind outside its folders.
    pub(crate) end: Signal,
}

/// A started program. Dropping it ends it, unless it is [`Lifetime::Detached`].
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    launch: Launch,
    child: Option<Child>,
}

impl Process {
    /// A process that is not running yet.
    pub(crate) fn new(name: &'static str, launch: Launch) -> Self {
        Self { name, launch, child: None }
    }

    /// Starts the program; does nothing when it is running.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let command = self.launch.command()?;
        let child = start_from_long_lived_thread(command)
            .with_context(|| format!("start {} ({})", self.name, self.launch.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// From its next start on.
    pub(crate) fn launch_as(&mut self, launch: Launch) {
        self.launch = launch;
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The process id while the program runs, and until its exit was noticed.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.is_some() && self.exit_status().is_none()
    }

    /// How the program ended, when it did so by itself.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Fails, with the end of the log, when the program has ended.
    pub(crate) fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.exit_status() {
            Some(status) => bail!("{} ended ({status}); the end of its log:\n{}", self.name, self.log_tail()),
            None => Ok(()),
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// As [`Self::kill`], but lets the program clean up if it does so quickly.
    pub(crate) fn end(&mut self) {
        if self.launch.end != Signal::SIGKILL {
            self.signal(self.launch.end);
            if let Some(child) = self.child.as_mut() {
                let _ = probe::poll(END_DEADLINE, || child.try_wait());
            }
        }
        self.kill();
    }

    /// Waits for a program that was told to stop; after `deadline` SIGKILL, and an error. Returns how it ended, `None` if it was not
    /// running.
    pub(crate) fn wait(&mut self, deadline: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        let status = probe::poll(deadline, || child.try_wait())?;
        if status.is_none() {
            self.kill();
            bail!(
                "{} did not stop within {} s and was killed; the end of its log:\n{}",
                self.name,
                deadline.as_secs(),
                self.log_tail()
            );
        }
        self.child = None;
        Ok(status)
    }

    /// Sends a signal if the program is running, and does not wait.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = self.pid()
        {
            send(pid, signal);
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        log_tail(&self.launch.log)
    }

    pub(crate) fn log(&self) -> &Path {
        &self.launch.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.launch.lifetime == Lifetime::Tied {
            self.end();
        }
    }
}

impl Launch {
    fn command(&self) -> anyhow::Result<Command> {
        let mut command = match self.lifetime {
            Lifetime::Tied => {
                let mut command = tied(&self.program, self.end);
                // Ctrl-C in a terminal goes to a whole process group. Ours decides itself in which order things stop.
                command.process_group(0);
                command
            }
            // Not `process_group` here: setsid would have to fork, and the pid would not be the program's.
            Lifetime::Detached => {
                let mut command = Command::new("setsid");
                command.arg(&self.program);
                command
            }
        };
        let log =
            File::options().create(true).append(true).open(&self.log).with_context(|| format!("open {}", self.log.display()))?;
        let log_too = log.try_clone().context("duplicate a log file handle")?;
        forget_other_servers(&mut command);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.working_directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too);
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        Ok(command)
    }
}

/// Settings that say how to reach servers of somebody else's, or how many there are of them. What is started here has its own, and would not
/// come to terms with those.
const OF_OTHER_SERVERS: [&str; 11] = [
    "AUTH_AUDIENCE",
    "AUTH_DISABLED",
    "AUTH_ISSUER",
    "EVENTS_REPLICAS",
    "NATS_CA_FILE",
    "NATS_NKEY_SEED_FILE",
    "PGOPTIONS",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLMODE",
    "PGSSLROOTCERT",
];

/// Takes the caller's settings of other servers away from a program that is about to be started, and keeps it from asking a proxy for what is on
/// this machine.
pub fn forget_other_servers(command: &mut Command) {
    for name in OF_OTHER_SERVERS {
        command.env_remove(name);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        let others = std::env::var(name).ok().filter(|others| !others.is_empty());
        command.env(name, others.into_iter().chain([LOOPBACK.to_owned()]).collect::<Vec<_>>().join(","));
    }
}

/// Where everything that is started here listens.
const LOOPBACK: &str = "127.0.0.1,localhost";

/// A command that runs `program` and gets the signal `end` when the thread that spawns it ends: that thread must wait for it.
pub(crate) fn tied(program: &Path, end: Signal) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", end.as_str().trim_start_matches("SIG"), "--"]).arg(program);
    command
}

/// Waits for children that were killed and that nobody else waits for any more, right before this process ends: what is left to process 1 stays a
/// zombie in many a container.
pub fn reap() {
    // An error means that there are none.
    let _ = probe::poll(REAP_DEADLINE, || waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)).map(|_| None::<()>));
}

/// Sends a signal; that the process is gone already is no error.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a Linux pid fits in 22 bits"));
    let _ = signal::kill(pid, signal);
}

/// The last lines of a log file, indented.
pub fn log_tail(log: &Path) -> String {
    const LINES_MAX: usize = 25;
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LINES_MAX)..];
    if tail.is_empty() {
        return format!("  ({} is empty)", log.display());
    }
    tail.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn start_from_long_lived_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("process-starter".to_owned())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    // Whoever asked may have given up; then the child is dropped here, which leaves it to the kernel.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a process can start one more thread");
        orders
    });
    let (answer, outcome) = mpsc::channel();
    starter.send((command, answer)).expect("the starter thread ends with the process only");
    outcome.recv().expect("the starter thread answers every order")
}
