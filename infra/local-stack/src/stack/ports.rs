//! Where the processes of a stack listen; the same after a restart, as far as possible.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::port;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) command_api: u16,
    pub(super) query_api: u16,
    pub(super) projectors: u16,
    pub(super) reactors: u16,
    pub(super) payment_simulator: u16,
    pub(super) nats: u16,
    pub(super) postgres: u16,
}

impl Ports {
    /// The ports of the earlier stack in this folder, as far as they are free now, else others.
    pub(super) fn choose(directory: &Path) -> anyhow::Result<Self> {
        let earlier = fs::read(file(directory)).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let mut ports = match earlier {
            Some(earlier) => earlier,
            None => Self { command_api: 0, query_api: 0, projectors: 0, reactors: 0, payment_simulator: 0, nats: 0, postgres: 0 },
        };
        let mut chosen = Vec::new();
        for port in ports.all() {
            // Port 0 is always free, and means none.
            while *port == 0 || chosen.contains(port) || !port::is_free(*port) {
                *port = port::free()?;
            }
            chosen.push(*port);
        }
        Ok(ports)
    }

    pub(super) fn save(&self, directory: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_vec_pretty(self).context("encode ports.json")?;
        fs::write(file(directory), json).context("write ports.json")
    }

    /// The port of a service.
    pub(super) fn of(&self, service: &str) -> anyhow::Result<u16> {
        Ok(match service {
            "command-api" => self.command_api,
            "query-api" => self.query_api,
            "projectors" => self.projectors,
            "reactors" => self.reactors,
            "payment-simulator" => self.payment_simulator,
            _ => bail!("there is no service called {service}"),
        })
    }

    fn all(&mut self) -> [&mut u16; 7] {
        [
            &mut self.command_api,
            &mut self.query_api,
            &mut self.projectors,
            &mut self.reactors,
            &mut self.payment_simulator,
            &mut self.nats,
            &mut self.postgres,
        ]
    }
}

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("ports.json")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ports_are_kept_unless_somebody_has_taken_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Ports::choose(folder.path()).unwrap();
        first.save(folder.path()).unwrap();
        let taken = TcpListener::bind(("127.0.0.1", first.nats)).unwrap();

        let mut second = Ports::choose(folder.path()).unwrap();
        assert_ne!(second.nats, first.nats);
        second.nats = first.nats;
        assert_eq!(second.all(), first.all());
        drop(taken);
    }
}
