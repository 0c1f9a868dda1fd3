//! The command line, and the check of what each command needs.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand,
    builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser},
};
use cqrs_es::Aggregate;
use domain::{notification::Notification, order::Order, payment::Payment, stock::Stock};
use projectors::{
    audit::{
        export::{Destination, Filter, Format, Request},
        key::{Signer, VerifierKey},
    },
    backup::{BackUp, Restore},
    migrate,
    replay::Purpose,
    settings::{BULK_POOL, Database, DatabaseArgs, KeyArgs, NatsAccess, NatsArgs, POOL, RunArgs},
};
use read_store::{pool::PoolSettings, projections::ProjectionName};
use telemetry::{
    output::Output,
    settings::{self, Mistakes, SettingsError},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Folds the event log into the read models, rebuilds them, and proves the audit trail
#[derive(Debug, Parser)]
#[command(name = "projectors", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep the read models up to date until SIGTERM
    Run(RunArgs),
    /// Show how far each projection is
    Status(StatusArgs),
    /// Rebuild a read model from the log beside the live one, and swap it in; or compare the two
    Replay(ReplayArgs),
    /// Let a halted projection go past the event that it cannot apply, and keep on record why
    Skip(SkipArgs),
    /// Create the streams and the schema, or bring them up to date
    Migrate(MigrateArgs),
    /// Back up the log with its queues, timers and dead letters, or restore them
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Prove that the trail of events is complete and unchanged
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Copy the log into a folder, while everything goes on; needs the rights of `migrate`
    Backup(BackupArgs),
    /// Restore the log from such a folder into a server that has none; needs the rights of `migrate`. No service should run meanwhile
    Restore(RestoreArgs),
}

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// The folder to write, which must be empty or not there; it appears once it is complete
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Put the audit trail's private key, AUDIT_KEY_FILE, into the folder as well: whoever has it can sign as you do
    #[arg(long)]
    with_keys: bool,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl BackupArgs {
    pub(crate) fn check(self) -> Result<BackUp, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats_url = self.nats.required(&mut mistakes);
        let database = self.database.optional(POOL, &mut mistakes);
        let key_file = if self.with_keys { self.key.required_file(&mut mistakes) } else { None };
        mistakes.finish()?;
        let pool = database.map(|database| database.pool);
        Ok(BackUp { nats_url: nats_url.expect(CHECKED), pool, out: self.out, key_file })
    }
}

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The folder that `backup` has written
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The verifier key that the signed head in the backup must be signed by, or a file that holds it
    #[arg(long)]
    key: Option<String>,
    /// How many servers hold each stream: 1, 3 or 5; by default as many as held it when it was backed up
    #[arg(long, env = "EVENTS_REPLICAS")]
    events_replicas: Option<String>,
    #[command(flatten)]
    nats: NatsArgs,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl RestoreArgs {
    pub(crate) fn check(self) -> Result<Restore, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats_url = self.nats.required(&mut mistakes);
        let replicas = mistakes.optional("EVENTS_REPLICAS", self.events_replicas, None, |text| replicas(text).map(Some));
        let key = mistakes.optional("--key", self.key, None, |text| {
            VerifierKey::from_argument(text).map(Some).map_err(|error| error.to_string())
        });
        mistakes.finish()?;
        Ok(Restore { nats_url: nats_url.expect(CHECKED), from: self.from, replicas, key })
    }
}

