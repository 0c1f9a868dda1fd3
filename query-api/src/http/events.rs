//! Subscriptions and queries as server-sent events, in the "distinct connections mode" of the GraphQL over SSE protocol
//! (<https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md>): an event `next` with each response, and `complete` at the end.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use auth::Caller;
use axum::extract::Request;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::FutureExt as _;
use futures::{StreamExt as _, stream};

use super::accept::Media;
use super::{Operation, Refusal, Service, expiry, outcome_of};
use crate::metrics::Outcome;

/// After so long without an event a comment is sent, so that whoever is between does not take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(12);

/// What comes of a request.
enum Begun {
    /// A query, which is answered.
    Answered(async_graphql::Response),
    /// A subscription, which goes on for as long as it takes.
    Subscribed(Operation, Caller),
}

/// Answers with events, or, if nothing can be executed, as any other request. How a subscription ends is not known
/// yet: it has no outcome.
pub(super) async fn respond(service: &Service, request: Request) -> (Option<Outcome>, Response) {
    match service.in_time(begin(service, request)).await {
        Ok(Begun::Answered(response)) => {
            let outcome = outcome_of(&response);
            (Some(outcome), Sse::new(stream::iter([next(&Ok(response)), complete()]).map(Ok::<_, Infallible>)).into_response())
        }
        Ok(Begun::Subscribed(operation, caller)) => subscribe(service, operation, caller),
        Err(refusal) => refused(refusal),
    }
}

/// Reads the request, and answers it if it is a query.
async fn begin(service: &Service, request: Request) -> Result<Begun, Refusal> {
    let caller = service.door.ask(request.headers()).await?;
    let operation = service.operation_of(request).await?;
    if operation.kind == Some(OperationType::Subscription) {
        return Ok(Begun::Subscribed(operation, caller));
    }
    service.execute(operation, caller).await.map(Begun::Answered)
}

fn subscribe(service: &Service, operation: Operation, caller: Caller) -> (Option<Outcome>, Response) {
    let expires_in = caller.expires_in();
    let mut responses = Box::pin(service.subscribe(operation, caller));
    // What does not fit the schema is found out at once, and told by the status. Everything else may take its time.
    let first = match responses.next().now_or_never().flatten() {
        Some(Err(refusal)) => return refused(refusal),
        first => first,
    };
    let events = stream::iter(first).chain(responses).map(|response| next(&response)).chain(stream::once(ready(complete())));
    let drain = service.drain.clone();
    // Cut short by the drain, or because the caller's token has expired, it is not complete: whoever listened comes again.
    let events = events.take_until(async move {
        tokio::select! {
            () = drain.started() => {}
            () = expiry(expires_in) => {}
        }
    });
    let events = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    (None, events.into_response())
}

fn refused(refusal: Refusal) -> (Option<Outcome>, Response) {
    (Some(Outcome::Refused), refusal.into_response(Media::GraphqlResponse))
}

fn next(response: &Result<async_graphql::Response, Refusal>) -> Event {
    let json = match response {
        Ok(response) => serde_json::to_string(response),
        Err(refusal) => serde_json::to_string(&refusal.unexecuted()),
    };
    Event::default().event("next").data(json.expect("a response has string keys only, so it always serializes"))
}

fn complete() -> Event {
    Event::default().event("complete").data("")
}
