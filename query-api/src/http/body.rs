//! The parameters of a GraphQL request, from a POST's body or a GET's query string.

use async_graphql::Variables;
use axum::body;
use axum::extract::{Query, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Refusal;
use crate::error::code;
use crate::limits::REQUEST_BYTES_MAX;
use crate::operations::Named;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) operation: Named,
    pub(super) operation_name: Option<String>,
    pub(super) variables: Variables,
}

/// The JSON object of a POST. Each parameter may be null; `extensions` must be an object, of which but `persistedQuery` nothing is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Posted {
    query: Option<String>,
    document_id: Option<String>,
    operation_name: Option<String>,
    variables: Option<Variables>,
    extensions: Option<Map<String, Value>>,
}

/// The query string of a GET; variables and extensions are JSON within it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Got {
    query: Option<String>,
    document_id: Option<String>,
    operation_name: Option<String>,
    variables: Option<String>,
    extensions: Option<String>,
}

/// Reads a POST.
pub(super) async fn from_post(request: Request) -> Result<Parameters, Refusal> {
    check_content(request.headers())?;
    let bytes = body::to_bytes(request.into_body(), REQUEST_BYTES_MAX).await.map_err(|error| {
        if error.into_inner().is::<LengthLimitError>() {
            let message = format!("the request is larger than {REQUEST_BYTES_MAX} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, code::LIMIT_EXCEEDED, message)
        } else {
            Refusal::bad_request("the request's body could not be read to its end")
        }
    })?;
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Refusal::bad_request("batches of requests are not supported: send one JSON object per request"));
    }
    let posted: Posted = serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::bad_request(format!("the body is not the JSON of a GraphQL request: {error}")))?;
    posted.check()
}

impl Posted {
    /// With all that there must be.
    pub(super) fn check(self) -> Result<Parameters, Refusal> {
        let Self { query, document_id, operation_name, variables, extensions } = self;
        let operation = named(query, document_id, extensions.as_ref())?;
        Ok(Parameters { operation, operation_name, variables: variables.unwrap_or_default() })
    }
}

/// Reads a GET.
pub(super) fn from_get(uri: &Uri) -> Result<Parameters, Refusal> {
    if uri.query().is_some_and(|query| query.len() > REQUEST_BYTES_MAX) {
        let message = format!("the request is larger than {REQUEST_BYTES_MAX} bytes");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, code::LIMIT_EXCEEDED, message));
    }
    let Query(got) = Query::<Got>::try_from_uri(uri)
        .map_err(|error| Refusal::bad_request(format!("the query string is not that of a GraphQL request: {error}")))?;
    let variables = parse_json("variables", got.variables.as_deref())?;
    let extensions = parse_json("extensions", got.extensions.as_deref())?;
    let operation_name = got.operation_name.filter(|name| !name.is_empty());
    Posted { query: got.query, document_id: got.document_id, operation_name, variables, extensions }.check()
}

fn parse_json<T: for<'de> Deserialize<'de>>(parameter: &str, json: Option<&str>) -> Result<Option<T>, Refusal> {
    let Some(json) = json.filter(|json| !json.is_empty()) else { return Ok(None) };
    serde_json::from_str(json).map_err(|error| Refusal::bad_request(format!("{parameter} is not a JSON object: {error}")))
}

/// Which operation is meant: a text counts more than a hash, which Apollo's clients send along with it.
fn named(query: Option<String>, document_id: Option<String>, extensions: Option<&Map<String, Value>>) -> Result<Named, Refusal> {
    let query = query.filter(|query| !query.trim().is_empty());
    let hash = || extensions?.get("persistedQuery")?.get("sha256Hash")?.as_str().map(str::to_owned);
    match (query, document_id) {
        (Some(_), Some(_)) => Err(Refusal::bad_request("there is a query and a documentId: send one of them")),
        (Some(query), None) => Ok(Named::Text(query)),
        (None, Some(id)) => Ok(Named::Id(id)),
        (None, None) => hash().map(Named::Hash).ok_or_else(|| Refusal::bad_request("the query is missing")),
    }
}

/// Refuses a body that is not plain JSON in UTF-8. This also keeps other sites' forms out, which cannot send that type.
fn check_content(headers: &HeaderMap) -> Result<(), Refusal> {
    let unsupported = |message| Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code::BAD_REQUEST, message));
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json")) {
        return unsupported("a POST needs Content-Type: application/json");
    }
    let is_utf8 = parts
        .filter_map(|parameter| parameter.split_once('='))
        .all(|(name, value)| !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8"));
    if !is_utf8 {
        return unsupported("the body's charset must be utf-8");
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return unsupported("a body with a Content-Encoding is not supported");
    }
    Ok(())
}
