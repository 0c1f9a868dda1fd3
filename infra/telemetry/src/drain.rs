//! The orderly end of a process: stop taking work, finish what is in flight, leave.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::exit::Exit;

/// How long work in flight may take once the drain has started, in seconds.
pub const DRAIN_DEADLINE_S: u64 = 30;

/// [`DRAIN_DEADLINE_S`] as a duration.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(DRAIN_DEADLINE_S);

/// Tells every part of the process that it is time to finish. Clones share one state; a drain never ends once started.
#[derive(Clone, Debug)]
pub struct Drain {
    token: CancellationToken,
}

impl Drain {
    /// A drain that starts with the first SIGTERM or SIGINT. The second one ends the process at once with
    /// [`Exit::Interrupted`], whatever is in flight.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or when the system refuses a signal handler: a process that cannot be told to stop
    /// must not start.
    pub fn on_signals() -> Self {
        let drain = Self::manual();
        let listen = |kind| signal(kind).expect("a process may handle its own SIGTERM and SIGINT");
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
        let first = drain.clone();
        tokio::spawn(async move {
            let name = either(&mut terminate, &mut interrupt).await;
            info!(signal = name, "{name} received: draining for at most {DRAIN_DEADLINE_S} s");
            first.start();
            let name = either(&mut terminate, &mut interrupt).await;
            warn!(signal = name, "{name} received while draining: leaving at once");
            std::process::exit(Exit::Interrupted.code().into());
        });
        drain
    }

    /// A drain that only [`Drain::start`] starts: for tests, and for processes that end by themselves.
    pub fn manual() -> Self {
        Self { token: CancellationToken::new() }
    }

    /// Starts the drain. Starting it again changes nothing.
    pub fn start(&self) {
        self.token.cancel();
    }

    /// Whether the drain has started.
    pub fn is_started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Completes when the drain starts; at once if it already has. Cancel safe.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// A token that is cancelled when the drain starts, for APIs that want one. Cancelling it starts the drain.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::Drain;

    #[tokio::test]
    async fn every_clone_sees_the_drain_start() {
        let drain = Drain::manual();
        let (clone, token) = (drain.clone(), drain.token());
        assert!(!clone.is_started());

        drain.start();
        drain.start();

        clone.started().await;
        assert!(clone.is_started() && token.is_cancelled());
    }
}
