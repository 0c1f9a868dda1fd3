//! What `reactors run` needs to be told, checked before anything starts.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use event_store::CACHE_BYTES;
use lettre::message::Mailbox;
use telemetry::settings::{self, Mistakes, SettingsError};

use crate::{
    allocator,
    notifications::Notifications,
    payments::{Payments, stripe::ApiKey},
    reactor::Reactor as _,
};

/// How long a customer has to pay once stock is reserved, unless said otherwise.
const PAYMENT_WINDOW_S: u64 = 15 * 60;

/// Flags and environment variables, as given.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Run only these reactors, separated by commas; a wrong name lists the right ones
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Where NATS is, for example nats://127.0.0.1:4222
    #[arg(long, env = "NATS_URL")]
    pub nats_url: Option<String>,
    /// Where to serve /health, /ready and /metrics, for example 127.0.0.1:9103
    #[arg(long, env = "LISTEN_ADDR")]
    pub listen_addr: Option<String>,
    /// The payment gateway, for example https://api.stripe.com
    #[arg(long, env = "STRIPE_API_BASE")]
    pub stripe_api_base: Option<String>,
    /// The gateway's secret key
    #[arg(long, env = "STRIPE_API_KEY", hide_env_values = true)]
    pub stripe_api_key: Option<String>,
    /// The folder that mail is written to
    #[arg(long, env = "MAIL_DIR")]
    pub mail_dir: Option<String>,
    /// The sender of mail, for example orders@shop.example
    #[arg(long, env = "MAIL_FROM")]
    pub mail_from: Option<String>,
    /// Seconds that a customer has to pay once stock is reserved [default: 900]
    #[arg(long, env = "PAYMENT_WINDOW_S")]
    pub payment_window_s: Option<String>,
    /// MiB that the cache of aggregates may take [default: 64]
    #[arg(long, env = "AGGREGATE_CACHE_MIB")]
    pub aggregate_cache_mib: Option<String>,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which reactors to run.
    pub only: Vec<String>,
    /// Where NATS is.
    pub nats_url: String,
    /// Where to serve health and metrics.
    pub listen_addr: SocketAddr,
    /// The payment gateway.
    pub stripe_api_base: reqwest::Url,
    /// The gateway's secret key.
    pub stripe_api_key: ApiKey,
    /// The folder that mail is written to.
    pub mail_dir: PathBuf,
    /// The sender of mail.
    pub mail_from: Mailbox,
    /// How long a customer has to pay.
    pub payment_window: Duration,
    /// Memory that the cache of aggregates may take.
    pub aggregate_cache_bytes: usize,
}

/// Every reactor there is.
pub const REACTORS: &[&str] = &[allocator::NAME, Payments::NAME, Notifications::NAME];

impl RunArgs {
    /// Checks everything and lists all mistakes at once.
    pub fn check(self) -> Result<Settings, SettingsError> {
        let mut mistakes = Mistakes::new();
        for name in &self.only {
            if !REACTORS.contains(&name.as_str()) {
                mistakes.add(format!("--only: {name:?} is not a reactor; there are {}", REACTORS.join(", ")));
            }
        }
        let only = if self.only.is_empty() { REACTORS.iter().map(ToString::to_string).collect() } else { self.only };
        let nats_url = mistakes.required("NATS_URL", self.nats_url, settings::nats_url);
        let listen_addr = mistakes.required("LISTEN_ADDR", self.listen_addr, settings::listen_addr);
        let stripe_api_base = mistakes.required("STRIPE_API_BASE", self.stripe_api_base, |text| {
            settings::http_url(text)?.parse::<reqwest::Url>().map_err(|error| error.to_string())
        });
        let stripe_api_key = mistakes.required("STRIPE_API_KEY", self.stripe_api_key, |text| {
            let sendable = text.bytes().all(|byte| byte.is_ascii_graphic());
            if sendable { Ok(ApiKey::new(text)) } else { Err("holds characters that no key has".to_owned()) }
        });
        let mail_dir = mistakes.required("MAIL_DIR", self.mail_dir, settings::path);
        let mail_from = mistakes.required("MAIL_FROM", self.mail_from, |text| {
            text.parse::<Mailbox>().map_err(|error| format!("not a mail address: {error}"))
        });
        let payment_window_s = mistakes.optional("PAYMENT_WINDOW_S", self.payment_window_s, PAYMENT_WINDOW_S, |text| {
            match settings::number::<u64>(text)? {
                seconds @ 1..=31_536_000 => Ok(seconds),
                other => Err(format!("{other} is not between 1 and 31536000 seconds")),
            }
        });
        let aggregate_cache_bytes =
            mistakes.optional("AGGREGATE_CACHE_MIB", self.aggregate_cache_mib, CACHE_BYTES, settings::mebibytes);
        match (nats_url, listen_addr, stripe_api_base, stripe_api_key, mail_dir, mail_from) {
            (Some(nats_url), Some(listen_addr), Some(stripe_api_base), Some(stripe_api_key), Some(mail_dir), Some(mail_from)) => {
                mistakes.finish()?;
                let payment_window = Duration::from_secs(payment_window_s);
                Ok(Settings {
                    only,
                    nats_url,
                    listen_addr,
                    stripe_api_base,
                    stripe_api_key,
                    mail_dir,
                    mail_from,
                    payment_window,
                    aggregate_cache_bytes,
                })
            }
            _ => Err(mistakes.finish().expect_err("a setting that is not there was listed as a mistake")),
        }
    }
}
