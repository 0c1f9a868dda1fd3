//! The log as a handler sees it: a strongly consistent read, and what its failures are to a client.

use event_store::{AppendError, EventContext, ExecuteError, JetStreamEventStore, LoadError, Loaded, ReadError};

use crate::{
    command::{Remembers, SOURCE, now},
    problem::{Code, Problem},
};

/// The aggregate as the leader of the log has it: no acknowledged event is missing.
pub(crate) async fn current<A: Remembers>(store: &JetStreamEventStore, id: &str) -> Result<Loaded<A>, Problem> {
    // A plain load may be answered by a replica that is behind; a decision that appends nothing is confirmed by the leader.
    let nothing = EventContext {
        source: SOURCE,
        event_id: None,
        correlation_id: String::new(),
        causation_id: None,
        actor: None,
        traceparent: None,
        time: now(),
    };
    let executed = store.execute(id, &nothing, |_: &Loaded<A>| Ok(Vec::new())).await.map_err(|error| match error {
        ExecuteError::Conflict => unavailable("the replicas of the log are behind"),
        error => execute_problem(error),
    })?;
    Ok(Loaded { aggregate: executed.aggregate, version: executed.version, position: executed.position })
}

/// Refuses at once while there is no connection, rather than letting requests pile up until their deadline; and while the log is being restored, which
/// may begin anew without what was appended meanwhile. That is looked at every second ([`crate::readiness`]).
pub(crate) fn connected(store: &JetStreamEventStore) -> Result<&JetStreamEventStore, Problem> {
    match (store.is_connected(), store.has_log()) {
        (true, true) => Ok(store),
        (true, false) => Err(unavailable("the log is not there yet, or being restored")),
        (false, _) => Err(unavailable("there is no connection to the log")),
    }
}

/// The log cannot be asked; worth another try.
pub(crate) fn unavailable(why: &str) -> Problem {
    Problem::new(Code::Unavailable, format!("{why}; retry with the same Idempotency-Key"))
}

pub(crate) fn execute_problem(error: ExecuteError<Problem>) -> Problem {
    match error {
        ExecuteError::Rejected(problem) => problem,
        ExecuteError::Conflict => Problem::new(Code::Conflict, "others kept changing it; nothing was changed, so try again"),
        ExecuteError::Load(error) => load_problem(error),
        ExecuteError::Append(AppendError::Unavailable) => unavailable("the log did not answer in time"),
        ExecuteError::Append(AppendError::Overloaded) => unavailable("too many requests are waiting for the log"),
        ExecuteError::Append(error @ AppendError::Refused { .. }) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the log refused an append");
            unavailable("the log refused the append")
        }
        ExecuteError::Append(error) => Problem::internal(&error),
    }
}

pub(crate) fn load_problem(error: LoadError) -> Problem {
    match error {
        LoadError::Read(error @ ReadError::Unavailable(_)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "the log did not answer");
            unavailable("the log did not answer")
        }
        error => Problem::internal(&error),
    }
}
