//! What holds for every set of manifests, as they are in the files or as they are rendered.

use std::collections::BTreeSet;

use serde_json::Value;
use telemetry::drain::DRAIN_DEADLINE_S;

use crate::files::{SERVICES, is_pinned, list, strings};

/// What is wrong with them; nothing, if all is well.
pub(crate) fn violations(manifests: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    for manifest in manifests {
        let at = title(manifest);
        if manifest["kind"] == "Secret" {
            wrong.push(format!("{at}: a secret does not belong into a repository"));
        }
        if let Some(pod) = pod(manifest) {
            wrong.extend(of_pod(pod).into_iter().chain(of_probes(manifest, pod)).map(|what| format!("{at}: {what}")));
            wrong.extend(of_several(manifests, manifest).into_iter().map(|what| format!("{at}: {what}")));
        }
        if manifest["kind"] == "Service" {
            wrong.extend(of_service(manifests, manifest).into_iter().map(|what| format!("{at}: {what}")));
        }
    }
    wrong.extend(of_network(manifests));
    wrong
}

pub(crate) fn title(manifest: &Value) -> String {
    format!("{} {}", manifest["kind"].as_str().unwrap_or("?"), name(manifest))
}

pub(crate) fn name(manifest: &Value) -> &str {
    manifest["metadata"]["name"].as_str().unwrap_or("?")
}

/// The pods that a workload makes.
pub(crate) fn pod(manifest: &Value) -> Option<&Value> {
    let makes_pods = ["Deployment", "StatefulSet", "Job"].iter().any(|kind| manifest["kind"] == *kind);
    makes_pods.then(|| &manifest["spec"]["template"])
}

pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"]["containers"]).iter().chain(list(&pod["spec"]["initContainers"]))
}

/// The `restricted` Pod Security Standard, and a read-only root.
fn of_pod(pod: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let spec = &pod["spec"];
    let mut expect = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    expect(spec["securityContext"]["runAsNonRoot"] == true, "it may run as root".to_owned());
    expect(spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "it has no seccomp profile".to_owned());
    expect(spec["automountServiceAccountToken"] == false, "it is given a token of the API server".to_owned());
    expect(spec["serviceAccountName"].is_string(), "it has no account of its own".to_owned());
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        expect(spec[host].is_null(), format!("it has {host}"));
    }
    expect(list(&spec["volumes"]).iter().all(|volume| volume["hostPath"].is_null()), "it mounts a folder of its host".to_owned());
    for container in containers(pod) {
        let (at, security) = (container["name"].as_str().unwrap_or("?"), &container["securityContext"]);
        let image = container["image"].as_str().unwrap_or_default();
        expect(security["allowPrivilegeEscalation"] == false, format!("{at} may get more rights"));
        expect(security["readOnlyRootFilesystem"] == true, format!("{at} may write to its image"));
        expect(strings(&security["capabilities"]["drop"]) == ["ALL"], format!("{at} keeps capabilities"));
        expect(security["capabilities"]["add"].is_null() && security["privileged"].is_null(), format!("{at} has privileges"));
        expect(is_pinned(image), format!("{at} is of no certain version: {image}"));
        let resources = &container["resources"];
        let is_sized = ["cpu", "memory"].iter().all(|what| resources["requests"][what].is_string());
        expect(is_sized && resources["limits"]["memory"].is_string(), format!("{at} does not say what it takes"));
    }
    wrong
}

/// Liveness looks at the process alone; there is time for the drain.
fn of_probes(manifest: &Value, pod: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_ours = SERVICES.contains(&name(manifest));
    if manifest["kind"] == "Job" {
        return wrong;
    }
    for container in containers(pod) {
        let path = |probe: &str| container[probe]["httpGet"]["path"].as_str().unwrap_or("nothing");
        let paths = (path("startupProbe"), path("livenessProbe"), path("readinessProbe"));
        let expected = if is_ours {
            ("/health", "/health", "/ready")
        } else {
            ("/healthz", "/healthz?js-enabled-only=true", "/healthz?js-server-only=true")
        };
        if paths != expected {
            wrong.push(format!("its probes ask {paths:?} and not {expected:?}"));
        }
    }
    let grace_s = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    if grace_s <= DRAIN_DEADLINE_S {
        wrong.push(format!("it is killed after {grace_s} s, and a drain may take {DRAIN_DEADLINE_S}"));
    }
    wrong
}

