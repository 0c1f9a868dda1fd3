//! Who may come in: as many requests as can be served in time, none while this instance is about to end, and none for ever.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use telemetry::{drain::Drain, gauges::Reading, metrics::Metrics};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    limits::{BULK_LINES_SHARE, Limits},
    problem::{Code, Problem},
};

/// The door of the routes under `/v1`. Health, metrics and documentation do not pass it: they must answer an operator just
/// when there is no room.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    drain: Drain,
    places: Arc<Semaphore>,
    /// Places for imports as such. They are not among `places`: imports that held all of those would wait for ever for one for
    /// a line.
    imports: Arc<Semaphore>,
    /// What the lines of all imports may hold of `places`.
    import_lines: Arc<Semaphore>,
    deadline: Duration,
}

impl Admission {
    pub(crate) fn new(limits: &Limits, drain: Drain) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            drain,
            places: places(limits.requests_in_flight_max),
            imports: places(limits.bulk_requests_max),
            import_lines: places((limits.requests_in_flight_max / BULK_LINES_SHARE).max(1)),
            deadline: limits.request_deadline,
        }
    }

    /// Has `metrics` tell how many places are taken.
    pub(crate) fn tell(&self, limits: &Limits, metrics: &Metrics) {
        let taken = |places: &Arc<Semaphore>, all: usize| {
            let places = Arc::clone(places);
            Reading::count(move || all.saturating_sub(places.available_permits()))
        };
        let requests_max = limits.requests_in_flight_max;
        metrics.register(|registry| {
            let help = "Requests under /v1 and lines of imports that are being worked on";
            registry.register("http_requests_in_flight", help, taken(&self.places, requests_max));
            let help = "How many of those there may be; one more is answered 503";
            registry.register("http_requests_in_flight_limit", help, Reading::count(move || requests_max));
            let help = "Imports that are running";
            registry.register("bulk_imports_in_flight", help, taken(&self.imports, limits.bulk_requests_max));
        });
    }

    /// A place for an import, for as long as it runs.
    pub(crate) fn admit_import(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.imports).try_acquire_owned();
        place.map_err(|_| Problem::new(Code::Overloaded, "too many imports are running; nothing was changed"))
    }

    /// Carries out one line of an import: once it is its `turn` and there is a place, and within the deadline of a request.
    ///
    /// It waits for a place rather than being refused, because that makes the import wait, and so its client. A line that
    /// would have to wait once the drain has started is refused.
    pub(crate) async fn admit_line<T>(
        &self,
        turn: impl Future<Output = ()>,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let places = async {
            turn.await;
            (self.import_lines.acquire().await, self.places.acquire().await)
        };
        let _places = tokio::select! {
            // What was taken before the drain and need not wait is finished.
            biased;
            places = places => places,
            () = self.drain.started() => return Err(draining()),
        };
        tokio::time::timeout(self.deadline, work).await.unwrap_or_else(|_| Err(self.overdue()))
    }

    /// Completes when the drain starts.
    pub(crate) async fn drain_started(&self) {
        self.drain.started().await;
    }

    fn overdue(&self) -> Problem {
        let detail = format!("not done within {} s; retry with the same Idempotency-Key", self.deadline.as_secs_f64());
        Problem::new(Code::DeadlineExceeded, detail)
    }
}

/// Nobody comes in any more.
fn draining() -> Problem {
    Problem::new(Code::Draining, "this instance is about to end; connect again")
}

/// Lets nobody in once the drain has started; answers 503 at the deadline, and gives the request up.
///
/// It surrounds all that a request may have to wait for: being asked who sends it, the arrival of its body, and the work. Only
/// the work needs a place ([`admit`]).
pub(crate) async fn let_in(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    if admission.drain.is_started() {
        let mut response = draining().into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let answered = tokio::time::timeout(admission.deadline, next.run(request)).await;
    answered.unwrap_or_else(|_| admission.overdue().into_response())
}

/// Gives a request a place, or answers 503 at once. Whoever comes here is known and has sent everything: nobody can keep a
/// place by sending slowly, or by making us wait for the keys of callers.
pub(crate) async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    let Ok(_place) = admission.places.try_acquire() else {
        return Problem::new(Code::Overloaded, "too many requests are in flight; nothing was changed").into_response();
    };
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn_with_state, routing::get};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn nobody_comes_in_once_the_drain_has_started() {
        let drain = Drain::manual();
        let admission = Admission::new(&Limits::default(), drain.clone());
        let router = Router::new().route("/", get(async || "in")).layer(from_fn_with_state(admission, let_in));
        let ask = async || router.clone().oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(ask().await.status(), 200);

        drain.start();
        let refused = ask().await;
        assert_eq!(refused.status(), 503);
        assert_eq!([&refused.headers()["retry-after"], &refused.headers()["connection"]], ["1", "close"]);
        assert_eq!(refused.extensions().get::<Problem>().unwrap().code, Code::Draining);
    }

    #[tokio::test]
    async fn a_line_waits_for_a_place_until_there_is_one_or_the_drain_starts() {
        let drain = Drain::manual();
        let limits = Limits { requests_in_flight_max: 1, bulk_requests_max: 1, ..Limits::default() };
        let admission = Admission::new(&limits, drain.clone());
        let import = admission.admit_import().unwrap();
        assert_eq!(admission.admit_import().unwrap_err().code, Code::Overloaded);
        drop(import);
        assert!(admission.admit_import().is_ok());

        let line = async || admission.admit_line(async {}, async { Ok("placed") }).await.map_err(|problem| problem.code);
        let place = admission.places.acquire().await.unwrap();
        let (placed, ()) = tokio::join!(line(), async { drop(place) });
        assert_eq!(placed, Ok("placed"));

        let _place = admission.places.acquire().await.unwrap();
        let (refused, ()) = tokio::join!(line(), async { drain.start() });
        assert_eq!(refused, Err(Code::Draining));
    }

    #[tokio::test]
    async fn the_deadline_of_a_line_begins_with_its_turn() {
        let limits = Limits { request_deadline: Duration::from_millis(10), ..Limits::default() };
        let admission = Admission::new(&limits, Drain::manual());
        let late_turn = tokio::time::sleep(3 * limits.request_deadline);
        assert!(admission.admit_line(late_turn, async { Ok(()) }).await.is_ok());
        let overdue = admission.admit_line(async {}, std::future::pending::<Result<(), Problem>>()).await;
        assert_eq!(overdue.unwrap_err().code, Code::DeadlineExceeded);
    }
}
