//! When the log got a new leader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use event_store::STREAM;
use futures::StreamExt as _;
use local_stack::StackInfo;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::gaps::Span;

/// The longest time until a server of NATS that misses its leader stands for election is 9 s.
const ELECTION_MAX: Duration = Duration::from_secs(10);

/// The elections that were heard of so far.
pub(super) struct Elections {
    seen: Arc<Mutex<Vec<Instant>>>,
    _listening: JoinSet<()>,
}

impl Elections {
    /// Listens to each server by itself, since the one that is lost tells nothing.
    pub(super) async fn watch(info: &StackInfo) -> anyhow::Result<Self> {
        let seen = Arc::<Mutex<Vec<Instant>>>::default();
        let mut listening = JoinSet::new();
        for server in event_store::servers(&info.nats) {
            let client = event_store::options(server).connect(server).await.context("connect to NATS")?;
            let advisories = client.subscribe(format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{STREAM}")).await;
            let mut advisories = advisories.context("listen for elections")?;
            let seen = seen.clone();
            listening.spawn(async move {
                while advisories.next().await.is_some() {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
            });
        }
        Ok(Self { seen, _listening: listening })
    }

    /// From the beginning of each loss of a leader, in their order, to the election that followed, if one did before the next.
    pub(super) fn after(&self, losses: &[Span]) -> Vec<Span> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let next_losses = losses.iter().skip(1).map(|next| Some(next.began)).chain([None]);
        let with_elections = losses.iter().zip(next_losses).filter_map(|(loss, next_loss)| {
            // A leader that was away for a moment may have stayed the leader; what is elected much later has another reason.
            let in_time = |at: &Instant| loss.began <= *at && *at <= loss.ended + ELECTION_MAX;
            let elected = seen.iter().copied().filter(in_time).min()?;
            next_loss.is_none_or(|next_loss| elected <= next_loss).then_some(Span { ended: elected, ..*loss })
        });
        with_elections.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_belongs_to_the_loss_before_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let span = |began, ended| Span { began: at(began), ended: at(ended) };
        let elections = Elections { seen: Arc::new(Mutex::new(vec![at(1), at(15), at(35), at(70)])), _listening: JoinSet::new() };
        // The second one was over before anybody was elected.
        let losses = [span(10, 12), span(20, 21), span(30, 33), span(50, 52)];
        assert_eq!(elections.after(&losses), [span(10, 15), span(30, 35)]);
    }
}
