//! GraphQL over HTTP, as the GraphQL-over-HTTP specification and the audits of the npm package graphql-http have it, and the
//! page at `/`.
//!
//! Two media types: with `application/graphql-response+json` a query that was not executed is answered with status 400; with
//! `application/json`, which also serves callers that name no type, with 200. What is no GraphQL request at all is a 4xx in both.
//!
//! Subscriptions come over [`socket`] or as [`events`].

mod accept;
mod body;
mod events;
mod page;
mod shares;
mod socket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{ExecutableDocument, OperationType};
use async_graphql::{Request as GraphqlRequest, ServerError, Variables};
use auth::{Caller, Door, Refused};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures::future::ready;
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use telemetry::drain::Drain;
use telemetry::exemplars::TraceId;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::completion::{FieldTypes, RootKeys};
use crate::document::{self, DocumentError};
use crate::error::{self, code};
use crate::limits::{SOCKETS_MAX, SOCKETS_PER_CUSTOMER_MAX, SUBSCRIPTIONS_PER_CUSTOMER_MAX};
use crate::metrics::{Outcome, QueryMetrics};
use crate::operations::{NotExecuted, Operations};
use crate::schema::Schema;
use accept::{Form, Media};
use body::Parameters;
use shares::Shares;

/// The root type of subscriptions.
const SUBSCRIPTION_TYPE: &str = "Subscription";

/// What a caller that finds the server busy is told to wait, in seconds.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

#[derive(Clone)]
struct Service {
    schema: Schema,
    door: Door,
    policy: Policy,
    field_types: Arc<FieldTypes>,
    metrics: QueryMetrics,
    deadline: Duration,
    free: Arc<Semaphore>,
    sockets: Arc<Semaphore>,
    shares_of_sockets: Shares,
    shares_of_subscriptions: Shares,
    drain: Drain,
}

/// How much a server takes on.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Longest time from the head of a request to its answer.
    pub deadline: Duration,
    /// Most requests at the same time.
    pub requests_in_flight_max: usize,
}

/// What may be asked for.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which operations are executed.
    pub operations: Operations,
    /// Whether the schema may be asked for.
    pub introspection: bool,
}

impl Default for Policy {
    /// Anything.
    fn default() -> Self {
        Self { operations: Operations::any(), introspection: true }
    }
}

/// `/graphql`, `/graphql/ws` and the page at `/`. All but the page is for callers whom `door` lets in. What is open when the drain starts is
/// closed.
pub fn router(schema: Schema, door: Door, policy: Policy, metrics: QueryMetrics, capacity: Capacity, drain: Drain) -> Router {
    metrics.limit_is(capacity.requests_in_flight_max);
    let service = Service {
        field_types: Arc::new(FieldTypes::new(&schema.sdl())),
        schema,
        door,
        policy,
        metrics,
        deadline: capacity.deadline,
        free: Arc::new(Semaphore::new(capacity.requests_in_flight_max)),
        sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
        shares_of_sockets: Shares::new(SOCKETS_PER_CUSTOMER_MAX),
        shares_of_subscriptions: Shares::new(SUBSCRIPTIONS_PER_CUSTOMER_MAX),
        drain,
    };
    let routes = Router::new()
        .route("/", get(page::graphiql))
        .route("/graphql", any(graphql))
        .route("/graphql/ws", any(socket::upgrade))
        .with_state(service)
        .layer(middleware::from_fn(telemetry::http::traced))
        .fallback(no_such_route);
    routes.layer(CatchPanicLayer::custom(|_| {
        // The panic itself is logged by the panic hook.
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, "internal error").into_response(Media::Json)
    }))
}

async fn no_such_route() -> Response {
    let message = "there is nothing here: queries go to /graphql, and / has an editor for them";
    Refusal::new(StatusCode::NOT_FOUND, code::BAD_REQUEST, message).into_response(Media::Json)
}

async fn graphql(State(service): State<Service>, request: Request) -> Response {
    let started = Instant::now();
    let Some(form) = accept::negotiate(request.headers()) else {
        let message = "the answer can be application/graphql-response+json or application/json, and Accept allows neither";
        return Refusal::new(StatusCode::NOT_ACCEPTABLE, code::BAD_REQUEST, message).into_response(Media::Json);
    };
    let trace = TraceId::of(request.headers());
    let (outcome, response) = match form {
        Form::Whole(media) => answer(&service, request, media).await,
        Form::Events => events::respond(&service, request).await,
    };
    // How many subscriptions there are, and what they were told, is counted for itself.
    if let Some(outcome) = outcome {
        service.metrics.answered(outcome, started.elapsed(), trace);
    }
    response
}

async fn answer(service: &Service, request: Request, media: Media) -> (Option<Outcome>, Response) {
    match service.in_time(service.answer(request)).await {
        Ok(response) => (Some(outcome_of(&response)), respond(StatusCode::OK, media, &response)),
        Err(refusal) => (Some(Outcome::Refused), refusal.into_response(media)),
    }
}

