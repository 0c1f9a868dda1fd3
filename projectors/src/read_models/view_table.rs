//! A read model with one row per aggregate, in the shape of `postgres_es::PostgresViewRepository`.

use std::fmt;

use domain::{
    DecodeError,
    envelope::{Metadata, StoredEventRef},
};
use event_store::LogMessage;
use read_store::{projections::ProjectionName, views::Stamp};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{PgConnection, Row, types::Json};

use super::{ApplyError, Checkpoint, Folded, ReadModel, Tables, Unapplicable, generations::Generations};
use crate::copy::{CopyRow, EncodedRows};

/// Most rows that one statement inserts; keeps what is ready to be written within about a megabyte.
const INSERT_ROWS_MAX: usize = 1_000;
/// Most rows that one statement changes; keeps its parameters within some megabytes.
const UPDATE_ROWS_MAX: usize = 5_000;

/// A view that is kept in a table of its own.
pub(crate) trait StoredView: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The table.
    const NAME: ProjectionName;
    /// An event that concerns the view, decoded.
    type Change: Send;

    /// The kinds of aggregates whose events concern it.
    const AGGREGATES: &'static [&'static str];

    /// Which row `event` concerns, and how; `None` if this read model is not about such aggregates.
    fn change(event: &StoredEventRef<'_>) -> Result<Option<(String, Self::Change)>, DecodeError>;

    /// Folds the change into the row of this id, or says why it cannot follow on what is folded in so far, and leaves the view as it was.
    fn apply(&mut self, id: &str, change: &Self::Change, stamp: &Stamp) -> Result<(), String>;

    /// The row that an event which is not applied belongs to, as far as its attributes tell; `None` if they do not.
    fn row_of<'e>(event: &'e StoredEventRef<'_>) -> Option<&'e str>;

    /// Counts an event that is not applied, if it would follow on what is folded in.
    fn pass(&mut self, event: &StoredEventRef<'_>);

    /// The table's columns, as [`StoredView::encode`] writes them.
    const COLUMNS: &'static [&'static str];

    /// Writes the row of this id.
    fn encode(&self, id: &str, row: &mut CopyRow<'_>);

    /// Changes rows that the table has, by one statement. Returns how many there were.
    fn update(
        connection: &mut PgConnection,
        table: &str,
        rows: &[(&str, &Self)],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;
}

/// Counts what a view's live table is changed by. What is not committed is not counted.
pub(crate) trait Tally<V: StoredView>: fmt::Debug + Send {
    /// `change` was folded into `view`.
    fn count(&mut self, view: &V, change: &V::Change);

    /// All that was counted so far is committed.
    fn commit(&mut self);

    /// What was counted and not committed never will be.
    fn forget(&mut self);
}

/// A [`ReadModel`] of one [`StoredView`] per row.
#[derive(Debug)]
pub(crate) struct ViewTable<V> {
    position: u64,
    /// Which table the rows are of.
    table: u32,
    rows: Generations<CachedRow<V>>,
    unwritten: usize,
    /// Where rows are made ready to be written.
    encoded: EncodedRows,
    /// Who counts what is folded in, if anybody does.
    tally: Option<Box<dyn Tally<V>>>,
}

#[derive(Debug)]
struct CachedRow<V> {
    view: V,
    /// Whether the table has a row of this id.
    is_stored: bool,
    /// Whether the table's row is this one.
    is_written: bool,
}

impl<V: Default> CachedRow<V> {
    /// A row that the table does not have, and need not have while nothing is folded in.
    fn new() -> Self {
        Self { view: V::default(), is_stored: false, is_written: true }
    }
}

impl<V: StoredView> ViewTable<V> {
    /// A read model that remembers up to `cached_rows_max` rows from batch to batch.
    pub(crate) fn new(cached_rows_max: usize) -> Self {
        let (rows, encoded) = (Generations::new(cached_rows_max), EncodedRows::of(V::COLUMNS));
        Self { position: 0, table: 0, rows, unwritten: 0, encoded, tally: None }
    }

    /// The same, of which `tally` counts what is folded in.
    pub(crate) fn counted_by(self, tally: impl Tally<V> + 'static) -> Self {
        Self { tally: Some(Box::new(tally)), ..self }
    }
}

impl<V: StoredView> ViewTable<V> {
    async fn load(&mut self, connection: &mut PgConnection, tables: &Tables, ids: &[&str]) -> Result<(), ApplyError> {
        let sql = format!("SELECT view_id, payload FROM {} WHERE view_id = ANY($1)", tables.of(V::NAME));
        for row in sqlx::query(&sql).bind(ids).fetch_all(connection).await? {
            let view_id: String = row.try_get("view_id")?;
            let Json(view) = row.try_get("payload").map_err(|error| {
                ApplyError::Unusable(format!("the stored row {view_id} cannot be read ({error}): replay {}", V::NAME))
            })?;
            self.rows.insert(view_id, CachedRow { view, is_stored: true, is_written: true });
        }
        Ok(())
    }
}

impl<V: StoredView> ReadModel for ViewTable<V> {
    const NAME: ProjectionName = V::NAME;

    fn resume(&mut self, checkpoint: &Checkpoint) -> Result<(), ApplyError> {
        // Whoever moves the position holds the lock under which it was read, and a replay puts another table in place. So the rows in
        // memory are still those of the table, unless a batch was folded into them and not committed.
        let is_current = self.table == checkpoint.table && self.position == checkpoint.position && self.unwritten == 0;
        if !is_current {
            self.rows.clear();
        }
        self.unwritten = 0;
        self.encoded.clear();
        if let Some(tally) = &mut self.tally {
            tally.forget();
        }
        self.table = checkpoint.table;
        self.position = checkpoint.position;
        Ok(())
    }

    async fn fold(
        &mut self,
        connection: &mut PgConnection,
        tables: &Tables,
        messages: &[LogMessage],
    ) -> Result<Folded, ApplyError> {
        let (changes, mut halt) = decode::<V>(messages);
        let mut missing: Vec<&str> = changes.iter().map(|change| change.view_id.as_str()).collect();
        missing.retain(|id| !self.rows.contains(id));
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            self.load(connection, tables, &missing).await?;
        }
        for change in &changes {
            let row = self.rows.get_or_insert_with(&change.view_id, CachedRow::new);
            if let Err(reason) = row.view.apply(&change.view_id, &change.change, &change.stamp) {
                let message = &messages[change.index];
                let event = StoredEventRef::from_json(&message.bytes).ok();
                halt = Some(Unapplicable::new(message.position, event.as_ref(), reason));
                break;
            }
            self.unwritten += usize::from(row.is_written);
            row.is_written = false;
            if let Some(tally) = &mut self.tally {
                tally.count(&row.view, &change.change);
            }
        }
        let folded = halt
            .as_ref()
            .map_or(messages.len(), |halt| messages.iter().take_while(|message| message.position < halt.position).count());
        if let Some(last) = messages[..folded].last() {
            self.position = last.position;
        }
        Ok(Folded { messages: folded, halt })
    }

    async fn skip(&mut self, connection: &mut PgConnection, tables: &Tables, message: &LogMessage) -> Result<(), ApplyError> {
        self.position = message.position;
        let Ok(event) = StoredEventRef::from_json(&message.bytes) else { return Ok(()) };
        // What stands under a wrong subject is none of the events that it claims to be one of.
        let is_mislaid = event.metadata.aggregate_type != message.aggregate_type();
        let Some(id) = V::row_of(&event).filter(|_| !is_mislaid) else { return Ok(()) };
        if !self.rows.contains(id) {
            self.load(connection, tables, &[id]).await?;
        }
        let row = self.rows.get_or_insert_with(id, CachedRow::new);
        // What was never there has nothing to count.
        if row.is_stored || !row.is_written {
            row.view.pass(&event);
            self.unwritten += usize::from(row.is_written);
            row.is_written = false;
        }
        Ok(())
    }

    async fn write(&mut self, connection: &mut PgConnection, tables: &Tables) -> Result<(), ApplyError> {
        let table = tables.of(V::NAME);
        let unwritten = self.rows.young().filter(|(_, row)| !row.is_written);
        let mut rows: Vec<_> = unwritten.map(|(id, row)| (id.as_str(), row.is_stored, &row.view)).collect();
        // In one order everywhere, so that neighbours in the index are written one after the other.
        rows.sort_unstable_by_key(|(id, is_stored, _)| (*is_stored, *id));
        let (new, stored) = rows.split_at(rows.partition_point(|(_, is_stored, _)| !is_stored));
        for chunk in new.chunks(INSERT_ROWS_MAX) {
            for (id, _, view) in chunk {
                view.encode(id, &mut self.encoded.row());
            }
            self.encoded.copy_into(connection, &table).await?;
            self.encoded.clear();
        }
        let stored: Vec<_> = stored.iter().map(|(id, _, view)| (*id, *view)).collect();
        for chunk in stored.chunks(UPDATE_ROWS_MAX) {
            let changed = V::update(connection, &table, chunk).await?;
            if changed != chunk.len() as u64 {
                // Somebody has removed rows. Whoever tries again loads what is there, and sees what is missing.
                return Err(sqlx::Error::RowNotFound.into());
            }
        }
        self.unwritten = 0;
        for row in self.rows.young_mut() {
            row.is_stored |= !row.is_written;
            row.is_written = true;
        }
        self.rows.age();
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { position: self.position, frontier: None, table: self.table }
    }

    fn committed(&mut self) {
        if let Some(tally) = &mut self.tally {
            tally.commit();
        }
    }

    fn unwritten(&self) -> usize {
        self.unwritten
    }
}

struct DecodedChange<C> {
    /// Of the message that it was decoded from.
    index: usize,
    view_id: String,
    change: C,
    stamp: Stamp,
}

/// Everything in `messages` that concerns the view, up to the first that cannot be decoded.
fn decode<V: StoredView>(messages: &[LogMessage]) -> (Vec<DecodedChange<V::Change>>, Option<Unapplicable>) {
    let mut changes = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        // By the subject, which every message has, even one that is no event: what is wrong with it is then its own projection's affair.
        if !V::AGGREGATES.contains(&message.aggregate_type()) {
            continue;
        }
        let event = match StoredEventRef::from_json(&message.bytes) {
            Ok(event) => event,
            Err(error) => return (changes, Some(Unapplicable::undecodable(message.position, None, &error))),
        };
        if event.metadata.aggregate_type != message.aggregate_type() {
            let reason = format!("the event of a {} stands under {}", event.metadata.aggregate_type, message.subject);
            return (changes, Some(Unapplicable::new(message.position, Some(&event), reason)));
        }
        match V::change(&event) {
            Ok(Some((view_id, change))) => {
                let Metadata { version, time, .. } = event.metadata;
                let stamp = Stamp { version, position: message.position, time };
                changes.push(DecodedChange { index, view_id, change, stamp });
            }
            Ok(None) => {}
            Err(error) => return (changes, Some(Unapplicable::undecodable(message.position, Some(&event), &error))),
        }
    }
    (changes, None)
}

/// The rule that an aggregate's events come without gap: `next` must follow on `version`.
pub(super) fn check_follows(what: &str, version: u64, next: u64) -> Result<(), String> {
    if version.checked_add(1) == Some(next) {
        return Ok(());
    }
    Err(format!("version {next} of the {what} does not follow on version {version}"))
}

/// Counts an event of the aggregate that is at `version`, if it is the next one.
pub(super) fn pass(version: &mut u64, event: &StoredEventRef<'_>) {
    if version.checked_add(1) == Some(event.metadata.version) {
        *version = event.metadata.version;
    }
}
