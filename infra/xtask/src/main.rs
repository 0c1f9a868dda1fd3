//! `cargo xtask demo|up|down|token|test|chaos|bench|catalogue|tidy`: everything that one does with this checkout, in one command each.
//!
//! Results go to standard output, progress to standard error. Exit codes: 0 done, 1 failed, 2 usage, 4 a stack is running already,
//! 130 interrupted.

mod arguments;
mod bench;
mod cargo;
mod catalogue;
mod chaos;
mod demo;
mod down;
mod interrupt;
mod own_stack;
mod progress;
mod test;
mod tidy;
mod token;
mod up;

use std::process::ExitCode;

use clap::Parser as _;
use local_stack::stack::AlreadyRunning;

use arguments::{Arguments, Task};
use cargo::Interrupted;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_FAILED: u8 = 1;
const EXIT_CONFLICT: u8 = 4;
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Up(options) => up::run(options),
        Task::Down(options) => down::run(&options),
        Task::Token(options) => token::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Chaos(options) => chaos::run(&options),
        Task::Bench(options) => bench::run(options),
        Task::Catalogue => catalogue::run(),
        Task::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<Interrupted>() {
                return ExitCode::from(EXIT_INTERRUPTED);
            }
            if error.is::<AlreadyRunning>() {
                eprintln!("`cargo xtask down` stops it.");
                return ExitCode::from(EXIT_CONFLICT);
            }
            ExitCode::from(EXIT_FAILED)
        }
    }
}
