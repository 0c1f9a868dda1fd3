//! A read model with one row per aggregate, in the shape of `postgres_es::PostgresViewRepository`.

use std::collections::HashMap;

use domain::{DecodeError, envelope::StoredEvent};
use event_store::LogMessage;
use read_store::projections::ProjectionName;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{PgConnection, Row, types::Json};

use super::{ApplyError, Checkpoint, Folded, ReadModel, Tables, Unapplicable};

/// Most rows that one statement writes; keeps its parameters within some megabytes.
const UPSERT_ROWS_MAX: usize = 5_000;

/// A view that is kept in a table of its own.
pub(crate) trait StoredView: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The table.
    const NAME: ProjectionName;
    /// An event that concerns the view, decoded.
    type Change: Send;

    /// Which row `event` concerns, and how; `None` if this read model is not about such aggregates.
    fn change(position: u64, event: &StoredEvent) -> Result<Option<(String, Self::Change)>, DecodeError>;

    /// Folds the change in, or says why it cannot follow on what is folded in so far, and leaves the view as it was.
    fn apply(&mut self, change: &Self::Change) -> Result<(), String>;

    /// Writes rows, new or not, by one statement.
    fn upsert(
        connection: &mut PgConnection,
        table: &str,
        rows: &[(&str, &Self)],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// A [`ReadModel`] of one [`StoredView`] per row.
#[derive(Debug)]
pub(crate) struct ViewTable<V> {
    position: u64,
    /// Which table the rows are of.
    table: u32,
    rows: HashMap<String, CachedRow<V>>,
    unwritten: usize,
    /// How many written rows may stay in memory, so that the next events about them need not load them.
    cached_rows_max: usize,
}

#[derive(Debug)]
struct CachedRow<V> {
    view: V,
    is_written: bool,
}

impl<V> ViewTable<V> {
    /// A read model that remembers up to `cached_rows_max` rows from batch to batch.
    pub(crate) fn new(cached_rows_max: usize) -> Self {
        Self { position: 0, table: 0, rows: HashMap::new(), unwritten: 0, cached_rows_max }
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
            self.rows.insert(view_id, CachedRow { view, is_written: true });
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
        missing.retain(|id| !self.rows.contains_key(*id));
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            self.load(connection, tables, &missing).await?;
        }
        for change in &changes {
            let row = match self.rows.get_mut(&change.view_id) {
                Some(row) => row,
                None => {
                    self.rows.entry(change.view_id.clone()).or_insert_with(|| CachedRow { view: V::default(), is_written: true })
                }
            };
            if let Err(reason) = row.view.apply(&change.change) {
                let message = &messages[change.index];
                let event = message.event().ok();
                halt = Some(Unapplicable::new(message.position, event.as_deref(), reason));
                break;
            }
            self.unwritten += usize::from(row.is_written);
            row.is_written = false;
        }
        let folded = halt
            .as_ref()
            .map_or(messages.len(), |halt| messages.iter().take_while(|message| message.position < halt.position).count());
        if let Some(last) = messages[..folded].last() {
            self.position = last.position;
        }
        Ok(Folded { messages: folded, halt })
    }

    async fn write(&mut self, connection: &mut PgConnection, tables: &Tables) -> Result<(), ApplyError> {
        let table = tables.of(V::NAME);
        let unwritten = self.rows.iter().filter(|(_, row)| !row.is_written);
        let mut rows: Vec<_> = unwritten.map(|(id, row)| (id.as_str(), &row.view)).collect();
        // In one order everywhere, so that two writers that meet wait for each other and do not deadlock.
        rows.sort_unstable_by_key(|(id, _)| *id);
        for chunk in rows.chunks(UPSERT_ROWS_MAX) {
            V::upsert(connection, &table, chunk).await?;
        }
        self.unwritten = 0;
        if self.rows.len() > self.cached_rows_max {
            self.rows.clear();
        } else {
            self.rows.values_mut().for_each(|row| row.is_written = true);
        }
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { position: self.position, frontier: None, table: self.table }
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
}

/// Everything in `messages` that concerns the view, up to the first that cannot be decoded.
fn decode<V: StoredView>(messages: &[LogMessage]) -> (Vec<DecodedChange<V::Change>>, Option<Unapplicable>) {
    let mut changes = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let event = match message.event() {
            Ok(event) => event,
            Err(error) => return (changes, Some(Unapplicable::undecodable(message.position, None, &error))),
        };
        match V::change(message.position, &event) {
            Ok(Some((view_id, change))) => changes.push(DecodedChange { index, view_id, change }),
            Ok(None) => {}
            Err(error) => return (changes, Some(Unapplicable::undecodable(message.position, Some(&event), &error))),
        }
    }
    (changes, None)
}

/// The rule that an aggregate's events come without gap: `next` must follow on `version`.
pub(super) fn check_follows(what: &str, version: u64, next: usize) -> Result<(), String> {
    if version.checked_add(1) == u64::try_from(next).ok() {
        return Ok(());
    }
    Err(format!("version {next} of the {what} does not follow on version {version}"))
}
