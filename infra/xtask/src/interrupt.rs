//! Ctrl-C, SIGTERM and a closed terminal.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// How somebody wants this process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Ctrl-C, which the terminal sends to every process of the foreground group, our children included.
    FromTerminal,
    /// SIGTERM or SIGHUP, to this process alone.
    FromElsewhere,
}

/// From the moment it is created, these signals no longer end the process; they are reported here instead.
pub(crate) struct Interrupts {
    received: Receiver<Interrupt>,
}

impl Interrupts {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let (report, received) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime for signals")?;
        let kinds = [
            (SignalKind::interrupt(), Interrupt::FromTerminal),
            (SignalKind::terminate(), Interrupt::FromElsewhere),
            (SignalKind::hangup(), Interrupt::FromElsewhere),
        ];
        for (kind, interrupt) in kinds {
            let mut signals = {
                let _entered = runtime.enter();
                signal(kind).context("listen for signals")?
            };
            let report = report.clone();
            runtime.spawn(async move {
                // Nobody listens any more when the report fails.
                while signals.recv().await.is_some() && report.send(interrupt).is_ok() {}
            });
        }
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .context("start a thread for signals")?;
        Ok(Self { received })
    }

    /// The signal that arrives within this time, if any.
    pub(crate) fn within(&self, time: Duration) -> Option<Interrupt> {
        self.received.recv_timeout(time).ok()
    }
}
