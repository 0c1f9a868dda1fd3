//! What it costs to be watched: every order traced through every service, sent to a collector, and every process asked for its metrics.
//!
//! Runs with and without take turns, each on fresh servers, at a rate that both hold. What is compared is how many orders the machine's
//! cores could do at the CPU time that one order costs all processes of the system; the load and the collector are not part of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use axum::{Router, body::Body, http::StatusCode, routing::post};
use e2e::scrape::Scrape;
use futures::StreamExt as _;
use local_stack::{Stack, stack::SERVICES};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{RUN, Runner, TELEMETRY, WARM_UP, on_stack, trial::Trial};
use crate::{Options, Row, workplace::Workplace};

/// Orders per second: well below what is held, so that nothing waits for a core.
const RATE: f64 = 500.0;
/// Several times more often than Prometheus does it by default.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(5);

/// Measures it in turns.
pub(super) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Row> {
    let (rate, shortened) = (options.rate.unwrap_or(RATE), if options.quick { 5 } else { 1 });
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..options.runs.get() {
        let settings = |_: &mut Vec<_>| {};
        without.push(on_stack(workplace, settings, async |stack| trial(stack, rate, shortened).await).await?);
        let collector = Collector::start().await?;
        let endpoint = collector.endpoint.clone();
        let settings = move |settings: &mut Vec<_>| {
            settings.extend(SERVICES.map(|service| (service, "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.clone())));
        };
        with.push(on_stack(workplace, settings, async |stack| watched(stack, rate, shortened).await).await?);
        collector.stop()?;
    }
    let figures = |trials: &[Trial], figure: fn(&Trial) -> f64| trials.iter().map(figure).collect::<Vec<_>>();
    let row = Row::new(TELEMETRY, "orders/min", &figures(&with, Trial::system_limit_per_minute));
    let row = row.against(&figures(&without, Trial::system_limit_per_minute));
    Ok(row.with_percentiles(&figures(&with, Trial::p50_ms), &figures(&with, Trial::p99_ms)))
}

async fn trial(stack: &Stack, rate: f64, shortened: u32) -> anyhow::Result<Trial> {
    let mut runner = Runner::warm(stack, rate / 2.0, WARM_UP / shortened).await?;
    runner.trial(rate, RUN / shortened).await
}

async fn watched(stack: &Stack, rate: f64, shortened: u32) -> anyhow::Result<Trial> {
    let info = stack.info();
    let urls = [&info.command_api, &info.query_api, &info.projectors, &info.reactors, &info.payment_simulator];
    let scraping = async {
        loop {
            for url in urls {
                Scrape::of(url).await.with_context(|| format!("scrape {url}"))?;
            }
            tokio::time::sleep(SCRAPE_INTERVAL).await;
        }
    };
    tokio::select! {
        trial = trial(stack, rate, shortened) => trial,
        failed = scraping => failed,
    }
}

/// Takes spans and forgets them.
struct Collector {
    endpoint: String,
    bytes: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen as a collector")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let bytes = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&bytes);
        let take = async move |body: Body| {
            let mut chunks = body.into_data_stream();
            while let Some(Ok(chunk)) = chunks.next().await {
                counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(take));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the collector ended: {error}");
            }
        });
        Ok(Self { endpoint, bytes, server })
    }

    /// Fails if it got nothing, as the figures would then be of something else.
    fn stop(self) -> anyhow::Result<()> {
        self.server.abort();
        let bytes = self.bytes.load(Ordering::Relaxed);
        eprintln!("the collector took {} MiB of spans", bytes / 1_024 / 1_024);
        ensure!(bytes > 0, "no spans came");
        Ok(())
    }
}
