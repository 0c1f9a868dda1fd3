//! The payment simulator as a process.

use std::path::PathBuf;

use axum::middleware;
use clap::Parser;
use payment_simulator::Simulator;
use telemetry::{
    drain::Drain,
    exit::Exit,
    health::Health,
    metrics::Metrics,
    settings::{self, Mistakes},
    trace::settings::TraceFlags,
};
use tokio::net::TcpListener;
use tracing::{error, info};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICE: &str = "payment-simulator";

/// A Stripe-shaped payment gateway with faults on demand.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen: host:port.
    #[arg(long, env = "LISTEN_ADDR", value_name = "HOST:PORT")]
    listen_addr: Option<String>,

    /// Where charges, refunds and idempotency keys are kept across restarts (JSON lines; created if missing). Without
    /// it they live as long as the process.
    #[arg(long, env = "LEDGER_FILE", value_name = "FILE")]
    ledger_file: Option<String>,

    #[command(flatten)]
    traces: TraceFlags,
}

#[tokio::main]
async fn main() -> Exit {
    let args = Args::parse();
    telemetry::logs::init(SERVICE);
    telemetry::memory::use_small_pages();

    let mut mistakes = Mistakes::new();
    let listen_addr = mistakes.required("LISTEN_ADDR", args.listen_addr, settings::listen_addr);
    let ledger_file: Option<PathBuf> =
        mistakes.optional("LEDGER_FILE", args.ledger_file, None, |value| settings::path(value).map(Some));
    let traces = args.traces.check(&mut mistakes);
    telemetry::logs::check_filter(&mut mistakes);
    if let Err(mistakes) = mistakes.finish() {
        eprintln!("{mistakes}");
        return Exit::Usage;
    }
    let listen_addr = listen_addr.expect("finish() refuses a missing setting");

    let drain = Drain::on_signals();
    let health = Health::new(SERVICE);
    health.drain_with(&drain);
    let metrics = Metrics::new(SERVICE);
    let flush = telemetry::trace::start(SERVICE, traces, &metrics);

    let simulator = match Simulator::open(ledger_file.as_deref()) {
        Ok(simulator) => simulator,
        Err(cause) => {
            let cause: &dyn std::error::Error = &cause;
            error!(error = cause, "cannot open the ledger file: {cause}");
            return Exit::Failed;
        }
    };
    simulator.register_metrics(&metrics);

    let served = match TcpListener::bind(listen_addr).await {
        Ok(listener) => {
            let router = simulator.router().layer(middleware::from_fn(telemetry::http::traced));
            let router = router.merge(telemetry::http::operations(health, metrics));
            telemetry::http::serve(listener, router, drain).await
        }
        Err(cause) => Err(cause),
    };
    flush.finish().await;
    match served {
        Ok(()) => {
            info!("drained");
            Exit::Done
        }
        Err(cause) => {
            error!(error = %cause, %listen_addr, "cannot serve on {listen_addr}: {cause}");
            Exit::Failed
        }
    }
}
