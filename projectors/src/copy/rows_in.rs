//! Rows on their way into a table.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{EPOCH, HEADER, NULL, TRAILER};

/// How much is sent to Postgres at a time.
const SEND_BYTES: usize = 64 * 1024;
/// Postgres' number of the type `text`.
const TEXT_OID: u32 = 25;

/// Rows that are ready to be copied.
#[derive(Debug)]
pub(crate) struct EncodedRows {
    columns: &'static [&'static str],
    bytes: Vec<u8>,
    rows: usize,
}

impl EncodedRows {
    /// Rows of a table that has these columns. The names go into the statement as they are.
    pub(crate) fn of(columns: &'static [&'static str]) -> Self {
        Self { columns, bytes: Vec::new(), rows: 0 }
    }

    /// A further row, whose columns are to be written in the order of the names.
    pub(crate) fn row(&mut self) -> CopyRow<'_> {
        let columns = i16::try_from(self.columns.len()).expect("a table has at most 1,600 columns");
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(HEADER);
        }
        self.bytes.extend_from_slice(&columns.to_be_bytes());
        self.rows += 1;
        CopyRow { bytes: &mut self.bytes, missing: columns }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Forgets them, and keeps their room for the next.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.rows = 0;
    }

    /// Copies them into a table that must not have them. Dropped before it is done, it fails, and with it the transaction.
    pub(crate) async fn copy_into(&self, connection: &mut PgConnection, table: &str) -> Result<(), sqlx::Error> {
        if self.rows == 0 {
            return Ok(());
        }
        let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", self.columns.join(", "));
        let mut copy = connection.copy_in_raw(&sql).await?;
        for chunk in self.bytes.chunks(SEND_BYTES) {
            copy.send(chunk).await?;
        }
        copy.send(TRAILER.as_slice()).await?;
        copy.finish().await?;
        Ok(())
    }
}

/// One row, which has to get all of its columns.
pub(crate) struct CopyRow<'b> {
    bytes: &'b mut Vec<u8>,
    missing: i16,
}

impl CopyRow<'_> {
    /// A `text` or a `json`.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A `text[]`.
    pub(crate) fn texts(&mut self, texts: &[&str]) -> &mut Self {
        self.value(|bytes| {
            // How many dimensions there are, and no bitmap of NULLs. An empty array has none.
            bytes.extend_from_slice(&length(usize::from(!texts.is_empty())));
            bytes.extend_from_slice(&0_i32.to_be_bytes());
            bytes.extend_from_slice(&TEXT_OID.to_be_bytes());
            if !texts.is_empty() {
                // How long the one dimension is, and the number of its first element.
                bytes.extend_from_slice(&length(texts.len()));
                bytes.extend_from_slice(&1_i32.to_be_bytes());
            }
            for text in texts {
                bytes.extend_from_slice(&length(text.len()));
                bytes.extend_from_slice(text.as_bytes());
            }
        })
    }

    /// A `text` that may be NULL.
    pub(crate) fn optional_text(&mut self, text: Option<&str>) -> &mut Self {
        let Some(text) = text else {
            self.missing -= 1;
            self.bytes.extend_from_slice(&NULL);
            return self;
        };
        self.text(text)
    }

    /// A `json`, written as it is serialized.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> &mut Self {
        self.value(|bytes| {
            serde_json::to_writer(bytes, value)
                .expect("a row's document has string keys and times within RFC 3339's range, so it always serializes");
        })
    }

    /// A value whose length is only known once it is written.
    fn value(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.missing -= 1;
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&NULL);
        let value_at = self.bytes.len();
        write(self.bytes);
        let length = length(self.bytes.len() - value_at);
        self.bytes[length_at..value_at].copy_from_slice(&length);
        self
    }

    /// A `bigint`.
    pub(crate) fn bigint(&mut self, number: i64) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    /// A `uuid`.
    pub(crate) fn uuid(&mut self, uuid: Uuid) -> &mut Self {
        self.bytes(uuid.as_bytes())
    }

    /// A `timestamptz`, to the microsecond before it.
    pub(crate) fn time(&mut self, time: OffsetDateTime) -> &mut Self {
        // Years have four digits, so this fits.
        self.bigint(i64::try_from((time - EPOCH).whole_nanoseconds().div_euclid(1_000)).unwrap_or(i64::MAX))
    }

    /// A `bytea`, or a value of any type as Postgres sends it.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.missing -= 1;
        self.bytes.extend_from_slice(&length(bytes.len()));
        self.bytes.extend_from_slice(bytes);
        self
    }
}

impl Drop for CopyRow<'_> {
    fn drop(&mut self) {
        debug_assert!(self.missing == 0 || std::thread::panicking(), "a row lacks {} columns", self.missing);
    }
}

/// A value's length as the format has it. A message of the log has at most some megabytes.
fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).expect("a value takes less than 2 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn encoded(columns: i16, write: impl FnOnce(&mut CopyRow<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut CopyRow { bytes: &mut bytes, missing: columns });
        bytes
    }

    #[test]
    fn values_are_encoded_as_the_format_has_them() {
        assert_eq!(
            encoded(1, |row| {
                row.text("ab");
            }),
            b"\0\0\0\x02ab"
        );
        assert_eq!(
            encoded(1, |row| {
                row.optional_text(None);
            }),
            b"\xff\xff\xff\xff"
        );
        assert_eq!(
            encoded(1, |row| {
                row.json(&[1, 2]);
            }),
            b"\0\0\0\x05[1,2]"
        );
        assert_eq!(
            encoded(1, |row| {
                row.texts(&["ab", "c"]);
            }),
            b"\0\0\0\x1f\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x02\0\0\0\x01\0\0\0\x02ab\0\0\0\x01c"
        );
        assert_eq!(
            encoded(1, |row| {
                row.texts(&[]);
            }),
            b"\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\x19"
        );
        assert_eq!(
            encoded(1, |row| {
                row.bigint(-2);
            }),
            b"\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xfe"
        );
        assert_eq!(
            encoded(1, |row| {
                row.time(datetime!(2000-01-01 0:00:01.000002 UTC));
            }),
            b"\0\0\0\x08\0\0\0\0\0\x0f\x42\x42"
        );
    }
}
