//! A command over HTTP: read, recognised if it is a retry, decided on the log, answered.

use std::time::Duration;

use auth::{Action, Caller};
use axum::{
    extract::{FromRequest, Request as HttpRequest},
    http::{HeaderMap, header::CONTENT_TYPE},
};
use domain::{
    Request, RequestMemory, SnapshotState,
    order::{Order, OrderStatus},
    stock::{Stock, StockLevel},
};
use event_store::{EventContext, Executed, JetStreamEventStore, Loaded, STREAM};
use serde_json::{Map, Value};
use telemetry::trace::Span;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    body::Received,
    context::{RequestContext, new_id},
    fields::{Fields, read_object},
    idempotency::{IdempotencyKey, digest},
    identity::Identity,
    json,
    log::unavailable,
    precondition::Precondition,
    problem::{Code, FieldError, FieldErrors, Problem},
};

/// CloudEvents `source` of everything that this service appends.
pub(crate) const SOURCE: &str = "/contrail/command-api";

/// How often and with which pause something is looked for that a server does not have yet which is behind.
const LOOKS_MAX: u32 = 50;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// What a command's body holds.
pub(crate) trait CommandBody: Sized + Send {
    /// Method and path; part of every digest in the log, so it never changes.
    const ROUTE: &'static str;
    /// What a caller must be allowed to do.
    const ACTION: Action;
    /// Whether the command begins its aggregate: then the aggregate's first event is the one that answered it, and
    /// `If-Match` and `If-None-Match` have nothing to match.
    const BEGINS_AGGREGATE: bool = false;
    /// Whether no body at all is the same as `{}`.
    const MAY_BE_EMPTY: bool = false;

    /// Reads the body's fields, noting all that is wrong.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// A command whose every part is well formed.
#[derive(Debug)]
pub(crate) struct Command<B> {
    /// What it asks.
    pub(crate) body: B,
    /// The client's name for it.
    pub(crate) key: IdempotencyKey,
    /// Who asks.
    pub(crate) caller: Caller,
    digest: String,
    precondition: Precondition,
    context: RequestContext,
}

impl<B: CommandBody, S: Send + Sync> FromRequest<S> for Command<B> {
    type Rejection = Problem;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Self, Problem> {
        use axum::extract::FromRequestParts as _;

        let (mut parts, _) = request.into_parts();
        let context = RequestContext::from_request_parts(&mut parts, state).await?;
        let Identity(caller) = Identity::from_request_parts(&mut parts, state).await?;
        let Received(bytes) = Received::from_request_parts(&mut parts, state).await?;
        caller.whose(B::ACTION)?;
        let (key, precondition) = read_headers::<B>(&parts.headers)?;
        let mut errors = FieldErrors::default();
        let value = parse::<B>(&parts.headers, &bytes, &mut errors)?;
        let body = read_object(&value, String::new(), &mut errors, B::read);
        let body = errors.finish(Code::InvalidFields, body)?;
        Ok(Self { body, key, caller, digest: digest(B::ROUTE, &value), precondition, context })
    }
}

impl<B: CommandBody> Command<B> {
    /// One of several commands in one request. `value` is what `body` was read from.
    pub(crate) fn one_of_many(body: B, value: &Value, key: IdempotencyKey, caller: Caller, context: RequestContext) -> Self {
        Self { body, key, caller, digest: digest(B::ROUTE, value), precondition: Precondition::default(), context }
    }
}

fn read_headers<B: CommandBody>(headers: &HeaderMap) -> Result<(IdempotencyKey, Precondition), Problem> {
    let mut errors = FieldErrors::default();
    let mut note = |error: FieldError| errors.push(error);
    let key = IdempotencyKey::read(headers).map_err(&mut note).ok();
    let precondition = if B::BEGINS_AGGREGATE {
        // What it begins has no version yet.
        Some(Precondition::default())
    } else {
        Precondition::read(headers).map_err(&mut note).ok()
    };
    errors.finish(Code::InvalidHeader, key.zip(precondition))
}

fn parse<B: CommandBody>(headers: &HeaderMap, bytes: &[u8], errors: &mut FieldErrors) -> Result<Value, Problem> {
    if B::MAY_BE_EMPTY && bytes.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    if !is_of_media_type(headers, &["application/json"]) {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the body with Content-Type: application/json"));
    }
    json::read(bytes, errors).map_err(|error| Problem {
        code: Code::InvalidJson,
        detail: format!("the body is not JSON: {error}"),
        errors: vec![FieldError::syntax(&error)],
    })
}

/// One of these media types, with any parameters but another charset than UTF-8, which JSON does not have (RFC 8259, section 8.1).
pub(crate) fn is_of_media_type(headers: &HeaderMap, accepted: &[&str]) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let is_accepted = accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(media_type));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => charset.trim_matches('"').eq_ignore_ascii_case("utf-8"),
        _ => true,
    });
    is_accepted && is_utf8
}

