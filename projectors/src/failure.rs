//! How a command fails: one variant per exit code, because that is what callers branch on.

use std::error::Error;

use event_store::ReadError;
use telemetry::{exit::Exit, settings::SettingsError};

use crate::read_models::chain;

/// A cause of any type.
type Cause = Box<dyn Error + Send + Sync>;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Settings or arguments are missing or wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// What was asked for does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The state of things does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// Data is not what it was recorded or signed as.
    #[error("{0}")]
    Integrity(String),
    /// A dependency is away; the same command may succeed later.
    #[error("try again later: {0}")]
    Away(String),
    /// A signal came first.
    #[error("interrupted")]
    Interrupted,
    /// Anything else.
    #[error("{doing}")]
    Other {
        /// What was being done.
        doing: String,
        /// What went wrong.
        #[source]
        cause: Cause,
    },
}

impl Failure {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) => Exit::Usage,
            Self::NotFound(_) => Exit::NotFound,
            Self::Conflict(_) => Exit::Conflict,
            Self::Integrity(_) => Exit::Integrity,
            Self::Away(_) => Exit::TryAgain,
            Self::Interrupted => Exit::Interrupted,
            Self::Other { .. } => Exit::Failed,
        }
    }

    /// An argument that clap could not judge is wrong.
    pub fn usage(argument: &str, error: &dyn Error) -> Self {
        Self::Settings(SettingsError { mistakes: vec![format!("{argument}: {}", chain(error))] })
    }

    /// An argument asks for what is not done.
    pub(crate) fn refused(argument: &str, why: &str) -> Self {
        Self::Settings(SettingsError { mistakes: vec![format!("{argument}: {why}")] })
    }

    /// For `map_err`: a failure while `doing` that nobody branches on.
    pub(crate) fn other<E: Into<Cause>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        |cause| Self::Other { doing: doing.into(), cause: cause.into() }
    }

    /// For `map_err`: the log is away, or is not whole, which showed while `doing`.
    pub(crate) fn log(doing: &'static str) -> impl FnOnce(ReadError) -> Self {
        move |error| {
            let said = format!("{doing}: {error}");
            match error {
                ReadError::Unavailable(_) => Self::Away(said),
                ReadError::Gap { .. } => Self::Integrity(said),
            }
        }
    }

    /// For `map_err`: Postgres failed while `doing`, or is away.
    pub(crate) fn postgres(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |error| {
            if read_store::pool::is_away(&error) {
                Self::Away(format!("{doing}: Postgres is away: {error}"))
            } else {
                Self::Other { doing: doing.to_owned(), cause: error.into() }
            }
        }
    }
}
