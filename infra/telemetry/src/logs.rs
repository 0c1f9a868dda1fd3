//! Logs: one JSON object per line on stderr, or readable lines when stderr is a terminal.
//!
//! A JSON line has `timestamp`, `level`, `service`, `target` and `message`, and beside them every field of the event
//! and of the spans around it (the inner one wins), and `trace_id` and `span_id` of the operation that it is part of
//! ([`trace::within`]). stdout stays free for a command's data.

use std::{error::Error, fmt, io::IsTerminal, path::PathBuf, time::Duration};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber, error,
    field::{Field, Visit},
    warn,
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormattedFields,
        format::{FormatEvent, JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::{LookupSpan, Scope},
};

use crate::{settings::Mistakes, trace};

/// The filter when `RUST_LOG` is not set.
const DEFAULT_FILTER: &str = "info";

/// How often it is looked whether the filter is to be another.
const FILTER_INTERVAL: Duration = Duration::from_secs(2);

/// The keys of a line that no field can take; a field of such a name is written as `field.<name>`.
const OWN_KEYS: [&str; 5] = ["timestamp", "level", "service", "target", "message"];

/// Starts logging to stderr under the given service name, filtered by `RUST_LOG` (default `info`).
///
/// If `LOG_FILTER_FILE` names a file, what that holds takes the place of `RUST_LOG` for as long as it holds anything; it is looked at every
/// two seconds, so that a running process can be told to say more, and less again. It need not be there at first.
///
/// A `RUST_LOG` that is no filter is taken as the default, with a warning.
///
/// With JSON lines a panic is logged as one, too. The first call in a process decides; later ones change nothing.
pub fn init(service: &'static str) {
    let usual = directives().unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    let (usual, mistake) = match EnvFilter::try_new(&usual) {
        Ok(_) => (usual, None),
        Err(mistake) => (DEFAULT_FILTER.to_owned(), Some(mistake)),
    };
    let (to_stderr, filter) = (tracing_subscriber::fmt().with_writer(std::io::stderr), EnvFilter::new(&usual));
    // A failure means that a subscriber is there already, which is what "later ones change nothing" promises.
    if std::io::stderr().is_terminal() {
        let to_stderr = to_stderr.with_env_filter(filter).with_filter_reloading();
        let handle = to_stderr.reload_handle();
        if to_stderr.try_init().is_ok() {
            follow_file(usual, move |filter| drop(handle.reload(filter)));
        }
    } else {
        let to_stderr = to_stderr.fmt_fields(JsonFields::new()).event_format(JsonLine { service });
        let to_stderr = to_stderr.with_env_filter(filter).with_filter_reloading();
        let handle = to_stderr.reload_handle();
        if to_stderr.try_init().is_ok() {
            std::panic::set_hook(Box::new(log_panic));
            follow_file(usual, move |filter| drop(handle.reload(filter)));
        }
    }
    if let Some(mistake) = mistake {
        warn!(error = %mistake, "RUST_LOG is not a filter, so it is taken as {DEFAULT_FILTER}: {mistake}");
    }
}

/// Checks `RUST_LOG`. A service refuses to start with one that is none; a command that ends does its work all the same, see [`init`].
pub fn check_filter(mistakes: &mut Mistakes) {
    let parse = |directives: &str| EnvFilter::try_new(directives).map(drop).map_err(|mistake| format!("not a filter: {mistake}"));
    mistakes.optional(EnvFilter::DEFAULT_ENV, directives(), (), parse);
}

fn directives() -> Option<String> {
    std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|directives| !directives.trim().is_empty())
}

