//! Projectors: fold the log's events into the read models in Postgres, and build these anew when asked.
//!
//! * [`live`]: the running projections, each event exactly once whatever dies when.
//! * [`replay`]: a read model built anew beside the live one, then swapped in, or compared with it.
//! * [`audit`]: the Merkle tree over the log, its signed heads, and exports that anybody can verify offline.
//! * [`backup`]: the log and its queues, copied into a folder and restored from there.
//! * [`read_models`]: how events become rows; the same code for all of the above.
//!
//! Nothing here can charge a card or send a mail: this crate links no client of either, so a replay has no side effects.

pub mod read_models;

mod checkpoints;
mod copy;
mod feed;
mod metrics;

pub mod live;

pub mod replay;

pub mod audit;

pub mod backup;

pub mod failure;
pub mod log;
mod progress;
pub mod settings;

pub mod migrate;
pub mod run;
pub mod skips;
pub mod status;
pub mod watch;
