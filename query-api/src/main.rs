//! The query API as a process.

use anyhow::Context as _;
use auth::Door;
use clap::Parser as _;
use query_api::database::Database;
use query_api::http::Capacity;
use query_api::limits::{REQUEST_DEADLINE, REQUESTS_IN_FLIGHT_MAX};
use query_api::live::{self, Live};
use query_api::metrics::QueryMetrics;
use query_api::positions::{self, Positions};
use query_api::schema::{self, Sources};
use query_api::settings::{Command, CommandLine, Settings};
use query_api::{SERVICE, http};
use telemetry::drain::Drain;
use telemetry::exit::Exit;
use telemetry::health::Health;
use telemetry::metrics::Metrics;
use telemetry::output;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Exit {
    let command_line = CommandLine::parse();
    if let Some(Command::Schema) = command_line.command {
        return output::print(schema::sdl(), Exit::Done);
    }
    let settings = match command_line.flags.check() {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    telemetry::logs::init(SERVICE);
    telemetry::memory::use_small_pages();
    match serve(settings).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "{SERVICE} failed: {error:#}");
            Exit::Failed
        }
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let drain = Drain::on_signals();
    let health = Health::new(SERVICE);
    health.drain_with(&drain);
    let metrics = Metrics::new(SERVICE);
    let flush = telemetry::trace::start(SERVICE, settings.traces, &metrics);

    let database = Database::open(&settings.database_url, settings.database_connections)?;
    read_store::pool::tell(database.pool(), &metrics);
    // A connection of its own, so that a busy pool neither delays the positions nor makes the process look unready.
    let watching = Database::open(&settings.database_url, 1)?;
    let positions = Positions::default();
    tokio::spawn(positions::follow(positions.clone(), watching, settings.database_url, health.component("postgres")));

    let min_position_wait = settings.min_position_wait;
    let live = Live::default();
    tokio::spawn(live::follow(live.clone(), database.clone(), positions.clone()));
    let schema = schema::build(Sources { database, positions, min_position_wait, live });
    let capacity = Capacity { deadline: REQUEST_DEADLINE + min_position_wait, requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX };
    let door = Door::new(settings.auth, &health).map_err(anyhow::Error::msg).context("set up the check of callers")?;
    door.tell_refusals(&metrics);
    let queries = http::router(schema, door, settings.policy, QueryMetrics::new(&metrics), capacity, drain.clone());
    let router = queries.merge(telemetry::http::operations(health, metrics));

    let listen_addr = settings.listen_addr;
    let listener = TcpListener::bind(listen_addr).await.with_context(|| format!("listen on {listen_addr}"))?;
    let served = telemetry::http::serve_and_linger(listener, router, drain, settings.drain_linger).await.context("serve HTTP");
    flush.finish().await;
    served
}
