//! A query API of one test, on a database of its own.

use std::time::Duration;

use auth::settings::{KeySource, RateLimits};
use auth::{AuthSettings, Door};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use local_stack::testing::TestDatabase;
use local_stack::tokens::{AUDIENCE, TokenIssuer};
use query_api::database::Database;
use query_api::http::{self, Capacity, Policy};
use query_api::live::{self, Live};
use query_api::metrics::QueryMetrics;
use query_api::positions::{self, Positions};
use query_api::schema::{self, Sources};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use telemetry::drain::Drain;
use telemetry::health::Health;
use telemetry::metrics::Metrics;
use tower::ServiceExt as _;

/// How long any request of these tests may take.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) positions: Positions,
    pub(crate) metrics: Metrics,
    /// May write, unlike the API's own connections.
    pub(crate) writer: PgConnection,
    pub(crate) database: TestDatabase,
}

/// The routes over other sources or of another capacity.
pub(crate) fn router(sources: Sources, capacity: Capacity) -> Router {
    router_with(Door::open(), Policy::default(), sources, &Metrics::new("query-api"), capacity)
}

fn router_with(door: Door, policy: Policy, sources: Sources, metrics: &Metrics, capacity: Capacity) -> Router {
    http::router(schema::build(sources), door, policy, QueryMetrics::new(metrics), capacity, Drain::manual())
}

impl Api {
    /// With empty read models.
    pub(crate) async fn start() -> Self {
        Self::start_with(Duration::from_secs(10)).await
    }

    /// With this wait for `minPosition`.
    pub(crate) async fn start_with(min_position_wait: Duration) -> Self {
        Self::start_behind(Door::open(), Policy::default(), min_position_wait).await
    }

    /// One of which not everything may be asked.
    pub(crate) async fn start_under(policy: Policy) -> Self {
        Self::start_behind(Door::open(), policy, Duration::from_secs(10)).await
    }

    /// One that asks callers for tokens of `issuer`, with these limits for each.
    pub(crate) async fn start_guarded(issuer: &TokenIssuer, limits: RateLimits) -> Self {
        let key_set = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&key_set, issuer.key_set().to_string()).expect("it is written");
        let source = KeySource::File(key_set.path().to_owned());
        let settings = AuthSettings::Keys { source, audience: AUDIENCE.to_owned(), issuer: None, limits };
        let health = Health::new("query-api");
        let door = Door::new(settings, &health).expect("a door");
        while !health.is_ready() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self::start_behind(door, Policy::default(), Duration::from_secs(10)).await
    }

    async fn start_behind(door: Door, policy: Policy, min_position_wait: Duration) -> Self {
        let database = tokio::task::spawn_blocking(local_stack::testing::database).await.expect("a database of the test");
        let options = database.url().parse().expect("a Postgres URL");
        read_store::schema::migrate(&options).await.expect("an empty database is migrated");
        let writer = PgConnection::connect_with(&options).await.expect("the database is there");
        let watching = Database::open(database.url(), 1).expect("a Postgres URL");
        let positions = Positions::default();
        let health = Health::new("query-api");
        let url = database.url().to_owned();
        tokio::spawn(positions::follow(positions.clone(), watching, url, health.component("postgres")));
        let reads = Database::open(database.url(), 4).expect("a Postgres URL");
        let live = Live::default();
        tokio::spawn(live::follow(live.clone(), reads.clone(), positions.clone()));
        let sources = Sources { database: reads, positions: positions.clone(), min_position_wait, live };
        let capacity = Capacity { deadline: DEADLINE, requests_in_flight_max: 100 };
        let metrics = Metrics::new("query-api");
        Self { router: router_with(door, policy, sources, &metrics, capacity), metrics, positions, writer, database }
    }

    /// Answers from now on by what these know.
    pub(crate) fn serve_with(&mut self, positions: Positions, live: Live) {
        let database = Database::open(self.database.url(), 4).expect("a Postgres URL");
        tokio::spawn(live::follow(live.clone(), database.clone(), positions.clone()));
        let sources = Sources { database, positions, min_position_wait: Duration::from_secs(10), live };
        self.router = router(sources, Capacity { deadline: DEADLINE, requests_in_flight_max: 100 });
    }

    /// Another connection that may write.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(self.database.url()).await.expect("the database is there")
    }

    /// How many entries of a table's indexes all queries so far have read.
    pub(crate) async fn entries_read(&mut self, table: &str) -> i64 {
        // What a connection has read is known for sure when it is gone.
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        while sqlx::query_scalar::<_, i64>(end).fetch_one(&mut self.writer).await.expect("a number") > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE schemaname = 'contrail' AND relname = $1";
        sqlx::query_scalar(read).bind(table).fetch_one(&mut self.writer).await.expect("a number")
    }

    /// The whole response to a query.
    pub(crate) async fn response(&self, query: &str, variables: Value) -> Value {
        let body = json!({"query": query, "variables": variables}).to_string();
        let request = Request::post("/graphql").header("content-type", "application/json");
        let (status, body) = self.send(request.body(Body::from(body)).expect("a request")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// Status and response of a query of whoever has this token.
    pub(crate) async fn ask_as(&self, token: &str, query: &str, variables: Value) -> (StatusCode, Value) {
        let body = json!({"query": query, "variables": variables}).to_string();
        let request = Request::post("/graphql").header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {token}"));
        self.send(request.body(Body::from(body)).expect("a request")).await
    }

    /// The data of a query that has no errors.
    pub(crate) async fn data(&self, query: &str, variables: Value) -> Value {
        let mut response = self.response(query, variables).await;
        assert_eq!(response.get("errors"), None, "{response}");
        response["data"].take()
    }

    /// The code and message of the only error of a query.
    pub(crate) async fn error(&self, query: &str, variables: Value) -> (String, String) {
        let response = self.response(query, variables).await;
        let errors = response["errors"].as_array().unwrap_or_else(|| panic!("no errors in {response}"));
        assert_eq!(errors.len(), 1, "{response}");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {response}")).to_owned();
        (text(&errors[0]["extensions"]["code"]), text(&errors[0]["message"]))
    }

    /// Status and JSON body of any request.
    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.exchange(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
    }

    pub(crate) async fn exchange(&self, request: Request<Body>) -> Response<Body> {
        tokio::time::timeout(DEADLINE, self.router.clone().oneshot(request)).await.expect("an answer in time").expect("an answer")
    }
}
