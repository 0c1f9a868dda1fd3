//! The routes and what surrounds them.

use auth::Door;
use axum::{
    Router,
    http::{HeaderValue, Method, Uri, header::CONTENT_TYPE},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use event_store::JetStreamEventStore;
use telemetry::{drain::Drain, health::Health, metrics::Metrics};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    admission::{Admission, admit, let_in},
    body::{LargeBodies, receive},
    bulk::{self, Bulk},
    docs,
    identity::identify,
    limits::Limits,
    observe::{RequestMetrics, observe},
    openapi, orders,
    problem::{Code, Problem, echo},
    stock,
};

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) store: JetStreamEventStore,
    pub(crate) bulk: Bulk,
}

/// The whole HTTP surface of the service; `door` asks those who want something of `/v1` who they are. `health` and `metrics` are served, not
/// changed, except that requests are counted.
pub fn router(store: JetStreamEventStore, door: Door, health: Health, metrics: Metrics, drain: Drain, limits: &Limits) -> Router {
    let admission = Admission::new(limits, drain);
    admission.tell(limits, &metrics);
    let request_metrics = RequestMetrics::new(&metrics);
    metrics.register(|registry| registry.register_collector(Box::new(store.metrics())));
    let bulk = Bulk::new(limits, door.clone(), admission.clone(), &metrics);
    // From the outside in: nobody once the drain has started; who sends it; the whole body; then a place. An import is read as it arrives,
    // and each of its lines takes a place.
    let (single, _) = single_routes().split_for_parts();
    let single = single
        .route_layer(from_fn_with_state(admission.clone(), admit))
        .route_layer(from_fn_with_state(LargeBodies::new(limits), receive));
    let (imports, _) = bulk::routes().split_for_parts();
    let commands = single.merge(imports).with_state(Api { store, bulk });
    let commands = commands.route_layer(from_fn_with_state(door, identify)).route_layer(from_fn_with_state(admission, let_in));
    let routes = Router::new()
        .merge(commands)
        .route("/openapi.json", get(openapi_json))
        .merge(docs::routes())
        .merge(telemetry::http::operations(health, metrics));
    surround(routes, request_metrics)
}

/// What every answer has, also the one to an unknown route or after a panic.
fn surround(routes: Router, request_metrics: RequestMetrics) -> Router {
    routes
        .fallback(route_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(request_metrics, observe))
}

/// The routes that the OpenAPI document describes from their own annotations.
pub(crate) fn documented_routes() -> OpenApiRouter<Api> {
    single_routes().merge(bulk::routes())
}

/// Those with one command or query in a request.
fn single_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().merge(orders::routes()).merge(stock::routes())
}

async fn openapi_json() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], openapi::json())
}

async fn route_not_found(uri: Uri) -> Problem {
    Problem::new(Code::RouteNotFound, format!("nothing is served at {}; /openapi.json lists what is", echo(uri.path())))
}

/// The router adds `Allow`.
async fn method_not_allowed(method: Method) -> Problem {
    let detail = format!("{} is not possible here; the Allow header lists what is", echo(method.as_str()));
    Problem::new(Code::MethodNotAllowed, detail)
}

/// The panic itself is logged by the process's panic hook.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::unexpected().into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_masked_500() {
        let routes = Router::new().route("/", get(async || -> Response { panic!("the secret reason") }));
        let router = surround(routes, RequestMetrics::new(&Metrics::new("test")));
        let response = router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("\"code\":\"internal\"") && !body.contains("secret"), "{body}");
    }
}
