//! The document for people: one page of our own that renders `/openapi.json`. Nothing on it is loaded from another host.

use axum::{
    Router,
    extract::{Path, rejection::PathRejection},
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
    routing::get,
};

use crate::problem::{Code, Problem};

const PAGE: &str = include_str!("docs/page.html");
const SCRIPT: &str = include_str!("docs/page.js");
const STYLE: &str = include_str!("docs/page.css");

/// The page may load its own script and style and the document, from this host, and nothing else from anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// `/docs` with its two files, and the explanations that problems' `type` refers to.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/docs", get(async || file("text/html; charset=utf-8", PAGE)))
        .route("/docs/page.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/docs/page.css", get(async || file("text/css; charset=utf-8", STYLE)))
        .route("/problems/{code}", get(explain))
}

fn file(content_type: &'static str, content: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, content).into_response()
}

async fn explain(code: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    // A code that is no text at all is none of ours either.
    let code = code.ok().and_then(|Path(code)| Code::ALL.iter().find(|known| known.as_str() == code));
    let Some(code) = code else {
        return Err(Problem::new(Code::RouteNotFound, "there is no problem of this code"));
    };
    let text = format!("{} {}\n\n{}.\n{}\n", code.status().as_u16(), code.as_str(), code.title(), code.explanation());
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], text).into_response())
}
