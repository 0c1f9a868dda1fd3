//! How services start: refused with every mistake listed, or patient until what they need is there.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use e2e::eventually::eventually;
use serde_json::Value;

use crate::running::{Running, order_of};

const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
const USAGE: i32 = 2;

/// Each service, its arguments, and the settings that it cannot do without.
const REQUIRED: [(&str, &[&str], &[&str]); 4] = [
    ("command-api", &[], &["NATS_URL", "LISTEN_ADDR", "AUTH_JWKS"]),
    ("query-api", &[], &["DATABASE_URL", "LISTEN_ADDR", "AUTH_JWKS"]),
    ("projectors", &["run"], &["NATS_URL", "DATABASE_URL", "LISTEN_ADDR", "AUDIT_KEY_FILE"]),
    ("reactors", &["run"], &["NATS_URL", "LISTEN_ADDR", "STRIPE_API_BASE", "STRIPE_API_KEY", "MAIL_DIR", "MAIL_FROM"]),
];

/// A service's binary, built into the folder above that of this test.
fn binary(name: &str) -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let folder = executable.ancestors().nth(2).unwrap();
    let binary = folder.join(name);
    assert!(binary.exists(), "{} is not built; `cargo xtask test` builds it", binary.display());
    binary
}

fn refused(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(binary(name));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(USAGE), "{name}: {stderr}");
    stderr
}

#[test]
fn a_service_without_settings_lists_every_one_that_is_missing_and_exits_2() {
    for (name, arguments, settings) in REQUIRED {
        let stderr = refused(name, arguments, &[]);
        for setting in settings {
            assert!(says(&stderr, &format!("{setting}: ")), "{name} does not miss {setting}: {stderr}");
        }
    }
}

#[test]
fn a_service_with_wrong_settings_lists_every_one_that_is_wrong_and_exits_2() {
    for (name, arguments, settings) in REQUIRED {
        let wrong: Vec<_> = settings.iter().filter(|setting| !is_free_text(setting)).map(|setting| (*setting, "wrong")).collect();
        let right = settings.iter().filter(|setting| is_free_text(setting)).map(|setting| (*setting, "something"));
        let environment: Vec<_> = wrong.iter().copied().chain(right).collect();
        let stderr = refused(name, arguments, &environment);
        for (setting, _) in wrong {
            assert!(says(&stderr, &format!("{setting}: ")), "{name} takes {setting} as it is: {stderr}");
        }
    }
}

/// One mistake a line, beginning with the setting's name.
fn says(stderr: &str, beginning: &str) -> bool {
    stderr.lines().any(|line| line.trim_start().starts_with(beginning))
}

/// Settings of which nearly every text is right.
fn is_free_text(setting: &str) -> bool {
    matches!(setting, "STRIPE_API_KEY" | "MAIL_DIR")
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_a_nats_and_a_postgres_that_are_away_at_start_alive_and_not_ready() {
    let mut running = Running::start();
    running.shop.receive("TEA-1", 10, "receipt").await.unwrap();
    let services = ["command-api", "reactors", "projectors", "query-api"];
    for name in services.into_iter().chain(["nats", "postgres"]) {
        running.kill(name);
    }
    for name in services {
        running.spawn(name);
    }
    let info = running.info().clone();
    for (name, url) in services.iter().zip([&info.command_api, &info.reactors, &info.projectors, &info.query_api]) {
        let what = format!("{name} is alive");
        let alive = eventually(&what, ANSWER_DEADLINE, async || {
            Ok(get(&format!("{url}/health")).await.filter(|(status, _)| *status == 200))
        });
        let (_, body) = alive.await.unwrap();
        assert_eq!(body["status"], "alive", "{name}");
        let (status, body) = get(&format!("{url}/ready")).await.expect("who is alive answers");
        assert_eq!((status, body["ready"].as_bool()), (503, Some(false)), "{name}: {body}");
    }
    // A checkout is told to come back later, and not left hanging.
    let refused = reqwest::Client::new()
        .post(format!("{}/v1/orders", info.command_api))
        .header("Idempotency-Key", "early")
        .bearer_auth(&info.tokens["service"])
        .json(&order_of("TEA-1", 1))
        .timeout(Duration::from_secs(15));
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));

    running.start_again("nats");
    running.start_again("postgres");
    for name in services {
        running.wait_until_ready(name);
    }
    running.shop.place(&order_of("TEA-1", 1), "early").await.unwrap();
    let report = running.check_invariants().await;
    assert_eq!(report.confirmed, 1);
    running.finish();
}

/// Status and JSON body; `None` if nobody answers.
async fn get(url: &str) -> Option<(u16, Value)> {
    let response = reqwest::Client::new().get(url).timeout(Duration::from_secs(5)).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.json().await.unwrap_or_default()))
}
