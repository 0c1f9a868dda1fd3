//! The rival: pgbench, which comes with Postgres.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use local_stack::toolchain;
use tokio::process::Command;

use super::fill::{ID_FACTOR, ID_MODULUS, ID_PREFIX};
use crate::process::tied;

/// Its threads: as many as the machine of the goals has cores.
const THREADS: &str = "2";

/// A run that answered nothing in so long is not tried for longer.
const TIME_MAX: Duration = Duration::from_secs(30);

pub(super) struct Pgbench {
    program: PathBuf,
}

impl Pgbench {
    /// Finds it beside the server's own programs, else on `PATH`.
    pub(super) fn find() -> anyhow::Result<Self> {
        let server = toolchain::postgres()?;
        let beside = server.postgres.with_file_name("pgbench");
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path).map(|folder| folder.join("pgbench"));
        let found = std::iter::once(beside).chain(on_path).find(|program| program.is_file());
        let program = found.with_context(|| {
            format!(
                "pgbench is neither in {} nor on PATH. Debian's and Ubuntu's `postgresql` has it; elsewhere it is part of \
                 `postgresql-contrib`, or of `postgresql` built from source",
                server.postgres.parent().unwrap_or(Path::new("/")).display()
            )
        })?;
        Ok(Self { program })
    }

    /// Writes the script: one order by its id, as the query API asks for it.
    pub(super) fn script(folder: &Path, orders: u64) -> anyhow::Result<PathBuf> {
        let script = folder.join("by-id.sql");
        fs::write(&script, statements(orders)).context("write pgbench's script")?;
        Ok(script)
    }

    /// Selects per second over `connections`, with prepared statements. On a machine so busy that none is answered in `time`, it is
    /// tried again for longer.
    pub(super) async fn run(&self, script: &Path, database_url: &str, connections: usize, time: Duration) -> anyhow::Result<f64> {
        let mut time = time;
        loop {
            let printed = self.try_for(script, database_url, connections, time).await?;
            match rate(&printed) {
                Some(rate) => return Ok(rate),
                None if time < TIME_MAX => time = time.max(Duration::from_secs(1)) * 2,
                None => bail!("find the rate in what pgbench prints:\n{printed}"),
            }
        }
    }

    async fn try_for(&self, script: &Path, database_url: &str, connections: usize, time: Duration) -> anyhow::Result<String> {
        let mut command = Command::from(tied(&self.program));
        command
            .args(["--no-vacuum", "--protocol", "prepared", "--jobs", THREADS, "--client", &connections.to_string()])
            .args(["--time", &time.as_secs().max(1).to_string()])
            .arg("--file")
            .arg(script)
            // Not as an argument, which everybody on the machine can read: it holds the password.
            .env("PGDATABASE", database_url)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("run {}", self.program.display()))?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench failed ({}):\n{}", output.status, stderr.trim_end());
        Ok(stdout.into_owned())
    }
}

fn statements(orders: u64) -> String {
    format!(
        "\\set number random(0, {})\n\
         \\set digits :number * {ID_FACTOR} % {ID_MODULUS} + {ID_MODULUS}\n\
         SELECT view_id, version, payload FROM contrail.orders WHERE view_id = '{ID_PREFIX}' || to_hex(:digits::bigint);\n",
        orders - 1
    )
}

/// From the line `tps = 12345.678901 (without initial connection time)`.
fn rate(printed: &str) -> Option<f64> {
    let line = printed.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split_whitespace().next()?.parse().ok().filter(|rate: &f64| *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_pgbench_prints() {
        let printed = "number of failed transactions: 0 (0.000%)\nlatency average = 2.1 ms\ntps = 30123.5 (without initial connection time)\n";
        assert_eq!(rate(printed), Some(30_123.5));
        assert_eq!(rate("tps = 0.0 (x)"), None);
        assert_eq!(rate("pgbench (15.16)"), None);
    }

    #[test]
    fn the_script_asks_for_the_orders_that_there_are() {
        let script = statements(100);
        assert!(script.starts_with("\\set number random(0, 99)\n"), "{script}");
        assert!(script.contains("WHERE view_id = '6b0e4d0c-3a51-4f7e-9d2a-' || to_hex(:digits::bigint);"), "{script}");
    }
}
