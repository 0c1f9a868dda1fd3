//! Subscriptions and queries as server-sent events, in the "distinct connections mode" of the GraphQL over SSE protocol
//! (<https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md>): an event `next` with each response, and `complete` at the end.

use std::convert::Infallible;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use auth::Caller;
use axum::extract::Request;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::{Either, FutureExt as _};
use futures::{StreamExt as _, stream};

use super::accept::Media;
use super::{Operation, Refusal, Service, expiry};

/// After so long without an event a comment is sent, so that whoever is between does not take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(12);

/// Answers with events, or, if nothing can be executed, as any other request.
pub(super) async fn respond(service: &Service, request: Request) -> Response {
    let (caller, operation) = match asked(service, request).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(Media::GraphqlResponse),
    };
    let expires_in = caller.expires_in();
    let responses = if operation.kind == Some(OperationType::Subscription) {
        Either::Left(service.subscribe(operation, caller))
    } else {
        Either::Right(stream::once(std::future::ready(service.execute_in_time(operation, caller).await)))
    };
    let mut responses = Box::pin(responses);
    // What does not fit the schema is found out at once, and told by the status. Everything else may take its time.
    let first = match responses.next().now_or_never().flatten() {
        Some(Err(refusal)) => return refusal.into_response(Media::GraphqlResponse),
        first => first,
    };
    let next = |response: Result<async_graphql::Response, Refusal>| {
        let json = match &response {
            Ok(response) => serde_json::to_string(response),
            Err(refusal) => serde_json::to_string(&refusal.unexecuted()),
        };
        Event::default().event("next").data(json.expect("a response has string keys only, so it always serializes"))
    };
    let complete = stream::once(std::future::ready(Event::default().event("complete").data("")));
    let events = stream::iter(first).chain(responses).map(next).chain(complete);
    let drain = service.drain.clone();
    // Cut short by the drain, or because the caller's token has expired, it is not complete: whoever listened comes again.
    let events = events.take_until(async move {
        tokio::select! {
            () = drain.started() => {}
            () = expiry(expires_in) => {}
        }
    });
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// Who asks for what.
async fn asked(service: &Service, request: Request) -> Result<(Caller, Operation), Refusal> {
    let caller = service.door.ask(request.headers()).await?;
    Ok((caller, service.operation_of(request).await?))
}
