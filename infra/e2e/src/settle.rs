//! Waiting until nothing moves any more: every reactor has acknowledged everything, every read model has everything.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use event_store::STREAM;
use futures::TryStreamExt as _;
use local_stack::StackInfo;
use tokio::time::Instant;

use crate::eventually::{eventually, patiently};
use crate::log_server;
use crate::shop::Shop;

/// How long a system may need to come to rest. What a killed reactor had in hand is handed out again after 30 s.
pub const SETTLE_DEADLINE: Duration = Duration::from_mins(3);
/// Whoever waits longer than this is told on standard error what for, and again after as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until every durable consumer of the log has acknowledged all of it, every read model has all of it, and no event was
/// appended meanwhile. Returns the position of the last event.
pub async fn settle(info: &StackInfo, shop: &Shop) -> anyhow::Result<u64> {
    let jetstream = log_server::connect(info).await?;
    let mut last_seen = String::new();
    let mut last_told = Instant::now();
    let settled = eventually("the system comes to rest", SETTLE_DEADLINE, async || {
        let outcome = patiently("looking whether the system is at rest", look(&jetstream, shop)).await;
        let (head, at_rest) = match outcome {
            Ok(Ok(head)) => (head, true),
            Ok(Err(unrest)) => {
                last_seen = unrest;
                (0, false)
            }
            Err(error) => {
                last_seen = format!("{error:#}");
                (0, false)
            }
        };
        if !at_rest && last_told.elapsed() > PATIENCE {
            eprintln!("not at rest yet: {last_seen}");
            last_told = Instant::now();
        }
        Ok(at_rest.then_some(head))
    })
    .await;
    settled.with_context(|| format!("what moved last: {last_seen}"))
}

/// The head of the log if everything rests, else what does not.
async fn look(jetstream: &jetstream::Context, shop: &Shop) -> anyhow::Result<Result<u64, String>> {
    let head = head(jetstream).await?;
    let stream = jetstream.get_stream(STREAM).await.context("look at the log")?;
    let consumers: Vec<_> = stream.consumers().try_collect().await.context("list the log's consumers")?;
    for consumer in consumers.iter().filter(|consumer| consumer.config.durable_name.is_some()) {
        if consumer.num_pending > 0 || consumer.num_ack_pending > 0 {
            return Ok(Err(format!(
                "{} has {} events before it and {} in hand",
                consumer.name, consumer.num_pending, consumer.num_ack_pending
            )));
        }
    }
    let all_there = head.to_string();
    for projection in shop.projections().await? {
        if projection.position != all_there {
            return Ok(Err(format!(
                "the projection {} is {} at {} of {head}",
                projection.name, projection.state, projection.position
            )));
        }
    }
    // Whoever acknowledges last has appended before: a head that is still the same has nobody who could move it.
    let head_after = self::head(jetstream).await?;
    Ok(if head_after == head { Ok(head) } else { Err(format!("the log has grown from {head} to {head_after}")) })
}

async fn head(jetstream: &jetstream::Context) -> anyhow::Result<u64> {
    let stream = jetstream.get_stream(STREAM).await.context("look at the log")?;
    Ok(stream.cached_info().state.last_sequence)
}
