//! `reactors`: see `reactors --help`.

mod cli;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use event_store::{JetStreamEventStore, KeptLetter, NatsAccess, WorkSource};
use reactors::{
    Reactor as _, ReactorMetrics, Surroundings,
    allocator::{self, AllocatorOptions},
    dead_letters::{self, LettersError, Outcome, Selection, Verdict},
    deadlines::{self, Deadlines},
    notifications::{MailFolder, Mailer, Notifications, Postbox, SmtpServer, Webhooks},
    payments::{ChargeChecks, Payments, stripe::StripeGateway},
    reconcile::{self, ReconcileError},
    settings::{PostboxSettings, REACTORS, Settings},
};
use telemetry::{
    drain::{DRAIN_DEADLINE, DRAIN_DEADLINE_S, Drain},
    exit::Exit,
    health::Health,
    metrics::Metrics,
    output::{self, Output},
    settings::SettingsError,
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::cli::{
    ChoiceArgs, Cli, Command, CommonArgs, DiscardArgs, LettersCommand, ListArgs, ReconcileArgs, RedriveArgs, ShowArgs,
};

/// How long a command that ends waits for NATS.
const NATS_WAIT: Duration = Duration::from_secs(10);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command;
    telemetry::logs::init("reactors");
    telemetry::memory::use_small_pages();
    let outcome = match command {
        Command::Run(args) => match args.check() {
            Ok(settings) => run(settings).await.map(|()| Exit::Done),
            Err(mistakes) => Err(mistakes.into()),
        },
        Command::Reconcile(args) => reconcile(args).await,
        Command::DeadLetters { command } => dead_letters(*command).await,
    };
    let exit = outcome.unwrap_or_else(|error| {
        let exit = exit_of(&error);
        match exit {
            Exit::Failed => tracing::error!("{error:#}"),
            Exit::Usage => eprintln!("{error}"),
            _ => eprintln!("error: {error:#}"),
        }
        exit
    });
    exit.into()
}

/// Scripts branch on how a command failed.
fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref() {
        Some(LettersError::Away(_)) => Exit::TryAgain,
        Some(LettersError::NotFound(_)) => Exit::NotFound,
        None if error.is::<SettingsError>() => Exit::Usage,
        None => match error.downcast_ref() {
            Some(ReconcileError::Log(_) | ReconcileError::LogStalled) => Exit::TryAgain,
            Some(ReconcileError::Gateway(error)) if error.is_of_the_gateway() => Exit::TryAgain,
            _ => Exit::Failed,
        },
    }
}

async fn reconcile(args: ReconcileArgs) -> anyhow::Result<Exit> {
    let (output, fixes, settings) = (args.common.output, args.fix, args.check()?);
    let store = connect(&settings.nats).await?;
    let gateway = StripeGateway::new(settings.stripe_api_base, settings.stripe_api_key).context("set up the gateway's client")?;
    let mut report = reconcile::reconcile(&store, &gateway, settings.scope).await?;
    if fixes {
        reconcile::fix(&store, &gateway, &mut report).await?;
    }
    let found = if report.agrees() { Exit::Done } else { Exit::Integrity };
    Ok(print(output, || serde_json::to_value(&report).expect("a report has string keys"), || report.to_string(), found))
}

async fn dead_letters(command: LettersCommand) -> anyhow::Result<Exit> {
    match command {
        LettersCommand::List(ListArgs { which, common }) => {
            let (output, store) = (common.output, connect(&common.check()?).await?);
            let letters = dead_letters::select(&store, &which.selection()).await?;
            Ok(print(output, || dead_letters::letters_as_json(&letters), || dead_letters::letters(&letters), Exit::Done))
        }
        LettersCommand::Show(ShowArgs { name, common }) => {
            let (output, store) = (common.output, connect(&common.check()?).await?);
            let named = Selection { names: vec![name], ..Selection::default() };
            let letters = dead_letters::select(&store, &named).await?;
            let [letter] = letters.as_slice() else {
                let ids: Vec<_> = letters.iter().map(|kept| kept.letter.id()).collect();
                let mistakes = vec![format!("ID: there is more than one: {}", ids.join(", "))];
                return Err(SettingsError { mistakes }.into());
            };
            let stored = dead_letters::event_of(&store, letter).await?;
            let (json, text) = dead_letters::one_letter(letter, &stored);
            Ok(print(output, || json, || text, Exit::Done))
        }
        LettersCommand::Redrive(RedriveArgs { which, dry_run, common }) => {
            on_selected(which, dry_run, common, async |store, letters| dead_letters::redrive(store, letters).await).await
        }
        LettersCommand::Discard(DiscardArgs { which, reason, dry_run, common }) => {
            let discard = async |store: &_, letters: &_| dead_letters::discard(store, letters, &reason).await;
            on_selected(which, dry_run, common, discard).await
        }
    }
}

