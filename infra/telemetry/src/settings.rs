//! Settings: read all of them, then refuse to start with every mistake listed.
//!
//! A value never appears in a mistake's text, because a URL may carry a password.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use axum::http::Uri;

/// Collects what is wrong with a process's settings.
#[derive(Debug, Default)]
pub struct Mistakes {
    found: Vec<String>,
}

impl Mistakes {
    /// No mistakes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses a setting that has to be there. `None` means that a mistake was recorded, so after a successful
    /// [`Mistakes::finish`] every required setting is `Some`. An empty value counts as missing.
    pub fn required<T>(&mut self, name: &str, value: Option<String>, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if let Some(value) = present(value) {
            self.parse(name, &value, parse)
        } else {
            self.add(format!("{name}: missing"));
            None
        }
    }

    /// Parses a setting that may be left out; an empty value counts as left out. After a wrong value the default
    /// comes back, and the mistake is recorded.
    pub fn optional<T>(
        &mut self,
        name: &str,
        value: Option<String>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        present(value).and_then(|value| self.parse(name, &value, parse)).unwrap_or(default)
    }

    /// Records a mistake that concerns several settings, or that only shows once they are parsed.
    pub fn add(&mut self, mistake: impl Into<String>) {
        self.found.push(mistake.into());
    }

    /// Ok if nothing is wrong, else every mistake in the order in which they were found.
    pub fn finish(self) -> Result<(), SettingsError> {
        if self.found.is_empty() { Ok(()) } else { Err(SettingsError { mistakes: self.found }) }
    }

    fn parse<T>(&mut self, name: &str, value: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(value.trim()).map_err(|mistake| self.add(format!("{name}: {mistake}"))).ok()
    }
}

fn present(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.trim().is_empty())
}

/// Everything that is wrong with the settings; its text has one mistake per line after a headline.
#[derive(Debug, thiserror::Error)]
pub struct SettingsError {
    /// One line per mistake, each beginning with the setting's name.
    pub mistakes: Vec<String>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() {
            1 => write!(f, "1 setting is missing or wrong:")?,
            n => write!(f, "{n} settings are missing or wrong:")?,
        }
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// `host:port` to listen on. A host name is resolved once; port 0 lets the system choose.
pub fn listen_addr(value: &str) -> Result<SocketAddr, String> {
    value
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| "not an address of the form host:port".to_owned())
}

/// An absolute URL with a host, of any scheme; returned as written.
pub fn url(value: &str) -> Result<String, String> {
    absolute(value).map(|_| value.to_owned())
}

/// An `http` or `https` URL.
pub fn http_url(value: &str) -> Result<String, String> {
    url_of_schemes(value, &["http", "https"])
}

/// A `nats`, `tls`, `ws` or `wss` URL, or several of them with commas in between.
pub fn nats_url(value: &str) -> Result<String, String> {
    value.split(',').try_for_each(|one| url_of_schemes(one.trim(), &["nats", "tls", "ws", "wss"]).map(drop))?;
    Ok(value.to_owned())
}

/// A `postgres` or `postgresql` URL.
pub fn postgres_url(value: &str) -> Result<String, String> {
    url_of_schemes(value, &["postgres", "postgresql"])
}

fn url_of_schemes(value: &str, schemes: &[&str]) -> Result<String, String> {
    let uri = absolute(value)?;
    if uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) {
        Ok(value.to_owned())
    } else {
        Err(format!("must begin with {}://", schemes.join(":// or ")))
    }
}

fn absolute(value: &str) -> Result<Uri, String> {
    let uri: Uri = value.parse().map_err(|_| "not a URL".to_owned())?;
    if uri.scheme().is_none() || uri.host().is_none_or(str::is_empty) {
        return Err("not a URL of the form scheme://host…".to_owned());
    }
    Ok(uri)
}

/// `true` or `false`; also `1`, `0`, `yes`, `no`, `on` and `off`, in any case.
pub fn bool_flag(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// A number of the type that the caller wants.
pub fn number<T: FromStr<Err: fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| format!("not a number that fits: {error}"))
}

/// Memory in whole MiB, from 1 to 65,536; returned in bytes.
pub fn mebibytes(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(mebibytes @ 1..=65_536_usize) => Ok(mebibytes * 1_024 * 1_024),
        _ => Err(format!("{value:?} is not a whole number from 1 to 65536, in MiB")),
    }
}

