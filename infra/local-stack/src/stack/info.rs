//! `stack.json`: where everything is, for users and for other programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::ports::Ports;
use crate::nats::production::NatsFiles;

/// The content of `stack.json`. URLs have no trailing slash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackInfo {
    /// `http://127.0.0.1:PORT` of the command API.
    pub command_api: String,
    /// `http://127.0.0.1:PORT` of the query API; GraphiQL is at `/`.
    pub query_api: String,
    /// `http://127.0.0.1:PORT` of the projectors' `/health`, `/ready`, `/metrics`.
    pub projectors: String,
    /// `http://127.0.0.1:PORT` of the reactors' `/health`, `/ready`, `/metrics`.
    pub reactors: String,
    /// `http://127.0.0.1:PORT` of the payment simulator; `/_control` steers it.
    pub payment_simulator: String,
    /// `nats://user:password@127.0.0.1:PORT`, for somebody who may do everything; several of them, separated by commas, where the log is
    /// replicated.
    pub nats: String,
    /// What that needs besides, where the servers ask for keys; for programs in this process.
    #[serde(skip)]
    pub nats_files: Option<NatsFiles>,
    /// `postgres://…`, with the password, for somebody who may do everything.
    pub database: String,
    /// The process id of each running process, by name.
    pub pids: BTreeMap<String, u32>,
    /// A bearer token per role: `customer` (of the customer c-42), `service`, `operator`, `auditor`.
    pub tokens: BTreeMap<String, String>,
    /// The key that audit checkpoints are verified with, as a C2SP verifier key.
    pub audit_vkey: String,
}

impl StackInfo {
    pub(super) fn new(ports: &Ports, nats: String, database: String) -> Self {
        let url = |port| format!("http://127.0.0.1:{port}");
        Self {
            command_api: url(ports.command_api),
            query_api: url(ports.query_api),
            projectors: url(ports.projectors),
            reactors: url(ports.reactors),
            payment_simulator: url(ports.payment_simulator),
            nats,
            nats_files: None,
            database,
            pids: BTreeMap::new(),
            tokens: BTreeMap::new(),
            audit_vkey: String::new(),
        }
    }
}

/// What the stack in this folder says about itself; `None` if there is none.
pub fn read_info(directory: &Path) -> anyhow::Result<Option<StackInfo>> {
    match fs::read(directory.join("stack.json")) {
        Ok(bytes) => serde_json::from_slice(&bytes).context("decode stack.json").map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read stack.json"),
    }
}

pub(super) fn write(directory: &Path, info: &StackInfo) -> anyhow::Result<()> {
    replace(&directory.join("stack.json"), info)
}

/// Replaces a JSON file as a whole: a reader sees the old content or the new one. Only its owner can read it.
pub(super) fn replace(path: &Path, content: &impl Serialize) -> anyhow::Result<()> {
    let mut json = serde_json::to_vec_pretty(content).with_context(|| format!("encode {}", path.display()))?;
    json.push(b'\n');
    let unfinished = path.with_extension("json.new");
    let written = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&unfinished);
    written
        .and_then(|mut file| file.write_all(&json))
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("write {}", path.display()))
}
