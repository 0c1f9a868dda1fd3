//! nats-server, Postgres and the services as private processes of one checkout or one test.
//!
//! - [`testing`] gives a test its own nats-server and its own Postgres database, gone when the test ends.
//! - [`stack::Stack`] is the whole system as separate processes, for `cargo xtask up`, for `demo` and for kill tests.
//! - [`nats::NatsServer`] and [`postgres::PostgresServer`] are the two servers on their own: start, kill, start again.
//!
//! Everything listens on 127.0.0.1 only. Unless a stack is detached, no process outlives the one that started it, not even
//! when that one is killed with SIGKILL (see [`process`]).
//!
//! The functions block their thread while they wait, so that they can be used in `Drop` and in plain tests. In async code
//! with other work in flight, use a multi-threaded runtime and `tokio::task::block_in_place`.

pub mod nats;
pub mod postgres;
pub mod stack;

pub mod testing;
pub mod tokens;
pub mod toolchain;

pub mod process;
pub mod running;

mod account;
mod checkout;
mod durability;
mod entropy;
mod port;
mod probe;
mod scratch;

pub use checkout::{data_directory, workspace_root};
pub use durability::Durability;
pub use scratch::TEST_RUN_VARIABLE;
pub use stack::{Stack, StackInfo, StackOptions};
