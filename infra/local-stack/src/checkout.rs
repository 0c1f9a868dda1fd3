//! Where things are in this checkout.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The root of the workspace that this crate was built from.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two folders below the workspace root")
}

/// `.contrail` in the workspace root: the data of `cargo xtask up`, downloaded tools, `stack.json`. Not under version control.
pub fn data_directory() -> PathBuf {
    workspace_root().join(".contrail")
}

/// The folder with the service binaries that were built together with the running executable (`target/<profile>`).
pub(crate) fn binaries_directory() -> anyhow::Result<PathBuf> {
    let executable = env::current_exe().context("find the running executable")?;
    let folder = executable.parent().context("find the folder of the running executable")?;
    // Test executables lie one folder deeper.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// A short name for a path that is the same in every run (FNV-1a, 64 bits).
pub(crate) fn fingerprint(path: &Path) -> String {
    let hash = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
