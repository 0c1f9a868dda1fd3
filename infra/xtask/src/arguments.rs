//! The command line.

use std::num::NonZeroUsize;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Runs, tests and checks Contrail in this checkout")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Start a private stack, place orders, check the invariants, take the stack down
    Demo(Demo),
    /// Start the whole system on this machine and keep it running
    Up(Up),
    /// Stop what `up` has started; its data stays
    Down(Down),
    /// Print a bearer token for the stack of this checkout
    Token(Token),
    /// Run the checks of `tidy` and all tests
    Test(Test),
    /// Let everything go wrong under load, at random, and check the invariants afterwards
    Chaos(Chaos),
    /// Measure, on servers of its own, each figure together with its limit
    Bench(Bench),
    /// Write docs/events: a JSON Schema of every stored event, and the AsyncAPI document of the log
    Catalogue,
    /// Check what a machine can check: dependency rules, golden files, documented commands, formatting, lints
    Tidy,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many orders to place
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub(crate) orders: u64,
    /// Orders per second; as fast as possible when left out
    #[arg(long, value_parser = rate, value_name = "R")]
    pub(crate) rate: Option<f64>,
    /// Print the result as one JSON object, on the last line of standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// For how long things go wrong
    #[arg(long, default_value_t = 5.0, value_parser = minutes, value_name = "M")]
    pub(crate) minutes: f64,
    /// Which things go wrong: the same for the same seed; another one each time when left out
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Orders per second
    #[arg(long, default_value_t = 50.0, value_parser = rate, value_name = "R")]
    pub(crate) rate: f64,
    /// How many NATS servers have the log: 1, or 3 that replicate it between them
    #[arg(long, default_value_t = 1, value_parser = replicas, value_name = "N")]
    pub(crate) replicas: u8,
    /// Let only that go wrong which has this word in its name, such as `kill`, `nats`, or `gateway`; may be given several times
    #[arg(long, value_name = "WORD")]
    pub(crate) only: Vec<String>,
    /// Print the result as one JSON object, on the last line of standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Return when everything is ready; `cargo xtask down` stops it
    #[arg(long)]
    pub(crate) detach: bool,
    /// Use this NATS server instead of starting one
    #[arg(long, env = "NATS_URL", value_name = "URL")]
    pub(crate) nats_url: Option<String>,
    /// Use this Postgres database instead of starting a server
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Remove all data too: every order is lost
    #[arg(long)]
    pub(crate) purge: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// What its bearer is: customer, service, operator or auditor
    #[arg(long, value_parser = local_stack::tokens::ROLES)]
    pub(crate) role: String,
    /// Who its bearer is; for a customer, the id that is in their orders [default: who has the role's token in stack.json]
    #[arg(long, value_parser = local_stack::tokens::subject)]
    pub(crate) sub: Option<String>,
    /// For how many seconds it is good
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
    pub(crate) ttl: u64,
    /// Whom it is for
    #[arg(long, default_value = local_stack::tokens::AUDIENCE)]
    pub(crate) audience: String,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Leave out the checks of `tidy`
    #[arg(long)]
    pub(crate) no_tidy: bool,
    /// What cargo-nextest gets, such as `-p domain` or a filter
    #[arg(last = true, value_name = "NEXTEST_ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure
    #[arg(value_enum)]
    pub(crate) name: ::bench::Benchmark,
    /// Print the result as one JSON object, on the last line of standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// How often limit and ours are measured, in turns; each figure is the median
    #[arg(long, default_value = "3", value_name = "N")]
    pub(crate) runs: NonZeroUsize,
    /// Short and small: whether it works, not how fast it is
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure only this case; can be repeated. A wrong one lists the right ones
    #[arg(long, value_name = "CASE")]
    pub(crate) case: Vec<String>,
    /// How many orders, where the benchmark is about a number of them
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub(crate) orders: Option<u64>,
    /// How many events, where the benchmark is about a number of them
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub(crate) events: Option<u64>,
    /// Hold this many orders per second, where the benchmark would look for the highest such rate
    #[arg(long, value_parser = rate, value_name = "R")]
    pub(crate) rate: Option<f64>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("orders per second must be more than 0".to_owned()) }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=1_440.0).contains(&minutes) { Ok(minutes) } else { Err("minutes must be between 0.1 and 1440".to_owned()) }
}

fn replicas(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("replicas must be 1 or 3".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        assert_eq!(rate("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "inf", "NaN", "fast"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
