//! The Dockerfile has a target for each service, of certain versions, for nobody in particular.

use crate::files::{SERVICES, is_pinned, text};

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
