//! PostgreSQL: the newest one on this machine, else from the distribution.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::{Version, debian, on_path, require_linux};

const VERSION_LOWEST: Version = Version { major: 15, minor: 0 };

/// The two programs of one PostgreSQL installation that a private server needs.
#[derive(Clone, Debug)]
pub struct PostgresBinaries {
    /// Creates a data directory.
    pub initdb: PathBuf,
    /// The server.
    pub postgres: PathBuf,
    /// Of both.
    pub version: Version,
}

/// PostgreSQL 15 or newer: from `PATH`, else from where distributions put it, else installed by apt-get.
pub fn postgres() -> anyhow::Result<PostgresBinaries> {
    require_linux()?;
    if let Some(found) = find() {
        return Ok(found);
    }
    install().with_context(|| {
        format!(
            "PostgreSQL {VERSION_LOWEST} or newer is needed and could not be installed. Install it (Debian, Ubuntu: \
             `apt-get install postgresql`; Fedora: `dnf install postgresql-server`), or set DATABASE_URL to a server of your own"
        )
    })?;
    match find() {
        Some(found) => Ok(found),
        None => bail!("this distribution's PostgreSQL is older than {VERSION_LOWEST}: install a newer one, or set DATABASE_URL"),
    }
}

fn find() -> Option<PostgresBinaries> {
    // On PATH there may be a lone link to the server; its initdb is where the link leads.
    let from_path =
        on_path("postgres").into_iter().filter_map(|program| fs::canonicalize(program).ok()?.parent().map(Path::to_owned));
    from_path.chain(distribution_folders()).find_map(|folder| in_folder(&folder))
}

fn in_folder(folder: &Path) -> Option<PostgresBinaries> {
    let (initdb, postgres) = (folder.join("initdb"), folder.join("postgres"));
    if !initdb.is_file() || !postgres.is_file() {
        return None;
    }
    let version = Version::of(&postgres).ok().filter(|version| *version >= VERSION_LOWEST)?;
    Some(PostgresBinaries { initdb, postgres, version })
}

/// Where Debian (`/usr/lib/postgresql/15/bin`) and the PostgreSQL project's RPMs (`/usr/pgsql-15/bin`) put their versions, newest
/// first.
fn distribution_folders() -> Vec<PathBuf> {
    let debian = subfolders(Path::new("/usr/lib/postgresql"), "");
    let rpm = subfolders(Path::new("/usr"), "pgsql-");
    let mut found: Vec<(u32, PathBuf)> = debian.into_iter().chain(rpm).collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder.join("bin")).collect()
}

/// The subfolders that are called `prefix` and a number.
fn subfolders(folder: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let numbered = |entry: fs::DirEntry| {
        let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((version, entry.path()))
    };
    entries.flatten().filter_map(numbered).collect()
}

fn install() -> anyhow::Result<()> {
    // Debian's package would create and start a cluster of its own on port 5432; its common part can be told not to.
    debian::install(&["postgresql-common"])?;
    debian::disable_default_cluster()?;
    debian::install(&["postgresql"])
}
