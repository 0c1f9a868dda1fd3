//! A network that can be cut: a TCP proxy between a service and a server.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BUFFER_BYTES: usize = 64 * 1024;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// It carries everything.
    Whole,
    /// Connections are reset, and new ones are refused.
    Reset,
    /// Nothing arrives, and nobody is told; what was on its way arrives once the network is whole again.
    Silent,
}

/// One wire. Ends with its last clone; connections that are open then are closed.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
}

impl Proxy {
    /// A whole wire to `target`, on a port of 127.0.0.1.
    pub(super) async fn to(target: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for a proxy")?;
        let address = listener.local_addr().context("ask for the proxy's address")?;
        let (network, state) = watch::channel(Network::Whole);
        tokio::spawn(accept(listener, target, state));
        Ok(Self { address, network: Arc::new(network) })
    }

    /// Where to connect to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub(super) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn accept(listener: TcpListener, target: String, mut network: watch::Receiver<Network>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = network.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        };
        let Ok((near, _)) = accepted else { continue };
        if *network.borrow() == Network::Reset {
            // Closed at once: whoever connects learns of it.
            continue;
        }
        let (target, network) = (target.clone(), network.clone());
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(carry(near_in, far_out, network.clone()), carry(far_in, near_out, network));
        });
    }
}

/// Carries bytes one way until an end is closed or the network is reset. Both directions end then, since each closes what the other
/// reads.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut network: watch::Receiver<Network>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let now = *network.borrow_and_update();
        match now {
            Network::Reset => return,
            Network::Silent => {
                if network.changed().await.is_err() {
                    return;
                }
            }
            Network::Whole => tokio::select! {
                changed = network.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                read = from.read(&mut buffer) => match read {
                    Ok(bytes) if bytes > 0 && to.write_all(&buffer[..bytes]).await.is_ok() => {}
                    _ => return,
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn bytes_pass_wait_or_are_cut_off() {
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let target = echo.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut reading, mut writing) = stream.split();
                    tokio::io::copy(&mut reading, &mut writing).await
                });
            }
        });
        let proxy = Proxy::to(target).await.expect("a proxy");
        let mut client = TcpStream::connect(proxy.address()).await.expect("connect");
        let mut answer = [0; 4];
        client.write_all(b"ping").await.expect("write");
        client.read_exact(&mut answer).await.expect("it is whole");
        proxy.set(Network::Silent);
        client.write_all(b"pong").await.expect("nobody is told");
        let waiting = timeout(Duration::from_millis(100), client.read_exact(&mut answer)).await;
        assert!(waiting.is_err(), "it is silent");
        proxy.set(Network::Whole);
        client.read_exact(&mut answer).await.expect("what was on its way arrives");
        assert_eq!(&answer, b"pong");
        proxy.set(Network::Reset);
        assert_eq!(client.read(&mut answer).await.unwrap_or(0), 0, "the connection is gone");
        let mut refused = TcpStream::connect(proxy.address()).await.expect("connect");
        assert_eq!(refused.read(&mut answer).await.unwrap_or(0), 0, "so is a new one");
    }
}
