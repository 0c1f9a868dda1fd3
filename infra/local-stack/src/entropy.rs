//! Random bytes for passwords and port numbers, from the kernel.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;

/// `N` unpredictable bytes.
pub(crate) fn bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom").and_then(|mut urandom| urandom.read_exact(&mut bytes)).context("read /dev/urandom")?;
    Ok(bytes)
}

/// 24 lower-case hexadecimal digits (96 bits): safe in a URL, a file name, a database name and SQL.
pub(crate) fn word() -> anyhow::Result<String> {
    let mut word = String::with_capacity(24);
    for byte in bytes::<12>()? {
        write!(word, "{byte:02x}").expect("writing to a String does not fail");
    }
    Ok(word)
}
