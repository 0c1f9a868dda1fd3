//! The edge at which reactors learn the time.

use time::OffsetDateTime;

/// Now, in UTC, to the microsecond.
#[expect(clippy::disallowed_methods, reason = "the edge: everything further in gets the time as an argument")]
pub(crate) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.nanosecond() / 1_000 * 1_000).unwrap_or(now)
}
