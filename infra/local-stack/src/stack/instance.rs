//! A second instance of a service, beside the stack's own.

use nix::sys::signal::Signal;

use super::{until_ready, wait_for_clean_end};
use crate::process::{Launch, Process};

/// See [`super::Stack::another`]. Dropping it kills it.
#[derive(Debug)]
pub struct Instance {
    process: Process,
    port: u16,
}

impl Instance {
    pub(super) fn start(name: &'static str, launch: Launch, port: u16) -> anyhow::Result<Self> {
        let mut instance = Self { process: Process::new(name, launch), port };
        instance.start_again()?;
        Ok(instance)
    }

    /// The name of its service.
    pub fn name(&self) -> &'static str {
        self.process.name()
    }

    /// `http://127.0.0.1:PORT`; stays the same over restarts.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks it to stop (SIGTERM) and waits until it is gone. Fails when it did not end with exit code 0 within its deadline.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM);
        wait_for_clean_end(&mut self.process)
    }

    /// Starts it after it was stopped, on the same port, and waits until it is ready. Does nothing if it is running and ready.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.process.start()?;
        until_ready(&mut self.process, self.port)
    }
}
