//! What every Contrail process does the same way: settings, logs, metrics, health, drain and exit codes.
//!
//! A service's `main` reads in this order:
//!
//! ```no_run
//! use telemetry::{drain::Drain, exit::Exit, health::Health, metrics::Metrics, settings::{self, Mistakes}};
//!
//! const SERVICE: &str = "greeter";
//!
//! #[tokio::main]
//! async fn main() -> Exit {
//!     telemetry::logs::init(SERVICE);
//!     telemetry::memory::use_small_pages();
//!     let mut mistakes = Mistakes::new();
//!     let listen_addr = mistakes.required("LISTEN_ADDR", std::env::var("LISTEN_ADDR").ok(), settings::listen_addr);
//!     if let Err(error) = mistakes.finish() {
//!         eprintln!("{error}");
//!         return Exit::Usage;
//!     }
//!     let listen_addr = listen_addr.expect("finish() refuses a missing setting");
//!
//!     let (health, metrics, drain) = (Health::new(SERVICE), Metrics::new(SERVICE), Drain::on_signals());
//!     health.drain_with(&drain);
//!     let Ok(listener) = tokio::net::TcpListener::bind(listen_addr).await else { return Exit::Failed };
//!     let router = telemetry::http::operations(health, metrics);
//!     match telemetry::http::serve(listener, router, drain).await {
//!         Ok(()) => Exit::Done,
//!         Err(_) => Exit::Failed,
//!     }
//! }
//! ```
//!
//! This crate knows nothing about orders, NATS or Postgres, and no part of it talks to another host but to the collector of traces.

pub mod output;
pub mod settings;

pub mod logs;

pub mod trace;

pub mod memory;

pub mod exemplars;
pub mod gauges;
pub mod metrics;

pub mod health;
mod process;

pub mod drain;

pub mod http;

pub mod exit;
