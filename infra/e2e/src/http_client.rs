//! HTTP to services of this machine.

use std::time::Duration;

use anyhow::Context as _;

/// A client that goes through no proxy, and gives up after `timeout`.
pub(crate) fn new(timeout: Duration) -> anyhow::Result<reqwest::Client> {
    // reqwest wants to know who would do TLS, also for plain HTTP. Somebody may have said so before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(timeout).build().context("set up the HTTP client")
}
