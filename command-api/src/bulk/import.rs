//! One import: lines in, orders placed many at a time, results out in the order of the lines.
//!
//! It runs as a task of its own, so that it notices a client that does not read. What bounds its memory: one line at a time, of
//! [`BODY_BYTES_MAX`](crate::limits::BODY_BYTES_MAX) at most, is between the network and a command, and is read only when fewer
//! than [`BULK_LINES_IN_FLIGHT_MAX`] are between being read and being answered. What is kept of each is a command, whose every
//! part is limited, or a problem, whose document has at most [`PROBLEM_BYTES_MAX`](crate::limits::PROBLEM_BYTES_MAX). A result
//! waits until it fits among those that the client has yet to read: [`BULK_RESULTS_WAITING_MAX`] of them, and
//! [`BULK_RESULTS_WAITING_BYTES_MAX`].

use std::{collections::BTreeMap, collections::HashMap, io, pin::pin, sync::Arc, time::Duration, time::Instant};

use auth::Caller;
use axum::body::Body;
use bytes::Bytes;
use futures::{
    FutureExt as _, StreamExt as _,
    future::{self, BoxFuture},
    stream::{self, FuturesOrdered},
};
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, OwnedPermit, error::SendError},
        oneshot,
    },
    time::timeout,
};
use tracing::{Instrument as _, info};

use super::{BulkResult, Line, Lines, lines::Stopped, read_line};
use crate::{
    answers::OrderAnswer,
    api::Api,
    command::{Command, order_not_found},
    context::RequestContext,
    idempotency::IdempotencyKey,
    limits::{BULK_LINES_IN_FLIGHT_MAX, BULK_RESULTS_WAITING_BYTES_MAX, BULK_RESULTS_WAITING_MAX},
    orders::{PlaceOrder, place},
    problem::{Code, Problem},
};

/// Why an import ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Every line has its result.
    Complete,
    /// The process is about to end.
    Draining,
    /// The caller's token is not good any more.
    Expired,
    /// The client sends nothing.
    NotSending,
    /// The client reads nothing; this is the first line whose result it does not get.
    NotReading { line: u64 },
    /// The body will never be whole.
    BrokenOff,
    /// There is no client any more.
    Gone,
}

impl End {
    /// What the last line of the answer says, if it says more than that.
    fn problem(self) -> Option<Problem> {
        let problem = |code, detail: &str| Some(Problem::new(code, detail));
        match self {
            Self::Complete | Self::Gone => None,
            Self::Draining => problem(
                Code::Draining,
                "this instance is about to end; this line and those after it were not looked at: connect again and send them",
            ),
            Self::Expired => {
                problem(Code::Unauthenticated, "the token has expired; this line and those after it were not looked at")
            }
            Self::NotSending => {
                problem(Code::Idle, "nothing was sent for too long; this line and those after it were not looked at")
            }
            Self::NotReading { .. } => problem(
                Code::Idle,
                "results were not read for too long; this line and those after it may have been carried out or not: send them again",
            ),
            Self::BrokenOff => {
                problem(Code::InvalidJson, "the body did not arrive as a whole; this line and those after it were not looked at")
            }
        }
    }

    /// Whether there is anybody to give results to.
    fn is_read(self) -> bool {
        !matches!(self, Self::Gone | Self::NotReading { .. })
    }
}

impl From<Stopped> for End {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Idle => Self::NotSending,
            Stopped::BrokenOff => Self::BrokenOff,
        }
    }
}

/// A line that came to its end.
struct Done {
    line: u64,
    /// Under which its order was to be placed, if it was read.
    key: Option<IdempotencyKey>,
    outcome: Result<(OrderAnswer, bool), Problem>,
}

/// A result that its client has yet to read.
struct Waiting {
    result: Bytes,
    /// Its share of [`BULK_RESULTS_WAITING_BYTES_MAX`]; the last result needs none.
    _room: Option<OwnedSemaphorePermit>,
}

struct Import {
    api: Api,
    caller: Caller,
    context: RequestContext,
    lines: Lines,
    in_flight: FuturesOrdered<BoxFuture<'static, Done>>,
    /// Of each key in flight its last line, and what completes when that is carried out.
    turns: HashMap<IdempotencyKey, (u64, oneshot::Receiver<()>)>,
    results: mpsc::Sender<Waiting>,
    /// How many bytes of results may be added to those that wait.
    room: Arc<Semaphore>,
    counts: BTreeMap<u16, u64>,
}

