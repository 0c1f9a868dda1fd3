//! `reactors run`: allocate stock, charge, notify.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use event_store::JetStreamEventStore;
use reactors::{
    Reactor as _, ReactorMetrics,
    allocator::{self, AllocatorOptions},
    notifications::{MailFolder, Notifications},
    payments::{Payments, stripe::StripeGateway},
    settings::{RunArgs, Settings},
};
use telemetry::{
    drain::{DRAIN_DEADLINE, DRAIN_DEADLINE_S, Drain},
    exit::Exit,
    health::Health,
    metrics::Metrics,
};
use tokio::{net::TcpListener, task::JoinSet};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The side effects of Contrail: allocate stock, charge, notify.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the reactors until SIGTERM
    Run(RunArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Run(args) = Cli::parse().command;
    telemetry::logs::init("reactors");
    telemetry::memory::use_small_pages();
    let settings = match args.check() {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage.into();
        }
    };
    match run(settings).await {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            tracing::error!("{error:#}");
            Exit::Failed.into()
        }
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let drain = Drain::on_signals();
    let health = Health::new("reactors");
    health.drain_with(&drain);
    let metrics = Metrics::new("reactors");
    let reactor_metrics = ReactorMetrics::register(&metrics);
    let listener = TcpListener::bind(settings.listen_addr).await.context("listen on LISTEN_ADDR")?;
    let store = JetStreamEventStore::connect(&settings.nats_url, "reactors").await?;
    let store = store.with_cache_bytes(settings.aggregate_cache_bytes);
    metrics.register(|registry| registry.register_collector(Box::new(store.metrics())));

    let mut tasks = JoinSet::new();
    let runs = |name: &str| settings.only.iter().any(|only| only == name);
    if runs(allocator::NAME) {
        let options = AllocatorOptions { payment_window: settings.payment_window };
        tasks.spawn(allocator::run(options, store.clone(), reactor_metrics.clone(), health.clone(), drain.clone()));
    }
    if runs(Payments::NAME) {
        let gateway = StripeGateway::new(settings.stripe_api_base.clone(), settings.stripe_api_key.clone())
            .context("set up the payment gateway's client")?;
        let payments = Payments::new(store.clone(), gateway, drain.clone());
        tasks.spawn(reactors::run(payments, store.clone(), reactor_metrics.clone(), health.clone(), drain.clone()));
    }
    if runs(Notifications::NAME) {
        let mail =
            MailFolder::new(settings.mail_dir.clone(), settings.mail_from.clone()).context("start the threads that write mail")?;
        let notifications = Notifications::new(store.clone(), mail);
        tasks.spawn(reactors::run(notifications, store.clone(), reactor_metrics.clone(), health.clone(), drain.clone()));
    }
    tasks.spawn(watch_log(store.clone(), health.clone(), drain.clone()));
    let operations = telemetry::http::operations(health, metrics);
    let finished = async {
        tokio::select! {
            served = telemetry::http::serve(listener, operations, drain.clone()) => served.context("serve health and metrics")?,
            // A reactor that is gone must not look alive: the process ends, and whoever runs it starts it again.
            stopped = first_failure(&mut tasks) => stopped?,
        }
        first_failure(&mut tasks).await
    };
    tokio::select! {
        finished = finished => finished?,
        () = overdue(&drain) => anyhow::bail!("events were still being worked on {DRAIN_DEADLINE_S} s after the drain began"),
    }
    // Acknowledgements are sent without waiting for an answer. Once this question has one, all of them have arrived; if it
    // gets none, events come again that need not.
    if let Err(reason) = store.check().await {
        tracing::debug!("the last acknowledgements may be lost: {reason}");
    }
    Ok(())
}

/// Completes when the drain has taken as long as it may. What is then still in flight is delivered again, later.
async fn overdue(drain: &Drain) {
    drain.started().await;
    tokio::time::sleep(DRAIN_DEADLINE).await;
}

/// Waits until all tasks have ended, or one in a way that it should not.
async fn first_failure(tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    while let Some(finished) = tasks.join_next().await {
        finished.context("a reactor stopped in a way that it should not")?;
    }
    Ok(())
}

/// Keeps `/ready` true to the state of the log.
async fn watch_log(store: JetStreamEventStore, health: Health, drain: Drain) {
    const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
    let component = health.component("nats");
    loop {
        match store.check().await {
            Ok(()) => component.ready(),
            Err(reason) => component.not_ready(reason),
        }
        tokio::select! {
            () = drain.started() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}