/// An aggregate that remembers which requests led to it.
pub(crate) trait Remembers: SnapshotState {
    /// What of it is in the answer to a command.
    type Answered: Copy + Send;

    /// What is known of `request`.
    fn look_up(&self, request: &Request) -> RequestMemory;

    /// Refuses a caller who may not do that with this very aggregate.
    fn check_caller(&self, caller: &Caller, action: Action) -> Result<(), Problem>;

    /// The answer to the command that led to this state.
    fn answered(&self) -> Self::Answered;

    /// What the request of this id was answered and at which version, where the aggregate itself remembers that. One that may
    /// have very many events must: its earlier state cannot be folded again for every retry.
    fn remembered_answer(&self, request_id: Uuid) -> Option<(u64, Self::Answered)>;
}

impl Remembers for Order {
    type Answered = Option<OrderStatus>;

    /// Somebody else's order is not there.
    fn check_caller(&self, caller: &Caller, action: Action) -> Result<(), Problem> {
        let Some(placement) = &self.placement else { return Ok(()) };
        if caller.may(action, placement.customer.id.as_str()) { Ok(()) } else { Err(order_not_found()) }
    }

    fn look_up(&self, request: &Request) -> RequestMemory {
        self.requests.look_up(request)
    }

    fn answered(&self) -> Option<OrderStatus> {
        self.status
    }

    fn remembered_answer(&self, _: Uuid) -> Option<(u64, Option<OrderStatus>)> {
        None
    }
}

impl Remembers for Stock {
    type Answered = StockLevel;

    fn check_caller(&self, caller: &Caller, action: Action) -> Result<(), Problem> {
        Ok(caller.check(action)?)
    }

    fn look_up(&self, request: &Request) -> RequestMemory {
        self.requests.look_up(request)
    }

    fn answered(&self) -> StockLevel {
        self.level()
    }

    fn remembered_answer(&self, request_id: Uuid) -> Option<(u64, StockLevel)> {
        self.requests.answer_to(request_id).map(|level| (level.version, *level))
    }
}

/// What a command came to: what of the aggregate the answer has to describe.
#[derive(Debug)]
pub(crate) struct Outcome<A: Remembers> {
    /// The aggregate right after the command, as far as the answer shows it.
    pub(crate) answered: A::Answered,
    /// Its version then.
    pub(crate) version: u64,
    /// The position of its last event then.
    pub(crate) position: u64,
    /// Whether the command had been carried out before, and this is what was answered then.
    pub(crate) replayed: bool,
}

/// What is likely about the aggregate that a command is for. Being wrong costs time and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// The command is its first.
    Begins,
    /// There were others before.
    Exists,
}

impl<B: CommandBody> Command<B> {
    /// Holds `If-Match` and `If-None-Match` against the version that the command is decided on.
    pub(crate) fn check_precondition(&self, version: u64) -> Result<(), Problem> {
        self.precondition.check(version)
    }

