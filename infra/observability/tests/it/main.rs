//! That what operators look at holds together, and names only what there is.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod dashboards;
mod interop;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use observability::{folder, metrics, promql};

/// Metrics that Prometheus makes itself.
const PROMETHEUS_OWN: [&str; 1] = ["up"];
/// Labels that Prometheus adds to every series.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// The files of this kind below `folder`, sorted.
fn files(name: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(!files.is_empty(), "{name} has no .{extension} files");
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The labels of every series that an expression may name: those of the services, Prometheus' own, and those that are recorded.
fn known_series() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let list = metrics::read_list(&read(&folder().join("metrics.txt"))).unwrap();
    let mut known: BTreeMap<_, _> =
        metrics::labels_by_series(&list).into_iter().map(|(name, labels)| (name, Some(labels))).collect();
    known.extend(PROMETHEUS_OWN.map(|name| (name.to_owned(), Some(BTreeSet::new()))));
    // Which labels are left of what is recorded is for promtool to tell.
    known.extend(rules::recorded().into_iter().map(|name| (name, None)));
    known
}

/// What is wrong with the names in `expression`, if anything is.
fn unknown_names(expression: &str, known: &BTreeMap<String, Option<BTreeSet<String>>>) -> Vec<String> {
    let names = match promql::names(expression) {
        Ok(names) => names,
        Err(error) => return vec![error],
    };
    let mut wrong = Vec::new();
    if names.metrics.is_empty() {
        wrong.push(format!("no metric at all: {expression}"));
    }
    let mut all_labels: BTreeSet<&str> = TARGET_LABELS.into();
    for (metric, picked_by) in &names.metrics {
        match known.get(metric) {
            None => wrong.push(format!("there is no metric {metric}: {expression}")),
            Some(None) => all_labels.extend(known.values().flatten().flatten().map(String::as_str)),
            Some(Some(labels)) => {
                all_labels.extend(labels.iter().map(String::as_str));
                let is_there = |label: &&String| labels.contains(*label) || TARGET_LABELS.contains(&label.as_str());
                let missing = picked_by.iter().filter(|label| !is_there(label));
                wrong.extend(missing.map(|label| format!("{metric} has no label {label}: {expression}")));
            }
        }
    }
    let missing = names.grouped_by.iter().filter(|label| !all_labels.contains(label.as_str()));
    wrong.extend(missing.map(|label| format!("nothing here has a label {label}: {expression}")));
    wrong
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let known = known_series();
    assert_eq!(
        unknown_names("sum by (job) (rate(http_requests_total{status=\"500\", instance=\"a\"}[5m])) > up", &known),
        Vec::<String>::new()
    );
    for wrong in [
        "http_requests",
        "rate(http_requests_total{code=\"500\"}[5m])",
        "sum by (code) (http_requests_total)",
        "contrail:nothing:rate5m",
        "append_acknowledgement_seconds",
        "1 + 1",
    ] {
        assert_eq!(unknown_names(wrong, &known).len(), 1, "{wrong}: {:?}", unknown_names(wrong, &known));
    }
}