/// Does `action` with the letters that are meant, or says which ones those are.
async fn on_selected(
    which: ChoiceArgs,
    dry_run: bool,
    common: CommonArgs,
    action: impl AsyncFnOnce(&JetStreamEventStore, &[KeptLetter]) -> Vec<Outcome>,
) -> anyhow::Result<Exit> {
    let (output, selection) = (common.output, which.check()?);
    let store = connect(&common.check()?).await?;
    let letters = dead_letters::select(&store, &selection).await?;
    let outcomes = if dry_run { letters.iter().map(Outcome::dry_run).collect() } else { action(&store, &letters).await };
    Ok(print_outcomes(output, &outcomes))
}

fn print_outcomes(output: Output, outcomes: &[Outcome]) -> Exit {
    let (json, text) = dead_letters::outcomes(outcomes);
    let is_any = |verdict| outcomes.iter().any(|outcome| outcome.outcome == verdict);
    let exit = match () {
        () if is_any(Verdict::Dead) => Exit::Failed,
        () if is_any(Verdict::NotNow) => Exit::TryAgain,
        () => Exit::Done,
    };
    print(output, || json, || text, exit)
}

fn print(output: Output, json: impl FnOnce() -> serde_json::Value, text: impl FnOnce() -> String, exit: Exit) -> Exit {
    match output {
        Output::Json => output::print(json(), exit),
        Output::Table => output::print(text(), exit),
    }
}

