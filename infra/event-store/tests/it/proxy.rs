//! A TCP proxy that breaks connections when it is told to.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How a connection is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Both directions at once.
    Cut,
    /// What the server answers is lost for so long, and then both directions are cut.
    LoseAnswers(Duration),
}

/// Passes on what clients and the server say, until it breaks all connections of the moment.
pub(crate) struct Proxy {
    url: String,
    faults: Arc<watch::Sender<Option<Fault>>>,
}

impl Proxy {
    pub(crate) async fn before(server_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("nats://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let faults = Arc::new(watch::Sender::new(None));
        let told = Arc::downgrade(&faults);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(faults) = told.upgrade().map(|faults| faults.subscribe()) else { return };
                tokio::spawn(pass_on(client, server_port, faults));
            }
        });
        Self { url, faults }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn inflict(&self, fault: Fault) {
        self.faults.send_replace(Some(fault));
    }
}

async fn pass_on(client: TcpStream, server_port: u16, mut faults: watch::Receiver<Option<Fault>>) {
    faults.mark_unchanged();
    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let upwards = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let downwards = async {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            tokio::select! {
                read = from_server.read(&mut bytes) => match read? {
                    0 => return Ok(()),
                    length => to_client.write_all(&bytes[..length]).await?,
                },
                _ = faults.changed() => break,
            }
        }
        let fault = *faults.borrow();
        if let Some(Fault::LoseAnswers(lost_for)) = fault {
            let read_on = async { while matches!(from_server.read(&mut bytes).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(lost_for, read_on).await;
        }
        Ok(())
    };
    // Whichever direction ends, both sockets are dropped and with them the connection.
    let _: std::io::Result<()> = tokio::select! {
        ended = upwards => ended,
        ended = downwards => ended,
    };
}
