//! Versions of servers, as they print them.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// Major and minor version; the rest never matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number; 0 when there is none.
    pub minor: u32,
}

impl Version {
    /// What `program --version` prints.
    pub(super) fn of(program: &Path) -> anyhow::Result<Self> {
        let output = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {} --version", program.display()))?;
        ensure!(output.status.success(), "{} --version failed ({})", program.display(), output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        Self::in_text(&text).with_context(|| format!("find a version in what {} --version prints: {text}", program.display()))
    }

    /// The first word that starts like a version: `nats-server: v2.15.1`, `postgres (PostgreSQL) 15.16 (Debian 15.16-0)`.
    fn in_text(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut numbers = word.strip_prefix('v').unwrap_or(word).split('.');
            let major = leading_number(numbers.next()?)?;
            let minor = numbers.next().and_then(leading_number).unwrap_or(0);
            Some(Self { major, minor })
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The number that a text starts with: 18 in `18beta1`.
fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_servers_print() {
        let cases = [
            ("nats-server: v2.15.1\n", (2, 15)),
            ("nats-server: v2.9.10", (2, 9)),
            ("postgres (PostgreSQL) 15.16 (Debian 15.16-0+deb12u1)", (15, 16)),
            ("postgres (PostgreSQL) 18beta1", (18, 0)),
        ];
        for (text, (major, minor)) in cases {
            assert_eq!(Version::in_text(text), Some(Version { major, minor }), "{text}");
        }
        assert_eq!(Version::in_text("command not found"), None);
    }
}
