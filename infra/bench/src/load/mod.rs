//! Loading an aggregate, against one direct get: one question to the server and one message as the answer.
//!
//! No load can be faster than that round trip, because a load always asks the log what is new. The log holds one SKU with a
//! million events, as they pile up for what sells well, and many with ten. The long one's last events came by ordinary decisions, so that
//! whatever the event store keeps of an aggregate (DESIGN §3: snapshots, a cache) is there as in a running system.
//!
//! * `events-10`: an aggregate with ten events that this process never saw.
//! * `events-10-apart-100`, `events-10-apart-1000`: the same with so many events of others between each two of its own. The server
//!   walks over them.
//! * `events-1000000-cold`: the long one, by a process that has just started: a new event store for each sample.
//! * `events-1000000-warm`: the long one, by a process that has it in its cache.
//!
//! Every load is held against the state that the events were made from.

mod contents;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::{self, stream::Stream};
use domain::stock::Stock;
use event_store::{JetStreamEventStore, Loaded, STREAM};
use local_stack::Durability;

use crate::{
    Options, Row,
    figures::Latencies,
    runs::Runs,
    workplace::{Log, Workplace},
};
use contents::Contents;

/// All cases.
pub const CASES: [&str; 5] = [SHORT, APART_100, APART_1000, COLD, WARM];
const SHORT: &str = "events-10";
const APART_100: &str = "events-10-apart-100";
const APART_1000: &str = "events-10-apart-1000";
const COLD: &str = "events-1000000-cold";
const WARM: &str = "events-1000000-warm";

/// Loads of one run, each next to a direct get.
const SAMPLES: usize = 300;
/// Cold loads of one run; each needs a new connection.
const COLD_SAMPLES: usize = 50;
/// A run of cold loads ends when it has taken so long, if it has [`COLD_SAMPLES_MIN`].
const COLD_RUN_DEADLINE: Duration = Duration::from_secs(30);
const COLD_SAMPLES_MIN: usize = 3;

/// How much is in the log, and how often it is loaded.
#[derive(Clone, Copy, Debug)]
struct Size {
    long_events: u64,
    samples: usize,
    cold_samples: usize,
}

/// Fills a log, then measures every case that is wanted on it.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    let size = if options.quick {
        Size { long_events: 20_000, samples: 30, cold_samples: 5 }
    } else {
        Size { long_events: 1_000_000, samples: SAMPLES, cold_samples: COLD_SAMPLES }
    };
    // Nothing is appended while it is measured, so fsync would only make the filling slow.
    let log = workplace.log(Durability::PageCache).await?;
    let contents = contents::fill(&log, size.long_events, size.samples * options.runs.get()).await?;
    // In a task, as services load: what a worker wakes need not wait for the thread that waits for the whole benchmark.
    tokio::spawn(measure(options.clone(), size, log, contents)).await.context("measure loads")?
}

async fn measure(options: Options, size: Size, log: Log, contents: Contents) -> anyhow::Result<Vec<Row>> {
    let rival = DirectGet::connect(log.url()).await?;
    let short = [(SHORT, &contents.adjoining), (APART_100, &contents.apart_100), (APART_1000, &contents.apart_1000)];
    let mut short = short.map(|(case, skus)| (case, skus, Runs::default()));
    let (mut cold, mut warm) = (Runs::default(), Runs::default());
    let store = ready(&log).await?;
    for run in 0..options.runs.get() {
        for (case, skus, runs) in short.iter_mut().filter(|(case, ..)| options.wants(case)) {
            let some = &skus[run * size.samples..(run + 1) * size.samples];
            loads_of_short(&store, some, &rival).await?.tell(case, run, runs);
        }
        if options.wants(COLD) {
            cold_loads(&log, &contents, size.cold_samples, &rival).await?.tell(COLD, run, &mut cold);
        }
        if options.wants(WARM) {
            warm_loads(&store, &contents, size.samples, &rival).await?.tell(WARM, run, &mut warm);
        }
    }
    let rows = short.into_iter().map(|(case, _, runs)| (case, runs)).chain([(COLD, cold), (WARM, warm)]);
    Ok(rows.filter(|(case, _)| options.wants(case)).map(|(case, runs)| runs.row(case, "ms")).collect())
}

