//! The body of a command, as it arrives.
//!
//! It is read before its request takes a place among those in flight: otherwise a few clients who send slowly could take all of
//! them. What bounds the memory of bodies that arrive: each of them has at most [`SMALL_BODY_BYTES_MAX`], which is about what
//! its connection costs anyway, unless it is one of [`LARGE_BODIES_MAX`](crate::limits::LARGE_BODIES_MAX), none of which is
//! longer than [`BODY_BYTES_MAX`]. Nearly every command is small, so who fills the places of large bodies is in the way of
//! large ones only. Only callers who are known, and within their rate, are read from, and only until the request's deadline.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use crate::{
    limits::{BODY_BYTES_MAX, Limits, SMALL_BODY_BYTES_MAX},
    problem::{Code, Problem},
};

/// How much of a body that is too long is read and thrown away, in bytes, so that a client that is still sending it gets to
/// read the answer.
pub(crate) const BODY_DISCARDED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Places for bodies that are not small.
#[derive(Clone, Debug)]
pub(crate) struct LargeBodies(Arc<Semaphore>);

impl LargeBodies {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Semaphore::new(limits.large_bodies_max)))
    }
}

/// The whole body of this request, as [`receive`] read it.
#[derive(Clone, Debug)]
pub(crate) struct Received(pub(crate) Bytes);

/// Waits for the body of a command, which the handlers get whole.
pub(crate) async fn receive(State(large_bodies): State<LargeBodies>, mut request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let body = std::mem::take(request.body_mut());
    // Its place is given back when the request is answered.
    let mut place = None;
    let grow = || {
        let taken = large_bodies.0.try_acquire().map_err(|_| too_many_large())?;
        place = Some(taken);
        Ok(())
    };
    match read_body(body, grow).await {
        Ok(bytes) => request.extensions_mut().insert(Received(bytes)),
        Err(problem) => return problem.into_response(),
    };
    let response = next.run(request).await;
    drop(place);
    response
}

fn too_many_large() -> Problem {
    let detail = format!("too many bodies of more than {SMALL_BODY_BYTES_MAX} bytes are arriving; nothing was changed");
    Problem::new(Code::Overloaded, detail)
}

/// The whole body, if it is no longer than [`BODY_BYTES_MAX`]. Once it is not small any more, it goes on only if `grow` allows
/// it.
async fn read_body(mut body: Body, grow: impl FnOnce() -> Result<(), Problem>) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    let (mut length, mut grow) = (0_usize, Some(grow));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(Code::InvalidJson, "the body did not arrive as a whole"))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > SMALL_BODY_BYTES_MAX
            && let Some(grow) = grow.take()
        {
            grow()?;
        }
        if length <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else if length > BODY_DISCARDED_BYTES_MAX {
            break;
        } else {
            // Nothing of it is needed any more.
            bytes = BytesMut::new();
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(Problem::new(Code::ContentTooLarge, format!("the body is longer than {BODY_BYTES_MAX} bytes")));
    }
    Ok(bytes.freeze())
}

impl<S: Send + Sync> FromRequestParts<S> for Received {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Every command is behind `receive`.
        parts.extensions.remove().ok_or_else(Problem::unexpected)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::pin};

    use axum::{Router, middleware::from_fn_with_state, routing::post};
    use futures::{StreamExt as _, poll, stream};
    use tower::ServiceExt as _;

    use super::*;

    const LARGE: &[u8] = &[b' '; SMALL_BODY_BYTES_MAX + 1];

    async fn send(large_bodies: &LargeBodies, body: Body) -> Response {
        let routes = Router::new().route("/", post(async |Received(bytes): Received| bytes.len().to_string()));
        let router = routes.layer(from_fn_with_state(large_bodies.clone(), receive));
        router.oneshot(Request::post("/").body(body).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn large_bodies_are_in_the_way_of_large_ones_only() {
        let large_bodies = LargeBodies::new(&Limits { large_bodies_max: 1, ..Limits::default() });
        {
            let begun = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(LARGE)) }).chain(stream::pending());
            let mut arriving = pin!(send(&large_bodies, Body::from_stream(begun)));
            assert!(poll!(&mut arriving).is_pending());
            let refused = send(&large_bodies, LARGE.into()).await;
            assert_eq!(refused.extensions().get::<Problem>().unwrap().code, Code::Overloaded);
            assert_eq!(send(&large_bodies, LARGE[1..].into()).await.status(), 200, "it is not large");
        }
        assert_eq!(send(&large_bodies, LARGE.into()).await.status(), 200, "the other one has gone");
        assert_eq!(send(&large_bodies, LARGE.into()).await.status(), 200, "and this one has its answer");
    }
}