fn replicas(text: &str) -> Result<usize, String> {
    match settings::number(text)? {
        replicas @ (1 | 3 | 5) => Ok(replicas),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Write the trail to a file, with a signed checkpoint beside it
    Export(Box<ExportArgs>),
    /// Check an exported file offline, or with --live the table against the log; exit code 5 if it is not what was signed
    Verify(VerifyArgs),
    /// Prove that a later tree of the trail begins with an earlier one, so that nothing was taken back
    Consistency(ConsistencyArgs),
    /// Print the last signed checkpoint
    Checkpoint(CheckpointArgs),
    /// Print the verifier key that belongs to the private key
    Key(PrintKeyArgs),
    /// Make a private key, and print its verifier key
    Keygen(KeygenArgs),
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    nats: NatsArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl StatusArgs {
    pub(crate) fn check(self) -> Result<(Database, Option<NatsAccess>), SettingsError> {
        let mut mistakes = Mistakes::new();
        let database = self.database.required(POOL, &mut mistakes);
        let nats_url = self.nats.optional(&mut mistakes);
        mistakes.finish()?;
        Ok((database.expect(CHECKED), nats_url))
    }
}

/// What stands for every read model on the command line.
const ALL: &str = "all";

#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// Which read model
    #[arg(value_parser = PossibleValuesParser::new(ProjectionName::ALL.map(ProjectionName::as_str).into_iter().chain([ALL])))]
    projection: String,
    /// Compare with the live tables row by row and swap nothing; exit code 5 if they differ
    #[arg(long, conflicts_with_all = ["to_position", "abandon"])]
    verify: bool,
    /// With --verify: also write every difference to this file, one JSON object a line, however many there are
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) differences: Option<PathBuf>,
    /// Rebuild up to this position only: the live table goes back to there, and a running projector on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "abandon")]
    to_position: Option<u64>,
    /// Drop what an interrupted replay has left, and rebuild nothing
    #[arg(long)]
    pub(crate) abandon: bool,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl ReplayArgs {
    pub(crate) fn projections(&self) -> Vec<ProjectionName> {
        let is_selected = |name: &ProjectionName| self.projection == ALL || self.projection == name.as_str();
        ProjectionName::ALL.into_iter().filter(is_selected).collect()
    }

    pub(crate) fn purpose(&self) -> Purpose {
        match self.to_position {
            _ if self.verify => Purpose::Verify,
            Some(position) => Purpose::SwapAt(position),
            None => Purpose::Swap,
        }
    }

    /// Abandoning does not need the log.
    pub(crate) fn check_abandon(self) -> Result<Database, SettingsError> {
        database(self.database, BULK_POOL)
    }

    pub(crate) fn check(self) -> Result<(NatsAccess, Database), SettingsError> {
        log_and_database(self.nats, self.database)
    }
}

#[derive(Args, Debug)]
pub(crate) struct SkipArgs {
    /// Which projection
    #[arg(value_parser = PossibleValuesParser::new(ProjectionName::ALL.map(ProjectionName::as_str)).try_map(|name| name.parse::<ProjectionName>()))]
    pub(crate) projection: ProjectionName,
    /// Why the event need not be applied
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
    /// The event's position; refused if the projection stands before another
    #[arg(long)]
    pub(crate) position: Option<u64>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl SkipArgs {
    pub(crate) fn check(self) -> Result<Database, SettingsError> {
        database(self.database, POOL)
    }
}

#[derive(Args, Debug)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How many servers hold each stream: 1, 3 or 5; by default as many as hold it now, and one if it is new
    #[arg(long, env = "EVENTS_REPLICAS")]
    events_replicas: Option<String>,
    /// A role of Postgres that may read the read models and nothing else, for query-api
    #[arg(long, env = "READER_ROLE")]
    reader_role: Option<String>,
    /// How long to wait for NATS and Postgres, in seconds
    #[arg(long, default_value_t = migrate::WAIT_S_DEFAULT)]
    wait_s: u64,
}

pub(crate) struct MigrateSettings {
    pub(crate) nats_url: NatsAccess,
    pub(crate) database: Database,
    /// `None` leaves it as it is.
    pub(crate) replicas: Option<usize>,
    pub(crate) reader: Option<String>,
    pub(crate) wait: Duration,
}

impl MigrateArgs {
    pub(crate) fn check(self) -> Result<MigrateSettings, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats_url = self.nats.required(&mut mistakes);
        let database = self.database.required(BULK_POOL, &mut mistakes);
        let replicas = mistakes.optional("EVENTS_REPLICAS", self.events_replicas, None, |text| replicas(text).map(Some));
        mistakes.finish()?;
        Ok(MigrateSettings {
            nats_url: nats_url.expect(CHECKED),
            database: database.expect(CHECKED),
            replicas,
            reader: self.reader_role.filter(|role| !role.trim().is_empty()),
            wait: Duration::from_secs(self.wait_s),
        })
    }
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// The shape of the file
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The file to write, for its owner alone, or - for standard output
    #[arg(long)]
    out: PathBuf,
    /// Where to write the signed checkpoint; by default beside the file, as FILE.checkpoint
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Where to write the proofs, if events are left out; by default beside the file, as FILE.proof
    #[arg(long)]
    proof: Option<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Which events to export. Comes last where it is flattened: what follows would be listed under its heading.
#[derive(Args, Debug)]
#[command(next_help_heading = "Which events")]
struct FilterArgs {
    /// The first position to export
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    from_position: Option<u64>,
    /// The last position to export, and the size of the tree that is signed; by default the last one of the trail
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    to_position: Option<u64>,
    /// Only events appended at this time or later, as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    after: Option<OffsetDateTime>,
    /// Only events appended earlier than this
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<OffsetDateTime>,
    /// Only events of this kind of aggregate
    #[arg(long, value_parser = PossibleValuesParser::new([Order::TYPE, Stock::TYPE, Payment::TYPE, Notification::TYPE]))]
    aggregate_type: Option<String>,
    /// Only events of the aggregate of this id
    #[arg(long)]
    aggregate_id: Option<String>,
    /// Only events of this type, for example contrail.order.placed.v1
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events that this actor asked for, as role:subject
    #[arg(long)]
    actor: Option<String>,
    /// Only events of this story
    #[arg(long)]
    correlation_id: Option<String>,
}

impl FilterArgs {
    fn filter(self) -> Filter {
        let Self { from_position, to_position, after, before, aggregate_type, aggregate_id, event_type, actor, correlation_id } =
            self;
        Filter { from_position, to_position, after, before, aggregate_type, aggregate_id, event_type, actor, correlation_id }
    }
}

fn time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "must be a time such as 2026-11-20T12:00:00Z".to_owned())
}

