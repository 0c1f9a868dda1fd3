//! How far a load is, for whoever looks on.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that only grow.
#[derive(Debug, Default)]
pub struct Counters {
    placed: AtomicU64,
    confirmed: AtomicU64,
    rejected: AtomicU64,
    cancelled: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Orders that were answered 2xx.
    pub placed: u64,
    /// Orders seen as `CONFIRMED`, or later.
    pub confirmed: u64,
    /// Orders seen as `REJECTED`.
    pub rejected: u64,
    /// Orders seen as `CANCELLED`.
    pub cancelled: u64,
}

impl Counts {
    /// Orders that came to an end.
    pub fn settled(self) -> u64 {
        self.confirmed + self.rejected + self.cancelled
    }
}

impl Counters {
    /// The counts now.
    pub fn now(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            placed: read(&self.placed),
            confirmed: read(&self.confirmed),
            rejected: read(&self.rejected),
            cancelled: read(&self.cancelled),
        }
    }

    pub(super) fn placed(&self) {
        self.placed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn settled(&self, status: &str) {
        let counter = match status {
            "REJECTED" => &self.rejected,
            "CANCELLED" => &self.cancelled,
            _ => &self.confirmed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
