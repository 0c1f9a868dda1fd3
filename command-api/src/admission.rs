//! Who may come in: as many requests as can be served in time, none while this instance is about to end, and none for ever.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use telemetry::drain::Drain;
use tokio::sync::Semaphore;

use crate::{
    limits::Limits,
    problem::{Code, Problem},
};

/// The door of the routes under `/v1`. Health, metrics and documentation do not pass it: they must answer an operator just
/// when there is no room.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    drain: Drain,
    places: Arc<Semaphore>,
    deadline: Duration,
}

impl Admission {
    pub(crate) fn new(limits: &Limits, drain: Drain) -> Self {
        let places = Arc::new(Semaphore::new(limits.requests_in_flight_max));
        Self { drain, places, deadline: limits.request_deadline }
    }
}

/// Lets a request in, or answers 503 at once; answers 503 at the deadline, and gives the request up.
pub(crate) async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    if admission.drain.is_started() {
        let mut response = Problem::new(Code::Draining, "this instance is about to end; connect again").into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let Ok(_place) = admission.places.try_acquire() else {
        return Problem::new(Code::Overloaded, "too many requests are in flight; nothing was changed").into_response();
    };
    tokio::time::timeout(admission.deadline, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("not done within {} s; retry with the same Idempotency-Key", admission.deadline.as_secs_f64());
        Problem::new(Code::DeadlineExceeded, detail).into_response()
    })
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
        let router = Router::new().route("/", get(async || "in")).layer(from_fn_with_state(admission, admit));
        let ask = async || router.clone().oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(ask().await.status(), 200);

        drain.start();
        let refused = ask().await;
        assert_eq!(refused.status(), 503);
        assert_eq!([&refused.headers()["retry-after"], &refused.headers()["connection"]], ["1", "close"]);
        assert_eq!(refused.extensions().get::<Problem>().unwrap().code, Code::Draining);
    }
}
