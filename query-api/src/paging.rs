//! Pages of a connection: which rows, in which direction, between which cursors (the Relay cursor connections specification).
//!
//! A cursor is the sort key of its row, so a page costs the same wherever it lies, and rows that come or go between two requests
//! neither repeat nor hide others.

use crate::error::QueryError;
use crate::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use crate::opaque;

/// Which way a page is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first row on.
    Forwards,
    /// From the last row back.
    Backwards,
}

impl Direction {
    /// How a key compares with those that lie beyond it, or also at it, if all of its columns ascend.
    pub fn comparison(self, or_at: bool) -> &'static str {
        match (self, or_at) {
            (Self::Forwards, false) => " > ",
            (Self::Forwards, true) => " >= ",
            (Self::Backwards, false) => " < ",
            (Self::Backwards, true) => " <= ",
        }
    }

    /// The other way.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Forwards => Self::Backwards,
            Self::Backwards => Self::Forwards,
        }
    }
}

/// Whether a list is in its table's own order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sorted {
    /// It is.
    #[default]
    AsIs,
    /// It is in the opposite order.
    Reversed,
}

impl Sorted {
    /// A direction within the list, as the table sees it.
    pub fn seen(self, direction: Direction) -> Direction {
        match self {
            Self::AsIs => direction,
            Self::Reversed => direction.opposite(),
        }
    }
}

/// The sort key of a row: unique, and all that a cursor says.
pub trait Key: Sized {
    /// What a cursor of this kind of row begins with, so that a cursor of another connection is refused.
    const KIND: &'static str;

    /// The key as text.
    fn to_text(&self) -> String;

    /// Reads what [`Key::to_text`] wrote.
    fn from_text(text: &str) -> Option<Self>;

    /// The opaque cursor.
    fn cursor(&self) -> String {
        opaque::encode(Self::KIND, &self.to_text())
    }
}

/// The arguments of a connection, as they came in.
#[derive(Clone, Debug, Default)]
pub struct PageArguments {
    /// Rows from the start of the range.
    pub first: Option<i32>,
    /// Only rows after this cursor.
    pub after: Option<String>,
    /// Rows from the end of the range.
    pub last: Option<i32>,
    /// Only rows before this cursor.
    pub before: Option<String>,
}

/// The page that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<K> {
    /// In which order the list is.
    pub sorted: Sorted,
    /// Which way the page is filled.
    pub direction: Direction,
    /// How many rows at most; 0 to [`PAGE_ROWS_MAX`].
    pub rows: usize,
    /// Only rows after this key.
    pub after: Option<K>,
    /// Only rows before this key.
    pub before: Option<K>,
}

impl<K: Key> Page<K> {
    /// Checks the arguments.
    pub fn new(arguments: PageArguments) -> Result<Self, QueryError> {
        let (direction, argument, rows) = match (arguments.first, arguments.last) {
            (Some(_), Some(_)) => {
                return Err(QueryError::BadUserInput("first and last cannot be combined: ask for one of them".to_owned()));
            }
            (None, Some(last)) => (Direction::Backwards, "last", last),
            (first, None) => (Direction::Forwards, "first", first.unwrap_or(PAGE_ROWS_DEFAULT)),
        };
        let rows = match usize::try_from(rows) {
            Ok(fitting) if rows <= PAGE_ROWS_MAX => fitting,
            _ => return Err(QueryError::BadUserInput(format!("{argument} must be 0 to {PAGE_ROWS_MAX}, not {rows}"))),
        };
        Ok(Self {
            sorted: Sorted::AsIs,
            direction,
            rows,
            after: arguments.after.map(|cursor| key("after", &cursor)).transpose()?,
            before: arguments.before.map(|cursor| key("before", &cursor)).transpose()?,
        })
    }
}

fn key<K: Key>(argument: &str, cursor: &str) -> Result<K, QueryError> {
    let key = opaque::decode(cursor).and_then(|(kind, text)| if kind == K::KIND { K::from_text(&text) } else { None });
    key.ok_or_else(|| QueryError::BadUserInput(format!("{argument} is not a cursor of this connection in this order")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Number(u8);

    impl Key for Number {
        const KIND: &'static str = "number";

        fn to_text(&self) -> String {
            self.0.to_string()
        }

        fn from_text(text: &str) -> Option<Self> {
            text.parse().ok().map(Self)
        }
    }

    fn page(first: Option<i32>, last: Option<i32>, after: Option<String>) -> Result<Page<Number>, String> {
        Page::new(PageArguments { first, last, after, before: None }).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_has_20_rows_and_at_most_100() {
        assert_eq!(page(None, None, None).map(|page| page.rows), Ok(20));
        assert_eq!(page(Some(100), None, None).map(|page| page.rows), Ok(100));
        assert_eq!(page(Some(101), None, None), Err("first must be 0 to 100, not 101".to_owned()));
        assert_eq!(page(None, Some(-1), None), Err("last must be 0 to 100, not -1".to_owned()));
        assert!(page(Some(1), Some(1), None).is_err());
    }

    #[test]
    fn a_cursor_reads_back_and_that_of_another_connection_is_refused() {
        assert_eq!(page(None, None, Some(Number(7).cursor())).expect("a page").after, Some(Number(7)));
        for bad in [String::new(), "?".to_owned(), opaque::encode("letter", "7"), opaque::encode("number", "x")] {
            assert_eq!(page(None, None, Some(bad)), Err("after is not a cursor of this connection in this order".to_owned()));
        }
    }
}
