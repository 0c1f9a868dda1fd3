use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{files, known_series, read, unknown_names};

/// Units of Grafana's that our panels use; one that it does not know would be shown as a text after the number.
const UNITS: [&str; 7] = ["bytes", "cps", "none", "percentunit", "reqps", "s", "short"];

fn dashboards() -> Vec<(String, Value)> {
    let read = |file: &std::path::PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let dashboard = serde_json::from_str(&read(file)).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, dashboard)
    };
    files("grafana", "json").iter().map(read).collect()
}

/// All panels that show something, with the name of their dashboard.
fn panels() -> Vec<(String, Value)> {
    let mut panels = Vec::new();
    for (name, dashboard) in dashboards() {
        let shown = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
        panels.extend(shown.map(|panel| (format!("{name}: {}", panel["title"]), panel.clone())));
    }
    assert!(!panels.is_empty());
    panels
}

#[test]
fn the_dashboards_are_these_and_find_their_prometheus_by_a_variable() {
    let dashboards = dashboards();
    let names: Vec<_> = dashboards.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["log-and-projections.json", "order-flow.json", "service-health.json"]);
    let uids: BTreeSet<_> = dashboards.iter().map(|(_, dashboard)| dashboard["uid"].as_str().unwrap()).collect();
    assert_eq!(uids.len(), dashboards.len());
    for (name, dashboard) in &dashboards {
        let first = &dashboard["templating"]["list"][0];
        assert_eq!((&first["name"], &first["type"]), (&json!("datasource"), &json!("datasource")), "{name}");
        assert!(dashboard["description"].as_str().unwrap().len() > 20, "{name}");
        let ids: Vec<_> = dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{name}: an id is there twice");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    for (name, panel) in panels() {
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(UNITS.contains(&defaults["unit"].as_str().unwrap_or_default()), "{name}: {}", defaults["unit"]);
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{name}: no description");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{name}: nothing is asked for");
        for source in targets.iter().map(|target| &target["datasource"]).chain([&panel["datasource"]]) {
            assert_eq!(*source, json!({"type": "prometheus", "uid": "${datasource}"}), "{name}");
        }
    }
}

#[test]
fn dashboards_name_only_metrics_that_exist() {
    let known = known_series();
    let mut wrong = Vec::new();
    for (name, panel) in panels() {
        for target in panel["targets"].as_array().unwrap() {
            let unknown = unknown_names(target["expr"].as_str().unwrap(), &known);
            wrong.extend(unknown.into_iter().map(|unknown| format!("{name}: {unknown}")));
        }
    }
    for (name, dashboard) in dashboards() {
        for variable in dashboard["templating"]["list"].as_array().unwrap().iter().filter(|variable| variable["type"] == "query") {
            // label_values(<metric>, <label>)
            let query = variable["query"]["query"].as_str().unwrap();
            let metric = query.strip_prefix("label_values(").and_then(|rest| rest.split(',').next()).unwrap();
            wrong.extend(unknown_names(metric, &known).into_iter().map(|unknown| format!("{name}: {unknown}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn panels_lie_beside_one_another() {
    for (name, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24, "{name}: {} is too wide", panel["title"]);
            for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(place), "{name}: {} lies upon another panel", panel["title"]);
            }
        }
    }
}
