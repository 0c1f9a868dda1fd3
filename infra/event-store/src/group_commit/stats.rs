//! What the appender counts.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::{AppendError, Appended};

/// What a store's appender has done since it was connected, and who waits now. A snapshot; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendStats {
    /// Transactions that wait for their turn now.
    pub waiting: usize,
    /// Up to how many single events go out next to one another, rather than as a batch, by what answers cost now.
    pub plains_max: usize,
    /// From how many waiting events on a batch goes out while another is in flight, by what answers cost now.
    pub next_batch_events_min: usize,
    /// Transactions that were appended.
    pub appended: u64,
    /// How long those took together, from [`append`](crate::JetStreamEventStore::append) to its answer.
    pub appended_time: Duration,
    /// Transactions that were answered with a conflict.
    pub conflicts: u64,
    /// Transactions of which nobody knows whether they were appended.
    pub unavailable: u64,
    /// Transactions that were turned away because too many waited.
    pub overloaded: u64,
    /// Transactions that went out by themselves.
    pub plains: u64,
    /// Batches that went out.
    pub batches: u64,
    /// Transactions in those batches.
    pub batch_transactions: u64,
    /// Events in those batches.
    pub batch_events: u64,
    /// Batches that the server refused because of one of their members.
    pub batches_refused: u64,
    /// Batches whose members were looked at before they went out, because conflicts were likely.
    pub batches_looked_at: u64,
    /// Attempts whose answer was lost.
    pub answers_lost: u64,
}

/// What the appender has seen, as distributions. Observing takes some tens of nanoseconds and no memory.
#[derive(Debug)]
pub(crate) struct AppendFigures {
    /// Events in a batch that was appended.
    pub(crate) batch_events: Histogram,
    /// Seconds from sending one event to its acknowledgement.
    pub(crate) plain_wait: Histogram,
    /// Seconds from sending the first event of a batch to the batch's acknowledgement.
    pub(crate) batch_wait: Histogram,
}

impl AppendFigures {
    pub(super) fn new() -> Self {
        // From a server that does not write to disk before it answers, to one whose disk stalls.
        let waits = || Histogram::new(exponential_buckets(0.000_125, 2.0, 15));
        Self {
            // To the most that one transaction takes.
            batch_events: Histogram::new([2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_000.0]),
            plain_wait: waits(),
            batch_wait: waits(),
        }
    }
}

impl AppendStats {
    pub(super) fn count(&mut self, outcome: &Result<Appended, AppendError>, took: Duration) {
        match outcome {
            Ok(_) => {
                self.appended += 1;
                self.appended_time += took;
            }
            Err(AppendError::Conflict { .. }) => self.conflicts += 1,
            Err(AppendError::Unavailable) => self.unavailable += 1,
            Err(AppendError::Overloaded) => self.overloaded += 1,
            Err(AppendError::Invalid(_) | AppendError::Refused { .. }) => {}
        }
    }
}