/// Where there are several, they are not on one node, and not away at once.
fn of_several(manifests: &[Value], manifest: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let labels = &manifest["spec"]["template"]["metadata"]["labels"];
    if manifest["kind"] != "Job" && !selects(&manifest["spec"]["selector"]["matchLabels"], labels) {
        wrong.push("it does not select its own pods".to_owned());
    }
    let scaler = manifests.iter().find(|other| {
        let target = &other["spec"]["scaleTargetRef"];
        other["kind"] == "HorizontalPodAutoscaler" && target["name"] == name(manifest) && target["kind"] == manifest["kind"]
    });
    if scaler.is_some() && !manifest["spec"]["replicas"].is_null() {
        wrong.push("each deployment undoes what its scaler has found".to_owned());
    }
    let most = scaler.map_or(&manifest["spec"]["replicas"], |scaler| &scaler["spec"]["maxReplicas"]);
    if most.as_u64().is_none_or(|replicas| replicas < 2) {
        return wrong;
    }
    let budgets = manifests.iter().filter(|other| other["kind"] == "PodDisruptionBudget");
    if budgets.filter(|budget| selects(&budget["spec"]["selector"]["matchLabels"], labels)).count() != 1 {
        wrong.push("it needs one disruption budget".to_owned());
    }
    if list(&manifest["spec"]["template"]["spec"]["topologySpreadConstraints"]).is_empty() {
        wrong.push("its instances may all be in one place".to_owned());
    }
    wrong
}

/// Whether pods with these labels are meant.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value))
}

fn of_service(manifests: &[Value], service: &Value) -> Vec<String> {
    let selector = &service["spec"]["selector"];
    let is_meant = |pod: &&Value| selects(selector, &pod["metadata"]["labels"]);
    let ports: BTreeSet<&str> = manifests
        .iter()
        .filter_map(pod)
        .filter(is_meant)
        .flat_map(containers)
        .flat_map(|container| list(&container["ports"]))
        .filter_map(|port| port["name"].as_str())
        .collect();
    let wanted = list(&service["spec"]["ports"]).iter().filter_map(|port| port["targetPort"].as_str());
    wanted.filter(|port| !ports.contains(port)).map(|port| format!("nobody listens on {port}")).collect()
}

/// Nobody talks to anybody unless a policy says so.
fn of_network(manifests: &[Value]) -> Vec<String> {
    let policies: Vec<_> = manifests.iter().filter(|manifest| manifest["kind"] == "NetworkPolicy").collect();
    let denies_all = policies.iter().any(|policy| {
        let spec = &policy["spec"];
        let is_for_all = spec["podSelector"].as_object().is_some_and(serde_json::Map::is_empty);
        let is_empty = spec["ingress"].is_null() && spec["egress"].is_null();
        is_for_all && is_empty && strings(&spec["policyTypes"]) == ["Ingress", "Egress"]
    });
    let mut wrong = Vec::new();
    if !policies.is_empty() && !denies_all {
        wrong.push("no policy denies what no other one allows".to_owned());
    }
    for policy in policies {
        let rules = list(&policy["spec"]["ingress"]).iter().map(|rule| (rule, "from"));
        let rules = rules.chain(list(&policy["spec"]["egress"]).iter().map(|rule| (rule, "to")));
        for (rule, side) in rules {
            if list(&rule["ports"]).is_empty() || (side == "from" && list(&rule["from"]).is_empty()) {
                wrong.push(format!("{}: a rule lets in or out more than it names", title(policy)));
            }
        }
    }
    wrong
}
