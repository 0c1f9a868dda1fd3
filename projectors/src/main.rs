//! `projectors`: see `projectors --help`.

mod cli;

use std::{fmt, io};

use clap::Parser;
use projectors::{
    audit::{
        checkpoint::Checkpoint,
        consistency,
        export::{self, Destination},
        key::{Signer, VerifierKey},
        live, verify,
    },
    backup,
    failure::Failure,
    log, migrate,
    replay::{self, DifferenceLog, Replayer, Report},
    run,
    settings::SERVICE,
    skips, status,
};
use serde::Serialize;
use telemetry::{
    drain::Drain,
    exit::Exit,
    output::{self, Output},
};

use crate::cli::{AuditCommand, Cli, Command, ConsistencyArgs, ExportArgs, KeygenArgs, LogCommand, ReplayArgs, VerifyArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Exit {
    let cli = Cli::parse();
    telemetry::logs::init(SERVICE);
    telemetry::memory::use_small_pages();
    match dispatch(cli.command).await {
        Ok(exit) => exit,
        Err(failure) => {
            let exit = failure.exit();
            eprintln!("error: {:#}", anyhow::Error::new(failure));
            exit
        }
    }
}

async fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(args) => {
            let settings = args.check()?;
            run::run(settings, Drain::on_signals()).await?;
        }
        Command::Status(args) => {
            let output = args.output;
            let (database, nats_url) = args.check()?;
            let projections = status::status(&database.pool, nats_url.as_ref()).await?;
            return Ok(output::print(status::render(&projections, output), Exit::Done));
        }
        Command::Replay(args) => return replay(args).await,
        Command::Skip(args) => {
            let (projection, position, reason, output) = (args.projection, args.position, args.reason.clone(), args.output);
            let database = args.check()?;
            let skipped = skips::skip(&database.pool, projection, position, &reason).await?;
            return Ok(output::print(skips::render(&skipped, output), Exit::Done));
        }
        Command::Migrate(args) => {
            let settings = args.check()?;
            let reader = settings.reader.as_deref();
            migrate::migrate(&settings.nats_url, &settings.database, settings.replicas, reader, settings.wait).await?;
        }
        Command::Log { command } => return backup_or_restore(command).await,
        Command::Audit { command } => return audit(command).await,
    }
    Ok(Exit::Done)
}

/// Neither leaves anything that looks complete when a signal comes first.
async fn backup_or_restore(command: LogCommand) -> Result<Exit, Failure> {
    let done = match command {
        LogCommand::Backup(args) => {
            let output = args.output;
            let request = args.check()?;
            let done = unless_interrupted(Box::pin(backup::back_up(&request))).await?;
            backup::render(&done, output)
        }
        LogCommand::Restore(args) => {
            let output = args.output;
            let request = args.check()?;
            let done = unless_interrupted(Box::pin(backup::restore(&request))).await?;
            backup::render(&done, output)
        }
    };
    Ok(output::print(done, Exit::Done))
}

/// Gives `work` up when a signal comes first; what it leaves then is its own affair.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let drain = Drain::on_signals();
    tokio::select! {
        () = drain.started() => Err(Failure::Interrupted),
        outcome = work => outcome,
    }
}

/// What was built is kept when a signal comes first.
async fn replay(args: ReplayArgs) -> Result<Exit, Failure> {
    let (projections, purpose, output) = (args.projections(), args.purpose(), args.output);
    if args.abandon {
        let database = args.check_abandon()?;
        let abandoned = Replayer::abandon(&database.options, &projections).await?;
        return Ok(output::print(replay::render_abandoned(&abandoned, output), Exit::Done));
    }
    let cannot_write = |error| Failure::Other { doing: "write the differences".to_owned(), cause: io::Error::into(error) };
    let file = args.differences.clone();
    let (nats_url, database) = args.check()?;
    let differences = file.as_deref().map(DifferenceLog::open).transpose().map_err(cannot_write)?;
    let all = async {
        let mut replayer = Replayer::new(log::connect(&nats_url).await?, database.options);
        if let Some(differences) = &differences {
            replayer = replayer.with_differences_in(differences.clone());
        }
        replayer.replay_all(&projections, purpose).await
    };
    let outcomes = unless_interrupted(all).await?;
    differences.map_or(Ok(()), |differences| differences.finish()).map_err(cannot_write)?;
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(report) => reports.push(report),
            Err(failure) => failures.push(failure),
        }
    }
    let found = if reports.iter().all(Report::agrees) { Exit::Done } else { Exit::Integrity };
    let exit = output::print(replay::render(&reports, output), found);
    // All failures are told; the last by whoever gets it, whose exit code is the command's.
    let last = failures.pop();
    for failure in failures {
        eprintln!("error: {:#}", anyhow::Error::new(failure));
    }
    last.map_or(Ok(exit), Err)
}

