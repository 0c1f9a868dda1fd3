//! Free TCP ports that stay free.

use std::net::TcpListener;

use anyhow::bail;

use crate::entropy;

/// Ports are taken from below the range from which Linux picks the local end of outgoing connections (32768 and up). Otherwise
/// some connection could occupy the port of a server in the moment between its kill and its restart.
const PORT_LOWEST: u16 = 12_000;
const PORTS_TO_CHOOSE_FROM: u16 = 20_000;
const ATTEMPTS_MAX: usize = 200;

/// A port on 127.0.0.1 that nobody listens on now, and that nobody else who chooses here gets before it is bound. Whoever binds it
/// must still expect to find that a program of another kind has taken it.
pub(crate) fn free() -> anyhow::Result<u16> {
    for _ in 0..ATTEMPTS_MAX {
        let port = PORT_LOWEST + u16::from_ne_bytes(entropy::bytes()?) % PORTS_TO_CHOOSE_FROM;
        if is_free(port) && claim(port) {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 in {ATTEMPTS_MAX} attempts");
}

/// Whether a server could bind the port on 127.0.0.1 now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Claims the port until this process ends; `false` if it is claimed. A claim is a name among Linux's abstract sockets, which leave no
/// file behind and belong to one network, as ports do.
#[cfg(target_os = "linux")]
fn claim(port: u16) -> bool {
    use std::{
        os::{
            linux::net::SocketAddrExt as _,
            unix::net::{SocketAddr, UnixListener},
        },
        sync::{Mutex, PoisonError},
    };
    static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let name = SocketAddr::from_abstract_name(format!("contrail-port-{port}"));
    let Ok(claim) = name.and_then(|name| UnixListener::bind_addr(&name)) else { return false };
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
    true
}

/// There are no servers to start elsewhere.
#[cfg(not(target_os = "linux"))]
fn claim(_: u16) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_chosen_is_not_chosen_again_though_nobody_listens_on_it_yet() {
        let port = free().unwrap();
        assert!(is_free(port));
        assert!(!claim(port));
    }
}
