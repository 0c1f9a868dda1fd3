//! Snapshots of long aggregates: when one is taken, and when one is used.
//!
//! A snapshot spares a load the events before it, and that is all it does: the log is asked whether the aggregate's event of
//! that version is where the snapshot says, and for everything after it. What cannot be used is left alone, so the bucket can
//! be deleted at any time. Taking one never delays or fails anybody.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::SnapshotState;
use tokio::sync::Semaphore;

use crate::{
    JetStreamEventStore, Loaded, ReadError, RecordedEvent,
    load::STALE_PAUSE,
    page::{Page, Positions},
    snapshot_bucket::{Manifest, Prepared, Stored},
    wire,
};

/// Events after a snapshot that make another one due, and before which none is looked for.
pub(crate) const SNAPSHOT_EVENTS: u64 = 200;
/// A large state waits for more events: one for each so many bytes of it. Reading those events then costs no more than reading
/// the state, and writing it stays in proportion to what is appended.
const STATE_BYTES_PER_EVENT: usize = 16 * 1024;
/// Snapshots that one store takes at the same time.
const IN_FLIGHT_MAX: usize = 2;
/// Long aggregates of which the last snapshot is remembered; when there are more, all are forgotten.
const KNOWN_MAX: usize = 50_000;
/// How long a load waits for a snapshot before it goes on without one.
const USE_DEADLINE: Duration = Duration::from_secs(2);
/// How long taking one may take.
const TAKE_DEADLINE: Duration = Duration::from_secs(60);
/// Events asked for behind a snapshot at first.
const TAIL_MESSAGES_MAX: usize = 256;
/// How often a replica of the log that is behind a snapshot is asked.
const STALE_ATTEMPTS_MAX: u32 = 3;

/// What is known of snapshots in this process.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// By subject: the version of the last one that is known to exist, or was tried.
    known: Mutex<HashMap<String, u64>>,
    permits: Arc<Semaphore>,
    used: AtomicU64,
    ignored: AtomicU64,
    taken: AtomicU64,
    failed: AtomicU64,
}

/// What has been done with snapshots so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Loads that began with one.
    pub used: u64,
    /// Snapshots that were found and not used: of another version, not whole, or not of this log.
    pub ignored: u64,
    /// Snapshots taken.
    pub taken: u64,
    /// Attempts to read or take one that failed.
    pub failed: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        let (known, permits, counter) = (Mutex::default(), Arc::new(Semaphore::new(IN_FLIGHT_MAX)), AtomicU64::default);
        Self { known, permits, used: counter(), ignored: counter(), taken: counter(), failed: counter() }
    }
}

impl Snapshots {
    /// Whether another snapshot of an aggregate at `version` is due; if so, it counts as tried.
    fn is_due(&self, subject: &str, version: u64, state_bytes: usize) -> bool {
        let events_between = SNAPSHOT_EVENTS.max((state_bytes / STATE_BYTES_PER_EVENT) as u64);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Of one that nothing is known of, there may be a recent snapshot; then nothing is written.
        if known.get(subject).is_some_and(|last| version < last + events_between) {
            return false;
        }
        note(&mut known, subject, version);
        true
    }

    fn exists(&self, subject: &str, version: u64) {
        note(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner), subject, version);
    }

    pub(crate) fn stats(&self) -> SnapshotStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Self { used, ignored, taken, failed, .. } = self;
        SnapshotStats { used: read(used), ignored: read(ignored), taken: read(taken), failed: read(failed) }
    }
}

