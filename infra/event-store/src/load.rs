//! Reading one aggregate: from what is cached or in a snapshot, if there is that, and always what the log has since.
//!
//! A direct get can be answered by a follower and be behind (DESIGN §3). For a decision that appends, optimistic
//! concurrency makes that harmless; for one that appends nothing, [`execute`](JetStreamEventStore::execute) asks the
//! leader whether the state was current.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use cqrs_es::Aggregate;
use domain::{DecodeError, SnapshotState, envelope::StoredEvent};

use crate::{
    CacheStats, JetStreamEventStore, SnapshotStats,
    cache::Recalled,
    page::{Page, Positions},
    snapshots::SNAPSHOT_EVENTS,
    transaction::{Expected, hash_of},
    wire::{self, EVENT_SUBJECTS, STREAM},
    work_queue::WorkItem,
};

/// Messages asked for in the first direct get of a load: most aggregates have fewer events, and of a long one, whose snapshot
/// is read next, they are in vain.
const FIRST_PAGE_MESSAGES_MAX: usize = 32;
/// Messages asked for in each further one.
const PAGE_MESSAGES_MAX: usize = 1_000;
/// Pages after which what is folded so far is kept in the cache, should the rest not be read.
const PAGES_REMEMBERED: u64 = 8;
/// Messages asked for in each step of the search for one event.
const PROBE_MESSAGES_MAX: usize = 128;
/// Steps of that search; each second one halves what is left.
const PROBES_MAX: u32 = 128;

/// Pause before another look at an aggregate of which a follower was behind.
pub(crate) const STALE_PAUSE: Duration = Duration::from_millis(5);
/// How long a follower may be behind before nobody waits for it any more.
const STALE_MAX: Duration = Duration::from_secs(10);

/// An aggregate, and where in the log it ends.
#[derive(Clone, Debug, Default)]
pub struct Loaded<A> {
    /// The fold of its events; the default if it has none.
    pub aggregate: A,
    /// How many events it has.
    pub version: u64,
    /// The position of its last event; 0 if it has none.
    pub position: u64,
}

impl<A> Loaded<A> {
    /// The condition under which events decided on this state may be appended.
    pub fn expected(&self) -> Expected {
        Expected { version: self.version, position: self.position }
    }
}

impl<A: Aggregate> Loaded<A> {
    /// Folds in `events`, which were appended after this state, the last of them at `last_position`.
    pub fn advance(&mut self, events: &[A::Event], last_position: u64) {
        for event in events {
            self.aggregate.apply(event.clone());
        }
        self.version += events.len() as u64;
        self.position = last_position;
    }
}

/// One event and its place in the log.
#[derive(Clone, Debug)]
pub struct RecordedEvent {
    /// Its stream sequence.
    pub position: u64,
    /// What was stored.
    pub event: StoredEvent,
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The server is away, has no leader, or does not answer in time.
    #[error("read the log: no answer from the server ({0})")]
    Unavailable(String),
    /// A position is missing: the log was tampered with or restored incompletely.
    #[error("read the log: position {expected} is missing, the next one is {found}")]
    Gap {
        /// The position that had to come.
        expected: u64,
        /// The position that came.
        found: u64,
    },
}

/// Why an aggregate could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The id cannot be a subject token, so no aggregate has it.
    #[error("{0:?} cannot be an aggregate's id")]
    InvalidId(String),
    /// A stored event cannot be read by this build.
    #[error("decode the event at position {position}")]
    Decode {
        /// Where it is.
        position: u64,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// An event's version is not the one that its place demands.
    #[error("the event at position {position} has version {found} where {expected} had to come")]
    Version {
        /// Where it is.
        position: u64,
        /// The version that its place demands.
        expected: u64,
        /// The version that it states.
        found: u64,
    },
}

impl JetStreamEventStore {
    /// The position of the last event, 0 if there is none. Answered by the leader.
    pub async fn head(&self) -> Result<u64, ReadError> {
        let stream = self.connection.jetstream.get_stream(STREAM).await;
        let stream = stream.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        self.connection.seen.is(&stream.cached_info().state);
        Ok(self.connection.seen.head())
    }

