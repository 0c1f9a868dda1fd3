//! Free TCP ports that stay free.

use std::net::TcpListener;

use anyhow::bail;

use crate::entropy;

/// Ports are taken from below the range from which Linux picks the local end of outgoing connections (32768 and up). Otherwise
/// some connection could occupy the port of a server in the moment between its kill and its restart.
const PORT_LOWEST: u16 = 12_000;
const PORTS_TO_CHOOSE_FROM: u16 = 20_000;
const ATTEMPTS_MAX: usize = 200;

/// A port on 127.0.0.1 that nobody listens on now. Chosen at random, so that processes that choose at the same time rarely meet;
/// whoever binds it must still expect to find it taken.
pub(crate) fn free() -> anyhow::Result<u16> {
    for _ in 0..ATTEMPTS_MAX {
        let port = PORT_LOWEST + u16::from_ne_bytes(entropy::bytes()?) % PORTS_TO_CHOOSE_FROM;
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 in {ATTEMPTS_MAX} attempts");
}

/// Whether a server could bind the port on 127.0.0.1 now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