    /// Decides the command on aggregate `id` and appends what was decided.
    ///
    /// A request that was carried out before is answered from the log as it was then, whatever happened since, and is not
    /// decided on again. `decide` gets the aggregate and the request to remember; it may run more than once.
    pub(crate) async fn carry_out<A: Remembers>(
        &self,
        store: &JetStreamEventStore,
        id: &str,
        expectation: Expectation,
        now: OffsetDateTime,
        mut decide: impl FnMut(&Loaded<A>, Request) -> Result<Vec<A::Event>, Problem>,
    ) -> Result<Outcome<A>, Problem> {
        let request = Request { id: self.key.request_id(A::TYPE, id), digest: self.digest.clone() };
        let sending = Span::send(STREAM, Some(self.context.trace));
        let context = self.event_context(&request, now, &sending);
        let decide = |loaded: &Loaded<A>| {
            // Before anything else: also what was answered before is not for everybody.
            loaded.aggregate.check_caller(&self.caller, B::ACTION)?;
            match loaded.aggregate.look_up(&request) {
                RequestMemory::Repeated => return Ok(Vec::new()),
                RequestMemory::KeyReused => return Err(key_reused()),
                RequestMemory::New => {}
            }
            decide(loaded, request.clone())
        };
        let executed = match expectation {
            Expectation::Begins => store.execute_new(id, &context, decide).await,
            Expectation::Exists => store.execute(id, &context, decide).await,
        };
        let executed = match executed {
            Ok(executed) if executed.appended > 0 => {
                drop(sending);
                executed
            }
            // Nothing came into the log.
            other => {
                sending.discard();
                other.map_err(crate::log::execute_problem)?
            }
        };
        if executed.appended == 0 && executed.aggregate.look_up(&request) == RequestMemory::Repeated {
            return self.first_answer(store, id, &request, &executed).await;
        }
        let (answered, version, position) = (executed.aggregate.answered(), executed.version, executed.position);
        Ok(Outcome { answered, version, position, replayed: false })
    }

    /// What was answered when `request` was carried out first; `now` is the aggregate as it has become since.
    async fn first_answer<A: Remembers>(
        &self,
        store: &JetStreamEventStore,
        id: &str,
        request: &Request,
        now: &Executed<A>,
    ) -> Result<Outcome<A>, Problem> {
        for _ in 0..LOOKS_MAX {
            if let Some(answer) = self.find_answer(store, id, request, now).await? {
                return Ok(answer);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Err(unavailable("a replica of the log is behind"))
    }

    /// The same. The aggregate remembers the request, so its event is in the log: `None` is from a server that is behind.
    async fn find_answer<A: Remembers>(
        &self,
        store: &JetStreamEventStore,
        id: &str,
        request: &Request,
        now: &Executed<A>,
    ) -> Result<Option<Outcome<A>>, Problem> {
        let answer = |answered, version, position| Ok(Some(Outcome { answered, version, position, replayed: true }));
        if let Some((version, answered)) = now.aggregate.remembered_answer(request.id) {
            if version == now.version {
                return answer(answered, version, now.position);
            }
            let event = store.event_at::<A>(id, version, now.expected()).await.map_err(crate::log::load_problem)?;
            let Some(event) = event.filter(|recorded| recorded.event.metadata.event_id == request.id) else { return Ok(None) };
            return answer(answered, version, event.position);
        }
        let version = if B::BEGINS_AGGREGATE {
            1
        } else {
            let events = store.events_of(A::TYPE, id).await.map_err(crate::log::load_problem)?;
            let event = events.iter().rev().find(|recorded| recorded.event.metadata.event_id == request.id);
            let Some(event) = event else { return Ok(None) };
            event.event.metadata.version
        };
        if version == now.version {
            return answer(now.aggregate.answered(), version, now.position);
        }
        let then = store.load_at::<A>(id, version).await.map_err(crate::log::load_problem)?;
        if then.version != version {
            return Ok(None);
        }
        answer(then.aggregate.answered(), version, then.position)
    }

    fn event_context(&self, request: &Request, now: OffsetDateTime, sending: &Span) -> EventContext {
        // An event that begins its aggregate is found again as the first one. Any other is found again by its id.
        let event_id: Uuid = if B::BEGINS_AGGREGATE { new_id() } else { request.id };
        EventContext {
            source: SOURCE,
            event_id: Some(event_id),
            correlation_id: self.context.correlation_id.clone().unwrap_or_else(|| event_id.to_string()),
            causation_id: None,
            actor: Some(self.caller.actor()),
            traceparent: sending.traceparent(),
            time: now,
        }
    }
}

/// What a caller hears of an order that does not exist, and of one that is not theirs.
pub(crate) fn order_not_found() -> Problem {
    Problem::new(Code::OrderNotFound, "there is no order with this id")
}

fn key_reused() -> Problem {
    Problem::new(Code::IdempotencyKeyReused, "this Idempotency-Key was used before for a different request; nothing was changed")
}

/// The time, to the microsecond: Postgres keeps no more, and an event must not lose by being projected.
#[expect(clippy::disallowed_methods, reason = "the edge where a request becomes a command")]
pub(crate) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).expect("the microsecond of a time is a microsecond")
}
