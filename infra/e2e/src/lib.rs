//! The whole system on real processes, from the outside: a shop that puts load on it, and an auditor that believes nobody.
//!
//! * [`workload`]: what is bought, the same for the same seed.
//! * [`history`]: a long log without the services' help, for what reads logs.
//! * [`shop`]: a checkout and a customer, over HTTP and GraphQL, with the retries that a shop makes.
//! * [`load`]: many orders at once, each watched until its final status is seen.
//! * [`onlooker`]: queries all the time, none of which may fail or show less than one before.
//! * [`audience`]: subscribers, none of which may miss anything.
//! * [`replay_under_load`]: rebuilding the read models while both of these go on.
//! * [`outage`]: orders that keep coming while the payment gateway is down.
//! * [`balancer`]: what stands before several instances of a service.
//! * [`rolling_restart`]: every instance is restarted while orders and queries come in.
//! * [`scrape`]: what a service says of itself on `/metrics`.
//! * [`settle`]: waiting until nothing moves any more.
//! * [`invariants`]: DESIGN §13, checked on the log, the gateway's ledger, the read models, the mail and the audit trail.
//! * [`chaos`]: everything goes wrong, the same for the same seed: `cargo xtask chaos`.
//! * [`demo`]: all of that with a table at the end: `cargo xtask demo`.
//!
//! Nothing here looks into a service: what it knows it has from the public interfaces, the log and the tables. The tests in
//! `tests/it` start a stack each, and need the service binaries: `cargo xtask test -- -p e2e` builds them first.

pub mod workload;

pub mod history;

pub mod shop;

pub mod load;

pub mod onlooker;

pub mod audience;

pub mod replay_under_load;

pub mod outage;

pub mod balancer;

pub mod rolling_restart;

pub mod scrape;

pub mod settle;

pub mod invariants;

pub mod chaos;

pub mod demo;

pub mod eventually;
mod http_client;
pub mod latency;
mod log_server;
pub mod random;
