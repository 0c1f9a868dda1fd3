//! The services of a stack: names, arguments, environment, and the order in which they stop.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::info::StackInfo;

/// The name of nats-server in [`super::StackInfo::pids`].
pub const NATS: &str = "nats";
/// The names of three nats-servers that replicate the log between them.
pub const NATS_CLUSTER: [&str; 3] = ["nats-1", "nats-2", "nats-3"];
/// The name of Postgres in [`super::StackInfo::pids`].
pub const POSTGRES: &str = "postgres";
/// The services, in the order in which they are started. Each is the name of its binary.
pub const SERVICES: [&str; 5] = ["payment-simulator", "projectors", "reactors", "command-api", "query-api"];

/// Who stops together, and in which order: what is in flight in the first ones needs the later ones.
pub(super) const STOP_PHASES: [&[&str]; 3] = [
    &["command-api", "query-api", "projectors", "reactors"],
    &["payment-simulator"],
    &[POSTGRES, NATS, NATS_CLUSTER[0], NATS_CLUSTER[1], NATS_CLUSTER[2]],
];

/// The file with the key that callers' tokens are signed with, and the one with its public half.
pub(super) const TOKEN_KEY: &str = "auth-key.pem";
pub(super) const KEY_SET: &str = "auth-jwks.json";

/// Not a secret: the simulator accepts any key.
const SIMULATOR_API_KEY: &str = "sk_test_contrail";

pub(super) fn arguments(name: &str) -> &'static [&'static str] {
    match name {
        "projectors" | "reactors" => &["run"],
        _ => &[],
    }
}

/// The role of Postgres that owns the read models, and the one that may read them.
pub(super) const OWNER: &str = "contrail_projectors";
pub(super) const READER: &str = "contrail_query";
pub(super) const ROLES: [&str; 2] = [OWNER, READER];

pub(super) struct Environment<'a> {
    pub(super) info: &'a StackInfo,
    /// Where this service finds them.
    pub(super) nats: String,
    pub(super) database: String,
    pub(super) directory: &'a Path,
}

impl Environment<'_> {
    pub(super) fn of(&self, name: &str) -> anyhow::Result<Vec<(String, String)>> {
        let nats = ("NATS_URL", self.nats.clone());
        let database = ("DATABASE_URL", self.database.clone());
        let callers = ("AUTH_JWKS", self.path(KEY_SET)?);
        // Nobody balances here, so nobody has to learn that an instance ends.
        let linger = ("DRAIN_LINGER_MS", "0".to_owned());
        let (url, mut variables) = match name {
            "command-api" => (&self.info.command_api, vec![nats, callers, linger]),
            "query-api" => (&self.info.query_api, vec![database, callers, linger]),
            "projectors" => (&self.info.projectors, vec![nats, database, ("AUDIT_KEY_FILE", self.path("audit-key.pem")?)]),
            "reactors" => {
                let outside =
                    [("STRIPE_API_BASE", self.info.payment_simulator.clone()), ("STRIPE_API_KEY", SIMULATOR_API_KEY.to_owned())];
                let mail = mail(self.path("mail")?, |name| std::env::var(name).ok());
                (&self.info.reactors, [nats].into_iter().chain(outside).chain(mail).collect())
            }
            "payment-simulator" => (&self.info.payment_simulator, vec![("LEDGER_FILE", self.path("ledger.jsonl")?)]),
            _ => bail!("there is no service called {name}"),
        };
        let listen_address = url.strip_prefix("http://").context("a service's URL starts with http://")?;
        variables.push(("LISTEN_ADDR", listen_address.to_owned()));
        Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn path(&self, name: &str) -> anyhow::Result<String> {
        self.directory.join(name).into_os_string().into_string().ok().context("the name of the stack's folder is not valid UTF-8")
    }
}

/// Where mail goes unless the caller's own environment names a server, and whom it is from unless that says so.
fn mail(folder: String, callers: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let is_given = |name| callers(name).is_some_and(|value| !value.trim().is_empty());
    let to_folder = (!is_given("SMTP_URL")).then_some(("MAIL_DIR", folder));
    let from = (!is_given("MAIL_FROM")).then(|| ("MAIL_FROM", "orders@contrail.example".to_owned()));
    to_folder.into_iter().chain(from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_goes_to_the_callers_server_if_there_is_one() {
        let with = |given: &'static [(&str, &str)]| {
            let callers = |name: &str| given.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
            mail("/mail".to_owned(), callers).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(with(&[]), ["MAIL_DIR", "MAIL_FROM"]);
        assert_eq!(with(&[("SMTP_URL", " ")]), ["MAIL_DIR", "MAIL_FROM"]);
        assert_eq!(with(&[("SMTP_URL", "smtp://127.0.0.1:25")]), ["MAIL_FROM"]);
        assert!(with(&[("SMTP_URL", "smtp://127.0.0.1:25"), ("MAIL_FROM", "shop@example.com")]).is_empty());
    }

    #[test]
    fn every_process_stops_in_exactly_one_phase() {
        let mut stopped: Vec<&str> = STOP_PHASES.concat();
        let mut started: Vec<&str> = SERVICES.into_iter().chain([NATS, POSTGRES]).chain(NATS_CLUSTER).collect();
        stopped.sort_unstable();
        started.sort_unstable();
        assert_eq!(stopped, started);
    }
}
