//! An aggregate's state as it is kept outside of the log.

use cqrs_es::Aggregate;

use crate::EventPayload;

/// A state that is kept in memory and in snapshots, so that not every load folds all events.
pub trait SnapshotState: Aggregate<Event: EventPayload> + Clone + 'static {
    /// Raised with every change to the shape of the state, or to what `evolve` makes of an event. A snapshot of another version
    /// is not used. `domain/tests/states/` holds a state of every version, so that a change without a raise is noticed.
    const SNAPSHOT_VERSION: u32;

    /// About how many bytes of memory it takes. Asked whenever it is kept, so it must cost next to nothing.
    fn approximate_bytes(&self) -> usize;
}
