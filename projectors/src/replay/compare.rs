//! Comparing the tables that were built with the live ones, row by row.

use futures::TryStreamExt;
use read_store::projections::ProjectionName;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgRow};

use super::build::Build;
use crate::{
    checkpoints,
    failure::Failure,
    read_models::{ReadModel, Tables},
};

/// Most differences that are listed; the rest is counted.
pub const DIFFERENCES_MAX: usize = 1_000;

const DOING: &str = "compare the read models";

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// How many rows a replay gives.
    pub rows: u64,
    /// How many rows differ.
    pub differing: u64,
    /// The first [`DIFFERENCES_MAX`] of them, in the order of their keys.
    pub differences: Vec<Difference>,
}

/// One row that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The row's key; empty for the checkpoint itself.
    pub key: String,
    /// How it differs.
    pub kind: DifferenceKind,
    /// The columns that differ; of the payload, its fields, as `payload.status`. No values, since they may be personal.
    pub columns: Vec<String>,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The live table does not have it.
    Missing,
    /// Only the live table has it.
    Unexpected,
    /// Both have it, with other content.
    Changed,
}

impl DifferenceKind {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unexpected => "unexpected",
            Self::Changed => "changed",
        }
    }
}

/// Brings the build to exactly where the live table is at one moment, and compares the two as of that moment.
///
/// Both are read in one snapshot, so the live projection goes on undisturbed.
pub(super) async fn compare<M: ReadModel>(connection: &mut PgConnection, build: &mut Build<'_, M>) -> Result<Comparison, Failure> {
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.map_err(Failure::postgres(DOING))?;
    let live = checkpoints::peek(&mut *snapshot, M::NAME).await.map_err(Failure::postgres(DOING))?;
    build.advance_within(&mut snapshot, live.position).await?;
    snapshot.execute(format!("ANALYZE {}", build.beside().table()).as_str()).await.map_err(Failure::postgres(DOING))?;

    let (live_table, table) = (Tables::live().of(M::NAME), build.beside().table());
    let mut comparison = compare_tables(&mut snapshot, M::NAME, &live_table, &table).await.map_err(Failure::postgres(DOING))?;
    if build.checkpoint().frontier != live.frontier {
        let columns = vec!["frontier".to_owned()];
        comparison.add(Difference { key: String::new(), kind: DifferenceKind::Changed, columns });
    }
    snapshot.rollback().await.map_err(Failure::postgres(DOING))?;
    Ok(comparison)
}

impl Comparison {
    fn add(&mut self, difference: Difference) {
        self.differing += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference);
        }
    }
}

async fn compare_tables(
    snapshot: &mut PgConnection,
    name: ProjectionName,
    live_table: &str,
    table: &str,
) -> Result<Comparison, sqlx::Error> {
    let rows: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(&mut *snapshot).await?;
    let columns = columns(snapshot, table).await?;
    let sql = comparing(name, &columns, live_table, table);
    let mut comparison = Comparison { rows: rows.unsigned_abs(), ..Comparison::default() };
    let mut found = sqlx::query(&sql).fetch(snapshot);
    while let Some(row) = found.try_next().await? {
        if let Some(difference) = difference(&row)? {
            comparison.add(difference);
        }
    }
    Ok(comparison)
}

/// Each column's name, and whether it is JSON, which Postgres cannot compare.
async fn columns(connection: &mut PgConnection, table: &str) -> Result<Vec<(String, bool)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT quote_ident(attname), atttypid = 'json'::regtype FROM pg_attribute \
         WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await
}

/// The statement that gives every row that differs, with the names of the columns that do.
fn comparing(name: ProjectionName, columns: &[(String, bool)], live_table: &str, table: &str) -> String {
    let (key, payload) = match name {
        ProjectionName::Orders | ProjectionName::Inventory => ("view_id", "live.payload::text, built.payload::text"),
        ProjectionName::Audit => ("position", "NULL::text, NULL::text"),
    };
    let differs = |(column, is_json): &(String, bool)| {
        let cast = if *is_json { "::text" } else { "" };
        format!("live.{column}{cast} IS DISTINCT FROM built.{column}{cast}")
    };
    let named: Vec<_> = columns.iter().map(|column| format!("CASE WHEN {} THEN '{}' END", differs(column), column.0)).collect();
    let any: Vec<_> = columns.iter().map(differs).collect();
    format!(
        "SELECT COALESCE(live.{key}, built.{key})::text, live.{key} IS NULL, built.{key} IS NULL, array_remove(ARRAY[{}], NULL), {payload} \
         FROM {live_table} AS live FULL OUTER JOIN {table} AS built ON live.{key} = built.{key} \
         WHERE {} ORDER BY COALESCE(live.{key}, built.{key})",
        named.join(", "),
        any.join(" OR ")
    )
}

fn difference(row: &PgRow) -> Result<Option<Difference>, sqlx::Error> {
    let (key, is_missing, is_unexpected) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let kind = match (is_missing, is_unexpected) {
        (true, _) => DifferenceKind::Missing,
        (_, true) => DifferenceKind::Unexpected,
        _ => DifferenceKind::Changed,
    };
    if kind != DifferenceKind::Changed {
        return Ok(Some(Difference { key, kind, columns: Vec::new() }));
    }
    let mut columns: Vec<String> = row.try_get(3)?;
    if let Some(at) = columns.iter().position(|column| column == "payload") {
        let fields = payload_fields(row.try_get(4)?, row.try_get(5)?);
        columns.splice(at..=at, fields);
    }
    // Other blanks or another order of fields, as another build may write them, are no difference.
    Ok((!columns.is_empty()).then_some(Difference { key, kind, columns }))
}

/// The fields of two payloads that differ.
fn payload_fields(live: &str, built: &str) -> Vec<String> {
    let read = |text: &str| serde_json::from_str::<serde_json::Map<String, Value>>(text).ok();
    let (Some(live), Some(built)) = (read(live), read(built)) else { return vec!["payload".to_owned()] };
    let mut fields: Vec<_> = live.keys().chain(built.keys()).filter(|field| live.get(*field) != built.get(*field)).collect();
    fields.sort_unstable();
    fields.dedup();
    fields.into_iter().map(|field| format!("payload.{field}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_differs_by_its_fields_and_not_by_its_spelling() {
        assert_eq!(payload_fields(r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#), Vec::<String>::new());
        assert_eq!(payload_fields(r#"{"a":1,"b":2}"#, r#"{"a":2,"c":1}"#), ["payload.a", "payload.b", "payload.c"]);
        assert_eq!(payload_fields("nonsense", "{}"), ["payload"]);
    }
}
