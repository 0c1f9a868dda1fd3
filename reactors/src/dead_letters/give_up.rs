//! Giving up on an event so that somebody can put it right.

use std::error::Error;

use domain::envelope::Metadata;
use event_store::{DeadLetter, JetStreamEventStore, WorkItem};

use crate::{clock, metrics::ReactorMetrics};

/// What the type of an event is called whose envelope cannot be read.
const UNDECODABLE: &str = "undecodable";

/// Keeps `item`'s event among the dead letters of `reactor`, and then acknowledges it. While it cannot be kept it is not
/// acknowledged: it is delivered again, and given up then.
pub(crate) async fn give_up(
    reactor: &'static str,
    store: &JetStreamEventStore,
    metrics: &ReactorMetrics,
    item: WorkItem,
    error_chain: Vec<String>,
    attempts: u64,
) {
    if let Some(item) = keep(reactor, store, metrics, item, &error_chain, attempts).await {
        item.given_up(error_chain, attempts).await;
    }
}

/// Keeps `item`'s event among the dead letters of `reactor`, and gives it back to be acknowledged; unless it cannot be kept.
pub(crate) async fn keep(
    reactor: &'static str,
    store: &JetStreamEventStore,
    metrics: &ReactorMetrics,
    item: WorkItem,
    error_chain: &[String],
    attempts: u64,
) -> Option<WorkItem> {
    let metadata = item.event().ok().map(|event| event.metadata);
    let of_event = |part: fn(&Metadata) -> &String| metadata.as_ref().map(|metadata| part(metadata).clone());
    let now = clock::now();
    let letter = DeadLetter {
        reactor: reactor.to_owned(),
        position: item.position,
        event_type: of_event(|metadata| &metadata.event_type).unwrap_or_else(|| UNDECODABLE.to_owned()),
        aggregate_id: of_event(|metadata| &metadata.aggregate_id),
        correlation_id: of_event(|metadata| &metadata.correlation_id),
        error_chain: error_chain.to_vec(),
        attempts,
        redrives: 0,
        first_died_at: Some(now),
        died_at: now,
    };
    tracing::error!(
        reactor,
        position = letter.position,
        event_type = letter.event_type,
        attempts,
        "to the dead letters: {}",
        letter.error_chain.join(": "),
    );
    if item.is_redriven() {
        // Whoever has asked for it keeps its letter, and writes there what came of it.
        return Some(item);
    }
    match store.put_dead_letter(&letter).await {
        Ok(()) => {
            metrics.count(reactor, "dead", 1);
            Some(item)
        }
        Err(error) => {
            tracing::warn!(reactor, position = item.position, "keep a dead letter: {error}");
            None
        }
    }
}

/// The error and what led to it, outermost first.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    chain
}

#[cfg(test)]
mod tests {
    use domain::envelope::StoredEvent;

    use super::chain;

    #[test]
    fn a_chain_names_every_cause_outermost_first() {
        let error = StoredEvent::from_json(b"{}").expect_err("no envelope");
        let chain = chain(&error);
        assert_eq!(chain.len(), 2, "{chain:?}");
        assert_eq!(chain[0], "read the event's envelope");
        assert!(chain[1].contains("missing field"), "{chain:?}");
    }
}
