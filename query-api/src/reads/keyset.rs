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
    /// `ORDER BY` of the table's own order.
    const FORWARDS: &'static str;
    /// `ORDER BY` of the opposite order.
    const BACKWARDS: &'static str;

    /// The row's sort key.
    fn key(&self) -> Self::Key;

    /// Adds the condition that a row lies beyond `key` in `direction`, or also at it.
    fn push_beyond(sql: &mut Sql, key: &Self::Key, direction: Direction, or_at: bool);
}

/// Which rows.
pub trait Conditions: Sync {
    /// Adds ` AND …` for each condition.
    fn push(&self, sql: &mut Sql);

    /// Whether what is the best way to the rows depends on the values. Such a statement is planned each time, for its values; others
    /// once for all, which saves the planning.
    fn depend_on_values(&self) -> bool {
        false
    }
}

/// Adds the condition that a column begins with a text, as a range of its index. The column must be in the order of the bytes.
pub(super) fn push_begins_with(sql: &mut Sql, column: &str, prefix: &str) {
    sql.push(" AND ").push(column).push(" >= ").push_bind(prefix.to_owned());
    if let Some(end) = after_all_with(prefix) {
        sql.push(" AND ").push(column).push(" < ").push_bind(end);
    }
}

/// The least text that is greater than all that begin with `prefix`; `None` if there is none.
fn after_all_with(prefix: &str) -> Option<String> {
    // UTF-8 sorts as its characters do.
    let kept = prefix.trim_end_matches(char::MAX);
    let last = kept.chars().next_back()?;
    let next = (last..=char::MAX).nth(1)?;
    Some(format!("{}{next}", &kept[..kept.len() - last.len_utf8()]))
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

/// Reads one page of the rows that meet `conditions`, in the order that `page` has.
pub async fn page<R: Table>(
    database: &Database,
    conditions: &impl Conditions,
    page: &Page<R::Key>,
    ends: Ends,
) -> Result<Slice<R>, QueryError> {
    let persistent = !conditions.depend_on_values();
    let before_it = page.after.as_ref().filter(|_| ends.previous);
    let after_it = page.before.as_ref().filter(|_| ends.next);
    let (rows, has_previous, has_next) = tokio::try_join!(
        database.read(|pool| {
            let mut sql = statement::<R>(conditions, page);
            async move { sql.build_query_as::<R>().persistent(persistent).fetch_all(&pool).await }
        }),
        any_beyond::<R>(database, conditions, before_it, page.sorted.seen(Direction::Backwards)),
        any_beyond::<R>(database, conditions, after_it, page.sorted.seen(Direction::Forwards)),
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
fn statement<R: Table>(conditions: &impl Conditions, page: &Page<R::Key>) -> Sql {
    let mut sql = Sql::new(format!("SELECT {} FROM {} WHERE true", R::COLUMNS, R::NAME));
    conditions.push(&mut sql);
    for (key, direction) in [(&page.after, Direction::Forwards), (&page.before, Direction::Backwards)] {
        if let Some(key) = key {
            sql.push(" AND ");
            R::push_beyond(&mut sql, key, page.sorted.seen(direction), false);
        }
    }
    let order = if page.sorted.seen(page.direction) == Direction::Forwards { R::FORWARDS } else { R::BACKWARDS };
    sql.push(" ORDER BY ").push(order).push(" LIMIT ");
    sql.push_bind(i64::try_from(page.rows).expect("a page has at most 100 rows") + 1);
    sql
}

/// Whether a row meets the conditions and lies at `key` or beyond it: the rows that a cursor cuts off.
async fn any_beyond<R: Table>(
    database: &Database,
    conditions: &impl Conditions,
    key: Option<&R::Key>,
    direction: Direction,
) -> Result<bool, QueryError> {
    let Some(key) = key else { return Ok(false) };
    let persistent = !conditions.depend_on_values();
    let exists = |pool: PgPool| {
        let mut sql = Sql::new(format!("SELECT EXISTS (SELECT FROM {} WHERE true", R::NAME));
        conditions.push(&mut sql);
        sql.push(" AND ");
        R::push_beyond(&mut sql, key, direction, true);
        sql.push(")");
        async move { sql.build_query_scalar().persistent(persistent).fetch_one(&pool).await }
    };
    database.read(exists).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_text_ends_before_the_next_text_of_its_length() {
        let cases = [
            ("", None),
            ("a", Some("b")),
            ("az", Some("a{")),
            ("0f", Some("0g")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}\u{10ffff}", None),
        ];
        for (prefix, end) in cases {
            assert_eq!(after_all_with(prefix).as_deref(), end, "{prefix:?}");
        }
    }
}
