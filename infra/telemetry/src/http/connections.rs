//! Connections: how many there may be, how long each may keep others waiting, and how they end.
//!
//! `axum::serve` has no limit of any of these: whoever opens connections and says nothing would take all file descriptors of the process, and
//! one that began a request, or does not read its answer, would hold up the drain to its end.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    serve::Listener as _,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::stalling::{Stalling, Writes};

/// Connections at a time, where the process may have as many files open. More wait until one of them ends.
const CONNECTIONS_MAX: usize = 16_384;
/// Of the files that the process may have open, one in so many is for something else than a connection.
const OTHER_FILES_SHARE: usize = 4;
/// How long a connection may take to its first request once it has said anything of it. One that has said nothing may be a spare one of a
/// client's pool: to end it would meet a request that is just being sent on it, so it has as long as any other that is idle.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long it may take from one request to the next. Longer than the pools of most clients and balancers keep a connection, so that they end it.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// How long a client may leave its answer unread.
const STALL_MAX: Duration = Duration::from_secs(60);
/// The same once connections end.
const ENDING_STALL_MAX: Duration = Duration::from_secs(5);
/// How long a request that is on the way when connections end has to arrive.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(1);
/// How often an ending connection is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Accepts until it is told to end.
pub(super) struct Connections {
    router: Router,
    places: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// Whether connections are to end.
    ending: watch::Sender<bool>,
    /// Requests in work in all of them.
    in_work: Arc<AtomicUsize>,
}

impl Connections {
    pub(super) fn new(router: Router) -> Self {
        let places = Arc::new(Semaphore::new(connections_max()));
        Self { router, places, tasks: JoinSet::new(), ending: watch::Sender::new(false), in_work: Arc::default() }
    }

    /// Accepts and serves connections, for ever.
    pub(super) async fn accept(&mut self, listener: &mut TcpListener) {
        loop {
            let accepted = async {
                let place = Arc::clone(&self.places).acquire_owned().await.expect("it is never closed");
                // Waits by itself while there are no files left, for example.
                (listener.accept().await.0, place)
            };
            tokio::select! {
                (stream, place) = accepted => drop(self.tasks.spawn(self.connection(stream, place))),
                // A panic was logged where it happened.
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    fn connection(&self, stream: TcpStream, place: OwnedSemaphorePermit) -> impl Future<Output = ()> + Send + use<> {
        // Answers are small: without this the last packet of one may wait for the client's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            warn!(%error, "cannot set TCP_NODELAY on a connection");
        }
        let (router, ending) = (self.router.clone(), self.ending.subscribe());
        let requests =
            Arc::new(Requests { begun: 0.into(), in_work: 0.into(), streamed: 0.into(), of_all: Arc::clone(&self.in_work) });
        async move {
            serve(stream, router, requests, ending).await;
            drop(place);
        }
    }

    /// Lets every connection end with the request that it has in work, and waits for them.
    pub(super) async fn end(&mut self) {
        self.ending.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// How many requests are in work. Of those whose answers nobody reads, only what is made while it is sent is.
    pub(super) fn in_work(&self) -> usize {
        self.in_work.load(Relaxed)
    }

    /// How many connections there are.
    pub(super) fn open(&self) -> usize {
        self.tasks.len()
    }
}

/// As many as the process may have files for, which is first raised as far as the system lets it.
fn connections_max() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return CONNECTIONS_MAX };
    let files = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    (files - files / OTHER_FILES_SHARE).clamp(1, CONNECTIONS_MAX)
}

/// The requests of one connection.
#[derive(Debug)]
struct Requests {
    begun: AtomicUsize,
    in_work: AtomicUsize,
    /// Of those in work, the ones whose answers are made while they are sent.
    streamed: AtomicUsize,
    of_all: Arc<AtomicUsize>,
}

impl Requests {
    fn begin(self: &Arc<Self>) -> InWork {
        self.begun.fetch_add(1, Relaxed);
        self.in_work.fetch_add(1, Relaxed);
        self.of_all.fetch_add(1, Relaxed);
        InWork(Arc::clone(self))
    }

    fn have_begun(&self) -> bool {
        self.begun.load(Relaxed) > 0
    }

    fn are_in_work(&self) -> bool {
        self.in_work.load(Relaxed) > 0
    }

    /// Whether any is in work that goes on though nothing of its answer is read.
    fn are_in_work_unread(&self) -> bool {
        self.in_work.load(Relaxed) > self.streamed.load(Relaxed)
    }
}

/// A request, until all of its answer is made.
#[derive(Debug)]
struct InWork(Arc<Requests>);

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.in_work.fetch_sub(1, Relaxed);
        self.0.of_all.fetch_sub(1, Relaxed);
    }
}

/// An answer that is made while it is sent.
struct Streamed {
    body: Body,
    in_work: InWork,
}

impl Streamed {
    fn new(body: Body, in_work: InWork) -> Self {
        in_work.0.streamed.fetch_add(1, Relaxed);
        Self { body, in_work }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.in_work.0.streamed.fetch_sub(1, Relaxed);
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn serve(stream: TcpStream, router: Router, requests: Arc<Requests>, mut ending: watch::Receiver<bool>) {
    let writes = Arc::new(Writes::default());
    let io = TokioIo::new(Stalling::new(stream, STALL_MAX, Arc::clone(&writes)));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let in_work = requests.begin();
        let request: Request = request.map(Body::new);
        let answered = router.clone().oneshot(request);
        async move {
            let response = answered.await?;
            // What is there as a whole is made.
            let is_made = response.body().size_hint().exact().is_some();
            Ok::<_, Infallible>(if is_made { response } else { response.map(|body| Body::new(Streamed::new(body, in_work))) })
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());

    let mut first = pin!(sleep(FIRST_REQUEST_MAX));
    let (mut is_new, mut ended) = (true, None);
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            outcome = &mut connection => {
                if let Err(error) = outcome {
                    debug!(error = &error as &dyn std::error::Error, "a connection ended early");
                }
                return;
            }
            Ok(_) = ending.wait_for(|is_ending| *is_ending), if ended.is_none() => {
                connection.as_mut().graceful_shutdown();
                ended = Some(Instant::now());
            }
            () = &mut first, if is_new => {
                if writes.has_read() && !requests.have_begun() {
                    return;
                }
                is_new = false;
            }
            _ = looks.tick(), if ended.is_some() => {
                let only_waits_for_client = match writes.pending_for() {
                    Some(pending) => pending >= ENDING_STALL_MAX && !requests.are_in_work_unread(),
                    None => ended.is_some_and(|ended| ended.elapsed() >= LAST_REQUEST_MAX) && !requests.are_in_work(),
                };
                if only_waits_for_client {
                    return;
                }
            }
        }
    }
}

/// Why the drain has not ended in time, if it is work that was not finished.
pub(super) fn overdue(connections: &Connections, deadline: Duration) -> io::Result<()> {
    let (in_work, open) = (connections.in_work(), connections.open());
    if in_work == 0 {
        warn!("{open} connections were cut whose clients do not read their answers");
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("drain http requests: {in_work} were still in flight after {} s", deadline.as_secs_f64()),
    ))
}