/// Connects to the log; fails if it is not there within some seconds.
async fn connect(nats: &NatsAccess) -> anyhow::Result<JetStreamEventStore> {
    let store = JetStreamEventStore::connect(nats, "reactors").await?;
    let mut reason = String::new();
    let ready = store.wait_until_ready(|waits_for| waits_for.clone_into(&mut reason));
    if tokio::time::timeout(NATS_WAIT, ready).await.is_err() {
        return Err(LettersError::Away(reason).into());
    }
    Ok(store)
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let drain = Drain::on_signals();
    let health = Health::new("reactors");
    health.drain_with(&drain);
    let metrics = Metrics::new("reactors");
    let flush = telemetry::trace::start("reactors", settings.traces.clone(), &metrics);
    let reactor_metrics = ReactorMetrics::register(&metrics);
    let listener = TcpListener::bind(settings.listen_addr).await.context("listen on LISTEN_ADDR")?;
    let store = JetStreamEventStore::connect(&settings.nats, "reactors").await?;
    let store = store.with_cache_bytes(settings.aggregate_cache_bytes);
    metrics.register(|registry| registry.register_collector(Box::new(store.metrics())));

    let surroundings = Surroundings {
        store: store.clone(),
        metrics: reactor_metrics,
        health: health.clone(),
        drain: drain.clone(),
        budget: settings.retry_budget,
    };
    let mut tasks = JoinSet::new();
    let mut queues: Vec<(&'static str, WorkSource)> = Vec::new();
    let runs = |name: &str| settings.only.iter().any(|only| only == name);
    if runs(allocator::NAME) {
        queues.push((allocator::NAME, allocator::SOURCE));
        let options = AllocatorOptions { payment_window: settings.payment_window };
        tasks.spawn(allocator::run(options, surroundings.clone()));
    }
    if runs(Payments::NAME) {
        queues.extend([(Payments::NAME, Payments::SOURCE), (ChargeChecks::NAME, ChargeChecks::SOURCE)]);
        let gateway = StripeGateway::new(settings.stripe_api_base.clone(), settings.stripe_api_key.clone())
            .context("set up the payment gateway's client")?;
        let payments = Arc::new(Payments::new(gateway, &surroundings).with_checks(settings.charge_checks.clone()));
        tasks.spawn(reactors::run(ChargeChecks(Arc::clone(&payments)), surroundings.clone()));
        tasks.spawn(reactors::run(payments, surroundings.clone()));
    }
    if runs(Notifications::NAME) {
        queues.push((Notifications::NAME, Notifications::SOURCE));
        let mailer = mailer(&settings)?;
        tasks.spawn(reactors::run(Notifications::new(mailer, &surroundings), surroundings.clone()));
    }
    if let Some((url, secrets)) = settings.webhooks.filter(|_| runs(Webhooks::NAME)) {
        queues.push((Webhooks::NAME, Webhooks::SOURCE));
        let webhooks = Webhooks::new(url, secrets, &surroundings).context("set up the client of webhooks")?;
        tasks.spawn(reactors::run(webhooks, surroundings.clone()));
    }
    if runs(Deadlines::NAME) {
        queues.extend([(Deadlines::NAME, deadlines::WATCHED), (Deadlines::NAME, Deadlines::SOURCE)]);
        tasks.spawn(deadlines::watch(surroundings.clone()));
        tasks.spawn(reactors::run(Deadlines::new(&surroundings), surroundings.clone()));
    }
    tasks.spawn(watch_log(store.clone(), health.clone(), drain.clone()));
    tasks.spawn(count_dead_letters(store.clone(), surroundings.metrics.clone(), drain.clone()));
    tasks.spawn(measure_backlogs(queues, store.clone(), surroundings.metrics.clone(), drain.clone()));
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
    flush.finish().await;
    Ok(())
}

fn mailer(settings: &Settings) -> anyhow::Result<Mailer> {
    let postbox = match &settings.postbox {
        PostboxSettings::Folder(folder) => {
            Postbox::Folder(MailFolder::new(folder.clone()).context("start the threads that write mail")?)
        }
        PostboxSettings::Server(url, certificates) => {
            let hello = settings.mail_from.email.domain();
            Postbox::Server(SmtpServer::new(url, certificates.as_deref(), hello).context("SMTP_URL")?)
        }
    };
    Ok(Mailer::new(settings.mail_from.clone(), postbox))
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
    const LOOK_INTERVAL: Duration = Duration::from_secs(1);
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

/// Keeps the metric of the dead letters true.
async fn count_dead_letters(store: JetStreamEventStore, metrics: ReactorMetrics, drain: Drain) {
    const LOOK_INTERVAL: Duration = Duration::from_secs(5);
    loop {
        match store.count_dead_letters().await {
            Ok(counts) => {
                for reactor in REACTORS {
                    metrics.dead_letters_are(reactor, counts.get(*reactor).copied().unwrap_or_default());
                }
            }
            Err(error) => tracing::debug!("count the dead letters: {error}"),
        }
        tokio::select! {
            () = drain.started() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Keeps the metrics of how far the reactors that run here are behind true.
async fn measure_backlogs(
    queues: Vec<(&'static str, WorkSource)>,
    store: JetStreamEventStore,
    metrics: ReactorMetrics,
    drain: Drain,
) {
    const LOOK_INTERVAL: Duration = Duration::from_secs(5);
    for &(reactor, _) in &queues {
        metrics.begins(reactor);
    }
    loop {
        for &(reactor, source) in &queues {
            match store.backlog(reactor, source).await {
                // A queue that nobody has opened yet is opened within a moment, and is measured then.
                Ok(backlog) => backlog.iter().for_each(|backlog| metrics.backlog_is(reactor, source, backlog)),
                Err(error) => tracing::debug!(reactor, "measure a backlog: {error}"),
            }
        }
        tokio::select! {
            () = drain.started() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}