async fn loads_of_short(store: &JetStreamEventStore, some: &[String], rival: &DirectGet) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for id in some {
        samples.limit.push(rival.ask(id).await?);
        let started = Instant::now();
        let loaded = store.load::<Stock>(id).await?;
        samples.ours.push(started.elapsed());
        ensure!(loaded.version == contents::SHORT_EVENTS, "{id} has version {}", loaded.version);
    }
    Ok(samples)
}

async fn cold_loads(log: &Log, contents: &Contents, count: usize, rival: &DirectGet) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let began = Instant::now();
    while samples.ours.len() < count && (samples.ours.len() < COLD_SAMPLES_MIN || began.elapsed() < COLD_RUN_DEADLINE) {
        let store = ready(log).await?;
        samples.limit.push(rival.ask(contents::LONG).await?);
        let started = Instant::now();
        let loaded = store.load::<Stock>(contents::LONG).await?;
        samples.ours.push(started.elapsed());
        ensure_same(&loaded, contents)?;
    }
    Ok(samples)
}

async fn warm_loads(store: &JetStreamEventStore, contents: &Contents, count: usize, rival: &DirectGet) -> anyhow::Result<Samples> {
    // The first load is the cold one.
    ensure_same(&store.load::<Stock>(contents::LONG).await?, contents)?;
    let mut samples = Samples::default();
    for _ in 0..count {
        samples.limit.push(rival.ask(contents::LONG).await?);
        let started = Instant::now();
        let loaded = store.load::<Stock>(contents::LONG).await?;
        samples.ours.push(started.elapsed());
        ensure_same(&loaded, contents)?;
    }
    Ok(samples)
}

fn ensure_same(loaded: &Loaded<Stock>, contents: &Contents) -> anyhow::Result<()> {
    ensure!(loaded.version == contents.long_version, "the long aggregate has version {}", loaded.version);
    ensure!(loaded.aggregate == contents.long, "what was loaded is not what the events add up to");
    Ok(())
}

/// An event store as a service has it when it starts to work: connected, and nothing in its cache.
async fn ready(log: &Log) -> anyhow::Result<JetStreamEventStore> {
    let store = log.open().await?;
    store.wait_until_ready(|_| ()).await;
    Ok(store)
}

/// The plain operation: the last message of a subject, by a direct get.
struct DirectGet {
    stream: Stream,
}

impl DirectGet {
    async fn connect(nats_url: &str) -> anyhow::Result<Self> {
        let client = async_nats::connect(nats_url).await.context("connect to NATS")?;
        let stream = jetstream::new(client).get_stream(STREAM).await.context("look at the log")?;
        Ok(Self { stream })
    }

    /// How long one round trip takes.
    async fn ask(&self, sku: &str) -> anyhow::Result<Duration> {
        let subject = format!("events.stock.{sku}");
        let started = Instant::now();
        self.stream.direct_get_last_for_subject(subject).await.context("get one message")?;
        Ok(started.elapsed())
    }
}

/// What was measured in one run.
#[derive(Default)]
struct Samples {
    limit: Vec<Duration>,
    ours: Vec<Duration>,
}

impl Samples {
    fn tell(self, case: &str, run: usize, runs: &mut Runs) {
        let count = self.ours.len();
        let (limit, ours) = (Latencies::new(self.limit), Latencies::new(self.ours));
        runs.add(limit.p50_ms(), ours.p50_ms(), &ours);
        eprintln!(
            "{case}, run {}: a direct get p50 {:.3} ms; {count} loads p50 {:.3} ms, p99 {:.3} ms",
            run + 1,
            limit.p50_ms(),
            ours.p50_ms(),
            ours.p99_ms()
        );
    }
}
