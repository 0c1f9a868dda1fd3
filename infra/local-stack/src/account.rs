//! The unprivileged account that Postgres runs under when we are root, because it refuses to run as root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::unistd::{Uid, User};

/// A user id and its primary group id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None` when this process is unprivileged already, otherwise `postgres` if there is such a user, else `nobody`.
    pub(crate) fn unprivileged() -> anyhow::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name).with_context(|| format!("look up the user {name}"))? {
                return Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        anyhow::bail!("Postgres does not run as root, and there is neither a user postgres nor a user nobody to run it as");
    }

    /// Makes `command` run under this account, without supplementary groups.
    pub(crate) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a file or folder to this account.
    pub(crate) fn own(self, path: &Path) -> anyhow::Result<()> {
        chown(path, Some(self.uid), Some(self.gid)).with_context(|| format!("change the owner of {}", path.display()))
    }

    /// Whether it is this account's user that has this id.
    pub(crate) fn is(self, uid: u32) -> bool {
        self.uid == uid
    }

    /// Whether this account can create files in `folder`, which depends on every folder above it.
    pub(crate) fn can_write(self, folder: &Path) -> bool {
        let mut command = Command::new("test");
        command.arg("-w").arg(folder).arg("-a").arg("-x").arg(folder);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut command);
        command.status().is_ok_and(|status| status.success())
    }
}
