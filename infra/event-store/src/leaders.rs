//! Noticing a new leader of the log.
//!
//! What was asked of a leader that died is never answered, and while there is none, most requests are met by silence. The server tells
//! when a new one is elected, so nobody has to wait until their patience ends.

use std::time::{Duration, Instant};

use async_nats::{Client, Request};
use futures::StreamExt;
use tokio::{sync::watch, time::sleep};

use crate::wire::STREAM;

/// Pause before the server is asked again for its advisories.
const SUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);
/// How long a new leader may take for one answer; it is told of a little before it answers at all.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);
/// How often it is asked before others may find out for themselves.
const ATTEMPTS_MAX: u32 = 50;

/// Tells `interruptions` whenever a new leader of the log answers, for as long as it is polled.
pub(crate) async fn watch(client: Client, interruptions: watch::Sender<Instant>) {
    let mut elections = loop {
        match client.subscribe(format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{STREAM}")).await {
            Ok(elections) => break elections,
            Err(error) => tracing::debug!("listen for elections: {error}"),
        }
        sleep(SUBSCRIBE_PAUSE).await;
    };
    while elections.next().await.is_some() {
        until_it_answers(&client).await;
        tracing::info!("the log has a new leader");
        interruptions.send_replace(Instant::now());
    }
}

/// Only the leader answers questions about its stream.
async fn until_it_answers(client: &Client) {
    for _ in 0..ATTEMPTS_MAX {
        let request = Request::new().timeout(Some(ANSWER_PATIENCE));
        if client.send_request(format!("$JS.API.STREAM.INFO.{STREAM}"), request).await.is_ok() {
            return;
        }
        sleep(ANSWER_PATIENCE).await;
    }
}
