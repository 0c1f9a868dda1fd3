//! The two servers of a stack, started at the same time.

use std::thread;

use anyhow::bail;

use super::ports::Ports;
use super::services::{NATS, POSTGRES};
use super::{StackOptions, folder};
use crate::nats::{NatsOptions, NatsServer};
use crate::postgres::{PostgresOptions, PostgresServer};

/// Starts those for which no URL was given. In a failure nothing is left running.
pub(super) fn start(options: &StackOptions, ports: &Ports) -> anyhow::Result<(Option<NatsServer>, Option<PostgresServer>)> {
    let start_nats = || {
        NatsServer::start(NatsOptions {
            directory: Some(options.directory.join("nats")),
            log: Some(folder::log_file(&options.directory, NATS)),
            port: Some(ports.nats),
            durability: options.durability,
            lifetime: options.lifetime,
        })
    };
    let start_postgres = || {
        PostgresServer::start(PostgresOptions {
            directory: Some(options.directory.join("postgres")),
            log: Some(folder::log_file(&options.directory, POSTGRES)),
            port: Some(ports.postgres),
            durability: options.durability,
            lifetime: options.lifetime,
        })
    };
    thread::scope(|scope| {
        let nats = options.nats_url.is_none().then(|| scope.spawn(start_nats));
        let postgres = options.database_url.is_none().then(start_postgres);
        let nats = nats.map(|nats| nats.join().expect("starting a server does not panic"));
        // Of two servers, one of which has failed to start, the other must not stay when it is detached.
        match (nats.transpose(), postgres.transpose()) {
            (Ok(nats), Ok(postgres)) => Ok((nats, postgres)),
            (Ok(mut nats), Err(error)) => {
                nats.as_mut().map(NatsServer::kill);
                Err(error)
            }
            (Err(error), Ok(mut postgres)) => {
                postgres.as_mut().map(PostgresServer::kill);
                Err(error)
            }
            (Err(nats_error), Err(postgres_error)) => bail!("{nats_error:#}\n{postgres_error:#}"),
        }
    })
}
