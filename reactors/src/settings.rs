//! What `reactors run` needs to be told, checked before anything starts.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use event_store::{CACHE_BYTES, NatsAccess, NatsArgs};
use lettre::message::Mailbox;
use telemetry::{
    settings::{self, Mistakes, SettingsError},
    trace::settings::{TraceFlags, TraceSettings},
};

use crate::{
    allocator,
    deadlines::Deadlines,
    notifications::{Notifications, SmtpServer, SmtpUrlError, WebhookSecrets, Webhooks},
    payments::{CHARGE_CHECKS, Payments, stripe::ApiKey},
    reactor::Reactor as _,
    retry::RetryBudget,
};

/// How long a customer has to pay once stock is reserved, unless said otherwise.
const PAYMENT_WINDOW_S: u64 = 15 * 60;

/// Flags and environment variables, as given.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Run only these reactors, separated by commas; a wrong name lists the right ones
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Where the log is.
    #[command(flatten)]
    pub nats: NatsArgs,
    /// Where to serve /health, /ready and /metrics, for example 127.0.0.1:9103
    #[arg(long, env = "LISTEN_ADDR")]
    pub listen_addr: Option<String>,
    /// The payment gateway, for example https://api.stripe.com
    #[arg(long, env = "STRIPE_API_BASE")]
    pub stripe_api_base: Option<String>,
    /// The gateway's secret key
    #[arg(long, env = "STRIPE_API_KEY", hide_env_values = true)]
    pub stripe_api_key: Option<String>,
    /// The folder that mail is written to, if it is not sent
    #[arg(long, env = "MAIL_DIR")]
    pub mail_dir: Option<String>,
    /// The mail server: smtps://user:password@host:port, or smtp:// for STARTTLS
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<String>,
    /// A PEM file with certificates that are trusted when mail is sent, beside the system's
    #[arg(long, env = "SMTP_CA_FILE")]
    pub smtp_ca_file: Option<String>,
    /// The sender of mail, for example orders@shop.example
    #[arg(long, env = "MAIL_FROM")]
    pub mail_from: Option<String>,
    /// Where webhooks are sent; none are when it is left out
    #[arg(long, env = "WEBHOOK_URL", hide_env_values = true)]
    pub webhook_url: Option<String>,
    /// What webhooks are signed with: whsec_ and base64; several, with spaces in between, while it is changed
    #[arg(long, env = "WEBHOOK_SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,
    /// Seconds that a customer has to pay once stock is reserved [default: 900]
    #[arg(long, env = "PAYMENT_WINDOW_S")]
    pub payment_window_s: Option<String>,
    /// Seconds after an order was called off at which its charge is looked for again, separated by commas [default: 120,3600]
    #[arg(long, env = "CHARGE_CHECKS_S")]
    pub charge_checks_s: Option<String>,
    /// How many failures an event must have before it becomes a dead letter; those while others fail as well do not count [default: 10]
    #[arg(long, env = "RETRY_BUDGET_FAILURES")]
    pub retry_budget_failures: Option<String>,
    /// How many seconds must have passed since the first of these failures [default: 600]
    #[arg(long, env = "RETRY_BUDGET_S")]
    pub retry_budget_s: Option<String>,
    /// MiB that the cache of aggregates may take [default: 64]
    #[arg(long, env = "AGGREGATE_CACHE_MIB")]
    pub aggregate_cache_mib: Option<String>,
    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceFlags,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which reactors to run.
    pub only: Vec<String>,
    /// Where NATS is.
    pub nats: NatsAccess,
    /// Where to serve health and metrics.
    pub listen_addr: SocketAddr,
    /// The payment gateway.
    pub stripe_api_base: reqwest::Url,
    /// The gateway's secret key.
    pub stripe_api_key: ApiKey,
    /// Where mail goes.
    pub postbox: PostboxSettings,
    /// The sender of mail.
    pub mail_from: Mailbox,
    /// Where webhooks go, and what they are signed with.
    pub webhooks: Option<(reqwest::Url, WebhookSecrets)>,
    /// How long a customer has to pay.
    pub payment_window: Duration,
    /// When the charge of an order that was called off is looked for again.
    pub charge_checks: Vec<Duration>,
    /// How often an event is tried.
    pub retry_budget: RetryBudget,
    /// Memory that the cache of aggregates may take.
    pub aggregate_cache_bytes: usize,
    /// Where traces go, if they are recorded.
    pub traces: Option<TraceSettings>,
}

/// Where mail goes.
#[derive(Clone, Debug)]
pub enum PostboxSettings {
    /// Into this folder.
    Folder(PathBuf),
    /// To this server, with the text of a PEM file with certificates to trust.
    Server(reqwest::Url, Option<String>),
}

/// Every reactor there is.
pub const REACTORS: &[&str] = &[allocator::NAME, Payments::NAME, Notifications::NAME, Webhooks::NAME, Deadlines::NAME];

/// An `http` or `https` URL of a payment gateway.
pub fn stripe_api_base(text: &str) -> Result<reqwest::Url, String> {
    settings::http_url(text)?.parse().map_err(|error| format!("not a URL: {error}"))
}

/// A secret key that can be sent.
pub fn stripe_api_key(text: &str) -> Result<ApiKey, String> {
    let sendable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if sendable { Ok(ApiKey::new(text)) } else { Err("holds characters that no key has".to_owned()) }
}

