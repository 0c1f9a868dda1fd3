//! Who sends a request.

use auth::{Caller, Door, Forbidden, Refused};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::problem::{Code, Problem};

/// Lets in who says who they are, and tells the handlers.
pub(crate) async fn identify(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    match door.ask(request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(Identity(caller));
            next.run(request).await
        }
        Err(refused) => {
            let code = match refused {
                Refused::NoToken | Refused::BadToken(_) => Code::Unauthenticated,
                Refused::TooOften { .. } => Code::TooManyRequests,
                Refused::Unavailable => Code::AuthUnavailable,
            };
            let mut response = Problem::new(code, refused.to_string()).into_response();
            refused.add_headers(response.headers_mut());
            response
        }
    }
}

/// The caller, as [`identify`] found out.
#[derive(Clone, Debug)]
pub(crate) struct Identity(pub(crate) Caller);

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Every route that takes it is behind `identify`; if one is not, it must serve nobody.
        let nobody = || Problem::new(Code::Unauthenticated, "this request was not asked who sent it");
        parts.extensions.get().cloned().ok_or_else(nobody)
    }
}

impl From<Forbidden> for Problem {
    fn from(forbidden: Forbidden) -> Self {
        Self::new(Code::Forbidden, forbidden.to_string())
    }
}