impl ExportArgs {
    pub(crate) fn check(self) -> Result<(Database, Signer, Request), SettingsError> {
        let mut mistakes = Mistakes::new();
        let database = self.database.required(BULK_POOL, &mut mistakes);
        let signer = self.key.required(&mut mistakes);
        if let (Some(from), Some(to)) = (self.filter.from_position, self.filter.to_position)
            && from > to
        {
            mistakes.add(format!("--from-position: {from} is after --to-position {to}"));
        }
        mistakes.finish()?;
        let destination = if self.out.as_os_str() == "-" { Destination::Stdout } else { Destination::File(self.out) };
        let Self { format, checkpoint, proof, .. } = self;
        let request = Request { filter: self.filter.filter(), format, destination, checkpoint, proof };
        Ok((database.expect(CHECKED), signer.expect(CHECKED), request))
    }
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The exported file
    #[arg(required_unless_present = "live")]
    pub(crate) file: Option<PathBuf>,
    /// Hold the trail's table against the log itself, and both against every signed checkpoint
    #[arg(long, conflicts_with_all = ["file", "checkpoint", "proof"])]
    live: bool,
    /// The verifier key that the checkpoint must be signed by, or a file that holds it; without it, --live leaves signatures out
    #[arg(long, required_unless_present = "live")]
    pub(crate) key: Option<String>,
    /// The signed checkpoint; by default beside the file, as FILE.checkpoint
    #[arg(long)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The proofs of an export that leaves events out; by default beside the file, as FILE.proof. Of a checkpoint that does not
    /// state what part was exported, each line is checked by itself then, and nothing shows whether lines are missing
    #[arg(long)]
    pub(crate) proof: Option<PathBuf>,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl VerifyArgs {
    /// A file needs neither.
    pub(crate) fn check_live(self) -> Result<(NatsAccess, Database), SettingsError> {
        log_and_database(self.nats, self.database)
    }
}

#[derive(Args, Debug)]
pub(crate) struct ConsistencyArgs {
    /// The earlier tree: how many events it has, or a file with its signed checkpoint
    #[arg(value_name = "SIZE|FILE")]
    pub(crate) old: String,
    /// The later tree; by default all that the trail has
    #[arg(value_name = "SIZE|FILE")]
    pub(crate) new: Option<String>,
    /// The verifier key that checkpoints in files must be signed by, or a file that holds it
    #[arg(long)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print the proof
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl ConsistencyArgs {
    pub(crate) fn check(self) -> Result<Database, SettingsError> {
        database(self.database, BULK_POOL)
    }
}

#[derive(Args, Debug)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print it; as JSON it is an object with one field
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl CheckpointArgs {
    pub(crate) fn check(self) -> Result<Database, SettingsError> {
        database(self.database, POOL)
    }
}

#[derive(Args, Debug)]
pub(crate) struct PrintKeyArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// How to print it; as JSON it is an object with one field
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl PrintKeyArgs {
    pub(crate) fn check(self) -> Result<Signer, SettingsError> {
        let mut mistakes = Mistakes::new();
        let signer = self.key.required(&mut mistakes);
        mistakes.finish()?;
        Ok(signer.expect(CHECKED))
    }
}

#[derive(Args, Debug)]
pub(crate) struct KeygenArgs {
    /// The file to write; one that exists is never overwritten
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// How to print it; as JSON it is an object with one field
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

fn database(args: DatabaseArgs, limits: PoolSettings) -> Result<Database, SettingsError> {
    let mut mistakes = Mistakes::new();
    let database = args.required(limits, &mut mistakes);
    mistakes.finish()?;
    Ok(database.expect(CHECKED))
}

/// The log's address, and the database for commands that move much.
fn log_and_database(nats: NatsArgs, database: DatabaseArgs) -> Result<(NatsAccess, Database), SettingsError> {
    let mut mistakes = Mistakes::new();
    let nats_url = nats.required(&mut mistakes);
    let database = database.required(BULK_POOL, &mut mistakes);
    mistakes.finish()?;
    Ok((nats_url.expect(CHECKED), database.expect(CHECKED)))
}

/// Why a required setting is there.
const CHECKED: &str = "Mistakes::finish refuses when a required setting is missing";
