//! What `cargo xtask` runs: builds xtask together with everything that it needs, then becomes it.
//!
//! cargo chooses the features of a dependency for all packages that it builds together. Building xtask first and the services
//! after it would build tokio, sqlx, async-nats and some sixty others twice, which is minutes on a fresh clone. This program has
//! no dependencies, so it is there at once, and asks cargo for the whole workspace in one go.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let executable = match env::current_exe() {
        Ok(executable) => executable,
        Err(error) => return fail(&format!("find the running executable: {error}")),
    };
    // Tests and services in one go as well, and for the same reason.
    let runs_tests = arguments.first().is_some_and(|task| task == "test");
    // What is measured is what is shipped.
    let measures = arguments.first().is_some_and(|task| task == "bench");
    let folder = executable.parent().unwrap_or(Path::new("."));
    let is_release = measures || folder.ends_with("release");
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--workspace"]);
    let target = target_folder();
    build.envs(target.iter().cloned());
    build.arg(if runs_tests { "--all-targets" } else { "--bins" });
    if is_release {
        build.arg("--release");
    }
    forget_this_package(&mut build);
    match build.status() {
        Ok(status) if status.success() => {}
        Ok(_) => return fail("the build failed"),
        Err(error) => return fail(&format!("run cargo: {error}")),
    }
    // Profiles have folders next to one another.
    let folder = if is_release { folder.with_file_name("release") } else { folder.to_owned() };
    let mut xtask = Command::new(folder.join("xtask"));
    forget_this_package(&mut xtask);
    xtask.envs(target);
    let error = xtask.args(arguments).exec();
    fail(&format!("run xtask: {error}"))
}

/// Where cargo was told to build, by a path that is also right in other folders than the one that we were called in.
fn target_folder() -> Option<(&'static str, PathBuf)> {
    const NAME: &str = "CARGO_TARGET_DIR";
    let folder = env::var_os(NAME).filter(|folder| !folder.is_empty())?;
    Some((NAME, std::path::absolute(folder).ok()?))
}

/// Takes away what cargo tells this program about its own package: build scripts that watch those variables would run again, and
/// much of the dependency tree after them.
fn forget_this_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("cargo xtask: {reason}");
    ExitCode::FAILURE
}
