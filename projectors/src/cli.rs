//! The command line, and the check of what each command needs.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use projectors::{
    audit::{export::Destination, key::Signer},
    migrate,
    output::Output,
    replay::Purpose,
    settings::{BULK_POOL, Database, DatabaseArgs, KeyArgs, NatsArgs, POOL, RunArgs},
};
use read_store::projections::ProjectionName;
use telemetry::settings::{self, Mistakes, SettingsError};

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
    /// Create the streams and the schema, or bring them up to date
    Migrate(MigrateArgs),
    /// Prove that the trail of events is complete and unchanged
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Write the trail to a file, with a signed checkpoint beside it
    Export(ExportArgs),
    /// Check an exported file offline; exit code 5 if it is not what was signed
    Verify(VerifyArgs),
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
    pub(crate) fn check(self) -> Result<(Database, Option<String>), SettingsError> {
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
    #[arg(long)]
    verify: bool,
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
        if self.verify { Purpose::Verify } else { Purpose::Swap }
    }

    pub(crate) fn check(self) -> Result<(String, Database), SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats_url = self.nats.required(&mut mistakes);
        let database = self.database.required(BULK_POOL, &mut mistakes);
        mistakes.finish()?;
        Ok((nats_url.expect(CHECKED), database.expect(CHECKED)))
    }
}

#[derive(Args, Debug)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How many servers hold each stream: 1, 3 or 5
    #[arg(long, env = "EVENTS_REPLICAS")]
    events_replicas: Option<String>,
    /// How long to wait for NATS and Postgres, in seconds
    #[arg(long, default_value_t = migrate::WAIT_S_DEFAULT)]
    wait_s: u64,
}

pub(crate) struct MigrateSettings {
    pub(crate) nats_url: String,
    pub(crate) database: Database,
    pub(crate) replicas: usize,
    pub(crate) wait: Duration,
}

impl MigrateArgs {
    pub(crate) fn check(self) -> Result<MigrateSettings, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats_url = self.nats.required(&mut mistakes);
        let database = self.database.required(BULK_POOL, &mut mistakes);
        let replicas = mistakes.optional("EVENTS_REPLICAS", self.events_replicas, 1, |text| match settings::number(text)? {
            replicas @ (1 | 3 | 5) => Ok(replicas),
            _ => Err("must be 1, 3 or 5".to_owned()),
        });
        mistakes.finish()?;
        Ok(MigrateSettings {
            nats_url: nats_url.expect(CHECKED),
            database: database.expect(CHECKED),
            replicas,
            wait: Duration::from_secs(self.wait_s),
        })
    }
}

/// The shape of an exported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One event per line, exactly as it is stored
    Jsonl,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// The shape of the file
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// The file to write, or - for standard output
    #[arg(long)]
    out: PathBuf,
    /// Where to write the signed checkpoint; by default beside the file, as FILE.checkpoint
    #[arg(long)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The last position to export; by default the last one of the trail
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) to_position: Option<u64>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl ExportArgs {
    pub(crate) fn destination(&self) -> Destination {
        if self.out.as_os_str() == "-" { Destination::Stdout } else { Destination::File(self.out.clone()) }
    }

    pub(crate) fn check(self) -> Result<(Database, Signer), SettingsError> {
        let mut mistakes = Mistakes::new();
        let database = self.database.required(BULK_POOL, &mut mistakes);
        let signer = self.key.required(&mut mistakes);
        mistakes.finish()?;
        Ok((database.expect(CHECKED), signer.expect(CHECKED)))
    }
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The exported file
    pub(crate) file: PathBuf,
    /// The verifier key that the checkpoint must be signed by, or a file that holds it
    #[arg(long)]
    pub(crate) key: String,
    /// The signed checkpoint; by default beside the file, as FILE.checkpoint
    #[arg(long)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

impl CheckpointArgs {
    pub(crate) fn check(self) -> Result<Database, SettingsError> {
        let mut mistakes = Mistakes::new();
        let database = self.database.required(POOL, &mut mistakes);
        mistakes.finish()?;
        Ok(database.expect(CHECKED))
    }
}

#[derive(Args, Debug)]
pub(crate) struct PrintKeyArgs {
    #[command(flatten)]
    key: KeyArgs,
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
}

/// Why a required setting is there.
const CHECKED: &str = "Mistakes::finish refuses when a required setting is missing";