/// How what was executed ended.
fn outcome_of(response: &async_graphql::Response) -> Outcome {
    if response.errors.is_empty() { Outcome::Ok } else { Outcome::Failed }
}

impl Service {
    async fn execute_in_time(&self, operation: Operation, caller: Caller) -> Result<async_graphql::Response, Refusal> {
        self.in_time(self.execute(operation, caller)).await
    }

    /// One of so many at a time, and not for longer than the deadline.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let busy = |code, message| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        let _permit = self.free.try_acquire().map_err(|_| busy(code::UNAVAILABLE, "too many requests are in flight"))?;
        let _open = self.metrics.in_flight();
        tokio::time::timeout(self.deadline, work).await.map_err(|_| busy(code::DEADLINE_EXCEEDED, "the answer took too long"))?
    }

    async fn answer(&self, request: Request) -> Result<async_graphql::Response, Refusal> {
        let caller = self.door.ask(request.headers()).await?;
        let operation = self.operation_of(request).await?;
        self.execute(operation, caller).await
    }

    /// What an HTTP request asks for.
    async fn operation_of(&self, request: Request) -> Result<Operation, Refusal> {
        let method = request.method().clone();
        let parameters = match method {
            Method::POST => body::from_post(request).await?,
            Method::GET | Method::HEAD => body::from_get(request.uri())?,
            _ => return Err(Refusal::method_not_allowed("GET, POST", "queries are sent with GET or POST")),
        };
        let operation = Operation::parse(parameters, &self.policy, &self.field_types)?;
        // Who subscribes changes nothing either.
        if method != Method::POST && operation.kind == Some(OperationType::Mutation) {
            return Err(Refusal::method_not_allowed("POST", "only queries may be sent with GET"));
        }
        Ok(operation)
    }

    async fn execute(&self, operation: Operation, caller: Caller) -> Result<async_graphql::Response, Refusal> {
        let (asked, root_keys) = (operation.asked.clone(), operation.root_keys.clone());
        let response = self.schema.execute(operation.into_request(caller)).await;
        let mut response = self.finish(response, &asked)?;
        if let Some(root_keys) = root_keys {
            root_keys.sort(&mut response);
        }
        Ok(response)
    }

    /// What comes of a subscription, one response after the other. It ends with the first refusal.
    fn subscribe(
        &self,
        operation: Operation,
        caller: Caller,
    ) -> impl Stream<Item = Result<async_graphql::Response, Refusal>> + Send + use<> {
        let Some(share) = self.shares_of_subscriptions.take(&caller) else {
            let message = format!("you have {SUBSCRIPTIONS_PER_CUSTOMER_MAX} subscriptions open: end one of them first");
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, code::TOO_MANY_REQUESTS, message);
            return stream::once(ready(Err(refusal))).left_stream();
        };
        let (service, asked) = (self.clone(), operation.asked.clone());
        let responses = self.schema.execute_stream(operation.into_request(caller));
        let open = self.metrics.subscription();
        let responses = responses.map(move |response| {
            // Moved in here, it is counted for as long as the stream is there.
            let _open = (&open, &share);
            service.metrics.told();
            service.finish(response, &asked)
        });
        responses.right_stream()
    }

    /// A response as callers may rely on it; or, if nothing was executed, why.
    fn finish(&self, mut response: async_graphql::Response, asked: &Asked) -> Result<async_graphql::Response, Refusal> {
        if !response.errors.is_empty() {
            if error::finish(&mut response.errors, response.data == async_graphql::Value::Null) {
                return Err(Refusal::of_document(response.errors));
            }
            let document = document::parse(&asked.text)?;
            if let Some(operation) = document::operation(&document, asked.operation_name.as_deref()) {
                self.field_types.complete(&mut response, &document, operation);
            }
        } else if response.data == async_graphql::Value::Null {
            // Every field was skipped, and nothing failed (GraphQL, section 3.13.1).
            response.data = async_graphql::Value::Object(IndexMap::new());
        }
        Ok(response)
    }
}

