//! Comparing the tables that were built with the live ones, row by row.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures::TryStreamExt;
use read_store::projections::ProjectionName;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgRow};

use super::{DifferenceLog, build::Build};
use crate::{
    checkpoints,
    failure::Failure,
    read_models::{Checkpoint, ReadModel, Tables},
};

/// Most differing rows that a report lists; the rest is counted. A [`DifferenceLog`] takes all of them.
pub const DIFFERENCES_MAX: usize = 100_000;

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
    /// The columns that differ, of a changed row.
    pub columns: Vec<ColumnDifference>,
}

/// A column that differs, with both values as Postgres writes them, or null. The payload is told field by field, as `payload.status`,
/// with both values as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnDifference {
    /// Which column.
    pub column: String,
    /// What the live table has.
    pub live: Option<String>,
    /// What a replay gives.
    pub replayed: Option<String>,
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

/// How often what came in meanwhile is caught up with before the moment of the comparison, as what is folded in that is kept in memory as a
/// whole: once for what came during all of the rebuilding, and once more for what came during that.
const CATCH_UPS: usize = 2;

/// Brings the build to exactly where the live table is at one moment, and compares the two as of that moment.
///
/// Both are read in one snapshot, so the live projection goes on undisturbed.
pub(super) async fn compare<M: ReadModel>(
    connection: &mut PgConnection,
    build: &mut Build<'_, M>,
    log: Option<&DifferenceLog>,
) -> Result<Comparison, Failure> {
    for _ in 0..CATCH_UPS {
        let live = checkpoints::peek(&mut *connection, M::NAME).await.map_err(Failure::postgres(DOING))?;
        build.advance(connection, live.position).await?;
    }
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.map_err(Failure::postgres(DOING))?;
    let live = checkpoints::peek(&mut *snapshot, M::NAME).await.map_err(Failure::postgres(DOING))?;
    build.advance_within(&mut snapshot, live.position).await?;
    let whole_tables = format!("SET LOCAL enable_seqscan = on; ANALYZE {}", build.beside().table());
    snapshot.execute(whole_tables.as_str()).await.map_err(Failure::postgres(DOING))?;

    let (live_table, table) = (Tables::live().of(M::NAME), build.beside().table());
    let mut findings = Findings { name: M::NAME, log, comparison: Comparison::default() };
    compare_tables(&mut snapshot, &live_table, &table, &mut findings).await?;
    if build.checkpoint().frontier != live.frontier {
        let frontier = |checkpoint: &Checkpoint| checkpoint.frontier.as_ref().map(|frontier| BASE64.encode(frontier));
        let column = "frontier".to_owned();
        let columns = vec![ColumnDifference { column, live: frontier(&live), replayed: frontier(&build.checkpoint()) }];
        findings.add(Difference { key: String::new(), kind: DifferenceKind::Changed, columns })?;
    }
    snapshot.rollback().await.map_err(Failure::postgres(DOING))?;
    Ok(findings.comparison)
}

struct Findings<'a> {
    name: ProjectionName,
    log: Option<&'a DifferenceLog>,
    comparison: Comparison,
}

impl Findings<'_> {
    fn add(&mut self, difference: Difference) -> Result<(), Failure> {
        if let Some(log) = self.log {
            log.write(self.name, &difference).map_err(Failure::other("write the differences"))?;
        }
        self.comparison.differing += 1;
        if self.comparison.differences.len() < DIFFERENCES_MAX {
            self.comparison.differences.push(difference);
        }
        Ok(())
    }
}

async fn compare_tables(
    snapshot: &mut PgConnection,
    live_table: &str,
    table: &str,
    findings: &mut Findings<'_>,
) -> Result<(), Failure> {
    let count = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(&mut *snapshot).await;
    let rows: i64 = count.map_err(Failure::postgres(DOING))?;
    findings.comparison.rows = rows.unsigned_abs();
    let columns = columns(snapshot, table).await.map_err(Failure::postgres(DOING))?;
    let sql = comparing(findings.name, &columns, live_table, table);
    let mut found = sqlx::query(&sql).fetch(snapshot);
    while let Some(row) = found.try_next().await.map_err(Failure::postgres(DOING))? {
        if let Some(difference) = difference(&row, &columns).map_err(Failure::postgres(DOING))? {
            findings.add(difference)?;
        }
    }
    Ok(())
}

/// Each column's name, and whether it is JSON, which Postgres cannot compare.
async fn columns(connection: &mut PgConnection, table: &str) -> Result<Vec<(String, bool)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT attname::text, atttypid = 'json'::regtype FROM pg_attribute \
         WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await
}