/// Any text.
pub fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

/// A path, which need not exist yet.
pub fn path(value: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(value))
}

/// The path of a file that exists.
pub fn existing_file(value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.is_file() { Ok(path) } else { Err("no such file".to_owned()) }
}

/// For how long a draining server goes on answering, unless set otherwise: longer than a balancer takes between two looks.
pub const DRAIN_LINGER_DEFAULT: Duration = Duration::from_secs(1);

/// A time of at most 10 s, in milliseconds.
pub fn drain_linger(value: &str) -> Result<Duration, String> {
    match number::<u64>(value)? {
        millis @ 0..=10_000 => Ok(Duration::from_millis(millis)),
        _ => Err("must be 0 to 10000, in milliseconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "a setting as the environment has it")]
    fn some(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn every_mistake_is_listed_in_order() {
        let mut mistakes = Mistakes::new();
        assert_eq!(mistakes.required("NATS_URL", None, nats_url), None);
        assert_eq!(mistakes.required("MAIL_FROM", some("  "), text), None);
        assert_eq!(mistakes.optional("EVENTS_REPLICAS", some("three"), 1_u8, number), 1);
        assert_eq!(mistakes.optional("AGE_S", None, 7_u8, number), 7);
        mistakes.add("LISTEN_ADDR: must be a loopback address while AUTH_DISABLED is true");

        let error = mistakes.finish().expect_err("four mistakes");
        assert_eq!(
            error.to_string(),
            "4 settings are missing or wrong:\n  \
             NATS_URL: missing\n  \
             MAIL_FROM: missing\n  \
             EVENTS_REPLICAS: not a number that fits: invalid digit found in string\n  \
             LISTEN_ADDR: must be a loopback address while AUTH_DISABLED is true"
        );
    }

    #[test]
    fn a_single_mistake_reads_as_one() {
        let mut mistakes = Mistakes::new();
        mistakes.add("NATS_URL: missing");
        let error = mistakes.finish().expect_err("one mistake");
        assert!(error.to_string().starts_with("1 setting is missing or wrong:\n"));
    }

    #[test]
    fn right_settings_come_back_parsed() {
        let mut mistakes = Mistakes::new();
        let addr = mistakes.required("LISTEN_ADDR", some(" 127.0.0.1:0 "), listen_addr);
        assert_eq!(addr, Some(SocketAddr::from(([127, 0, 0, 1], 0))));
        assert!(mistakes.optional("AUTH_DISABLED", some("TRUE"), false, bool_flag));
        assert!(mistakes.finish().is_ok());
    }

    #[test]
    fn urls_are_held_to_their_schemes() {
        assert!(nats_url("nats://127.0.0.1:4222").is_ok());
        assert!(nats_url("nats://127.0.0.1:4222, tls://n2.example:4222").is_ok());
        assert!(nats_url("nats://127.0.0.1:4222,").is_err());
        assert!(postgres_url("postgres://u:p%40ss@127.0.0.1:5432/contrail?sslmode=disable").is_ok());
        assert_eq!(http_url("nats://127.0.0.1:4222"), Err("must begin with http:// or https://".into()));
        assert!(url("127.0.0.1:8080").is_err());
        assert!(url("http://").is_err());
    }

    #[test]
    fn a_drain_lingers_for_ten_seconds_at_most() {
        assert_eq!(drain_linger("250"), Ok(Duration::from_millis(250)));
        assert_eq!(drain_linger("10001"), Err("must be 0 to 10000, in milliseconds".into()));
        assert!(drain_linger("1s").is_err());
    }

    #[test]
    fn memory_is_told_in_mebibytes() {
        assert_eq!(mebibytes("64"), Ok(67_108_864));
        assert_eq!(mebibytes("0"), Err("\"0\" is not a whole number from 1 to 65536, in MiB".into()));
        assert_eq!(mebibytes("abc"), Err("\"abc\" is not a whole number from 1 to 65536, in MiB".into()));
        assert!(mebibytes("65537").is_err());
        assert!(mebibytes("64 MiB").is_err());
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        assert!(listen_addr("localhost:8080").is_ok());
        assert!(listen_addr("127.0.0.1").is_err());
        assert!(listen_addr("127.0.0.1:99999").is_err());
    }
}
