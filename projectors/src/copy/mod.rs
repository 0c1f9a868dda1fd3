//! Rows in the binary format of Postgres' COPY: the cheapest way into a table, and out of it.
//!
//! Source of the format: PostgreSQL's documentation of COPY, "Binary Format".

mod rows_in;
mod rows_out;

use time::{OffsetDateTime, macros::datetime};

pub(crate) use rows_in::{CopyRow, EncodedRows};
pub(crate) use rows_out::{CopiedRow, CopyOut};

/// The signature, no flags, and no extension of the header.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What stands in the place of a row after the last.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// What stands in the place of a length if there is no value.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// Postgres counts time from here.
const EPOCH: OffsetDateTime = datetime!(2000-01-01 0:00 UTC);
