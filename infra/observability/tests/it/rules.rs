use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use observability::{folder, yaml};
use serde_json::Value;

use super::{files, known_series, read, unknown_names};

/// Every rule, of all files.
fn rules() -> Vec<Value> {
    let mut rules = Vec::new();
    for file in files("prometheus/rules", "yaml") {
        let document = yaml::read(&read(&file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for group in document["groups"].as_array().unwrap() {
            rules.extend(group["rules"].as_array().unwrap_or_else(|| panic!("{group}")).iter().cloned());
        }
    }
    rules
}

/// The names of what is recorded.
pub(super) fn recorded() -> Vec<String> {
    let rules = rules();
    let recorded: Vec<_> = rules.iter().filter_map(|rule| Some(rule.get("record")?.as_str().unwrap().to_owned())).collect();
    assert_eq!(recorded.iter().collect::<BTreeSet<_>>().len(), recorded.len(), "something is recorded twice");
    recorded
}

fn alerts() -> BTreeMap<String, Value> {
    let rules = rules();
    let named: Vec<_> = rules.iter().filter_map(|rule| Some((rule.get("alert")?.as_str()?.to_owned(), rule.clone()))).collect();
    let alerts: BTreeMap<_, _> = named.iter().cloned().collect();
    assert_eq!(alerts.len(), named.len(), "two alerts have one name");
    assert!(!alerts.is_empty());
    alerts
}

#[test]
fn rules_name_only_metrics_that_exist() {
    let known = known_series();
    let rules = rules();
    let wrong: Vec<_> = rules.iter().flat_map(|rule| unknown_names(rule["expr"].as_str().unwrap_or_default(), &known)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_alert_says_how_urgent_it_is_and_where_to_read_on() {
    for (name, alert) in alerts() {
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap_or_default()), "{name}: severity");
        assert!(alert["for"].is_string(), "{name}: for how long");
        for annotation in ["summary", "description"] {
            assert!(alert["annotations"][annotation].as_str().is_some_and(|text| text.len() > 20), "{name}: {annotation}");
        }
        assert_eq!(alert["annotations"]["runbook_url"], format!("infra/observability/runbooks/{name}.md"));
    }
}

/// promtool evaluates groups that a file does not name first, and in any order: what is recorded could be a minute older than what alerts see.
#[test]
fn cases_evaluate_what_is_recorded_first() {
    let groups: Vec<_> = ["recording", "alerts"]
        .into_iter()
        .flat_map(|file| {
            let document = yaml::read(&read(&folder().join(format!("prometheus/rules/{file}.yaml")))).unwrap();
            document["groups"].as_array().unwrap().iter().map(|group| group["name"].clone()).collect::<Vec<_>>()
        })
        .collect();
    for file in files("prometheus/tests", "yaml") {
        let document = yaml::read(&read(&file)).unwrap();
        assert_eq!(document["group_eval_order"].as_array(), Some(&groups), "{}", file.display());
    }
}

/// What every page answers, in this order.
const SECTIONS: [&str; 4] = ["## What it means", "## How to look", "## What to do", "## What not to do"];

#[test]
fn every_alert_has_a_runbook_page_and_every_page_an_alert() {
    let stem = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
    let pages: BTreeMap<_, _> = files("runbooks", "md").iter().map(|file| (stem(file), read(file))).collect();
    assert_eq!(pages.keys().collect::<Vec<_>>(), alerts().keys().collect::<Vec<_>>());
    for (name, page) in pages {
        assert!(page.starts_with(&format!("# {name}\n")), "{name}: its title");
        let mut rest = page.as_str();
        for section in SECTIONS {
            let (_, after) =
                rest.split_once(&format!("\n{section}\n")).unwrap_or_else(|| panic!("{name}: {section} is missing or elsewhere"));
            let text = after.split("\n## ").next().unwrap_or_default().trim();
            assert!(text.len() > 30, "{name}: {section} says nothing");
            rest = after;
        }
    }
}

#[test]
fn every_alert_is_tested_both_firing_and_not() {
    let mut tested = BTreeMap::<String, BTreeSet<bool>>::new();
    for file in files("prometheus/tests", "yaml") {
        let document = yaml::read(&read(&file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let loaded = document["rule_files"].as_array().unwrap();
        for rules in loaded {
            assert!(file.parent().unwrap().join(rules.as_str().unwrap()).is_file(), "{}: {rules}", file.display());
        }
        for case in document["tests"].as_array().unwrap().iter().flat_map(|test| test["alert_rule_test"].as_array().unwrap()) {
            let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
            tested.entry(case["alertname"].as_str().unwrap().to_owned()).or_default().insert(fires);
        }
    }
    let expected: BTreeMap<_, _> = alerts().into_keys().map(|name| (name, BTreeSet::from([false, true]))).collect();
    assert_eq!(tested, expected);
}

#[test]
fn cases_name_only_series_that_exist() {
    let known = known_series();
    let mut wrong = Vec::new();
    for file in files("prometheus/tests", "yaml") {
        let document = yaml::read(&read(&file)).unwrap();
        for test in document["tests"].as_array().unwrap() {
            for series in test["input_series"].as_array().unwrap() {
                wrong.extend(unknown_names(series["series"].as_str().unwrap(), &known));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_jobs_that_rules_name_are_those_that_are_scraped() {
    let config = yaml::read(&read(&folder().join("prometheus/prometheus.yaml"))).unwrap();
    let jobs: Vec<_> = config["scrape_configs"].as_array().unwrap().iter().map(|job| job["job_name"].as_str().unwrap()).collect();
    assert_eq!(jobs, ["command-api", "query-api", "projectors", "reactors"]);
    let alerts = alerts();
    for alert in ["InstanceDown", "ServiceUnavailable"] {
        assert!(alerts[alert]["expr"].as_str().unwrap().contains(&format!("job=~\"{}\"", jobs.join("|"))), "{alert}");
    }
}
