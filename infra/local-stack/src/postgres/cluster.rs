//! The data directory of a private Postgres: where it is, who owns it, how it is created and configured.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use nix::unistd::Uid;

use crate::account::Account;
use crate::{checkout, entropy};

/// The superuser, and the owner of every database.
pub(super) const SUPERUSER: &str = "contrail";

#[derive(Debug)]
pub(super) struct Cluster {
    data: PathBuf,
    password: String,
    account: Option<Account>,
}

impl Cluster {
    /// Opens the data in `directory`, or creates it there; see [`PostgresOptions::directory`] for where it goes when we are root.
    ///
    /// [`PostgresOptions::directory`]: super::PostgresOptions::directory
    pub(super) fn open(directory: &Path, initdb: &Path) -> anyhow::Result<Self> {
        let account = Account::unprivileged()?;
        let home = home(directory, account)?;
        let data = home.join("data");
        let password_file = home.join("password");
        if !data.exists() {
            create(&home, &data, &password_file, account, initdb)?;
        }
        let password = fs::read_to_string(&password_file).with_context(|| format!("read {}", password_file.display()))?;
        Ok(Self { data, password, account })
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn account(&self) -> Option<Account> {
        self.account
    }

    /// Writes the settings that the next start of the server uses.
    pub(super) fn configure(&self, settings: &str) -> anyhow::Result<()> {
        let file = self.data.join("contrail.conf");
        fs::write(&file, settings).with_context(|| format!("write {}", file.display()))?;
        self.account.map_or(Ok(()), |account| account.own(&file))
    }

    /// Whether the server with this pid accepts connections, as `pg_ctl` finds out: `postmaster.pid` has the pid in its first line
    /// and the state in its eighth.
    pub(super) fn is_ready(&self, pid: u32) -> bool {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines();
        let is_ours = lines.next().is_some_and(|line| line.trim() == pid.to_string());
        is_ours && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }
}

/// Removes the data of a server with this directory, wherever it is. That there is none is no error.
pub(crate) fn remove(directory: &Path) -> anyhow::Result<()> {
    for folder in [directory.to_owned(), fallback(directory)] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The folder for the data, reachable by the account that the server will run under.
fn home(directory: &Path, account: Option<Account>) -> anyhow::Result<PathBuf> {
    let private = |folder: &Path| {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("make {} private", folder.display()))?;
        account.map_or(Ok(()), |account| account.own(folder))
    };
    private(directory)?;
    let is_reachable = |folder: &Path| account.is_none_or(|account| account.can_write(folder));
    if is_reachable(directory) {
        return Ok(directory.to_owned());
    }
    let fallback = fallback(directory);
    make_among_strangers(&fallback, account)?;
    private(&fallback)?;
    ensure!(
        is_reachable(&fallback),
        "the account that Postgres runs under can reach neither {} nor {}",
        directory.display(),
        fallback.display()
    );
    Ok(fallback)
}

/// Makes a folder where everybody may. What is there already must be one that only we can have made: whoever else made it could have us write
/// through their symbolic links.
fn make_among_strangers(folder: &Path, account: Option<Account>) -> anyhow::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.with_context(|| format!("create {}", folder.display())),
    }
    let found = fs::symlink_metadata(folder).with_context(|| format!("look at {}", folder.display()))?;
    let is_ours = found.uid() == Uid::effective().as_raw() || account.is_some_and(|account| account.is(found.uid()));
    ensure!(found.is_dir() && is_ours, "{} belongs to somebody else: remove it", folder.display());
    Ok(())
}

fn fallback(directory: &Path) -> PathBuf {
    // The name must not depend on how the folder was named: relative, or through a symbolic link.
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    Path::new("/var/tmp").join(format!("contrail-{}", checkout::fingerprint(&directory)))
}

fn create(home: &Path, data: &Path, password_file: &Path, account: Option<Account>, initdb: &Path) -> anyhow::Result<()> {
    fs::write(password_file, entropy::word()?).context("write the database password")?;
    fs::set_permissions(password_file, fs::Permissions::from_mode(0o600)).context("make the database password private")?;
    if let Some(account) = account {
        account.own(password_file)?;
    }
    // Renamed when it is complete, so that an interrupted start leaves nothing that looks like data.
    let unfinished = home.join("data-unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).context("remove an unfinished data directory")?;
    }
    let mut command = Command::new(initdb);
    command
        .arg("--pgdata")
        .arg(&unfinished)
        .arg("--pwfile")
        .arg(password_file)
        .args(["--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"])
        .args(["--no-instructions", "--no-sync"])
        .current_dir(home)
        .stdin(Stdio::null());
    if let Some(account) = account {
        account.apply(&mut command);
    }
    let output = command.output().context("run initdb")?;
    if !output.status.success() {
        bail!("initdb failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let settings = unfinished.join("postgresql.conf");
    let defaults = fs::read_to_string(&settings).context("read postgresql.conf")?;
    fs::write(&settings, format!("{defaults}\ninclude 'contrail.conf'\n")).context("write postgresql.conf")?;
    fs::rename(&unfinished, data).context("name the data directory")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_somebody_else_has_laid_out_is_not_used() {
        let everybodys = tempfile::tempdir().unwrap();
        let folder = everybodys.path().join("contrail-1");
        make_among_strangers(&folder, None).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        make_among_strangers(&folder, None).unwrap();
        let link = everybodys.path().join("contrail-2");
        symlink(&folder, &link).unwrap();
        let refused = make_among_strangers(&link, None).unwrap_err();
        assert!(refused.to_string().ends_with("belongs to somebody else: remove it"), "{refused}");
        fs::write(everybodys.path().join("contrail-3"), "").unwrap();
        make_among_strangers(&everybodys.path().join("contrail-3"), None).unwrap_err();
        // Only root can make one for somebody else.
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
            make_among_strangers(&folder, None).unwrap_err();
        }
    }
}
