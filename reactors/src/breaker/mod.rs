//! A circuit breaker for each outside system: while it is away it is left alone, and nothing is asked of it that would only fail.
//!
//! A reactor does not take events while the breaker of the system that it needs is open, and hands back those that it has: they stay
//! in the log's queue, for this instance or another one, and use up no budget of retries.

mod circuit;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use telemetry::health::{Component, Health};
use tokio::{sync::watch, time::Instant};

use self::circuit::{Admission, Circuit, Ending, Ticket};
pub use self::circuit::{Limits, Phase};
use crate::metrics::ReactorMetrics;

/// The breaker of one outside system. Clones are the same breaker.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

struct Shared {
    system: &'static str,
    circuit: Mutex<Circuit>,
    /// The phase, as far as somebody has looked; sent whenever who waits should ask again.
    phase: watch::Sender<Phase>,
    metrics: ReactorMetrics,
    component: Component,
    /// How many calls have worked.
    worked: AtomicU64,
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("system", &self.shared.system).field("phase", &*self.shared.phase.borrow()).finish()
    }
}

/// The system is away and was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{system} is away and is left alone")]
pub struct LeftAlone {
    /// Which one.
    pub system: &'static str,
}

impl Breaker {
    /// A closed breaker of `system`, which is its name in metrics, in logs and in `/ready`.
    ///
    /// An open breaker does not make the process unready: it is what the process does about a system that is away.
    pub fn new(system: &'static str, limits: Limits, metrics: &ReactorMetrics, health: &Health) -> Self {
        let component = health.component(system);
        component.ready_with("closed");
        metrics.breaker_is(system, Phase::Closed);
        let circuit = Mutex::new(Circuit::new(limits));
        let shared = Shared {
            system,
            circuit,
            phase: watch::Sender::new(Phase::Closed),
            metrics: metrics.clone(),
            component,
            worked: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits until a call may be made, which is at once unless the breaker is half-open and another probe is on its way.
    ///
    /// # Errors
    ///
    /// If the breaker is open.
    pub async fn admit(&self) -> Result<Call, LeftAlone> {
        let mut changes = self.shared.phase.subscribe();
        loop {
            changes.mark_unchanged();
            match self.shared.change(Circuit::admit) {
                Admission::Granted(ticket) => return Ok(Call { shared: Arc::clone(&self.shared), ticket: Some(ticket) }),
                Admission::Refused => return Err(LeftAlone { system: self.shared.system }),
                // The sender lives as long as `self`.
                Admission::Probing => changes.changed().await.unwrap_or_default(),
            }
        }
    }

    /// How many calls have worked since the process began.
    pub fn worked(&self) -> u64 {
        self.shared.worked.load(Ordering::Relaxed)
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.shared.change(Circuit::phase)
    }

    /// For how long it stays open from now on; zero if it is not.
    pub fn open_for(&self) -> Duration {
        self.shared.change(|circuit, now| circuit.open_until().map_or(Duration::ZERO, |until| until.saturating_duration_since(now)))
    }

    /// Completes when the breaker is open, at once if it is.
    pub async fn opened(&self) {
        self.is(|phase| phase == Phase::Open).await;
    }

    /// Completes when the breaker is not half-open, at once if it is not.
    pub async fn not_half_open(&self) {
        self.is(|phase| phase != Phase::HalfOpen).await;
    }

    async fn is(&self, looked_for: impl Fn(Phase) -> bool) {
        let mut changes = self.shared.phase.subscribe();
        while !looked_for(self.phase()) {
            changes.changed().await.unwrap_or_default();
        }
    }

    /// Completes when the breaker is not open, at once if it is not, and tells what it is then.
    pub async fn not_open(&self) -> Phase {
        loop {
            let (phase, until) = self.shared.change(|circuit, now| (circuit.phase(now), circuit.open_until()));
            match until {
                None => return phase,
                Some(until) => tokio::time::sleep_until(until).await,
            }
        }
    }
}

impl Shared {
    /// Looks at the circuit or changes it, and tells everybody if its phase is another one now.
    fn change<T>(&self, change: impl FnOnce(&mut Circuit, Instant) -> T) -> T {
        let now = Instant::now();
        let mut circuit = self.lock();
        let outcome = change(&mut circuit, now);
        let (phase, until) = (circuit.phase(now), circuit.open_until());
        // Told while the circuit is locked, so that phases are told in the order in which they came.
        let was = *self.phase.borrow();
        if was != phase {
            self.tell(phase, until.map(|until| until.duration_since(now)));
        }
        outcome
    }

    fn tell(&self, phase: Phase, pause: Option<Duration>) {
        self.metrics.breaker_is(self.system, phase);
        let system = self.system;
        match phase {
            Phase::Closed => {
                tracing::info!(system, "{system} is back: the breaker is closed");
                self.component.ready_with("closed");
            }
            Phase::HalfOpen => {
                tracing::info!(system, "asking whether {system} is back: the breaker is half-open");
                self.component.ready_with("half-open: asking whether it is back");
            }
            Phase::Open => {
                let pause_ms = u64::try_from(pause.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(system, pause_ms, "{system} is away: the breaker is open for {pause_ms} ms");
                self.component.ready_with("open: it is away and is left alone");
            }
        }
        self.phase.send_replace(phase);
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        // No change of the circuit can panic.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to make one call; say how it ended. Dropped without a word, it was given up before it had an answer.
#[must_use = "the breaker learns from how the call ended"]
#[derive(Debug)]
pub struct Call {
    shared: Arc<Shared>,
    /// There until somebody says how it ended.
    ticket: Option<Ticket>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("system", &self.system).finish_non_exhaustive()
    }
}

impl Call {
    /// The system answered, whatever it said.
    pub fn worked(mut self) {
        self.shared.worked.fetch_add(1, Ordering::Relaxed);
        self.end(Ending::Worked);
    }

    /// The system did not answer, or said that it cannot now and how long it wants to be left alone.
    pub fn failed(mut self, asked_pause: Option<Duration>) {
        self.end(Ending::Failed { asked_pause });
    }

    fn end(&mut self, ending: Ending) {
        let Some(ticket) = self.ticket.take() else { return };
        self.shared.change(|circuit, now| circuit.ended(now, ticket, ending));
        // Whoever waits for this probe to end may be next.
        self.shared.phase.send_if_modified(|phase| *phase == Phase::HalfOpen);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Ending::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Health) {
        let health = Health::new("test");
        let limits = Limits { failures_in_a_row: 1, probes: 2, open_min: Duration::from_millis(50), ..Limits::default() };
        (Breaker::new("bank", limits, &ReactorMetrics::default(), &health), health)
    }

    #[tokio::test]
    async fn who_waits_for_a_probe_gets_leave_when_it_has_ended() {
        let (breaker, health) = breaker();
        breaker.admit().await.unwrap().failed(None);
        assert_eq!(breaker.admit().await.unwrap_err(), LeftAlone { system: "bank" });
        breaker.opened().await;
        assert!(health.is_ready(), "the process can do without");
        assert_eq!(breaker.not_open().await, Phase::HalfOpen);
        let probe = breaker.admit().await.unwrap();
        let next = tokio::spawn({
            let breaker = breaker.clone();
            async move { breaker.admit().await.map(Call::worked) }
        });
        let another = tokio::spawn({
            let breaker = breaker.clone();
            async move { breaker.admit().await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        probe.worked();
        next.await.unwrap().unwrap();
        another.await.unwrap().unwrap();
        assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[tokio::test]
    async fn who_waits_for_a_probe_is_turned_away_when_it_fails() {
        let (breaker, _) = breaker();
        breaker.admit().await.unwrap().failed(None);
        breaker.not_open().await;
        let probe = breaker.admit().await.unwrap();
        let next = tokio::spawn({
            let breaker = breaker.clone();
            async move { breaker.admit().await.map(drop) }
        });
        tokio::task::yield_now().await;
        probe.failed(None);
        assert_eq!(next.await.unwrap().unwrap_err(), LeftAlone { system: "bank" });
    }
}
