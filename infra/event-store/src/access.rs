//! Where the log is, and who asks.

use std::{fmt, fs, path::PathBuf};

use async_nats::{ConnectOptions, ServerAddr};
use clap::Args;
use nkeys::KeyPair;
use telemetry::settings::{self, Mistakes};

/// How a process is told where the log is.
#[derive(Args, Clone, Debug, Default)]
pub struct NatsArgs {
    /// The NATS server, for example nats://127.0.0.1:4222; several of one cluster with commas, tls:// for those that have certificates
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    pub nats_url: Option<String>,
    /// A file with the seed of the nkey that says who this is; otherwise user and password are in the URL
    #[arg(long, env = "NATS_NKEY_SEED_FILE")]
    pub nats_nkey_seed_file: Option<String>,
    /// A PEM file with the authorities that the servers' certificates are of, beside the system's
    #[arg(long, env = "NATS_CA_FILE")]
    pub nats_ca_file: Option<String>,
}

impl NatsArgs {
    /// What it says, or a mistake.
    pub fn required(self, mistakes: &mut Mistakes) -> Option<NatsAccess> {
        let url = mistakes.required("NATS_URL", self.nats_url.clone(), settings::nats_url);
        self.with(url, mistakes)
    }

    /// What it says, if it says anything.
    pub fn optional(self, mistakes: &mut Mistakes) -> Option<NatsAccess> {
        let url = mistakes.optional("NATS_URL", self.nats_url.clone(), None, |url| settings::nats_url(url).map(Some));
        self.with(url, mistakes)
    }

    fn with(self, url: Option<String>, mistakes: &mut Mistakes) -> Option<NatsAccess> {
        let seed = mistakes.optional("NATS_NKEY_SEED_FILE", self.nats_nkey_seed_file, None, |file| seed_in(file).map(Some));
        let authorities =
            mistakes.optional("NATS_CA_FILE", self.nats_ca_file, None, |file| settings::existing_file(file).map(Some));
        Some(NatsAccess { url: url?, seed, authorities })
    }
}

fn seed_in(file: &str) -> Result<Seed, String> {
    let seed = fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    let seed = seed.trim().to_owned();
    // The library's own words repeat nothing of it, and say nothing that helps either.
    if !seed.starts_with("SU") || KeyPair::from_seed(&seed).is_err() {
        return Err("does not hold the seed of a user's nkey, which begins with SU".to_owned());
    }
    Ok(Seed(seed))
}

/// A private key. It shows itself to nobody.
#[derive(Clone)]
struct Seed(String);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(…)")
    }
}

/// Where the log is, and who asks. A URL alone will do: `nats://user:password@host:port`, or several of one cluster with commas in between.
#[derive(Clone)]
pub struct NatsAccess {
    url: String,
    seed: Option<Seed>,
    authorities: Option<PathBuf>,
}

impl NatsAccess {
    /// The servers' URLs, without user and password: the client writes them into its log.
    pub fn servers(&self) -> Vec<String> {
        servers(&self.url).into_iter().map(without_credentials).collect()
    }

    /// How to connect to them: as whoever the key or the first URL names, which the client does not do by itself.
    pub fn options(&self) -> ConnectOptions {
        let options = match &self.seed {
            Some(Seed(seed)) => ConnectOptions::with_nkey(seed.clone()),
            None => options(&self.url),
        };
        match &self.authorities {
            Some(file) => options.add_root_certificates(file.clone()),
            None => options,
        }
    }

    /// The servers, without what is nobody's business.
    pub(crate) fn addresses(&self) -> String {
        let address = |server: &str| match server.parse::<ServerAddr>() {
            Ok(server) => format!("{}:{}", server.host(), server.port()),
            Err(_) => "an address that cannot be read".to_owned(),
        };
        self.servers().iter().map(|server| address(server)).collect::<Vec<_>>().join(", ")
    }
}

fn without_credentials(server: &str) -> String {
    let (scheme, rest) = server.split_once("://").map_or(("nats", server), |(scheme, rest)| (scheme, rest));
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    format!("{scheme}://{address}")
}

impl fmt::Debug for NatsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsAccess").field("servers", &self.addresses()).finish_non_exhaustive()
    }
}

impl From<&str> for NatsAccess {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned(), seed: None, authorities: None }
    }
}

impl From<&String> for NatsAccess {
    fn from(url: &String) -> Self {
        Self::from(url.as_str())
    }
}

impl From<&Self> for NatsAccess {
    fn from(access: &Self) -> Self {
        access.clone()
    }
}

/// The URLs in a `NATS_URL`, which may be several, separated by commas: those of the servers of one cluster.
pub fn servers(nats_url: &str) -> Vec<&str> {
    nats_url.split(',').map(str::trim).collect()
}

/// How to connect to the servers of a `NATS_URL` as the user whom it names.
pub fn options(nats_url: &str) -> ConnectOptions {
    let first = servers(nats_url).into_iter().next().and_then(|server| server.parse::<ServerAddr>().ok());
    match first.as_ref().and_then(|server| Some((server.username()?, server.password()?))) {
        Some((user, password)) => ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned()),
        None => ConnectOptions::new(),
    }
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPairType;

    use super::*;

    fn checked(args: NatsArgs) -> Result<NatsAccess, String> {
        let mut mistakes = Mistakes::new();
        let access = args.required(&mut mistakes);
        mistakes.finish().map_err(|error| error.to_string())?;
        Ok(access.expect("finish() refuses a missing setting"))
    }

    #[test]
    fn neither_password_nor_seed_shows_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let seed = KeyPair::new_from_raw(KeyPairType::User, [7; 32]).expect("a key").seed().expect("its seed");
        let file = folder.path().join("seed");
        fs::write(&file, format!("{seed}\n")).expect("it is written");
        let args = NatsArgs {
            nats_url: Some("tls://me:hush@n1:4222, tls://n2".to_owned()),
            nats_nkey_seed_file: Some(file.display().to_string()),
            nats_ca_file: None,
        };
        let access = checked(args).expect("no mistakes");
        assert_eq!(access.addresses(), "n1:4222, n2:4222");
        assert_eq!(access.servers(), ["tls://n1:4222", "tls://n2"]);
        assert_eq!(without_credentials("me:hush@[::1]:4222"), "nats://[::1]:4222");
        let shown = format!("{access:?} {:?}", access.seed);
        assert!(!shown.contains("hush") && !shown.contains(&seed), "{shown}");
    }

    #[test]
    fn every_mistake_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let account = KeyPair::new_from_raw(KeyPairType::Account, [7; 32]).expect("a key").seed().expect("its seed");
        for content in ["", "SUhush", &account] {
            let file = folder.path().join("seed");
            fs::write(&file, content).expect("it is written");
            let args = NatsArgs {
                nats_url: Some("http://n1".to_owned()),
                nats_nkey_seed_file: Some(file.display().to_string()),
                nats_ca_file: Some("/none/such".to_owned()),
            };
            let told = checked(args).expect_err("three mistakes");
            for setting in ["NATS_URL: must begin with", "NATS_NKEY_SEED_FILE: does not hold", "NATS_CA_FILE: no such file"] {
                assert!(told.contains(setting), "{told}");
            }
            assert!(content.is_empty() || !told.contains(content), "{told}");
        }
    }
}
