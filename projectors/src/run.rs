//! `projectors run`: the service.

use std::time::Duration;

use event_store::JetStreamEventStore;
use sqlx::PgPool;
use telemetry::{
    drain::{DRAIN_DEADLINE, Drain},
    health::{Component, Health},
    metrics::Metrics,
};
use tokio::{net::TcpListener, task::JoinSet};
use tracing::info;

use crate::{
    failure::Failure,
    live,
    settings::{RunSettings, SERVICE},
    watch,
};

/// How often the connections are looked at for `/ready`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the projections until the drain starts, then lets each finish its batch.
pub async fn run(settings: RunSettings, drain: Drain) -> Result<(), Failure> {
    let (health, metrics) = (Health::new(SERVICE), Metrics::new(SERVICE));
    health.drain_with(&drain);
    let flush = telemetry::trace::start(SERVICE, settings.traces, &metrics);
    let listener =
        TcpListener::bind(settings.listen_addr).await.map_err(Failure::other(format!("listen on {}", settings.listen_addr)))?;
    // Before anybody can ask, or it would be ready for a moment.
    let (nats, postgres) = (health.component("nats"), health.component("postgres"));
    let operations = telemetry::http::operations(health.clone(), metrics.clone());
    let server = tokio::spawn(telemetry::http::serve(listener, operations, drain.clone()));

    let store = JetStreamEventStore::connect(&settings.nats_url, SERVICE).await.map_err(Failure::other("connect to NATS"))?;
    let pool = settings.database.pool;
    wait_until_ready(&store, &pool, &nats, &postgres, &drain).await;
    if !drain.is_started() {
        metrics.register(|registry| registry.register_collector(Box::new(store.log_metrics())));
        read_store::pool::tell(&pool, &metrics);
        let watching = tokio::spawn(look_after(store.clone(), pool.clone(), nats, postgres));
        let dependencies = live::Dependencies { store, pool: pool.clone(), signer: settings.signer, health, metrics, drain };
        let mut projections = live::spawn(&dependencies);
        let telling = tokio::spawn(watch::watch(pool.clone(), dependencies.metrics.clone()));
        let finished = finish(&mut projections, &dependencies.drain).await;
        watching.abort();
        telling.abort();
        finished?;
    }
    pool.close().await;
    flush.finish().await;
    let served = server.await.map_err(Failure::other("serve /health, /ready and /metrics"))?;
    served.map_err(Failure::other("serve /health, /ready and /metrics"))
}

/// Until every projection has ended, which each does for the drain only; fails at once if one panics, so that whoever started this
/// process starts a new one, and if a batch takes longer than the drain may.
async fn finish(projections: &mut JoinSet<()>, drain: &Drain) -> Result<(), Failure> {
    let all = async {
        while let Some(ended) = projections.join_next().await {
            ended.map_err(Failure::other("run the projections"))?;
        }
        Ok(())
    };
    let overdue = async {
        drain.started().await;
        tokio::time::sleep(DRAIN_DEADLINE).await;
    };
    tokio::select! {
        ended = all => ended,
        () = overdue => {
            Err(Failure::Other { doing: format!("drain within {} s", DRAIN_DEADLINE.as_secs()), cause: "a batch did not finish".into() })
        }
    }
}

/// Until both are there, or the drain starts.
async fn wait_until_ready(store: &JetStreamEventStore, pool: &PgPool, nats: &Component, postgres: &Component, drain: &Drain) {
    let both = async {
        tokio::join!(
            async {
                store.wait_until_ready(|reason| nats.not_ready(reason)).await;
                nats.ready();
            },
            async {
                read_store::pool::wait_until_ready(pool, |reason| postgres.not_ready(reason)).await;
                postgres.ready();
            },
        );
    };
    tokio::select! {
        () = drain.started() => {}
        () = both => info!("NATS and Postgres are there"),
    }
}

/// Keeps `/ready` true about both for as long as it is polled.
async fn look_after(store: JetStreamEventStore, pool: PgPool, nats: Component, postgres: Component) {
    let report = |component: &Component, checked: Result<(), String>| match checked {
        Ok(()) => component.ready(),
        Err(reason) => component.not_ready(reason),
    };
    loop {
        let (log, tables) = tokio::join!(store.check(), read_store::pool::check(&pool));
        report(&nats, log);
        report(&postgres, tables);
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_that_everybody_follows_at_once_is_no_failure() {
        // Each round is a new chance for the drain and the ends to be seen in another order.
        for _ in 0..1_000 {
            let (drain, mut projections) = (Drain::manual(), JoinSet::new());
            for _ in 0..3 {
                let drain = drain.clone();
                projections.spawn(async move { drain.started().await });
            }
            let starting = async { drain.start() };
            let (finished, ()) = tokio::join!(finish(&mut projections, &drain), starting);
            finished.unwrap();
        }
    }

    #[tokio::test]
    async fn a_projection_that_panics_ends_the_service() {
        let (drain, mut projections) = (Drain::manual(), JoinSet::new());
        projections.spawn(std::future::pending());
        projections.spawn(async { panic!("as a bug would") });
        let failure = finish(&mut projections, &drain).await.unwrap_err();
        assert_eq!(failure.exit(), telemetry::exit::Exit::Failed);
    }
}
