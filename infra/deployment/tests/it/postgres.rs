//! One set of parameters for Postgres, in containers and under the operator.

use std::collections::BTreeMap;

use crate::files::{resources, text};
use crate::rules::name;

fn parameters(conf: &str) -> BTreeMap<&str, &str> {
    let lines = conf.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(" = ").map(|(name, value)| (name, value.trim_matches('\''))).unwrap()).collect()
}

#[test]
fn the_operator_is_told_the_same_parameters_as_the_container() {
    let file = text("postgres/production.conf");
    let mut expected = parameters(&file);
    // The operator's own affair.
    assert_eq!(expected.remove("listen_addresses"), Some("*"));
    let base = resources("k8s/base");
    let cluster = base.iter().find(|manifest| manifest["kind"] == "Cluster" && name(manifest) == "postgres").unwrap();
    let given = cluster["spec"]["postgresql"]["parameters"].as_object().unwrap();
    let given: BTreeMap<_, _> = given.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    assert_eq!(given, expected);
}

#[test]
fn what_makes_the_local_stack_safe_makes_production_safe() {
    let (local, production) = (text("postgres/local.conf"), text("postgres/production.conf"));
    let (local, production) = (parameters(&local), parameters(&production));
    for name in ["password_encryption", "synchronous_commit", "timezone", "log_timezone", "jit", "work_mem"] {
        assert_eq!(local.get(name), production.get(name), "{name}");
    }
    // On by default; nobody turns them off.
    assert!(!production.contains_key("fsync") && !production.contains_key("full_page_writes"));
}
