//! The stack on stand-ins for the services (`fake/service.py`) and on real servers. The real services have their tests in infra/e2e.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use local_stack::Durability;
use local_stack::process::Lifetime;
use local_stack::running::Running;
use local_stack::stack::{self, AlreadyRunning, SERVICES, Stack, StackOptions};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

/// A folder for a stack, with binaries; what detached processes remain in it when a test fails are killed with it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binaries = folder.path().join("bin");
        fs::create_dir(&binaries).unwrap();
        let fake = binaries.join("fake.py");
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake/service.py"), &fake).unwrap();
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
        for name in SERVICES {
            symlink(&fake, binaries.join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("stack")
    }

    fn options(&self) -> StackOptions {
        StackOptions {
            durability: Durability::PageCache,
            binaries: Some(self.0.path().join("bin")),
            ..StackOptions::new(self.path())
        }
    }

    fn start(&self) -> Stack {
        Stack::start(self.options(), |_| {}).unwrap()
    }

    fn break_service(&self, name: &str) {
        let binary = self.0.path().join("bin").join(name);
        fs::remove_file(&binary).unwrap();
        fs::write(&binary, "#!/bin/sh\necho 'LISTEN_ADDR: is wrong' >&2\nexit 2\n").unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = stack::kill_processes(&self.path());
        let _ = stack::remove_data(&self.path());
    }
}

fn answers(url: &str) -> bool {
    TcpStream::connect(url.rsplit(['/', '@']).next().unwrap()).is_ok()
}

fn alive(pids: impl IntoIterator<Item = u32>) -> Vec<u32> {
    pids.into_iter().filter(|pid| Running::now(*pid).is_some()).collect()
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}