/// The statement that gives every row that differs: its key, whether either table lacks it, and of each column whether it differs, with
/// both values if it does.
fn comparing(name: ProjectionName, columns: &[(String, bool)], live_table: &str, table: &str) -> String {
    let key = match name {
        ProjectionName::Orders | ProjectionName::Inventory => "view_id",
        ProjectionName::Audit => "position",
    };
    let differs = |(column, is_json): &(String, bool)| {
        let (column, cast) = (quoted(column), if *is_json { "::text" } else { "" });
        format!("live.{column}{cast} IS DISTINCT FROM built.{column}{cast}")
    };
    let all = |value: &dyn Fn(&(String, bool)) -> String| columns.iter().map(value).collect::<Vec<_>>().join(", ");
    let any: Vec<_> = columns.iter().map(differs).collect();
    format!(
        "SELECT COALESCE(live.{key}, built.{key})::text, live.{key} IS NULL, built.{key} IS NULL, \
         ARRAY[{}], ARRAY[{}]::text[], ARRAY[{}]::text[] \
         FROM {live_table} AS live FULL OUTER JOIN {table} AS built ON live.{key} = built.{key} \
         WHERE {} ORDER BY COALESCE(live.{key}, built.{key})",
        all(&differs),
        all(&|column| format!("CASE WHEN {} THEN live.{}::text END", differs(column), quoted(&column.0))),
        all(&|column| format!("CASE WHEN {} THEN built.{}::text END", differs(column), quoted(&column.0))),
        any.join(" OR ")
    )
}

/// A name as it stands in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn difference(row: &PgRow, columns: &[(String, bool)]) -> Result<Option<Difference>, sqlx::Error> {
    let (key, is_missing, is_unexpected) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let kind = match (is_missing, is_unexpected) {
        (true, _) => DifferenceKind::Missing,
        (_, true) => DifferenceKind::Unexpected,
        _ => DifferenceKind::Changed,
    };
    if kind != DifferenceKind::Changed {
        return Ok(Some(Difference { key, kind, columns: Vec::new() }));
    }
    let differs: Vec<bool> = row.try_get(3)?;
    let (live, replayed): (Vec<Option<String>>, Vec<Option<String>>) = (row.try_get(4)?, row.try_get(5)?);
    let mut found = Vec::new();
    for ((((column, is_json), differs), live), replayed) in columns.iter().zip(differs).zip(live).zip(replayed) {
        match (differs, live, replayed) {
            (false, ..) => {}
            (true, Some(live), Some(replayed)) if *is_json => found.extend(fields(column, live, replayed)),
            (true, live, replayed) => found.push(ColumnDifference { column: column.clone(), live, replayed }),
        }
    }
    // Other blanks or another order of fields, as another build may write them, are no difference.
    Ok((!found.is_empty()).then_some(Difference { key, kind, columns: found }))
}

/// The fields of two JSON documents that differ.
fn fields(column: &str, live: String, replayed: String) -> Vec<ColumnDifference> {
    let read = |text: &str| serde_json::from_str::<serde_json::Map<String, Value>>(text).ok();
    let (Some(live), Some(replayed)) = (read(&live), read(&replayed)) else {
        return vec![ColumnDifference { column: column.to_owned(), live: Some(live), replayed: Some(replayed) }];
    };
    let mut names: Vec<_> = live.keys().chain(replayed.keys()).filter(|name| live.get(*name) != replayed.get(*name)).collect();
    names.sort_unstable();
    names.dedup();
    let text = |document: &serde_json::Map<String, Value>, name: &str| document.get(name).map(Value::to_string);
    let differing = names.into_iter();
    differing
        .map(|name| ColumnDifference {
            column: format!("{column}.{name}"),
            live: text(&live, name),
            replayed: text(&replayed, name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_differs_by_its_fields_and_not_by_its_spelling() {
        let differing = |live: &str, replayed: &str| fields("payload", live.to_owned(), replayed.to_owned());
        assert_eq!(differing(r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#), []);
        let found = differing(r#"{"a":1,"b":[2]}"#, r#"{"a":"x","c":1}"#);
        let found: Vec<_> =
            found.iter().map(|field| (field.column.as_str(), field.live.as_deref(), field.replayed.as_deref())).collect();
        assert_eq!(
            found,
            [("payload.a", Some("1"), Some("\"x\"")), ("payload.b", Some("[2]"), None), ("payload.c", None, Some("1"))]
        );
        assert_eq!(differing("nonsense", "{}")[0].column, "payload");
    }
}
