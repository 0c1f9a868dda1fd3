//! What can go wrong with a query, and how a caller hears of it: one place for every `extensions.code`.

use std::error::Error;
use std::sync::Arc;

use async_graphql::{ErrorExtensionValues, ServerError};
use time::{OffsetDateTime, UtcOffset};

use crate::limits::QUERY_COMPLEXITY_MAX;
use crate::limits::QUERY_DEPTH_MAX;
use crate::positions::StaleRead;

/// The codes of `extensions.code`. Callers branch on them, so they never change.
pub mod code {
    /// The HTTP request is not a GraphQL request, or not one that this server takes.
    pub const BAD_REQUEST: &str = "BAD_REQUEST";
    /// The query's text is not GraphQL.
    pub const GRAPHQL_PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
    /// The query does not fit the schema.
    pub const GRAPHQL_VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";
    /// An argument has a value that makes no sense.
    pub const BAD_USER_INPUT: &str = "BAD_USER_INPUT";
    /// The query is larger, deeper or more expensive than the server allows.
    pub const LIMIT_EXCEEDED: &str = "LIMIT_EXCEEDED";
    /// Only listed operations are executed, and this is none of them.
    pub const OPERATION_NOT_ALLOWED: &str = "OPERATION_NOT_ALLOWED";
    /// No listed operation has that id or hash.
    pub const PERSISTED_QUERY_NOT_FOUND: &str = "PERSISTED_QUERY_NOT_FOUND";
    /// No operations are listed, so none can be asked for by id or hash.
    pub const PERSISTED_QUERY_NOT_SUPPORTED: &str = "PERSISTED_QUERY_NOT_SUPPORTED";
    /// The schema may not be asked for.
    pub const INTROSPECTION_DISABLED: &str = "INTROSPECTION_DISABLED";
    /// The read model did not reach `minPosition` in time; `extensions.position` is where it is.
    pub const STALE_READ: &str = "STALE_READ";
    /// The request does not say who sends it, or in a way that is not to be believed.
    pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
    /// The caller's role does not allow it.
    pub const FORBIDDEN: &str = "FORBIDDEN";
    /// The caller comes too often.
    pub const TOO_MANY_REQUESTS: &str = "TOO_MANY_REQUESTS";
    /// The server, or the database behind it, cannot answer now; the same query may work in a moment.
    pub const UNAVAILABLE: &str = "UNAVAILABLE";
    /// The answer took too long.
    pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
    /// A fault of the server; its log has the details.
    pub const INTERNAL: &str = "INTERNAL";
}

/// Why a field has no value.
///
/// `Display` is what the caller reads; a source is for the log alone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// An argument has a value that makes no sense; the text says which and why.
    #[error("{0}")]
    BadUserInput(String),
    /// The caller may not see that.
    #[error(transparent)]
    Forbidden(#[from] auth::Forbidden),
    /// The read model is older than the caller demands.
    #[error(transparent)]
    StaleRead(#[from] StaleRead),
    /// Postgres is away, overloaded, or has no read models yet.
    #[error("the read models cannot be reached now")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// This process has as much to do as it takes on; the text says of what.
    #[error("{0}")]
    Busy(String),
    /// Postgres did not finish in time.
    #[error("the read models took too long to answer")]
    Deadline(#[source] Arc<sqlx::Error>),
    /// What the read models hold cannot be read.
    #[error("internal error")]
    Internal(#[source] Arc<dyn Error + Send + Sync>),
}

impl QueryError {
    /// A fault of this system, with what went wrong for the log.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal(Arc::from(source.into()))
    }

    /// Whether it is the read models that cannot give an answer now, and may in a moment.
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::StaleRead(_) | Self::Unavailable(_) | Self::Deadline(_))
    }

    fn code(&self) -> &'static str {
        match self {
            Self::BadUserInput(_) => code::BAD_USER_INPUT,
            Self::Forbidden(_) => code::FORBIDDEN,
            Self::StaleRead(_) => code::STALE_READ,
            Self::Unavailable(_) | Self::Busy(_) => code::UNAVAILABLE,
            Self::Deadline(_) => code::DEADLINE_EXCEEDED,
            Self::Internal(_) => code::INTERNAL,
        }
    }
}

