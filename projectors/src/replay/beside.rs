//! The schema in which tables are built.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::{Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures::future::try_join_all;
use read_store::projections::ProjectionName;
use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgConnectOptions};
use tokio::sync::OnceCell;
use tracing::info;

use super::Purpose;
use crate::{
    read_models::{Checkpoint, Tables, signed},
    skips,
};

/// Indexes of one table that are built at the same time, each of them by one process of the server.
const INDEXES_AT_A_TIME: usize = 4;

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
            Purpose::Swap | Purpose::SwapAt(_) => format!("contrail_replay_{name}"),
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

    /// Whether there is anything of it.
    pub(super) async fn exists(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL").bind(self.tables.schema()).fetch_one(connection).await
    }

    /// Finds what an interrupted replay of the same program has left, if that is not beyond `target` and has gone past the same of the
    /// `skips`; else makes empty tables like the live ones.
    pub(super) async fn prepare(
        &self,
        connection: &mut PgConnection,
        target: u64,
        skips: &BTreeSet<u64>,
    ) -> Result<Checkpoint, sqlx::Error> {
        let built_by = built_by().await;
        if let Some((checkpoint, skipped)) = self.left(connection, built_by).await?
            && checkpoint.position <= target
        {
            if skips::up_to(checkpoint.position, skips).eq(skips::up_to(checkpoint.position, &skipped)) {
                // From here on it goes past these.
                sqlx::query(&format!("UPDATE {}.progress SET skips = $1", self.tables.schema()))
                    .bind(as_stored(skips))
                    .execute(connection)
                    .await?;
                return Ok(checkpoint);
            }
            info!(projection = %self.name, "an unfinished replay has applied what was skipped since: beginning anew");
        }
        self.create(connection, built_by, skips).await?;
        Ok(Checkpoint::default())
    }

    /// What an interrupted replay has left, if it can be gone on with, and what it knew to be skipped. A verification is always built anew.
    async fn left(
        &self,
        connection: &mut PgConnection,
        built_by: Option<&str>,
    ) -> Result<Option<(Checkpoint, BTreeSet<u64>)>, sqlx::Error> {
        let progress = format!("{}.progress", self.tables.schema());
        let exists: bool =
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&progress).fetch_one(&mut *connection).await?;
        let Some(built_by) = built_by else { return Ok(None) };
        if self.purpose == Purpose::Verify || !exists {
            return Ok(None);
        }
        let is_ours: bool = sqlx::query_scalar(&format!("SELECT EXISTS (SELECT FROM {progress} WHERE built_by = $1)"))
            .bind(built_by)
            .fetch_one(&mut *connection)
            .await?;
        if !is_ours {
            info!(projection = %self.name, "another build of this program has left an unfinished replay: beginning anew");
            return Ok(None);
        }
        let row = sqlx::query(&format!("SELECT position, frontier, skips FROM {progress}")).fetch_one(connection).await?;
        let (position, skips): (i64, Vec<i64>) = (row.try_get("position")?, row.try_get("skips")?);
        let checkpoint = Checkpoint { position: position.unsigned_abs(), frontier: row.try_get("frontier")?, table: 0 };
        Ok(Some((checkpoint, skips.into_iter().map(i64::unsigned_abs).collect())))
    }

    async fn create(
        &self,
        connection: &mut PgConnection,
        built_by: Option<&str>,
        skips: &BTreeSet<u64>,
    ) -> Result<(), sqlx::Error> {
        let (schema, table, live) = (self.tables.schema(), self.table(), Tables::live().of(self.name));
        let mut transaction = connection.begin().await?;
        // Keys, by which rows are found again, at once; the other indexes once the rows are there, which costs a fraction.
        let keys: Vec<String> = sqlx::query_scalar(
            "SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', $2, conname, pg_get_constraintdef(oid)) \
             FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('p', 'u')",
        )
        .bind(&live)
        .bind(&table)
        .fetch_all(&mut *transaction)
        .await?;
        let statements = format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; \
             CREATE SCHEMA {schema}; \
             CREATE TABLE {table} (LIKE {live} INCLUDING ALL EXCLUDING INDEXES) \
             WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false); \
             CREATE TABLE {schema}.progress (position bigint NOT NULL, frontier bytea, built_by text, skips bigint[] NOT NULL); {}",
            keys.join("; ")
        );
        transaction.execute(statements.as_str()).await?;
        sqlx::query(&format!("INSERT INTO {schema}.progress VALUES (0, NULL, $1, $2)"))
            .bind(built_by)
            .bind(as_stored(skips))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Gives the table every index of the live one that it does not have yet, each under the same name and for good; some at a time, each
    /// on a connection with `options`, the largest first.
    pub(super) async fn add_indexes(&self, connection: &mut PgConnection, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
        let (table, live) = (self.table(), Tables::live().of(self.name));
        // What stands before USING is about the live table.
        let indexes: Vec<String> = sqlx::query_scalar(
            "SELECT format('CREATE %sINDEX %I ON %s%s', CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END, relname, $2, \
             substring(pg_get_indexdef(indexrelid) FROM ' USING .*')) \
             FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = $1::regclass \
             AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u')) \
             AND relname NOT IN (SELECT built.relname FROM pg_index AS built_index JOIN pg_class AS built ON built.oid = indexrelid \
             WHERE built_index.indrelid = $2::regclass) ORDER BY relpages, relname",
        )
        .bind(&live)
        .bind(&table)
        .fetch_all(&mut *connection)
        .await?;
        let left = Mutex::new(indexes);
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let builders = (0..INDEXES_AT_A_TIME).map(|_| async {
            let Some(first) = next() else { return Ok(()) };
            let mut connection = PgConnection::connect_with(options).await?;
            connection.execute(first.as_str()).await?;
            while let Some(index) = next() {
                connection.execute(index.as_str()).await?;
            }
            connection.close().await
        });
        try_join_all(builders).await.map(drop)
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

fn as_stored(skips: &BTreeSet<u64>) -> Vec<i64> {
    skips.iter().copied().map(signed).collect()
}

/// The [`fingerprint`], if there is one. It is taken once: the program may have a hundred megabytes.
async fn built_by() -> Option<&'static str> {
    static BUILT_BY: OnceCell<Option<String>> = OnceCell::const_new();
    let take = || async { tokio::task::spawn_blocking(fingerprint).await.ok().and_then(Result::ok) };
    BUILT_BY.get_or_init(take).await.as_deref()
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
