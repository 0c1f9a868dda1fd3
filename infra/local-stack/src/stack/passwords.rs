//! The passwords of a stack's own servers: made once for a folder, so that an address that somebody noted stays good.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;

use super::info;
use crate::entropy;

pub(super) const FILE: &str = "passwords.json";

/// Of users of nats-server and roles of Postgres, by `server/user`.
#[derive(Clone, Debug, Default)]
pub(super) struct Passwords(BTreeMap<String, String>);

impl Passwords {
    /// Those of the stack in this folder, with new ones for whoever of `users` has none yet.
    pub(super) fn open(directory: &Path, users: &[&str]) -> anyhow::Result<Self> {
        let mut passwords: BTreeMap<String, String> = match fs::read(directory.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).context("decode passwords.json")?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).context("read passwords.json"),
        };
        for user in users {
            if !passwords.contains_key(*user) {
                passwords.insert((*user).to_owned(), entropy::word()?);
            }
        }
        info::replace(&directory.join(FILE), &passwords)?;
        Ok(Self(passwords))
    }

    pub(super) fn of(&self, user: &str) -> anyhow::Result<&str> {
        self.0.get(user).map(String::as_str).with_context(|| format!("there is no password of {user}"))
    }
}
