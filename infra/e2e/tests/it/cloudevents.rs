//! Any stored message can be read by a CloudEvents SDK that is not ours: here the one for Python.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use domain::envelope::StoredEvent;
use e2e::load::{self, Load};
use e2e::workload::Workload;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;
use tokio::time::timeout;

use crate::running::Running;

const SDK: &str = "cloudevents==2.2.0";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/read_cloudevents.py");
const INSTALL_DEADLINE: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn every_stored_message_is_read_by_the_cloudevents_sdk_for_python() {
    let folder = tempfile::tempdir().unwrap();
    let python = install_sdk(folder.path()).await;

    let running = Running::start();
    let workload = Workload::new("sdk", 17, 50);
    load::receive_stock(&running.shop, &workload).await.unwrap();
    load::run(&running.shop, &workload, &Load::default()).await.unwrap_or_else(|error| panic!("{error:#}"));
    let report = running.check_invariants().await;

    let trail = folder.path().join("trail.jsonl");
    let mut export = Command::from(running.stack().command("projectors").unwrap());
    export.args(["audit", "export", "--format", "jsonl", "--out"]).arg(&trail);
    succeed("projectors audit export", &mut export).await;
    let understood = succeed("read_cloudevents.py", Command::new(python).arg(SCRIPT).arg(&trail)).await;

    let stored = fs::read(&trail).unwrap();
    let stored: Vec<_> = stored.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let understood: Vec<Value> = understood.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((stored.len() as u64, understood.len()), (report.events, stored.len()));
    for (stored, understood) in stored.into_iter().zip(&understood) {
        check(&StoredEvent::from_json(stored).unwrap(), understood);
    }
    running.finish();
}

/// What the SDK says is what we mean.
fn check(event: &StoredEvent, understood: &Value) {
    let metadata = &event.metadata;
    assert_eq!(understood["specversion"], "1.0");
    assert_eq!(understood["id"], metadata.event_id.to_string());
    assert_eq!(understood["type"], metadata.event_type);
    assert_eq!(understood["source"], metadata.source);
    assert_eq!(understood["subject"], metadata.aggregate_id);
    assert_eq!(understood["datacontenttype"], "application/json");
    // Python's clock has microseconds.
    let time = OffsetDateTime::parse(understood["time"].as_str().unwrap(), &Rfc3339).unwrap();
    assert_eq!(time, metadata.time.replace_microsecond(metadata.time.microsecond()).unwrap());
    let mut extensions = json!({
        "aggregatetype": metadata.aggregate_type,
        "sequence": metadata.version.to_string(),
        "correlationid": metadata.correlation_id,
    });
    let optional = [("causationid", &metadata.causation_id), ("actor", &metadata.actor), ("traceparent", &metadata.traceparent)];
    for (name, value) in optional {
        if let Some(value) = value {
            extensions[name] = json!(value);
        }
    }
    assert_eq!(understood["extensions"], extensions, "{}", metadata.event_type);
    assert_eq!(understood["data"], serde_json::from_str::<Value>(event.data.get()).unwrap());
}

/// A Python of its own with the SDK.
async fn install_sdk(folder: &Path) -> std::path::PathBuf {
    let environment = folder.join("python");
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&environment);
    succeed("python3 -m venv (this test needs Python 3 with venv and pip)", &mut create).await;
    let python = environment.join("bin").join("python");
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", SDK]);
    succeed(&format!("pip install {SDK} (this test needs the Python package index)"), &mut install).await;
    python
}

async fn succeed(what: &str, command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(INSTALL_DEADLINE, output).await.unwrap_or_else(|_| panic!("{what} does not end"));
    let output = output.unwrap_or_else(|error| panic!("{what} cannot be run: {error}"));
    assert!(output.status.success(), "{what} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
