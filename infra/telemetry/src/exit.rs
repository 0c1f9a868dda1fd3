//! The exit codes of every Contrail command.

use std::process::{ExitCode, Termination};

/// How a command ended. Scripts branch on these numbers, so they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to.
    Done = 0,
    /// It failed; the reason is on stderr.
    Failed = 1,
    /// Arguments or settings are missing or wrong.
    Usage = 2,
    /// What was asked for does not exist.
    NotFound = 3,
    /// The state of things does not allow it.
    Conflict = 4,
    /// Data is not what it was signed or recorded as.
    Integrity = 5,
    /// A dependency is away; the same command may succeed later (`EX_TEMPFAIL` of sysexits.h).
    TryAgain = 75,
    /// A second signal cut the drain short (128 + SIGINT, as shells have it).
    Interrupted = 130,
}

impl Exit {
    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Lets `main` return an [`Exit`].
impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}
