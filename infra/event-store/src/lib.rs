//! The log on JetStream: the source of truth, and the only crate that knows JetStream's wire rules.
//!
//! * [`JetStreamEventStore::append`]: one [`Transaction`], all or nothing, under optimistic concurrency.
//! * [`JetStreamEventStore::load`] and [`execute`](JetStreamEventStore::execute): an aggregate, and a decision on it.
//!   Folded aggregates are cached, and long ones have snapshots; [`metrics`](JetStreamEventStore::metrics) says how well that goes.
//! * [`JetStreamEventStore::read_from`]: the whole log in order, for projectors; [`tail`](JetStreamEventStore::tail) its end,
//!   for all parts of one process at once.
//! * [`JetStreamEventStore::work_queue`]: events handed out for acknowledgement, for reactors; [`backlog`](JetStreamEventStore::backlog) tells how many wait.
//! * [`JetStreamEventStore::set_timers`]: events that come again at a given time.
//! * [`JetStreamEventStore::dead_letters`]: what they gave up on, and [`redrive`](JetStreamEventStore::redrive), which has it tried again.
//! * [`JetStreamEventStore::set_up`]: creates the streams; no service calls it but `projectors migrate`.
//! * [`JetStreamEventStore::copy_stream`] and [`restore_stream`](JetStreamEventStore::restore_stream): backups, for `projectors log`.
//!
//! What JetStream guarantees and what it does not is written in DESIGN §3 and in `infra/adr/`; the comments here name
//! the fact that each piece of code rests on.

mod access;
mod backup;
mod connection;
mod set_up;

mod transaction;

mod append;
mod group_commit;
mod publish;

mod execute;
mod leaders;
mod load;

mod cache;
mod page;
mod snapshot_bucket;
mod snapshots;

mod backlog;
mod reader;
mod tail;
mod trouble;
mod work_queue;

mod dead_letters;
mod echo;
mod redrive;
mod timers;

mod metrics;

mod cqrs;

mod wire;

pub use access::{NatsAccess, NatsArgs, options, servers};
pub use append::{AppendError, Appended};
pub use backlog::Backlog;
pub use backup::{BACKED_UP_STREAMS, CopyError, Extent, QueuePosition, StandingStream, StreamCopy, StreamRestore};
pub use cache::{CACHE_BYTES, CacheStats};
pub use connection::{ConnectError, JetStreamEventStore};
pub use cqrs::{JetStreamContext, METADATA_KEYS};
pub use dead_letters::{DeadLetter, KeptLetter};
pub use execute::{ExecuteError, Executed};
pub use group_commit::AppendStats;
pub use load::{LoadError, Loaded, ReadError, RecordedEvent};
pub use metrics::{LogMetrics, StoreMetrics};
pub use reader::{LogMessage, LogReader};
pub use redrive::Redriven;
pub use set_up::SetUpError;
pub use snapshots::SnapshotStats;
pub use tail::{LogTail, TailReader};
pub use timers::Timer;
pub use transaction::{EventContext, Expected, Transaction};
pub use wire::{DEAD_LETTER_STREAM, DISCARDED_LETTER_STREAM, SNAPSHOT_BUCKET, STREAM, TIMER_STREAM, TRANSACTION_EVENTS_MAX};
pub use work_queue::{Beginning, HAND_BACK_PAUSE, Sharing, TAKEOVER_AFTER, WorkItem, WorkQueue, WorkQueueOptions, WorkSource};
