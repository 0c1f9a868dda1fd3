//! Rows on their way out of the database.

use bytes::{Buf, Bytes};
use futures::{StreamExt, stream::BoxStream};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{EPOCH, HEADER};

/// A COPY that goes on.
pub(crate) struct CopyOut<'c> {
    messages: BoxStream<'c, Result<Bytes, sqlx::Error>>,
    /// What came and was not taken yet.
    waiting: Bytes,
    has_begun: bool,
}

impl<'c> CopyOut<'c> {
    /// Begins to read what `query` gives, which goes into the statement as it is.
    pub(crate) async fn start(connection: &'c mut PgConnection, query: &str) -> Result<Self, sqlx::Error> {
        let messages = connection.copy_out_raw(&format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await?;
        Ok(Self { messages, waiting: Bytes::new(), has_begun: false })
    }

    /// The next row; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<CopiedRow>, sqlx::Error> {
        // The server sends whole rows, the header with the first.
        while self.waiting.is_empty() {
            match self.messages.next().await {
                Some(message) => self.waiting = message?,
                None => return Ok(None),
            }
            if !self.has_begun {
                self.has_begun = true;
                if !self.waiting.starts_with(HEADER) {
                    return Err(malformed("the rows do not begin with their header"));
                }
                self.waiting.advance(HEADER.len());
            }
        }
        let columns = self.waiting.try_get_i16().map_err(|_| malformed("a row is cut off"))?;
        if columns < 0 {
            // After the last row there is nothing but the end of the statement, which has to be read as well.
            while let Some(message) = self.messages.next().await {
                message?;
            }
            return Ok(None);
        }
        let mut row = CopiedRow(self.waiting.clone());
        for _ in 0..columns {
            take(&mut self.waiting)?;
        }
        let rest = self.waiting.len();
        row.0.truncate(row.0.len() - rest);
        Ok(Some(row))
    }
}

/// One row, of which the columns are to be taken in their order.
pub(crate) struct CopiedRow(Bytes);

impl CopiedRow {
    /// A `bytea`.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, sqlx::Error> {
        take(&mut self.0)?.ok_or_else(|| malformed("a value is NULL that must not be"))
    }

    /// A `text`.
    pub(crate) fn text(&mut self) -> Result<String, sqlx::Error> {
        self.optional_text()?.ok_or_else(|| malformed("a value is NULL that must not be"))
    }

    /// A `text` that may be NULL.
    pub(crate) fn optional_text(&mut self) -> Result<Option<String>, sqlx::Error> {
        let text = |bytes: Bytes| String::from_utf8(bytes.into()).map_err(|_| malformed("a text is not UTF-8"));
        take(&mut self.0)?.map(text).transpose()
    }

    /// A `bigint`.
    pub(crate) fn bigint(&mut self) -> Result<i64, sqlx::Error> {
        Ok(i64::from_be_bytes(self.sized()?))
    }

    /// A `uuid`.
    pub(crate) fn uuid(&mut self) -> Result<Uuid, sqlx::Error> {
        Ok(Uuid::from_bytes(self.sized()?))
    }

    /// A `timestamptz`. One that lies beyond the years that are known here, such as `infinity`, becomes the greatest or the least
    /// time that there is; neither is one of whole microseconds within RFC 3339's years, as an event's is.
    pub(crate) fn time(&mut self) -> Result<OffsetDateTime, sqlx::Error> {
        Ok(EPOCH.saturating_add(Duration::microseconds(self.bigint()?)))
    }

    fn sized<const N: usize>(&mut self) -> Result<[u8; N], sqlx::Error> {
        self.bytes()?.as_ref().try_into().map_err(|_| malformed("a value has another length than its type"))
    }
}

/// The next value; none if it is NULL.
fn take(bytes: &mut Bytes) -> Result<Option<Bytes>, sqlx::Error> {
    let length = bytes.try_get_i32().map_err(|_| malformed("a row is cut off"))?;
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    if length > bytes.len() {
        return Err(malformed("a row is cut off"));
    }
    Ok(Some(bytes.split_to(length)))
}

fn malformed(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("what Postgres copies out is malformed: {what}"))
}