/// Begins an import, which holds its `place` until it has ended; the body of its answer.
pub(super) fn start(api: Api, caller: Caller, context: RequestContext, place: OwnedSemaphorePermit, lines: Lines) -> Body {
    let (results, unread) = mpsc::channel(BULK_RESULTS_WAITING_MAX + 1);
    // A client that does not read hears of that, too, should it begin to.
    let last = results.clone().try_reserve_owned().expect("a new channel has room");
    let (ended, has_ended) = oneshot::channel();
    let import = Import {
        api,
        caller,
        context,
        lines,
        in_flight: FuturesOrdered::new(),
        turns: HashMap::new(),
        results,
        room: Arc::new(Semaphore::new(BULK_RESULTS_WAITING_BYTES_MAX)),
        counts: BTreeMap::new(),
    };
    let running = async move {
        import.run(last).await;
        drop(place);
        // Nobody listens if the client is gone.
        let _ = ended.send(());
    };
    tokio::spawn(running.in_current_span());
    Body::from_stream(stream::unfold((unread, Some(has_ended)), next_chunk))
}

type Unread = (mpsc::Receiver<Waiting>, Option<oneshot::Receiver<()>>);

/// After a panic the answer must not look complete.
async fn next_chunk((mut unread, has_ended): Unread) -> Option<(io::Result<Bytes>, Unread)> {
    if let Some(Waiting { result, .. }) = unread.recv().await {
        return Some((Ok(result), (unread, has_ended)));
    }
    match has_ended?.await {
        Ok(()) => None,
        Err(_) => Some((Err(io::Error::other("the import failed")), (unread, None))),
    }
}

impl Import {
    async fn run(mut self, last: OwnedPermit<Waiting>) {
        let started = Instant::now();
        let mut end = self.take_lines().await;
        let next_line = self.lines.next_number();
        while end.is_read()
            && let Some(done) = self.in_flight.next().await
        {
            end = self.deliver(done).await.map_or_else(|end| end, |()| end);
        }
        if let Some(problem) = end.problem() {
            let line = if let End::NotReading { line } = end { line } else { next_line };
            let result = chunk(&BulkResult::new(line, Err(problem), &self.context.trace.trace_id()));
            last.send(Waiting { result, _room: None });
        }
        let (lines, duration_ms) = (self.counts.values().sum::<u64>(), started.elapsed().as_millis());
        info!(lines, statuses = ?self.counts, end = ?end, duration_ms, "an import of {lines} lines ended: {:?}", self.counts);
        if end != End::Complete {
            self.lines.discard().await;
        }
    }

    /// Until there are no more lines, or no more may be taken.
    async fn take_lines(&mut self) -> End {
        let admission = self.api.bulk.admission.clone();
        let mut expired = pin!(expiry(self.caller.expires_in()));
        loop {
            let has_room = self.in_flight.len() < BULK_LINES_IN_FLIGHT_MAX;
            // What ends it first; then what makes room.
            tokio::select! {
                biased;
                () = admission.drain_started() => return End::Draining,
                () = &mut expired => return End::Expired,
                () = self.results.closed() => return End::Gone,
                Some(done) = self.in_flight.next() => {
                    if let Err(end) = self.deliver(done).await {
                        return end;
                    }
                }
                line = self.lines.next(), if has_room => match line {
                    Ok(Some((number, line))) => self.begin(number, &line),
                    Ok(None) => return End::Complete,
                    // Whoever waits for a result may well be silent meanwhile.
                    Err(Stopped::Idle) if !self.in_flight.is_empty() => {}
                    Err(stopped) => return stopped.into(),
                },
            }
        }
    }

