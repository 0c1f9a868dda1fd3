//! What a service is told about its callers.

use std::{net::SocketAddr, num::NonZeroU32};

use telemetry::settings::{self, Mistakes};

pub use crate::{
    keys::KeySource,
    rate::{CUSTOMER_REQUESTS_PER_S_DEFAULT, RateLimits},
};

/// What tokens must name as their audience, unless set otherwise.
pub const AUDIENCE_DEFAULT: &str = "contrail";

/// The settings as they came in, by flags or environment.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AuthFlags {
    /// Keys that callers' tokens are signed with: a file or an http(s) URL with a JSON Web Key Set
    #[arg(long, env = "AUTH_JWKS", hide_env_values = true)]
    pub auth_jwks: Option<String>,
    /// What tokens must name as their audience [default: contrail]
    #[arg(long, env = "AUTH_AUDIENCE")]
    pub auth_audience: Option<String>,
    /// What tokens must name as their issuer; any if left out
    #[arg(long, env = "AUTH_ISSUER")]
    pub auth_issuer: Option<String>,
    /// Ask nobody who they are; only with a loopback LISTEN_ADDR
    #[arg(long, env = "AUTH_DISABLED", num_args = 0..=1, default_missing_value = "true")]
    pub auth_disabled: Option<String>,
    /// Requests per second of one customer; 0 is no limit [default: 50]
    #[arg(long, env = "CUSTOMER_REQUESTS_PER_S")]
    pub customer_requests_per_s: Option<String>,
    /// Requests per second of one service, operator or auditor; 0 is no limit [default: 0]
    #[arg(long, env = "STAFF_REQUESTS_PER_S")]
    pub staff_requests_per_s: Option<String>,
}

/// How callers are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthSettings {
    /// Not at all.
    Disabled,
    /// By tokens that are signed with these keys.
    Keys {
        /// Where the keys are.
        source: KeySource,
        /// What tokens must name as their audience.
        audience: String,
        /// What tokens must name as their issuer.
        issuer: Option<String>,
        /// How often a caller may come.
        limits: RateLimits,
    },
}

impl AuthFlags {
    /// Checks them, for a service that listens there. What is wrong is in `mistakes`; the value is then of no use.
    pub fn check(self, listen_addr: Option<SocketAddr>, mistakes: &mut Mistakes) -> AuthSettings {
        let source = mistakes.optional("AUTH_JWKS", self.auth_jwks.clone(), None, |value| crate::keys::key_source(value).map(Some));
        let has_keys = self.auth_jwks.is_some_and(|value| !value.trim().is_empty());
        // `None` is a mistake that is listed by now.
        let is_disabled =
            mistakes.optional("AUTH_DISABLED", self.auth_disabled.clone(), None, |value| settings::bool_flag(value).map(Some));
        let is_disabled = is_disabled.or(self.auth_disabled.is_none_or(|value| value.trim().is_empty()).then_some(false));
        let audience =
            mistakes.optional("AUTH_AUDIENCE", self.auth_audience, AUDIENCE_DEFAULT.to_owned(), |value| Ok(value.to_owned()));
        let issuer = mistakes.optional("AUTH_ISSUER", self.auth_issuer, None, |value| Ok(Some(value.to_owned())));
        let customer = NonZeroU32::new(CUSTOMER_REQUESTS_PER_S_DEFAULT);
        let limits = RateLimits {
            customer: mistakes.optional("CUSTOMER_REQUESTS_PER_S", self.customer_requests_per_s, customer, per_s),
            staff: mistakes.optional("STAFF_REQUESTS_PER_S", self.staff_requests_per_s, None, per_s),
        };
        match (source, has_keys, is_disabled) {
            (_, true, Some(true)) => mistakes.add("AUTH_DISABLED: must not be true when AUTH_JWKS says whom to let in"),
            (Some(source), ..) => return AuthSettings::Keys { source, audience, issuer, limits },
            (None, false, Some(false)) => mistakes.add(
                "AUTH_JWKS: missing: a file or URL with the keys of callers' tokens; or set AUTH_DISABLED=true to ask nobody, on a \
                 loopback LISTEN_ADDR",
            ),
            (None, false, Some(true)) if listen_addr.is_some_and(|address| !address.ip().is_loopback()) => mistakes.add(
                "LISTEN_ADDR: must be a loopback address such as 127.0.0.1:8080, because AUTH_DISABLED=true lets everybody in",
            ),
            // Why keys that are set cannot be read was said above.
            (None, true, Some(false)) | (None, false, Some(true)) | (None, _, None) => {}
        }
        AuthSettings::Disabled
    }
}

fn per_s(value: &str) -> Result<Option<NonZeroU32>, String> {
    settings::number(value).map(NonZeroU32::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: AuthFlags, listen_addr: &str) -> Result<AuthSettings, String> {
        let mut mistakes = Mistakes::new();
        let settings = flags.check(Some(listen_addr.parse().unwrap()), &mut mistakes);
        mistakes.finish().map(|()| settings).map_err(|error| error.to_string())
    }

    const LOOPBACK: &str = "127.0.0.1:0";

    #[test]
    fn nobody_is_let_in_unasked_from_other_machines() {
        let disabled = AuthFlags { auth_disabled: Some("true".to_owned()), ..AuthFlags::default() };
        assert_eq!(check(disabled.clone(), LOOPBACK), Ok(AuthSettings::Disabled));
        assert!(check(disabled, "0.0.0.0:80").is_err_and(|mistake| mistake.contains("LISTEN_ADDR: must be a loopback address")));
        assert!(check(AuthFlags::default(), LOOPBACK).is_err_and(|mistake| mistake.contains("AUTH_JWKS: missing")));
    }

    #[test]
    fn keys_and_no_keys_contradict_each_other() {
        let both = AuthFlags {
            auth_disabled: Some("true".to_owned()),
            auth_jwks: Some("https://example.com/jwks".to_owned()),
            ..AuthFlags::default()
        };
        assert!(check(both, LOOPBACK).is_err_and(|mistake| mistake.contains("AUTH_DISABLED: must not be true")));
    }

    #[test]
    fn keys_that_cannot_be_read_are_a_mistake() {
        let flags = AuthFlags { auth_jwks: Some("/no/such/file.json".to_owned()), ..AuthFlags::default() };
        let mistake = check(flags, LOOPBACK).unwrap_err();
        assert!(
            mistake.contains("AUTH_JWKS: the file with the callers' keys cannot be read") && !mistake.contains("missing:"),
            "{mistake}"
        );
    }

    #[test]
    fn keys_at_a_url_serve_every_address() {
        let flags = AuthFlags {
            auth_jwks: Some("https://example.com/jwks".to_owned()),
            customer_requests_per_s: Some("0".to_owned()),
            ..AuthFlags::default()
        };
        let expected = AuthSettings::Keys {
            source: KeySource::Url("https://example.com/jwks".to_owned()),
            audience: AUDIENCE_DEFAULT.to_owned(),
            issuer: None,
            limits: RateLimits { customer: None, staff: None },
        };
        assert_eq!(check(flags, "0.0.0.0:80"), Ok(expected));
    }
}
