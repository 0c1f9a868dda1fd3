//! The connection to NATS, and waiting for what is not there yet.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{
    Client, Event,
    connection::State,
    jetstream::{self, context::GetStreamErrorKind, stream},
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    NatsAccess,
    cache::{CACHE_BYTES, Cache},
    echo,
    group_commit::Appender,
    leaders,
    page::{Inboxes, LOAD_DEADLINE},
    snapshots::Snapshots,
    wire::{RESTORING, STREAM},
};

/// How long one request to the server may take before its outcome counts as unknown.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// See [`Connection::read_patience`]: many times what a page of a long aggregate takes.
const READ_PATIENCE: Duration = Duration::from_millis(250);
/// How long to pause between two looks for a server or stream that is not there yet.
const WAIT_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two attempts to reconnect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The log. Cheap to clone; all clones share one connection, which reconnects by itself for ever, and one appender.
#[derive(Clone)]
pub struct JetStreamEventStore {
    pub(crate) connection: Connection,
    pub(crate) appender: Arc<Appender>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) snapshots: Arc<Snapshots>,
}

impl fmt::Debug for JetStreamEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.connection.client.connection_state();
        f.debug_struct("JetStreamEventStore").field("state", &state).finish_non_exhaustive()
    }
}

/// The connection to NATS, and what is known of the other end.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    /// When answers and heartbeats were lost last: by a new connection, or a new leader of the log. When it moves, what is asked is
    /// asked again and readers start their consumers anew, instead of waiting until they have missed enough.
    pub(crate) interruptions: watch::Receiver<Instant>,
    pub(crate) inboxes: Arc<Inboxes>,
    /// How many servers hold the log, as it was last seen; 0 until then.
    replicas: Arc<AtomicUsize>,
    /// The log as it was last seen.
    pub(crate) seen: Arc<SeenLog>,
    /// Looks whether the server hangs, and for new leaders; ends with the last clone.
    _watching: Arc<JoinSet<()>>,
}

/// How far the log is and what it takes, as the server last said.
#[derive(Debug, Default)]
pub(crate) struct SeenLog {
    head: AtomicU64,
    bytes: AtomicU64,
    standing: AtomicU8,
}

/// Values of [`SeenLog::standing`]; 0 until it was seen.
const IS_LOG: u8 = 1;
const IS_BEING_RESTORED: u8 = 2;

impl SeenLog {
    pub(crate) fn is(&self, state: &stream::State) {
        self.head.store(state.last_sequence, Ordering::Relaxed);
        self.bytes.store(state.bytes, Ordering::Relaxed);
    }

    /// The position of the last event.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// What it takes on the disk of each server that has it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Connection {
    /// Waits for `answer`, but not beyond a reconnect or the election of a new leader: what was asked before is never answered.
    pub(crate) async fn unless_interrupted<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut interruptions = self.interruptions.clone();
        interruptions.mark_unchanged();
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            _ = interruptions.changed() => None,
        }
    }

    /// How long a read may go unanswered before it is asked again.
    ///
    /// Any server that has the log may be given a read to answer, also one that hangs; the others would not know for minutes. Where there are
    /// several, asking again costs little and reaches another one sooner or later. One alone answers when it can.
    pub(crate) fn read_patience(&self) -> Duration {
        if self.may_be_stale() { READ_PATIENCE } else { LOAD_DEADLINE }
    }

    /// Whether a load can be answered by a server that is behind: only where there is more than one.
    pub(crate) fn may_be_stale(&self) -> bool {
        self.replicas.load(Ordering::Relaxed) != 1
    }
}

/// The address of the server cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("connect to NATS at {addresses}")]
pub struct ConnectError {
    addresses: String,
    #[source]
    source: async_nats::ConnectError,
}

