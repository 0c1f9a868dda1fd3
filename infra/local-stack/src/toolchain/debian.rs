//! Installing a package on Debian and Ubuntu, when that is possible without asking anybody.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use nix::unistd::Uid;

/// Another test, or the system's own updates, may be installing something too.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=300";

/// Installs `packages` by apt-get, as root or by a `sudo` that needs no password.
///
/// Fails, saying why, on other distributions and for users who may not install.
pub(super) fn install(packages: &[&str]) -> anyhow::Result<()> {
    ensure!(Path::new("/usr/bin/apt-get").exists(), "this is not Debian or Ubuntu");
    let is_root = Uid::effective().is_root();
    ensure!(is_root || sudo_needs_no_password(), "installing it needs root, or sudo without a password");

    eprintln!("installing {} by apt-get", packages.join(" "));
    let install = ["install", "--yes", "--no-install-recommends"];
    if apt_get(is_root, install.iter().chain(packages)).is_err() {
        // A fresh machine has no package lists, or outdated ones.
        apt_get(is_root, ["update"].iter())?;
        apt_get(is_root, install.iter().chain(packages))?;
    }
    Ok(())
}

/// Tells Debian's PostgreSQL packages not to create and start a server when they are installed.
pub(super) fn disable_default_cluster() -> anyhow::Result<()> {
    let is_root = Uid::effective().is_root();
    let setting = "create_main_cluster = false";
    let script = format!(
        "mkdir -p /etc/postgresql-common/createcluster.d && \
         echo '{setting}' > /etc/postgresql-common/createcluster.d/contrail.conf"
    );
    let mut command = if is_root { Command::new("sh") } else { Command::new("sudo") };
    if !is_root {
        command.args(["-n", "sh"]);
    }
    let status = command.args(["-c", &script]).stdin(Stdio::null()).status().context("run sh")?;
    ensure!(status.success(), "writing the settings of postgresql-common failed ({status})");
    Ok(())
}

fn apt_get<'a>(is_root: bool, arguments: impl Iterator<Item = &'a &'a str>) -> anyhow::Result<()> {
    // As root, `env` stands where `sudo -n` stands for others.
    let mut command = if is_root { Command::new("env") } else { Command::new("sudo") };
    if !is_root {
        command.args(["-n", "env"]);
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", LOCK_TIMEOUT]).args(arguments);
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().context("run apt-get")?;
    ensure!(status.success(), "apt-get failed ({status})");
    Ok(())
}

fn sudo_needs_no_password() -> bool {
    let mut command = Command::new("sudo");
    command.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