fn note(known: &mut HashMap<String, u64>, subject: &str, version: u64) {
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    known.insert(subject.to_owned(), version);
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why a snapshot was not used.
enum Unusable {
    /// It was found, and is not what it has to be.
    Ignored(&'static str),
    /// The bucket could not be asked.
    Failed(String),
    /// A newer one took its place while it was read.
    Replaced,
    /// The log could not be asked.
    Log(ReadError),
}

impl From<String> for Unusable {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl JetStreamEventStore {
    /// The aggregate as its snapshot has it, at a version from `version_min` up to `version_max`, with the log's next page. `None`
    /// if there is no such snapshot.
    pub(crate) async fn restore<A: SnapshotState>(
        &self,
        id: &str,
        version_min: u64,
        version_max: u64,
        positions: Positions,
    ) -> Result<Option<(Loaded<A>, Page)>, ReadError> {
        let subject = wire::subject(A::TYPE, id);
        let restored = async {
            match self.try_restore(id, &subject, version_min, version_max, positions).await {
                Err(Unusable::Replaced) => self.try_restore(id, &subject, version_min, version_max, positions).await,
                restored => restored,
            }
        };
        let restored = tokio::time::timeout(USE_DEADLINE, restored).await;
        match restored.unwrap_or_else(|_| Err(Unusable::Failed("no answer in time".to_owned()))) {
            Ok(Some((loaded, page))) => {
                count(&self.snapshots.used);
                self.snapshots.exists(&subject, loaded.version);
                Ok(Some((loaded, page)))
            }
            Ok(None) => Ok(None),
            Err(Unusable::Ignored(reason)) => {
                count(&self.snapshots.ignored);
                tracing::debug!(subject, "the snapshot of {subject} is ignored: {reason}");
                Ok(None)
            }
            Err(Unusable::Failed(reason)) => {
                count(&self.snapshots.failed);
                tracing::debug!(subject, "the snapshot of {subject} could not be read: {reason}");
                Ok(None)
            }
            Err(Unusable::Replaced) => {
                count(&self.snapshots.ignored);
                tracing::debug!(subject, "the snapshot of {subject} was replaced twice while it was read");
                Ok(None)
            }
            Err(Unusable::Log(error)) => Err(error),
        }
    }

    async fn try_restore<A: SnapshotState>(
        &self,
        id: &str,
        subject: &str,
        version_min: u64,
        version_max: u64,
        positions: Positions,
    ) -> Result<Option<(Loaded<A>, Page)>, Unusable> {
        let (_, stored) = self.connection.stored_snapshot(A::TYPE, id).await?;
        let Some(stored) = stored else { return Ok(None) };
        let manifest = stored.manifest.clone();
        if !manifest.is_of::<A>(id) {
            return Err(Unusable::Ignored("it is of another aggregate, or of another version of its state"));
        }
        if !(version_min..=version_max).contains(&manifest.version) {
            return Ok(None);
        }
        let (end, page, state) = tokio::join!(
            self.check_end(subject, &manifest),
            self.page(subject, manifest.position + 1, TAIL_MESSAGES_MAX, positions),
            self.state::<A>(id, stored),
        );
        end?;
        let (page, aggregate) = (page.map_err(Unusable::Log)?, state?);
        Ok(Some((Loaded { aggregate, version: manifest.version, position: manifest.position }, page)))
    }

    async fn state<A: SnapshotState>(&self, id: &str, stored: Stored) -> Result<A, Unusable> {
        let manifest = stored.manifest.clone();
        if let Some(state) = self.connection.snapshot_state(stored).await? {
            return Ok(state);
        }
        // Parts go when a newer snapshot is there.
        let (_, newer) = self.connection.stored_snapshot(A::TYPE, id).await?;
        match newer {
            Some(newer) if newer.manifest == manifest => Err(Unusable::Ignored("it is not whole")),
            _ => Err(Unusable::Replaced),
        }
    }

    /// Whether the log has the snapshot's last event where the snapshot says.
    async fn check_end(&self, subject: &str, manifest: &Manifest) -> Result<(), Unusable> {
        let last = self.last_event(subject, manifest.position).await.map_err(Unusable::Log)?;
        let last = last.map(|last| last.event.metadata).map(|metadata| (metadata.version, metadata.event_id));
        if last == Some((manifest.version, manifest.event_id)) {
            return Ok(());
        }
        Err(Unusable::Ignored("its last event is not where it says"))
    }

    /// The event at `position`. A replica of the log that is behind is asked again.
    async fn last_event(&self, subject: &str, position: u64) -> Result<Option<RecordedEvent>, ReadError> {
        for _ in 1..STALE_ATTEMPTS_MAX {
            let event = self.event_on(subject, position).await?;
            if event.is_some() || !self.connection.may_be_stale() {
                return Ok(event);
            }
            tokio::time::sleep(STALE_PAUSE).await;
        }
        self.event_on(subject, position).await
    }

    /// Takes a snapshot of `loaded`, the state of aggregate `id`, in the background once there are many events since the last one.
    ///
    /// For whoever keeps the state itself; [`remember`](Self::remember) does it too.
    pub fn consider_snapshot<A: SnapshotState>(&self, id: &str, loaded: &Loaded<A>) {
        if loaded.version < SNAPSHOT_EVENTS {
            return;
        }
        let subject = wire::subject(A::TYPE, id);
        // When others are being taken, this one waits for its next event.
        let Ok(permit) = Arc::clone(&self.snapshots.permits).try_acquire_owned() else { return };
        if !self.snapshots.is_due(&subject, loaded.version, loaded.aggregate.approximate_bytes()) {
            return;
        }
        let (store, id, loaded) = (self.clone(), id.to_owned(), loaded.clone());
        tokio::spawn(async move {
            let taken = tokio::time::timeout(TAKE_DEADLINE, store.take_snapshot(&id, &subject, loaded)).await;
            match taken.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(true) => count(&store.snapshots.taken),
                Ok(false) => {}
                Err(reason) => {
                    count(&store.snapshots.failed);
                    tracing::debug!(subject, "no snapshot of {subject} was taken: {reason}");
                }
            }
            drop(permit);
        });
    }

    /// Returns whether one was taken: not if there is one that is as good.
    async fn take_snapshot<A: SnapshotState>(&self, id: &str, subject: &str, loaded: Loaded<A>) -> Result<bool, String> {
        let (revision, stored) = self.connection.stored_snapshot(A::TYPE, id).await?;
        let known = stored.map(|stored| stored.manifest);
        let had_parts = known.as_ref().is_some_and(|known| known.parts > 0);
        let known = known.filter(|known| known.is_of::<A>(id) && known.version + SNAPSHOT_EVENTS > loaded.version);
        if let Some(known) = known {
            self.snapshots.exists(subject, known.version);
            return Ok(false);
        }
        // No snapshot is taken of what the log does not say.
        let last = self.last_event(subject, loaded.position).await.map_err(|error| error.to_string())?;
        let last = last.map(|last| last.event.metadata).filter(|metadata| metadata.version == loaded.version);
        let event_id = last.ok_or("the log does not have its last event")?.event_id;
        let (id, message_bytes_max) = (id.to_owned(), self.connection.client.max_payload());
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(&id, &loaded, event_id, message_bytes_max));
        let prepared = prepared.await.map_err(|error| error.to_string())?.ok_or("the state is too large")?;
        self.connection.write_snapshot(prepared, revision, had_parts).await?;
        Ok(true)
    }
}