#[test]
fn every_process_runs_and_is_listed_and_is_gone_after_a_shutdown() {
    let folder = Folder::new();
    let stack = folder.start();
    let info = stack.info().clone();
    assert_eq!(info, stack::read_info(&folder.path()).unwrap().unwrap());
    let names: Vec<&str> = info.pids.keys().map(String::as_str).collect();
    assert_eq!(names, ["command-api", "nats", "payment-simulator", "postgres", "projectors", "query-api", "reactors"]);
    for url in [&info.command_api, &info.query_api, &info.projectors, &info.reactors, &info.payment_simulator, &info.nats] {
        assert!(answers(url), "{url}");
    }
    assert_eq!(info.audit_vkey, "contrail/EVENTS+key");
    let mode = fs::metadata(folder.path().join("stack.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "stack.json has the database password");

    stack.shut_down().unwrap();
    assert_eq!(alive(info.pids.into_values()), Vec::<u32>::new());
    assert!(!exists(&folder.path().join("stack.json")));
}

#[test]
fn a_killed_service_comes_back_on_its_port() {
    let folder = Folder::new();
    let mut stack = folder.start();
    for name in ["command-api", "nats", "postgres"] {
        let before = stack.info().clone();
        stack.kill(name).unwrap();
        assert!(!stack.info().pids.contains_key(name));
        stack.start_again(name).unwrap();
        assert_ne!(stack.info().pids[name], before.pids[name]);
        assert_eq!(stack.info().command_api, before.command_api);
        assert!(answers(&stack.info().command_api) && answers(&stack.info().nats));
    }
    stack.stop("query-api").unwrap();
    assert!(!answers(&stack.info().query_api));
    stack.shut_down().unwrap();
}

#[test]
fn a_service_that_ends_by_itself_is_noticed() {
    let folder = Folder::new();
    let mut stack = folder.start();
    assert!(stack.ended().is_empty());
    let process = Running::now(stack.info().pids["reactors"]).unwrap();
    process.kill();
    let ended: Vec<&str> = stack.ended().into_iter().map(|(name, _)| name).collect();
    assert_eq!(ended, ["reactors"]);
    stack.start_again("reactors").unwrap();
    assert!(stack.ended().is_empty());
}

#[test]
fn a_second_stack_in_the_same_folder_is_refused() {
    let folder = Folder::new();
    let stack = folder.start();
    let refused = Stack::start(folder.options(), |_| {}).unwrap_err();
    assert!(refused.is::<AlreadyRunning>(), "{refused:#}");
    assert!(stack::ensure_not_running(&folder.path()).is_err());
    drop(stack);
    stack::ensure_not_running(&folder.path()).unwrap();
}

#[tokio::test]
async fn a_stack_continues_with_the_data_and_the_ports_of_the_earlier_one() {
    let folder = Folder::new();
    let stack = folder.start();
    let before = stack.info().clone();
    let mut connection = PgConnection::connect(&before.database).await.unwrap();
    sqlx::raw_sql("CREATE TABLE things (id int)").execute(&mut connection).await.unwrap();
    stack.shut_down().unwrap();

    let stack = folder.start();
    let after = stack.info().clone();
    assert_eq!(after.database, before.database, "same port, same password");
    assert_eq!((after.nats, after.command_api), (before.nats, before.command_api));
    let mut connection = PgConnection::connect(&after.database).await.unwrap();
    sqlx::raw_sql("SELECT * FROM things").execute(&mut connection).await.unwrap();
}

#[test]
fn a_service_that_does_not_start_is_named_with_its_log_and_nothing_is_left_running() {
    let folder = Folder::new();
    folder.break_service("query-api");
    for lifetime in [Lifetime::Tied, Lifetime::Detached] {
        let error = Stack::start(StackOptions { lifetime, ..folder.options() }, |_| {}).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains("query-api ended") && message.contains("LISTEN_ADDR: is wrong"), "{message}");
        stack::ensure_not_running(&folder.path()).unwrap();
        assert!(!exists(&folder.path().join("stack.json")));
    }
}

#[test]
fn a_detached_stack_outlives_its_handle_until_it_is_taken_down() {
    let folder = Folder::new();
    let stack = Stack::start(StackOptions { lifetime: Lifetime::Detached, ..folder.options() }, |_| {}).unwrap();
    let info = stack.info().clone();
    stack.leave_running();
    assert_eq!(alive(info.pids.values().copied()).len(), info.pids.len());
    assert!(stack::ensure_not_running(&folder.path()).is_err());

    let ended = stack::take_down(&folder.path()).unwrap();
    assert_eq!(ended.len(), info.pids.len());
    assert!(ended.iter().all(|(_, by_itself)| *by_itself), "{ended:?}");
    assert_eq!(alive(info.pids.into_values()), Vec::<u32>::new());
    assert!(stack::take_down(&folder.path()).unwrap().is_empty());
}

#[test]
fn taking_down_a_stack_that_is_long_gone_harms_nobody() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path()).unwrap();
    // Our own pid, but of another process.
    let us = Running::now(std::process::id()).unwrap();
    let record =
        format!(r#"{{"owner":null,"processes":{{"nats":{{"pid":{},"started_ticks":{}}}}}}}"#, us.pid, us.started_ticks + 1);
    fs::write(folder.path().join("processes.json"), record).unwrap();
    assert!(stack::take_down(&folder.path()).unwrap().is_empty());
    assert!(!exists(&folder.path().join("processes.json")));
}

#[test]
fn a_stack_uses_the_servers_that_it_is_given() {
    let folder = Folder::new();
    let nats = local_stack::testing::nats();
    let database = local_stack::testing::database();
    let options =
        StackOptions { nats_url: Some(nats.url().to_owned()), database_url: Some(database.url().to_owned()), ..folder.options() };
    let mut stack = Stack::start(options, |_| {}).unwrap();
    assert_eq!((stack.info().nats.as_str(), stack.info().database.as_str()), (nats.url(), database.url()));
    assert!(!stack.info().pids.contains_key("nats") && !stack.info().pids.contains_key("postgres"));
    assert!(stack.kill("nats").is_err());
    stack.shut_down().unwrap();
}
