//! Names of headers that the `http` crate does not know.

/// RFC draft-ietf-httpapi-idempotency-key-header.
pub(crate) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// On an answer that was given before.
pub(crate) const IDEMPOTENT_REPLAYED: &str = "Idempotent-Replayed";
/// The client's name of one request, or ours.
pub(crate) const X_REQUEST_ID: &str = "X-Request-Id";
/// The client's name of a whole story.
pub(crate) const X_CORRELATION_ID: &str = "X-Correlation-Id";