/// Keeps the filter as the file of `LOG_FILTER_FILE` says, or as `usual` while that says nothing.
fn follow_file(usual: String, set: impl Fn(EnvFilter) + Send + 'static) {
    let Some(file) = std::env::var_os("LOG_FILTER_FILE").filter(|file| !file.is_empty()).map(PathBuf::from) else { return };
    let follow = move || {
        let mut current = usual.clone();
        loop {
            let told = std::fs::read_to_string(&file).unwrap_or_default();
            let wanted = if told.trim().is_empty() { usual.as_str() } else { told.trim() };
            if wanted != current {
                wanted.clone_into(&mut current);
                match EnvFilter::try_new(wanted) {
                    Ok(filter) => {
                        set(filter);
                        warn!(filter = current, "the filter of logs is now {current}");
                    }
                    Err(mistake) => warn!(error = %mistake, "LOG_FILTER_FILE holds no filter, so nothing is changed: {mistake}"),
                }
            }
            std::thread::sleep(FILTER_INTERVAL);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("log-filter".to_owned()).spawn(follow) {
        warn!(%error, "LOG_FILTER_FILE is not followed: {error}");
    }
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(
        location,
        backtrace,
        thread = std::thread::current().name(),
        "panicked: {}",
        panic.payload_as_str().unwrap_or("(no text)")
    );
}

struct JsonLine {
    service: &'static str,
}

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(&self, context: &FmtContext<'_, S, JsonFields>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Map::new();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            // The span's fields were formatted as one JSON object when it was entered.
            if let Some(Ok(Value::Object(own))) =
                extensions.get::<FormattedFields<JsonFields>>().map(|formatted| serde_json::from_str(&formatted.fields))
            {
                fields.extend(own);
            }
        }
        if let Some(context) = trace::current() {
            fields.insert("trace_id".to_owned(), context.trace_id().into());
            fields.insert("span_id".to_owned(), context.span_id().into());
        }
        let mut visitor = Collect { fields };
        event.record(&mut visitor);
        let mut fields = visitor.fields;

        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        let message = fields.remove("message").unwrap_or_default();
        let own = [timestamp.into(), metadata.level().as_str().into(), self.service.into(), metadata.target().into(), message];
        let mut separator = '{';
        for (key, value) in OWN_KEYS.into_iter().zip(own) {
            write!(writer, "{separator}\"{key}\":{value}")?;
            separator = ',';
        }
        for (key, value) in fields {
            let prefix = if OWN_KEYS.contains(&key.as_str()) { "field." } else { "" };
            write!(writer, ",{}:{value}", Value::String(format!("{prefix}{key}")))?;
        }
        writeln!(writer, "}}")
    }
}

/// The fields of an event as JSON values.
struct Collect {
    fields: Map<String, Value>,
}

impl Collect {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        self.fields.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value.into());
    }
}

impl Visit for Collect {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    /// The whole chain, because `Display` never repeats its source.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut chain = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        self.insert(field, chain);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use tracing::{info, info_span};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(write: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        let target = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || target.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine { service: "test" })
            .finish();
        tracing::subscriber::with_default(subscriber, write);
        let bytes = sink.0.lock().expect("one thread").clone();
        String::from_utf8(bytes)
            .expect("utf-8")
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("charge the card")]
    struct ChargeError {
        #[source]
        source: io::Error,
    }

    #[test]
    fn fields_of_event_and_spans_lie_beside_the_message() {
        let lines = logged(|| {
            let outer = info_span!("request", trace_id = "abc", attempt = 1);
            let _outer = outer.enter();
            let inner = info_span!("charge", order_id = %"o-1");
            let _inner = inner.enter();
            let (attempt, odd) = (2, "a\n\"b\"");
            info!(attempt, odd, level = "mine", r#type = true, "charged o-1");
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line["service"], "test");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "charged o-1");
        assert_eq!(line["target"], "telemetry::logs::tests");
        assert_eq!(line["trace_id"], "abc");
        assert_eq!(line["order_id"], "o-1");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["odd"], "a\n\"b\"");
        assert_eq!(line["field.level"], "mine");
        assert_eq!(line["type"], true);
        let timestamp = line["timestamp"].as_str().expect("a timestamp");
        assert!(timestamp.ends_with('Z') && timestamp.contains('T'), "{timestamp}");
    }

    #[tokio::test]
    async fn what_is_logged_within_an_operation_bears_its_trace() {
        let context = trace::TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let line = trace::within(context, async { logged(|| info!("charged")) }).await.remove(0);
        assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(line["span_id"], "00f067aa0ba902b7");
        assert_eq!(logged(|| info!("idle"))[0].get("trace_id"), None);
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        let lines = logged(|| {
            let failed = ChargeError { source: io::Error::other("connection reset") };
            error!(error = &failed as &dyn Error, "cannot charge");
        });
        assert_eq!(lines[0]["error"], "charge the card: connection reset");
    }
}
