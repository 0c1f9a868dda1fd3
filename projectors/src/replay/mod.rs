//! `projectors replay`: read models built anew from the log, beside the live ones.
//!
//! The new tables grow in schemas of their own while queries read the old ones and the live projections go on. The log is read once,
//! however many read models are rebuilt, each of them by a task and a connection of its own: events are folded in memory, rows are
//! copied in bulk, and indexes made when all rows are there. Then one transaction either swaps a table, together with the checkpoint,
//! or (with `--verify`) compares it and changes nothing.
//!
//! What is built is kept when the command is interrupted, and gone on with when the same program is started again; another build of
//! it may fold differently, so that one begins anew.

mod reading;

mod beside;
mod build;
mod site;

mod compare;
mod difference_log;
mod swap;

mod report;

use event_store::JetStreamEventStore;
use read_store::{pool::BY_INDEX, projections::ProjectionName};
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinSet;

pub use compare::{ColumnDifference, Comparison, DIFFERENCES_MAX, Difference, DifferenceKind};
pub use difference_log::DifferenceLog;
pub use report::{Report, render, render_abandoned};

use self::{reading::Reading, site::Site};
use crate::{failure::Failure, progress::Board};

/// Settings of the connections that build. What is not on disk yet when Postgres dies is built again, since rows and progress are
/// committed together; only the swap waits for the disk. Sorting for an index may take so much memory.
const BULK_SETTINGS: [(&str, &str); 3] =
    [("synchronous_commit", "off"), ("maintenance_work_mem", "256MB"), ("max_parallel_maintenance_workers", "0")];

/// What becomes of the tables that were built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They take the place of the live ones. Ends a halt, too.
    Swap,
    /// They are built up to this position only, and take the place of the live ones, which go back to there if they were ahead. A live
    /// projection goes on from there at once.
    SwapAt(u64),
    /// They are compared with the live ones and dropped.
    Verify,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Replayer {
    store: JetStreamEventStore,
    options: PgConnectOptions,
    differences: Option<DifferenceLog>,
}

impl Replayer {
    /// Reads the log by `store`, and builds by connections of its own.
    pub fn new(store: JetStreamEventStore, options: PgConnectOptions) -> Self {
        // The tables that are built begin empty, and only a comparison reads whole tables.
        Self { store, options: options.options(BULK_SETTINGS).options(BY_INDEX), differences: None }
    }

    /// The same, which also writes every difference that it finds into `differences`.
    #[must_use]
    pub fn with_differences_in(self, differences: DifferenceLog) -> Self {
        Self { differences: Some(differences), ..self }
    }

    /// Rebuilds one read model, as [`replay_all`](Self::replay_all) does.
    pub async fn replay(&self, name: ProjectionName, purpose: Purpose) -> Result<Report, Failure> {
        let mut outcomes = self.replay_all(&[name], purpose).await?;
        outcomes.pop().expect("there is one outcome for each read model")
    }

    /// Rebuilds read models side by side. Can be dropped at any time; see the module about what is kept. Returns what became of each,
    /// in the order of `names`: one that fails does not stop the others, and is not swapped. It fails with [`Failure::Integrity`] if
    /// the log does not agree with what was recorded of it.
    ///
    /// Fails as a whole, before anything is built, with [`Failure::Conflict`] while another replay of one of them runs, and with
    /// [`Failure::Integrity`] if the log ends before a live read model.
    pub async fn replay_all(&self, names: &[ProjectionName], purpose: Purpose) -> Result<Vec<Result<Report, Failure>>, Failure> {
        let sites = self.prepare(names, purpose).await?;
        let board = Board::default();
        let mut reading = Reading::default();
        let mut rebuilds = JoinSet::new();
        for (index, site) in sites.into_iter().enumerate() {
            let batches = reading.take(site.checkpoint().position, site.target());
            let (store, board) = (self.store.clone(), board.clone());
            rebuilds.spawn(async move { (index, site.rebuild(store, batches, &board).await) });
        }
        // A task beside that of the connection, so that a message does not have to wake another thread.
        let mut readings = JoinSet::new();
        readings.spawn(reading.run(self.store.clone()));
        let mut outcomes = Vec::with_capacity(names.len());
        while let Some(joined) = rebuilds.join_next().await {
            outcomes.push(joined.map_err(Failure::other("rebuild a read model"))?);
        }
        outcomes.sort_unstable_by_key(|(index, _)| *index);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    /// Drops what interrupted replays of these read models have left. Returns of which there was something.
    ///
    /// Fails with [`Failure::Conflict`] while a replay of one of them runs.
    pub async fn abandon(options: &PgConnectOptions, names: &[ProjectionName]) -> Result<Vec<ProjectionName>, Failure> {
        let mut abandoned = Vec::new();
        for name in names {
            if site::abandon(options, *name).await? {
                abandoned.push(*name);
            }
        }
        Ok(abandoned)
    }

    /// Locks every one of them before anything is built of any.
    async fn prepare(&self, names: &[ProjectionName], purpose: Purpose) -> Result<Vec<Site>, Failure> {
        let mut sites = Vec::with_capacity(names.len());
        for name in names {
            match Site::prepare(&self.options, &self.store, *name, purpose, self.differences.as_ref()).await {
                Ok(site) => sites.push(site),
                Err(failure) => {
                    for site in sites {
                        site.leave().await;
                    }
                    return Err(failure);
                }
            }
        }
        Ok(sites)
    }
}
