//! A service as a process that does not outlive us.

use std::{
    env,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use local_stack::process::log_tail;

/// A started program. Dropping it kills it; should we be killed ourselves, the kernel does.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts the program that was built together with this one. What it prints goes to a file in `folder`.
    ///
    /// To be called from a thread that lives as long as the benchmark: the kernel kills the child with it.
    pub(crate) fn start(
        name: &'static str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let program = program(name)?;
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let output_too = output.try_clone().context("duplicate a log file handle")?;
        let mut command = tied(&program);
        command.args(arguments).envs(environment.iter().copied()).current_dir(folder);
        command.stdin(Stdio::null()).stdout(output).stderr(output_too);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self { name, child, log })
    }

    /// Fails, with the end of its log, when it has ended.
    pub(crate) fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("look at a process")? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); the end of its log:\n{}", self.name, log_tail(&self.log)),
        }
    }

    /// The most memory that it had resident so far, in MiB.
    pub(crate) fn peak_rss_mb(&self) -> anyhow::Result<f64> {
        peak_rss_mb(self.child.id())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a program that was run to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// From the start of the process to its end, to the hundredth of a second.
    pub(crate) elapsed: Duration,
    /// The most memory that it had resident, in MiB, but for its last hundredth of a second.
    pub(crate) peak_rss_mb: f64,
}

/// Runs the command, whose output is dropped but for what it says to standard error. Dropped before that, this kills it.
///
/// To be called where [`Service::start`] may be.
pub(crate) async fn run_to_end(command: &Command) -> anyhow::Result<Ended> {
    const LOOK_INTERVAL: Duration = Duration::from_millis(10);
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            // An error means that it is gone already.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    let mut tied = tied(Path::new(command.get_program()));
    tied.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        tied.current_dir(folder);
    }
    let started = Instant::now();
    let mut running = Running(tied.spawn().context("start a program")?);
    let mut peak_rss_mb = 0.0_f64;
    loop {
        if let Some(status) = running.0.try_wait().context("look at a process")? {
            return Ok(Ended { status, elapsed: started.elapsed(), peak_rss_mb });
        }
        // There is nothing to be read of a process that is just ending.
        peak_rss_mb = peak_rss_mb.max(self::peak_rss_mb(running.0.id()).unwrap_or_default());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The most memory that a process had resident so far, in MiB.
pub(crate) fn peak_rss_mb(pid: u32) -> anyhow::Result<f64> {
    const KIB_PER_MIB: f64 = 1_024.0;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("look at process {pid}"))?;
    peak_rss_kib(&status).map(|kib| f64::from(kib) / KIB_PER_MIB).context("find VmHWM in a process's status")
}

/// From the line `VmHWM:      1234 kB` of `/proc/PID/status`.
fn peak_rss_kib(status: &str) -> Option<u32> {
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

/// A command that runs `program` in a process group of its own, so that Ctrl-C in a terminal does not reach it before us, and
/// that is killed when the thread that spawns it ends.
pub(crate) fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).process_group(0);
    command
}

/// The path of a service's binary, in the folder of the running executable.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let executable = env::current_exe().context("find the running executable")?;
    let folder = executable.parent().context("find the folder of the running executable")?;
    // Test executables lie one folder deeper.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let program = folder.join(name);
    ensure!(
        program.is_file(),
        "{} does not exist: build the services first (`cargo build --release --workspace --bins`)",
        program.display()
    );
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_resident_memory_is_read_from_a_status() {
        assert_eq!(peak_rss_kib("Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n"), Some(2_048));
        assert_eq!(peak_rss_kib("Name:\tkthreadd\n"), None);
        assert!(peak_rss_mb(std::process::id()).unwrap() > 0.5);
    }
}
