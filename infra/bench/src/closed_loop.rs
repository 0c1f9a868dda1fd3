//! A closed loop: a number of clients, each of which asks again as soon as it was answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{sync::oneshot, task::JoinSet, time::Instant};

use crate::figures::{Latencies, per_second};

/// When a run starts to count, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Before anything is counted: caches, buffers and batch sizes find their level.
    pub(crate) warm_up: Duration,
    /// For how long is counted.
    pub(crate) measured: Duration,
}

/// What one operation came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// How long it took, its preparation left out.
    pub(crate) took: Duration,
    /// Whether it counts for the rate. One that was refused, as it had to be, does not.
    pub(crate) counts: bool,
}

/// Somebody who asks, waits for the answer, and asks again.
pub(crate) trait Client: Send + 'static {
    /// One operation from its preparation to its answer.
    fn step(&mut self) -> impl Future<Output = anyhow::Result<Step>> + Send;
}

/// What a run of the loop came to.
#[derive(Debug)]
pub(crate) struct Measured<C> {
    /// Operations per second that counted.
    pub(crate) rate: f64,
    /// Of all operations that were answered within the window.
    pub(crate) latencies: Latencies,
    /// The clients, with what they remember.
    pub(crate) clients: Vec<C>,
}

/// Lets `clients` work at the same time until the window ends, and waits until each has its last answer. Fails when one does.
///
/// On a machine so busy that nothing counts within the window, it lasts until something does.
pub(crate) async fn run<C: Client>(clients: Vec<C>, window: Window) -> anyhow::Result<Measured<C>> {
    let counted_from = Instant::now() + window.warm_up;
    let ends = counted_from + window.measured;
    let mut tasks = JoinSet::new();
    let has_counted = Arc::new(AtomicBool::new(false));
    for client in clients {
        tasks.spawn(work(client, counted_from, ends, Arc::clone(&has_counted)));
    }
    let (mut counted, mut durations, mut clients) = (0, Vec::new(), Vec::new());
    let mut last_counted = ends;
    while let Some(worked) = tasks.join_next().await {
        let worked = worked.expect("a client reports its failures")?;
        counted += worked.counted;
        last_counted = last_counted.max(worked.last_counted);
        durations.extend(worked.durations);
        clients.push(worked.client);
    }
    let measured = last_counted - counted_from;
    Ok(Measured { rate: per_second(counted, measured), latencies: Latencies::new(durations), clients })
}

/// Does `work` on a thread and a runtime of its own, for a load that has to leave as much of the machine as it can to what it is
/// put on: nothing is handed from one thread to another. When this is dropped, the thread goes on until `work` ends.
pub(crate) async fn on_one_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    let (answer, outcome) = oneshot::channel();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the load's runtime");
        // Whoever asked may be gone.
        let _ = answer.send(runtime.and_then(|runtime| runtime.block_on(work())));
    };
    thread::Builder::new().name("load".to_owned()).spawn(run).context("start the load's thread")?;
    outcome.await.context("the load's thread ended without an outcome")?
}

struct Worked<C> {
    client: C,
    counted: usize,
    /// When the last one was that counted.
    last_counted: Instant,
    durations: Vec<Duration>,
}

async fn work<C: Client>(
    client: C,
    counted_from: Instant,
    ends: Instant,
    has_counted: Arc<AtomicBool>,
) -> anyhow::Result<Worked<C>> {
    let mut worked = Worked { client, counted: 0, last_counted: counted_from, durations: Vec::new() };
    loop {
        let step = worked.client.step().await?;
        let now = Instant::now();
        if now >= ends && has_counted.load(Ordering::Relaxed) {
            return Ok(worked);
        }
        if now >= counted_from {
            worked.durations.push(step.took);
            if step.counts {
                worked.counted += 1;
                worked.last_counted = now;
                has_counted.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper(usize);

    impl Client for Sleeper {
        async fn step(&mut self) -> anyhow::Result<Step> {
            let started = Instant::now();
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.0 += 1;
            Ok(Step { took: started.elapsed(), counts: self.0.is_multiple_of(2) })
        }
    }

    #[derive(Debug)]
    struct Failing;

    impl Client for Failing {
        async fn step(&mut self) -> anyhow::Result<Step> {
            anyhow::bail!("no answer")
        }
    }

    const WINDOW: Window = Window { warm_up: Duration::from_millis(20), measured: Duration::from_millis(100) };

    #[tokio::test]
    async fn every_answer_in_the_window_has_a_latency_and_only_what_counts_makes_the_rate() {
        let measured = run((0..4).map(|_| Sleeper(0)).collect(), WINDOW).await.unwrap();
        assert_eq!(measured.clients.len(), 4);
        let answered = measured.clients.iter().map(|sleeper| sleeper.0).sum::<usize>();
        assert!(measured.latencies.count() < answered, "what came before and after the window is not counted");
        assert!(measured.latencies.p50_ms() >= 2.0);
        // Of each client every second answer counts, so of four clients half of all, give or take one each.
        let counted = per_second(measured.latencies.count().div_ceil(2) + 4, WINDOW.measured);
        assert!(measured.rate <= counted, "{} of at most {counted} a second", measured.rate);
    }

    #[tokio::test]
    async fn a_window_in_which_nothing_counts_lasts_until_something_does() {
        let window = Window { warm_up: Duration::ZERO, measured: Duration::from_nanos(1) };
        let measured = run((0..4).map(|_| Sleeper(0)).collect(), window).await.unwrap();
        assert!(measured.rate > 0.0 && measured.rate < 4_000.0, "{} a second, of 4 clients that take 2 ms each", measured.rate);
    }

    #[tokio::test]
    async fn a_loop_runs_on_a_thread_of_its_own_too() {
        let measured = on_one_thread(|| run(vec![Sleeper(0)], WINDOW)).await.unwrap();
        assert!(measured.latencies.count() > 0);
        assert!(on_one_thread(|| run(vec![Failing], WINDOW)).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_fails_fails_the_run() {
        assert_eq!(run(vec![Failing], WINDOW).await.unwrap_err().to_string(), "no answer");
    }
}
