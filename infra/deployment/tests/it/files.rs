//! The files that are looked at.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// Programs of ours that run all the time, by the names that they have everywhere.
pub(crate) use local_stack::stack::SERVICES;

pub(crate) fn path(name: &str) -> PathBuf {
    local_stack::workspace_root().join("infra").join(name)
}

pub(crate) fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every document of a YAML file.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn yaml(name: &str) -> Value {
    let mut documents = documents(&text(name));
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// What a kustomization lists as `resources`, if they are files beside it, not yet patched.
pub(crate) fn resources(folder: &str) -> Vec<Value> {
    let kustomization = yaml(&format!("{folder}/kustomization.yaml"));
    // The others are folders, or are above this one.
    let names = strings(&kustomization["resources"]).into_iter().filter(|name| path(&format!("{folder}/{name}")).is_file());
    names.flat_map(|name| documents(&text(&format!("{folder}/{name}")))).collect()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn strings(value: &Value) -> Vec<&str> {
    list(value).iter().filter_map(Value::as_str).collect()
}

/// Whether the image has a version that stays what it is: a tag that says one, or a digest.
pub(crate) fn is_pinned(image: &str) -> bool {
    if image.contains("@sha256:") {
        return true;
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split_once(':').is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest")
}
