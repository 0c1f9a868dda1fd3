//! One operation.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, Key, KeyValue, SpanId, Value,
    trace::{Link, SpanKind, Status},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{TraceContext, recorder};

/// Links of one span: the specification's limit.
const LINKS_MAX: usize = 128;

/// What part an operation has in the talk between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers a request.
    Server,
    /// Sends a request and waits for the answer.
    Client,
    /// Puts a message where others find it.
    Producer,
    /// Does what a message calls for.
    Consumer,
    /// None: a step within a process.
    Internal,
}

/// An operation that is recorded, if its trace is; it ends when this is dropped.
///
/// Cheap where nothing is recorded: attributes are then not even made into values.
pub struct Span {
    /// Where operations belong that this one leads to.
    context: Option<TraceContext>,
    recording: Option<Box<SpanData>>,
}

impl Span {
    /// Answers a request that came with `parent`, or with nothing. Begins a trace if none came.
    pub fn server(name: impl Into<Cow<'static, str>>, parent: Option<TraceContext>) -> Self {
        match parent {
            Some(parent) => Self::begin(Kind::Server, name, &parent, false),
            None => Self::begin(Kind::Server, name, &TraceContext::new(), true),
        }
    }

    /// Follows on `cause`. Without one nothing is recorded.
    pub fn after(kind: Kind, name: impl Into<Cow<'static, str>>, cause: Option<TraceContext>) -> Self {
        match cause {
            Some(cause) => Self::begin(kind, name, &cause, false),
            None => Self { context: None, recording: None },
        }
    }

    /// Puts a message into the stream `destination` because of `cause`. The message is to carry this span's context.
    pub fn send(destination: &'static str, cause: Option<TraceContext>) -> Self {
        Self::after(Kind::Producer, "send", cause).messaging("send", destination)
    }

    /// Does what a message of the stream `destination`, which carries `traceparent`, calls for as one of `group`.
    pub fn process(destination: &'static str, group: &'static str, traceparent: Option<&str>) -> Self {
        let span = Self::after(Kind::Consumer, "process", traceparent.and_then(TraceContext::parse));
        span.messaging("process", destination).with("messaging.consumer.group.name", group)
    }

    /// The conventions for messaging: what is done, and where.
    fn messaging(mut self, operation: &'static str, destination: &'static str) -> Self {
        if let Some(data) = &mut self.recording {
            data.name = format!("{operation} {destination}").into();
            data.attributes.reserve(8);
        }
        self.with("messaging.system", "nats")
            .with("messaging.destination.name", destination)
            .with("messaging.operation.name", operation)
            .with("messaging.operation.type", operation)
    }

    /// Serves the operations of several traces at once. It is a trace of its own, recorded if any of those is, and linked with those.
    pub fn of_many(kind: Kind, name: impl Into<Cow<'static, str>>, served: impl IntoIterator<Item = TraceContext>) -> Self {
        if !recorder::is_on() {
            return Self { context: None, recording: None };
        }
        let links: Vec<_> = served
            .into_iter()
            .filter(TraceContext::is_sampled)
            .take(LINKS_MAX)
            .map(|context| Link::new(context.to_open_telemetry(true), Vec::new(), 0))
            .collect();
        if links.is_empty() {
            return Self { context: None, recording: None };
        }
        let context = TraceContext::new().with_sampled(true);
        let mut span = Self::recorded(kind, name.into(), context, None);
        if let Some(data) = &mut span.recording {
            data.links.links = links;
        }
        span
    }

    fn begin(kind: Kind, name: impl Into<Cow<'static, str>>, parent: &TraceContext, is_root: bool) -> Self {
        let Some(sampler) = recorder::sampler() else {
            return Self { context: Some(*parent), recording: None };
        };
        if !sampler.samples(parent, is_root) {
            // Whoever comes next is not to decide otherwise.
            return Self { context: Some(parent.with_sampled(false)), recording: None };
        }
        if is_root {
            return Self::recorded(kind, name.into(), parent.with_sampled(true), None);
        }
        Self::recorded(kind, name.into(), parent.child(true), Some(*parent))
    }

    fn recorded(kind: Kind, name: Cow<'static, str>, context: TraceContext, parent: Option<TraceContext>) -> Self {
        let now = now();
        let data = SpanData {
            span_context: context.to_open_telemetry(false),
            parent_span_id: parent.map_or(SpanId::INVALID, TraceContext::open_telemetry_span_id),
            parent_span_is_remote: matches!(kind, Kind::Server | Kind::Consumer) && parent.is_some(),
            span_kind: kind.into(),
            name,
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        };
        Self { context: Some(context), recording: Some(Box::new(data)) }
    }

    /// Where operations belong that this one leads to; `None` if there is no trace at all.
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// The context as it travels.
    pub fn traceparent(&self) -> Option<String> {
        self.context.map(|context| context.to_string())
    }

    /// Whether anybody will see it. What is costly to say need not be said otherwise.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Says something about it.
    pub fn set(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        if let Some(data) = &mut self.recording {
            data.attributes.push(KeyValue::new(key, value));
        }
    }

    /// The same, for a span that is just being made.
    #[must_use]
    pub fn with(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// The same, of a value that has to be made into one first.
    #[must_use]
    pub fn with_display(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.set_display(key, value);
        self
    }

    /// [`Span::set`] of a value that has to be made into one first.
    pub fn set_display(&mut self, key: &'static str, value: impl fmt::Display) {
        if self.is_recorded() {
            self.set(key, value.to_string());
        }
    }

    /// Names it, once that is known.
    pub fn rename(&mut self, name: impl fmt::Display) {
        if let Some(data) = &mut self.recording {
            data.name = name.to_string().into();
        }
    }

    /// Says that it began so long ago.
    #[must_use]
    pub fn for_the_last(mut self, time: Duration) -> Self {
        if let Some(data) = &mut self.recording {
            data.start_time -= time;
        }
        self
    }

    /// Forgets it: what it was to tell of did not happen.
    pub fn discard(mut self) {
        self.recording = None;
    }

    /// Says that it failed, and why.
    pub fn fail(&mut self, why: impl fmt::Display) {
        if let Some(data) = &mut self.recording {
            data.status = Status::error(why.to_string());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(mut data) = self.recording.take() {
            data.end_time = now();
            recorder::record(*data);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "when an operation took place is for people to read, and decides nothing")]
fn now() -> SystemTime {
    SystemTime::now()
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("context", &self.context).field("is_recorded", &self.is_recorded()).finish_non_exhaustive()
    }
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
            Kind::Internal => Self::Internal,
        }
    }
}

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Runs `work` as part of the operation whose context this is: its log lines bear the trace's id, and [`current`] tells it.
///
/// What `work` spawns is not part of it.
pub async fn within<F: Future>(context: Option<TraceContext>, work: F) -> F::Output {
    match context {
        Some(context) => CURRENT.scope(context, work).await,
        None => work.await,
    }
}

/// The operation that the caller is part of, if any.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}
