//! Every limit of the API in one place. The limits of orders and stock themselves are `domain`'s.

use std::time::Duration;

/// Longest request body, in bytes; a longer one is answered 413.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest request body, in bytes, that needs no place among [`LARGE_BODIES_MAX`] while it arrives: nearly every command is
/// shorter.
pub const SMALL_BODY_BYTES_MAX: usize = 16 * 1024;
/// Most longer bodies that may be arriving, or be worked on, at the same time; one more is answered 503.
pub const LARGE_BODIES_MAX: usize = 256;
/// Longest sum of all header names and values, in bytes; more is answered 431.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Longest path and query, in bytes; a longer one is answered 414.
pub const URI_BYTES_MAX: usize = 4 * 1024;
/// Longest `Idempotency-Key`, in characters, without its quotes.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Longest `X-Request-Id` and `X-Correlation-Id` that are taken over, in characters.
pub const REQUEST_ID_CHARS_MAX: usize = 128;
/// Most mistakes that one answer lists; a body can hold many more.
pub const FIELD_ERRORS_MAX: usize = 100;
/// Most bytes that the listed mistakes take in an answer; where they are long, fewer are listed.
pub const FIELD_ERRORS_BYTES_MAX: usize = 16 * 1024;
/// Most of a name or value of the client's own choice that an answer repeats, in characters.
pub const ECHO_CHARS_MAX: usize = 80;
/// Longest place or explanation in an answer, in characters.
pub const PROBLEM_TEXT_CHARS_MAX: usize = 400;
/// No problem document is longer, in bytes: the listed mistakes, the detail, in which a character takes up to six, and 2 KiB
/// for the rest.
pub const PROBLEM_BYTES_MAX: usize = FIELD_ERRORS_BYTES_MAX + 6 * PROBLEM_TEXT_CHARS_MAX + 2 * 1024;
/// Most commands and queries that are worked on at the same time, from the arrival of the whole body on; one more is answered
/// 503.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1_024;
/// How long a request may take, its body's arrival included, in seconds; then it is answered 503.
pub const REQUEST_DEADLINE_S: u64 = 10;
/// Most imports (`POST /v1/orders/bulk`) at the same time; one more is answered 503.
pub const BULK_REQUESTS_MAX: usize = 16;
/// Most lines of one import that are carried out at the same time: as many as the log gathers well into one commit.
pub const BULK_LINES_IN_FLIGHT_MAX: usize = 256;
/// Which part of [`REQUESTS_IN_FLIGHT_MAX`] the lines of all imports together may take: one in so many, so that single requests
/// always find a place.
pub const BULK_LINES_SHARE: usize = 2;
/// Most results of one import that wait for its client to read them. A client may send as many lines, and
/// [`BULK_LINES_IN_FLIGHT_MAX`] more, before it reads anything.
pub const BULK_RESULTS_WAITING_MAX: usize = 1_024;
/// Most bytes of results of one import that wait for its client to read them. [`BULK_RESULTS_WAITING_MAX`] results of orders
/// that were placed are far shorter; those that list many mistakes are not.
pub const BULK_RESULTS_WAITING_BYTES_MAX: usize = 1024 * 1024;
/// How long an import's client may send nothing, or read nothing, while it is waited for, in seconds; then the import ends.
pub const BULK_IDLE_S: u64 = 60;
/// How long an import's client that is still sending has to read that nothing more is looked at, in seconds.
pub const BULK_FAREWELL_S: u64 = 1;
/// What `Retry-After` says, in seconds: a dependency, a free slot or another instance is usually back by then.
pub const RETRY_AFTER_S: u64 = 1;
/// Pause between two looks at the log for `/ready`, in seconds.
pub const READINESS_INTERVAL_S: u64 = 1;

/// The limits that a test sets lower than production does.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`REQUESTS_IN_FLIGHT_MAX`].
    pub requests_in_flight_max: usize,
    /// See [`LARGE_BODIES_MAX`].
    pub large_bodies_max: usize,
    /// See [`REQUEST_DEADLINE_S`].
    pub request_deadline: Duration,
    /// See [`BULK_REQUESTS_MAX`].
    pub bulk_requests_max: usize,
    /// See [`BULK_IDLE_S`].
    pub bulk_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            large_bodies_max: LARGE_BODIES_MAX,
            request_deadline: Duration::from_secs(REQUEST_DEADLINE_S),
            bulk_requests_max: BULK_REQUESTS_MAX,
            bulk_idle: Duration::from_secs(BULK_IDLE_S),
        }
    }
}
