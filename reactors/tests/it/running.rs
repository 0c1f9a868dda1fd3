//! Reactors in this process.

use std::{path::Path, sync::Arc, time::Duration};

use event_store::JetStreamEventStore;
use reactors::{
    Reactor, ReactorMetrics, RetryBudget, Surroundings,
    allocator::{self, AllocatorOptions},
    deadlines::{self, Deadlines},
    notifications::{MailFolder, Mailer, Notifications, Postbox},
    payments::{ChargeChecks, Payments, stripe::StripeGateway},
};
use telemetry::{drain::Drain, health::Health, metrics::Metrics};
use tokio::task::JoinHandle;

use crate::PATIENCE;

/// How long customers have to pay, unless a test says otherwise.
const WINDOW: Duration = Duration::from_secs(900);

/// What an operator sees of a reactor that runs.
pub(crate) struct Dashboard {
    metrics: Metrics,
    pub(crate) surroundings: Surroundings,
}

impl Dashboard {
    pub(crate) fn of(store: &JetStreamEventStore) -> Self {
        let metrics = Metrics::new("test");
        let surroundings = Surroundings { metrics: ReactorMetrics::register(&metrics), ..surroundings(store) };
        Self { metrics, surroundings }
    }

    /// How often the breaker of `system` has entered `phase`.
    pub(crate) fn breaker_changes(&self, system: &str, phase: &str) -> u64 {
        let series = format!("contrail_breaker_changes_total{{system=\"{system}\",phase=\"{phase}\"}} ");
        self.value(&series).unwrap_or_else(|| panic!("{series} is not among the metrics"))
    }

    pub(crate) fn value(&self, series: &str) -> Option<u64> {
        let text = self.metrics.plain_text();
        text.lines().find_map(|line| line.strip_prefix(series)).map(|value| value.parse().unwrap())
    }
}

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

/// What a reactor of a test runs on, and it alone.
pub(crate) fn surroundings(store: &JetStreamEventStore) -> Surroundings {
    Surroundings {
        store: store.clone(),
        metrics: ReactorMetrics::default(),
        health: Health::new("test"),
        drain: Drain::manual(),
        budget: RetryBudget::default(),
    }
}

pub(crate) fn allocator(store: &JetStreamEventStore) -> Running {
    allocator_with_window(store, WINDOW)
}

/// One that gives customers this long to pay.
pub(crate) fn allocator_with_window(store: &JetStreamEventStore, payment_window: Duration) -> Running {
    let surroundings = surroundings(store);
    let drain = surroundings.drain.clone();
    Running { drain, task: tokio::spawn(allocator::run(AllocatorOptions { payment_window }, surroundings)) }
}

/// Both of its parts.
pub(crate) fn deadlines(store: &JetStreamEventStore) -> Running {
    let surroundings = surroundings(store);
    let (drain, deadlines) = (surroundings.drain.clone(), Deadlines::new(&surroundings));
    let both = async move {
        tokio::join!(deadlines::watch(surroundings.clone()), reactors::run(deadlines, surroundings.clone()));
    };
    Running { drain, task: tokio::spawn(Box::pin(both)) }
}

pub(crate) fn payments(store: &JetStreamEventStore, gateway: StripeGateway) -> Running {
    payments_on(surroundings(store), gateway)
}

pub(crate) fn payments_on(surroundings: Surroundings, gateway: StripeGateway) -> Running {
    run_on(Payments::new(gateway, &surroundings), surroundings)
}

/// Both parts, looking for the charges of called off orders at these times.
pub(crate) fn payments_with_checks(store: &JetStreamEventStore, gateway: StripeGateway, checks: Vec<Duration>) -> Running {
    let surroundings = surroundings(store);
    let drain = surroundings.drain.clone();
    let payments = Arc::new(Payments::new(gateway, &surroundings).with_checks(checks));
    let both = async move {
        let checks = ChargeChecks(Arc::clone(&payments));
        tokio::join!(reactors::run(payments, surroundings.clone()), reactors::run(checks, surroundings.clone()));
    };
    Running { drain, task: tokio::spawn(Box::pin(both)) }
}

pub(crate) fn notifications(store: &JetStreamEventStore, folder: &Path) -> Running {
    let surroundings = surroundings(store);
    run_on(mailer(&surroundings, folder), surroundings)
}

pub(crate) fn mailer(surroundings: &Surroundings, folder: &Path) -> Notifications {
    let postbox = Postbox::Folder(MailFolder::new(folder.to_owned()).unwrap());
    Notifications::new(Mailer::new("orders@shop.example".parse().unwrap(), postbox), surroundings)
}

/// Any reactor.
pub(crate) fn run(store: &JetStreamEventStore, reactor: impl Reactor) -> Running {
    run_on(reactor, surroundings(store))
}

pub(crate) fn run_on(reactor: impl Reactor, surroundings: Surroundings) -> Running {
    let drain = surroundings.drain.clone();
    Running { drain, task: tokio::spawn(reactors::run(reactor, surroundings)) }
}
