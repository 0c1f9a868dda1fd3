//! The command line, and the check of what each command needs.

use std::time::Duration;

use clap::{
    Args, Parser, Subcommand,
    builder::{NonEmptyStringValueParser, PossibleValuesParser},
};
use event_store::{NatsAccess, NatsArgs};
use reactors::{
    dead_letters::{LetterName, Selection},
    payments::stripe::ApiKey,
    reconcile::Scope,
    settings::{REACTORS, RunArgs, stripe_api_base, stripe_api_key},
};
use telemetry::{
    output::Output,
    settings::{Mistakes, SettingsError},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The side effects of Contrail: allocate stock, charge, notify
#[derive(Parser)]
#[command(name = "reactors", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the reactors until SIGTERM
    Run(Box<RunArgs>),
    /// Compare the log with the gateway's own account of charges and refunds; exit code 5 if they differ
    Reconcile(ReconcileArgs),
    /// What the reactors gave up on: look at it, have it tried again, or discard it
    DeadLetters {
        #[command(subcommand)]
        command: Box<LettersCommand>,
    },
}

#[derive(Args)]
pub(crate) struct ReconcileArgs {
    /// Only what happened at this time or later, as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<OffsetDateTime>,
    /// Seconds for which what has happened is left alone, because it may be on its way
    #[arg(long, value_name = "S", default_value_t = SETTLE_S)]
    settle_s: u32,
    /// Mend what can be mended: record what was charged, give back what is owed or was charged twice
    #[arg(long)]
    pub(crate) fix: bool,
    /// The payment gateway, for example https://api.stripe.com
    #[arg(long, env = "STRIPE_API_BASE")]
    stripe_api_base: Option<String>,
    /// The gateway's secret key
    #[arg(long, env = "STRIPE_API_KEY", hide_env_values = true)]
    stripe_api_key: Option<String>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// A charge is recorded within moments; a process that was killed amid one is back within this.
const SETTLE_S: u32 = 60;

/// What [`ReconcileArgs`] come to.
pub(crate) struct ReconcileSettings {
    pub(crate) scope: Scope,
    pub(crate) stripe_api_base: reqwest::Url,
    pub(crate) stripe_api_key: ApiKey,
    pub(crate) nats: NatsAccess,
}

impl ReconcileArgs {
    pub(crate) fn check(self) -> Result<ReconcileSettings, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats = self.common.nats.required(&mut mistakes);
        let stripe_api_base = mistakes.required("STRIPE_API_BASE", self.stripe_api_base, stripe_api_base);
        let stripe_api_key = mistakes.required("STRIPE_API_KEY", self.stripe_api_key, stripe_api_key);
        mistakes.finish()?;
        let listed = "a missing setting was listed as a mistake";
        Ok(ReconcileSettings {
            scope: Scope { since: self.since, settle: Duration::from_secs(self.settle_s.into()) },
            stripe_api_base: stripe_api_base.expect(listed),
            stripe_api_key: stripe_api_key.expect(listed),
            nats: nats.expect(listed),
        })
    }
}

#[derive(Subcommand)]
pub(crate) enum LettersCommand {
    /// List dead letters, by position
    List(ListArgs),
    /// Show one with its event and the chain of errors
    Show(ShowArgs),
    /// Have running reactors handle the events again; exit code 1 if one is given up again, 75 if one cannot be tried now
    Redrive(RedriveArgs),
    /// Take dead letters away, and keep on record why
    Discard(DiscardArgs),
}

/// What every command on dead letters needs
#[derive(Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    nats: NatsArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl CommonArgs {
    /// Where the log is.
    pub(crate) fn check(self) -> Result<NatsAccess, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats = self.nats.required(&mut mistakes);
        mistakes.finish()?;
        Ok(nats.expect("a missing setting was listed as a mistake"))
    }
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) which: FilterArgs,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    /// Which one: payments-17, or the position if only one reactor gave up on that event
    #[arg(value_name = "ID")]
    pub(crate) name: LetterName,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct RedriveArgs {
    /// Only list what would be redriven
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) which: ChoiceArgs,
}

#[derive(Args)]
pub(crate) struct DiscardArgs {
    /// Why nothing has to be done about it
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
    /// Only list what would be discarded
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) which: ChoiceArgs,
}

/// Which dead letters, said on purpose
#[derive(Args)]
pub(crate) struct ChoiceArgs {
    /// These: payments-17, or 17 for whatever reactors gave up on that event
    #[arg(value_name = "ID")]
    names: Vec<LetterName>,
    /// All that there are
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

impl ChoiceArgs {
    pub(crate) fn check(self) -> Result<Selection, SettingsError> {
        let selection = Selection { names: self.names, ..self.filter.selection() };
        if selection.is_everything() != self.all {
            let mistake =
                if self.all { "leave out either it or what narrows it" } else { "name dead letters, narrow them, or say --all" };
            return Err(SettingsError { mistakes: vec![format!("--all: {mistake}")] });
        }
        Ok(selection)
    }
}

/// Which dead letters. Comes last wherever it is flattened: what follows would be listed under its heading.
#[derive(Args)]
#[command(next_help_heading = "Which dead letters")]
pub(crate) struct FilterArgs {
    /// Only what this reactor gave up on
    #[arg(long, value_parser = PossibleValuesParser::new(REACTORS))]
    reactor: Option<String>,
    /// Only events of this type, for example contrail.order.cancelled.v1, or undecodable
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events of the aggregate of this id, for example an order
    #[arg(long, alias = "order")]
    aggregate_id: Option<String>,
    /// Only where an error holds this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only what was given up at this time or later, as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    after: Option<OffsetDateTime>,
    /// Only what was given up earlier than this
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<OffsetDateTime>,
}

impl FilterArgs {
    pub(crate) fn selection(self) -> Selection {
        let Self { reactor, event_type, aggregate_id, error, after, before } = self;
        Selection { names: Vec::new(), reactor, event_type, aggregate_id, error, after, before }
    }
}

fn time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "must be a time such as 2026-11-20T12:00:00Z".to_owned())
}
