//! `command-api`: logs, settings, store, router, serve, drain.

use anyhow::Context as _;
use auth::Door;
use clap::Parser as _;
use command_api::{
    api,
    limits::Limits,
    openapi, readiness,
    settings::{Arguments, Settings, Task},
};
use event_store::JetStreamEventStore;
use telemetry::{drain::Drain, exit::Exit, health::Health, http, logs, memory, metrics::Metrics, output, trace};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICE: &str = "command-api";

#[tokio::main]
async fn main() -> Exit {
    let arguments = Arguments::parse();
    if let Some(Task::Openapi) = arguments.task() {
        return output::print(openapi::json(), Exit::Done);
    }
    logs::init(SERVICE);
    memory::use_small_pages();
    let settings = match arguments.settings() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Usage;
        }
    };
    match serve(settings).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "{SERVICE} failed");
            Exit::Failed
        }
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let (health, metrics, drain) = (Health::new(SERVICE), Metrics::new(SERVICE), Drain::on_signals());
    health.drain_with(&drain);
    let flush = trace::start(SERVICE, settings.traces, &metrics);

    let listener = TcpListener::bind(settings.listen_addr).await;
    let listener = listener.with_context(|| format!("listen on {}", settings.listen_addr))?;
    let store = JetStreamEventStore::connect(&settings.nats, SERVICE).await?;
    let store = store.with_cache_bytes(settings.aggregate_cache_bytes);
    let watch = tokio::spawn(readiness::watch(store.clone(), health.component("nats"), drain.clone()));

    let door = Door::new(settings.auth, &health).map_err(anyhow::Error::msg).context("set up the check of callers")?;
    door.tell_refusals(&metrics);
    let router = api::router(store, door, health, metrics, drain.clone(), &Limits::default());
    http::serve_and_linger(listener, router, drain, settings.drain_linger).await.context("serve HTTP")?;
    let watched = watch.await.context("watch the log");
    flush.finish().await;
    watched
}