    /// The position of the last event that is there to be read, 0 if there is none. It differs from [`head`](Self::head) only where
    /// somebody has taken events out of the log. Answered by the leader.
    pub async fn last_readable(&self) -> Result<u64, ReadError> {
        let unavailable = |error: &dyn std::error::Error| ReadError::Unavailable(error.to_string());
        let stream = self.connection.jetstream.get_stream_no_info(STREAM).await.map_err(|error| unavailable(&error))?;
        match stream.get_last_raw_message_by_subject(EVENT_SUBJECTS).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The aggregate `id`, folded from all its events; the default at version 0 if it has none.
    ///
    /// Starts from what this process folded last of it, or from a snapshot if it is long, and always asks the log for what
    /// follows.
    pub async fn load<A: SnapshotState>(&self, id: &str) -> Result<Loaded<A>, LoadError> {
        let Recalled { mut loaded, was_cached } = self.cache.recall(id);
        self.fold_onto(id, &mut loaded, u64::MAX).await?;
        self.cache.count(was_cached, loaded.version);
        self.remember(id, &loaded);
        Ok(loaded)
    }

    /// Keeps `loaded`, the state of aggregate `id` after a load, or after an append that the caller has made, so that the next
    /// load starts from it; and takes a snapshot in the background once there are many events since the last one.
    ///
    /// Costs nothing but a look where the state is kept already.
    pub fn remember<A: SnapshotState>(&self, id: &str, loaded: &Loaded<A>) {
        self.cache.remember(id, loaded);
        self.consider_snapshot(id, loaded);
    }

    /// The aggregate `id` as this process knows it, without asking the log: it may have moved on. `None` if it is not known.
    ///
    /// For whoever appends what is decided on it, so that optimistic concurrency shows if it has moved.
    pub fn recall<A: SnapshotState>(&self, id: &str) -> Option<Loaded<A>> {
        let Recalled { loaded, was_cached } = self.cache.recall(id);
        was_cached.then_some(loaded)
    }

    /// The aggregate `id`, if this process knows of more than `version` events of it. The log is not asked.
    pub fn recall_beyond<A: SnapshotState>(&self, id: &str, version: u64) -> Option<Loaded<A>> {
        let is_known = self.cache.version::<A>(id) > version;
        is_known.then(|| self.recall(id)).flatten().filter(|loaded| loaded.version > version)
    }

    /// Folds the event of `item` into what is kept of its aggregate, if it is the next one there, so that nobody has to ask for it:
    /// of an aggregate of which nothing is kept, its first event. One of another type is none of `A`.
    ///
    /// An event that cannot be decoded is left for whoever handles it.
    pub fn witness<A: SnapshotState>(&self, item: &WorkItem, event: &StoredEvent) {
        let metadata = &event.metadata;
        let id = metadata.aggregate_id.as_str();
        let is_next = metadata.aggregate_type == A::TYPE && self.cache.version::<A>(id) + 1 == metadata.version;
        if !is_next || !item.is_in_its_place(event) {
            return;
        }
        let Recalled { mut loaded, .. } = self.cache.recall::<A>(id);
        let Ok(change) = event.decode::<A::Event>() else { return };
        if loaded.version + 1 == metadata.version {
            loaded.advance(&[change], item.position);
            self.remember(id, &loaded);
        }
        self.appender.saw(hash_of(&wire::subject(A::TYPE, id)), item.position);
    }

    /// Which of these aggregates, given by id and where each is thought to end, end somewhere else: in one request for 512 of
    /// them. A server that is behind may not tell of the newest events; optimistic concurrency will.
    pub async fn moved<'a, A: SnapshotState>(
        &self,
        known: impl IntoIterator<Item = (&'a str, Expected)>,
    ) -> Result<Vec<&'a str>, ReadError> {
        let known: Vec<_> = known.into_iter().map(|(id, expected)| (id, wire::subject(A::TYPE, id), expected.position)).collect();
        let subjects: Vec<_> = known.iter().map(|(_, subject, _)| subject.as_str()).collect();
        let positions = self.connection.last_positions(&subjects).await?;
        let is_elsewhere = |subject: &String, position: u64| positions.get(subject).copied().unwrap_or(0) != position;
        Ok(known.iter().filter(|(_, subject, position)| is_elsewhere(subject, *position)).map(|(id, ..)| *id).collect())
    }

    /// What the cache of aggregates has done so far, and what is in it.
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// What has been done with snapshots so far.
    pub fn snapshot_stats(&self) -> SnapshotStats {
        self.snapshots.stats()
    }

