//! Leaving a server that hangs for another one.
//!
//! A server that is gone closes its connections. One that hangs (a disk that stalls, a machine that is suspended) does not, and the client's
//! own pings notice it only after 20 to 30 s. Where the log has several servers, another one could answer long before that.

use std::time::Duration;

use async_nats::{Client, Subscriber, connection::State};
use futures::StreamExt;
use tokio::time::{sleep, timeout};

/// How often the server is asked for an echo.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take. Under load, an echo waits behind what else comes.
const PATIENCE: Duration = Duration::from_secs(3);

/// Watches the connection for as long as it is polled.
pub(crate) async fn watch(client: Client) {
    let inbox = client.new_inbox();
    let mut echoes = loop {
        match client.subscribe(inbox.clone()).await {
            Ok(echoes) => break echoes,
            Err(error) => tracing::debug!("listen for echoes: {error}"),
        }
        sleep(INTERVAL).await;
    };
    for number in 0_u64.. {
        sleep(INTERVAL).await;
        if client.connection_state() != State::Connected {
            continue;
        }
        let called = client.publish(inbox.clone(), number.to_string().into()).await;
        if called.is_err() || timeout(PATIENCE, heard(&mut echoes, number)).await.is_ok() {
            continue;
        }
        // It may have reconnected by itself meanwhile; then this is one time too many, which does no harm.
        if client.connection_state() == State::Connected {
            tracing::warn!("the NATS server has not answered for {} s: going to another one", PATIENCE.as_secs());
            if let Err(error) = client.force_reconnect().await {
                tracing::debug!("reconnect: {error}");
            }
        }
    }
}

/// Waits for the echo of that call. Those of earlier ones may come late.
async fn heard(echoes: &mut Subscriber, number: u64) {
    let expected = number.to_string();
    while let Some(echo) = echoes.next().await {
        if echo.payload == expected {
            return;
        }
    }
}
