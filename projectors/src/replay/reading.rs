//! The log, read once for all read models that are rebuilt at the same time.

use event_store::{JetStreamEventStore, LogMessage};
use tokio::sync::mpsc;

/// How many messages are gathered before they are handed out: each round costs a read model a question for the rows that it lacks.
const BATCH_MESSAGES_MIN: usize = 2_000;
/// Most messages that are read at a time.
const READ_MESSAGES_MAX: usize = 1_000;
/// How many batches may wait for a read model that takes longer than the others. Then all wait for it.
const BATCHES_WAITING_MAX: usize = 16;

/// One reading for several takers.
#[derive(Debug, Default)]
pub(super) struct Reading {
    takers: Vec<Taker>,
}

#[derive(Debug)]
struct Taker {
    /// The last position that it has already.
    after: u64,
    /// The last position that it wants.
    to: u64,
    batches: mpsc::Sender<Vec<LogMessage>>,
}

impl Reading {
    /// What lies after `after`, up to `to`. The batches end there, or before it if the log cannot be read any further.
    pub(super) fn take(&mut self, after: u64, to: u64) -> mpsc::Receiver<Vec<LogMessage>> {
        let (batches, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
        if after < to {
            self.takers.push(Taker { after, to, batches });
        }
        receiver
    }

    /// Reads until every taker has what it wants, or is gone.
    pub(super) async fn run(mut self, store: JetStreamEventStore) {
        let Some(after) = self.takers.iter().map(|taker| taker.after).min() else { return };
        let mut reader = store.read_from(after + 1);
        let mut gathered = Vec::with_capacity(BATCH_MESSAGES_MIN + READ_MESSAGES_MAX);
        while let Some(end) = self.takers.iter().map(|taker| taker.to).max() {
            let read = reader.next_batch(READ_MESSAGES_MAX).await;
            // A gap is met, and told, by each taker itself, as it reads on alone.
            let is_gap = read.is_err();
            gathered.extend(read.unwrap_or_default());
            let is_at_end = is_gap || gathered.last().is_some_and(|last: &LogMessage| last.position >= end);
            if gathered.len() < BATCH_MESSAGES_MIN && !is_at_end {
                continue;
            }
            let mut left = Vec::with_capacity(self.takers.len());
            for taker in self.takers {
                if taker.hand(&gathered).await {
                    left.push(taker);
                }
            }
            if is_gap {
                return;
            }
            self.takers = left;
            gathered.clear();
        }
    }
}

impl Taker {
    /// Whether it wants more.
    async fn hand(&self, messages: &[LogMessage]) -> bool {
        // Positions follow on one another.
        let begin = messages.partition_point(|message| message.position <= self.after);
        let end = messages.partition_point(|message| message.position <= self.to);
        let batch = messages[begin.min(end)..end].to_vec();
        let is_gone = !batch.is_empty() && self.batches.send(batch).await.is_err();
        let is_at_end = messages.last().is_some_and(|last| last.position >= self.to);
        !is_gone && !is_at_end
    }
}
