//! `cargo xtask token`: a bearer token for the stack of this checkout.

use std::time::Duration;

use anyhow::Context as _;
use local_stack::stack;
use local_stack::tokens::{Claims, SUBJECTS};

use crate::arguments;

pub(crate) fn run(options: &arguments::Token) -> anyhow::Result<()> {
    let issuer = stack::token_issuer(&local_stack::data_directory())?;
    let usual = SUBJECTS.iter().find(|(role, _)| *role == options.role).map(|(_, subject)| *subject);
    let subject = options.sub.as_deref().or(usual).context("there is no such role")?;
    let lifetime = Duration::from_secs(options.ttl);
    println!("{}", issuer.token(Claims { role: &options.role, subject, audience: &options.audience, lifetime }));
    Ok(())
}
