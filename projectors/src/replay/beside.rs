//! The schema in which tables are built.

use std::{fs::File, io};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use read_store::projections::ProjectionName;
use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, PgConnection, Row};
use tracing::info;

use super::Purpose;
use crate::read_models::{Checkpoint, Tables, signed};

/// Tables that are built beside the live ones.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    name: ProjectionName,
    purpose: Purpose,
    tables: Tables,
}

impl Beside {
    pub(super) fn of(name: ProjectionName, purpose: Purpose) -> Self {
        let schema = match purpose {
            Purpose::Swap => format!("contrail_replay_{name}"),
            Purpose::Verify => format!("contrail_verify_{name}"),
        };
        Self { name, purpose, tables: Tables::in_schema(&schema) }
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn table(&self) -> String {
        self.tables.of(self.name)
    }

    /// Finds what an interrupted replay of the same program has left, or makes empty tables like the live ones.
    pub(super) async fn prepare(&self, connection: &mut PgConnection) -> Result<Checkpoint, sqlx::Error> {
        let built_by = tokio::task::spawn_blocking(fingerprint).await.ok().and_then(Result::ok);
        if let Some(checkpoint) = self.left(connection, built_by.as_deref()).await? {
            return Ok(checkpoint);
        }
        self.create(connection, built_by.as_deref()).await?;
        Ok(Checkpoint::default())
    }

    /// What an interrupted replay has left, if it can be gone on with. A verification is always built anew.
    async fn left(&self, connection: &mut PgConnection, built_by: Option<&str>) -> Result<Option<Checkpoint>, sqlx::Error> {
        let progress = format!("{}.progress", self.tables.schema());
        let exists: bool =
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&progress).fetch_one(&mut *connection).await?;
        let (Purpose::Swap, Some(built_by), true) = (self.purpose, built_by, exists) else { return Ok(None) };
        let row = sqlx::query(&format!("SELECT position, frontier FROM {progress} WHERE built_by = $1"))
            .bind(built_by)
            .fetch_optional(connection)
            .await?;
        let Some(row) = row else {
            info!(projection = %self.name, "another build of this program has left an unfinished replay: beginning anew");
            return Ok(None);
        };
        let position: i64 = row.try_get("position")?;
        Ok(Some(Checkpoint { position: position.unsigned_abs(), frontier: row.try_get("frontier")?, table: 0 }))
    }

    async fn create(&self, connection: &mut PgConnection, built_by: Option<&str>) -> Result<(), sqlx::Error> {
        let (schema, table, live) = (self.tables.schema(), self.table(), Tables::live().of(self.name));
        let mut transaction = connection.begin().await?;
        let statements = format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; \
             CREATE SCHEMA {schema}; \
             CREATE TABLE {table} (LIKE {live} INCLUDING ALL); \
             CREATE TABLE {schema}.progress (position bigint NOT NULL, frontier bytea, built_by text)"
        );
        transaction.execute(statements.as_str()).await?;
        sqlx::query(&format!("INSERT INTO {schema}.progress VALUES (0, NULL, $1)"))
            .bind(built_by)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Writes down how far the tables are, in the transaction that brings them there.
    pub(super) async fn save(&self, transaction: &mut PgConnection, checkpoint: &Checkpoint) -> Result<(), sqlx::Error> {
        sqlx::query(&format!("UPDATE {}.progress SET position = $1, frontier = $2", self.tables.schema()))
            .bind(signed(checkpoint.position))
            .bind(&checkpoint.frontier)
            .execute(transaction)
            .await?;
        Ok(())
    }

    /// Drops everything that was built.
    pub(super) async fn discard(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        connection.execute(format!("DROP SCHEMA IF EXISTS {} CASCADE", self.tables.schema()).as_str()).await?;
        Ok(())
    }
}

/// Tells this build of the program from others, which may fold events differently; and this version of the tables, too.
fn fingerprint() -> io::Result<String> {
    struct Sink(Sha256);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut sink = Sink(Sha256::new());
    io::copy(&mut File::open(std::env::current_exe()?)?, &mut sink)?;
    let hash = BASE64.encode(sink.0.finalize());
    Ok(format!("{hash} on schema {}", read_store::schema::version()))
}
