//! The Dockerfile has a target for each service, of certain versions, for nobody in particular.

use std::{env, path::Path, process::Command};

use local_stack::workspace_root;
use serde_json::Value;

use crate::files::{SERVICES, is_pinned, list, text};

#[test]
fn each_service_has_an_image_with_its_program_alone() {
    let dockerfile = text("docker/Dockerfile");
    for service in SERVICES {
        let stage = format!("\nFROM runtime AS {service}\n");
        let (_, stage) = dockerfile.split_once(&stage).unwrap_or_else(|| panic!("there is no target {service}"));
        let stage = stage.split("\nFROM ").next().unwrap();
        let program = format!("COPY --from=builder /build/target/dist/{service} /usr/local/bin/{service}\n");
        assert!(stage.contains(&program) && stage.matches("COPY").count() == 1, "{stage}");
        assert!(stage.contains(&format!("ENTRYPOINT [\"/usr/local/bin/{service}\"]")), "{stage}");
        assert!(dockerfile.matches(&format!("--package {service}")).count() == 2, "{service}: its dependencies, and itself");
    }
}

#[test]
fn images_begin_with_certain_versions_and_run_as_nobody() {
    let dockerfile = text("docker/Dockerfile");
    let stages = ["chef", "planner", "builder", "runtime"];
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).map(|line| line.split(' ').next().unwrap());
    let bases: Vec<_> = bases.filter(|base| !stages.contains(base)).collect();
    assert_eq!(bases.len(), 2, "{bases:?}");
    assert!(bases.iter().all(|base| is_pinned(base)), "{bases:?}");
    // The tags of this one are moved.
    assert!(bases[1].contains("/distroless/") && bases[1].contains("@sha256:"), "{bases:?}");
    assert!(dockerfile.contains("\nUSER 65532:65532\n"));
}

/// Cargo reads the manifest of every member before it builds any of them, and looks for its sources.
#[test]
fn a_build_is_given_every_member_of_the_workspace() {
    let ignored = text("docker/Dockerfile.dockerignore");
    let ignored: Vec<_> = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(is_ignored(&ignored, "infra/k8s/README.md") && is_ignored(&ignored, "domain/README.md"), "{ignored:?}");
    assert!(!is_ignored(&ignored, "infra/k8s-like/Cargo.toml"));

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--no-deps", "--locked", "--offline", "--format-version", "1"]).current_dir(workspace_root());
    let answer = cargo.output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let metadata: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let packages = list(&metadata["packages"]);
    assert!(packages.len() > SERVICES.len());
    let sources = packages.iter().flat_map(|package| list(&package["targets"]).iter().map(|target| &target["src_path"]));
    for file in packages.iter().map(|package| &package["manifest_path"]).chain(sources) {
        let file = Path::new(file.as_str().unwrap()).strip_prefix(workspace_root()).unwrap();
        assert!(!is_ignored(&ignored, file.to_str().unwrap()), "{} is not given to a build", file.display());
    }
}

/// Of the patterns that there are: a path, which covers all below it, and `**/` with a name or `*.` and an extension.
fn is_ignored(patterns: &[&str], file: &str) -> bool {
    let path = Path::new(file);
    patterns.iter().any(|pattern| match pattern.strip_prefix("**/") {
        Some(name) => name.strip_prefix('*').map_or_else(|| path.ends_with(name), |extension| file.ends_with(extension)),
        None => path.starts_with(pattern),
    })
}
