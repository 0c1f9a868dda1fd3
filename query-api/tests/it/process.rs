//! The program itself: its settings, its exit codes, its end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_secs(20);

/// The program without any setting of the environment that these tests run in.
fn query_api() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_query-api"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_schema_is_printed_without_any_setting() {
    let Output { status, stdout, .. } = query_api().arg("schema").output().expect("it runs");
    assert!(status.success());
    assert_eq!(text(&stdout), query_api::schema::sdl());
}

#[test]
fn every_mistake_in_the_settings_is_listed_and_the_exit_code_is_2() {
    let output = query_api().env("LISTEN_ADDR", "0.0.0.0:0").env("AUTH_JWKS", "keys.json").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for name in ["DATABASE_URL: missing", "AUTH_JWKS: the file with the callers' keys cannot be read"] {
        assert!(said.lines().any(|line| line.trim().starts_with(name)), "{name} is not in {said}");
    }
    let output = query_api().arg("--no-such-flag").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}

/// The running server; killed if a test fails.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(database_url: &str) -> Self {
        let port = free_port();
        let child = query_api()
            .env("DATABASE_URL", database_url)
            .env("LISTEN_ADDR", format!("127.0.0.1:{port}"))
            .env("AUTH_DISABLED", "true")
            .env("RUST_LOG", "warn")
            .spawn()
            .expect("it runs");
        Self { child, port }
    }

    /// Status line and body of `GET path`; `None` while it does not listen.
    fn get(&self, path: &str) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
    }

    fn await_answer(&self, path: &str, is_wanted: impl Fn(&str, &str) -> bool) {
        let started = Instant::now();
        loop {
            let answer = self.get(path);
            if answer.as_ref().is_some_and(|(status, body)| is_wanted(status, body)) {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "{path} still answers {answer:?}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a test that passed it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound listener").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_the_schema_then_serves_and_ends_in_order() {
    let database = tokio::task::block_in_place(local_stack::testing::database);
    let mut server = Server::start(database.url());
    server.await_answer("/ready", |status, body| status.contains("503") && body.contains("migrate"));
    server.await_answer("/health", |status, _| status.contains("200"));

    read_store::schema::migrate(&database.url().parse().expect("a URL")).await.expect("migrated");
    server.await_answer("/ready", |status, body| status.contains("200") && body.contains("\"postgres\""));
    server.await_answer("/graphql?query=%7Bprojections%7Bname%7D%7D", |_, body| body.contains("inventory"));
    server.await_answer("/metrics", |_, body| body.contains("graphql_requests_total{outcome=\"ok\"} 1"));

    let pid = Pid::from_raw(i32::try_from(server.child.id()).expect("a process id"));
    kill(pid, Signal::SIGTERM).expect("it is alive");
    assert_eq!(server.child.wait().expect("it ends").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_a_failure_and_no_usage_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let output = query_api()
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere")
        .env("LISTEN_ADDR", taken.local_addr().expect("a bound listener").to_string())
        .env("AUTH_DISABLED", "true")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}
