//! The two servers that a local stack runs: found on this machine, or fetched.

mod debian;
mod nats;
mod postgres;
mod version;

use std::env;
use std::path::PathBuf;

use anyhow::Context as _;

pub use nats::{NATS_SERVER_VERSION_PINNED, nats_server};
pub use postgres::{PostgresBinaries, postgres};
pub use version::Version;

/// Every file called `name` in the folders of `PATH`, in order.
fn on_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).filter(|file| file.is_file()).collect()
}

/// Makes sure that a program is there that Debian has in a package of the same name: installs it if need be and possible.
pub fn program(name: &str) -> anyhow::Result<()> {
    if on_path(name).is_empty() {
        debian::install(&[name]).with_context(|| format!("{name} is needed and not there: install it"))?;
    }
    Ok(())
}

fn require_linux() -> anyhow::Result<()> {
    anyhow::ensure!(
        cfg!(target_os = "linux"),
        "the local stack runs on Linux only: elsewhere, run it in a Linux container or virtual machine, \
         or point NATS_URL and DATABASE_URL at servers of your own"
    );
    Ok(())
}