    fn begin(&mut self, line: u64, content: &Line) {
        let command = match read_line(content, &self.caller, &self.context) {
            Ok(command) => command,
            Err(problem) => {
                let done = Done { line, key: None, outcome: Err(problem) };
                return self.in_flight.push_back(future::ready(done).boxed());
            }
        };
        let key = command.key.clone();
        let (carried_out, turn) = oneshot::channel();
        // Lines of one key are carried out one after the other, so that it is the first whose order is placed.
        let earlier = self.turns.insert(key.clone(), (line, turn)).map(|(_, turn)| turn);
        let api = self.api.clone();
        let task = tokio::spawn(
            async move {
                let outcome = carry_out(&api, &command, earlier).await;
                drop(carried_out);
                outcome
            }
            .in_current_span(),
        );
        let done = async move {
            let outcome = task.await.unwrap_or_else(|_| Err(Problem::unexpected()));
            Done { line, key: Some(key), outcome }
        };
        self.in_flight.push_back(done.boxed());
    }

    /// Gives the client a result, as soon as there is room for it.
    async fn deliver(&mut self, Done { line, key, outcome }: Done) -> Result<(), End> {
        if let Some(key) = key
            && self.turns.get(&key).is_some_and(|(last, _)| *last == line)
        {
            self.turns.remove(&key);
        }
        let result = BulkResult::new(line, outcome, &self.context.trace.trace_id());
        *self.counts.entry(result.status).or_default() += 1;
        self.api.bulk.lines.get_or_create(&[("status", result.status.to_string())]).inc();
        match timeout(self.api.bulk.idle, self.send(chunk(&result))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::NotReading { line }),
        }
    }

    /// Fails if there is no client any more, which also gives back the room of all that waited for it.
    async fn send(&mut self, result: Bytes) -> Result<(), SendError<Waiting>> {
        let share = u32::try_from(result.len().min(BULK_RESULTS_WAITING_BYTES_MAX)).expect("the limit fits 32 bits");
        // It is never closed, so there is always a permit.
        let room = Arc::clone(&self.room).acquire_many_owned(share).await.ok();
        self.results.send(Waiting { result, _room: room }).await
    }
}

fn chunk(result: &BulkResult) -> Bytes {
    let mut line = serde_json::to_vec(result).expect("a result has string keys only, so it always serializes");
    line.push(b'\n');
    line.into()
}

/// Places the order of one line, after the `earlier` one with the same key.
async fn carry_out(
    api: &Api,
    command: &Command<PlaceOrder>,
    earlier: Option<oneshot::Receiver<()>>,
) -> Result<(OrderAnswer, bool), Problem> {
    let turn = async {
        if let Some(earlier) = earlier {
            // However that one ended: it says so by not being there any more.
            let _ = earlier.await;
        }
        api.bulk.count_line(&command.caller).await;
    };
    let placing = async {
        // Boxed, because lines that wait for a place would hold its memory, too.
        let (order_id, outcome) = Box::pin(place(api, command)).await.map_err(|problem| problem.within("/order"))?;
        let order = OrderAnswer::new(order_id, &outcome).ok_or_else(order_not_found)?;
        Ok((order, outcome.replayed))
    };
    api.bulk.admission.admit_line(turn, placing).await
}

/// When the caller's token stops to be good.
async fn expiry(expires_in: Option<Duration>) {
    match expires_in {
        Some(expires_in) => tokio::time::sleep(expires_in).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// What a client gets of an import that ended so after one result.
    async fn read(end: impl FnOnce(oneshot::Sender<()>)) -> Result<Bytes, axum::Error> {
        let (results, unread) = mpsc::channel(1);
        let (ended, has_ended) = oneshot::channel();
        results.send(Waiting { result: Bytes::from_static(b"{}\n"), _room: None }).await.unwrap();
        drop(results);
        end(ended);
        let body = Body::from_stream(stream::unfold((unread, Some(has_ended)), next_chunk));
        body.collect().await.map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn an_answer_is_complete_only_if_its_import_came_to_its_end() {
        assert_eq!(read(|ended| ended.send(()).unwrap()).await.unwrap(), "{}\n");
        assert!(read(drop).await.is_err(), "after a panic the connection breaks off");
    }

    #[test]
    fn only_an_end_that_leaves_lines_without_results_says_so() {
        for end in [End::Complete, End::Gone] {
            assert!(end.problem().is_none(), "{end:?}");
        }
        for end in [End::Draining, End::Expired, End::NotSending, End::NotReading { line: 1 }, End::BrokenOff] {
            assert!(end.problem().is_some_and(|problem| problem.detail.contains("this line and those after it")), "{end:?}");
        }
    }
}