    /// The aggregate `id` as it was right after its event number `version`, or as it is if it has fewer.
    pub async fn load_at<A: SnapshotState>(&self, id: &str, version: u64) -> Result<Loaded<A>, LoadError> {
        let mut loaded = Loaded::default();
        self.fold_onto(id, &mut loaded, version).await?;
        Ok(loaded)
    }

    /// Every event of one aggregate, oldest first.
    pub async fn events_of(&self, aggregate_type: &str, id: &str) -> Result<Vec<RecordedEvent>, LoadError> {
        let subject = subject_of(aggregate_type, id)?;
        let mut events = Vec::new();
        let mut next = Some(1);
        while let Some(from) = next {
            let page = self.page(&subject, from, PAGE_MESSAGES_MAX, Positions::OfEach).await?;
            for event in page.events() {
                events.push(event?);
            }
            next = page.next_position();
        }
        Ok(events)
    }

    /// Event number `version` of aggregate `id`, which is known to end at `end` or later. `None` if there is no such event, or
    /// not on the replica of the log that answers.
    ///
    /// Takes a few requests, however long the aggregate is: its versions and its positions grow together.
    pub async fn event_at<A: Aggregate>(&self, id: &str, version: u64, end: Expected) -> Result<Option<RecordedEvent>, LoadError> {
        let subject = subject_of(A::TYPE, id)?;
        if version == 0 || version > end.version {
            return Ok(None);
        }
        // The event is behind `low` and not behind `high`.
        let (mut low, mut high) = (Expected::NEW, end);
        for probe in 0..PROBES_MAX {
            let from = probe_position(version, low, high, probe % 2 == 1);
            let page = self.page(&subject, from, PROBE_MESSAGES_MAX, Positions::OfEach).await?;
            let events: Vec<_> = page.events().collect::<Result<_, _>>()?;
            let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(None) };
            if version < first.event.metadata.version {
                high = Expected { version: first.event.metadata.version - 1, position: from - 1 };
            } else if last.event.metadata.version < version {
                low = Expected { version: last.event.metadata.version, position: last.position };
            } else {
                return Ok(events.into_iter().find(|recorded| recorded.event.metadata.version == version));
            }
            if high.position <= low.position {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Folds in what was appended to aggregate `id` since `loaded`, and returns whether anything was. The result is what
    /// the leader has at this moment, also where an ordinary load may be answered by a follower that is behind. It is
    /// [`ReadError::Unavailable`] where one stays behind for ten seconds.
    pub async fn refresh<A: SnapshotState>(&self, id: &str, loaded: &mut Loaded<A>) -> Result<bool, LoadError> {
        let before = loaded.version;
        let Recalled { loaded: known, was_cached } = self.cache.recall(id);
        if known.version > before {
            *loaded = known;
        }
        let subject = wire::subject(A::TYPE, id);
        let began = Instant::now();
        loop {
            self.fold_onto(id, loaded, u64::MAX).await?;
            if !self.connection.may_be_stale() || self.connection.end_at_leader(&subject).await? == loaded.position {
                self.cache.count(was_cached || before > 0, loaded.version);
                self.remember(id, loaded);
                return Ok(loaded.version > before);
            }
            if began.elapsed() >= STALE_MAX {
                let reason = format!("those who answer are behind the leader at {subject} for {} s", STALE_MAX.as_secs());
                return Err(ReadError::Unavailable(reason).into());
            }
            tokio::time::sleep(STALE_PAUSE).await;
        }
    }

    /// Folds the log's events behind `loaded` onto it, up to number `version_max`.
    async fn fold_onto<A: SnapshotState>(&self, id: &str, loaded: &mut Loaded<A>, version_max: u64) -> Result<(), LoadError> {
        let subject = subject_of(A::TYPE, id)?;
        if loaded.version > 0 && self.fold_last(&subject, loaded, version_max).await? {
            return Ok(());
        }
        // Only the last event's position is needed, unless the fold may end in the middle of a page.
        let positions = if version_max == u64::MAX { Positions::OfLast } else { Positions::OfEach };
        let mut from = loaded.position + 1;
        let mut page = self.page(&subject, from, FIRST_PAGE_MESSAGES_MAX, positions).await?;
        // Only where there is more to read than the page is a snapshot looked for: most aggregates never have one.
        let version_of_page = loaded.version + page.messages.len() as u64;
        let is_long = page.pending >= SNAPSHOT_EVENTS && version_of_page < version_max;
        // Boxed, because every load would be as large as the rare one that gets here.
        if is_long && let Some((restored, behind)) = Box::pin(self.restore(id, version_of_page + 1, version_max, positions)).await?
        {
            (from, *loaded, page) = (restored.position + 1, restored, behind);
        }
        for pages in 1_u64.. {
            match fold(loaded, &page, version_max) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(misfit) => return Err(self.locate(&subject, from, misfit).await?),
            }
            let Some(next) = page.next_position() else { return Ok(()) };
            // Whoever asked may not wait until the end of it, and the next one who asks goes on from here.
            if version_max == u64::MAX && pages.is_multiple_of(PAGES_REMEMBERED) {
                self.cache.remember(id, loaded);
            }
            from = next;
            page = self.page(&subject, from, PAGE_MESSAGES_MAX, positions).await?;
        }
        Ok(())
    }

    /// Brings `loaded` up to date if at most one event is new, and returns whether that was all. Asking for the last message of
    /// a subject is fast however large the log is; asking whether there is one after a position is not.
    async fn fold_last<A: SnapshotState>(
        &self,
        subject: &str,
        loaded: &mut Loaded<A>,
        version_max: u64,
    ) -> Result<bool, LoadError> {
        let Some((position, payload)) = self.last_message(subject).await? else { return Ok(true) };
        // A replica that is behind has less than what is known.
        if position <= loaded.position || loaded.version >= version_max {
            return Ok(true);
        }
        match fold_one(loaded, position, &payload) {
            Ok(()) => Ok(true),
            // There are more, which come first.
            Err(LoadError::Version { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The error that `misfit` is, now with its position: in a page that begins at `from`.
    async fn locate(&self, subject: &str, from: u64, misfit: Misfit) -> Result<LoadError, LoadError> {
        let page = self.page(subject, from, misfit.index + 1, Positions::OfEach).await?;
        let position = page.messages.get(misfit.index).and_then(|message| message.position).unwrap_or(page.last_position);
        Ok(match misfit.error {
            LoadError::Decode { source, .. } => LoadError::Decode { position, source },
            LoadError::Version { expected, found, .. } => LoadError::Version { position, expected, found },
            other => other,
        })
    }
}

/// An event that cannot be folded in.
struct Misfit {
    /// The how many-th of its page it is, from 0.
    index: usize,
    /// What is wrong with it; its position may not be right.
    error: LoadError,
}

/// Folds a page in, and returns whether `version_max` is reached.
fn fold<A: SnapshotState>(loaded: &mut Loaded<A>, page: &Page, version_max: u64) -> Result<bool, Misfit> {
    for (index, message) in page.messages.iter().enumerate() {
        if loaded.version == version_max {
            return Ok(true);
        }
        let position = message.position.unwrap_or(page.last_position);
        fold_one(loaded, position, &message.payload).map_err(|error| Misfit { index, error })?;
    }
    Ok(loaded.version == version_max)
}

fn fold_one<A: SnapshotState>(loaded: &mut Loaded<A>, position: u64, payload: &[u8]) -> Result<(), LoadError> {
    let read = StoredEvent::version_and_event(payload);
    let (found, event) = read.map_err(|source| LoadError::Decode { position, source })?;
    let expected = loaded.version + 1;
    if found != expected {
        return Err(LoadError::Version { position, expected, found });
    }
    loaded.aggregate.apply(event);
    (loaded.version, loaded.position) = (expected, position);
    Ok(())
}

fn subject_of(aggregate_type: &str, id: &str) -> Result<String, LoadError> {
    if wire::is_token(id) && wire::is_token(aggregate_type) {
        Ok(wire::subject(aggregate_type, id))
    } else {
        Err(LoadError::InvalidId(id.to_owned()))
    }
}

/// Where to look for event number `version`, which is behind `low` and not behind `high`: half a page before where it would be
/// if the events were evenly spread, or in the middle.
fn probe_position(version: u64, low: Expected, high: Expected, in_the_middle: bool) -> u64 {
    let (positions, events) = (high.position - low.position, high.version - low.version);
    if events <= PROBE_MESSAGES_MAX as u64 {
        return low.position + 1;
    }
    if in_the_middle {
        return low.position + 1 + (positions - 1) / 2;
    }
    let ahead = (version - low.version).saturating_sub(PROBE_MESSAGES_MAX as u64 / 2);
    let share = u128::from(positions) * u128::from(ahead) / u128::from(events);
    let share = u64::try_from(share).expect("a part of the positions is no more than all of them");
    low.position + share.clamp(1, positions)
}
