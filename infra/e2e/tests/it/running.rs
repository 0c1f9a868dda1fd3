//! A stack for one test: started with the test, gone with it.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use e2e::eventually::eventually;
use e2e::invariants::{self, Report};
use e2e::load::Counters;
use e2e::shop::{Customer, Line, NewOrder, Shop};
use local_stack::running::Running as Process;
use local_stack::stack::{self, SERVICES, Stack, StackOptions};
use local_stack::{Durability, StackInfo};
use sqlx::{Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::task::{JoinHandle, block_in_place};

/// How long a shop may take to place the orders that a test waits for, while it waits itself for a process that has just come back.
const FLOW_DEADLINE: Duration = Duration::from_mins(2);
/// Lines of a service's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 25;

/// A running stack and a shop on it. Needs a runtime with several threads, because a stack blocks while it waits.
pub(crate) struct Running {
    pub(crate) stack: Option<Stack>,
    pub(crate) shop: Shop,
    folder: TempDir,
}

impl Running {
    /// Starts one whose acknowledged appends survive the death of any process.
    pub(crate) fn start() -> Self {
        Self::start_with(Durability::PageCache)
    }

    /// Starts one.
    pub(crate) fn start_with(durability: Durability) -> Self {
        Self::start_as(|options| options.durability = durability)
    }

    /// Starts one whose acknowledged appends survive the death of any process, after `change` has changed what it is started with.
    pub(crate) fn start_as(change: impl FnOnce(&mut StackOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = StackOptions { durability: Durability::PageCache, ..StackOptions::new(folder.path().join("stack")) };
        change(&mut options);
        let stack = block_in_place(|| Stack::start(options, |_| {})).unwrap_or_else(|error| panic!("no stack: {error:#}"));
        let shop = Shop::new(stack.info()).unwrap();
        Self { stack: Some(stack), shop, folder }
    }

    pub(crate) fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("it is there until the end")
    }

    pub(crate) fn info(&self) -> &StackInfo {
        self.stack().info()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, name: &str) {
        block_in_place(|| self.stack_mut().kill(name)).unwrap();
    }

    /// SIGTERM; fails unless the process ends with 0 in time.
    pub(crate) fn stop(&mut self, name: &str) {
        block_in_place(|| self.stack_mut().stop(name)).unwrap_or_else(|error| panic!("{name} did not drain: {error:#}"));
    }

    /// Starts a process without waiting for it to be ready.
    pub(crate) fn spawn(&mut self, name: &str) {
        block_in_place(|| self.stack_mut().spawn(name)).unwrap();
    }

    /// Starts a process and waits until it is ready.
    pub(crate) fn start_again(&mut self, name: &str) {
        block_in_place(|| self.stack_mut().start_again(name))
            .unwrap_or_else(|error| panic!("{name} does not come back: {error:#}"));
    }

    /// Waits until a process is ready.
    pub(crate) fn wait_until_ready(&mut self, name: &str) {
        block_in_place(|| self.stack_mut().wait_until_ready(name)).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    /// Everything of DESIGN §13, once the system is at rest.
    pub(crate) async fn check_invariants(&self) -> Report {
        let report = invariants::check(self.stack(), &self.shop).await.unwrap_or_else(|error| panic!("{error:#}"));
        report.ensure_none_violated().unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!((report.lost, report.duplicated, report.oversold, report.audit_verified), (0, 0, 0, true));
        report
    }

    /// Loses the log and the read models with all their data, and starts again without them: the keys, the gateway's account and what
    /// customers were sent stay.
    pub(crate) async fn lose_all_data(&mut self) {
        for service in SERVICES {
            self.stop(service);
        }
        let database = self.info().database.clone();
        let options: PgConnectOptions = database.parse().unwrap();
        let name = options.get_database().unwrap();
        let mut admin = PgConnection::connect_with(&options.clone().database("postgres")).await.unwrap();
        admin.execute(format!("DROP DATABASE {name} WITH (FORCE)").as_str()).await.unwrap();
        admin.close().await.unwrap();
        self.restart_as(|_| (), |directory| fs::remove_dir_all(directory.join("nats")).unwrap());
    }

    /// Stops everything, does `between` with the folder, and starts everything again, after `change` has changed what it is started with.
    pub(crate) fn restart_as(&mut self, change: impl FnOnce(&mut StackOptions), between: impl FnOnce(&Path)) {
        let stack = self.stack.take().expect("it is there until the end");
        let directory = stack.directory().to_owned();
        block_in_place(|| stack.shut_down()).unwrap_or_else(|error| panic!("the stack does not stop cleanly: {error:#}"));
        between(&directory);
        let mut options = StackOptions { durability: Durability::PageCache, ..StackOptions::new(directory) };
        change(&mut options);
        let stack = block_in_place(|| Stack::start(options, |_| {})).unwrap_or_else(|error| panic!("no stack: {error:#}"));
        self.shop = Shop::new(stack.info()).unwrap();
        self.stack = Some(stack);
    }

    /// Takes the stack down, and makes sure that nothing of it is left.
    pub(crate) fn finish(mut self) {
        let stack = self.stack.take().expect("it is there until now");
        let info = stack.info().clone();
        let directory = stack.directory().to_owned();
        block_in_place(|| stack.shut_down()).unwrap_or_else(|error| panic!("the stack does not stop cleanly: {error:#}"));
        for (name, pid) in &info.pids {
            assert!(Process::now(*pid).is_none(), "{name} still runs");
        }
        let urls = [&info.command_api, &info.query_api, &info.projectors, &info.reactors, &info.payment_simulator, &info.nats];
        let mut addresses: Vec<_> = urls.iter().filter_map(|url| url.rsplit(['/', '@']).next()).collect();
        // postgres://user:password@address/database
        addresses.extend(info.database.rsplit('@').next().and_then(|rest| rest.split('/').next()));
        assert_eq!(addresses.len(), urls.len() + 1);
        for address in addresses {
            assert!(TcpStream::connect(address).is_err(), "somebody still listens on {address}");
        }
        stack::remove_data(&directory).unwrap();
        for name in ["postgres", "audit-key.pem", "auth-key.pem", "passwords.json"] {
            assert!(!directory.join(name).exists(), "{name} is left");
        }
    }

    fn stack_mut(&mut self) -> &mut Stack {
        self.stack.as_mut().expect("it is there until the end")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(stack) = self.stack.take() else { return };
        let directory = stack.directory().to_owned();
        if std::thread::panicking() {
            eprintln!("the stack was in {}", self.folder.path().display());
            for name in SERVICES {
                show_log(name, &stack.log(name));
            }
        }
        drop(stack);
        // Postgres may keep its data elsewhere.
        let _ = stack::remove_data(&directory);
    }
}

fn show_log(name: &str, log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("\"level\":\"DEBUG\"")).collect();
    eprintln!("--- the end of the log of {name}");
    lines.iter().rev().take(LOG_LINES_SHOWN).rev().for_each(|line| eprintln!("{line}"));
}

/// Waits until so many more orders are placed. Fails when the load ends before that.
pub(crate) async fn orders_flow<T>(counters: &Counters, load: &JoinHandle<T>, more: u64) {
    let target = counters.now().placed + more;
    let flowing = eventually("orders are placed", FLOW_DEADLINE, async || {
        Ok((counters.now().placed >= target || load.is_finished()).then_some(()))
    });
    flowing.await.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!load.is_finished(), "the load ended too early");
}

/// An order of `quantity` pieces of one SKU, with a card that works.
pub(crate) fn order_of(sku: &str, quantity: u32) -> NewOrder {
    NewOrder {
        customer: Customer { id: "c-1".to_owned(), email: "ada@example.com".to_owned(), name: "Ada".to_owned() },
        currency: "EUR".to_owned(),
        lines: vec![Line { sku: sku.to_owned(), quantity, unit_price_minor: 1_250 }],
        payment_method: "pm_card_visa".to_owned(),
    }
}
