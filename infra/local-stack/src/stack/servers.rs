//! The two servers of a stack, started at the same time.

use std::collections::BTreeMap;
use std::thread;

use anyhow::bail;

use super::passwords::Passwords;
use super::ports::Ports;
use super::services::{NATS, NATS_CLUSTER, POSTGRES};
use super::{StackOptions, folder};
use crate::nats::{NatsOptions, NatsServer, USERS};
use crate::postgres::{PostgresOptions, PostgresServer};

/// Starts those for which no URL was given. In a failure nothing is left running.
pub(super) fn start(
    options: &StackOptions,
    ports: &Ports,
    passwords: &Passwords,
) -> anyhow::Result<(Vec<NatsServer>, Option<PostgresServer>)> {
    let of_users = USERS.map(|user| Ok::<_, anyhow::Error>((user, passwords.of(user)?.to_owned())));
    let of_users = of_users.into_iter().collect::<Result<BTreeMap<_, _>, _>>()?;
    let start_nats = || {
        let nats_options = |name| NatsOptions {
            directory: Some(options.directory.join(name)),
            log: Some(folder::log_file(&options.directory, name)),
            port: (name == NATS).then_some(ports.nats),
            durability: options.durability,
            lifetime: options.lifetime,
            passwords: Some(of_users.clone()),
        };
        if options.replicates {
            NatsServer::start_cluster(&NATS_CLUSTER, nats_options)
        } else {
            NatsServer::start(nats_options(NATS)).map(|server| vec![server])
        }
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
            (Ok(nats), Ok(postgres)) => Ok((nats.unwrap_or_default(), postgres)),
            (Ok(nats), Err(error)) => {
                nats.unwrap_or_default().iter_mut().for_each(NatsServer::kill);
                Err(error)
            }
            (Err(error), Ok(mut postgres)) => {
                postgres.as_mut().map(PostgresServer::end);
                Err(error)
            }
            (Err(nats_error), Err(postgres_error)) => bail!("{nats_error:#}\n{postgres_error:#}"),
        }
    })
}
