//! A log, a database and projections of one test.

use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use event_store::JetStreamEventStore;
use local_stack::{nats::NatsServer, testing, testing::TestDatabase};
use projectors::{
    audit::key::Signer,
    live::{self, Dependencies},
    replay::{Comparison, Purpose, Replayer},
    settings::BULK_POOL,
};
use read_store::{
    pool,
    projections::{self, Projection, ProjectionName},
    schema,
};
use sqlx::PgPool;
use telemetry::{drain::Drain, health::Health, metrics::Metrics};
use tokio::{task::JoinSet, time::Instant};

use crate::story::Teller;

/// How long anything that a test waits for may take.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) nats: NatsServer,
    pub(crate) database: TestDatabase,
    pub(crate) store: JetStreamEventStore,
    pub(crate) pool: PgPool,
    pub(crate) signer: Signer,
}

impl World {
    /// Streams and schema, both empty.
    pub(crate) async fn new() -> Self {
        let world = Self::without_streams().await;
        world.store.set_up(Some(1)).await.unwrap();
        world
    }

    /// As [`World::new`], for a test that makes a log of its own.
    pub(crate) async fn without_streams() -> Self {
        let (nats, database) = tokio::task::block_in_place(|| (testing::nats(), testing::database()));
        schema::migrate(&pool::connect_options(database.url(), BULK_POOL).unwrap()).await.unwrap();
        let store = JetStreamEventStore::connect(nats.url(), "test").await.unwrap();
        eventually("a connection to NATS", async || store.is_connected().then_some(())).await;
        let pool = pool::open(database.url(), BULK_POOL).unwrap();
        Self { nats, database, store, pool, signer: Signer::from_seed(&[7; 32]) }
    }

    /// A log out of which events can be deleted, as no log of ours lets them be.
    pub(crate) async fn with_careless_stream() -> (Self, Stream) {
        let world = Self::without_streams().await;
        let jetstream = async_nats::jetstream::new(async_nats::connect(world.nats.url()).await.unwrap());
        let careless = async_nats::jetstream::stream::Config {
            name: event_store::STREAM.to_owned(),
            subjects: vec!["events.>".to_owned()],
            allow_direct: true,
            allow_atomic_publish: true,
            ..Default::default()
        };
        let stream = jetstream.create_stream(careless).await.unwrap();
        (world, stream)
    }

    pub(crate) fn teller(&self) -> Teller {
        Teller::new(self.store.clone())
    }

    /// Starts the three projections, with connections of their own.
    pub(crate) async fn run(&self) -> Running {
        self.run_on(self.database.url()).await
    }

    pub(crate) async fn run_on(&self, database_url: &str) -> Running {
        let dependencies = Dependencies {
            store: JetStreamEventStore::connect(self.nats.url(), "test").await.unwrap(),
            pool: pool::open(database_url, projectors::settings::POOL).unwrap(),
            signer: self.signer.clone(),
            health: Health::new("test"),
            metrics: Metrics::new("test"),
            drain: Drain::manual(),
        };
        Running { projections: live::spawn(&dependencies), dependencies }
    }

    pub(crate) async fn projection(&self, name: ProjectionName) -> Projection {
        projections::one(&self.pool, name).await.unwrap().unwrap()
    }

    /// Until every one of the projections has applied the event at `position`.
    pub(crate) async fn reach(&self, names: &[ProjectionName], position: u64) {
        for name in names {
            let what = format!("{name} to reach position {position}");
            eventually(&what, async || (self.projection(*name).await.position >= position).then_some(())).await;
        }
    }

    /// Puts bytes that no service of ours would append at the end of the log. Returns their position.
    pub(crate) async fn poison(&self, subject: &str, bytes: &str) -> u64 {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        jetstream.publish(subject.to_owned(), bytes.to_owned().into()).await.unwrap().await.unwrap().sequence
    }

    pub(crate) fn replayer(&self) -> Replayer {
        let options = pool::connect_options(self.database.url(), BULK_POOL).unwrap();
        Replayer::new(self.store.clone(), options)
    }

    pub(crate) async fn verify(&self, name: ProjectionName) -> Comparison {
        self.replayer().replay(name, Purpose::Verify).await.unwrap().comparison.unwrap()
    }

    /// That each read model is what the log says.
    pub(crate) async fn assert_all_agree(&self) {
        for name in ProjectionName::ALL {
            let comparison = self.verify(name).await;
            assert_eq!(comparison.differences, [], "{name}");
        }
    }

    pub(crate) async fn count(&self, sql: &str) -> u64 {
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap();
        count.unsigned_abs()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }
}

/// One instance of the service, without its HTTP.
pub(crate) struct Running {
    pub(crate) dependencies: Dependencies,
    projections: JoinSet<()>,
}

impl Running {
    /// As on SIGTERM.
    pub(crate) async fn stop(mut self) {
        self.dependencies.drain.start();
        let stopped = async { while self.projections.join_next().await.transpose().unwrap().is_some() {} };
        tokio::time::timeout(DEADLINE, stopped).await.expect("the projections end when they are told to");
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.dependencies.health.is_ready()
    }

    /// The value of a series, if there is one.
    pub(crate) fn sample(&self, series: &str) -> Option<f64> {
        sample(&self.dependencies.metrics.plain_text(), series)
    }

    /// A counter or gauge of one projection.
    pub(crate) fn metric(&self, metric: &str, name: ProjectionName) -> u64 {
        let text = self.dependencies.metrics.plain_text();
        let prefix = format!("{metric}{{projection=\"{name}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {prefix}in\n{text}")).parse().unwrap()
    }
}

/// The value of a series, named with its labels as it is printed.
pub(crate) fn sample(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Polls until there is a value, or panics after a minute.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
