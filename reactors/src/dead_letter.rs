//! Giving up on an event so that somebody can put it right.

use std::error::Error;

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
    let letter = DeadLetter {
        reactor: reactor.to_owned(),
        position: item.position,
        event_type: item.event().map_or_else(|_| UNDECODABLE.to_owned(), |event| event.metadata.event_type),
        error_chain,
        attempts,
        died_at: clock::now(),
    };
    tracing::error!(
        reactor,
        position = letter.position,
        event_type = letter.event_type,
        attempts,
        "to the dead letters: {}",
        letter.error_chain.join(": "),
    );
    match store.put_dead_letter(&letter).await {
        Ok(()) => {
            metrics.count(reactor, "dead", 1);
            item.done().await;
        }
        Err(error) => tracing::warn!(reactor, position = item.position, "keep a dead letter: {error}"),
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
