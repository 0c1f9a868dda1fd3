//! The program itself.

use std::process::{Command, Output, Stdio};

use local_stack::testing;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_command-api");

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    for name in ["NATS_URL", "LISTEN_ADDR", "AUTH_DISABLED", "AUTH_JWKS", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

fn mistakes(environment: &[(&str, &str)]) -> Vec<String> {
    let output = run(&[], environment);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap().lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn every_mistake_in_the_settings_is_listed_at_once() {
    let found = mistakes(&[]);
    assert_eq!(found[..2], ["NATS_URL: missing", "LISTEN_ADDR: missing"]);
    assert!(found[2].starts_with("AUTH_JWKS: missing: a file or URL") && found.len() == 3, "{found:?}");
    let found =
        mistakes(&[("NATS_URL", "http://x"), ("LISTEN_ADDR", "nowhere"), ("AUTH_DISABLED", "perhaps"), ("RUST_LOG", "a=loud")]);
    let expected = [
        "NATS_URL: must begin with nats:// or tls:// or ws:// or wss://",
        "LISTEN_ADDR: not an address of the form host:port",
        "AUTH_DISABLED: must be true or false",
        "RUST_LOG: not a filter",
    ];
    for expected in expected {
        assert!(found.iter().any(|found| found.starts_with(expected)), "{expected:?} is not in {found:?}");
    }
}

#[test]
fn without_authentication_only_this_machine_may_call() {
    let nats = ("NATS_URL", "nats://127.0.0.1:4222");
    let found = mistakes(&[nats, ("LISTEN_ADDR", "0.0.0.0:0"), ("AUTH_DISABLED", "true")]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("LISTEN_ADDR: must be a loopback address"), "{found:?}");
    let found = mistakes(&[nats, ("LISTEN_ADDR", "127.0.0.1:0"), ("AUTH_JWKS", "keys.json")]);
    assert!(found[0].starts_with("AUTH_JWKS: the file with the callers' keys cannot be read") && found.len() == 1, "{found:?}");
}

#[test]
fn the_document_is_printed_for_the_repository() {
    let output = run(&["openapi"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), command_api::openapi::json());
    assert!(output.stderr.is_empty());
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    assert_eq!(run(&["--colour", "green"], &[]).status.code(), Some(2));
}

#[test]
fn it_starts_without_streams_and_ends_with_0_on_sigterm() {
    let nats = testing::nats();
    let mut process = Command::new(PROGRAM)
        .args(["--nats-url", nats.url(), "--listen-addr", "127.0.0.1:0", "--auth-disabled", "true"])
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufRead::lines(std::io::BufReader::new(process.stderr.take().unwrap())).map(Result::unwrap);
    // Two tasks say one each, in no particular order.
    let mut expected = vec!["listening on http://127.0.0.1:", "run `projectors migrate`"];
    while !expected.is_empty() {
        let line = log.next().unwrap_or_else(|| panic!("it ended without having said {expected:?}"));
        expected.retain(|text| !line.contains(text));
    }
    kill(Pid::from_raw(process.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(log.any(|line| line.contains("SIGTERM received")));
    // The log ends when the process does.
    log.for_each(drop);
    assert_eq!(process.wait().unwrap().code(), Some(0));
}
