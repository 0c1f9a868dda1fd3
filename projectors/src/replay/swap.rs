//! Putting the tables that were built in the place of the live ones.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tracing::info;

use super::build::Build;
use crate::{
    checkpoints::{self, Standing},
    failure::Failure,
    read_models::{ReadModel, Tables},
    skips,
};

/// How long a swap waits for the readers of the old table, which hold up all later readers meanwhile.
const LOCK_TIMEOUT_MS: u64 = 2_000;
/// How often a swap is tried. Between two attempts readers and the live projection go on.
const ATTEMPTS_MAX: u32 = 30;
/// Pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the log may take to deliver the last events while the live projection stands still.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// How much the first plans on the new table know of it; autovacuum looks closer afterwards. Postgres reads 300 pages for each.
const STATISTICS_TARGET: u32 = 30;

const DOING: &str = "swap the read model";

/// Swaps tables and checkpoint in one transaction, once the tables are where the live ones are, or at `end` if there is one. No event is
/// lost or doubled: the live projection waits for the row that this locks first, and finds the new position in it, and the new tables,
/// when it gets the row.
pub(super) async fn swap<M: ReadModel>(
    connection: &mut PgConnection,
    build: &mut Build<'_, M>,
    head: u64,
    end: Option<u64>,
) -> Result<(), Failure> {
    for attempt in 1..=ATTEMPTS_MAX {
        // Most of what came in meanwhile is caught up with here, so that the live projection stands still for a moment only.
        let live = checkpoints::peek(&mut *connection, M::NAME).await.map_err(Failure::postgres(DOING))?;
        build.advance(connection, end.unwrap_or(live.position)).await?;
        match try_swap(connection, build, head, end).await? {
            Attempt::Swapped => return Ok(()),
            Attempt::TableIsRead => {
                build.roll_back()?;
                info!(attempt, "a long query still reads {}: trying again", M::NAME);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
    Err(Failure::Away(format!("a query holds the table of {} for very long; what was built is kept", M::NAME)))
}

enum Attempt {
    Swapped,
    TableIsRead,
}

async fn try_swap<M: ReadModel>(
    connection: &mut PgConnection,
    build: &mut Build<'_, M>,
    head: u64,
    end: Option<u64>,
) -> Result<Attempt, Failure> {
    let (live_table, table) = (Tables::live().of(M::NAME), build.beside().table());
    let analyze = format!("SET default_statistics_target = {STATISTICS_TARGET}; ANALYZE {table}; RESET default_statistics_target");
    connection.execute(analyze.as_str()).await.map_err(Failure::postgres(DOING))?;

    // Dropped without a commit, the transaction is rolled back.
    let mut transaction = connection.begin().await.map_err(Failure::postgres(DOING))?;
    // Of all transactions of a replay this is the one that must be on disk once it is committed, with all that it rests on.
    let settings = format!("SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}");
    transaction.execute(settings.as_str()).await.map_err(Failure::postgres(DOING))?;
    // Autovacuum would give way to the exclusive lock below after a second, in which no reader could begin; to this one it does so while
    // they go on, and does not come back.
    let turn_away = format!("LOCK TABLE {live_table} IN SHARE UPDATE EXCLUSIVE MODE");
    match transaction.execute(turn_away.as_str()).await {
        Err(error) if is_lock_timeout(&error) => return Ok(Attempt::TableIsRead),
        locked => locked.map_err(Failure::postgres(DOING))?,
    };
    let (live, _) = match checkpoints::lock(&mut transaction, M::NAME).await {
        Err(error) if is_lock_timeout(&error) => return Ok(Attempt::TableIsRead),
        locked => locked.map_err(Failure::postgres(DOING))?,
    };
    // From here on the live projection stands still.
    tokio::time::timeout(CATCH_UP_TIMEOUT, build.advance_within(&mut transaction, end.unwrap_or(live.position)))
        .await
        .map_err(|_| Failure::Away("the log does not deliver the last events".to_owned()))??;
    // Who skips an event holds the row that is locked here.
    let skips = skips::all(&mut *transaction, M::NAME).await.map_err(Failure::postgres(DOING))?;
    if !build.has_skipped(&skips) {
        let name = M::NAME;
        return Err(Failure::Conflict(format!("an event of {name} was skipped that this replay has applied: replay {name} again")));
    }
    match transaction.execute(format!("LOCK TABLE {live_table} IN ACCESS EXCLUSIVE MODE").as_str()).await {
        Err(error) if is_lock_timeout(&error) => return Ok(Attempt::TableIsRead),
        locked => locked.map_err(Failure::postgres(DOING))?,
    };
    copy_settings(&mut transaction, &live_table, &table)
        .await
        .map_err(Failure::postgres("give the new table the grants and settings of the old"))?;
    exchange(&mut transaction, &live_table, &table, build.beside().tables().schema()).await?;
    let checkpoint = build.checkpoint();
    let standing = Standing { checkpoint: &checkpoint, head, halt: None };
    let has_moved =
        checkpoints::advance(&mut transaction, M::NAME, live.position, &standing).await.map_err(Failure::postgres(DOING))?;
    if !has_moved {
        return Err(Failure::Conflict(format!("the checkpoint of {} was removed during the replay", M::NAME)));
    }
    transaction.commit().await.map_err(Failure::postgres(DOING))?;
    Ok(Attempt::Swapped)
}

/// The new table gets the old one's owner, grants and storage parameters, and autovacuum is let in again.
async fn copy_settings(transaction: &mut PgConnection, live_table: &str, table: &str) -> Result<(), sqlx::Error> {
    transaction.execute(format!("ALTER TABLE {table} RESET (autovacuum_enabled, toast.autovacuum_enabled)").as_str()).await?;
    let statements: Vec<String> = sqlx::query_scalar(
        "SELECT format('ALTER TABLE %s OWNER TO %I', $2, pg_get_userbyid(relowner)) FROM pg_class \
         WHERE oid = $1::regclass AND relowner <> (SELECT relowner FROM pg_class WHERE oid = $2::regclass) \
         UNION ALL \
         SELECT format('GRANT %s ON %s TO %s%s', privilege_type, $2, \
         CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
         CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
         FROM pg_class, aclexplode(relacl) WHERE oid = $1::regclass \
         UNION ALL \
         SELECT format('ALTER TABLE %s SET (%s)', $2, array_to_string(reloptions, ', ')) FROM pg_class \
         WHERE oid = $1::regclass AND reloptions IS NOT NULL",
    )
    .bind(live_table)
    .bind(table)
    .fetch_all(&mut *transaction)
    .await?;
    for statement in statements {
        transaction.execute(statement.as_str()).await?;
    }
    Ok(())
}

async fn exchange(transaction: &mut PgConnection, live_table: &str, table: &str, schema: &str) -> Result<(), Failure> {
    let live_schema = Tables::live();
    let statements =
        format!("DROP TABLE {live_table}; ALTER TABLE {table} SET SCHEMA {}; DROP SCHEMA {schema} CASCADE", live_schema.schema());
    match transaction.execute(statements.as_str()).await {
        // dependent_objects_still_exist: a view of the operator's, say. It would silently go on showing the old table.
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "2BP01") => {
            Err(Failure::Conflict(format!("something depends on the table {live_table}: {error}")))
        }
        exchanged => exchanged.map(drop).map_err(Failure::postgres(DOING)),
    }
}

/// `lock_not_available`.
fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "55P03")
}