async fn audit(command: AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Export(args) => audit_export(*args).await,
        AuditCommand::Verify(args) => audit_verify(args).await,
        AuditCommand::Consistency(args) => audit_consistency(args).await,
        AuditCommand::Checkpoint(args) => {
            let output = args.output;
            let database = args.check()?;
            Ok(print_text("checkpoint", &export::last_note(&database.pool).await?, output))
        }
        AuditCommand::Key(args) => {
            let output = args.output;
            Ok(print_text("vkey", &args.check()?.verifier_key(), output))
        }
        AuditCommand::Keygen(args) => Ok(print_text("vkey", &keygen(&args)?.verifier_key(), args.output)),
    }
}

/// A text that is the same for people and for programs.
fn print_text(name: &str, text: &impl ToString, output: Output) -> Exit {
    let printed = match output {
        Output::Json => serde_json::json!({ name: text.to_string() }).to_string(),
        Output::Table => text.to_string(),
    };
    output::print(printed, Exit::Done)
}

async fn audit_export(args: ExportArgs) -> Result<Exit, Failure> {
    let output = args.output;
    let (database, signer, request) = args.check()?;
    // No part of a file is left when a signal comes first.
    let exported = unless_interrupted(export::export(&database.pool, &signer, &request)).await?;
    let summary = match output {
        Output::Json => serde_json::to_string(&exported).expect("a summary has string keys"),
        Output::Table => exported.to_string(),
    };
    match request.destination {
        Destination::Stdout => {
            eprintln!("{summary}");
            Ok(Exit::Done)
        }
        Destination::File(_) => Ok(output::print(summary, Exit::Done)),
    }
}

async fn audit_verify(args: VerifyArgs) -> Result<Exit, Failure> {
    let output = args.output;
    let key = args.key.as_deref().map(VerifierKey::from_argument).transpose();
    let key = key.map_err(|error| Failure::usage("--key", &error))?;
    match (&args.file, key) {
        (Some(file), Some(key)) => {
            let checkpoint = args.checkpoint.clone().unwrap_or_else(|| export::checkpoint_path(file));
            let verdict = verify::verify(file, &checkpoint, args.proof.as_deref(), &key)?;
            Ok(print_verdict(&verdict, verdict.verified, output))
        }
        (_, key) => {
            let (nats_url, database) = args.check_live()?;
            let verify = async { live::verify(&log::connect(&nats_url).await?, &database.pool, key.as_ref()).await };
            let verdict = unless_interrupted(Box::pin(verify)).await?;
            Ok(print_verdict(&verdict, verdict.verified, output))
        }
    }
}

async fn audit_consistency(args: ConsistencyArgs) -> Result<Exit, Failure> {
    let output = args.output;
    let key = args.key.as_deref().map(VerifierKey::from_argument).transpose();
    let key = key.map_err(|error| Failure::usage("--key", &error))?;
    let old = Tree::named(&args.old, key.as_ref())?;
    let new = args.new.as_deref().map(|new| Tree::named(new, key.as_ref())).transpose()?;
    let database = args.check()?;
    let proof = unless_interrupted(consistency::prove(&database.pool, old.size(), new.as_ref().map(Tree::size))).await?;
    for (tree, head) in [(Some(old), &proof.old), (new, &proof.new)] {
        if let Some(Tree::Signed { file, checkpoint }) = tree
            && checkpoint.root_in_base64() != head.root
        {
            let size = checkpoint.size;
            return Err(Failure::Integrity(format!("the trail's first {size} events do not have the root that {file} has signed")));
        }
    }
    let proof = match output {
        Output::Json => serde_json::to_string(&proof).expect("a proof has string keys"),
        Output::Table => proof.to_string(),
    };
    Ok(output::print(proof, Exit::Done))
}

/// A tree, as it is named on the command line.
enum Tree {
    Size(u64),
    Signed { file: String, checkpoint: Checkpoint },
}

impl Tree {
    fn named(argument: &str, key: Option<&VerifierKey>) -> Result<Self, Failure> {
        if let Ok(size) = argument.parse() {
            return Ok(Self::Size(size));
        }
        let key = key.ok_or_else(|| Failure::usage("--key", &MissingKey))?;
        let note = std::fs::read_to_string(argument).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::NotFound(format!("{argument} does not exist")),
            _ => Failure::Other { doing: format!("read {argument}"), cause: error.into() },
        })?;
        let checkpoint = Checkpoint::open(&note, key).map_err(|error| Failure::Integrity(format!("{argument}: {error}")))?;
        Ok(Self::Signed { file: argument.to_owned(), checkpoint })
    }

    fn size(&self) -> u64 {
        match self {
            Self::Size(size) => *size,
            Self::Signed { checkpoint, .. } => checkpoint.size,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("is needed to know who has signed a checkpoint")]
struct MissingKey;

fn print_verdict(verdict: &(impl Serialize + fmt::Display), verified: bool, output: Output) -> Exit {
    let verdict = match output {
        Output::Json => serde_json::to_string(verdict).expect("a verdict has string keys"),
        Output::Table => verdict.to_string(),
    };
    output::print(verdict, if verified { Exit::Done } else { Exit::Integrity })
}

fn keygen(args: &KeygenArgs) -> Result<Signer, Failure> {
    let path = args.out.display();
    Signer::generate(&args.out).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Conflict(format!("{path} exists already and is kept")),
        _ => Failure::Other { doing: format!("write {path}"), cause: error.into() },
    })
}
