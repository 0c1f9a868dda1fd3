//! The system in containers on one machine.

use std::collections::BTreeSet;
use std::time::Duration;

use local_stack::toolchain::NATS_SERVER_VERSION_PINNED;
use serde_json::Value;
use telemetry::drain::DRAIN_DEADLINE_S;

use crate::files::{SERVICES, is_pinned, list, path, strings, text, yaml};

/// The services, each with what it has by reference (`<<`).
fn services() -> serde_json::Map<String, Value> {
    yaml("compose/compose.yaml")["services"].as_object().unwrap().clone()
}

#[test]
fn every_container_has_the_rights_that_it_needs_and_no_more() {
    for (name, service) in services() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["privileged"].is_null() && service["network_mode"] != "host", "{name}");
        // Nobody on another machine reaches a port.
        assert!(strings(&service["ports"]).iter().all(|port| port.starts_with("127.0.0.1:")), "{name}");
        let image = service["image"].as_str();
        assert!(image.is_none_or(is_pinned), "{name}: {image:?}");
        let adds = strings(&service["cap_add"]);
        assert!(adds.is_empty() || (name == "log-owner" && adds == ["CHOWN"]), "{name}: {adds:?}");
    }
}

#[test]
fn every_service_is_there_and_has_time_for_its_drain() {
    let services = services();
    for name in SERVICES {
        let service = services.get(name).unwrap_or_else(|| panic!("there is no {name}"));
        assert_eq!(service["build"]["target"], *name);
        let grace = service["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
        assert!(Duration::from_secs(grace) > Duration::from_secs(DRAIN_DEADLINE_S), "{name}: {grace} s");
    }
    assert_eq!(services["nats"]["image"], format!("nats:{NATS_SERVER_VERSION_PINNED}-alpine"));
}

#[test]
fn no_password_is_in_the_file() {
    let compose = text("compose/compose.yaml");
    let uses = compose.lines().filter(|line| line.contains("PASSWORD") && !line.trim_start().starts_with('#'));
    for line in uses {
        assert!(line.contains("_PASSWORD") && line.contains(":?run prepare.sh}"), "{line}");
    }
    let made = text("compose/prepare.sh");
    let mut rest = compose.as_str();
    while let Some((_, after)) = rest.split_once("${") {
        let name = after.split([':', '}']).next().unwrap();
        assert!(!name.contains("PASSWORD") || made.contains(name), "prepare.sh does not make {name}");
        rest = after;
    }
    let ignored = std::fs::read_to_string(local_stack::workspace_root().join(".gitignore")).unwrap();
    assert!(ignored.contains("/infra/compose/.env\n") && ignored.contains("/infra/compose/secrets/\n"));
}

#[test]
fn whatever_is_mounted_is_there() {
    for (name, service) in services() {
        for volume in strings(&service["volumes"]).into_iter().filter(|volume| volume.starts_with('.')) {
            let source = volume.split(':').next().unwrap();
            assert!(volume.ends_with(":ro"), "{name}: {volume}");
            // Dashboards and rules have an owner of their own, and Docker mounts an empty folder where there is none.
            let exists = path("compose").join(source).exists();
            assert!(exists || source.starts_with("../observability/"), "{name}: {source}");
        }
    }
}

#[test]
fn every_service_is_scraped_under_its_name() {
    let prometheus = yaml("compose/prometheus/prometheus.yaml");
    let jobs = list(&prometheus["scrape_configs"]).iter().map(|job| job["job_name"].as_str().unwrap());
    assert_eq!(jobs.collect::<BTreeSet<_>>(), BTreeSet::from(SERVICES));
}
