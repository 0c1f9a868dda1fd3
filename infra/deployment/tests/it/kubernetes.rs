//! The manifests, as they are in the files.

use std::collections::{BTreeMap, BTreeSet};

use local_stack::toolchain::NATS_SERVER_VERSION_PINNED;
use serde_json::Value;

use crate::files::{documents, list, resources, strings, text};
use crate::rules::{self, containers, name, pod, title};

const BASE: &str = "k8s/base";
const OVERLAYS: [&str; 2] = ["k8s/overlays/dev", "k8s/overlays/production"];

fn base() -> Vec<Value> {
    resources(BASE)
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str, wanted: &str) -> &'a Value {
    let mut found = manifests.iter().filter(|manifest| manifest["kind"] == kind && name(manifest) == wanted);
    found.next().unwrap_or_else(|| panic!("there is no {kind} {wanted}"))
}

/// The value of an environment variable of a workload's only container.
fn environment<'a>(workload: &'a Value, variable: &str) -> &'a str {
    let container = containers(pod(workload).unwrap()).next().unwrap();
    let mut found = list(&container["env"]).iter().filter(|entry| entry["name"] == variable);
    found.next().unwrap_or_else(|| panic!("{} has no {variable}", title(workload)))["value"].as_str().unwrap()
}

#[test]
fn every_manifest_keeps_the_rules() {
    let wrong = rules::violations(&base());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for overlay in OVERLAYS {
        let wrong = rules::violations(&resources(overlay));
        let wrong: Vec<_> = wrong.into_iter().filter(|wrong| !wrong.contains("no policy denies")).collect();
        assert!(wrong.is_empty(), "{overlay}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn a_breach_of_each_rule_is_found() {
    /// Whose manifest is broken, where, what is put there, and what is said of it.
    type Breach = (&'static str, &'static str, Value, &'static str);
    let breaches: [Breach; 10] = [
        ("reactors", "/spec/template/spec/securityContext/runAsNonRoot", Value::Null, "may run as root"),
        ("reactors", "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem", false.into(), "may write"),
        ("reactors", "/spec/template/spec/containers/0/image", "contrail/reactors:latest".into(), "no certain version"),
        ("reactors", "/spec/template/spec/containers/0/livenessProbe/httpGet/path", "/ready".into(), "its probes ask"),
        ("reactors", "/spec/template/spec/terminationGracePeriodSeconds", 30.into(), "a drain may take 30"),
        ("reactors", "/spec/template/spec/containers/0/resources/limits", Value::Null, "does not say what it takes"),
        ("reactors", "/spec/template/spec/topologySpreadConstraints", Value::Null, "in one place"),
        ("reactors", "/spec/template/spec/automountServiceAccountToken", true.into(), "a token of the API server"),
        ("command-api", "/spec/template/spec/topologySpreadConstraints", Value::Null, "in one place"),
        ("nats", "/spec/template/spec/containers/0/ports/0/name", "other".into(), "nobody listens on client"),
    ];
    for (workload, pointer, value, said) in breaches {
        let mut manifests = base();
        let found = manifests.iter_mut().find(|manifest| pod(manifest).is_some() && name(manifest) == workload);
        *found.unwrap().pointer_mut(pointer).unwrap_or_else(|| panic!("there is no {pointer}")) = value;
        let wrong = rules::violations(&manifests);
        assert!(wrong.iter().any(|wrong| wrong.contains(said)), "{pointer}: {wrong:?}");
    }
    let mut manifests = base();
    manifests.retain(|manifest| name(manifest) != "default-deny" && title(manifest) != "PodDisruptionBudget nats");
    manifests.extend(documents("{ kind: Secret, metadata: { name: key }, stringData: { seed: x } }"));
    let wrong = rules::violations(&manifests).join("\n");
    for said in ["no policy denies", "StatefulSet nats: it needs one disruption budget", "Secret key: a secret does not belong"] {
        assert!(wrong.contains(said), "{wrong}");
    }
}

#[test]
fn nobody_has_the_key_of_another() {
    for workload in base().iter().filter(|manifest| pod(manifest).is_some()) {
        let volumes = list(&pod(workload).unwrap()["spec"]["volumes"]);
        let keys: Vec<_> = volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str()).collect();
        let nkeys: Vec<_> = keys.iter().filter(|key| key.starts_with("nats-nkey-")).copied().collect();
        let expected = match name(workload) {
            // Reads Postgres and nothing else.
            "query-api" | "nats" => vec![],
            "migrate-version" => vec!["nats-nkey-admin".to_owned()],
            service => vec![format!("nats-nkey-{service}")],
        };
        assert_eq!(nkeys, expected, "{}", title(workload));
        assert_eq!(keys.contains(&"audit-key"), name(workload) == "projectors", "{}", title(workload));
        // What lies beside an authority's certificate is a private key.
        for volume in volumes.iter().filter(|volume| volume["secret"]["secretName"].is_string() && name(workload) != "nats") {
            let (secret, items) = (&volume["secret"]["secretName"], list(&volume["secret"]["items"]));
            let of_authority = *secret == "nats-tls" || *secret == "postgres-ca";
            assert!(!of_authority || (items.len() == 1 && items[0]["key"] == "ca.crt"), "{}: {secret}", title(workload));
        }
    }
}

#[test]
fn there_is_one_number_of_nats_servers() {
    let base = base();
    let nats = of_kind(&base, "StatefulSet", "nats");
    let servers = nats["spec"]["replicas"].as_u64().unwrap();
    let migrate = of_kind(&base, "Job", "migrate-version");
    assert_eq!(environment(migrate, "EVENTS_REPLICAS").parse(), Ok(servers));
    let urls: Vec<_> = (0..servers).map(|number| format!("tls://nats-{number}.nats:4222")).collect();
    for workload in ["command-api", "projectors", "reactors"] {
        assert_eq!(environment(of_kind(&base, "Deployment", workload), "NATS_URL"), urls.join(","), "{workload}");
    }
    assert_eq!(environment(migrate, "NATS_URL"), urls.join(","));
    let routes: Vec<_> = (0..servers).map(|number| format!("\"nats-route://nats-{number}.nats:6222\"")).collect();
    assert!(text("nats/production.conf").contains(&format!("routes: [ {} ]", routes.join(", "))));
    let image = containers(pod(nats).unwrap()).next().unwrap()["image"].as_str().unwrap();
    assert_eq!(image, format!("nats:{NATS_SERVER_VERSION_PINNED}-alpine"), "what is deployed is what everything is tested with");
}

#[test]
fn postgres_has_a_connection_for_everybody_who_may_want_one() {
    /// query-api: 16 for queries unless set otherwise, one that watches the projections, one that listens (its main.rs).
    const OF_QUERY_API: u64 = 18;
    /// projectors: see their settings.rs.
    const OF_PROJECTORS: u64 = 8;
    /// For commands of operators, such as a replay; replication; the operator itself; what Postgres keeps for superusers.
    const OF_OTHERS: u64 = 32;
    let base = base();
    let cluster = of_kind(&base, "Cluster", "postgres");
    let max: u64 = cluster["spec"]["postgresql"]["parameters"]["max_connections"].as_str().unwrap().parse().unwrap();
    let query_apis = of_kind(&base, "HorizontalPodAutoscaler", "query-api")["spec"]["maxReplicas"].as_u64().unwrap();
    let projectors = of_kind(&base, "Deployment", "projectors")["spec"]["replicas"].as_u64().unwrap();
    // While a version replaces another there is one more of each.
    let wanted = (query_apis + 1) * OF_QUERY_API + (projectors + 1) * OF_PROJECTORS;
    assert!(wanted + OF_OTHERS <= max, "{wanted} and {OF_OTHERS} of {max}");
}

#[test]
fn a_transaction_is_on_two_machines_and_traffic_is_encrypted() {
    let base = base();
    let spec = &of_kind(&base, "Cluster", "postgres")["spec"];
    assert!(spec["instances"].as_u64() >= Some(2));
    let synchronous = &spec["postgresql"]["synchronous"];
    assert_eq!((&synchronous["number"], &synchronous["dataDurability"]), (&1.into(), &"required".into()));
    assert_eq!(strings(&spec["postgresql"]["pg_hba"])[0], "hostnossl all all all reject");
    for workload in [("Deployment", "query-api"), ("Deployment", "projectors"), ("Job", "migrate-version")] {
        let url = environment(of_kind(&base, workload.0, workload.1), "DATABASE_URL");
        assert!(url.contains("sslmode=verify-full&sslrootcert=/"), "{url}");
    }
}

#[test]
fn the_readme_says_how_to_make_every_secret_and_setting_that_is_referred_to() {
    let readme = text("k8s/README.md");
    let mut referred = BTreeMap::<&str, BTreeSet<String>>::new();
    let (base, dev) = (base(), text("k8s/overlays/dev/callers-keys.yaml"));
    for workload in base.iter().filter(|manifest| pod(manifest).is_some()) {
        let spec = &pod(workload).unwrap()["spec"];
        let volumes = list(&spec["volumes"]).iter().filter_map(|volume| volume["secret"]["secretName"].as_str());
        let variables = containers(pod(workload).unwrap()).flat_map(|container| list(&container["env"]));
        let variables = variables.filter_map(|entry| entry["valueFrom"]["secretKeyRef"]["name"].as_str());
        referred.entry("secret").or_default().extend(volumes.chain(variables).map(str::to_owned));
    }
    let cluster = &of_kind(&base, "Cluster", "postgres")["spec"];
    let of_cluster = [&cluster["bootstrap"]["initdb"]["secret"]["name"], &cluster["managed"]["roles"][0]["passwordSecret"]["name"]];
    let secrets = referred.entry("secret").or_default();
    secrets.extend(of_cluster.map(|name| name.as_str().unwrap().to_owned()));
    // The operator makes this one itself.
    assert!(secrets.remove("postgres-ca"));
    assert!(dev.contains("secretName: callers-keys"));
    secrets.insert("callers-keys".to_owned());
    assert_eq!(secrets.len(), 12, "{secrets:?}");
    let missing: Vec<_> = secrets.iter().filter(|name| !readme.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for name in ["nats-public-keys", "telemetry"] {
        assert!(readme.contains(&format!("create configmap {name}")), "{name}");
    }
}