/// Over when a caller who may go on for so long may not any more.
async fn expiry(expires_in: Option<Duration>) {
    match expires_in {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

/// What is to be executed, parsed and within all limits.
struct Operation {
    asked: Asked,
    variables: Variables,
    document: ExecutableDocument,
    /// `None` if that cannot be told, which execution then says.
    kind: Option<OperationType>,
    root_keys: Option<RootKeys>,
}

/// The text of an operation, for what only a failure needs; execution uses the parsed document.
#[derive(Clone, Debug)]
struct Asked {
    text: Arc<str>,
    operation_name: Option<String>,
}

impl Operation {
    fn parse(parameters: Parameters, policy: &Policy, types: &FieldTypes) -> Result<Self, Refusal> {
        let Parameters { operation: named, operation_name, mut variables } = parameters;
        let asked = Asked { text: policy.operations.text_of(named)?, operation_name };
        let mut document = document::parse(&asked.text)?;
        if !policy.introspection && document::introspects(&document) {
            let message = "the schema is not told here: introspection is switched off";
            return Err(Refusal::of_document(vec![error::server_error(code::INTROSPECTION_DISABLED, message)]));
        }
        let invalid = |message: String| Refusal::of_document(vec![error::server_error(code::GRAPHQL_VALIDATION_FAILED, message)]);
        if let Some(unknown) = types.unknown_to(&document) {
            return Err(invalid(unknown));
        }
        let name = asked.operation_name.as_deref();
        if let Some(operation) = document::operation(&document, name) {
            document::provide(operation, &mut variables).map_err(invalid)?;
            if operation.ty == OperationType::Subscription {
                document::flatten_root(&mut document, name, SUBSCRIPTION_TYPE, &variables);
            }
        }
        let chosen = document::operation(&document, name);
        let (kind, root_keys) = (chosen.map(|operation| operation.ty), chosen.map(|operation| RootKeys::new(&document, operation)));
        // GraphQL, section 5.2.4.1; async-graphql would mix the events of all of them.
        if kind == Some(OperationType::Subscription) && root_keys.as_ref().is_some_and(|keys| keys.count() != 1) {
            return Err(invalid("a subscription has one root field: subscribe once for each".to_owned()));
        }
        Ok(Self { asked, variables, document, kind, root_keys })
    }

    fn into_request(self, caller: Caller) -> GraphqlRequest {
        let mut request = GraphqlRequest::new("").variables(self.variables).data(caller);
        request.operation_name = self.asked.operation_name;
        request.set_parsed_query(self.document);
        request
    }
}

/// A response without `data`: nothing was executed.
#[derive(Serialize)]
struct Unexecuted<'a> {
    errors: &'a [ServerError],
}

/// A request that is not executed.
#[derive(Debug)]
struct Refusal {
    /// The status, whatever the media type; `None` for a well-formed request with a document that cannot be executed.
    status: Option<StatusCode>,
    errors: Vec<ServerError>,
    allow: Option<&'static str>,
    /// Set if the caller is not let in.
    at_door: Option<Refused>,
}

impl From<DocumentError> for Refusal {
    fn from(error: DocumentError) -> Self {
        Self::of_document(vec![match error {
            DocumentError::Exceeds(excess) => error::server_error(code::LIMIT_EXCEEDED, excess.to_string()),
            DocumentError::NoGraphql(error) => {
                let mut error = ServerError::from(error);
                error.extensions.get_or_insert_default().set("code", code::GRAPHQL_PARSE_FAILED);
                error
            }
        }])
    }
}

impl From<NotExecuted> for Refusal {
    fn from(reason: NotExecuted) -> Self {
        let code = match reason {
            NotExecuted::NotListed => code::OPERATION_NOT_ALLOWED,
            NotExecuted::UnknownId | NotExecuted::UnknownHash => code::PERSISTED_QUERY_NOT_FOUND,
            NotExecuted::NoIds | NotExecuted::NoHashes => code::PERSISTED_QUERY_NOT_SUPPORTED,
        };
        Self::of_document(vec![error::server_error(code, reason.to_string())])
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::NoToken | Refused::BadToken(_) => code::UNAUTHENTICATED,
            Refused::TooOften { .. } => code::TOO_MANY_REQUESTS,
            Refused::Unavailable => code::UNAVAILABLE,
        };
        let refusal = Self::new(refused.status(), code, refused.to_string());
        Self { at_door: Some(refused), ..refusal }
    }
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status: Some(status), errors: vec![error::server_error(code, message)], allow: None, at_door: None }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::BAD_REQUEST, message)
    }

    fn method_not_allowed(allow: &'static str, message: &str) -> Self {
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, code::BAD_REQUEST, message) }
    }

    fn of_document(errors: Vec<ServerError>) -> Self {
        Self { status: None, errors, allow: None, at_door: None }
    }

    fn unexecuted(&self) -> Unexecuted<'_> {
        Unexecuted { errors: &self.errors }
    }

    fn into_response(self, media: Media) -> Response {
        let status = self.status.unwrap_or(match media {
            Media::GraphqlResponse => StatusCode::BAD_REQUEST,
            Media::Json => StatusCode::OK,
        });
        let mut response = respond(status, media, &self.unexecuted());
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S);
        }
        if let Some(refused) = self.at_door {
            refused.add_headers(response.headers_mut());
        }
        response
    }
}

fn respond(status: StatusCode, media: Media, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("a response has string keys only, so it always serializes");
    let headers = [(CONTENT_TYPE, media.content_type()), (CACHE_CONTROL, "no-store"), (VARY, "Accept")];
    (status, headers, body).into_response()
}
