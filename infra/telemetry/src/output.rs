//! How a command prints its data.

use std::{
    fmt,
    io::{self, Write as _},
};

use clap::ValueEnum;

use crate::exit::Exit;

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON document in one line.
    Json,
}

/// Prints `text`, which ends in a line break afterwards, on stdout, and returns how the command ends that found out `exit`.
///
/// A reader that has seen enough, such as `head`, is no failure. Where stdout takes no more for another reason, stderr says so, and a command
/// that was [`Exit::Done`] has failed: what another one found out is not hidden by that.
#[must_use = "the command ends with it"]
pub fn print(text: impl fmt::Display, exit: Exit) -> Exit {
    match write(&mut io::stdout().lock(), &text.to_string()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // Nobody is left to be told if this fails, too.
            let _ = writeln!(io::stderr(), "error: write to stdout: {error}");
            if exit == Exit::Done { Exit::Failed } else { exit }
        }
        Ok(()) | Err(_) => exit,
    }
}

fn write(out: &mut impl io::Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}