impl JetStreamEventStore {
    /// Connects to `nats`, which may be a URL alone (see [`NatsAccess`]), under `client_name` in the server's connection list; it
    /// hears answers below `_INBOX.client_name`.
    ///
    /// Returns at once: a server that is away is waited for in the background. Of several servers, one that hangs is left within some
    /// seconds. Fails only where waiting cannot help, such as for a malformed address.
    pub async fn connect(nats: impl Into<NatsAccess>, client_name: &str) -> Result<Self, ConnectError> {
        let nats = nats.into();
        let (interrupted, interruptions) = watch::channel(Instant::now());
        let connected = interrupted.clone();
        let client = nats
            .options()
            .name(client_name)
            // So that a service may be allowed to hear the answers to its own questions alone.
            .custom_inbox_prefix(format!("_INBOX.{client_name}"))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .connection_timeout(Duration::from_secs(2))
            .ping_interval(Duration::from_secs(10))
            // A projector that catches up is handed messages faster than it folds them.
            .subscription_capacity(1024 * 1024)
            .reconnect_delay_callback(|attempts| {
                // The first is an attempt and no repetition.
                if attempts <= 1 {
                    return Duration::ZERO;
                }
                let doublings = u32::try_from(attempts.min(5)).unwrap_or(5);
                RECONNECT_PAUSE_MAX.min(Duration::from_millis(50) * 2_u32.pow(doublings))
            })
            .event_callback(move |event| {
                match event {
                    Event::Connected => {
                        tracing::info!("connected to NATS");
                        connected.send_replace(Instant::now());
                    }
                    Event::Disconnected => tracing::warn!("disconnected from NATS"),
                    other => tracing::debug!("NATS client: {other}"),
                }
                async {}
            })
            .connect(nats.servers())
            .await
            .map_err(|source| ConnectError { addresses: nats.addresses(), source })?;
        let jetstream = jetstream::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
        let mut watching = JoinSet::new();
        if nats.servers().len() > 1 {
            watching.spawn(echo::watch(client.clone()));
            watching.spawn(leaders::watch(client.clone(), interrupted));
        }
        let connection = Connection {
            client,
            jetstream,
            interruptions,
            inboxes: Arc::default(),
            replicas: Arc::default(),
            seen: Arc::default(),
            _watching: Arc::new(watching),
        };
        let appender = Appender::new(connection.clone());
        Ok(Self { connection, appender, cache: Arc::new(Cache::new(CACHE_BYTES)), snapshots: Arc::default() })
    }

    /// The same store with a cache of its own that takes about `bytes` of memory instead of [`CACHE_BYTES`].
    #[must_use]
    pub fn with_cache_bytes(self, bytes: usize) -> Self {
        Self { cache: Arc::new(Cache::new(bytes)), ..self }
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.connection.client.connection_state() == State::Connected
    }

    /// Whether the last [`check`](Self::check) that could tell found a log, and not one that is being restored: what is appended to that may be gone
    /// when it is restored again.
    pub fn has_log(&self) -> bool {
        self.connection.seen.standing.load(Ordering::Relaxed) == IS_LOG
    }

    /// For how long there has been neither a new connection nor a new leader of the log. What came before that came perhaps from a server that
    /// knows no more of it.
    pub fn uninterrupted(&self) -> Duration {
        self.connection.interruptions.borrow().elapsed()
    }

    /// One look whether the log can be used now; else the reason, for people.
    pub async fn check(&self) -> Result<(), String> {
        if !self.is_connected() {
            return Err("waiting for the NATS server".to_owned());
        }
        match self.connection.jetstream.get_stream(STREAM).await {
            Ok(stream) if stream.cached_info().config.metadata.contains_key(RESTORING) => {
                self.connection.seen.standing.store(IS_BEING_RESTORED, Ordering::Relaxed);
                Err(format!("waiting for the stream {STREAM} to be restored: `projectors log restore` has not come to its end"))
            }
            Ok(stream) => {
                // An operator may have it replicated while services run.
                self.connection.replicas.store(stream.cached_info().config.num_replicas, Ordering::Relaxed);
                self.connection.seen.is(&stream.cached_info().state);
                self.connection.seen.standing.store(IS_LOG, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.code() == 404 => {
                    Err(format!("waiting for the stream {STREAM}: run `projectors migrate`"))
                }
                kind => Err(format!("waiting for JetStream: {kind}")),
            },
        }
    }

    /// Returns once [`check`](Self::check) succeeds; tells `on_wait` each new reason for waiting.
    pub async fn wait_until_ready(&self, mut on_wait: impl FnMut(&str)) {
        let mut told = String::new();
        let mut interruptions = self.connection.interruptions.clone();
        while let Err(reason) = self.check().await {
            if reason != told {
                on_wait(&reason);
                told = reason;
            }
            // Sooner if there is a new connection.
            if let Ok(Err(_closed)) = tokio::time::timeout(WAIT_PAUSE, interruptions.changed()).await {
                tokio::time::sleep(WAIT_PAUSE).await;
            }
        }
    }
}
