//! Servers for tests: one call at the start of a test, nothing to clean up, nothing shared between tests.
//!
//! ```no_run
//! let nats = local_stack::testing::nats();
//! let database = local_stack::testing::database();
//! println!("{} {}", nats.url(), database.url());
//! ```
//!
//! These functions panic when they fail, as tests do.

use std::env;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::nats::{NatsOptions, NatsServer};
use crate::postgres::{PostgresOptions, PostgresServer, run_statement};
use crate::process::Lifetime;
use crate::stack::NATS_CLUSTER;
use crate::{Durability, entropy};

/// The superuser's URL of the Postgres server that `cargo xtask test` shares between all tests.
pub const POSTGRES_VARIABLE: &str = "TEST_POSTGRES_URL";

/// A private nats-server with JetStream, empty, without fsync. It dies with the value, and its data with it.
pub fn nats() -> NatsServer {
    nats_with(Durability::PageCache)
}

/// As [`nats`], but an acknowledged append is on disk: for measurements.
pub fn nats_with_fsync() -> NatsServer {
    nats_with(Durability::Disk)
}

/// As [`nats`], but three servers, for streams with three replicas.
pub fn nats_cluster() -> Vec<NatsServer> {
    let options = |_| nats_options(Durability::PageCache);
    NatsServer::start_cluster(&NATS_CLUSTER, options).unwrap_or_else(|error| panic!("no nats-servers for this test: {error:#}"))
}

fn nats_with(durability: Durability) -> NatsServer {
    NatsServer::start(nats_options(durability)).unwrap_or_else(|error| panic!("no nats-server for this test: {error:#}"))
}

fn nats_options(durability: Durability) -> NatsOptions {
    NatsOptions { directory: None, log: None, port: None, durability, lifetime: Lifetime::Tied, passwords: None }
}

/// A private Postgres server, empty, without fsync: for tests that kill it. Others use [`database`], which is faster.
pub fn postgres() -> PostgresServer {
    start_postgres().unwrap_or_else(|error| panic!("no Postgres for this test: {error:#}"))
}

fn start_postgres() -> anyhow::Result<PostgresServer> {
    let options =
        PostgresOptions { directory: None, log: None, port: None, durability: Durability::PageCache, lifetime: Lifetime::Tied };
    PostgresServer::start(options)
}

/// An empty database for one test, on the server of [`POSTGRES_VARIABLE`] or else on a private one that all tests of this process
/// share. Dropped with the value, whoever is still connected.
pub fn database() -> TestDatabase {
    TestDatabase::create().unwrap_or_else(|error| panic!("no database for this test: {error:#}"))
}

/// See [`database`].
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    admin_url: String,
    // The private server stops when the last database on it is dropped.
    private: Option<Arc<PostgresServer>>,
}

impl TestDatabase {
    fn create() -> anyhow::Result<Self> {
        let name = format!("test_{}", entropy::word()?);
        let shared = env::var(POSTGRES_VARIABLE).ok().filter(|url| !url.is_empty());
        let private = if shared.is_none() { Some(private_server()?) } else { None };
        let admin_url = shared.or_else(|| private.as_ref().map(|server| server.admin_url())).expect("one of the two is there");
        run_statement(&admin_url, &format!("CREATE DATABASE \"{name}\""))?;
        let url = with_database(&admin_url, &name);
        Ok(Self { name, url, admin_url, private })
    }

    /// The URL of this database, for a superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of this database.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let is_last_on_private_server = self.private.as_ref().is_some_and(|server| Arc::strong_count(server) == 1);
        if is_last_on_private_server {
            // The server and all its data go with it.
            return;
        }
        // A test that has passed does not fail because of this; the server goes away after the run in any case.
        if let Err(error) = run_statement(&self.admin_url, &format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name)) {
            eprintln!("the test database {} was not dropped: {error:#}", self.name);
        }
    }
}

fn private_server() -> anyhow::Result<Arc<PostgresServer>> {
    static PRIVATE: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
    let mut private = PRIVATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = private.upgrade() {
        return Ok(server);
    }
    let server = Arc::new(start_postgres()?);
    *private = Arc::downgrade(&server);
    Ok(server)
}

/// The same URL with another database: what follows the last `/`, up to a `?`.
fn with_database(url: &str, database: &str) -> String {
    let (location, parameters) = url.split_once('?').map_or((url, None), |(location, parameters)| (location, Some(parameters)));
    let authority_start = location.find("://").map_or(0, |start| start + 3);
    let authority_end = location[authority_start..].find('/').map_or(location.len(), |end| authority_start + end);
    let server = &location[..authority_end];
    match parameters {
        Some(parameters) => format!("{server}/{database}?{parameters}"),
        None => format!("{server}/{database}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        assert_eq!(with_database("postgres://u:p@127.0.0.1:5432/postgres", "a"), "postgres://u:p@127.0.0.1:5432/a");
        assert_eq!(with_database("postgres://127.0.0.1:5432", "a"), "postgres://127.0.0.1:5432/a");
        assert_eq!(with_database("postgres://h/postgres?sslmode=disable", "a"), "postgres://h/a?sslmode=disable");
    }
}
