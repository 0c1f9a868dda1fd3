//! Reactors in this process.

use std::{path::Path, time::Duration};

use event_store::JetStreamEventStore;
use reactors::{
    Reactor, ReactorMetrics,
    allocator::{self, AllocatorOptions},
    notifications::{MailFolder, Notifications},
    payments::{Payments, stripe::StripeGateway},
};
use telemetry::{drain::Drain, health::Health};
use tokio::task::JoinHandle;

use crate::PATIENCE;

const OPTIONS: AllocatorOptions = AllocatorOptions { payment_window: Duration::from_secs(900) };

/// A reactor that runs until it is drained, killed, or the test ends.
pub(crate) struct Running {
    drain: Drain,
    task: JoinHandle<()>,
}

impl Running {
    /// Drains it and waits until it has ended.
    pub(crate) async fn drain(self) {
        self.drain.start();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it drains").unwrap();
    }

    /// Ends it between two lines.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub(crate) fn allocator(store: &JetStreamEventStore) -> Running {
    let drain = Drain::manual();
    let run = allocator::run(OPTIONS, store.clone(), ReactorMetrics::default(), Health::new("test"), drain.clone());
    Running { drain, task: tokio::spawn(run) }
}

pub(crate) fn payments(store: &JetStreamEventStore, gateway: StripeGateway) -> Running {
    let drain = Drain::manual();
    run_until(drain.clone(), store, Payments::new(store.clone(), gateway, drain))
}

pub(crate) fn notifications(store: &JetStreamEventStore, folder: &Path) -> Running {
    run(store, mailer(store, folder))
}

pub(crate) fn mailer(store: &JetStreamEventStore, folder: &Path) -> Notifications {
    let mail = MailFolder::new(folder.to_owned(), "orders@shop.example".parse().unwrap()).unwrap();
    Notifications::new(store.clone(), mail)
}

/// Any reactor.
pub(crate) fn run(store: &JetStreamEventStore, reactor: impl Reactor) -> Running {
    run_until(Drain::manual(), store, reactor)
}

fn run_until(drain: Drain, store: &JetStreamEventStore, reactor: impl Reactor) -> Running {
    let run = reactors::run(reactor, store.clone(), ReactorMetrics::default(), Health::new("test"), drain.clone());
    Running { drain, task: tokio::spawn(run) }
}