/// The same moment in UTC, as what is stored is.
pub(crate) fn in_utc(time: OffsetDateTime) -> Result<OffsetDateTime, QueryError> {
    let utc = time.checked_to_offset(UtcOffset::UTC);
    utc.ok_or_else(|| {
        QueryError::BadUserInput("a time lies beyond the year 9999 in UTC, which nothing that is stored does".to_owned())
    })
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        if has_sqlstate(&error, &[STATEMENT_CANCELLED]) {
            Self::Deadline(Arc::new(error))
        } else if has_sqlstate(&error, &[NO_SUCH_CHARACTER]) {
            Self::BadUserInput("a text holds the character U+0000, which nothing that is stored can hold: leave it out".to_owned())
        } else if has_sqlstate(&error, &[TIME_OUT_OF_RANGE]) {
            Self::BadUserInput("a time lies before the year -4712, which nothing that is stored does".to_owned())
        } else if read_store::pool::is_away(&error) || has_sqlstate(&error, &NOT_SET_UP) {
            Self::Unavailable(Arc::new(error))
        } else {
            Self::internal(error)
        }
    }
}

/// `query_canceled`: the statement ran into its deadline.
const STATEMENT_CANCELLED: &str = "57014";
/// `character_not_in_repertoire`: Postgres keeps no NUL in a text. Every text of a statement comes from the caller.
const NO_SUCH_CHARACTER: &str = "22021";
/// `datetime_field_overflow`: no time of an argument's format is, but one of a cursor that we did not make may be.
const TIME_OUT_OF_RANGE: &str = "22008";
/// No such database, schema or table, or no right to it: the set-up step has not been there yet.
const NOT_SET_UP: [&str; 5] = ["3D000", "3F000", "42P01", "42501", "28P01"];

fn has_sqlstate(error: &sqlx::Error, states: &[&str]) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| states.contains(&&*code))
}

/// Gives every error of a response its code, and says whether the response is a request error: one of a query that was not
/// executed at all (GraphQL, section 7.1.2).
pub fn finish(errors: &mut [ServerError], data_is_null: bool) -> bool {
    let is_request_error = data_is_null && !errors.is_empty() && errors.iter().all(|error| error.path.is_empty());
    for error in errors {
        finish_one(error, is_request_error);
    }
    is_request_error
}

fn finish_one(error: &mut ServerError, is_request_error: bool) {
    let known = error.source::<QueryError>().cloned();
    let extensions = error.extensions.get_or_insert_default();
    match known {
        Some(known) => {
            extensions.set("code", known.code());
            match &known {
                QueryError::StaleRead(stale) => {
                    extensions.set("projection", stale.projection.as_str());
                    extensions.set("position", stale.position.to_string());
                    extensions.set("minPosition", stale.min_position.to_string());
                }
                QueryError::Unavailable(source) | QueryError::Deadline(source) => {
                    tracing::warn!(error = %Chain(source), "a query was not answered: {known}: {}", Chain(source));
                }
                QueryError::Internal(source) => {
                    tracing::error!(error = %Chain(source), "a query failed: {}", Chain(&**source));
                }
                QueryError::BadUserInput(_) | QueryError::Forbidden(_) | QueryError::Busy(_) => {}
            }
        }
        None if extensions.get("code").is_some() => {}
        // The texts of async-graphql's own limits; a test holds them.
        None if error.message == "Query is too complex." => {
            error.message = format!("the query costs more than {QUERY_COMPLEXITY_MAX}: ask for fewer fields or smaller pages");
            extensions.set("code", code::LIMIT_EXCEEDED);
        }
        None if error.message == "Query is nested too deep." => {
            error.message = format!("the query nests fields more than {QUERY_DEPTH_MAX} deep");
            extensions.set("code", code::LIMIT_EXCEEDED);
        }
        None if error.message == "Subscriptions are not supported on this transport." => {
            "subscriptions need Accept: text/event-stream, or a connection to /graphql/ws".clone_into(&mut error.message);
            extensions.set("code", code::BAD_REQUEST);
        }
        None if is_request_error => extensions.set("code", code::GRAPHQL_VALIDATION_FAILED),
        // Every resolver fails with a QueryError; what remains is an argument or variable that could not be read.
        None => extensions.set("code", code::BAD_USER_INPUT),
    }
}

/// An error that concerns no field, with its code.
pub fn server_error(code: &'static str, message: impl Into<String>) -> ServerError {
    let mut error = ServerError::new(message, None);
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", code);
    error.extensions = Some(extensions);
    error
}

/// An error and its sources in one line.
struct Chain<'a>(&'a (dyn Error + 'a));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
