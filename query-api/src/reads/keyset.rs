//! One page of a table by its sort key, in either direction.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};

use crate::database::Database;
use crate::error::QueryError;
use crate::paging::{Direction, Key, Page};

/// A statement in the making.
pub type Sql = QueryBuilder<'static, Postgres>;

/// A table that can be paged through.
pub trait Table: for<'r> FromRow<'r, PgRow> + Send + Unpin {
    /// The sort key.
    type Key: Key + Send + Sync;

    /// The table's name.
    const NAME: &'static str;
    /// What a row is made of.
    const COLUMNS: &'static str;
    /// `ORDER BY` of the connection's own order.
    const FORWARDS: &'static str;
    /// `ORDER BY` of the opposite order.
    const BACKWARDS: &'static str;

    /// The row's sort key.
    fn key(&self) -> Self::Key;

    /// Adds the condition that a row lies beyond `key` in `direction`, or also at it.
    fn push_beyond(sql: &mut Sql, key: &Self::Key, direction: Direction, or_at: bool);
}

/// Which ends of a page the caller wants to know of; an end that nobody asks for is not looked for.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Whether rows lie before the page.
    pub previous: bool,
    /// Whether rows lie after the page.
    pub next: bool,
}

/// One page, in the connection's own order.
#[derive(Clone, Debug)]
pub struct Slice<R> {
    /// The rows.
    pub rows: Vec<R>,
    /// Whether rows lie before them; false if it was not asked for.
    pub has_previous: bool,
    /// Whether rows lie after them; false if it was not asked for.
    pub has_next: bool,
}

/// Reads one page of the rows that meet `conditions`, which adds ` AND …` for each.
pub async fn page<R: Table>(
    database: &Database,
    conditions: impl Fn(&mut Sql) + Sync,
    page: &Page<R::Key>,
    ends: Ends,
) -> Result<Slice<R>, QueryError> {
    let (rows, has_previous, has_next) = tokio::try_join!(
        database.read(|pool| {
            let mut sql = statement::<R>(&conditions, page);
            async move { sql.build_query_as::<R>().fetch_all(&pool).await }
        }),
        any_beyond::<R>(database, &conditions, page.after.as_ref().filter(|_| ends.previous), Direction::Backwards),
        any_beyond::<R>(database, &conditions, page.before.as_ref().filter(|_| ends.next), Direction::Forwards),
    )?;
    let mut slice = Slice { rows, has_previous, has_next };
    let has_more = slice.rows.len() > page.rows;
    slice.rows.truncate(page.rows);
    match page.direction {
        Direction::Forwards => slice.has_next |= has_more,
        Direction::Backwards => {
            slice.has_previous |= has_more;
            slice.rows.reverse();
        }
    }
    Ok(slice)
}

/// Reads the page in its own direction, and one row more, which tells whether there are more.
fn statement<R: Table>(conditions: &impl Fn(&mut Sql), page: &Page<R::Key>) -> Sql {
    let mut sql = Sql::new(format!("SELECT {} FROM {} WHERE true", R::COLUMNS, R::NAME));
    conditions(&mut sql);
    for (key, direction) in [(&page.after, Direction::Forwards), (&page.before, Direction::Backwards)] {
        if let Some(key) = key {
            sql.push(" AND ");
            R::push_beyond(&mut sql, key, direction, false);
        }
    }
    let order = if page.direction == Direction::Forwards { R::FORWARDS } else { R::BACKWARDS };
    sql.push(" ORDER BY ").push(order).push(" LIMIT ");
    sql.push_bind(i64::try_from(page.rows).expect("a page has at most 100 rows") + 1);
    sql
}

/// Whether a row meets the conditions and lies at `key` or beyond it: the rows that a cursor cuts off.
async fn any_beyond<R: Table>(
    database: &Database,
    conditions: &impl Fn(&mut Sql),
    key: Option<&R::Key>,
    direction: Direction,
) -> Result<bool, QueryError> {
    let Some(key) = key else { return Ok(false) };
    let exists = |pool: PgPool| {
        let mut sql = Sql::new(format!("SELECT EXISTS (SELECT FROM {} WHERE true", R::NAME));
        conditions(&mut sql);
        sql.push(" AND ");
        R::push_beyond(&mut sql, key, direction, true);
        sql.push(")");
        async move { sql.build_query_scalar().fetch_one(&pool).await }
    };
    database.read(exists).await
}