fn postbox(
    mistakes: &mut Mistakes,
    mail_dir: Option<String>,
    smtp_url: Option<String>,
    smtp_ca_file: Option<String>,
) -> Option<PostboxSettings> {
    let is_given = |setting: &Option<String>| setting.as_ref().is_some_and(|text| !text.trim().is_empty());
    let has_server = is_given(&smtp_url);
    let server = mistakes.optional("SMTP_URL", smtp_url, None, |text| {
        // The cause may repeat parts of the URL, which may hold a password.
        text.parse::<reqwest::Url>().map(Some).map_err(|_| SmtpUrlError::Form.to_string())
    });
    let certificates = mistakes.optional("SMTP_CA_FILE", smtp_ca_file, None, |path| {
        fs::read_to_string(path).map(Some).map_err(|error| format!("cannot be read: {error}"))
    });
    if !has_server {
        return mistakes.required("MAIL_DIR", mail_dir, settings::path).map(PostboxSettings::Folder);
    }
    if is_given(&mail_dir) {
        mistakes.add("MAIL_DIR: mail goes either there or to SMTP_URL");
    }
    let server = server?;
    // Only whether it would do; who sends mail makes its own.
    if let Err(error) = SmtpServer::new(&server, certificates.as_deref(), "localhost") {
        mistakes.add(format!("SMTP_URL: {error}"));
    }
    Some(PostboxSettings::Server(server, certificates))
}

fn webhooks(mistakes: &mut Mistakes, url: Option<String>, secret: Option<String>) -> Option<(reqwest::Url, WebhookSecrets)> {
    let is_given = |setting: &Option<String>| setting.as_ref().is_some_and(|text| !text.trim().is_empty());
    if !is_given(&url) && !is_given(&secret) {
        return None;
    }
    let url = mistakes
        .required("WEBHOOK_URL", url, |text| settings::http_url(text)?.parse::<reqwest::Url>().map_err(|_| "not a URL".to_owned()));
    let secrets = mistakes.required("WEBHOOK_SECRET", secret, WebhookSecrets::parse);
    Some((url?, secrets?))
}

impl RunArgs {
    /// Checks everything and lists all mistakes at once.
    pub fn check(self) -> Result<Settings, SettingsError> {
        let mut mistakes = Mistakes::new();
        for name in &self.only {
            if !REACTORS.contains(&name.as_str()) {
                mistakes.add(format!("--only: {name:?} is not a reactor; there are {}", REACTORS.join(", ")));
            }
        }
        let only = if self.only.is_empty() { REACTORS.iter().map(ToString::to_string).collect() } else { self.only.clone() };
        let nats = self.nats.required(&mut mistakes);
        let listen_addr = mistakes.required("LISTEN_ADDR", self.listen_addr, settings::listen_addr);
        let stripe_api_base = mistakes.required("STRIPE_API_BASE", self.stripe_api_base, stripe_api_base);
        let stripe_api_key = mistakes.required("STRIPE_API_KEY", self.stripe_api_key, stripe_api_key);
        let postbox = postbox(&mut mistakes, self.mail_dir, self.smtp_url, self.smtp_ca_file);
        let mail_from = mistakes.required("MAIL_FROM", self.mail_from, |text| {
            text.parse::<Mailbox>().map_err(|error| format!("not a mail address: {error}"))
        });
        let webhooks = webhooks(&mut mistakes, self.webhook_url, self.webhook_secret);
        if self.only.iter().any(|only| only == Webhooks::NAME) && webhooks.is_none() {
            mistakes.add(format!("--only: {} needs WEBHOOK_URL", Webhooks::NAME));
        }
        let payment_window_s = mistakes.optional("PAYMENT_WINDOW_S", self.payment_window_s, PAYMENT_WINDOW_S, seconds_up_to_a_year);
        let charge_checks = mistakes.optional("CHARGE_CHECKS_S", self.charge_checks_s, CHARGE_CHECKS.to_vec(), |text| {
            let mut checks = text.split(',').map(|seconds| seconds_up_to_a_year(seconds.trim())).collect::<Result<Vec<_>, _>>()?;
            checks.sort_unstable();
            Ok(checks.into_iter().map(Duration::from_secs).collect())
        });
        let budget = RetryBudget::default();
        let retry_budget_failures = mistakes.optional(
            "RETRY_BUDGET_FAILURES",
            self.retry_budget_failures,
            budget.failures,
            |text| match settings::number::<u32>(text)? {
                failures @ 1.. => Ok(failures),
                other => Err(format!("{other} is less than 1")),
            },
        );
        let retry_budget_s =
            mistakes.optional("RETRY_BUDGET_S", self.retry_budget_s, budget.time.as_secs(), settings::number::<u64>);
        let aggregate_cache_bytes =
            mistakes.optional("AGGREGATE_CACHE_MIB", self.aggregate_cache_mib, CACHE_BYTES, settings::mebibytes);
        let traces = self.traces.check(&mut mistakes);
        telemetry::logs::check_filter(&mut mistakes);
        match (nats, listen_addr, stripe_api_base, stripe_api_key, postbox, mail_from) {
            (Some(nats), Some(listen_addr), Some(stripe_api_base), Some(stripe_api_key), Some(postbox), Some(mail_from)) => {
                mistakes.finish()?;
                let payment_window = Duration::from_secs(payment_window_s);
                Ok(Settings {
                    only,
                    nats,
                    listen_addr,
                    stripe_api_base,
                    stripe_api_key,
                    postbox,
                    mail_from,
                    webhooks,
                    payment_window,
                    charge_checks,
                    retry_budget: RetryBudget { failures: retry_budget_failures, time: Duration::from_secs(retry_budget_s) },
                    aggregate_cache_bytes,
                    traces,
                })
            }
            _ => Err(mistakes.finish().expect_err("a setting that is not there was listed as a mistake")),
        }
    }
}

fn seconds_up_to_a_year(text: &str) -> Result<u64, String> {
    match settings::number::<u64>(text)? {
        seconds @ 1..=31_536_000 => Ok(seconds),
        other => Err(format!("{other} is not between 1 and 31536000 seconds")),
    }
}
